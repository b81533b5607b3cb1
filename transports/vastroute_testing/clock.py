"""Time that passes only when somebody says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from vastroute import InvalidValue

if TYPE_CHECKING:
    from trio.testing import MockClock

BEGIN: Final = 730_001.25
"""Monotonic seconds at which virtual time begins: a large odd number, so that code which mixes it up with another
clock, or with zero, is seen."""


@final
class ManualClock:
    """A clock for tests: call it for the monotonic seconds, `sleep_until` passes the time at once.

    It begins at a large odd number, so that code which mixes it up with another clock, or with zero, is seen.
    """

    __slots__ = ("_now",)

    def __init__(self, now: float = BEGIN) -> None:
        self._now = now

    def __call__(self) -> float:
        """Monotonic seconds."""
        return self._now

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`, which is now: the time passes at once, and never backwards."""
        self._now = max(self._now, at)

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass."""
        if not seconds >= 0:
            raise InvalidValue("time passes forwards: give seconds of at least 0")
        self._now += seconds

    def __repr__(self) -> str:
        return f"<ManualClock at {self._now}>"


def virtual_clock() -> MockClock:
    """Trio's clock for ``trio.run(main, clock=virtual_clock())``: time passes at once where nobody has anything to do.

    For asyncio there is `vastroute_testing.VirtualLoop`.
    """
    from trio.testing import MockClock  # nobody else needs trio

    clock = MockClock(autojump_threshold=0)
    clock.jump(BEGIN)
    return clock
