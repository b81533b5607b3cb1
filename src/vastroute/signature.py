"""Whether a grant was signed by the engine's key, in which form, and which of its fields that covers.

Here live the signing forms as a table, public keys, verdicts, and the check. Nothing here fetches a key or decides
what becomes of a grant. This is the only module of the core that imports cryptography, and it does so when a key is
loaded or used: forms, modes and verdicts cost nothing to import.

How a signature is made: RSASSA-PKCS1-v1_5 with SHA-256 over Python's ``json.dumps(..., indent=4)`` of some fields of
the grant. Which fields has changed over time; each way is a `SigningForm`. Source: wire facts, section 4.

One RSA operation recovers the digest that a signature was made over. It is compared with the digest of each form's
text, so that many forms cost no more than one; a match is then confirmed by cryptography's own ``verify``.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from binascii import unhexlify
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Mapping
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, final

import attrs

from .errors import InvalidValue
from .messages import Grant

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey


# --- the forms ---------------------------------------------------------------------------------------------------


def _pairs(fields: Iterable[str | tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    if isinstance(fields, str):
        raise InvalidValue(f"fields must be a sequence of names, not one text: ({fields!r},)")
    pairs = tuple((each, each) if isinstance(each, str) else each for each in fields)
    if not pairs or not all(isinstance(pair, tuple) and [type(name) for name in pair] == [str, str] for pair in pairs):
        raise InvalidValue("fields must be names, or pairs of a label in the signed text and a field of the grant")
    if len({label for label, _ in pairs}) != len(pairs):
        raise InvalidValue("fields must not repeat a label: one JSON object cannot hold it twice")
    if any(field == "signature" for _, field in pairs):
        raise InvalidValue("fields must not hold the signature: it cannot be part of what it signs")
    return pairs


@attrs.frozen(kw_only=True)
class SigningForm:
    """One way to make the signed text out of a grant: which fields, under which labels, in which order."""

    name: str
    fields: tuple[tuple[str, str], ...] = attrs.field(converter=_pairs)
    """Pairs of a label in the signed text and the grant's field it stands for, in the order of the text.

    A plain name is short for a field that is its own label. A form with sorted keys lists them sorted.
    """
    since: str | None = None
    """The first day it was in use, as far as known."""
    until: str | None = None
    """The last day, or None: still in use."""
    source: str = ""
    """How it is known."""
    seen: bool = True
    """Whether anything is known to have signed so; False for a form that only stands in documents."""
    covers: tuple[str, ...] = attrs.field(init=False, eq=False, repr=False)
    """The grant's fields whose values the signature vouches for."""
    template: str = attrs.field(init=False, eq=False, repr=False)
    """The signed text with ``%s`` in place of each value's JSON."""

    @covers.default
    def _make_covers(self) -> tuple[str, ...]:
        return tuple(field for _, field in self.fields)

    @template.default
    def _make_template(self) -> str:
        labels = (json.dumps(label).replace("%", "%%") for label, _ in self.fields)
        return "{\n" + ",\n".join(f"    {label}: %s" for label in labels) + "\n}"


FORMS: tuple[SigningForm, ...] = (
    SigningForm(name="2026-url", fields=("url",), since="2025-12-18", source="wire facts, section 4, row 9"),
    SigningForm(
        name="2025-10-sorted", fields=("cost", "endpoint", "reqnum", "request_idx", "url"),
        since="2025-10-28", until="2026-01", source="wire facts, section 4, row 7",
    ),
    SigningForm(
        name="2025-10-ordered", fields=("cost", "endpoint", "reqnum", "url", "request_idx"),
        since="2025-10-08", until="2025-10-28", source="wire facts, section 4, row 6",
    ),
    SigningForm(
        name="2024-03-ordered", fields=("cost", "endpoint", "reqnum", "url"),
        since="2023-10-06", until="2025-10-08", source="wire facts, section 4, rows 3 and 3' (not in March 2024)",
    ),
    SigningForm(
        name="2024-03-load", fields=("endpoint", ("load", "cost"), "reqnum", "url"),
        since="2024-03-06", until="2024-03-12", source="wire facts, section 4, row 5",
    ),
    SigningForm(
        name="2024-03-load-first", fields=(("load", "cost"), "endpoint", "reqnum", "url"),
        since="2024-03-06", until="2024-03-06", source="wire facts, section 4, row 4",
    ),
    SigningForm(
        name="2023-10-first", fields=("url", "endpoint", "cost", "reqnum"),
        since="2023-10-06", until="2023-10-06", source="wire facts, section 4, row 2",
    ),
    SigningForm(
        name="documented-triple", fields=("url", "cost", "reqnum"), seen=False,
        source="Vast's page names these fields; their order and the way they are written are inferred",
    ),
)  # fmt: skip  # a row of the table is two lines
"""Every form that can be checked from a grant: the one in use, then those out of use, the latest first.

Two rows of the wire facts are missing because no grant holds what they sign: row 1 signed a text that the client chose
for itself (September 2023), and row 8 signed a Python set, which has no JSON (one hour of December 2025).
"""

_PLAIN = json.JSONEncoder()
_NESTED = json.JSONEncoder(indent=4)


@final
class _Written(dict[str, str]):
    """The JSON of each of a grant's fields, written when first asked for: the forms share most of them."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __missing__(self, name: str) -> str:
        value = self._fields[name]
        if isinstance(value, dict | list | tuple):
            text = _NESTED.encode(value).replace("\n", "\n    ")
        else:
            text = _PLAIN.encode(value)
        self[name] = text
        return text


def _text(form: SigningForm, written: _Written) -> bytes | None:
    try:
        return (form.template % tuple([written[field] for field in form.covers])).encode("ascii")
    except (KeyError, TypeError, ValueError, RecursionError):
        return None  # a field is missing, or its value has no JSON: a huge integer, an object that is not JSON's


def signed_text(form: SigningForm, fields: Mapping[str, Any]) -> bytes | None:
    """What `form` signs of a grant's parsed `fields`: exactly ``json.dumps(..., indent=4)``, as the worker makes it.

    None if a field is missing or its value cannot be written as JSON. 100 and 100.0 give different texts.
    """
    return _text(form, _Written(fields))


# --- the keys ----------------------------------------------------------------------------------------------------

_LEAST_BITS = 1024
_MOST_BITS = 16384


@final
class PublicKey:
    """An RSA public key of the engine's. Make one with `load`, or with one of the ``from_`` methods.

    Each of them takes `min_bits`, the smallest modulus that will do: 2048 unless you say otherwise, from 1024 to
    16384. The size of the production key is not known (wire facts, section 4). All raise `InvalidValue` for what is
    no such key: a private key, a certificate, another kind of key, a damaged one.

    Keys are equal if their `fingerprint` is. They can be pickled.
    """

    __slots__ = ("_key", "bits", "fingerprint", "size")

    bits: int
    """The length of the modulus."""
    size: int
    """The length of a signature in bytes."""
    fingerprint: str
    """SHA-256 of the key's DER (SubjectPublicKeyInfo), in hex."""

    def __init__(self, key: RSAPublicKey, *, min_bits: int = 2048) -> None:
        from hashlib import sha256

        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if isinstance(min_bits, bool) or not isinstance(min_bits, int) or not _LEAST_BITS <= min_bits <= _MOST_BITS:
            raise InvalidValue(f"min_bits must be a whole number from {_LEAST_BITS} to {_MOST_BITS}")
        if not isinstance(key, RSAPublicKey):
            hint = "; give what its public_key() returns" if hasattr(key, "public_key") else ""
            raise InvalidValue(f"not an RSA public key but {type(key).__name__}{hint}")
        if not min_bits <= key.key_size <= _MOST_BITS:
            raise InvalidValue(
                f"the key has {key.key_size} bits, and {min_bits} to {_MOST_BITS} will do; "
                "if it is the right key, say so with min_bits"
            )
        self._key = key
        self.bits = key.key_size
        self.size = (key.key_size + 7) // 8
        self.fingerprint = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    @classmethod
    def load(cls, data: KeyLike, *, min_bits: int = 2048) -> PublicKey:
        """The key in `data`, whichever way it is written.

        PEM, DER, the base64 of the DER without PEM's markers (so the key was published in 2023), a key of the
        cryptography package, or a `PublicKey`, which is returned as it is.
        """
        if isinstance(data, PublicKey):
            return data
        if isinstance(data, str):
            data = data.encode("utf-8", "replace")
        if not isinstance(data, bytes):
            return cls.from_cryptography(data, min_bits=min_bits)
        if b"-----BEGIN" in data:
            return cls.from_pem(data, min_bits=min_bits)
        if not data.startswith(b"0"):  # the tag of an ASN.1 sequence, with which all DER keys begin; their base64 has M
            try:
                data = b64decode(b"".join(data.split()), validate=True)
            except ValueError:
                raise InvalidValue("not a public key: neither PEM nor DER nor base64") from None
        return cls.from_der(data, min_bits=min_bits)

    @classmethod
    def from_pem(cls, data: bytes | str, *, min_bits: int = 2048) -> PublicKey:
        """The one key in PEM `data`, between ``BEGIN PUBLIC KEY`` or ``BEGIN RSA PUBLIC KEY`` and its end."""
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        pem = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if b"PRIVATE KEY" in pem:
            raise InvalidValue("this is a private key; give the public one, and keep this where it was")
        if b"BEGIN CERTIFICATE" in pem:
            raise InvalidValue("this is a certificate; give the public key that is in it")
        if pem.count(b"-----BEGIN") > 1:
            raise InvalidValue("there is more than one PEM block; give each key by itself")
        return cls(_parse(load_pem_public_key, pem, "PEM"), min_bits=min_bits)

    @classmethod
    def from_der(cls, data: bytes, *, min_bits: int = 2048) -> PublicKey:
        """The key in DER `data`: a SubjectPublicKeyInfo, or PKCS#1's RSAPublicKey."""
        from cryptography.hazmat.primitives.serialization import load_der_public_key

        return cls(_parse(load_der_public_key, data, "DER"), min_bits=min_bits)

    @classmethod
    def from_cryptography(cls, key: RSAPublicKey, *, min_bits: int = 2048) -> PublicKey:
        """The `key`, an RSA public key of the cryptography package."""
        return cls(key, min_bits=min_bits)

    def recover(self, signature: bytes) -> bytes | None:
        """The SHA-256 digest that `signature` was made over, or None if it is no signature by this key."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            return self._key.recover_data_from_signature(signature, PKCS1v15(), SHA256())
        except InvalidSignature:
            return None

    def verifies(self, signature: bytes, text: bytes) -> bool:
        """Whether `signature` was made by this key over `text`."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        try:
            self._key.verify(signature, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True

    def __repr__(self) -> str:
        return f"PublicKey(bits={self.bits}, fingerprint={self.fingerprint!r})"

    def __eq__(self, other: object) -> bool:
        return type(other) is PublicKey and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __reduce__(self) -> Any:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return _restore, (self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),)


def _restore(der: bytes) -> PublicKey:
    # It was long enough for whoever loaded it first.
    return PublicKey.from_der(der, min_bits=_LEAST_BITS)


def _parse(loader: Any, data: bytes, name: str) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return loader(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise InvalidValue(
            f"no public key can be read from this {name}: damaged, or something else (a private key, a certificate)"
        ) from None


KeyLike: TypeAlias = "PublicKey | RSAPublicKey | bytes | str"
"""A public key in any of the ways that `PublicKey.load` takes."""
Keys: TypeAlias = "KeyLike | Iterable[KeyLike]"
"""One key or several."""


def _load_keys(keys: Keys) -> tuple[PublicKey, ...]:
    several = keys if isinstance(keys, Iterable) and not isinstance(keys, bytes | str) else (keys,)
    return tuple(dict.fromkeys(PublicKey.load(key) for key in several))


# --- verdicts ----------------------------------------------------------------------------------------------------


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


_OFF = Verdict(reason=Reason.OFF, detail="signatures are not checked")
_NO_KEY = Verdict(reason=Reason.NO_KEY, detail="the engine's public key is not known")
_NO_SIGNATURE = Verdict(reason=Reason.MALFORMED, detail="the grant has no signature, or it is not text")

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
    written = _Written(fields)
    for form in forms:
        text = _text(form, written)
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


# --- the check ---------------------------------------------------------------------------------------------------


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
        self._keys = _load_keys(keys)
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
        self._keys = _load_keys((*self._keys, key))
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
            return _OFF
        if not self._keys:
            return _NO_KEY
        if isinstance(grant, Grant):
            fields = grant.fields
        elif isinstance(grant, Mapping):
            fields = grant
        else:
            raise InvalidValue(f"give a Grant or a mapping of its fields, not {type(grant).__name__}")
        signature = fields.get("signature")
        if not isinstance(signature, str):
            return _NO_SIGNATURE
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
