"""The connections of one client: kept, opened, waited for and closed, as the core's pool says."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias, final

import trio

from vastroute import (
    ConnectTunnel,
    Guard,
    Http1Connection,
    Origin,
    Phase,
    Pool,
    Send,
    Ticket,
    Use,
    Wait,
)

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied
from ..settings import Settings
from ..tls import engine_context

Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
Place: TypeAlias = tuple[Origin, bool]
"""Where a connection leads, and whether its peer is trusted as a worker: the two kinds of trust are never mixed."""

MOST = 65536
"""Bytes that are read at once."""


@final
class Link:
    """One connection: a stream, and the HTTP/1.1 on it."""

    __slots__ = ("http", "stream", "used")

    def __init__(self, stream: trio.abc.Stream, http: Http1Connection) -> None:
        self.stream = stream
        self.http = http
        self.used = False


@final
class Links:
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | trio.abc.Stream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        self.pool: Pool[Place, Link] = Pool(settings.pool)
        self._settings = settings
        self._connect = None if connect is None else _connector(connect)
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self._waiting: dict[Ticket[Place, Link], trio.Event] = {}

    async def acquire(self, send: Send) -> Link:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        place = (send.request.origin, send.phase is Phase.WORKER)
        decision = self.pool.acquire(place, now=trio.current_time(), fresh=send.fresh)
        if type(decision) is Wait:
            decision = await self._wait(decision.ticket)
        if type(decision) is Use:
            return decision.connection
        try:
            stream = await self._open(place, send.guard)
        except BaseException:
            self._wake(self.pool.failed(place))
            raise
        link = Link(stream, Http1Connection(self._settings.limits))
        self.pool.opened(place, link)
        return link

    async def release(self, link: Link) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        now = trio.current_time()
        link.used = True
        self._wake(self.pool.release(link, now=now, reusable=link.http.reusable))
        if closing := self.pool.to_close(now=now):
            await _close(closing)

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        await _close(self.pool.close())

    async def _wait(self, ticket: Ticket[Place, Link]) -> Any:
        event = self._waiting[ticket] = trio.Event()
        try:
            await event.wait()
            return self.pool.take(ticket)
        finally:
            del self._waiting[ticket]
            self._wake(self.pool.give_up(ticket, now=trio.current_time()))

    def _wake(self, ticket: Ticket[Place, Link] | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()

    async def _open(self, place: Place, guard: Guard | None) -> trio.abc.Stream:
        origin, is_worker = place
        if self._connect is not None:
            return await self._connect(origin)
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        stream: trio.abc.Stream
        if proxy is not None:
            stream = await trio.open_tcp_stream(proxy.origin.host, proxy.origin.port)
        elif guard is not None:
            stream = await _dial(origin, guard)
        else:
            stream = await trio.open_tcp_stream(origin.host, origin.port)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(bytes(await stream.receive_some(MOST))):
                    pass
            if context is not None:
                stream = trio.SSLStream(stream, context, server_hostname=origin.host, https_compatible=True)
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def _tls(self, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return await self._worker_tls()
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


async def _dial(origin: Origin, guard: Guard) -> trio.SocketStream:
    """Connect to the first address of `origin` that is allowed and answers."""
    resolved = await trio.socket.getaddrinfo(origin.host, origin.port, type=trio.socket.SOCK_STREAM)
    *others, last = allowed(resolved, origin, guard)
    for address in others:
        with suppress(OSError), trio.move_on_after(ADDRESS_SECONDS):
            return await trio.open_tcp_stream(address, origin.port)
    return await trio.open_tcp_stream(last, origin.port)


def _connector(connect: Connect | trio.abc.Stream) -> Connect:
    """`connect` itself, or one that gives the ready stream once."""
    if not isinstance(connect, trio.abc.Stream):
        return connect
    streams = [connect]

    async def give(_origin: Origin) -> trio.abc.Stream:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give


async def _close(links: Iterable[Link]) -> None:
    # Closing by force waits for nothing, and one that is cancelled half-way would leave the rest open.
    with trio.CancelScope(shield=True):
        for link in links:
            await trio.aclose_forcefully(link.stream)
