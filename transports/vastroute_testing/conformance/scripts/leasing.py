"""Sessions: leases on one worker."""

from __future__ import annotations

import json
from contextlib import suppress

from vastroute import (
    ConnectionFailed,
    LocalProtocolError,
    Outcome,
    Refused,
    SessionGone,
    SessionHandle,
    SessionState,
    UnexpectedAnswer,
)

from ...engine import SimulatedEngine
from ...faults import CloseBeforeHead, Hang, Html, ResetBeforeHead, SetField, Status
from ...life import WorkerPlan
from ..features import Feature, Law
from ..report import NotConforming
from ..world import World, engine_of
from .making import check, equal, failure, script, scripts_in

_WHOLE = ["/session/create", "/echo", "/stream", "/session/health", "/session/get", "/session/end"]


def routes(engine: SimulatedEngine) -> list[str]:
    """What the first worker was asked, in order."""
    return [request.target for request in engine.workers[0].requests]


@script(Law.ONE_CALL, Feature.SESSIONS)
async def session(world: World) -> None:
    """A session is made on entering its block and ended on leaving it; all of it is at one worker, under one ask."""
    engine = engine_of(workers=3)
    async with world.client(engine) as client:
        async with client.session("demo", lifetime=3600, cost=9) as lease:
            equal((await lease.call("/echo", {"n": 1})).data, {"echo": {"n": 1}}, "the answer")
            async with lease.stream("/stream", {"count": 1}) as events:
                equal(len([event async for event in events]), 2, "events")
            check(await lease.health(), "a session that is open is not alive")
            equal((await lease.info()).lifetime, 3600, "the lifetime that the worker tells")
        equal(lease.life.state, SessionState.ENDED, "the session's state")
        check(not engine.workers[0].sessions(now=world.now()), "the worker still has the session")
    equal(routes(engine), _WHOLE, "what the worker was asked")
    equal((engine.asks, engine.load("demo")), (1, 9), "asks, and the load that the engine counts")


@script(Law.NOTHING_LEFT, Feature.SESSIONS)
async def session_left_by_error(world: World) -> None:
    """An error in a session's block flies, after the session was ended at the worker."""

    class Mine(Exception):
        pass

    engine = engine_of()
    async with world.client(engine) as client:
        try:
            async with client.session("demo", lifetime=3600):
                raise Mine
        except Mine:
            equal(routes(engine), ["/session/create", "/session/end"], "what the worker was asked")
        else:
            raise NotConforming("the error in the block is swallowed")


@script(Law.BLAME, Feature.SESSIONS)
async def session_gone(world: World) -> None:
    """A session that the worker no longer knows is a `SessionGone`, and is not ended again."""
    engine = engine_of()
    async with world.client(engine) as client, client.session("demo", lifetime=3) as lease:
        await world.sleep(5)
        await failure(lease.call("/echo", {}), type=SessionGone, status=410)
        equal(lease.life.state, SessionState.LOST, "the session's state")
    equal(routes(engine), ["/session/create", "/echo"], "what the worker was asked")


@script(Law.PAY_ONCE, Feature.SESSIONS)
async def session_not_rerouted(world: World) -> None:
    """A session's work goes to its worker or nowhere: nothing is repeated, nobody else is asked."""
    faults = {("/echo", 1): Status(503), ("/echo", 2): CloseBeforeHead()}
    engine = engine_of(workers=[WorkerPlan(faults=faults), WorkerPlan()])
    async with world.client(engine) as client, client.session("demo", lifetime=3600) as lease:
        await failure(lease.call("/echo", {}, safe_to_repeat=True), status=503)
        error = await failure(lease.call("/echo", {}, safe_to_repeat=True), type=ConnectionFailed)
        equal(error.outcome, Outcome.PERHAPS_STARTED, "the outcome")
        equal((await lease.call("/echo", {})).status, 200, "the status of what follows")
        equal(lease.life.handle.doubtful, 2, "requests of which nobody knows whether they prolonged the session")
    equal((engine.asks, engine.workers[1].served), (1, 0), "asks, and requests at the other worker")


@script(Law.ONE_CALL, Feature.SESSIONS)
async def session_resumed(world: World) -> None:
    """A session that is detached stays open, and another client goes on with it from its saved handle."""
    engine = engine_of()
    async with world.serve(engine) as network:
        async with world.client(network) as client, client.session("demo", lifetime=3600) as lease:
            await lease.call("/echo", {})
            saved = json.loads(json.dumps(lease.detach().save()))
        equal(routes(engine), ["/session/create", "/echo"], "what the worker was asked")
        async with world.client(network) as other, other.resume_session(SessionHandle.load(saved)) as resumed:
            equal((await resumed.call("/echo", {"b": 2})).data, {"echo": {"b": 2}}, "the answer")
    equal(routes(engine)[-1], "/session/end", "the last that the worker was asked")
    equal(engine.asks, 1, "how often the engine is asked")


@script(Law.BOUNDED, Feature.SESSIONS, Feature.VIRTUAL_TIME)
async def session_end_bounded(world: World) -> None:
    """The end of a session is waited for five seconds at most, whatever the worker does."""

    class Mine(Exception):
        pass

    broken = (Hang(), Hang(3), CloseBeforeHead(), ResetBeforeHead())
    for fault in (*broken, Status(500), Status(503, retry_after=60), Html()):
        plan = WorkerPlan(faults={("/session/end", 0): fault})
        async with world.client(engine_of(workers=[plan])) as client:
            began = world.now()
            lease = client.session("demo", lifetime=3600)
            with suppress(Mine):
                async with lease:
                    raise Mine
            check(world.now() - began <= 5 + world.slack, f"it waits {world.now() - began:g} s after {fault}")
            equal(lease.life.state, SessionState.OPEN, "the session's state, as far as is known")


@script(Law.BLAME, Feature.SESSIONS)
async def session_refused(world: World) -> None:
    """A worker that makes no session: the error is raised on entering."""
    faults = {("/session/create", 1): SetField("session_id", None), ("/session/create", 2): Status(403)}
    async with world.client(engine_of(workers=[WorkerPlan(faults=faults)])) as client:

        async def enter() -> None:
            async with client.session("demo"):
                raise NotConforming("a session that was not made is entered")

        await failure(enter(), type=UnexpectedAnswer)
        await failure(enter(), type=Refused, status=403)


@script(Law.BLAME, Feature.SESSIONS)
async def session_misuse(world: World) -> None:
    """A session is entered before it is used, and entered once."""
    engine = engine_of()
    async with world.client(engine) as client:
        lease = client.session("demo", lifetime=3600)
        try:
            await lease.call("/echo", {})
        except LocalProtocolError:
            check(not engine.requests, "something is sent")
        else:
            raise NotConforming("it is used before it is entered")
        async with lease:
            pass
        try:
            await lease.__aenter__()
        except LocalProtocolError:
            equal(routes(engine), ["/session/create", "/session/end"], "what the worker was asked")
        else:
            raise NotConforming("it is entered twice")


SCRIPTS = scripts_in(globals())
