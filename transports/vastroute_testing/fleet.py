"""The endpoints of a simulated engine: what a test says of them, and what becomes of their workers and requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any, TypeAlias, final

import attrs

from vastroute import InvalidValue

from .checks import at_least_zero
from .fault_table import Faults
from .life import WorkerLife, WorkerPlan, WorkerState
from .workers import SimulatedWorker


class StatusForm(Enum):
    """How a "not ready" answer says what the workers are doing; all three have been told of (wire facts, section 1)."""

    TEXT = "text"
    """``"1 loading, 2 created"``."""
    OBJECT = "object"
    """``{"ready": 0, "loading": 1, "created": 2, "total": 3}``."""
    ABSENT = "absent"


def _plans(value: int | Sequence[WorkerPlan]) -> int | tuple[WorkerPlan, ...]:
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise InvalidValue("workers must be how many there are, or a plan for each")
    return value if isinstance(value, int) else tuple(value)


def _urls(value: Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        raise InvalidValue(f"worker_urls must be a sequence of addresses, not one text: ({value!r},)")
    return tuple(value)


@attrs.frozen
class SimulatedEndpoint:
    """One endpoint: its name, its key, and its workers."""

    name: str
    key: str = attrs.field(default="test-endpoint-key", kw_only=True, repr=False)
    """The endpoint's own key, the one that ``/route/`` wants."""
    workers: int | tuple[WorkerPlan, ...] = attrs.field(default=1, kw_only=True, converter=_plans)
    """How many, or a plan for each. A number makes workers that begin to load one after the other, and are ready
    together at `ready_after`."""
    ready_after: float = attrs.field(default=0.0, kw_only=True, validator=at_least_zero)
    """The cold start, in seconds from the first time the endpoint is asked for; only where `workers` is a number."""
    worker_urls: tuple[str, ...] = attrs.field(default=(), kw_only=True, converter=_urls)
    """Addresses of workers that are not simulated; they are granted on the same script. One for each worker, where
    `workers` has plans; else they say how many there are."""
    stopped: bool = attrs.field(default=False, kw_only=True)
    stops_after: float | None = attrs.field(default=None, kw_only=True, validator=at_least_zero)
    """Seconds from the first ask until it is stopped."""
    status_form: StatusForm = attrs.field(default=StatusForm.TEXT, kw_only=True)
    faults: Faults = attrs.field(factory=dict, kw_only=True, hash=False)
    """What goes wrong when this endpoint is asked for, by label and attempt; see `SimulatedEngine`."""

    def plans(self) -> tuple[WorkerPlan, ...]:
        """A plan for each worker. Raises `InvalidValue` if there are more or fewer addresses than plans."""
        if isinstance(self.workers, tuple):
            if self.worker_urls and len(self.worker_urls) != len(self.workers):
                raise InvalidValue("give as many worker_urls as plans, or none")
            return self.workers
        count = len(self.worker_urls) or self.workers
        steps = (self.ready_after * (number + 1) / (count + 1) for number in range(count))
        return tuple(WorkerPlan(loading_after=step, ready_after=self.ready_after) for step in steps)


@attrs.frozen(kw_only=True)
class Lifetime:
    """What is known of one request's lifetime: everything that came under one ``request_idx``. A value; look again
    for a newer one."""

    request_idx: int
    endpoint: str
    cost: float
    """As the first ask named it; counted as load once."""
    first_at: float
    """When the first ask came, in monotonic seconds."""
    asks: int = 0
    """Requests that carried it, the first one included."""
    polls: int = 0
    """Asks that followed an answer that nothing was ready."""
    grants: tuple[str, ...] = ()
    """The workers that were granted, by address, in order."""
    is_waiting: bool = False
    """Whether the last answer was that nothing is ready."""


MakeWorker: TypeAlias = Callable[[WorkerPlan], SimulatedWorker]


@final
@attrs.define(kw_only=True, eq=False)
class Slot:
    """The engine's side of one worker: simulated here, or a mere address."""

    life: WorkerLife
    worker: SimulatedWorker | None = None
    address: str = ""
    reqnum: int = 0
    """The running number of the last request that it was granted for."""

    @property
    def url(self) -> str:
        """Where it is now."""
        return self.address if self.worker is None else self.worker.url


@final
class Fleet:
    """One endpoint in operation."""

    def __init__(self, endpoint: SimulatedEndpoint, *, number: int, make_worker: MakeWorker) -> None:
        self.endpoint = endpoint
        self.number = number
        """The endpoint's id."""
        self.load: float = 0.0
        """The cost of all lifetimes that began, each counted once."""
        self.first_asked_at: float | None = None
        self.slots: tuple[Slot, ...]
        plans = endpoint.plans()
        if endpoint.worker_urls:
            pairs = zip(plans, endpoint.worker_urls, strict=True)
            self.slots = tuple(Slot(life=WorkerLife(plan), address=url) for plan, url in pairs)
        else:
            workers = [make_worker(plan) for plan in plans]
            self.slots = tuple(Slot(life=worker.life, worker=worker) for worker in workers)

    def wake(self, *, now: float) -> None:
        """The endpoint is asked for: the first time begins the cold start."""
        if self.first_asked_at is None:
            self.first_asked_at = now
            for slot in self.slots:
                slot.life.wake(now=now)

    def is_stopped(self, *, now: float) -> bool:
        """Whether it gives no workers any more."""
        after = self.endpoint.stops_after
        return self.endpoint.stopped or (
            after is not None and self.first_asked_at is not None and now - self.first_asked_at >= after
        )

    def choose(self, *, now: float, avoid: tuple[str, ...]) -> Slot | None:
        """The worker to grant: ready as far as the engine knows, one not in `avoid` if there is, the least used."""
        ready = [slot for slot in self.slots if slot.life.seen(now=now) is WorkerState.READY]
        fresh = [slot for slot in ready if slot.url not in avoid]
        return min(fresh or ready, key=lambda slot: slot.reqnum, default=None)

    def status(self, *, now: float) -> Any:
        """The breakdown of the workers by what they do, in the endpoint's form; None if it has no form."""
        form = self.endpoint.status_form
        if form is StatusForm.ABSENT:
            return None
        if self.is_stopped(now=now):
            return "Stopped"
        counted = Counter(slot.life.seen(now=now) for slot in self.slots)
        counts = {state.value: counted[state] for state in WorkerState if counted[state]}
        if form is StatusForm.OBJECT:
            return {WorkerState.READY.value: 0, **counts, "total": len(self.slots)}
        return ", ".join(f"{count} {state}" for state, count in counts.items()) or "no workers"

    def rows(self, *, now: float, epoch: float) -> list[dict[str, Any]]:
        """The workers as the list of workers has them (wire facts, section 7); what is not simulated is 0."""
        return [_row(number, slot.life, now, epoch) for number, slot in enumerate(self.slots, 1)]


def _row(number: int, life: WorkerLife, now: float, epoch: float) -> dict[str, Any]:
    perf = life.plan.perf or 0.0
    started = 0.0 if life.woken_at is None else epoch + life.woken_at
    is_loaded = life.seen(now=now) in {WorkerState.READY, WorkerState.FULL}
    return {
        "id": number,
        "status": life.seen(now=now).value,
        "cur_load": life.queue_time(now=now) * perf,
        "new_load": 0.0,
        "cur_load_rolling_avg": 0.0,
        "cur_perf": perf if is_loaded else 0.0,
        "perf": perf,
        "measured_perf": perf,
        "dlperf": 0.0,
        "reliability": 1.0,
        "reqs_working": 0,
        "disk_usage": 0.0,
        "loaded_at": started + life.plan.ready_after if is_loaded else 0.0,
        "started_at": started,
    }
