"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar, final

from vastroute import Machine, Receive, Send, Use, WaitUntil

from ..failures import FAILURES
from ..links import MOST, OVER
from ..settings import Settings, Watch
from .limit import Limit
from .links import AsyncioLink, Links

T = TypeVar("T")


@final
class Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_link", "_links", "_machine", "_now", "_watch")

    def __init__(self, links: Links, settings: Settings, machine: Machine[T]) -> None:
        self._links = links
        self._machine = settings.recorded(machine)
        self._now = 0.0
        """When the machine was asked last."""
        self._link: AsyncioLink | None = None
        self._watch = Watch.of(settings, machine)

    async def run(self) -> T:
        """To the end: the result, or its error raised."""
        try:
            loop = self._links.loop()
            action = self._next(loop.time())
            while action is not None:
                action = await self._do(action, loop)
        finally:
            await self.end()
        return self._machine.result()

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        loop = self._links.loop()
        action = self._next(loop.time())
        if action is not None:
            await self._do(action, loop)
        return action is not None

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if self._link is not None or not self._machine.over:
            now = self._links.now()
            if not self._machine.over:
                self._machine.cancelled(now=now)
            self._put_back(now)
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _next(self, now: float) -> Send | Receive | WaitUntil | None:
        """What there is to do; None once it is over."""
        self._now = now
        action = self._machine.next_action(now=now)
        if self._watch is not None:
            self._watch.tell()
        return None if isinstance(action, OVER) else action

    async def _do(
        self, action: Send | Receive | WaitUntil, loop: asyncio.AbstractEventLoop
    ) -> Send | Receive | WaitUntil | None:
        """Wait, or have one request answered, or more of an answer: what came of it is told to the machine.

        A request that is to follow at once is answered too, under the same limit. Then there is something else to do,
        as `_next` says.
        """
        if isinstance(action, WaitUntil):
            await asyncio.sleep(max(0.0, action.at - loop.time()))
            return self._next(loop.time())
        machine = self._machine
        failure: BaseException | None = None
        with Limit(action.deadline, loop) as limit:
            while True:
                link, is_done = self._link, False
                try:
                    if type(action) is Send:
                        decision = self._links.decide(action, now=self._now)
                        if isinstance(decision, Use):
                            link = decision.connection
                        else:
                            limit.move(action.connect_by)
                            link = await self._links.follow(decision, action)
                        self._link = link
                        limit.move(action.deadline)
                        await link.stream.send_all(link.http.send(action.request, limit_body=False))
                    assert link is not None
                    until: float | None = action.deadline
                    while until is not None:
                        limit.move(until)
                        events = link.http.receive(await link.stream.receive_some(MOST))
                        now = loop.time()
                        until = machine.feed(events, now=now, reused=link.used)
                    is_done = True
                except FAILURES as broken:
                    failure = broken
                    break
                following = self._next(now)
                if type(following) is not Send or limit.expired:
                    break
                self._put_back(now)
                action = following
        if not is_done:
            now = loop.time()
            reused = link is not None and link.used
            error = TimeoutError() if failure is None else failure
            machine.failed(error, sent=link is not None, reused=reused, now=now)
            following = self._next(now)
        if type(following) is not Receive:
            self._put_back(now)
        return following

    def _put_back(self, now: float) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._links.release(link, now=now)
