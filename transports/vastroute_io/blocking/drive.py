"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from vastroute import Machine, Receive, Send, WaitUntil

from ..failures import FAILURES, kind_of
from ..links import MOST
from ..settings import Settings, Watch
from .links import BlockingLink, Links

T = TypeVar("T")


@final
class Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_clock", "_link", "_links", "_machine", "_watch")

    def __init__(self, links: Links, settings: Settings, machine: Machine[T]) -> None:
        self._links = links
        self._clock = links.clock
        self._machine = settings.recorded(machine)
        self._link: BlockingLink | None = None
        self._watch = Watch.of(settings, machine)

    def run(self) -> T:
        """To the end: the result, or its error raised."""
        try:
            while self.step():
                pass
        finally:
            self.end()
        return self._machine.result()

    def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._machine.next_action(now=self._clock())
        if self._watch is not None:
            self._watch.tell()
        if type(action) is WaitUntil:
            self._clock.sleep_until(action.at)
        elif type(action) is Send or type(action) is Receive:
            self._exchange(action)
        else:
            return False
        return True

    def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=self._clock())
        self._put_back()
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _exchange(self, action: Send | Receive) -> None:
        """One request and its answer, or more of an answer; whatever comes of it is reported to the machine."""
        machine, link = self._machine, self._link
        failure: BaseException | None = None
        try:
            if type(action) is Send:
                link = self._link = self._links.acquire(action)
                data = link.http.send(action.request, limit_body=False)
                link.stream.send_all(data, deadline=action.deadline)
            assert link is not None
            deadline = action.deadline
            while (until := self._more(link, link.stream.receive_some(MOST, deadline=deadline))) is not None:
                deadline = until
        except FAILURES as error:
            failure = error
        now = self._clock()
        if failure is not None:
            reused = link is not None and link.used
            machine.failed(failure, kind=kind_of(failure), sent=link is not None, reused=reused, now=now)
        if type(machine.next_action(now=now)) is not Receive:
            self._put_back()

    def _more(self, link: BlockingLink, data: bytes) -> float | None:
        events = link.http.receive(data)
        with self._links.judging:
            return self._machine.feed(events, now=self._clock(), reused=link.used)

    def _put_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._links.release(link)
