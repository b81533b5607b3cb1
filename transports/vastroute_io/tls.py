"""TLS contexts. The engine is trusted by the system's roots and by nothing else."""

from __future__ import annotations

import ssl


def engine_context() -> ssl.SSLContext:
    """A context for the engine: the system's roots (or OpenSSL's ``SSL_CERT_FILE``), names checked, X.509 strict.

    Python sets the strict flag by itself from 3.13 on; on 3.11 and 3.12 it is set here.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    return context
