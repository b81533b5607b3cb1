"""Which HTTP proxy leads to an origin. Only CONNECT is spoken, so the proxy sees a host name and no request."""

from __future__ import annotations

import os
from base64 import b64encode
from urllib.parse import unquote, urlsplit

import attrs

from vastroute import InvalidValue, Origin


@attrs.frozen(kw_only=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT."""

    origin: Origin
    authorization: str | None = attrs.field(default=None, repr=False)
    """The value of ``Proxy-Authorization``, if the proxy's address holds credentials."""

    @classmethod
    def parse(cls, url: str) -> Proxy:
        """A proxy from ``http://[user:password@]host:port``; raises `InvalidValue`, which never repeats it."""
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise InvalidValue("the proxy's address is malformed") from None
        if parts.scheme != "http" or not host:
            raise InvalidValue("a proxy's address has the form http://[user:password@]host:port")
        authorization = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + b64encode(pair.encode()).decode()
        return cls(origin=Origin(scheme="http", host=host, port=port or 8080), authorization=authorization)


def proxy_from_environment(origin: Origin) -> Proxy | None:
    """The proxy that ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` name for `origin`."""
    if not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    # Not the documented pair: those also ask the system's settings, on some systems over the network.
    from urllib import request

    proxies = request.getproxies_environment()
    url = proxies.get(origin.scheme) or proxies.get("all")
    if not url or request.proxy_bypass_environment(f"{origin.host}:{origin.port}", proxies):  # type: ignore[attr-defined]
        return None
    return Proxy.parse(url)
