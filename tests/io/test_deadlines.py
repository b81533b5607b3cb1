"""Time limits, beyond those of the conformance scripts: each ends a call at its instant, and its error names it.

All of it in virtual time: a peer that does nothing for ever costs nothing here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from math import inf, nan
from typing import Any

import attrs
import pytest
import trio

from vastroute import (
    CallFailed,
    ConnectionFailed,
    HttpRequest,
    InvalidValue,
    LimitReached,
    Origin,
    Pause,
    Phase,
    RetryPolicy,
    WorkPolicy,
)
from vastroute_testing import (
    BEGIN,
    CloseBeforeHead,
    Hang,
    Road,
    Schedule,
    Slow,
    Status,
    WorkerPlan,
)
from vastroute_testing.conformance.scripts.timing import to_workers
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.fault_table import EVERY
from vastroute_testing.schedule import shifted

from .worlds import AsyncioWorld, Streaming, TrioWorld, World, assert_tidy, engine_of


@attrs.define
class Stubborn:
    """A stream that takes its time, cancelled or not where it receives, and else is as the memory stream in it."""

    world: World
    inner: Streaming
    sending: float = 0
    receiving: float = 0

    async def send(self, data: bytes) -> None:
        await self.world.sleep_until(self.world.now() + self.sending)
        await self.inner.send(data)

    async def receive(self, most: int) -> bytes:
        data = await self.inner.receive(most)
        if isinstance(self.world, TrioWorld):
            with trio.CancelScope(shield=True):
                await self.world.sleep(self.receiving)
        elif isinstance(self.world, AsyncioWorld):
            sleeping = asyncio.ensure_future(self.world.sleep(self.receiving))
            while not sleeping.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.shield(sleeping)
        else:
            await self.world.sleep(self.receiving)
        return data

    async def close(self) -> None:
        await self.inner.close()


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


@pytest.mark.parametrize("sending", [0, inf])
async def test_an_answer_that_outlasts_its_limit_counts_and_the_worker_has_a_limit_of_its_own(
    world: World, sending: float
) -> None:
    engine = engine_of()

    async def opens(origin: Origin) -> Streaming:
        inner = await world.stream(engine, origin)
        is_engine = engine.worker_at(origin) is None
        return Stubborn(world, inner, receiving=10) if is_engine else Stubborn(world, inner, sending)

    policies: dict[str, Any] = {"policy": RetryPolicy(ask_limit=3), "work_policy": WorkPolicy(first_byte=7)}
    async with world.client(connect=world.connect(opens), **policies) as client:
        if sending:
            assert await limit_of(client.call("demo", "/echo", {})) == "first_byte"
            assert world.now() == BEGIN + 17
        else:
            assert (await client.call("demo", "/echo", {})).status == 200
            assert world.now() == BEGIN + 10
        assert_tidy(client)


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


# --- the neighbouring calls ------------------------------------------------------------------------------------------

LOOKUPS: dict[str, Callable[[AnyClient, float | None], Awaitable[Any]]] = {
    "endpoints": lambda client, timeout: client.endpoints(timeout=timeout),
    "workers": lambda client, timeout: client.workers("demo", timeout=timeout),
    "fetch_public_key": lambda client, timeout: client.fetch_public_key(timeout=timeout),
}


@pytest.mark.parametrize("verb", LOOKUPS.values(), ids=LOOKUPS)
@pytest.mark.parametrize("timeout", [7, 0.5, 2000.0])
async def test_a_look_up_ends_at_its_time_out(
    world: World, verb: Callable[[AnyClient, float | None], Awaitable[Any]], timeout: float
) -> None:
    for given, limit in ((timeout, timeout), (None, 300.0)):
        began = world.now()
        policy = RetryPolicy(total=300, max_retries=10_000)
        async with world.client(lambda _request, _now: (), public_key=None, policy=policy) as client:
            with pytest.raises(LimitReached) as caught:
                await verb(client, given)
        assert (caught.value.limit, caught.value.phase) == ("total", Phase.LOOKUP)
        assert limit - 20 <= world.now() - began <= limit


async def test_two_look_ups_share_one_time_out(world: World) -> None:
    engine = engine_of()

    def slow(request: HttpRequest, now: float) -> Schedule:
        return shifted(engine.serve(request, now=now), 4)

    async with world.client(slow, key="test-account-key") as client:
        assert await client.workers("demo", timeout=9)
        with pytest.raises(LimitReached) as caught:
            await client.workers("demo", timeout=7)
        assert caught.value.limit == "total"


@pytest.mark.parametrize("name", ["health", "info"])
@pytest.mark.parametrize("timeout", [7, None])
async def test_what_is_asked_about_a_session_ends_at_its_time_out(
    world: World, name: str, timeout: float | None
) -> None:
    faults = {(f"/session/{verb}", EVERY): Hang() for verb in ("health", "get")}
    engine = engine_of(workers=[WorkerPlan(faults=faults)])
    async with (
        world.client(engine, policy=RetryPolicy(total=300, max_retries=999)) as client,
        client.session("demo") as session,
    ):
        began = world.now()
        with pytest.raises(LimitReached) as caught:
            await getattr(session, name)(timeout=timeout)
        assert (caught.value.limit, caught.value.phase) == ("total", Phase.WORKER)
        assert world.now() - began <= (300 if timeout is None else timeout)


async def test_a_time_out_of_a_look_up_is_a_number(one_world: World) -> None:
    async with one_world.client(engine_of()) as client, client.session("demo") as session:
        workers = partial(client.workers, "demo")
        verbs: list[Any] = [client.endpoints, client.fetch_public_key, workers, session.health, session.info]
        for verb in verbs:
            for wrong in (nan, True, "7"):
                with pytest.raises(InvalidValue, match="timeout must be seconds"):
                    await verb(timeout=wrong)
