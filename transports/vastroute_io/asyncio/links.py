"""Connections over asyncio."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import final

from vastroute import Guard, Origin

from ..addresses import ADDRESS_SECONDS, allowed, written
from ..asynchronous.links import AsyncLinks, given_once
from ..settings import Settings
from .library import Asyncio
from .streams import BoundedStream, ByteStream, SocketStream

Connect = Callable[[Origin], Awaitable[ByteStream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""


@final
class Links(AsyncLinks):
    """All connections of one client."""

    def __init__(
        self,
        settings: Settings,
        connect: Connect | ByteStream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[], Awaitable[ssl.SSLContext]],
    ) -> None:
        connector = connect if connect is None or callable(connect) else given_once(connect)

        async def bounded(origin: Origin) -> BoundedStream:
            assert connector is not None
            return BoundedStream(await connector(origin))

        super().__init__(settings, Asyncio(), bounded if connector is not None else None, engine_tls, worker_tls)

    async def aclose(self) -> None:
        """See `AsyncLinks`."""
        self.library.now()  # only its own loop can close them
        await super().aclose()

    async def _dial(self, origin: Origin, guard: Guard | None) -> SocketStream:
        loop = asyncio.get_running_loop()
        stream_of = partial(SocketStream, loop, self.library.alarms)
        resolved = written(origin)
        if resolved is None:
            resolved = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        *others, last = allowed(resolved, origin, guard)
        for address in others:
            with suppress(OSError):
                async with asyncio.timeout(ADDRESS_SECONDS):
                    return (await loop.create_connection(stream_of, address, origin.port))[1]
        return (await loop.create_connection(stream_of, last, origin.port))[1]
