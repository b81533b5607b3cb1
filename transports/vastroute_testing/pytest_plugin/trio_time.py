"""Trio's virtual time beside threads: its clock takes a task that waits for one for idle, and passes the time."""

from __future__ import annotations

from typing import final

import trio
import trio.testing

PATIENCE = 1.0
"""Real seconds that virtual time stands still at most. Not for ever, because the thread may wait for virtual time."""


@final
class StandStill(trio.abc.Instrument):
    """While a job runs in a thread (``trio.to_thread``, with the default limiter), time stands still."""

    def __init__(self, clock: trio.testing.MockClock) -> None:
        self._clock = clock
        self._limiter: trio.CapacityLimiter | None = None

    def before_run(self) -> None:
        """See `trio.abc.Instrument`."""
        self._limiter = trio.to_thread.current_default_thread_limiter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        assert self._limiter is not None
        threshold = PATIENCE if self._limiter.borrowed_tokens else 0.0
        if self._clock.autojump_threshold != threshold:
            self._clock.autojump_threshold = threshold
