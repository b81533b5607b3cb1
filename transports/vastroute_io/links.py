"""What every transport's connections have in common: what one is, and where it leads. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeAlias, TypeVar, final

from vastroute import Done, GiveUp, Http1Connection, Origin, Phase, Send

S = TypeVar("S")

Place: TypeAlias = tuple[Origin, bool]
"""Where a connection leads, and whether its peer is trusted as a worker: the two kinds of trust are never mixed."""

MOST = 65536
"""Bytes that are read at once."""
OVER = (Done, GiveUp)
"""The actions after which there is nothing to do."""


@final
class Link(Generic[S]):
    """One connection: a stream, and the HTTP/1.1 on it."""

    __slots__ = ("http", "is_quiet", "stream", "used")

    def __init__(self, stream: S, http: Http1Connection) -> None:
        self.stream: S = stream
        self.http: Http1Connection = http
        self.used: bool = False
        """Whether it has carried an exchange before."""
        self.is_quiet: Callable[[], bool] = getattr(stream, "is_quiet", _unknown)
        """Whether its peer has neither spoken nor closed while nothing was asked of it, as far as can be known at once:
        what came then would be taken for the next answer."""


def has_sent(link: Link[S] | None) -> bool:
    """Whether, on the connection that a call has in use, perhaps something of its pending request was sent."""
    return link is not None and not link.http.reusable


def _unknown() -> bool:
    """Nobody can say; if its peer has closed it, the next exchange finds out."""
    return True


def place_of(send: Send) -> Place:
    """Where the connection for `send` has to lead."""
    return send.request.origin, send.phase is Phase.WORKER
