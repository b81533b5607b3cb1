"""Asyncio, as the verbs and the driver see it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from time import monotonic
from typing import ClassVar, final

from vastroute import LocalProtocolError

from ..asynchronous.alarms import Alarms
from ..asynchronous.library import Library
from ..failures import FAILURES


@final
class Asyncio(Library):
    """Asyncio, for one client, which belongs to one event loop."""

    failures: ClassVar[tuple[type[BaseException], ...]] = FAILURES

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._time: Callable[[], float] = monotonic
        """What reads the loop's clock: made once, since every call holds it while it waits."""
        self._alarms: _Alarms | None = None

    @property
    def alarms(self) -> Alarms:
        """See `Library`."""
        if self._alarms is None:
            self._alarms = _Alarms(self.loop())
        return self._alarms

    def loop(self) -> asyncio.AbstractEventLoop:
        """The client's loop. Raises `vastroute.LocalProtocolError` in another one than the first."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise LocalProtocolError("a client belongs to the event loop it was first used in: make one in each")
            self._loop, self._time = loop, loop.time
        return loop

    def clock(self) -> Callable[[], float]:
        """See `Library`. Raises as `loop`."""
        self.loop()
        return self._time

    def lock(self) -> asyncio.Lock:
        """See `Library`."""
        return asyncio.Lock()

    def event(self) -> asyncio.Event:
        """See `Library`."""
        return asyncio.Event()

    async def turn(self, *, alone: bool) -> None:
        """See `Library`. Asyncio raises where a task waits, and only there."""
        if not alone:
            await asyncio.sleep(0)

    async def sleep_until(self, at: float) -> None:
        """See `Library`."""
        await asyncio.sleep(max(0.0, at - self.now()))

    def limit(self, deadline: float) -> asyncio.Timeout:
        """See `Library`."""
        return asyncio.timeout_at(None if deadline == inf else deadline)

    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """See `Library`."""

        async def bounded() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await work()

        # In a task of its own, so that it outlasts cancellations of this one, which are passed on when it is over.
        task = asyncio.create_task(bounded())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
        task.result()
        if cancelled is not None:
            raise cancelled


@final
class _Alarms(Alarms):
    """Rung by one timer of the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def _set(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)

    def _unset(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if (at := self.ring(self._loop.time())) < inf:
            self._set(at)
