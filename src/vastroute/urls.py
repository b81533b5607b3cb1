"""Addresses: an `Origin` is where a connection goes, a target is what is asked for there.

One strict pattern reads every address, the engine's and the workers': scheme, host, port and path, nothing else. What
a more forgiving reader would repair (credentials, control characters, fragments, back-slashes) is refused here,
because two readers that repair differently are how a request ends up at a host nobody checked.
"""

from __future__ import annotations

import re

import attrs

from .errors import InvalidValue

_URL = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$-;=@-\[\]^_`a-z{|}~]*)?",
    re.IGNORECASE | re.ASCII,
)
_TARGET = re.compile(r"/[!$-;=?@-\[\]^_`a-zA-Z{|}~]*")
_CLIMB = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE | re.ASCII)
"""A part of a path that is ``.`` or ``..``, which a server may resolve, also where it is percent-encoded."""
_DEFAULT_PORTS = {"https": 443, "http": 80}


@attrs.frozen(kw_only=True, cache_hash=True)
class Origin:
    """Scheme, host and port: what a connection and a key belong to.

    `host` is lower case and without the brackets of an IPv6 address; `port` is always a number.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> Origin:
        """The origin of `url`, whose path must be empty or ``/``. Raises `InvalidValue`."""
        origin, path = split_url(url)
        if path not in {"", "/"}:
            raise InvalidValue(f"an origin has no path: leave out {path!r}")
        return origin

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header wants them: brackets round IPv6, no default port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def split_url(url: str) -> tuple[Origin, str]:
    """The origin and the path of an absolute http or https address.

    Raises `InvalidValue` for everything else: another scheme, credentials, a query, a fragment, control characters,
    a port outside 1 to 65535, a host that is no plain name or address. The text does not repeat the address.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise InvalidValue(f"not a plain http or https address: {_why(url)}")
    scheme, host, digits, path = match.groups("")
    scheme, host = scheme.lower(), host.lower()
    port = int(digits or _DEFAULT_PORTS[scheme])
    if not 0 < port < 65536:
        raise InvalidValue(f"port {port} is not between 1 and 65535")
    if host[0] == "[":
        host = _ipv6(host[1:-1])
    if len(host.removesuffix(".")) > 253:  # no resolver could even ask for it
        raise InvalidValue("the host name is longer than names can be")
    if _CLIMB.search(path):
        raise InvalidValue("the path climbs with '.' or '..'")
    return Origin(scheme=scheme, host=host, port=port), path


def join_target(base: str, route: str) -> str:
    """The path `route` below the path `base`: one slash between them, whatever the two bring.

    A query in `route` is kept. Raises `InvalidValue` if `route` holds a space, a control character, a fragment, a
    character outside ASCII (percent-encode it), or looks like an address of its own.
    """
    target = base.rstrip("/") + "/" + route.removeprefix("/")
    if route.startswith("//") or "://" in route.partition("?")[0] or not _TARGET.fullmatch(target):
        raise InvalidValue(
            f"route {route[:100]!r} is not a plain path: begin it with one slash and percent-encode the rest"
        )
    if ("/." in target or "/%" in target) and _CLIMB.search(target.partition("?")[0]):
        raise InvalidValue(f"route {route[:100]!r} must not climb with '.' or '..'")
    return target


def _ipv6(host: str) -> str:
    from ipaddress import IPv6Address  # a rare case, and the import is not a small one

    try:
        address = IPv6Address(host)
    except ValueError:
        raise InvalidValue("the host in brackets is not an IPv6 address") from None
    # Python 3.13 spells these so, earlier ones in hexadecimal; one host has one spelling here.
    return str(address) if address.ipv4_mapped is None else f"::ffff:{address.ipv4_mapped}"


def _why(url: str) -> str:
    """The likeliest reason why `url` does not match, for the error's text."""
    if not url:
        return "it is empty"
    if any(ord(c) < 33 or ord(c) == 127 for c in url):
        return "it holds a space or a control character"
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "it is relative (begin it with https://)"
    if scheme.lower() not in _DEFAULT_PORTS:
        return "its scheme is neither http nor https"
    if "@" in rest.partition("/")[0]:
        return "it holds credentials"
    if "#" in rest or "?" in rest:
        return "it has a query or a fragment"
    return "its host, port or path is malformed"
