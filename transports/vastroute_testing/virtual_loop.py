"""An asyncio loop in virtual time: what ``trio.testing.MockClock(autojump_threshold=0)`` is for trio."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from contextvars import Context
from math import inf, nextafter
from typing import Any, TypeVar, TypeVarTuple, final

from vastroute import LocalProtocolError

from .clock import BEGIN

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")
_RESOLUTION = 1e-9
"""Seconds by which a timer of asyncio's may be early: no more than the clock that asyncio reads in real time."""


@final
class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes at once where nobody has anything to do: ``asyncio.Runner(loop_factory=VirtualLoop)``.

    While a job runs in a thread (``asyncio.to_thread``), time stands still. Sockets, pipes and subprocesses are refused
    with `vastroute.LocalProtocolError`: beside a virtual clock their time-outs would fire at once. So is waiting for
    what can never happen, which would hang for ever.
    """

    def __init__(self) -> None:
        self._instant = BEGIN
        self._jobs = 0
        """How many threads are at work for this loop."""
        selector = _Selector(self)
        super().__init__(selector)
        selector.is_sealed = True  # the loop's own pipe, by which threads wake it, is in

    def time(self) -> float:
        """Monotonic seconds, from a large odd number on."""
        return self._instant

    def call_at(
        self,
        when: float,
        callback: Callable[[*Arguments], object],
        *args: *Arguments,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """See ``asyncio.loop.call_at``: what is never due is not waited for, a day at a time."""
        if when == inf:
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[[*Arguments], T], *args: *Arguments) -> asyncio.Future[T]:
        """See ``asyncio.loop.run_in_executor``: until the thread is done, no time passes."""
        job = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        job.add_done_callback(self._done)
        return job

    def pass_time(self, seconds: float | None) -> float | None:
        """Nobody has anything to do for `seconds`: how many of them to really wait."""
        if self._jobs:
            return None if seconds is None or seconds > 0 else 0
        if seconds is None:
            raise LocalProtocolError("everybody waits for what nobody is going to do: it would hang for ever")
        self._instant += seconds
        if self._instant + _RESOLUTION == self._instant:
            # So late that a timer would be due at this instant only after it.
            self._instant = nextafter(self._instant, inf)
        return 0

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """See ``asyncio.loop.shutdown_default_executor``. Waits for as long as it takes, whatever `timeout` says."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._jobs -= 1

    def _done(self, _job: object) -> None:
        self._jobs -= 1


@final
class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self.is_sealed = False

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        if self.is_sealed:
            raise LocalProtocolError(
                "a virtual clock beside a real socket would fire its time-outs at once: give the client a connect of "
                "vastroute_testing, or run it in real time"
            )
        return super().register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(self._loop.pass_time(timeout))
        return ready
