"""Connections over asyncio, and what they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Protocol, TypeAlias, final

from vastroute import ConnectTunnel, Guard, Origin

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied
from ..asynchronous.links import AsyncLinks, Event, given_once
from ..links import MOST, Link
from ..settings import Settings


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
AsyncioLink: TypeAlias = Link[ByteStream]


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
class Links(AsyncLinks[ByteStream]):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | ByteStream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        connector = connect if connect is None or callable(connect) else given_once(connect)
        super().__init__(settings, connector, engine_tls, worker_tls)

    def now(self) -> float:
        """The running loop's monotonic seconds."""
        return now()

    def release(self, link: AsyncioLink) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        _close(self.put_back(link))

    def close(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        _close(self.pool.close())

    def _event(self) -> Event:
        return asyncio.Event()

    async def _open(self, origin: Origin, guard: Guard | None, *, is_worker: bool) -> ByteStream:
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


def _close(links: Iterable[AsyncioLink]) -> None:
    for link in links:
        link.stream.abort()
