"""Every embedding keeps the limits of time, as well as its library can."""

from __future__ import annotations

import socket
from typing import Any

import attrs
import pytest

from embedding.worlds import POLICY, World, engine_of
from vastroute import (
    FailureKind,
    LimitReached,
    Outcome,
    WorkPolicy,
)
from vastroute_testing import (
    Hang,
    LoopbackThread,
    Slow,
    WorkerPlan,
)


@pytest.mark.parametrize(
    ("fault", "route", "limit", "policy"),
    [
        (Hang(), "/echo", "first_byte", WorkPolicy(first_byte=0.2)),
        (Hang(after_bytes=5), "/echo", "working", WorkPolicy(working=0.2)),
        (Hang(after_bytes=35), "/stream", "silence", WorkPolicy(silence=0.2, first_byte=0.4)),
        # Each read is answered soon, the whole is not.
        (Slow(20), "/echo", "working", WorkPolicy(working=0.5)),
    ],
    ids=["no head", "no end", "silence", "a trickle"],
)
def test_a_worker_that_takes_too_long(world: World, fault: Any, route: str, limit: str, policy: WorkPolicy) -> None:
    payload = {"text": "x" * 100}
    with LoopbackThread(engine_of(WorkerPlan(faults={(route, 1): fault}))) as loopback:
        call = world.call(loopback, route, payload, work_policy=policy, stream=route == "/stream")
        with pytest.raises(LimitReached) as caught:
            world.drive(call)
        loopback.wait_idle()
    assert (caught.value.limit, caught.value.kind) == (limit, FailureKind.TIMEOUT)
    assert caught.value.outcome is Outcome.PERHAPS_STARTED


def test_the_deadline_is_over_everything(world: World) -> None:
    with LoopbackThread(engine_of(WorkerPlan(faults={("/echo", 1): Hang()}))) as loopback:
        call = world.call(loopback, seconds=0.3)
        with pytest.raises(LimitReached) as caught:
            world.drive(call)
        loopback.wait_idle()
    assert caught.value.limit == "total"


def test_an_engine_that_does_not_answer_is_asked_again(world: World) -> None:
    engine = engine_of(faults={("my-endpoint", 1): Hang(served=False)})
    with LoopbackThread(engine) as loopback:
        route = world.route(loopback, policy=attrs.evolve(POLICY, ask_limit=0.2))
        world.drive(route)
        loopback.wait_idle()
    assert route.result().counts.retries == 1
    assert route.result().counts.possible_double_loads == 1, "nobody knows whether it took the first"


def test_a_worker_that_takes_no_connections_is_replaced(world: World) -> None:
    with socket.socket() as busy, socket.socket() as first:
        busy.bind(("127.0.0.1", 0))
        busy.listen(0)  # it never accepts: once its queue is full, whoever knocks hears nothing
        first.connect(busy.getsockname())
        engine = engine_of(WorkerPlan(), WorkerPlan())
        with LoopbackThread(engine) as loopback:
            engine.workers[0].url = f"http://127.0.0.1:{busy.getsockname()[1]}"
            call = world.call(loopback, work_policy=WorkPolicy(connecting=0.3, first_byte=5.0))
            world.drive(call)
            loopback.wait_idle()
    counts = call.result().counts
    assert (counts.workers_lost, counts.possible_double_runs) == (1, 0)
