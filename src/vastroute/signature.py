"""The engine's public keys: how they are loaded, and what they make of a signature.

This is the only module of the core that imports cryptography, and it does so when a key is loaded or used.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, final

from .errors import InvalidValue

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

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


def load_keys(keys: Keys) -> tuple[PublicKey, ...]:
    several = keys if isinstance(keys, Iterable) and not isinstance(keys, bytes | str) else (keys,)
    return tuple(dict.fromkeys(PublicKey.load(key) for key in several))
