"""A certificate authority for tests: real TLS handshakes, trusted by nobody who was not told to."""

from __future__ import annotations

import ssl
from typing import ClassVar, final

import trustme

HOSTS = ("127.0.0.1", "::1", "localhost")
"""Where loopback servers are."""


@final
class TestAuthority:
    """Makes certificates and the contexts that go with them. Its keys live in memory and die with it."""

    __test__: ClassVar[bool] = False  # pytest would take it for a test

    def __init__(self) -> None:
        self._authority = trustme.CA(organization_name="vastroute tests")

    @property
    def pem(self) -> bytes:
        """The root certificate, in PEM."""
        return bytes(self._authority.cert_pem.bytes())

    def server_context(self, *hosts: str) -> ssl.SSLContext:
        """A context for a server that is known as `hosts` (names or IP addresses); loopback's by default."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        self._authority.issue_cert(*(hosts or HOSTS)).configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """A context for a client that trusts this authority and no other, strict like that of `vastroute_io`."""
        context = ssl.create_default_context(cadata=self.pem.decode("ascii"))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.set_alpn_protocols(["http/1.1"])
        return context
