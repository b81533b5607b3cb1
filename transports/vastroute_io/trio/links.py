"""Connections over trio."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeAlias, final

import trio

from vastroute import ConnectTunnel, Guard, Origin

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied, written
from ..asynchronous.links import AsyncLinks, given_once
from ..links import MOST, Link, Place
from ..settings import Settings
from .library import Trio
from .streams import BoundedStream, SocketStream, connect

Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
TrioLink: TypeAlias = Link[SocketStream | BoundedStream]


@final
class Links(AsyncLinks[SocketStream | BoundedStream]):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | trio.abc.Stream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        super().__init__(settings, Trio(), engine_tls, worker_tls)
        self._connect = given_once(connect) if isinstance(connect, trio.abc.Stream) else connect

    async def close(self, links: Iterable[TrioLink]) -> None:
        """See `AsyncLinks`."""
        for link in links:
            if isinstance(link.stream, SocketStream):
                link.stream.close()
            else:
                await link.stream.abort()

    async def _open(self, place: Place, guard: Guard | None) -> SocketStream | BoundedStream:
        origin, is_worker = place
        if self._connect is not None:
            return BoundedStream(await self._connect(origin))
        proxy = self.settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        dialled, its_guard = (origin, guard) if proxy is None else (proxy.origin, None)
        stream = SocketStream(await _dial(dialled, its_guard), self.library.alarms)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self.settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(await stream.receive_some(MOST)):
                    pass
            if context is not None:
                await stream.start_tls(context, origin.host)
        except BaseException:
            stream.close()
            raise
        return stream


async def _dial(origin: Origin, guard: Guard | None) -> socket.socket:
    """Connect to the first address of `origin` that is allowed and answers."""
    resolved = written(origin)
    if resolved is None and guard is None:
        # Trio tries several addresses of a name at once.
        opened = await trio.open_tcp_stream(origin.host, origin.port)
        return socket.socket(fileno=opened.socket.detach())
    if resolved is None:
        resolved = await trio.socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    *others, last = allowed(resolved, origin, guard)
    for address in others:
        with suppress(OSError), trio.move_on_after(ADDRESS_SECONDS):
            return await connect(address, origin.port)
    return await connect(last, origin.port)
