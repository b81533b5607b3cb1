"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

from typing import Generic, TypeVar, final

import trio

from vastroute import FailureKind, Machine, Receive, Send, Use, WaitUntil

from ..failures import FAILURES
from ..links import MOST, OVER
from ..settings import Settings, Watch
from .links import Links, TrioLink, close

T = TypeVar("T")
_BROKEN = (*FAILURES, trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_link", "_links", "_machine", "_now", "_watch")

    def __init__(self, links: Links, settings: Settings, machine: Machine[T]) -> None:
        self._links = links
        self._machine = settings.recorded(machine)
        self._now = 0.0
        """When the machine was asked last."""
        self._link: TrioLink | None = None
        self._watch = Watch.of(settings, machine)

    async def run(self) -> T:
        """To the end: the result, or its error raised."""
        try:
            action = self._next(trio.current_time())
            while action is not None:
                action = await self._do(action)
        finally:
            await self.end()
        return self._machine.result()

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._next(trio.current_time())
        if action is not None:
            await self._do(action)
        return action is not None

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if self._link is not None or not self._machine.over:
            now = trio.current_time()
            if not self._machine.over:
                self._machine.cancelled(now=now)
            if closing := self._put_back(now):
                await close(closing)
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _next(self, now: float) -> Send | Receive | WaitUntil | None:
        """What there is to do; None once it is over."""
        self._now = now
        action = self._machine.next_action(now=now)
        if self._watch is not None:
            self._watch.tell()
        return None if isinstance(action, OVER) else action

    async def _do(self, action: Send | Receive | WaitUntil) -> Send | Receive | WaitUntil | None:
        """Wait, or have one request answered, or more of an answer: what came of it is told to the machine.

        A request that is to follow at once is answered too, under the same scope, which has its price. Then there is
        something else to do, as `_next` says.
        """
        if isinstance(action, WaitUntil):
            await trio.sleep_until(action.at)
            return self._next(trio.current_time())
        machine = self._machine
        with trio.CancelScope(deadline=action.deadline) as scope:
            while True:
                link = self._link
                failure: BaseException | FailureKind | None = FailureKind.TIMEOUT
                try:
                    if type(action) is Send:
                        decision = self._links.decide(action, now=self._now)
                        if isinstance(decision, Use):
                            link = decision.connection
                        else:
                            _set(scope, action.connect_by)
                            link = await self._links.follow(decision, action)
                        self._link = link
                        _set(scope, action.deadline)
                        await link.stream.send_all(link.http.send(action.request, limit_body=False))
                    assert link is not None
                    until: float | None = action.deadline
                    while until is not None:
                        _set(scope, until)
                        events = link.http.receive(bytes(await link.stream.receive_some(MOST)))
                        now = trio.current_time()
                        until = machine.feed(events, now=now, reused=link.used)
                    failure = None
                except _BROKEN as error:
                    failure = error
                    break
                following = self._next(now)
                if type(following) is not Send or scope.cancel_called:
                    break
                if closing := self._put_back(now):
                    await close(closing)
                action = following
        if failure is not None:
            now = trio.current_time()
            reused = link is not None and link.used
            machine.failed(failure, sent=link is not None, reused=reused, now=now)
            following = self._next(now)
        if type(following) is not Receive and (closing := self._put_back(now)):
            await close(closing)
        return following

    def _put_back(self, now: float) -> list[TrioLink]:
        """The connection goes back, if there is one: close what this returns."""
        link, self._link = self._link, None
        return [] if link is None else self._links.put_back(link, now=now)


def _set(scope: trio.CancelScope, deadline: float) -> None:
    """Change the deadline, which has its price, only if it is another one."""
    if scope.deadline != deadline:
        scope.deadline = deadline
