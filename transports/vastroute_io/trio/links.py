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
from ..asynchronous.links import AsyncLinks, Event, given_once
from ..links import MOST, Link
from ..settings import Settings
from .streams import SocketStream

Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""
TrioLink: TypeAlias = Link[trio.abc.Stream]


@final
class Links(AsyncLinks[trio.abc.Stream]):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | trio.abc.Stream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        connector = given_once(connect) if isinstance(connect, trio.abc.Stream) else connect
        super().__init__(settings, connector, engine_tls, worker_tls)

    def now(self) -> float:
        """Monotonic seconds."""
        return trio.current_time()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        await close(self.pool.close())

    def _event(self) -> Event:
        return trio.Event()

    async def _open(self, origin: Origin, guard: Guard | None, *, is_worker: bool) -> trio.abc.Stream:
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = await self._tls(is_worker=is_worker) if origin.scheme == "https" else None
        stream = await _dial(origin if proxy is None else proxy.origin, guard if proxy is None else None)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(await stream.receive_some(MOST)):
                    pass
            if context is not None:
                await stream.start_tls(context, origin.host)
        except BaseException:
            stream.close()
            raise
        return stream


async def _dial(origin: Origin, guard: Guard | None) -> SocketStream:
    """Connect to the first address of `origin` that is allowed and answers."""
    resolved = written(origin)
    if resolved is None and guard is None:
        # Trio tries several addresses of a name at once.
        opened = await trio.open_tcp_stream(origin.host, origin.port)
        return SocketStream(socket.socket(fileno=opened.socket.detach()))
    if resolved is None:
        resolved = await trio.socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    *others, last = allowed(resolved, origin, guard)
    for address in others:
        with suppress(OSError), trio.move_on_after(ADDRESS_SECONDS):
            return await SocketStream.connect(address, origin.port)
    return await SocketStream.connect(last, origin.port)


async def close(links: Iterable[TrioLink]) -> None:
    """Close them by force, which waits for nothing."""
    for link in links:
        if isinstance(link.stream, SocketStream):
            link.stream.close()
        else:
            with trio.CancelScope(shield=True):  # cancelled half-way, it would leave the rest open
                await trio.aclose_forcefully(link.stream)
