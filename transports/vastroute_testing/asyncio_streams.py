"""Asyncio streams whose other end is a simulated server, in the time of the running loop.

With `vastroute_testing.VirtualLoop` a cold start of ten minutes takes milliseconds.
"""

from __future__ import annotations

import asyncio
import errno
from contextlib import suppress
from math import inf
from typing import final

from vastroute import LocalProtocolError, Origin

from .server import ServerConnection, Servers, find_server
from .streams import CutSizes, Inbox, Road, Roads, road_to


@final
class AsyncioMemoryStream:
    """A `vastroute_io.asyncio.ByteStream` to one connection of a simulated server. Nothing runs in the background."""

    def __init__(self, connection: ServerConnection, *, cut: CutSizes = None, sending: float = 0.0) -> None:
        self._inbox = Inbox(connection, cut=cut)
        self._sending = sending
        self._changed: asyncio.Future[None] | None = None
        """What the one that receives is waiting for."""
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the client has closed it."""
        return self._closed

    async def send_all(self, data: bytes) -> None:
        """The server gets `data`, all of it, or nothing if this is cancelled.

        Raises `ConnectionResetError` after a reset, and `OSError` once this end is closed.
        """
        await sleep(self._sending)
        self._check_open()
        self._inbox.tell(data, now=_now())
        self._wake()

    async def receive_some(self, most: int) -> bytes:
        """The next bytes, at the instant at which the server sends them; ``b""`` once it closed.

        Raises `ConnectionResetError` after a reset, `OSError` once this end is closed, and `LocalProtocolError` if
        another task is receiving. Nothing is lost if this is cancelled.
        """
        if self._changed is not None:
            raise LocalProtocolError("another task is receiving from this stream")
        self._changed = asyncio.get_running_loop().create_future()
        try:
            await asyncio.sleep(0)
            self._check_open()
            while (due := self._inbox.due) > (now := _now()):
                with suppress(TimeoutError):
                    async with asyncio.timeout(None if due == inf else due - now):
                        await self._changed
                self._changed = asyncio.get_running_loop().create_future()
                self._check_open()
            return self._inbox.take(most, now=_now())
        finally:
            self._changed = None

    def is_quiet(self) -> bool:
        """Whether the server has neither spoken nor closed while nothing was asked of it."""
        return not self._closed and self._inbox.is_quiet(now=_now())

    def abort(self) -> None:
        """Close it. May be called twice."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._changed is not None and not self._changed.done():
            self._changed.set_result(None)

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the stream is closed")


@final
class AsyncioConnector:
    """Opens memory streams: the `connect` argument of a `vastroute_io.asyncio.Client`."""

    __slots__ = ("_cut", "_roads", "_servers", "streams")

    def __init__(self, servers: Servers, *, cut: CutSizes = None, roads: Roads = Road()) -> None:
        self._roads = roads
        self._servers = servers
        self._cut = cut
        self.streams: list[AsyncioMemoryStream] = []
        """Every stream that was opened, the closed ones too."""

    @property
    def open(self) -> int:
        """How many streams the client has not closed."""
        return sum(not stream.closed for stream in self.streams)

    async def __call__(self, origin: Origin) -> AsyncioMemoryStream:
        """A stream to `origin`. Raises `ConnectionRefusedError` if nobody listens there."""
        road = road_to(origin, self._roads)
        await sleep(road.connecting)
        serve = find_server(self._servers, origin, now=_now())
        stream = AsyncioMemoryStream(ServerConnection(serve, scheme=origin.scheme), cut=self._cut, sending=road.sending)
        self.streams.append(stream)
        return stream


def asyncio_connector(servers: Servers, *, cut: CutSizes = None, roads: Roads = Road()) -> AsyncioConnector:
    """For ``vastroute_io.asyncio.Client(connect=asyncio_connector(servers))``."""
    return AsyncioConnector(servers, cut=cut, roads=roads)


async def sleep(seconds: float) -> None:
    """Let `seconds` pass; for ever if they are infinite, which asyncio's own does not know."""
    if seconds == inf:
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()
