"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

from typing import Generic, TypeVar, final

from vastroute import Machine, Receive, Send, WaitUntil

from ..failures import FAILURES
from ..links import MOST, OVER, has_sent
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
            action = self._next(self._clock())
            while action is not None:
                action = self._do(action)
        finally:
            self.end()
        return self._machine.result()

    def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._next(self._clock())
        if action is not None:
            self._do(action)
        return action is not None

    def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=self._clock(), sent=has_sent(self._link))
        self._put_back()
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _next(self, now: float) -> Send | Receive | WaitUntil | None:
        """What there is to do; None once it is over."""
        action = self._machine.next_action(now=now)
        if self._watch is not None:
            self._watch.tell()
        return None if isinstance(action, OVER) else action

    def _do(self, action: Send | Receive | WaitUntil) -> Send | Receive | WaitUntil | None:
        """Wait, or have one request answered, or more of an answer: what came of it is told to the machine.

        Then there is something else to do, as `_next` says.
        """
        if isinstance(action, WaitUntil):
            self._clock.sleep_until(action.at)
            return self._next(self._clock())
        machine, link = self._machine, self._link
        failure: BaseException | None = None
        try:
            if type(action) is Send:
                link = self._link = self._links.acquire(action)
                with self._links.judging:
                    data = link.http.send(action.request, limit_body=False)
                link.stream.send_all(data, deadline=action.deadline)
            assert link is not None
            until: float | None = action.deadline
            while until is not None:
                data = link.stream.receive_some(MOST, deadline=until)
                with self._links.judging:
                    now = self._clock()
                    until = machine.feed(link.http.receive(data), now=now, reused=link.used)
        except FAILURES as error:
            failure = error
        if failure is not None:
            now = self._clock()
            reused = link is not None and link.used
            machine.failed(failure, sent=link is not None, reused=reused, now=now)
        following = self._next(now)
        if type(following) is not Receive:
            self._put_back()
        return following

    def _put_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._links.release(link)
