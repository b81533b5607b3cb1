"""A simulated worker: a pure machine that answers as the official PyWorker does.

What it checks, what it does not check, and the shape of each answer are the official worker's (wire facts, sections 3
and 5): it wants no key, looks at the signature but not at whom the grant is for, and takes a grant any number of times.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Mapping
from random import Random
from typing import Any, final

import attrs

from vastroute import (
    FORMS,
    Envelope,
    FailureKind,
    Headers,
    HttpRequest,
    Origin,
    PublicKey,
    Rejected,
    SigningForm,
    WorkerGuard,
)

from .fault_table import FaultTable
from .keys import TEST_PUBLIC_KEY
from .life import WorkerLife, WorkerPlan, WorkerState, route_of
from .models import ModelFailed, Work
from .schedule import Cut, Head, Schedule, answer, cut, dated
from .sessions import SESSION_ROUTES, Trouble, WorkerSession, WorkerSessions

EPOCH = 1_700_000_000.0
"""The wall clock of the simulation, in seconds since 1970, at the instant 0 of its monotonic clock."""
MOST_COST = 1e18
"""The largest cost that is counted: sums of these stay finite."""
_JSON = {"content-type": "application/json; charset=utf-8"}
_TEXT = {"content-type": "text/plain; charset=utf-8"}
_CLOSE = {"connection": "close"}
_OPEN = frozenset({WorkerState.READY, WorkerState.FULL, WorkerState.FAILED})


@final
class SimulatedWorker:
    """One worker: give it requests, and play the schedules that it makes of them.

    `plan` is its script. `key` is the engine's public key, and `form` the only signing form that it accepts. `seed`
    makes its session ids; `keep` is how many requests it remembers.
    """

    def __init__(
        self,
        url: str = "https://203.0.113.1:40001",
        *,
        plan: WorkerPlan = WorkerPlan(),
        key: PublicKey | bytes | str = TEST_PUBLIC_KEY,
        form: SigningForm = FORMS[0],
        seed: int = 0,
        epoch: float = EPOCH,
        keep: int = 10_000,
    ) -> None:
        self.url = url
        """Its address, as grants name it. Whoever puts it on a socket sets this to where it listens."""
        self.requests: deque[HttpRequest] = deque(maxlen=keep)
        """What reached it, the latest last: a key has no business here."""
        self.served: int = 0
        """How many requests reached it."""
        self.life: WorkerLife = WorkerLife(plan)
        """Its way through its plan."""
        self._plan = plan
        self._key = PublicKey.load(key)
        self._guard = WorkerGuard(
            self._key, forms=[form], window=None, max_queue_time=plan.max_queue_time, like_official=True
        )
        self._epoch = epoch
        self._faults = FaultTable(plan.faults)
        self._sessions = WorkerSessions(most=plan.max_sessions, epoch=epoch, rng=Random(seed))  # noqa: S311

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        """What it does with `request`, which arrives at `now`."""
        if self.refuses(request.origin, now=now):
            return (Cut(at=now, kind=FailureKind.REFUSED),)
        label = self._plan.label(request)
        schedule = self._faults.play(label, lambda: self._take(request, now), now=now)
        return cut(schedule, at=self.life.dies_at, kind=FailureKind.RESET)

    def refuses(self, _origin: Origin, *, now: float) -> bool:
        """Whether it takes no connection at `now`; to be tried counts as the first request and wakes it."""
        self.life.wake(now=now)
        return self.life.state(now=now) not in _OPEN

    def state(self, *, now: float) -> WorkerState:
        """What it is doing."""
        return self.life.state(now=now)

    def die(self, *, now: float) -> None:
        """Be dead from `now` on. Schedules that were made before are not changed."""
        self.life.die(now=now)

    def sessions(self, *, now: float) -> tuple[WorkerSession, ...]:
        """The sessions that are open, the oldest first."""
        return self._sessions.open(now=now)

    def _take(self, request: HttpRequest, now: float) -> Schedule:
        self.requests.append(request)
        self.served += 1
        if self.served == self._plan.dies_on:
            self.life.die(now=now)
        try:
            return dated(self._answer(request, now), self._epoch)
        except (Trouble, RecursionError):  # the latter: JSON nested as deep as it could just be read
            said = b"500 Internal Server Error\n\nServer got itself in trouble"
            return answer(500, said, at=now, headers=_TEXT | _CLOSE)

    def _answer(self, request: HttpRequest, now: float) -> Schedule:
        at = now + self._plan.latency
        route = route_of(request)
        if route not in SESSION_ROUTES and route not in self._plan.models:
            return answer(404, b"404: Not Found", at=at, headers=_TEXT)
        if request.method != "POST":
            return answer(405, b"405: Method Not Allowed", at=at, headers={**_TEXT, "allow": "POST"})
        if route in SESSION_ROUTES:
            return self._session(route, request.body, now)
        envelope = self._guard.read(request.body)
        return _rejected(envelope, at) if isinstance(envelope, Rejected) else self._work(route, envelope, now)

    def _session(self, route: str, body: bytes, now: float) -> Schedule:
        at = now + self._plan.latency
        try:
            value = json.loads(body.decode())
        except json.JSONDecodeError:
            return _own(422, {"error": "invalid JSON"}, at)
        except ValueError:
            raise Trouble from None  # not UTF-8, or a number of too many digits
        return _own(*self._sessions.answer(route, value, now=now), at)

    def _work(self, route: str, envelope: Envelope, now: float) -> Schedule:
        """The checks in the official worker's order, then the model."""
        at = now + self._plan.latency
        if envelope.session_id is not None and not self._sessions.prolong(envelope.session_id, now=now):
            return _own(410, {"error": "invalid session"}, at)
        grant = envelope.auth_data
        envelope = attrs.evolve(envelope, auth_data={**grant, "signature": self._as_python_reads(grant["signature"])})
        admitted = self._guard.admit(envelope, waiting=self.life.queue_time(now=now))
        if isinstance(admitted, Rejected):
            return _rejected(admitted, at)
        if self.life.state(now=now) is WorkerState.FAILED:
            return answer(500, at=at)
        done = self.life.take(_cost_of(grant), now=now) + self._plan.latency
        work = Work(
            payload=envelope.payload,
            at=done,
            pace=self._plan.pace,
            number=self.served,
            created=self._epoch + done,
        )
        try:
            return _passed_on(self._plan.models[route](work))
        except ModelFailed:
            return answer(500, at=done)

    def _as_python_reads(self, signature: Any) -> str:
        """The signature in the one spelling of base64 that a guard reads; the official worker reads many."""
        try:
            raw = b64decode(signature)
        except (TypeError, ValueError):
            return ""
        return b64encode(raw).decode() if len(raw) == self._key.size else ""


def _passed_on(schedule: Schedule) -> Schedule:
    """A model's answer with what the official worker adds: a type, and the end of the connection if it has a length."""
    if not schedule or not isinstance(schedule[0], Head):
        return schedule
    head = schedule[0]
    headers = list(head.headers)
    if head.headers.get("content-type") is None:
        headers.append(("content-type", "application/octet-stream"))
    if head.headers.get("content-length") is not None:
        headers = [pair for pair in headers if pair[0] != "connection"] + [("connection", "close")]
    return (attrs.evolve(head, headers=Headers(headers)), *schedule[1:])


def _cost_of(grant: Mapping[str, Any]) -> float:
    """The work that a grant names: a worker checks it as little as the official one, which counts by itself."""
    cost = grant["cost"]
    return cost if isinstance(cost, int | float) and 0 <= cost <= MOST_COST else 0.0


def _rejected(rejected: Rejected, at: float) -> Schedule:
    """The guard's refusal as an answer; a 500 is where the official worker's handler fails."""
    if rejected.status == 500:
        raise Trouble
    return answer(rejected.status, rejected.body, at=at, headers=_JSON if rejected.body else {})


def _own(status: int, value: Any, at: float) -> Schedule:
    """An answer of the worker's own, not its model's."""
    return answer(status, at=at) if value is None else answer(status, json.dumps(value).encode(), at=at, headers=_JSON)
