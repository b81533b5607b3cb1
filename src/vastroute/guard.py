"""Where a grant may lead: schemes, ports and classes of addresses, as tables, and what each refusal can be lifted by.

A grant is text from the network, and what is posted to its address is the caller's work. `Guard.check_origin` looks at
the address as it is written; `Guard.check_address`, which decides, at the IP address that its name resolved to and
that is dialled next: a name may resolve to anything, and to something else the second time. Nothing is resolved here.

What is public is said by the IANA registries of special-purpose addresses: a row's address that is not globally
reachable is refused. An IPv6 address that stands for an IPv4 address leads where that one leads.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterable
from enum import Enum
from functools import cache
from typing import NamedTuple

import attrs

from .errors import Advice, ConnectionFailed, FailureKind, InvalidValue, Outcome, Phase
from .urls import Origin

METADATA = "allow_metadata_address"
PRIVATE = "allow_private_address"

# The first row that holds an address decides. Metadata services come first: they answer whoever asks with the machine's
# own credentials, so that allowing a private network does not allow them.
IPV4_CLASSES: tuple[tuple[str, str, str | None], ...] = (
    ("169.254.169.254/32", "a cloud's metadata service", METADATA),
    ("169.254.170.2/32", "a container's credentials service", METADATA),
    ("169.254.170.23/32", "a container's credentials service", METADATA),
    ("100.100.100.200/32", "a cloud's metadata service", METADATA),
    ("168.63.129.16/32", "a cloud's metadata service", METADATA),
    ("192.0.0.192/32", "a cloud's metadata service", METADATA),
    ("0.0.0.0/32", "the unspecified address", PRIVATE),
    ("0.0.0.0/8", "an address of this network", PRIVATE),
    ("10.0.0.0/8", "a private network", PRIVATE),
    ("100.64.0.0/10", "a carrier's shared network (CGNAT)", PRIVATE),
    ("127.0.0.0/8", "loopback", PRIVATE),
    ("169.254.0.0/16", "link-local", PRIVATE),
    ("172.16.0.0/12", "a private network", PRIVATE),
    ("192.0.0.0/24", "reserved for protocols", PRIVATE),
    ("192.0.2.0/24", "reserved for documentation", PRIVATE),
    ("192.88.99.0/24", "a 6to4 relay", PRIVATE),
    ("192.168.0.0/16", "a private network", PRIVATE),
    ("198.18.0.0/15", "reserved for benchmarks", PRIVATE),
    ("198.51.100.0/24", "reserved for documentation", PRIVATE),
    ("203.0.113.0/24", "reserved for documentation", PRIVATE),
    ("224.0.0.0/4", "multicast", PRIVATE),
    ("255.255.255.255/32", "broadcast", PRIVATE),
    ("240.0.0.0/4", "reserved", PRIVATE),
    ("0.0.0.0/0", "public", None),
)
"""Network, name, and the switch that allows it (None: it is allowed)."""

IPV6_CLASSES: tuple[tuple[str, str, str | None], ...] = (
    ("fd00:ec2::254/128", "a cloud's metadata service", METADATA),
    ("fd20:ce::254/128", "a cloud's metadata service", METADATA),
    ("fe80::a9fe:a9fe/128", "a cloud's metadata service", METADATA),
    ("fd00:ec2::23/128", "a container's credentials service", METADATA),
    ("::/128", "the unspecified address", PRIVATE),
    ("::1/128", "loopback", PRIVATE),
    ("fc00::/7", "a private network (unique local)", PRIVATE),
    ("fe80::/10", "link-local", PRIVATE),
    ("fec0::/10", "a private network (site-local)", PRIVATE),
    ("ff00::/8", "multicast", PRIVATE),
    ("64:ff9b:1::/48", "a private network (local NAT64)", PRIVATE),
    ("2001::/23", "reserved for protocols", PRIVATE),
    ("2001:db8::/32", "reserved for documentation", PRIVATE),
    ("3fff::/20", "reserved for documentation", PRIVATE),
    ("2000::/3", "public", None),
    ("::/0", "reserved", PRIVATE),
)
"""The same for IPv6; of all the rest only 2000::/3 is given out to the public."""

IPV6_EMBEDDINGS: tuple[tuple[str, str, Callable[[int], tuple[int, ...]]], ...] = (
    ("::ffff:0:0/96", "IPv4-mapped", lambda number: (number,)),
    ("::ffff:0:0:0/96", "IPv4-translated", lambda number: (number,)),
    ("64:ff9b::/96", "NAT64", lambda number: (number,)),
    ("2002::/16", "6to4", lambda number: (number >> 80,)),
    # The server, then the client behind it, whose address is written inverted.
    ("2001::/32", "Teredo", lambda number: (number >> 64, ~number)),
)
"""Network, name, and the IPv4 addresses (in the lowest 32 bits) that an address of it stands for."""

_WEB_PORTS = frozenset({80, 443})
# What ends in a number is an address to every reader of URLs, in one of several spellings, and never a name.
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)", re.ASCII)
_DOTTED = re.compile(r"(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(?:\.|$)){4}(?<!\.)", re.ASCII)


class GuardReason(Enum):
    """What a guard objects to."""

    SCHEME = "the scheme"
    PORT = "the port"
    ADDRESS = "the address"
    PROXIED_NAME = "a name that only others resolve"


@attrs.frozen(kw_only=True)
class GuardRefusal:
    """A grant leads where it may not."""

    reason: GuardReason
    switch: str
    """The field of `Guard` that allows it."""
    text: str
    """What was refused and what would allow it, for people."""

    def as_error(self, *, phase: Phase = Phase.WORKER, request_idx: int | None = None) -> ConnectionFailed:
        """The error of a call that ends here. Nothing was sent."""
        return ConnectionFailed(
            self.text,
            phase=phase,
            outcome=Outcome.NOT_SENT,
            advice=Advice.ALLOW,
            request_idx=request_idx,
            kind=FailureKind.GUARD,
            limit=self.switch,
        )


@attrs.frozen(kw_only=True)
class Guard:
    """What a grant is allowed to lead to beyond https to a public address."""

    allow_plain_http: bool = False
    """Workers without TLS: whoever is on the way reads and changes everything. The clients take it for an engine and a
    console that are not on loopback, too."""
    allow_private_address: bool = False
    """Addresses that are not public: this machine, its networks, and what is reserved."""
    allow_metadata_address: bool = False
    """The addresses at which clouds hand a machine its credentials. They are not part of ``allow_private_address``."""
    allow_proxied_names: bool = False
    """Host names that a proxy or an HTTP library resolves, so that nobody here can see where they lead."""
    allow_any_port: bool = False
    """Ports below 1024 other than 80 and 443: they belong to other services, which may act on what HTTP sends them."""

    def check_origin(self, origin: Origin, *, proxied: bool = False) -> GuardRefusal | None:
        """The first look, at the address as it is written. `proxied`: others resolve and dial it, not we."""
        host, port = origin.host.removesuffix("."), origin.port
        if origin.scheme != "https" and not self.allow_plain_http:
            return _refusal(GuardReason.SCHEME, "allow_plain_http", f"{origin} has no TLS")
        if port < 1024 and port not in _WEB_PORTS and not self.allow_any_port:
            return _refusal(GuardReason.PORT, "allow_any_port", f"port {port} of {origin} belongs to another service")
        if _DOTTED.fullmatch(host):  # nearly every worker's
            return self._refuse((_class_of_ipv4(host),), origin)
        if ":" in host:
            return self._refuse(_classes(host), origin)
        if _NUMERIC.fullmatch(host) and not self.allow_private_address:
            return _refusal(GuardReason.ADDRESS, PRIVATE, f"{origin} hides an IP address in an unusual spelling")
        if proxied and not self.allow_proxied_names:
            text = f"{origin} is a name that a proxy or a library resolves, so that nobody here sees where it leads"
            return _refusal(GuardReason.PROXIED_NAME, "allow_proxied_names", text)
        return None

    def check_address(self, address: str, origin: Origin | None = None) -> GuardRefusal | None:
        """The look that decides, at the IP address that is dialled next. Ask about each one, at every connection.

        `address` is an IPv4 or IPv6 address as the system's resolver gives it, with or without a zone (``%eth0``);
        `origin` is what it was resolved from, for the text. Raises `InvalidValue` if it is no IP address.
        """
        return self._refuse(_classes(address), address if origin is None else f"{origin} ({address})")

    def _refuse(self, classes: Iterable[tuple[str, str | None]], shown: Origin | str) -> GuardRefusal | None:
        for name, switch in classes:
            if switch is not None and not getattr(self, switch):
                return _refusal(GuardReason.ADDRESS, switch, f"{shown} is not public: {name}")
        return None


def _refusal(reason: GuardReason, switch: str, text: str) -> GuardRefusal:
    return GuardRefusal(reason=reason, switch=switch, text=f"{text}; {switch} would allow it")


def _class_of_ipv4(address: str) -> tuple[str, str | None]:
    return _rows().ipv4.find(int.from_bytes(map(int, address.split(".")), "big"))


def _classes(address: str) -> list[tuple[str, str | None]]:
    """What an IP address is: usually one class, or one for each IPv4 address that it stands for."""
    address, zone, _ = address.partition("%")
    rows = _rows()
    if _DOTTED.fullmatch(address):
        classes = [_class_of_ipv4(address)]
    else:
        number = _ipv6(address)
        classes = [rows.ipv6.find(number)]
        for network, name, stands_for in rows.embeddings:
            if number in network:
                found = [rows.ipv4.find(each & 0xFFFFFFFF) for each in stands_for(number)]
                classes = [(f"{each}, in its {name} form", switch) for each, switch in found]
    return [*classes, ("it is bound to one network link", PRIVATE)] if zone else classes


def _ipv6(address: str) -> int:
    from ipaddress import IPv6Address  # not a small import, and only a few workers need it

    try:
        return int(IPv6Address(address))
    except ValueError:
        raise InvalidValue(f"{address[:100]!r} is not an IP address") from None


class _Classes(NamedTuple):
    """One table, cut where the answer changes: from each of `starts` on, up to the next one, its class holds."""

    starts: tuple[int, ...]
    classes: tuple[tuple[str, str | None], ...]

    def find(self, number: int) -> tuple[str, str | None]:
        """The class of an address."""
        return self.classes[bisect(self.starts, number) - 1]


class _Rows(NamedTuple):
    """The tables, with numbers in place of addresses."""

    ipv4: _Classes
    ipv6: _Classes
    embeddings: tuple[tuple[range, str, Callable[[int], tuple[int, ...]]], ...]


@cache
def _rows() -> _Rows:
    # A constant, but one that needs ipaddress: made when the first grant is looked at, not when this is imported.
    from ipaddress import ip_network

    def numbers(network: str) -> range:
        parsed = ip_network(network)
        return range(int(parsed.network_address), int(parsed.broadcast_address) + 1)

    def cut(table: tuple[tuple[str, str, str | None], ...]) -> _Classes:
        rows = [(numbers(network), name, switch) for network, name, switch in table]
        ends = {end for network, _, _ in rows for end in (network.start, network.stop)}
        starts = tuple(sorted(ends)[:-1])  # one row holds every address, and behind it nothing begins
        found = [next((name, switch) for network, name, switch in rows if start in network) for start in starts]
        return _Classes(starts, tuple(found))

    return _Rows(
        ipv4=cut(IPV4_CLASSES),
        ipv6=cut(IPV6_CLASSES),
        embeddings=tuple((numbers(network), name, stands_for) for network, name, stands_for in IPV6_EMBEDDINGS),
    )
