"""The connections of one client: kept, opened and waited for, as the core's pool says; once for every library."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import Generic, TypeVar

from vastroute import Guard, Open, Origin, Pool, Send, Ticket, Use, Wait

from ..links import Link, Place, place_of
from ..settings import Settings
from ..tls import engine_context
from .alarms import LimitedStream
from .library import Event, Library

S = TypeVar("S", bound=LimitedStream)
R = TypeVar("R")


class AsyncLinks(ABC, Generic[S]):
    """All connections of one client, over streams of the kind `S`."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        self.pool: Pool[Place, Link[S]] = Pool(settings.pool)
        self.library: Library = library
        self.settings: Settings = settings
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self._waiting: dict[Ticket[Place, Link[S]], Event] = {}

    @abstractmethod
    async def _open(self, place: Place, guard: Guard | None) -> S:
        """A new stream to `place`, TLS included if its scheme is https."""

    @abstractmethod
    async def close(self, links: Iterable[Link[S]]) -> None:
        """Close them by force, which waits for nothing."""

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        await self.close(self.pool.close())

    def decide(self, send: Send, *, now: float) -> Use[Link[S]] | Open | Wait[Place, Link[S]]:
        """What the pool says of a connection for one exchange. It has to be used, or else `follow` be called."""
        decision = self.pool.acquire(place_of(send), now=now, fresh=send.fresh)
        return self._quiet(decision, now=now) if isinstance(decision, Use) else decision

    async def follow(self, decision: Open | Wait[Place, Link[S]], send: Send) -> Link[S]:
        """What `decide` said, where it was not a connection: a new one, perhaps after waiting for a place.

        Raises TimeoutError if there is none by the time that the request has for that.
        """
        async with self.library.limit(send.connect_by):
            if isinstance(decision, Wait):
                given = self._quiet(await self._wait(decision.ticket), now=self.library.now())
                if isinstance(given, Use):
                    return given.connection
            place = place_of(send)
            try:
                stream = await self._open(place, send.guard)
            except BaseException:
                self._wake(self.pool.failed(place))
                raise
        link = Link(stream, self.settings.http())
        self.pool.opened(place, link)
        return link

    def put_back(self, link: Link[S], *, now: float) -> list[Link[S]]:
        """The exchange is over, well or badly: `link` goes back to the pool. Close what this returns."""
        link.used = True
        link.stream.until = inf
        served = self.pool.release(link, now=now, reusable=link.http.reusable)
        if served is not None:
            self._wake(served)
        return self.pool.to_close(now=now)

    def _quiet(self, decision: Use[Link[S]] | Open, *, now: float) -> Use[Link[S]] | Open:
        """`decision`, or another one in place of a kept connection that its peer has closed or spoken on unasked."""
        while isinstance(decision, Use) and not decision.connection.is_quiet():
            decision = self.pool.replace(decision.connection, now=now)
        return decision

    async def _wait(self, ticket: Ticket[Place, Link[S]]) -> Use[Link[S]] | Open:
        event = self._waiting[ticket] = self.library.event()
        try:
            await event.wait()
            return self.pool.take(ticket)
        finally:
            del self._waiting[ticket]
            self._wake(self.pool.give_up(ticket, now=self.library.now()))

    def _wake(self, ticket: Ticket[Place, Link[S]] | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()

    async def _tls(self, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return await self._worker_tls()
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


def given_once(stream: R) -> Callable[[Origin], Awaitable[R]]:
    """A connector that gives the one ready `stream`, and refuses after that."""
    streams = [stream]

    async def give(_origin: Origin) -> R:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give
