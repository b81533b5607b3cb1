"""What the route calls of one client know of one another, so that none does again what another has just done."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, final

from .codec import encode_route
from .errors import InvalidValue
from .messages import HttpRequest, RouteRequest, Secret
from .urls import Origin, split_url

_LONGEST = 512
"""Characters of an address that is worth remembering; an engine could fill the memory with longer ones."""


class _Ask(NamedTuple):
    """A first ask, and what it was made of."""

    request: RouteRequest
    key: Secret
    engine: Origin
    key_in_body: bool
    http: HttpRequest


@final
class RouteMemory:
    """The addresses of workers that were read, and the first asks that were written.

    It holds `most` addresses of up to 512 characters, and as many asks; then the oldest go. Give it to each
    `vastroute.RouteCall` of a client, and use those from one thread at a time. Raises `InvalidValue` if `most` is
    below 1. Keys are in it, and do not show.
    """

    __slots__ = ("_addresses", "_asks", "_most")

    def __init__(self, *, most: int = 1024) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidValue("most must be a whole number of at least 1")
        self._most = most
        self._addresses: OrderedDict[str, tuple[Origin, str]] = OrderedDict()
        self._asks: OrderedDict[int, _Ask] = OrderedDict()
        """By the request's identity, since equal ones may be spelled differently: a cost of 100 and one of 100.0."""

    def split(self, url: str) -> tuple[Origin, str]:
        """The origin and the path of `url`: the same objects as last time. Raises `InvalidValue` as it did then."""
        known = self._addresses.get(url)
        if known is None:
            known = split_url(url)
            if len(url) <= _LONGEST:
                self._addresses[url] = known
                if len(self._addresses) > self._most:
                    self._addresses.popitem(last=False)
        return known

    def first_ask(self, request: RouteRequest, *, key: Secret, engine: Origin, key_in_body: bool) -> HttpRequest:
        """As `vastroute.encode_route` without a number that is held; the same object for the same `request`."""
        if request.extra:  # it may be large, and is seldom the same
            return encode_route(request, key=key, engine=engine, key_in_body=key_in_body)
        ask = self._asks.get(id(request))
        if (
            ask is None
            or ask.request is not request
            or ask.key is not key
            or ask.engine is not engine
            or ask.key_in_body is not key_in_body
        ):
            http = encode_route(request, key=key, engine=engine, key_in_body=key_in_body)
            ask = self._asks[id(request)] = _Ask(request, key, engine, key_in_body, http)
            if len(self._asks) > self._most:
                self._asks.popitem(last=False)
        return ask.http
