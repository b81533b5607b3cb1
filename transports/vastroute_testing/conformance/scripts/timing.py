"""Time limits in every phase: each ends the call, or the exchange, at its instant, and the error names it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any

from vastroute import CallFailed, FailureKind, LimitReached, Origin, Outcome, Phase, RetryPolicy, WorkPolicy

from ...engine import SimulatedEngine
from ...faults import Delay, Fault, Hang, Slow, Status
from ...life import WorkerPlan
from ...streams import Road, Roads
from ..features import Feature, Law
from ..verbs import AnyClient
from ..world import World, engine_of
from .edits import trickling
from .making import check, equal, failure, script, scripts_in

_FOR_EVER = Road(connecting=inf), Road(sending=inf)


def to_workers(engine: SimulatedEngine, road: Road) -> Roads:
    """The engine is near, its workers are not."""

    def roads(origin: Origin) -> Road:
        return road if engine.worker_at(origin) is not None else Road()

    return roads


def worker_with(fault: Fault) -> SimulatedEngine:
    """An engine whose one worker has this fault for ever."""
    return engine_of(workers=[WorkerPlan(faults={("/echo", 0): fault, ("/stream", 0): fault})])


async def ends(
    world: World, work: Awaitable[Any], seconds: float, *, exactly: bool = False, **wanted: Any
) -> CallFailed:
    """`work` fails as it is wanted, and not later than that."""
    began = world.now()
    error = await failure(work, **wanted)
    took = world.now() - began
    check(took <= seconds + world.slack, f"it takes {took:g} s, and not {seconds:g}")
    check(not exactly or took >= seconds - 1e-6, f"it takes {took:g} s, and not {seconds:g}")
    return error


@script(Law.ONE_DEADLINE, Feature.ROADS)
async def deadline_reaching_the_engine(world: World) -> None:
    """An engine that takes no connection, or no bytes: the ask ends at its limit, the call at its deadline."""
    for road, sent in zip(_FOR_EVER, (Outcome.NOT_SENT, Outcome.PERHAPS_STARTED), strict=True):
        async with world.client(engine_of(), roads=road) as client:
            policy = RetryPolicy(ask_limit=3, max_retries=0, first_ask_repeats=9)
            await ends(world, client.route("demo", policy=policy), 3, kind=FailureKind.TIMEOUT, outcome=sent)
            await ends(world, client.route("demo", timeout=25), 25, type=LimitReached)


@script(Law.PAY_ONCE, Feature.ROADS)
async def deadline_connecting(world: World) -> None:
    """A worker that takes no connection within `connecting` got nothing: another one is asked for."""
    engine = engine_of(workers=2)
    async with world.client(engine, roads=to_workers(engine, Road(connecting=inf))) as client:
        policy, reroutes = WorkPolicy(connecting=7), RetryPolicy(max_reroutes=0)
        work = client.call("demo", "/echo", {}, work_policy=policy, policy=reroutes)
        error = await ends(world, work, 7, type=LimitReached, limit="max_reroutes")
        cause = error.__cause__
        check(isinstance(cause, LimitReached), "the cause is not the limit that ended the exchange")
        assert isinstance(cause, LimitReached)
        equal((cause.limit, cause.outcome), ("connecting", Outcome.NOT_SENT), "limit and outcome of the cause")


@script(Law.PAY_ONCE, Feature.ROADS)
async def deadline_sending(world: World) -> None:
    """A worker that takes the connection but not the request perhaps began."""
    engine = engine_of(workers=2)
    async with world.client(engine, roads=to_workers(engine, Road(sending=inf))) as client:
        policy = WorkPolicy(first_byte=7)
        work = client.call("demo", "/echo", {}, work_policy=policy)
        error = await ends(world, work, 7, phase=Phase.WORKER, outcome=Outcome.PERHAPS_STARTED)
        equal(error.counts and error.counts.work_attempts, 1, "how often the work is sent")


@script(Law.ONE_DEADLINE, Feature.ROADS)
async def slow_roads(world: World) -> None:
    """A road that is slow, but within the limits, leads there."""
    engine = engine_of()
    async with world.client(engine, roads=to_workers(engine, Road(connecting=5, sending=300))) as client:
        began = world.now()
        answer = await client.call("demo", "/echo", {"a": 1})
        equal((answer.status, world.now() - began), (200, 305), "status and seconds")


@script(Law.ONE_DEADLINE)
async def deadline_asking(world: World) -> None:
    """An engine that falls silent, before or within its answer: the ask ends at `ask_limit` and is repeated."""
    for after in (None, 0, 10):
        engine = engine_of(faults={("demo", 1): Hang(after)})
        async with world.client(engine) as client:
            began = world.now()
            result = await client.route("demo", policy=RetryPolicy(ask_limit=8))
            took = world.now() - began
        equal((result.counts.asks, result.counts.retries), (2, 1), "asks and retries")
        check(8 <= took + 1e-6 <= 9 + world.slack, f"it takes {took:g} s")


@script(Law.ONE_DEADLINE)
async def deadline_while_silent(world: World) -> None:
    """A call ends at its deadline also where the engine never answers."""
    async with world.client(engine_of(faults={("demo", 0): Hang()})) as client:
        work = client.route("demo", timeout=9, policy=RetryPolicy(ask_limit=60))
        await ends(world, work, 9, type=LimitReached, limit="total")


@script(Law.ONE_DEADLINE)
async def deadline_waiting(world: World) -> None:
    """A call ends at its deadline while it waits for a worker, and at `waiting` if that is sooner."""
    async with world.client(engine_of(ready_after=1e6)) as client:
        for verb in (client.route("demo", timeout=9), client.call("demo", "/echo", {}, timeout=9)):
            await ends(world, verb, 9, type=LimitReached, limit="total")
        policy = WorkPolicy(waiting=9)
        work = client.call("demo", "/echo", {}, work_policy=policy)
        error = await ends(world, work, 9, type=LimitReached, limit="waiting", phase=Phase.ROUTE)
        check(error.not_ready is not None, "the error does not hold the last answer")


@script(Law.ONE_DEADLINE, Feature.VIRTUAL_TIME)
async def deadline_pausing(world: World) -> None:
    """A server's `Retry-After` is honoured, and never beyond the call's deadline."""
    async with world.client(engine_of(faults={("demo", 0): Status(503, retry_after=50)})) as client:
        error = await ends(world, client.route("demo", timeout=60), 60, type=LimitReached, limit="total", status=503)
        equal(error.counts and error.counts.asks, 2, "how often the engine is asked")


@script(Law.ONE_DEADLINE)
async def no_time(world: World) -> None:
    """A call that has no time sends nothing."""
    engine = engine_of()
    async with world.client(engine) as client:
        await failure(client.route("demo", timeout=0), type=LimitReached, limit="total")
        await failure(client.call("demo", "/echo", {}, timeout=-5), type=LimitReached, limit="total")
    check(not engine.requests, "something is sent")


async def slow_worker(world: World, limit: str, policy: WorkPolicy, seconds: float, *faults: Fault) -> None:
    """The exchange ends at `limit`, and at the call's deadline where that is sooner."""
    for fault in faults:
        async with world.client(worker_with(fault)) as client:
            work = client.call("demo", "/echo", {"x": "y"}, work_policy=policy)
            error = await ends(world, work, seconds, exactly=True, type=LimitReached, limit=limit)
            equal((error.outcome, error.phase), (Outcome.PERHAPS_STARTED, Phase.WORKER), "outcome and phase")


@script(Law.ONE_DEADLINE, Feature.PIECES)
async def deadline_first_byte(world: World) -> None:
    """A worker that does not begin to answer within `first_byte` perhaps began to work."""
    await slow_worker(world, "first_byte", WorkPolicy(first_byte=9), 9, Hang(), Delay(40))


@script(Law.ONE_DEADLINE, Feature.PIECES)
async def deadline_silence(world: World) -> None:
    """A worker that falls silent within its answer for `silence` ends the exchange."""
    faults = (Hang(0), Hang(5)) if world.virtual else (Hang(5),)
    await slow_worker(world, "silence", WorkPolicy(silence=9), 9, *faults)


@script(Law.ONE_DEADLINE)
async def deadline_working(world: World) -> None:
    """An exchange with a worker ends at `working`, however busily it trickles."""
    policy = WorkPolicy(working=9)
    async with world.client(worker_with(Slow(0.5))) as client:
        work = client.call("demo", "/echo", {"x": "y" * 50}, work_policy=policy)
        await ends(world, work, 9, type=LimitReached, limit="working")


@script(Law.ONE_DEADLINE)
async def deadline_trickling(world: World) -> None:
    """A call ends at its deadline however an answer trickles: the engine's and a worker's."""
    slow = trickling(1.0)
    async with world.client(engine_of(), engine_edit=slow) as client:
        policy = RetryPolicy(ask_limit=900)
        await ends(world, client.route("demo", timeout=9, policy=policy), 9, type=LimitReached, limit="total")
    async with world.client(engine_of(), worker_edit=slow) as client:
        work = client.call("demo", "/echo", {"x": "y" * 50}, timeout=9)
        await ends(world, work, 9, type=LimitReached, limit="total")


@script(Law.PAY_ONCE)
async def another_in_time(world: World) -> None:
    """Work that may run twice goes to another worker at a limit, within the one deadline."""
    plans = [WorkerPlan(faults={("/echo", 1): Hang()}), WorkerPlan()]
    async with world.client(engine_of(workers=plans)) as client:
        policy = WorkPolicy(first_byte=9)
        answer = await client.call("demo", "/echo", {}, safe_to_repeat=True, work_policy=policy)
        equal(answer.counts.possible_double_runs, 1, "runs that were perhaps doubled")
    plans = [WorkerPlan(faults={("/echo", 0): Hang()}) for _ in range(3)]
    async with world.client(engine_of(workers=plans)) as client:
        work = client.call("demo", "/echo", {}, safe_to_repeat=True, work_policy=policy, timeout=12)
        await ends(world, work, 12, type=LimitReached, limit="total")


@script(Law.ONE_DEADLINE, Feature.VIRTUAL_TIME)
async def deadline_in_any_case(world: World) -> None:
    """Whatever goes wrong, no call takes longer than its deadline."""
    faults = {("demo", 2): Hang(), ("demo", 3): Status(503, retry_after=8), ("demo", 5): Slow(20)}
    plan = WorkerPlan(ready_after=20, pace=1, faults={("/echo", 1): Slow(1), ("/stream", 1): Hang(50)})
    verbs: list[Callable[[AnyClient, float], Awaitable[Any]]] = [
        lambda client, timeout: client.route("demo", timeout=timeout),
        lambda client, timeout: client.call("demo", "/echo", {}, timeout=timeout, safe_to_repeat=True),
    ]
    for timeout in (0.01, 0.5, 3, 9.99, 10, 33, 77):
        for verb in verbs:
            async with world.client(engine_of(workers=[plan, plan], faults=faults)) as client:
                began = world.now()
                with suppress(CallFailed):
                    await verb(client, timeout)
                took = world.now() - began
                check(took <= timeout + world.slack, f"it takes {took:g} s, and not {timeout:g}")


SCRIPTS = scripts_in(globals())
