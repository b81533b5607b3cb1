"""Time limits, in every phase of a call: each ends it at its instant, and its error names it.

All of it in virtual time: a peer that does nothing for ever costs nothing here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf, nan
from typing import Any

import attrs
import pytest

from vastroute import (
    CallFailed,
    ConnectionFailed,
    FailureKind,
    InvalidValue,
    LimitReached,
    Origin,
    Outcome,
    Pause,
    Phase,
    RetryPolicy,
    WorkPolicy,
)
from vastroute_testing import (
    BEGIN,
    CloseBeforeHead,
    Delay,
    Hang,
    SimulatedEngine,
    Slow,
    Status,
    WorkerPlan,
)
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.fault_table import EVERY

from .worlds import Streaming, World, assert_tidy, engine_of

ONE_WORKER = RetryPolicy(max_reroutes=0)


@attrs.define
class Stuck:
    """A stream that takes `send_seconds` to send, and else is as the memory stream in it."""

    world: World
    inner: Streaming
    send_seconds: float

    async def send(self, data: bytes) -> None:
        await self.world.sleep_until(self.world.now() + self.send_seconds)
        await self.inner.send(data)

    async def receive(self, most: int) -> bytes:
        return await self.inner.receive(most)

    async def close(self) -> None:
        await self.inner.close()


def connect(
    world: World, engine: SimulatedEngine, connecting: float = 0, sending: float = 0, *, worker: bool = True
) -> Any:
    """What opens streams to the engine and its workers: those to workers (or to the engine) take their time."""

    async def opens(origin: Origin) -> Streaming:
        is_slow = (engine.worker_at(origin) is not None) is worker
        if is_slow and connecting:
            await world.sleep_until(world.now() + connecting)
        return Stuck(world, await world.stream(engine, origin), sending if is_slow else 0)

    return world.connect(opens)


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


@pytest.mark.parametrize("hang", [(inf, 0), (0, inf)], ids=["connecting", "sending"])
async def test_the_engine_cannot_be_reached(world: World, hang: tuple[float, float]) -> None:
    engine = engine_of()
    async with world.client(connect=connect(world, engine, *hang, worker=False)) as client:
        patient = RetryPolicy(first_ask_repeats=9)
        assert await limit_of(client.route("demo", timeout=25, policy=patient)) == "total"
        assert world.now() == BEGIN + 25
        error = await failure(client.route("demo", policy=RetryPolicy(ask_limit=3, max_retries=0)))
        assert error.kind is FailureKind.TIMEOUT
        assert error.outcome is (Outcome.NOT_SENT if hang[0] else Outcome.PERHAPS_STARTED)
        assert world.now() == BEGIN + 28
        assert_tidy(client)
    assert engine.asks == 0


async def test_a_worker_that_takes_no_connection_in_time_is_replaced(world: World) -> None:
    engine = engine_of(workers=2)
    policy = WorkPolicy(connecting=7)
    async with world.client(connect=connect(world, engine, connecting=inf), work_policy=policy) as client:
        error = await failure(client.call("demo", "/echo", {}, policy=ONE_WORKER))
        assert (type(error), error.limit) == (LimitReached, "max_reroutes")
        assert isinstance(error.__cause__, LimitReached)
        assert (error.__cause__.limit, error.__cause__.outcome) == ("connecting", Outcome.NOT_SENT)
        assert world.now() == BEGIN + 7
        began = world.now()
        assert await limit_of(client.call("demo", "/echo", {}, timeout=20)) == "total"
        assert world.now() <= began + 20
        assert_tidy(client)
    assert not any(worker.requests for worker in engine.workers)


async def test_a_worker_that_takes_no_bytes_in_time_perhaps_began(world: World) -> None:
    engine = engine_of(workers=2)
    policy = WorkPolicy(first_byte=7)
    async with world.client(connect=connect(world, engine, sending=inf), work_policy=policy) as client:
        error = await failure(client.call("demo", "/echo", {}))
        assert (error.phase, error.outcome, error.kind) == (
            Phase.WORKER,
            Outcome.PERHAPS_STARTED,
            FailureKind.TIMEOUT,
        )
        assert error.counts is not None
        assert error.counts.work_attempts == 1
        assert world.now() == BEGIN + 7
        assert_tidy(client)


async def test_the_total_is_shorter_than_connecting(world: World) -> None:
    for hang in ((inf, 0), (0, inf)):
        async with world.client(connect=connect(world, engine_of(), *hang)) as client:
            began = world.now()
            assert await limit_of(client.call("demo", "/echo", {}, timeout=4)) == "total"
            assert world.now() == began + 4


async def test_a_slow_road_is_a_road(world: World) -> None:
    engine = engine_of()
    async with world.client(connect=connect(world, engine, connecting=5, sending=4)) as client:
        answer = await client.call("demo", "/echo", {"a": 1})
        assert answer.data == {"echo": {"a": 1}}
        assert world.now() == BEGIN + 9
        slow = connect(world, engine, connecting=5, sending=300)
    async with world.client(connect=slow, policy=RetryPolicy(ask_limit=400)) as client:
        began = world.now()
        assert (await client.call("demo", "/echo", {"a": 1}, timeout=700)).data == {"echo": {"a": 1}}
        assert world.now() == began + 305, "a large payload may take longer than a connection"


# --- waiting ---------------------------------------------------------------------------------------------------------


async def test_waiting_for_a_worker(world: World) -> None:
    policy = WorkPolicy(waiting=30)
    async with world.client(engine_of(ready_after=600), work_policy=policy) as client:
        error = await failure(client.call("demo", "/echo", {}))
        assert (type(error), error.limit, error.phase) == (LimitReached, "waiting", Phase.ROUTE)
        assert error.not_ready is not None
        assert BEGIN + 25 <= world.now() <= BEGIN + 30


async def test_the_total_ends_a_wait_between_polls(world: World) -> None:
    async with world.client(engine_of(ready_after=600)) as client:
        for verb in (client.route("demo", timeout=31.7), client.call("demo", "/echo", {}, timeout=31.7)):
            began = world.now()
            assert await limit_of(verb) == "total"
            assert began + 26 <= world.now() <= began + 31.7


async def test_the_total_ends_a_pause_after_trouble(world: World) -> None:
    engine = engine_of(faults={("demo", EVERY): Status(503, retry_after=50)})
    async with world.client(engine) as client:
        error = await failure(client.route("demo", timeout=60))
        assert (type(error), error.limit, error.status) == (LimitReached, "total", 503)
        assert error.counts is not None
        assert error.counts.asks == 2
        assert world.now() <= BEGIN + 60


async def test_no_time_at_all(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        assert await limit_of(client.route("demo", timeout=0)) == "total"
        assert await limit_of(client.call("demo", "/echo", {}, timeout=-5)) == "total"
    assert not engine.requests
    assert world.opened == 0


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


@pytest.mark.parametrize("after", [None, 0, 10])
async def test_an_engine_that_falls_silent(world: World, after: int | None) -> None:
    engine = engine_of(faults={("demo", 1): Hang(after)})
    async with world.client(engine) as client:
        result = await client.route("demo")
        assert result.counts.retries == 1
        assert BEGIN + 10 < world.now() < BEGIN + 11
        assert world.opened == 2
        engine = engine_of(faults={("demo", EVERY): Hang(after)})
    async with world.client(engine) as client:
        began = world.now()
        assert await limit_of(client.route("demo", timeout=14, policy=RetryPolicy(first_ask_repeats=9))) == "total"
        assert world.now() <= began + 14


CASES: list[tuple[str, Any, float]] = [
    ("first_byte", Hang(), 30),
    ("silence", Hang(0), 20),
    ("silence", Hang(5), 20),
    ("first_byte", Delay(31), 30),
    ("working", Slow(0.1), 60),
    ("silence", Slow(0.04), 20),
]


@pytest.mark.parametrize(("limit", "fault", "seconds"), CASES, ids=str)
async def test_a_worker_that_is_slow(world: World, limit: str, fault: Any, seconds: float) -> None:
    policy = WorkPolicy(first_byte=30, silence=20, working=60)
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", EVERY): fault})])
    async with world.client(engine, work_policy=policy) as client:
        error = await failure(client.call("demo", "/echo", {"x": "y"}))
        assert (type(error), error.limit) == (LimitReached, limit)
        assert error.outcome is Outcome.PERHAPS_STARTED
        assert world.now() == BEGIN + seconds
        began = world.now()
        assert await limit_of(client.call("demo", "/echo", {"x": "y"}, timeout=15)) == "total"
        assert world.now() == began + 15
        assert_tidy(client)


async def test_a_trickle_is_no_silence(world: World) -> None:
    plan = WorkerPlan(faults={("/echo", 1): Slow(0.1)})
    async with world.client(engine_of(workers=[plan]), work_policy=WorkPolicy(silence=20)) as client:
        assert (await client.call("demo", "/echo", {})).data == {"echo": {}}
        assert world.now() > BEGIN + 100


async def test_work_that_may_run_twice_is_given_to_another_worker_in_time(world: World) -> None:
    plans = [WorkerPlan(faults={("/echo", 1): Hang()}), WorkerPlan(faults={("/echo", 1): Hang()}), WorkerPlan()]
    async with world.client(engine_of(workers=plans), work_policy=WorkPolicy(first_byte=30)) as client:
        answer = await client.call("demo", "/echo", {}, safe_to_repeat=True)
        assert answer.counts.possible_double_runs == 2
        assert BEGIN + 60 < world.now() < BEGIN + 65
        began = world.now()
    async with world.client(engine_of(workers=plans), work_policy=WorkPolicy(first_byte=30)) as client:
        assert await limit_of(client.call("demo", "/echo", {}, safe_to_repeat=True, timeout=50)) == "total"
        assert world.now() <= began + 50


async def test_a_stream_has_to_begin_in_time(world: World) -> None:
    plan = WorkerPlan(faults={("/stream", 1): Hang()})
    async with world.client(engine_of(workers=[plan]), work_policy=WorkPolicy(first_byte=30)) as client:
        with pytest.raises(LimitReached) as caught:
            async with client.stream("demo", "/stream", {}):
                raise AssertionError("it does not begin")
        assert caught.value.limit == "first_byte"
        assert world.now() == BEGIN + 30
        assert_tidy(client)


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
    async with world.client(connect=connect(world, engine, *road)) as client:
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
