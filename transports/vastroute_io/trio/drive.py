"""The loop that drives a machine: it does what the machine asks for, and decides nothing."""

from __future__ import annotations

from typing import Generic, TypeVar, final

import trio

from vastroute import FailureKind, Machine, Receive, Send, WaitUntil

from ..failures import FAILURES, kind_of
from ..links import MOST
from ..settings import Settings, Watch
from .links import Links, TrioLink

T = TypeVar("T")
_BROKEN = (*FAILURES, trio.BrokenResourceError, trio.ClosedResourceError)


@final
class Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_link", "_links", "_machine", "_watch")

    def __init__(self, links: Links, settings: Settings, machine: Machine[T]) -> None:
        self._links = links
        self._machine = settings.recorded(machine)
        self._link: TrioLink | None = None
        self._watch = Watch.of(settings, machine)

    async def run(self) -> T:
        """To the end: the result, or its error raised."""
        try:
            while await self.step():
                pass
        finally:
            await self.end()
        return self._machine.result()

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._machine.next_action(now=trio.current_time())
        if self._watch is not None:
            self._watch.tell()
        if type(action) is WaitUntil:
            await trio.sleep_until(action.at)
        elif type(action) is Send or type(action) is Receive:
            await self._exchange(action)
        else:
            return False
        return True

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=trio.current_time())
        await self._put_back()
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    async def _exchange(self, action: Send | Receive) -> None:
        """One request and its answer, or more of an answer; whatever comes of it is reported to the machine."""
        machine, link = self._machine, self._link
        failure: BaseException | FailureKind | None = FailureKind.TIMEOUT
        with trio.CancelScope(deadline=action.connect_by if type(action) is Send else action.deadline) as scope:
            try:
                if type(action) is Send:
                    link = self._link = await self._links.acquire(action)
                    scope.deadline = action.deadline
                    await link.stream.send_all(link.http.send(action.request, limit_body=False))
                assert link is not None
                while (until := self._more(link, await link.stream.receive_some(MOST))) is not None:
                    scope.deadline = until
                failure = None
            except _BROKEN as error:
                failure = error
        now = trio.current_time()
        if failure is not None:
            reused = link is not None and link.used
            machine.failed(failure, kind=kind_of(failure), sent=link is not None, reused=reused, now=now)
        if type(machine.next_action(now=now)) is not Receive:
            await self._put_back()

    def _more(self, link: TrioLink, data: bytes | bytearray) -> float | None:
        return self._machine.feed(link.http.receive(bytes(data)), now=trio.current_time(), reused=link.used)

    async def _put_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await self._links.release(link)
