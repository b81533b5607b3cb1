"""The time limits of streams: one heap for all of a client's, so that a limit costs next to nothing if it is kept.

A cancel scope or a timer for each exchange is made, and taken away for nothing, nearly every time. Here a stream only
notes until when it is waited for. It is looked at when the first of its limits is due; mostly that one is long past by
then, and the stream is looked at again when its present one is.
"""

from __future__ import annotations

import ssl
from abc import ABC, abstractmethod
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

_FEW = 1000
"""Entries that need no clearing up."""


class LimitedStream(ABC):
    """A stream that is waited for until a given instant at most: whoever waits for it then gets a TimeoutError."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until: float = inf
        """Until when it is waited for, in monotonic seconds. Set it to `inf` when nobody waits; else use `limit`."""

    def limit(self, until: float) -> None:
        """From now on it is waited for `until` then (monotonic seconds)."""
        self.until = until

    @abstractmethod
    async def send_all(self, data: bytes, /) -> None:
        """Send all of `data`."""

    @abstractmethod
    async def receive_some(self, most: int, /) -> bytes:
        """At least one and at most `most` bytes; ``b""`` once the peer has closed."""

    @abstractmethod
    def is_quiet(self) -> bool:
        """Whether the peer has neither spoken nor closed while nothing was asked of it, as far as can be known."""

    @abstractmethod
    async def shut(self) -> None:
        """Close it by force, which waits for nothing."""


class WatchedStream(LimitedStream):
    """One whose limit is kept by `Alarms`, since it can be closed at any time."""

    __slots__ = ("_alarms", "look_at")

    def __init__(self, alarms: Alarms) -> None:
        super().__init__()
        self._alarms: Alarms = alarms
        self.look_at: float = inf
        """When the alarms will look at it; they alone set this."""

    def limit(self, until: float) -> None:
        """See `LimitedStream`."""
        self.until = until
        if until < self.look_at:
            self._alarms.add(self, until)

    @abstractmethod
    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Go on over TLS, with a peer that proves to be `host`."""

    @abstractmethod
    def expire(self) -> None:
        """The time is up: close it."""

    @abstractmethod
    def abort(self) -> None:
        """Close it by force, at once. May be called twice."""

    async def shut(self) -> None:
        """See `LimitedStream`."""
        self.abort()

    def _unwatch(self) -> None:
        """It is closed: there is nothing to look at any more."""
        self.until: float = inf
        self._alarms.drop(self)


class Alarms(ABC):
    """When which stream is to be looked at. A library adds what calls `ring` then."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, WatchedStream]] = []
        """Entries that are not their stream's `look_at` any more stay until they come up, or are too many."""
        self._numbers: count[int] = count()
        self._watched: int = 0
        """How many streams will be looked at."""
        self._next: float = inf
        """When `ring` will be called."""

    def add(self, stream: WatchedStream, at: float) -> None:
        """Look at `stream` then, which is earlier than it would have been."""
        self._watched += stream.look_at == inf
        stream.look_at = at
        if len(self._heap) > 2 * self._watched + _FEW:
            self._heap = [entry for entry in self._heap if entry[2].look_at == entry[0]]
            heapify(self._heap)
        heappush(self._heap, (at, next(self._numbers), stream))
        if at < self._next:
            self._next = at
            self._set(at)

    def drop(self, stream: WatchedStream) -> None:
        """Do not look at `stream` any more."""
        if stream.look_at == inf:
            return
        stream.look_at = inf
        self._watched -= 1
        if not self._watched:
            self._heap.clear()
            self._next = inf
            self._unset()

    def ring(self, now: float) -> float:
        """Let every stream whose time is up expire; when it has to be called next."""
        while self._heap and self._heap[0][0] <= now:
            at, _, stream = heappop(self._heap)
            if stream.look_at != at:
                continue
            stream.look_at = inf
            self._watched -= 1
            if stream.until <= now:
                stream.expire()
            elif stream.until < inf:
                self.add(stream, stream.until)
        if not self._watched:
            self._heap.clear()
        self._next = self._heap[0][0] if self._heap else inf
        return self._next

    @abstractmethod
    def _set(self, at: float) -> None:
        """Have `ring` called `at` that instant (monotonic seconds), which is earlier than what was set before."""

    @abstractmethod
    def _unset(self) -> None:
        """It need not be called any more."""
