"""The connections of one client: kept, opened and waited for, as the core's pool says; once for every library."""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from math import inf
from typing import TypeAlias, TypeVar

from vastroute import ConnectTunnel, Guard, Open, Origin, Pool, Send, Ticket, Use, Wait

from ..addresses import check_proxied
from ..links import MOST, Link, Place, place_of
from ..proxies import Proxy
from ..settings import Settings
from ..tls import engine_context
from .alarms import LimitedStream, WatchedStream
from .library import Event, Library

S = TypeVar("S")
AsyncLink: TypeAlias = Link[LimitedStream]
"""One connection of an asynchronous client."""


class AsyncLinks(ABC):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        library: Library,
        connect: Callable[[Origin], Awaitable[LimitedStream]] | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        self.pool: Pool[Place, AsyncLink] = Pool(settings.pool)
        self.library: Library = library
        self.settings: Settings = settings
        self._connect = connect
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self._waiting: dict[Ticket[Place, AsyncLink], Event] = {}

    @abstractmethod
    async def _dial(self, origin: Origin, guard: Guard | None) -> WatchedStream:
        """Connect to the first address of `origin` that is allowed and answers."""

    async def close(self, links: Iterable[AsyncLink]) -> None:
        """Close them by force, which waits for nothing."""
        for link in links:
            await link.stream.shut()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        await self.close(self.pool.close())

    def decide(self, send: Send, *, now: float) -> Use[AsyncLink] | Open | Wait[Place, AsyncLink]:
        """What the pool says of a connection for one exchange: `look` at one that is kept, else `follow`."""
        return self.pool.acquire(place_of(send), now=now, fresh=send.fresh)

    def look(self, decision: Use[AsyncLink] | Open, *, now: float) -> Use[AsyncLink] | Open:
        """`decision`, or another one in place of a kept connection that its peer has closed or spoken on unasked."""
        while isinstance(decision, Use) and not decision.connection.is_quiet():
            decision = self.pool.replace(decision.connection, now=now)
        return decision

    async def follow(self, decision: Open | Wait[Place, AsyncLink], send: Send) -> AsyncLink:
        """What `decide` said, where it was not a connection: a new one, perhaps after waiting for a place.

        Raises TimeoutError if there is none by the time that the request has for that.
        """
        async with self.library.limit(send.connect_by):
            if isinstance(decision, Wait):
                given = self.look(await self._wait(decision.ticket), now=self.library.now())
                if isinstance(given, Use):
                    return given.connection
            place = place_of(send)
            origin, is_worker = place
            try:
                if self._connect is not None:
                    stream = await self._connect(origin)
                else:
                    proxy = self.settings.proxy_for(origin)
                    check_proxied(origin, send.guard, proxy)
                    context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
                    stream = await (self._dial(origin, send.guard) if proxy is None else self._dial(proxy.origin, None))
                    if proxy is not None or context is not None:
                        await self._secure(stream, origin, proxy, context)
            except BaseException:
                self._wake(self.pool.failed(place))
                raise
        link: AsyncLink = Link(stream, self.settings.http())
        self.pool.opened(place, link)
        return link

    def put_back(self, link: AsyncLink, *, now: float) -> list[AsyncLink]:
        """The exchange is over, well or badly: `link` goes back to the pool. Close what this returns."""
        link.used = True
        link.stream.until = inf
        served = self.pool.release(link, now=now, reusable=link.http.reusable)
        if served is not None:
            self._wake(served)
        return self.pool.to_close(now=now)

    async def _secure(
        self, stream: WatchedStream, origin: Origin, proxy: Proxy | None, context: ssl.SSLContext | None
    ) -> None:
        """Go through the proxy to `origin`, and on over TLS, as far as there are any."""
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self.settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(await stream.receive_some(MOST)):
                    pass
            if context is not None:
                await stream.start_tls(context, origin.host)
        except BaseException:
            stream.abort()
            raise

    async def _wait(self, ticket: Ticket[Place, AsyncLink]) -> Use[AsyncLink] | Open:
        event = self._waiting[ticket] = self.library.event()
        try:
            await event.wait()
            return self.pool.take(ticket)
        finally:
            del self._waiting[ticket]
            self._wake(self.pool.give_up(ticket, now=self.library.now()))

    def _wake(self, ticket: Ticket[Place, AsyncLink] | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()

    async def _tls(self, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return await self._worker_tls()
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


def given_once(stream: S) -> Callable[[Origin], Awaitable[S]]:
    """A connector that gives the one ready `stream`, and refuses after that."""
    streams = [stream]

    async def give(_origin: Origin) -> S:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give
