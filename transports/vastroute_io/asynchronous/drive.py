"""The loop that drives a machine: it does what the machine asks for, and decides nothing. Once for every library."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, final

from vastroute import Machine, Receive, Send, Use, WaitUntil

from ..links import MOST, OVER, has_sent
from ..settings import Watch
from .links import AsyncLink, AsyncLinks


@final
class Drive:
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_clock", "_link", "_links", "_machine", "_now", "_watch")

    def __init__(self, links: AsyncLinks, machine: Machine[Any], clock: Callable[[], float] | None = None) -> None:
        settings = links.settings
        self._links = links
        self._machine = settings.recorded(machine)
        self._clock = links.library.clock() if clock is None else clock
        self._now = 0.0
        """When the machine was asked last."""
        self._link: AsyncLink | None = None
        self._watch = Watch.of(settings, machine)

    async def go_on(self, *, once: bool = False) -> bool:
        """Do what the machine asks for until it is over; with `once`, the next thing alone. False if it was over.

        It waits, or has a request answered, or more of an answer: what came of it is told to the machine. Whatever else
        is raised meanwhile, a cancellation above all, `end`s it; with `once` that is left to the caller: who stops
        waiting for an event may come again.
        """
        try:
            action = self._next(self._clock())
            while action is not None:
                machine, link = self._machine, self._link
                if isinstance(action, WaitUntil):
                    await self._links.library.sleep_until(action.at)
                    now = self._clock()
                else:
                    try:
                        if type(action) is Send:
                            link = self._link = await self._connection(action)
                        assert link is not None
                        stream, http = link.stream, link.http
                        stream.limit(action.deadline)
                        if type(action) is Send:
                            await stream.send_all(http.send(action.request, limit_body=False))
                        while True:
                            events = http.receive(await stream.receive_some(MOST))
                            now = self._clock()
                            until = machine.feed(events, now=now, reused=link.used)
                            if until is None:
                                break
                            stream.limit(until)
                    except self._links.library.failures as error:
                        now = self._clock()
                        machine.failed(error, sent=link is not None, reused=link is not None and link.used, now=now)
                action = self._next(now)
                if type(action) is not Receive:
                    if closing := self._put_back(now):
                        await self._links.close(closing)
                elif link is not None:
                    link.stream.until = inf  # there is no limit while nobody waits for more
                if once:
                    return True
            return False
        except BaseException:
            if not once:
                await self.end()
            raise

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=self._clock(), sent=has_sent(self._link))
        if closing := self._put_back(self._clock()):
            await self._links.close(closing)
        if self._watch is not None:
            self._watch.tell()  # last: should it raise after all, nothing is left open

    def _next(self, now: float) -> Send | Receive | WaitUntil | None:
        """What there is to do; None once it is over."""
        self._now = now
        action = self._machine.next_action(now=now)
        if self._watch is not None:
            self._watch.tell()
        return None if isinstance(action, OVER) else action

    async def _connection(self, send: Send) -> AsyncLink:
        """One for `send`: a kept one, once the others had a turn, or a new one."""
        links = self._links
        decision = links.decide(send, now=self._now)
        if isinstance(decision, Use):
            # Who was woken together sends together: so the system, and perhaps the peer, is woken once.
            self._link = decision.connection  # which is held meanwhile
            await links.library.turn(alone=links.pool.in_use < 2)
            self._link = None
            decision = links.look(decision, now=self._now)
        return decision.connection if isinstance(decision, Use) else await links.follow(decision, send)

    def _put_back(self, now: float) -> list[AsyncLink]:
        """The connection that was in use goes back, if there was one: close what this returns."""
        link, self._link = self._link, None
        return [] if link is None else self._links.put_back(link, now=now)
