"""Whether a grant was signed by the engine's key, in which form, and which of its fields that covers.

How a signature is made: RSASSA-PKCS1-v1_5 with SHA-256 over Python's ``json.dumps(..., indent=4)`` of some fields of
the grant. Which fields has changed over time; each way is a `SigningForm`. Source: wire facts, section 4.

One RSA operation recovers the digest that a signature was made over. It is compared with the digest of each form's
text, so that many forms cost no more than one; a match is then confirmed by cryptography's own ``verify``. Nothing here
fetches a key or decides what becomes of a grant.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import unhexlify
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, TypeVar, final

from .errors import InvalidValue
from .forms import FORMS, SigningForm, Written, text_of
from .messages import Grant
from .signature import KeyLike, Keys, PublicKey, load_keys
from .verdicts import NO_KEY, NO_SIGNATURE, OFF, Reason, SignatureMode, Verdict

_Opened: TypeAlias = tuple[PublicKey, bytes, bytes]
"""What a key makes of a signature: the key, the decoded signature, the digest it was made over."""


def _decode(signature: str, keys: tuple[PublicKey, ...]) -> list[tuple[PublicKey, bytes]]:
    """The bytes of `signature` for each key that they are long enough for: from hex, or canonical base64.

    The length decides which: base64 is what the engine sends, hex what Vast's page shows.
    """
    decoded = []
    for key in keys:
        try:
            if len(signature) == 2 * key.size:
                decoded.append((key, unhexlify(signature)))
            elif len(signature) == 4 * ((key.size + 2) // 3):
                raw = b64decode(signature, validate=True)
                # A second spelling of the same bytes, or of one byte more or less, is nobody's honest base64.
                if len(raw) == key.size and b64encode(raw).decode() == signature:
                    decoded.append((key, raw))
        except ValueError:
            continue
    return decoded


def _malformed(signature: str, keys: tuple[PublicKey, ...]) -> Verdict:
    sizes = " or ".join(str(size) for size in sorted({key.size for key in keys}))
    detail = f"the signature's {len(signature)} characters are neither canonical base64 nor hex of {sizes} bytes"
    return Verdict(reason=Reason.MALFORMED, detail=detail)


def _open(decoded: list[tuple[PublicKey, bytes]]) -> tuple[_Opened, ...]:
    """What the keys make of a signature, whatever the grant's fields say. Empty if none of them made it."""
    return tuple((key, raw, digest) for key, raw in decoded if (digest := key.recover(raw)) is not None)


def _match(opened: tuple[_Opened, ...], fields: Mapping[str, Any], forms: tuple[SigningForm, ...]) -> Verdict:
    """The verdict on a grant with these `fields`, whose signature is known to be by the keys in `opened`."""
    from hashlib import sha256
    from hmac import compare_digest

    if not opened:
        return Verdict(reason=Reason.NO_MATCH, detail="the signature was not made with a known key")
    written = Written(fields)
    for form in forms:
        text = text_of(form, written)
        if text is None:
            continue
        found = sha256(text).digest()
        for key, signature, digest in opened:
            if compare_digest(found, digest) and key.verifies(signature, text):
                fields_covered = ", ".join(form.covers)
                note = "" if form.seen else " (a form that was documented but never seen)"
                return Verdict(
                    reason=Reason.VERIFIED,
                    form=form.name,
                    covers=form.covers,
                    key=key.fingerprint,
                    detail=f"form {form.name}, which covers {fields_covered}{note}",
                )
    return Verdict(
        reason=Reason.NO_MATCH,
        key=opened[0][0].fingerprint,
        detail="the signature was made with a known key, but over a text in no known form",
    )


def _check_forms(forms: Iterable[SigningForm]) -> tuple[SigningForm, ...]:
    table = tuple(forms)
    if not table or not all(isinstance(form, SigningForm) for form in table):
        raise InvalidValue("forms must be SigningForm values, at least one")
    if len({form.name for form in table}) != len(table):
        raise InvalidValue("forms must not share a name: a verdict names the form")
    return table


_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


def _remember(memory: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> None:
    if most:
        memory[key] = value
        if len(memory) > most:
            memory.popitem(last=False)


@final
class Verifier:
    """Checks the signatures of many grants with the same keys, and remembers what repeats.

    `keys` is one key or several, each as `PublicKey.load` takes it; without any, every verdict is `Reason.NO_KEY`.
    `forms` are tried in their order. `memory` is how many signatures, and how many verdicts, are remembered; then the
    oldest go, and 0 remembers nothing. All raise `InvalidValue` if they cannot be used.

    The verdicts are those of `verify`; only the time differs. What a key makes of a signature is remembered per
    signature, so that a signature in no known form costs RSA once. A verdict is remembered per signature and URL where
    the first form covers the URL alone, as the engine signs now: then the second look at a worker is one look-up.

    Use it from one thread at a time.
    """

    __slots__ = ("_by_url", "_forms", "_keys", "_memory", "_mode", "_opened", "_verdicts")

    def __init__(
        self,
        keys: Keys = (),
        *,
        mode: SignatureMode = SignatureMode.REPORT,
        forms: Iterable[SigningForm] = FORMS,
        memory: int = 1024,
    ) -> None:
        if not isinstance(mode, SignatureMode):
            raise InvalidValue("mode must be a SignatureMode")
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise InvalidValue("memory must be a whole number of at least 0")
        self._keys = load_keys(keys)
        self._mode = mode
        self._forms = _check_forms(forms)
        self._memory = memory
        self._opened: OrderedDict[str, tuple[_Opened, ...]] = OrderedDict()
        self._verdicts: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        # Only the first form's verdict may be remembered by URL: of a later one, an earlier form could match instead.
        self._by_url = memory > 0 and self._forms[0].covers == ("url",)

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """The keys; a grant is verified if any of them signed it."""
        return self._keys

    @property
    def mode(self) -> SignatureMode:
        """What the caller wants. Only `SignatureMode.OFF` changes what `check` does: refusing is for its caller."""
        return self._mode

    @property
    def forms(self) -> tuple[SigningForm, ...]:
        """The forms that are tried, in this order."""
        return self._forms

    def add_key(self, key: KeyLike) -> None:
        """Take one more key: the engine's once it was fetched, or its next one while the old is still in use.

        Raises `InvalidValue`, and then nothing changes.
        """
        self._keys = load_keys((*self._keys, key))
        self._opened.clear()
        self._verdicts.clear()

    def with_keys(self, keys: Keys) -> Verifier:
        """The same with other keys, and with nothing remembered. Raises `InvalidValue`."""
        return Verifier(keys, mode=self._mode, forms=self._forms, memory=self._memory)

    def check(self, grant: Grant | Mapping[str, Any]) -> Verdict:
        """The verdict on a `grant`, or on a mapping of a grant's parsed fields with ``signature`` among them.

        No grant makes it raise: what is odd about one ends as a verdict. Raises `InvalidValue` if `grant` is neither.
        """
        if self._mode is SignatureMode.OFF:
            return OFF
        if not self._keys:
            return NO_KEY
        if isinstance(grant, Grant):
            fields = grant.fields
        elif isinstance(grant, Mapping):
            fields = grant
        else:
            raise InvalidValue(f"give a Grant or a mapping of its fields, not {type(grant).__name__}")
        signature = fields.get("signature")
        if not isinstance(signature, str):
            return NO_SIGNATURE
        url = fields.get("url")
        if not self._by_url or not isinstance(url, str):
            return self._judge(signature, fields)
        verdict = self._verdicts.get((signature, url))
        if verdict is None:
            verdict = self._judge(signature, fields)
            if verdict.form == self._forms[0].name:
                _remember(self._verdicts, (signature, url), verdict, self._memory)
        return verdict

    def _judge(self, signature: str, fields: Mapping[str, Any]) -> Verdict:
        opened = self._opened.get(signature)
        if opened is None:
            decoded = _decode(signature, self._keys)
            if not decoded:
                return _malformed(signature, self._keys)
            opened = _open(decoded)
            _remember(self._opened, signature, opened, self._memory)
        return _match(opened, fields, self._forms)

    def __repr__(self) -> str:
        return f"Verifier({self._keys!r}, mode={self._mode})"

    def __reduce__(self) -> Any:
        # What is remembered holds signatures, and they go nowhere.
        return partial(Verifier, mode=self._mode, forms=self._forms, memory=self._memory), (self._keys,)


def verify(grant: Grant | Mapping[str, Any], keys: Keys, *, forms: Iterable[SigningForm] = FORMS) -> Verdict:
    """The verdict on one grant's signature: the form that verified and the fields it covers, or why none did.

    `grant` is a `Grant` or a mapping of its parsed fields; `keys` is one key or several, each as `PublicKey.load`
    takes it; `forms` are tried in their order. Keeps nothing: for many grants, make a `Verifier`.

    Raises `InvalidValue` if an argument cannot be used, never for what a grant holds.
    """
    return Verifier(keys, forms=forms, memory=0).check(grant)
