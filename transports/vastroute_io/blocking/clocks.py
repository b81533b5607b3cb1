"""Where a blocking client's time comes from."""

from __future__ import annotations

import time
from typing import Protocol, final


class Clock(Protocol):
    """Where a client's time comes from; `vastroute_testing.ManualClock` is one for tests."""

    def __call__(self) -> float:
        """Monotonic seconds."""

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""


@final
class RealClock:
    """The system's monotonic clock."""

    __slots__ = ()

    def __call__(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""
        time.sleep(max(0.0, at - time.monotonic()))


def left(deadline: float, clock: Clock) -> float:
    """Seconds until `deadline`. Raises TimeoutError when there are none."""
    seconds = deadline - clock()
    if seconds <= 0:
        raise TimeoutError("the deadline has come")
    return seconds
