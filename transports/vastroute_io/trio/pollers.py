"""Waiting for many sockets at the price of one.

Trio waits for a socket with a system call and a dozen objects each time, and where thousands wait, Python's garbage
collector goes through these again and again. Here a client's sockets are entered once into an epoll of their own. One
of the tasks that wait, the leader, waits for that epoll for all of them: it wakes the others as they are spoken to, and
passes the lead on once its own stream is. Whoever begins to wait when nobody else does waits as trio has it: that is
cheaper for one.
"""

from __future__ import annotations

import select
from abc import abstractmethod
from collections.abc import Awaitable
from typing import Any, final

from trio.lowlevel import Abort, Task, current_task, notify_closing, reschedule, wait_readable, wait_task_rescheduled

from ..asynchronous.alarms import Alarms, WatchedStream

_AT_ONCE = 50
"""How many tasks are woken before they go on. What each makes and drops is still young when the next are woken; of
thousands at once it would be carried through the generations of the garbage collector."""


class PolledStream(WatchedStream):
    """A stream whose socket is waited for by a `Poller`."""

    __slots__ = ("asks_anew", "heard", "is_reading", "poller")

    def __init__(self, alarms: Alarms, poller: Poller) -> None:
        super().__init__(alarms)
        self.poller: Poller = poller
        """What waits for it."""
        self.heard: bool = False
        """Whether there may be something to read, so that the socket is tried before it is waited for."""
        self.asks_anew: bool = False
        """Whether something that was announced before may have been left in the socket: TLS reads record by record, and
        the end of what the peer sends comes with the last of it."""
        self.is_reading: bool = False
        """Whether a task waits for it, or was woken and has not gone on yet."""

    @abstractmethod
    def fileno(self) -> int:
        """The number of its socket, negative once it is closed."""

    def give_up(self, _raise_cancel: object, /) -> Abort:
        """Who waits for it is cancelled: trio's abort function for that."""
        self.poller.forget(self)
        return Abort.SUCCEEDED


class Poller:
    """Waits for each socket by itself, as trio does."""

    def add(self, stream: PolledStream) -> None:
        """`stream` will be waited for."""

    def drop(self, stream: PolledStream) -> None:
        """`stream` is about to be closed: whoever waits for it goes on, and finds it so."""
        self.wake(stream)

    def hear(self, stream: PolledStream) -> Awaitable[Any]:
        """Until `stream` is heard, or the caller has to look whether it is and come again; then, always, `leave`.

        Raises `trio.ClosedResourceError` if `wake` ends it.
        """
        stream.heard = True  # by the time that this is over
        return wait_readable(stream.fileno())  # noqa: ASYNC105 - by the caller: no coroutine in between

    def leave(self, stream: PolledStream) -> None:
        """The caller of `hear` goes on, whatever came of it."""
        stream.is_reading = False

    def forget(self, stream: PolledStream) -> None:
        """Whoever waits for `stream` is not to be woken any more."""

    def wake(self, stream: PolledStream) -> bool:
        """Let whoever waits for `stream` try it. False if nobody does."""
        if stream.is_reading:
            stream.heard = True
            notify_closing(stream.fileno())  # which is trio's one way to end somebody else's wait
        return stream.is_reading


@final
class EpollPoller(Poller):
    """Waits for all sockets together, where there is Linux's epoll."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        """There is one while there are streams."""
        self._streams: dict[int, PolledStream] = {}
        self._alone: PolledStream | None = None
        """The stream that is waited for by itself, since there was no other when its reader came."""
        self._leader: PolledStream | None = None
        """The stream whose reader waits for all, or is about to."""
        self._parked: dict[PolledStream, Task] = {}
        """Whose readers the leader will wake."""

    def add(self, stream: PolledStream) -> None:
        """See `Poller`."""
        if self._epoll is None:
            self._epoll = select.epoll()
        number = stream.fileno()
        self._epoll.register(number, _arrivals())
        self._streams[number] = stream

    def drop(self, stream: PolledStream) -> None:
        """See `Poller`."""
        self.wake(stream)
        del self._streams[stream.fileno()]
        if not self._streams and self._epoll is not None:
            self._epoll.close()
            self._epoll = None

    def hear(self, stream: PolledStream) -> Awaitable[Any]:
        """See `Poller`."""
        if self._leader is None:
            if self._alone is None:
                self._alone = stream
                stream.heard = True
                return wait_readable(stream.fileno())  # noqa: ASYNC105 - as above
            self._leader = stream
        if stream.asks_anew and self._epoll is not None:
            self._epoll.modify(stream.fileno(), _arrivals())  # which tells what is there now, too
        if self._leader is stream:
            return self._lead()
        self._parked[stream] = current_task()
        return wait_task_rescheduled(stream.give_up)  # noqa: ASYNC105 - as above

    def leave(self, stream: PolledStream) -> None:
        """See `Poller`."""
        stream.is_reading = False
        if self._alone is stream:
            self._alone = None
        elif self._leader is stream:
            self._leader = None
            if self._parked:
                # Whoever came last is likely to lead longest.
                self._leader, task = self._parked.popitem()
                reschedule(task)

    def forget(self, stream: PolledStream) -> None:
        """See `Poller`."""
        del self._parked[stream]

    def wake(self, stream: PolledStream) -> bool:
        """See `Poller`."""
        if stream.is_reading:
            stream.heard = True
            task = self._parked.pop(stream, None)
            if task is not None:
                reschedule(task)
            elif self._alone is stream:
                notify_closing(stream.fileno())
            elif self._leader is stream and self._epoll is not None:
                notify_closing(self._epoll)
        return stream.is_reading

    async def _lead(self) -> None:
        epoll = self._epoll
        assert epoll is not None
        await wait_readable(epoll)
        if epoll.closed:
            return  # as the leader's stream was, at the same instant
        streams, parked = self._streams, self._parked
        for number, flags in epoll.poll(0, _AT_ONCE):
            stream = streams.get(number)
            if stream is None:
                continue  # it was closed, but a forked child has a copy of its socket
            stream.heard = True
            if flags != select.EPOLLIN:
                stream.asks_anew = True
            task = parked.pop(stream, None)
            if task is not None:
                reschedule(task)


def _arrivals() -> int:
    """Every arrival, told once: so a socket need not be entered again for each wait."""
    return select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


def new_poller() -> Poller:
    """The one that this system allows."""
    return EpollPoller() if hasattr(select, "epoll") else Poller()
