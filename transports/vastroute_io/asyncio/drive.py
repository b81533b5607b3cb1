"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar, final

from vastroute import Done, GiveUp, Machine, Receive, Send, WaitUntil

from ..failures import FAILURES
from ..links import MOST
from ..settings import Settings, Watch
from .links import AsyncioLink, Links

T = TypeVar("T")


@final
class Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_link", "_links", "_machine", "_watch")

    def __init__(self, links: Links, settings: Settings, machine: Machine[T]) -> None:
        self._links = links
        self._machine = settings.recorded(machine)
        self._link: AsyncioLink | None = None
        self._watch = Watch.of(settings, machine)

    async def run(self) -> T:
        """To the end: the result, or its error raised."""
        try:
            action = self._next(self._links.now())
            while action is not None:
                action = await self._do(action)
        finally:
            await self.end()
        return self._machine.result()

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._next(self._links.now())
        if action is not None:
            await self._do(action)
        return action is not None

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        now = self._links.now()
        if not self._machine.over:
            self._machine.cancelled(now=now)
        self._put_back(now)
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _next(self, now: float) -> Send | Receive | WaitUntil | None:
        """What there is to do; None once it is over."""
        action = self._machine.next_action(now=now)
        if self._watch is not None:
            self._watch.tell()
        return None if isinstance(action, Done | GiveUp) else action

    async def _do(self, action: Send | Receive | WaitUntil) -> Send | Receive | WaitUntil | None:
        """Wait, or have one request answered, or more of an answer: what came of it is told to the machine.

        Then there is something else to do, as `_next` says.
        """
        if isinstance(action, WaitUntil):
            await asyncio.sleep(max(0.0, action.at - self._links.now()))
            return self._next(self._links.now())
        machine, link = self._machine, self._link
        failure: BaseException | None = None
        try:
            async with asyncio.timeout_at(action.connect_by if type(action) is Send else action.deadline) as scope:
                if type(action) is Send:
                    link = self._link = await self._links.acquire(action)
                    _set(scope, action.deadline)
                    await link.stream.send_all(link.http.send(action.request, limit_body=False))
                assert link is not None
                until: float | None = action.deadline
                while until is not None:
                    _set(scope, until)
                    events = link.http.receive(await link.stream.receive_some(MOST))
                    now = self._links.now()
                    until = machine.feed(events, now=now, reused=link.used)
        except FAILURES as error:
            failure = error
        if failure is not None:
            now = self._links.now()
            reused = link is not None and link.used
            machine.failed(failure, sent=link is not None, reused=reused, now=now)
        following = self._next(now)
        if type(following) is not Receive:
            self._put_back(now)
        return following

    def _put_back(self, now: float) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._links.release(link, now=now)


def _set(scope: asyncio.Timeout, deadline: float) -> None:
    """Change the deadline, which has its price, only if it is another one."""
    if scope.when() != deadline:
        scope.reschedule(deadline)
