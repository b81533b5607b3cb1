"""Connections over asyncio, and what they are."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TypeAlias, final

from vastroute import ConnectTunnel, Guard, Origin

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied, written
from ..asynchronous.alarms import Alarms
from ..asynchronous.links import AsyncLinks, given_once
from ..links import MOST, Link, Place
from ..settings import Settings
from .library import Asyncio
from .streams import BoundedStream, ByteStream, SocketStream

Connect = Callable[[Origin], Awaitable[ByteStream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
AsyncioLink: TypeAlias = Link[SocketStream | BoundedStream]


@final
class Links(AsyncLinks[SocketStream | BoundedStream]):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | ByteStream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        super().__init__(settings, Asyncio(), engine_tls, worker_tls)
        self._connect = connect if connect is None or callable(connect) else given_once(connect)

    async def close(self, links: Iterable[AsyncioLink]) -> None:
        """See `AsyncLinks`."""
        for link in links:
            link.stream.abort()

    async def aclose(self) -> None:
        """See `AsyncLinks`."""
        self.library.now()  # only its own loop can close them
        await super().aclose()

    async def _open(self, place: Place, guard: Guard | None) -> SocketStream | BoundedStream:
        origin, is_worker = place
        if self._connect is not None:
            return BoundedStream(await self._connect(origin))
        proxy = self.settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        dialled, its_guard = (origin, guard) if proxy is None else (proxy.origin, None)
        stream = await _dial(dialled, its_guard, self.library.alarms)
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
        return stream


async def _dial(origin: Origin, guard: Guard | None, alarms: Alarms) -> SocketStream:
    """Connect to the first address of `origin` that is allowed and answers."""
    loop = asyncio.get_running_loop()
    stream_of = partial(SocketStream, loop, alarms)
    resolved = written(origin)
    if resolved is None:
        resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    *others, last = allowed(resolved, origin, guard)
    for address in others:
        with suppress(OSError):
            async with asyncio.timeout(ADDRESS_SECONDS):
                return (await loop.create_connection(stream_of, address, origin.port))[1]
    return (await loop.create_connection(stream_of, last, origin.port))[1]
