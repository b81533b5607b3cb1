"""Time limits, beyond those of the conformance scripts: each ends a call at its instant, and its error names it.

All of it in virtual time: a peer that does nothing for ever costs nothing here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf, nan
from typing import Any

import pytest

from vastroute import (
    CallFailed,
    ConnectionFailed,
    InvalidValue,
    LimitReached,
    Pause,
    RetryPolicy,
)
from vastroute_testing import (
    BEGIN,
    CloseBeforeHead,
    Hang,
    Road,
    Slow,
    Status,
    WorkerPlan,
)
from vastroute_testing.conformance.scripts.timing import to_workers
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.fault_table import EVERY

from .worlds import World, assert_tidy, engine_of


async def failure(work: Awaitable[Any]) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await work
    return caught.value


async def limit_of(work: Awaitable[Any]) -> str | None:
    """The name of the limit that ends `work`."""
    error = await failure(work)
    assert isinstance(error, LimitReached)
    return error.limit


# --- connecting and sending ------------------------------------------------------------------------------------------


async def test_the_total_is_shorter_than_connecting(world: World) -> None:
    for road in (Road(connecting=inf), Road(sending=inf)):
        engine = engine_of()
        async with world.client(engine, roads=to_workers(engine, road)) as client:
            began = world.now()
            assert await limit_of(client.call("demo", "/echo", {}, timeout=4)) == "total"
            assert world.now() == began + 4


# --- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [nan, "5", True], ids=repr)
async def test_a_timeout_that_is_none(world: World, timeout: Any) -> None:
    engine = engine_of()
    async with world.client(engine) as client, client.session("demo") as session:
        engine.requests.clear()
        for work in (
            client.route("demo", timeout=timeout),
            client.call("demo", "/echo", {}, timeout=timeout),
            session.call("/echo", {}, timeout=timeout),
        ):
            with pytest.raises(InvalidValue, match="timeout must be"):
                await work
    assert not engine.requests


async def test_a_timeout_may_be_endless_where_the_caller_says_so(world: World) -> None:
    policy = RetryPolicy(poll_pause=Pause(first=100, cap=100))
    async with world.client(engine_of(ready_after=5000), policy=policy) as client:
        assert (await client.route("demo", timeout=inf)).counts.polls >= 50
        assert world.now() > BEGIN + 5000


# --- the answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Hang(), Hang(0), Hang(8), CloseBeforeHead(), Status(503, retry_after=9)], ids=repr)
async def test_looking_at_a_session_is_bounded(world: World, fault: Any) -> None:
    plan = WorkerPlan(faults={("/session/health", EVERY): fault, ("/session/get", EVERY): fault})
    policy = RetryPolicy(total=40)
    async with (
        world.client(engine_of(workers=[plan]), policy=policy) as client,
        client.session("demo", lifetime=3600) as session,
    ):
        for look in (session.health, session.info):
            began = world.now()
            await failure(look())
            assert world.now() <= began + 40


# --- the one deadline, whatever happens ------------------------------------------------------------------------------


Verb = Callable[[AnyClient, float], Awaitable[Any]]


async def _stream(client: AnyClient, timeout: float) -> None:
    async with client.stream("demo", "/stream", {"count": 50}, timeout=timeout, safe_to_repeat=True) as events:
        async for _ in events:
            pass


@pytest.mark.parametrize("timeout", [0.01, 0.5, 3, 9.99, 10, 33, 77])
@pytest.mark.parametrize("road", [(0, 0), (2.5, 2), (inf, 0), (0, inf)], ids=str)
async def test_the_total_is_never_exceeded(world: World, road: tuple[float, float], timeout: float) -> None:
    faults = {("demo", 2): Hang(), ("demo", 3): Status(503, retry_after=8), ("demo", 5): Slow(20)}
    plans = [
        WorkerPlan(ready_after=20, pace=1, faults={("/echo", 1): Slow(1), ("/stream", 1): Hang(50)}) for _ in range(2)
    ]
    engine = engine_of(workers=plans, faults=faults)
    roads = to_workers(engine, Road(connecting=road[0], sending=road[1]))
    async with world.client(engine, roads=roads) as client:
        for verb in (
            client.route("demo", timeout=timeout),
            client.call("demo", "/echo", {}, timeout=timeout, safe_to_repeat=True),
            _stream(client, timeout),
        ):
            began = world.now()
            try:
                await verb
            except CallFailed as error:
                assert isinstance(error, LimitReached | ConnectionFailed)  # noqa: PT017
            assert world.now() <= began + timeout + 1e-6
            assert_tidy(client)
