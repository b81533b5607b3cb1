"""Cancelled wherever they wait, calls leave nothing behind: no stream, no slot of the pool, no lease that is known.

Each call is run again and again, cancelled as it waits for the first time, the second, and so on to its end.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from vastroute import EntryKind
from vastroute_io.recording import Recorder
from vastroute_testing import Hang, Road, SimulatedEndpoint, SimulatedEngine, TestAuthority, WorkerPlan
from vastroute_testing.conformance.verbs import AnyClient

from .worlds import World, assert_tidy, idle

AUTHORITY = TestAuthority()
Verb = Callable[[AnyClient], Coroutine[Any, Any, Any]]


async def route(client: AnyClient) -> None:
    await client.route("demo")


async def call(client: AnyClient) -> None:
    await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)


async def stream(client: AnyClient) -> None:
    async with client.stream("demo", "/stream", {"count": 3}) as events:
        async for _ in events:
            pass


async def every_step(
    world: World,
    work: Verb,
    *,
    make: Callable[[], SimulatedEngine],
    after: Callable[[SimulatedEngine], None] = lambda _engine: None,
    **options: Any,
) -> int:
    """Run `work` with a new client each time, cancelled one step later each time. How many steps it has."""
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        engine = make()
        told: list[EntryKind] = []
        client = world.client(engine, observer=lambda entry, told=told: told.append(entry.kind), **options)
        async with client:
            cancelled = await world.cancelled_at(step, partial(work, client))
            assert_tidy(client)
            assert world.open == idle(client), f"cancelled at step {step}"
            after(engine)
            assert told.count(EntryKind.CANCELLED) <= 1
            answered = await client.call("demo", "/echo", {"again": step}, safe_to_repeat=True)
            assert answered.data == {"echo": {"again": step}}
            assert world.open == idle(client)
        assert world.open == 0
    return step - 1


async def test_whether_the_work_was_sent_is_known(tasks: World, tmp_path: Path) -> None:
    plan = WorkerPlan(latency=0.5)
    outcomes: list[str] = []
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[plan]), latency=0.1)
        path = tmp_path / f"{step}.jsonl"
        async with tasks.client(engine, roads=Road(connecting=0.25), recorder=Recorder(path)) as client:
            cancelled = await tasks.cancelled_at(step, partial(call, client))
            arrived = len(engine.workers[0].requests)
        *_, last = map(json.loads, path.read_text("utf-8").splitlines())
        outcome = last["outcome"]
        if "error" in outcome:
            assert outcome["error"] == "Cancelled"
            assert outcome["outcome"] == "not sent" or outcome["phase"] == "worker"
            assert not arrived or outcome["outcome"] == "perhaps started"
            outcomes.append(f"{outcome['phase']} {outcome['outcome']}")
    assert [each for each, _ in itertools.groupby(outcomes)] == [
        "route not sent",
        "worker not sent",
        "worker perhaps started",
    ]


async def test_a_session(tasks: World) -> None:
    where: list[str] = []

    async def session(client: AnyClient) -> None:
        where[:] = ["entering"]
        async with client.session("demo", lifetime=3600) as lease:
            where[:] = ["inside"]
            await lease.call("/echo", {})
            await lease.health()
            async with lease.stream("/stream", {"count": 2}) as events:
                async for _ in events:
                    pass
            await lease.info()
            where[:] = ["leaving"]
        where[:] = ["left"]

    def make() -> SimulatedEngine:
        return SimulatedEngine(SimulatedEndpoint("demo", workers=[WorkerPlan(latency=0.5, pace=0.5)]), latency=0.1)

    seen = set()

    def after(engine: SimulatedEngine) -> None:
        (worker,) = engine.workers
        seen.update(where)
        if where in (["inside"], ["leaving"], ["left"]):
            assert [request.target for request in worker.requests].count("/session/end") == 1, where
            assert not worker.sessions(now=tasks.now())

    assert await every_step(tasks, session, make=make, after=after) > 20
    assert seen >= {"entering", "inside", "left"}


async def test_the_end_of_a_lease_is_waited_for_five_seconds_at_most(tasks: World) -> None:
    plans = [WorkerPlan(faults={("/session/end", number): Hang() for number in range(99)})]
    async with tasks.client(SimulatedEngine(SimulatedEndpoint("demo", workers=plans))) as client:

        async def hold() -> None:
            async with client.session("demo"):
                await tasks.sleep_until(inf)

        for step in itertools.count(1):
            began = tasks.now()
            cancelled = await tasks.cancelled_at(step, hold)
            assert cancelled
            assert_tidy(client)
            if tasks.now() == began + 5:
                break
            assert tasks.now() == began, "cancelled before there was a lease"


# --- waiting for one another -----------------------------------------------------------------------------------------


async def test_one_that_fetches_the_public_key_for_all(tasks: World) -> None:
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1)
        client = tasks.client(engine, public_key=None, fetch_public_key=True, key="test-account-key")

        async def fetching(step: int = step, client: AnyClient = client) -> None:
            nonlocal cancelled
            cancelled = await tasks.cancelled_at(step, partial(route, client))

        async with client:
            await tasks.together(fetching, *[partial(route, client)] * 3)
            assert_tidy(client)
            assert tasks.open == idle(client)
        assert engine.grants >= 3


# --- over sockets ----------------------------------------------------------------------------------------------------


async def test_over_tls(socket_tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    context = AUTHORITY.client_context()
    options: dict[str, Any] = {"ssl_context": context, "worker_ssl_context": context}

    async def both(client: AnyClient) -> None:
        await call(client)
        await stream(client)

    async with socket_tasks.listen(engine, ssl_context=AUTHORITY.server_context()) as at:
        step = 0
        cancelled = True
        while cancelled:
            step += 1
            async with socket_tasks.client(None, engine=at.url, **options) as client:
                cancelled = await socket_tasks.cancelled_at(step, partial(both, client))
                assert_tidy(client)
        assert step > 10
