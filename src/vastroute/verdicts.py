"""What a caller wants of signatures, and what was found out about one. The check is in `vastroute.verification`."""

from __future__ import annotations

from enum import Enum

import attrs


class SignatureMode(Enum):
    """What a caller wants of signatures."""

    OFF = "off"
    """Not checked."""
    REPORT = "report"
    """Checked, and the verdict is part of the result; the default, because production has been reported to sign in no
    known form (wire facts, section 4)."""
    REQUIRE = "require"
    """A grant that is not verified is refused."""


class Reason(Enum):
    """Why a verdict is what it is."""

    VERIFIED = "verified"
    """The signature is the engine's, over the fields that the verdict names."""
    OFF = "off"
    """Checks are switched off."""
    NO_KEY = "no key"
    """There is no key to check with."""
    MALFORMED = "malformed"
    """The signature is missing, or not written as one by any of the keys would be."""
    NO_MATCH = "no match"
    """The signature was made with another key, or over a text in none of the forms."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What was found out about one grant's signature. It never holds the signature."""

    reason: Reason
    form: str | None = None
    """The name of the form that verified."""
    covers: tuple[str, ...] = ()
    """The grant's fields that the signature vouches for; all others are only the connection's word."""
    key: str | None = None
    """The fingerprint of the key that made the signature; also known where no form matched."""
    detail: str = ""
    """The same for people."""

    @property
    def verified(self) -> bool:
        """Whether the engine's key vouches for `covers`."""
        return self.reason is Reason.VERIFIED

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}"


OFF = Verdict(reason=Reason.OFF, detail="signatures are not checked")
NO_KEY = Verdict(reason=Reason.NO_KEY, detail="the engine's public key is not known")
NO_SIGNATURE = Verdict(reason=Reason.MALFORMED, detail="the grant has no signature, or it is not text")
