"""Connections over asyncio, and what they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeAlias, final

from vastroute import ConnectTunnel, Guard, LocalProtocolError, Origin

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied, written
from ..asynchronous.links import AsyncLinks, Event, given_once
from ..links import MOST, Link
from ..settings import Settings
from .streams import ByteStream, SocketStream

Connect = Callable[[Origin], Awaitable[ByteStream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
AsyncioLink: TypeAlias = Link[ByteStream]


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
        self._loop: asyncio.AbstractEventLoop | None = None

    def loop(self) -> asyncio.AbstractEventLoop:
        """The client's loop. Raises `vastroute.LocalProtocolError` in another one than the first."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise LocalProtocolError("a client belongs to the event loop it was first used in: make one in each")
            self._loop = loop
        return loop

    def now(self) -> float:
        """The loop's monotonic seconds. Raises as `loop`."""
        return self.loop().time()

    def release(self, link: AsyncioLink, *, now: float) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        _close(self.put_back(link, now=now))

    def close(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        self.now()  # only its own loop can close them
        _close(self.pool.close())

    def _event(self) -> Event:
        return asyncio.Event()

    async def _open(self, origin: Origin, guard: Guard | None, *, is_worker: bool) -> ByteStream:
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        stream = await self._dial(origin if proxy is None else proxy.origin, None if proxy is not None else guard)
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

    async def _dial(self, origin: Origin, guard: Guard | None) -> SocketStream:
        """Connect to the first address of `origin` that is allowed and answers."""
        resolved = written(origin)
        if resolved is None:
            loop = asyncio.get_running_loop()
            resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        *others, last = allowed(resolved, origin, guard)
        for address in others:
            with suppress(OSError):
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return await SocketStream.connect(address, origin.port)
        return await SocketStream.connect(last, origin.port)


def _close(links: Iterable[AsyncioLink]) -> None:
    for link in links:
        link.stream.abort()
