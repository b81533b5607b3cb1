"""The connections of one client: kept, opened, waited for and closed, as the core's pool says; and what they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, final

from vastroute import ConnectTunnel, Guard, Http1Connection, Origin, Phase, Pool, Send, Ticket, Use, Wait

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied
from ..settings import Settings
from ..tls import engine_context

MOST = 65536
"""Bytes that are read at once."""


class ByteStream(Protocol):
    """A connected byte stream. What it raises for a broken connection is an OSError."""

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""

    async def receive_some(self, most: int) -> bytes:
        """At least one and at most `most` bytes; ``b""`` once the peer has closed."""

    def abort(self) -> None:
        """Close it by force, at once. May be called twice."""


Connect = Callable[[Origin], Awaitable[ByteStream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
Place: TypeAlias = tuple[Origin, bool]
"""Where a connection leads, and whether its peer is trusted as a worker: the two kinds of trust are never mixed."""


@final
class SocketStream:
    """A `ByteStream` over asyncio's own reader and writer, with or without TLS."""

    __slots__ = ("_reader", "_writer")

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send_all(self, data: bytes) -> None:
        """See `ByteStream`."""
        self._writer.write(data)
        await self._writer.drain()

    async def receive_some(self, most: int) -> bytes:
        """See `ByteStream`."""
        return await self._reader.read(most)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on over TLS, with a peer that proves to be `host`."""
        await self._writer.start_tls(context, server_hostname=host)

    def abort(self) -> None:
        """See `ByteStream`."""
        self._writer.transport.abort()


@final
class Link:
    """One connection: a stream, and the HTTP/1.1 on it."""

    __slots__ = ("http", "stream", "used")

    def __init__(self, stream: ByteStream, http: Http1Connection) -> None:
        self.stream = stream
        self.http = http
        self.used = False


@final
class Links:
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | ByteStream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        self.pool: Pool[Place, Link] = Pool(settings.pool)
        self._settings = settings
        self._connect = None if connect is None else _connector(connect)
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self._waiting: dict[Ticket[Place, Link], asyncio.Event] = {}

    async def acquire(self, send: Send) -> Link:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        place = (send.request.origin, send.phase is Phase.WORKER)
        decision = self.pool.acquire(place, now=now(), fresh=send.fresh)
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

    def release(self, link: Link) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        at = now()
        link.used = True
        self._wake(self.pool.release(link, now=at, reusable=link.http.reusable))
        _close(self.pool.to_close(now=at))

    def close(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        _close(self.pool.close())

    async def _wait(self, ticket: Ticket[Place, Link]) -> Any:
        event = self._waiting[ticket] = asyncio.Event()
        try:
            await event.wait()
            return self.pool.take(ticket)
        finally:
            del self._waiting[ticket]
            self._wake(self.pool.give_up(ticket, now=now()))

    def _wake(self, ticket: Ticket[Place, Link] | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()

    async def _open(self, place: Place, guard: Guard | None) -> ByteStream:
        origin, is_worker = place
        if self._connect is not None:
            return await self._connect(origin)
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        stream = await _dial(origin if proxy is None else proxy.origin, None if proxy is not None else guard)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(await stream.receive_some(MOST)):
                    pass
            if context is not None:
                await stream.start_tls(context, origin.host)
        except BaseException:
            stream.abort()
            raise
        return stream

    async def _tls(self, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return await self._worker_tls()
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


def now() -> float:
    """The running loop's monotonic seconds."""
    return asyncio.get_running_loop().time()


async def _connected(address: str, port: int) -> SocketStream:
    return SocketStream(*await asyncio.open_connection(address, port))


async def _dial(origin: Origin, guard: Guard | None) -> SocketStream:
    """Connect to the first address of `origin` that is allowed and answers."""
    loop = asyncio.get_running_loop()
    resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    *others, last = allowed(resolved, origin, guard)
    for address in others:
        with suppress(OSError):
            async with asyncio.timeout(ADDRESS_SECONDS):
                return await _connected(address, origin.port)
    return await _connected(last, origin.port)


def _connector(connect: Connect | ByteStream) -> Connect:
    """`connect` itself, or one that gives the ready stream once."""
    if callable(connect):
        return connect
    streams = [connect]

    async def give(_origin: Origin) -> ByteStream:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give


def _close(links: Iterable[Link]) -> None:
    for link in links:
        link.stream.abort()
