"""Workers, and engines, that fail."""

from __future__ import annotations

import json

from vastroute import (
    CallFailed,
    ConnectionFailed,
    KeyRefused,
    LimitReached,
    Outcome,
    Phase,
    RetryPolicy,
    UnexpectedAnswer,
)

from ...engine import SimulatedEngine
from ...faults import BadJson, CloseBeforeHead, CutBody, Fault, Garbled, Html, ResetBeforeHead, Status
from ...life import WorkerPlan
from ...schedule import Schedule, answer
from ..features import Feature, Law
from ..world import World, engine_of
from .edits import once
from .making import check, equal, failure, script, scripts_in


def served(engine: SimulatedEngine) -> list[int]:
    """How many requests each worker got."""
    return [worker.served for worker in engine.workers]


def one_index(engine: SimulatedEngine) -> None:
    """Every ask but the first carries the request's number, and load is counted once."""
    asked = [json.loads(request.body).get("request_idx") for request in engine.requests]
    check(asked[0] is None and len(set(asked[1:])) == 1, f"the asks of one call carry {asked} as request_idx")
    equal(engine.load("demo"), 100, "the load that the engine counts")


@script(Law.PAY_ONCE)
async def worker_dead(world: World) -> None:
    """A worker that takes no connection got nothing: the work goes to another under the same `request_idx`."""
    engine = engine_of(workers=[WorkerPlan(dies_after=0, noticed_after=1e6), WorkerPlan()])
    async with world.client(engine) as client:
        got = await client.call("demo", "/echo", {})
    equal((got.counts.workers_lost, got.counts.possible_double_runs), (1, 0), "workers lost, perhaps run twice")
    equal(served(engine), [0, 1], "requests that reached each worker")
    one_index(engine)


@script(Law.PAY_ONCE)
async def worker_full(world: World) -> None:
    """A worker that answers 429 or 503 did not begin: the work goes to another under the same `request_idx`."""
    plans = [WorkerPlan(faults={("/echo", 1): Status(status)}) for status in (429, 503)]
    engine = engine_of(workers=[*plans, WorkerPlan()])
    async with world.client(engine) as client:
        got = await client.call("demo", "/echo", {})
    equal((got.counts.workers_lost, got.counts.possible_double_runs), (2, 0), "workers lost, perhaps run twice")
    equal(engine.asks, 3, "how often the engine is asked")
    one_index(engine)


@script(Law.PAY_ONCE)
async def worker_refuses_grant(world: World) -> None:
    """A worker that does not accept the grant's signature is asked once more with a fresh one, and no more."""
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", number): Status(401) for number in range(1, 9)})])
    async with world.client(engine) as client:
        await failure(client.call("demo", "/echo", {}), status=401, phase=Phase.WORKER)
    equal(engine.grants, 2, "grants that were used")


async def lost(world: World, fault: Fault) -> None:
    """Work that perhaps started is not repeated, unless it may run twice."""
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", 1): fault}), WorkerPlan()])
    async with world.client(engine) as client:
        error = await failure(client.call("demo", "/echo", {"x": 1}), outcome=Outcome.PERHAPS_STARTED)
    check(isinstance(error, CallFailed) and error.phase is Phase.WORKER, "the error does not name the worker's hop")
    check(sum(served(engine)) <= 1, "work that perhaps started is sent again")
    equal(error.counts and error.counts.possible_double_runs, 0, "runs that were perhaps doubled")
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", 1): fault}), WorkerPlan()])
    async with world.client(engine) as client:
        got = await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)
    equal(got.data, {"echo": {"x": 1}}, "the answer of work that may run twice")
    equal((got.counts.workers_lost, got.counts.possible_double_runs), (1, 1), "workers lost, perhaps run twice")


@script(Law.PAY_ONCE)
async def worker_closes(world: World) -> None:
    """A worker that closes before it answers perhaps began: repeated only if the caller said that it may run twice."""
    await lost(world, CloseBeforeHead())


@script(Law.PAY_ONCE)
async def worker_resets(world: World) -> None:
    """A worker that resets the connection perhaps began: repeated only if the caller said that it may run twice."""
    await lost(world, ResetBeforeHead())


@script(Law.PAY_ONCE)
async def worker_cuts(world: World) -> None:
    """An answer that is cut is no answer: repeated only if the caller said that it may run twice."""
    await lost(world, CutBody(5))


@script(Law.PAY_ONCE)
async def worker_garbles(world: World) -> None:
    """A worker that answers what is not HTTP perhaps began: repeated only if the caller said that it may run twice."""
    await lost(world, Garbled(served=True))


@script(Law.PAY_ONCE)
async def worker_fails(world: World) -> None:
    """A 500 or a 504 may come after the work was done: repeated only if the caller said that it may run twice."""
    for status in (500, 504):
        engine = engine_of(workers=[WorkerPlan(faults={("/echo", 1): Status(status)}), WorkerPlan()])
        async with world.client(engine) as client:
            await failure(client.call("demo", "/echo", {}), status=status)
            equal(engine.grants, 1, "grants that were used")
            got = await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)
            equal(got.data, {"echo": {"x": 1}}, "the answer of work that may run twice")


@script(Law.BOUNDED)
async def reroute_limit(world: World) -> None:
    """`max_reroutes` ends going from worker to worker, with the last loss as the cause."""
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", 0): Status(503)}) for _ in range(4)])
    async with world.client(engine) as client:
        policy = RetryPolicy(max_reroutes=2)
        error = await failure(client.call("demo", "/echo", {}, policy=policy), type=LimitReached, limit="max_reroutes")
    equal(sum(served(engine)), 0, "work that reached a worker behind its gateway")
    equal(engine.grants, 3, "grants that were used")
    equal(error.__cause__ and getattr(error.__cause__, "status", None), 503, "the status of the last loss")


@script(Law.ONE_CALL)
async def engine_fails(world: World) -> None:
    """An engine that fails is asked again after a pause, by the one call: 5xx, closed, reset, cut, not HTTP."""
    faults = [Status(502), CloseBeforeHead(), ResetBeforeHead(), CutBody(9), Garbled()]
    for fault in faults:
        engine = engine_of(faults={("demo", 1): fault})
        async with world.client(engine) as client:
            result = await client.route("demo")
        equal((result.counts.asks, result.counts.retries), (2, 1), f"asks and retries after {fault}")


@script(Law.BLAME)
async def engine_strange(world: World) -> None:
    """An engine that answers a page or broken JSON ends the call as an unexpected answer, with an excerpt."""
    for fault in (Html(), BadJson()):
        engine = engine_of(faults={("demo", 0): fault})
        async with world.client(engine) as client:
            policy = RetryPolicy(max_retries=0)
            error = await failure(client.route("demo", policy=policy), type=UnexpectedAnswer, phase=Phase.ROUTE)
        check(error.excerpt, f"the error does not quote the answer: {fault}")


@script(Law.BLAME)
async def key_refused(world: World) -> None:
    """A key that is refused ends the call at once."""
    engine = engine_of()
    async with world.client(engine, key="nobodys-key", find_key=False) as client:
        await failure(client.route("demo"), type=KeyRefused, status=401)
    equal(engine.asks, 1, "how often the engine is asked")


@script(Law.KEYS_STAY)
async def engine_redirects(world: World) -> None:
    """A redirect of the engine's is never followed: a key would go with it."""
    engine = engine_of(workers=2)

    def elsewhere(schedule: Schedule) -> Schedule:
        return answer(307, at=schedule[0].at, headers={"location": f"{engine.workers[1].url}/echo"})

    async with world.client(engine, engine_edit=elsewhere) as client:
        policy = RetryPolicy(max_retries=0)
        await failure(client.route("demo", policy=policy), type=UnexpectedAnswer, status=307)
    equal(served(engine), [0, 0], "requests that followed it")


@script(Law.PAY_ONCE)
async def worker_redirects(world: World) -> None:
    """A redirect of a worker's is never followed: the grant and the payload would go with it."""
    for status in (302, 307):
        engine = engine_of(workers=2)

        def elsewhere(schedule: Schedule, engine: SimulatedEngine = engine, status: int = status) -> Schedule:
            return answer(status, at=schedule[0].at, headers={"location": f"{engine.workers[1].url}/echo"})

        async with world.client(engine, worker_edit=once(elsewhere)) as client:
            await failure(client.call("demo", "/echo", {}), status=status, phase=Phase.WORKER)
        equal(served(engine), [1, 0], "requests that each worker got")


@script(Law.PAY_ONCE, Feature.KINDS)
async def kinds(world: World) -> None:
    """An error says how the exchange broke: closed, reset, not HTTP."""
    for fault, kind in ((CloseBeforeHead(), "EOF"), (ResetBeforeHead(), "RESET"), (Garbled(served=True), "GARBAGE")):
        engine = engine_of(workers=[WorkerPlan(faults={("/echo", 1): fault})])
        async with world.client(engine) as client:
            error = await failure(client.call("demo", "/echo", {}), type=ConnectionFailed)
        equal(error.kind and error.kind.name, kind, f"the kind of {fault}")


SCRIPTS = scripts_in(globals())
