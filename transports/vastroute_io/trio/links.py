"""Connections over trio."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import final

import trio

from vastroute import Guard, Origin

from ..addresses import ADDRESS_SECONDS, allowed, written
from ..asynchronous.links import AsyncLinks, given_once
from ..settings import Settings
from .library import Trio
from .pollers import new_poller
from .streams import BoundedStream, SocketStream, connected

Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""


@final
class Links(AsyncLinks):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | trio.abc.Stream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        connector = given_once(connect) if isinstance(connect, trio.abc.Stream) else connect

        async def bounded(origin: Origin) -> BoundedStream:
            assert connector is not None
            return BoundedStream(await connector(origin))

        self._poller = new_poller()
        super().__init__(settings, Trio(), bounded if connector is not None else None, engine_tls, worker_tls)

    async def _dial(self, origin: Origin, guard: Guard | None) -> SocketStream:
        alarms, poller = self.library.alarms, self._poller
        resolved = written(origin)
        if resolved is None and guard is None:
            # Trio tries several addresses of a name at once.
            opened = await trio.open_tcp_stream(origin.host, origin.port)
            return SocketStream(socket.socket(fileno=opened.socket.detach()), alarms, poller)
        if resolved is None:
            resolved = await trio.socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        *others, last = allowed(resolved, origin, guard)
        for address in others:
            with suppress(OSError), trio.move_on_after(ADDRESS_SECONDS):
                return SocketStream(await connected(address, origin.port), alarms, poller)
        return SocketStream(await connected(last, origin.port), alarms, poller)
