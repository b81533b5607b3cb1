"""Trio, as the verbs and the driver see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import ClassVar, final

import trio

from ..asynchronous.alarms import Alarms
from ..asynchronous.library import Library
from ..failures import FAILURES


@final
class Trio(Library):
    """Trio, for one client."""

    failures: ClassVar[tuple[type[BaseException], ...]] = (
        *FAILURES,
        trio.BrokenResourceError,
        trio.ClosedResourceError,
    )

    def __init__(self) -> None:
        self._alarms = _Alarms()
        self._clock: trio.abc.Clock | None = None
        self._read: Callable[[], float] = trio.current_time
        """What reads that clock: made once, since every call holds it while it waits."""

    @property
    def alarms(self) -> Alarms:
        """See `Library`."""
        return self._alarms

    def clock(self) -> Callable[[], float]:
        """See `Library`."""
        clock = trio.lowlevel.current_clock()
        if clock is not self._clock:
            self._clock, self._read = clock, clock.current_time
        return self._read

    def lock(self) -> trio.Lock:
        """See `Library`."""
        return trio.Lock()

    def event(self) -> trio.Event:
        """See `Library`."""
        return trio.Event()

    def turn(self, *, alone: bool) -> Awaitable[None]:
        """See `Library`."""
        check = trio.lowlevel.checkpoint_if_cancelled if alone else trio.lowlevel.checkpoint
        return check()

    async def sleep_until(self, at: float) -> None:
        """See `Library`."""
        await trio.sleep_until(at)

    def limit(self, deadline: float) -> _Limit:
        """See `Library`."""
        return _Limit(trio.CancelScope(deadline=deadline))

    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """See `Library`."""
        with trio.move_on_after(seconds, shield=True):
            await work()


@final
class _Limit:
    __slots__ = ("_scope",)

    def __init__(self, scope: trio.CancelScope) -> None:
        self._scope = scope

    async def __aenter__(self) -> None:
        self._scope.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scope.__exit__(kind, value, traceback)
        if self._scope.cancelled_caught:
            raise TimeoutError("it took too long")


@final
class _Alarms(Alarms):
    """Rung by a system task, which is there while a stream has a limit."""

    def __init__(self) -> None:
        super().__init__()
        self._nap: trio.CancelScope | None = None

    def _set(self, at: float) -> None:
        if self._nap is None:
            self._nap = trio.CancelScope(deadline=at)
            trio.lowlevel.spawn_system_task(self._watch, self._nap, name="time limits of vastroute's streams")
        else:
            self._nap.deadline = at

    def _unset(self) -> None:
        if self._nap is not None:
            self._nap.cancel()

    async def _watch(self, nap: trio.CancelScope) -> None:
        try:
            at = 0.0
            while at < inf:
                with nap:
                    await trio.sleep_forever()
                # Whoever was woken by an answer at the same instant goes first, as where the process had been stopped.
                await trio.lowlevel.checkpoint()
                at = self.ring(trio.current_time())
                nap = self._nap = trio.CancelScope(deadline=at)
        finally:
            # Also where this run of trio ends: in the next one, the first limit begins anew.
            self._nap, self._next = None, inf
