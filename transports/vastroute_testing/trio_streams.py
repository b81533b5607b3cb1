"""Trio streams whose other end is a simulated server, in the time of trio's own clock.

With `vastroute_testing.virtual_clock` a cold start of ten minutes takes milliseconds.
"""

from __future__ import annotations

from typing import final

import trio

from vastroute import Origin

from .server import ServerConnection, Servers, find_server
from .streams import CutSizes, Inbox, Road, Roads, road_to

_MOST = 65536


@final
class MemoryStream(trio.abc.Stream):
    """A client's stream to one connection of a simulated server. Nothing runs in the background."""

    def __init__(self, connection: ServerConnection, *, cut: CutSizes = None, sending: float = 0.0) -> None:
        self._inbox = Inbox(connection, cut=cut)
        self._sending = sending
        self._changed = trio.Event()
        self._closed = False
        self._receiving = False

    @property
    def closed(self) -> bool:
        """Whether the client has closed it."""
        return self._closed

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """The server gets `data`, all of it, or nothing if this is cancelled.

        Raises `trio.BrokenResourceError` after a reset, `trio.ClosedResourceError` once this end is closed.
        """
        await trio.sleep(self._sending)
        self._check_open()
        try:
            self._inbox.tell(bytes(data), now=trio.current_time())
        except ConnectionResetError as error:
            raise trio.BrokenResourceError(str(error)) from error
        self._wake()

    async def wait_send_all_might_not_block(self) -> None:
        """Nothing here ever blocks."""
        await trio.lowlevel.checkpoint()
        self._check_open()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """The next bytes, at the instant at which the server sends them; ``b""`` once it closed.

        Raises `trio.BrokenResourceError` after a reset, `trio.ClosedResourceError` once this end is closed, and
        `trio.BusyResourceError` if another task is receiving. Nothing is lost if this is cancelled.
        """
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._receiving:
            raise trio.BusyResourceError("another task is receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open()
            while (due := self._inbox.due) > trio.current_time():
                with trio.move_on_at(due):
                    await self._changed.wait()
                self._check_open()
            return self._inbox.take(max_bytes or _MOST, now=trio.current_time())
        except ConnectionResetError as error:
            raise trio.BrokenResourceError(str(error)) from error
        finally:
            self._receiving = False

    def is_quiet(self) -> bool:
        """Whether the server has neither spoken nor closed while nothing was asked of it."""
        return not self._closed and self._inbox.is_quiet(now=trio.current_time())

    async def aclose(self) -> None:
        """Close it. May be called twice."""
        self._closed = True
        self._wake()
        await trio.lowlevel.checkpoint()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the stream is closed")


@final
class Connector:
    """Opens memory streams: the `connect` argument of a `vastroute_io.trio.Client`."""

    __slots__ = ("_cut", "_roads", "_servers", "streams")

    def __init__(self, servers: Servers, *, cut: CutSizes = None, roads: Roads = Road()) -> None:
        self._roads = roads
        self._servers = servers
        self._cut = cut
        self.streams: list[MemoryStream] = []
        """Every stream that was opened, the closed ones too."""

    @property
    def open(self) -> int:
        """How many streams the client has not closed."""
        return sum(not stream.closed for stream in self.streams)

    async def __call__(self, origin: Origin) -> MemoryStream:
        """A stream to `origin`. Raises `ConnectionRefusedError` if nobody listens there."""
        road = road_to(origin, self._roads)
        await trio.sleep(road.connecting)
        serve = find_server(self._servers, origin, now=trio.current_time())
        stream = MemoryStream(ServerConnection(serve, scheme=origin.scheme), cut=self._cut, sending=road.sending)
        self.streams.append(stream)
        return stream


def connector(servers: Servers, *, cut: CutSizes = None, roads: Roads = Road()) -> Connector:
    """For ``vastroute_io.trio.Client(connect=connector(servers))``."""
    return Connector(servers, cut=cut, roads=roads)
