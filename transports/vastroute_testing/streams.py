"""What a client's stream gets from a simulated server, in the order of time; and a blocking stream made of it.

For trio there is `vastroute_testing.trio_streams`, for asyncio `vastroute_testing.asyncio_streams`.
"""

from __future__ import annotations

import errno
from bisect import insort
from collections.abc import Callable, Iterable, Iterator
from itertools import cycle
from math import inf
from typing import TypeAlias, final

import attrs

from vastroute import InvalidValue, LocalProtocolError, Origin

from .checks import at_least_zero
from .clock import ManualClock
from .server import Close, ServerConnection, Servers, Write, find_server

CutSizes: TypeAlias = int | Iterable[int] | None
"""In pieces of how many bytes a stream gives what a server sent: one size for all, or several, again and again from
the first. None gives whatever is there."""


@attrs.frozen(kw_only=True)
class Road:
    """How long the way to a server is; an infinite time is for ever."""

    connecting: float = attrs.field(default=0.0, validator=at_least_zero)
    """Seconds until there is a connection, or a refusal."""
    sending: float = attrs.field(default=0.0, validator=at_least_zero)
    """Seconds until what is sent has left."""


Roads: TypeAlias = Road | Callable[[Origin], Road]
"""One for every origin, or what says it for each."""


def road_to(origin: Origin, roads: Roads) -> Road:
    """The road to `origin`."""
    return roads if isinstance(roads, Road) else roads(origin)


@final
class Inbox:
    """The bytes of one connection on their way to the client. Knows no clock: time is an argument."""

    __slots__ = ("_connection", "_ready", "_sizes", "_to_come")

    def __init__(self, connection: ServerConnection, *, cut: CutSizes = None) -> None:
        self._connection = connection
        self._sizes = _sizes(cut)
        self._ready = bytearray()
        self._to_come: list[Write | Close] = []
        """In the order of time; what follows a `Close` stays for ever."""

    @property
    def due(self) -> float:
        """When `take` has something to say (monotonic seconds): infinity if the server is not going to say anything."""
        if self._ready:
            return -inf
        return self._to_come[0].at if self._to_come else inf

    def is_quiet(self, *, now: float) -> bool:
        """Whether the server has neither spoken nor ended the connection by `now`, but for what was taken."""
        return self.due > now

    def tell(self, data: bytes, *, now: float) -> None:
        """The server gets `data` from the client. Raises `ConnectionResetError` if it has reset the connection."""
        self._arrive(now)
        if self._to_come and isinstance(first := self._to_come[0], Close) and first.at <= now:
            if first.reset:
                raise _reset()
            return
        for said in self._connection.receive(data, now=now):
            insort(self._to_come, said, key=_when)

    def take(self, most: int, *, now: float) -> bytes:
        """At most `most` bytes of what has come by `now`, which must not be before `due`; ``b""`` is the end.

        Raises `ConnectionResetError` once everything that came before a reset was taken.
        """
        self._arrive(now)
        if self._ready:
            size = most if self._sizes is None else min(most, next(self._sizes))
            data = bytes(self._ready[:size])
            del self._ready[:size]
            return data
        first = self._to_come[0]
        assert isinstance(first, Close)
        assert first.at <= now
        if first.reset:
            raise _reset()
        return b""

    def _arrive(self, now: float) -> None:
        come = 0
        for step in self._to_come:
            if isinstance(step, Close) or step.at > now:
                break
            self._ready += step.data
            come += 1
        del self._to_come[:come]


@final
class BlockingMemoryStream:
    """A `vastroute_io.blocking.Stream` whose other end is a simulated server, in a manual clock's time.

    What is not due yet is waited for by passing the clock's time to it, at once. Use it from one thread.
    """

    __slots__ = ("_clock", "_closed", "_inbox", "_sending")

    def __init__(
        self, connection: ServerConnection, clock: ManualClock, *, cut: CutSizes = None, sending: float = 0.0
    ) -> None:
        self._inbox = Inbox(connection, cut=cut)
        self._sending = sending
        self._clock = clock
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the client has closed it."""
        return self._closed

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """The server gets `data`. Raises `TimeoutError` at the deadline, and `ConnectionResetError` after a reset."""
        self._check_open()
        pass_time(self._clock, self._sending, deadline)
        self._inbox.tell(data, now=self._clock())

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """The next bytes, at the instant at which the server sends them; ``b""`` once it closed.

        Raises `TimeoutError` at the deadline, `ConnectionResetError` after a reset, and `LocalProtocolError` in place
        of waiting for ever.
        """
        self._check_open()
        due = self._inbox.due
        if min(due, deadline) == inf:
            raise LocalProtocolError("the server says nothing more and there is no deadline: it would hang for ever")
        if max(due, self._clock()) >= deadline:
            self._clock.sleep_until(deadline)
            raise TimeoutError("the deadline has come")
        self._clock.sleep_until(due)
        return self._inbox.take(most, now=self._clock())

    def is_quiet(self) -> bool:
        """Whether the server has neither spoken nor closed while nothing was asked of it."""
        return not self._closed and self._inbox.is_quiet(now=self._clock())

    def close(self) -> None:
        """Close it. May be called twice."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise OSError(errno.EBADF, "the stream is closed")


@final
class BlockingConnector:
    """Opens blocking memory streams: the `connect` argument of a `vastroute_io.blocking.Client`."""

    __slots__ = ("_clock", "_cut", "_roads", "_servers", "streams")

    def __init__(self, servers: Servers, clock: ManualClock, *, cut: CutSizes = None, roads: Roads = Road()) -> None:
        self._roads = roads
        self._servers = servers
        self._clock = clock
        self._cut = cut
        self.streams: list[BlockingMemoryStream] = []
        """Every stream that was opened, the closed ones too."""

    @property
    def open(self) -> int:
        """How many streams the client has not closed."""
        return sum(not stream.closed for stream in self.streams)

    def __call__(self, origin: Origin, deadline: float) -> BlockingMemoryStream:
        """A stream to `origin`.

        Raises `ConnectionRefusedError` if nobody listens there, and `TimeoutError` at the deadline.
        """
        road = road_to(origin, self._roads)
        if road.connecting:
            pass_time(self._clock, road.connecting, deadline)
        serve = find_server(self._servers, origin, now=self._clock())
        connection = ServerConnection(serve, scheme=origin.scheme)
        stream = BlockingMemoryStream(connection, self._clock, cut=self._cut, sending=road.sending)
        self.streams.append(stream)
        return stream


def blocking_connector(
    servers: Servers, clock: ManualClock, *, cut: CutSizes = None, roads: Roads = Road()
) -> BlockingConnector:
    """For ``vastroute_io.blocking.Client(connect=blocking_connector(servers, clock), clock=clock)``."""
    return BlockingConnector(servers, clock, cut=cut, roads=roads)


def pass_time(clock: ManualClock, seconds: float, deadline: float) -> None:
    """Let `seconds` pass. Raises `TimeoutError` at the deadline, if that is not after them."""
    at = clock() + seconds
    if min(at, deadline) == inf:
        raise LocalProtocolError("it takes for ever and there is no deadline: it would hang for ever")
    clock.sleep_until(min(at, deadline))
    if at >= deadline:
        raise TimeoutError("the deadline has come")


def _when(step: Write | Close) -> float:
    return step.at


def _sizes(cut: CutSizes) -> Iterator[int] | None:
    if cut is None:
        return None
    sizes = [cut] if isinstance(cut, int) else list(cut)
    if not sizes or not all(isinstance(size, int) and size >= 1 for size in sizes):
        raise InvalidValue("cut must be sizes in bytes: whole numbers from 1")
    return cycle(sizes)


def _reset() -> ConnectionResetError:
    return ConnectionResetError(errno.ECONNRESET, "the server reset the connection")
