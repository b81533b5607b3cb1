"""The life of a simulated worker: a script of times, and the state it makes at a given instant.

::

    created ── loading ── ready ── failed        dead from any of them, failed from any but dead
                            │
                          full, while its queue is too long

Nothing happens by itself: a state is computed from the script and ``now`` when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from math import inf
from typing import final

import attrs

from vastroute import HttpRequest

from .checks import above_zero, at_least_zero
from .fault_table import Faults
from .models import MODELS, Model


class WorkerState(Enum):
    """What a worker is doing. The values are the words of the engine's breakdown; Vast's own are not known."""

    READY = "ready"
    FULL = "full"
    """Ready, but its queue is longer than it accepts."""
    LOADING = "loading"
    CREATED = "created"
    FAILED = "failed"
    """Its model failed: it answers 500 to every call, and says so to its engine at once."""
    DEAD = "dead"
    """Gone: it takes no connection, and its engine learns of it late."""


def route_of(request: HttpRequest) -> str:
    """The path of a request, without its query."""
    return request.target.partition("?")[0]


@attrs.frozen(kw_only=True)
class WorkerPlan:
    """The script of one worker, and what it is like. All times are seconds.

    They count from the instant it is woken: by its engine when its endpoint is asked for the first time, or by the
    first request that it gets itself.
    """

    loading_after: float = attrs.field(default=0.0, validator=at_least_zero)
    ready_after: float = attrs.field(default=0.0, validator=at_least_zero)
    """Until then it takes no connection."""
    fails_after: float | None = attrs.field(default=None, validator=at_least_zero)
    dies_after: float | None = attrs.field(default=None, validator=at_least_zero)
    """Answers under way at that instant are cut."""
    dies_on: int | None = attrs.field(default=None, validator=above_zero)
    """The number of the request that it takes and dies of, from 1."""
    noticed_after: float = attrs.field(default=10.0, validator=at_least_zero)
    """How long its engine goes on granting it after it died; workers report every 10 s (wire facts, section 3)."""
    perf: float | None = attrs.field(default=None, validator=above_zero)
    """Units of cost that it does in a second, one request after the other; None does any amount at once."""
    max_queue_time: float = attrs.field(default=30.0, validator=at_least_zero)
    """The longest queue that it accepts, in seconds of work; above it answers 429."""
    max_sessions: int = attrs.field(default=10, validator=above_zero)
    latency: float = attrs.field(default=0.0, validator=at_least_zero)
    """From a request to its answer, work aside."""
    pace: float = attrs.field(default=0.02, validator=at_least_zero)
    """Between the pieces of a stream."""
    models: Mapping[str, Model] = attrs.field(default=MODELS, hash=False)
    """What answers on which route."""
    faults: Faults = attrs.field(factory=dict, hash=False)
    """What goes wrong, by label and attempt at this worker."""
    label: Callable[[HttpRequest], str] = attrs.field(default=route_of, hash=False)
    """The label of a request in `faults`; by default its route."""


@final
@attrs.define(eq=False)
class WorkerLife:
    """One worker's way through its plan."""

    plan: WorkerPlan
    woken_at: float | None = attrs.field(default=None, init=False)
    """When its times began to count, in monotonic seconds."""
    dies_at: float = attrs.field(default=inf, init=False)
    """When it dies or died."""
    busy_until: float = attrs.field(default=-inf, init=False)
    """When the work that it has taken is done."""

    def wake(self, *, now: float) -> None:
        """Begin, if it has not begun."""
        if self.woken_at is None:
            self.woken_at = now
            if self.plan.dies_after is not None:
                self.die(now=now + self.plan.dies_after)

    def die(self, *, now: float) -> None:
        """Be dead from `now` on."""
        self.dies_at = min(self.dies_at, now)

    def queue_time(self, *, now: float) -> float:
        """Seconds of work that are waiting or under way."""
        return max(0.0, self.busy_until - now)

    def take(self, cost: float, *, now: float) -> float:
        """Put work of `cost` behind what there is; when it is done."""
        if self.plan.perf is None:
            return now
        self.busy_until = max(now, self.busy_until) + cost / self.plan.perf
        return self.busy_until

    def state(self, *, now: float) -> WorkerState:
        """What it is doing."""
        return WorkerState.DEAD if now >= self.dies_at else self._alive(now)

    def seen(self, *, now: float) -> WorkerState:
        """What its engine believes that it is doing."""
        return WorkerState.DEAD if now >= self.dies_at + self.plan.noticed_after else self._alive(now)

    def _alive(self, now: float) -> WorkerState:
        if self.woken_at is None:
            return WorkerState.CREATED
        age = now - self.woken_at
        if self.plan.fails_after is not None and age >= self.plan.fails_after:
            return WorkerState.FAILED
        if age < self.plan.ready_after:
            return WorkerState.LOADING if age >= self.plan.loading_after else WorkerState.CREATED
        return WorkerState.FULL if self.queue_time(now=now) > self.plan.max_queue_time else WorkerState.READY
