"""What goes wrong, in a word each: for a test's mark, or for `troubled` where there is none.

Nothing here is a fault of its own. Each puts a fault of `vastroute_testing` or a line of a `WorkerPlan` where it
belongs: faults of asks into the endpoint's table, faults of the work into a worker's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import attrs

from vastroute import InvalidValue

from .fault_table import EVERY, Faults
from .faults import BadSignature, CutBody, CutStreamAt, Fault, Slow, Status
from .fleet import SimulatedEndpoint
from .life import WorkerPlan


@final
@attrs.frozen
class Trouble:
    """One thing that goes wrong at an endpoint."""

    apply: Callable[[SimulatedEndpoint], SimulatedEndpoint]
    """The endpoint with it; raises `InvalidValue` if it does not fit that endpoint."""


def troubled(endpoint: SimulatedEndpoint, *troubles: Trouble) -> SimulatedEndpoint:
    """`endpoint` with all of `troubles`, in their order.

    Raises `InvalidValue` for what is no trouble, or does not fit the endpoint.
    """
    for trouble in troubles:
        if isinstance(trouble, Fault):
            raise InvalidValue(f"say where it goes wrong: on_ask({trouble!r}) or on_work({trouble!r})")
        if not isinstance(trouble, Trouble):
            hint = ": did you mean to call it?" if callable(trouble) else ""
            raise InvalidValue(f"a trouble is wanted, such as cold(600), not {trouble!r}{hint}")
        endpoint = trouble.apply(endpoint)
    return endpoint


# --- where -----------------------------------------------------------------------------------------------------------


def on_ask(*faults: Fault, attempt: int | None = None) -> Trouble:
    """One ask for a worker meets all of `faults`: the next that is not planned for yet, or the one with the number.

    So ``on_ask(Status(503)), on_ask(Html())`` spoils the first ask and the second. `attempt` counts from 1;
    `vastroute_testing.EVERY` stands for all that have no plan of their own. Only asks with a ``guid`` escape.
    """

    def apply(endpoint: SimulatedEndpoint) -> SimulatedEndpoint:
        return attrs.evolve(endpoint, faults=_planned(endpoint.faults, endpoint.name, attempt, faults))

    return Trouble(apply)


def on_work(*faults: Fault, attempt: int | None = None, route: str | None = None, worker: int = 1) -> Trouble:
    """One request to a worker meets all of `faults`: the next that is not planned for yet, or the one with the number.

    Requests count for each worker and route by themselves. Without `route` it is so on each route that the worker has.
    `worker` counts from 1, in the order in which they are granted first; `vastroute_testing.EVERY` is each of them.
    """

    def edit(plan: WorkerPlan) -> WorkerPlan:
        planned = plan.faults
        for label in plan.models if route is None else (route,):
            planned = _planned(planned, label, attempt, faults)
        return attrs.evolve(plan, faults=planned)

    return _at_worker(worker, edit)


# --- what, of the engine ---------------------------------------------------------------------------------------------


def cold(seconds: float, *, worker: int = EVERY) -> Trouble:
    """No worker takes work before `seconds` after the first ask; with `worker` that is so of this one only."""

    return _at_worker(worker, lambda plan: attrs.evolve(plan, loading_after=seconds / 2, ready_after=seconds))


def status(
    code: int, *, retry_after: float | str | None = None, body: Any = None, attempt: int | None = None
) -> Trouble:
    """An ask is answered with another HTTP status, as by a gateway: `vastroute_testing.Status`."""
    return on_ask(Status(code, retry_after=retry_after, body=body), attempt=attempt)


def bad_signature(*, attempt: int | None = None) -> Trouble:
    """A grant is signed with another key: `vastroute_testing.BadSignature`."""
    return on_ask(BadSignature(), attempt=attempt)


# --- what, of a worker -----------------------------------------------------------------------------------------------


def worker_dies(*, on: int | None = None, after: float | None = None, worker: int = 1) -> Trouble:
    """A worker dies of its request number `on`, or `after` seconds (from the first ask); without either, of its first.

    Its engine goes on granting it for ten seconds. See `vastroute_testing.WorkerPlan` for more.
    """
    number = 1 if on is None and after is None else on
    return _at_worker(worker, lambda plan: attrs.evolve(plan, dies_on=number, dies_after=after))


def drop_after(size: int, *, attempt: int | None = None, route: str | None = None, worker: int = 1) -> Trouble:
    """The connection ends after `size` bytes of an answer's body: `vastroute_testing.CutBody`."""
    return on_work(CutBody(size), attempt=attempt, route=route, worker=worker)


def cut_stream_at(event: int, *, attempt: int | None = None, route: str | None = None, worker: int = 1) -> Trouble:
    """A stream ends after `event` whole events: `vastroute_testing.CutStreamAt`."""
    return on_work(CutStreamAt(event), attempt=attempt, route=route, worker=worker)


def slow(bytes_per_second: float, *, attempt: int | None = None, route: str | None = None, worker: int = 1) -> Trouble:
    """An answer's body trickles: `vastroute_testing.Slow`."""
    return on_work(Slow(bytes_per_second), attempt=attempt, route=route, worker=worker)


def _planned(faults: Faults, label: str, attempt: int | None, added: tuple[Fault, ...]) -> Faults:
    if attempt is None:
        attempt = 1 + max((number for known, number in faults if known == label), default=0)
    if (label, attempt) in faults:
        raise InvalidValue(f"attempt {attempt} of {label!r} has its faults already: name all of them in one place")
    return {**faults, (label, attempt): added}


def _at_worker(worker: int, edit: Callable[[WorkerPlan], WorkerPlan]) -> Trouble:
    def apply(endpoint: SimulatedEndpoint) -> SimulatedEndpoint:
        plans = endpoint.plans()
        if not 0 <= worker <= len(plans):
            raise InvalidValue(f"{endpoint.name!r} has {len(plans)} workers: there is no worker {worker}")
        edited = [edit(plan) if worker in (EVERY, number) else plan for number, plan in enumerate(plans, 1)]
        return attrs.evolve(endpoint, workers=edited)

    return Trouble(apply)
