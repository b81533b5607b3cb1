"""Each word of trouble puts the fault it stands for where it belongs."""

from __future__ import annotations

from typing import Any

import pytest

from vastroute import CallFailed, InvalidValue
from vastroute_testing import (
    EVERY,
    BadSignature,
    CutBody,
    CutStreamAt,
    Delay,
    Faults,
    Html,
    Refuse,
    SimulatedEndpoint,
    SimulatedEngine,
    Slow,
    Status,
    WorkerPlan,
)
from vastroute_testing.memory import Client
from vastroute_testing.trouble import (
    Trouble,
    bad_signature,
    cold,
    cut_stream_at,
    drop_after,
    on_ask,
    on_work,
    slow,
    status,
    troubled,
    worker_dies,
)

E = "my-endpoint"
ASKS: list[tuple[list[Trouble], Faults]] = [
    ([status(503, retry_after=2)], {(E, 1): (Status(503, retry_after=2),)}),
    ([status(503), status(429, body="slowly")], {(E, 1): (Status(503),), (E, 2): (Status(429, body="slowly"),)}),
    ([bad_signature()], {(E, 1): (BadSignature(),)}),
    ([on_ask(BadSignature(), Delay(3))], {(E, 1): (BadSignature(), Delay(3))}),
    ([on_ask(Refuse(), attempt=3), status(500)], {(E, 3): (Refuse(),), (E, 4): (Status(500),)}),
    ([on_ask(Html(), attempt=EVERY), status(500)], {(E, 0): (Html(),), (E, 1): (Status(500),)}),
]
WORK: list[tuple[Trouble, Faults]] = [
    (drop_after(9, route="/a"), {("/a", 1): (CutBody(9),)}),
    (cut_stream_at(2, route="/a", attempt=4), {("/a", 4): (CutStreamAt(2),)}),
    (slow(10, route="/a", attempt=EVERY), {("/a", EVERY): (Slow(10),)}),
    (on_work(Status(429), route="/a"), {("/a", 1): (Status(429),)}),
    (on_work(Slow(1), CutBody(5)), {("/a", 1): (Slow(1), CutBody(5)), ("/b", 1): (Slow(1), CutBody(5))}),
]


@pytest.mark.parametrize(("troubles", "faults"), ASKS)
def test_what_strikes_asks_is_in_the_endpoints_table(troubles: list[Trouble], faults: Faults) -> None:
    assert troubled(SimulatedEndpoint(E), *troubles) == SimulatedEndpoint(E, faults=faults)


@pytest.mark.parametrize(("trouble", "faults"), WORK)
def test_what_strikes_work_is_in_a_workers_table(trouble: Trouble, faults: Faults) -> None:
    models: Any = {"/a": None, "/b": None}
    plans = [WorkerPlan(models=models, perf=2.0), WorkerPlan(models=models)]
    first = WorkerPlan(models=models, perf=2.0, faults=faults)
    assert troubled(SimulatedEndpoint(E, workers=plans), trouble) == SimulatedEndpoint(E, workers=[first, plans[1]])


def test_what_an_endpoint_had_it_keeps() -> None:
    worker = WorkerPlan(faults={("/echo", 1): Html()}, noticed_after=3.0)
    endpoint = SimulatedEndpoint(E, workers=[worker], faults={(E, 2): Html()}, key="k")
    plagued = troubled(endpoint, status(500), on_work(Refuse(), route="/echo"), worker_dies(after=9))
    assert plagued.key == "k"
    assert plagued.faults == {(E, 2): Html(), (E, 3): (Status(500),)}
    (plan,) = plagued.plans()
    assert plan.faults == {("/echo", 1): Html(), ("/echo", 2): (Refuse(),)}
    assert (plan.noticed_after, plan.dies_after, plan.dies_on) == (3.0, 9, None)


@pytest.mark.parametrize(
    ("trouble", "ready"), [(cold(600), [600, 600]), (cold(600, worker=2), [40, 600]), (cold(0, worker=1), [0, 40])]
)
def test_cold_is_when_workers_are_ready(trouble: Trouble, ready: list[float]) -> None:
    plagued = troubled(SimulatedEndpoint(E, workers=2, ready_after=40), trouble)
    assert [plan.ready_after for plan in plagued.plans()] == ready
    assert all(plan.loading_after <= plan.ready_after for plan in plagued.plans())


@pytest.mark.parametrize(
    ("trouble", "served"), [(worker_dies(), [1, 1]), (worker_dies(on=2), [1, 0]), (worker_dies(worker=2), [1, 0])]
)
def test_a_worker_that_dies_is_replaced(trouble: Trouble, served: list[int]) -> None:
    engine = SimulatedEngine(troubled(SimulatedEndpoint(E, workers=2), trouble))
    assert Client(server=engine).call(E, "/echo", {}, safe_to_repeat=True).status == 200
    assert [worker.served for worker in engine.workers] == served


def test_each_worker_may_be_struck() -> None:
    engine = SimulatedEngine(troubled(SimulatedEndpoint(E, workers=3), worker_dies(worker=EVERY)))
    with pytest.raises(CallFailed):
        Client(server=engine).call(E, "/echo", {}, safe_to_repeat=True, timeout=60)
    assert [worker.served for worker in engine.workers] == [1, 1, 1]


WRONG: list[tuple[Any, str]] = [
    (worker_dies(worker=3), "'my-endpoint' has 2 workers: there is no worker 3"),
    (cold(5, worker=-1), "there is no worker -1"),
    (cold(-5), "must be a number of at least 0"),
    (on_ask(Html(), attempt=1), "attempt 1 of 'my-endpoint' has its faults already"),
    (Status(503), r"on_ask\(Status\(.*\)\) or on_work"),
    (status, "did you mean to call it"),
    (600, "a trouble is wanted, such as cold"),
]


@pytest.mark.parametrize(("trouble", "text"), WRONG)
def test_what_does_not_fit_is_said(trouble: Any, text: str) -> None:
    endpoint = SimulatedEndpoint(E, workers=2, faults={(E, 1): Html()})
    with pytest.raises(InvalidValue, match=text):
        troubled(endpoint, trouble)


def test_faults_are_checked_by_the_table_itself() -> None:
    odd: Any = "Status(503)"
    with pytest.raises(InvalidValue, match="must be faults"):
        SimulatedEngine(troubled(SimulatedEndpoint(E), on_ask(odd)))
