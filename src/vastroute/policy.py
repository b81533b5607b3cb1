"""Every limit and pause, as frozen values with finite defaults, and the worst case they add up to.

Times are seconds, sizes are bytes. A pause is a pure function of how often and of one draw in [0, 1), so that a test
can choose the draw and a fleet of clients does not ask in step.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import attrs

from .errors import InvalidValue

_LARGEST_FLOAT = 1.7976931348623157e308


def _positive(_instance: object, attribute: Any, value: object) -> None:
    # Compared, not math.isfinite: that fails for an int which no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST_FLOAT:
        raise InvalidValue(f"{attribute.name} must be a finite number above 0")


def _count(_instance: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidValue(f"{attribute.name} must be a whole number of at least 0")


def _statuses(value: Any) -> frozenset[str]:
    texts = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if texts is None or not all(isinstance(text, str) for text in texts):
        raise InvalidValue("stop_statuses must be a collection of texts")
    return frozenset(text.strip().casefold() for text in texts)


@attrs.frozen(kw_only=True)
class Pause:
    """How long to pause before the n-th repetition: growing, capped, jittered, never below a floor."""

    first: float = attrs.field(default=1.0, validator=_positive)
    factor: float = attrs.field(default=2.0, validator=_positive)
    cap: float = attrs.field(default=5.0, validator=_positive)
    floor: float = attrs.field(default=0.25, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.factor < 1 or self.cap < self.floor:
            raise InvalidValue("a pause needs a factor of at least 1 and a cap not below its floor")

    def seconds(self, number: int, draw: float) -> float:
        """The pause before repetition `number` (from 1), for a `draw` in [0, 1): between half of it and all of it."""
        try:
            whole = min(self.first * float(self.factor) ** (number - 1), self.cap)
        except OverflowError:  # it comes long before a patient caller stops polling, and long after the cap
            whole = self.cap
        return max(self.floor, whole * (0.5 + 0.5 * draw))

    @property
    def least(self) -> float:
        """The shortest pause there can be."""
        return self.floor


def _pause(_instance: object, attribute: Any, value: object) -> None:
    if not isinstance(value, Pause):
        raise InvalidValue(f"{attribute.name} must be a Pause")


@attrs.frozen(kw_only=True)
class WorstCase:
    """What one call can cost at the most."""

    seconds: float
    """From the first ask to the end."""
    asks: int
    """Requests to the engine."""


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How long and how often one call asks. All of it is finite unless you say otherwise.

    A *poll* asks again because nothing was ready, a *retry* because something failed: each has its own count and
    pause. The deadline is over everything; `total` is what a transport makes it from.
    """

    total: float = attrs.field(default=900.0, validator=_positive)
    """Seconds for the whole call. A cold start has been seen to take 7 minutes."""
    ask_limit: float = attrs.field(default=10.0, validator=_positive)
    """Seconds for one ask, from connecting to the end of the answer."""
    max_polls: int = attrs.field(default=1000, validator=_count)
    """0 asks once and does not wait for a worker."""
    max_retries: int = attrs.field(default=12, validator=_count)
    """0 takes the first failure for the end."""
    poll_pause: Pause = attrs.field(default=Pause(first=1.0, factor=1.5, cap=5.0, floor=0.5), validator=_pause)
    """Before asking again because nothing was ready."""
    retry_pause: Pause = attrs.field(default=Pause(first=0.5, factor=2.0, cap=20.0, floor=0.25), validator=_pause)
    """Before asking again because something failed; a longer ``Retry-After`` takes its place."""
    retry_after_cap: float = attrs.field(default=60.0, validator=_positive)
    """A server's ``Retry-After`` is honoured up to this many seconds."""
    first_ask_repeats: int = attrs.field(default=1, validator=_count)
    """How often a first ask that may have arrived is asked again: each time the engine may count its load twice."""
    max_reroutes: int = attrs.field(default=5, validator=_count)
    """How many workers may fail after their grant before the call gives up; each is asked for after a retry's pause."""
    stop_statuses: frozenset[str] = attrs.field(default=("stopped", "endpoint stopped"), converter=_statuses)
    """Statuses that end a call at once, compared without case; the default is the two that are documented."""

    def worst_case(self) -> WorstCase:
        """The most seconds and the most asks that one call can take under this policy.

        Asks that are repeated at once because a kept connection was stale count with the ask they repeat.
        """
        by_count = self.max_polls + self.max_retries + self.max_reroutes
        by_time = self.total / min(self.poll_pause.least, self.retry_pause.least)
        return WorstCase(seconds=self.total, asks=2 * (1 + math.floor(min(by_count, by_time))))


@attrs.frozen(kw_only=True)
class WorkPolicy:
    """How long the worker's hop may take. The call's one deadline is over all of it; each error names its limit."""

    waiting: float = attrs.field(default=900.0, validator=_positive)
    """Seconds to wait for a worker, from the call's begin or from the loss of the last worker."""
    connecting: float = attrs.field(default=10.0, validator=_positive)
    """Seconds until there is a connection: longer means that the worker cannot be reached."""
    first_byte: float = attrs.field(default=600.0, validator=_positive)
    """Seconds from sending the work to the first byte of its answer."""
    silence: float = attrs.field(default=120.0, validator=_positive)
    """Seconds between two pieces of an answer."""
    working: float = attrs.field(default=600.0, validator=_positive)
    """Seconds for one exchange with a worker, from sending to the end: the official client's limit for whole answers.

    A stream has no such limit once its head is here: ``silence`` and the call's deadline bound it.
    """
    max_body: int = attrs.field(default=256 * 1024 * 1024, validator=_count)
    """Bytes of a whole answer. A stream has no limit on its sum, only on its pieces."""


@attrs.frozen(kw_only=True)
class Limits:
    """The most that a peer can make us hold, in bytes and pieces."""

    max_head: int = attrs.field(default=16 * 1024, validator=_count)
    """Bytes of one head: status line and headers; also of a chunk's header line and of the trailers."""
    max_headers: int = attrs.field(default=100, validator=_count)
    """Headers of one answer."""
    max_body: int = attrs.field(default=64 * 1024, validator=_count)
    """Bytes of an engine's answer."""
    max_informational: int = attrs.field(default=8, validator=_count)
    """1xx answers before the real one."""
    max_depth: int = attrs.field(default=64, validator=_count)
    """Levels of nesting in a JSON answer."""
