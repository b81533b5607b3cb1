"""Cancelled wherever they wait, calls leave nothing behind: no stream, no slot of the pool, no lease that is known.

Each call is run again and again, cancelled as it waits for the first time, the second, and so on to its end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

import pytest

from vastroute import EntryKind, PoolLimits
from vastroute_testing import Delay, Hang, SimulatedEndpoint, SimulatedEngine, Status, TestAuthority, WorkerPlan
from vastroute_testing.conformance.verbs import AnyClient

from .worlds import World, assert_tidy, idle

AUTHORITY = TestAuthority()
Verb = Callable[[AnyClient], Coroutine[Any, Any, Any]]


def engine_to_wait_for() -> SimulatedEngine:
    """Its calls wait, poll, retry and are re-routed; an account's key finds the endpoint's."""
    plans = [WorkerPlan(ready_after=2, latency=0.5, pace=0.5, faults={("/echo", 1): Status(503)}) for _ in range(2)]
    faults = {("demo", 2): Status(500), ("demo", 3): Delay(0.5)}
    return SimulatedEngine(SimulatedEndpoint("demo", workers=plans, faults=faults), latency=0.1)


async def route(client: AnyClient) -> None:
    await client.route("demo")


async def call(client: AnyClient) -> None:
    await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)


async def stream(client: AnyClient) -> None:
    async with client.stream("demo", "/stream", {"count": 3}) as events:
        async for _ in events:
            pass


async def workers(client: AnyClient) -> None:
    await client.workers("demo")


async def every_step(
    world: World,
    work: Verb,
    *,
    make: Callable[[], SimulatedEngine] = engine_to_wait_for,
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


@pytest.mark.parametrize("verb", [route, call, stream], ids=lambda verb: verb.__name__)
async def test_a_call(tasks: World, verb: Verb) -> None:
    options: dict[str, Any] = {"key": "test-account-key", "public_key": None, "fetch_public_key": True}
    assert await every_step(tasks, verb, **options) > 20


async def test_a_look_up(tasks: World) -> None:
    assert await every_step(tasks, workers, key="test-account-key") > 5


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


async def test_one_that_waits_for_a_connection(tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1)
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        client = tasks.client(engine, pool=PoolLimits(max_connections=1))

        async def waiting(step: int = step, client: AnyClient = client) -> None:
            nonlocal cancelled
            cancelled = await tasks.cancelled_at(step, partial(route, client))

        async with client:
            await tasks.together(partial(route, client), waiting, partial(route, client))
            assert_tidy(client)
            assert tasks.open == idle(client) <= 1
    assert step > 3


async def test_one_that_holds_the_connection_that_others_wait_for(tasks: World) -> None:
    step = 0
    cancelled = True
    while cancelled:
        step += 1
        engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1)
        client = tasks.client(engine, pool=PoolLimits(max_connections=1))

        async def holding(step: int = step, client: AnyClient = client) -> None:
            nonlocal cancelled
            cancelled = await tasks.cancelled_at(step, partial(route, client))

        async with client:
            await tasks.together(holding, *[partial(route, client)] * 3)
            assert_tidy(client)
            assert tasks.open == idle(client) <= 1
        assert engine.grants >= 3


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
