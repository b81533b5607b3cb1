"""Which of the addresses that a host name resolved to may be dialled: asked for every new connection to a worker."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from vastroute import Guard, GuardRefusal, Origin

from .proxies import Proxy


def check_proxied(origin: Origin, guard: Guard | None, proxy: Proxy | None) -> None:
    """Raise what the guard has against reaching `origin` through `proxy`, which then resolves its name."""
    if guard is not None and proxy is not None and (refusal := guard.check_origin(origin, proxied=True)):
        raise refusal.as_error()


ADDRESS_SECONDS = 3.0
"""How long one of a host's addresses is tried while there is another: a dead one must not use up the whole limit."""


def written(origin: Origin) -> list[tuple[Any, ...]] | None:
    """What ``getaddrinfo`` would give for a host that is an IP address as it stands; None for a name, to be looked up.

    Only the usual spelling counts: what else a resolver takes for an address is the resolver's to read.
    """
    family = socket.AF_INET6 if ":" in origin.host else socket.AF_INET
    try:
        socket.inet_pton(family, origin.host)
    except OSError:
        return None
    return [(family, socket.SOCK_STREAM, 0, "", (origin.host, origin.port))]


def allowed(resolved: Iterable[tuple[Any, ...]], origin: Origin, guard: Guard | None) -> list[str]:
    """The IP addresses among what ``getaddrinfo`` gave that `guard` allows (all without one), in its order, each once.

    Raises the guard's `vastroute.ConnectionFailed` if it allows none. Dial these, not the name: the name may lead
    elsewhere the next time it is looked up.
    """
    addresses: list[str] = []
    refusals: list[GuardRefusal] = []
    for row in resolved:
        address = str(row[4][0])
        if guard is not None and (refusal := guard.check_address(address, origin)):
            refusals.append(refusal)
        elif address not in addresses:
            addresses.append(address)
    if not addresses:
        if refusals:
            raise refusals[0].as_error()
        raise OSError(f"{origin.host} has no address")
    return addresses
