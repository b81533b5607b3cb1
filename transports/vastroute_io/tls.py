"""TLS contexts. The engine is trusted by the system's roots, workers by Vast.ai's own root; the two are never mixed."""

from __future__ import annotations

import os
import ssl
import tempfile
from contextlib import suppress
from pathlib import Path

from vastroute import InvalidValue, read_worker_root

from .credentials import home_folder


def engine_context() -> ssl.SSLContext:
    """A context for the engine: the system's roots (or OpenSSL's ``SSL_CERT_FILE``), names checked, X.509 strict.

    Python sets the strict flag by itself from 3.13 on; on 3.11 and 3.12 it is set here.
    """
    return _strict(ssl.create_default_context(), strict=True)


def worker_context(root: bytes, *, strict: bool = True) -> ssl.SSLContext:
    """A context for workers, whose certificates are for their IP addresses: `root` (DER or PEM) and no other root.

    Without `strict`, X.509's finer rules are not held against a certificate: no real one has been seen, and the root
    before March 2026 broke one of them (wire facts, section 6). Raises `InvalidValue` if `root` is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=root.decode("ascii") if b"-----BEGIN" in root else root)
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        raise InvalidValue("the workers' root is no certificate that OpenSSL can read (PEM or DER)") from None
    return _strict(context, strict=strict)


def _strict(context: ssl.SSLContext, *, strict: bool) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    else:
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context


def kept_root() -> bytes | None:
    """The workers' root that an earlier process left in the cache folder, if it is there and still pinned."""
    path = _cache()
    try:
        return None if path is None else read_worker_root(path.read_bytes())
    except (OSError, InvalidValue):
        return None


def keep_root(root: bytes) -> None:
    """Leave `root` in the cache folder for later processes; a folder that cannot be written is no error."""
    path = _cache()
    if path is None:
        return
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(root)
        try:
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink()


def _cache() -> Path | None:
    """Where the root is kept: the user's cache folder, by the XDG rules on every system; None if there is none."""
    home = home_folder()
    folder = os.environ.get("XDG_CACHE_HOME") or (home and home / ".cache")
    return Path(folder) / "vastroute" / "worker-root.der" if folder else None
