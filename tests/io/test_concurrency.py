"""Many calls at once share one client: each gets its own answer, and what they need together is fetched once."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import pytest

from vastroute import CallFailed, LimitReached, PoolLimits, RetryPolicy, WorkPolicy
from vastroute_testing import BEGIN, Hang, SimulatedEndpoint, SimulatedEngine, TestAuthority, WorkerPlan
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.fault_table import EVERY

from .worlds import World, assert_tidy, engine_of, idle

AUTHORITY = TestAuthority()
SERVED = AUTHORITY.server_context()


async def one_call(client: AnyClient, number: int) -> None:
    payload = {"n": number, "text": "x" * (number % 50)}
    answered = await client.call("demo", "/echo", payload, cost=number + 1, safe_to_repeat=number % 2 == 0)
    assert answered.data == {"echo": payload}


async def one_stream(client: AnyClient, number: int) -> None:
    async with client.stream("demo", "/stream", {"count": number % 5}) as events:
        assert len([event async for event in events]) == number % 5 + 1


async def one_session(client: AnyClient, number: int) -> None:
    async with client.session("demo") as session:
        assert (await session.call("/echo", {"n": number})).data == {"echo": {"n": number}}


def works(client: AnyClient, count: int) -> list[Any]:
    return [partial((one_call, one_stream, one_session)[number % 3], client, number) for number in range(count)]


@pytest.mark.parametrize(("count", "most"), [(200, 1000), (40, 2)])
async def test_many_tasks(tasks: World, count: int, most: int) -> None:
    plans = [WorkerPlan(ready_after=30, latency=0.1, pace=0.1, max_sessions=99) for _ in range(4)]
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=plans), latency=0.05)
    policy = WorkPolicy(connecting=500)
    asking = RetryPolicy(ask_limit=500)
    async with tasks.client(engine, pool=PoolLimits(max_connections=most), work_policy=policy, policy=asking) as client:
        await tasks.together(*works(client, count))
        assert_tidy(client)
        assert tasks.open == idle(client)
        assert all(len(holding.idle) <= most for holding in client.pool.inspect().values())
    assert len(engine.lifetimes) == count
    assert engine.load("demo") == sum(number + 1 if number % 3 == 0 else 100 for number in range(count))
    assert not any(worker.sessions(now=tasks.now()) for worker in engine.workers)


async def test_who_goes_on_at_once_keeps_a_connection(tasks: World) -> None:
    """However few may be idle: that all callers are answered at one instant leaves none of their connections over."""
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[WorkerPlan()]), latency=0.05)

    async def ask(client: AnyClient) -> None:
        for _ in range(5):
            await client.route("demo")

    async with tasks.client(engine, pool=PoolLimits(max_idle=3)) as client:
        await tasks.together(*[partial(ask, client)] * 30)
        assert tasks.opened == 30


async def test_sixteen_threads_or_tasks_over_sockets(sockets: World) -> None:
    engine = engine_of(workers=[WorkerPlan(pace=0, max_sessions=99) for _ in range(2)])
    options: dict[str, Any] = {"ssl_context": AUTHORITY.client_context(), "worker_root": AUTHORITY.pem}
    async with sockets.listen(engine, ssl_context=SERVED) as at:
        async with sockets.client(None, engine=at.url, pool=PoolLimits(max_idle=5), **options) as client:
            for _ in range(2):
                await sockets.together(*works(client, 16))
            assert_tidy(client)
            assert idle(client) <= 5
        assert at.opened >= 16
    assert len(engine.lifetimes) == 32


async def test_threads_wait_for_one_connection(sockets: World) -> None:
    engine = engine_of()
    async with (
        sockets.listen(engine) as at,
        sockets.client(None, engine=at.url, pool=PoolLimits(max_connections=1)) as client,
    ):
        await sockets.together(*works(client, 10))
        assert_tidy(client)
    assert len(engine.lifetimes) == 10


# --- what is needed together -----------------------------------------------------------------------------------------


async def test_the_public_key_is_fetched_once_for_all(tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1)
    async with tasks.client(engine, public_key=None, fetch_public_key=True) as client:
        await tasks.together(*works(client, 12))
    assert Counter(request.target for request in engine.requests)["/pubkey/"] == 1


async def test_a_key_is_looked_for_once_for_all(tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1)
    async with tasks.client(engine, key="test-account-key") as client:
        await tasks.together(*works(client, 12))
    assert Counter(request.target for request in engine.requests)["/api/v0/endptjobs/?client_id=me"] == 1


@pytest.mark.parametrize("what", ["/pubkey/", "/api/v0/endptjobs/"])
async def test_whoever_waits_for_another_calls_fetch_keeps_its_own_deadline(tasks: World, what: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), faults={(what, EVERY): Hang()})
    wants_public_key = what == "/pubkey/"
    ended: dict[float, float] = {}

    async def ask(timeout: float, client: AnyClient) -> None:
        with pytest.raises(CallFailed):
            await client.route("demo", timeout=timeout)
        ended[timeout] = tasks.now() - BEGIN

    options: dict[str, Any] = {"public_key": None, "fetch_public_key": wants_public_key}
    key = "test-endpoint-key" if wants_public_key else "test-account-key"
    async with tasks.client(engine, key=key, **options) as client:
        await tasks.together(*[partial(ask, timeout, client) for timeout in (60, 5, 7)])
    assert all(timeout - 5 <= seconds <= timeout + 1e-6 for timeout, seconds in ended.items()), ended


async def test_a_poor_connection_is_shared_in_order(tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=2)
    order: list[int] = []

    async def ask(number: int, client: AnyClient) -> None:
        await tasks.sleep(number / 100)
        await client.route("demo")
        order.append(number)

    async with tasks.client(engine, pool=PoolLimits(max_connections=1)) as client:
        await tasks.together(*[partial(ask, number, client) for number in range(5)])
    assert order == [0, 1, 2, 3, 4]
    assert tasks.opened == 1


async def test_waiting_for_a_connection_is_part_of_connecting(tasks: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 1): Hang()}))
    async with tasks.client(engine, pool=PoolLimits(max_connections=1)) as client:
        errors: dict[str, Any] = {}

        async def first() -> None:
            with pytest.raises(LimitReached):
                await client.route("demo", timeout=60, policy=RetryPolicy(ask_limit=60))
            errors["first"] = tasks.now()

        async def second() -> None:
            await tasks.sleep(1)
            with pytest.raises(LimitReached) as caught:
                await client.route("demo", timeout=20)
            assert caught.value.limit == "total"
            assert caught.value.counts is not None
            assert caught.value.counts.possible_double_loads == 0, "nothing was sent"
            errors["second"] = tasks.now()

        async def third() -> None:
            await tasks.sleep(2)
            await client.route("demo", policy=RetryPolicy(ask_limit=100))
            errors["third"] = tasks.now()

        await tasks.together(first, second, third)
        assert errors == {"second": BEGIN + 21, "first": BEGIN + 60, "third": BEGIN + 60}
        assert_tidy(client)
