"""Work at a worker."""

from __future__ import annotations

from vastroute import EntryKind, Outcome, Refused

from ...faults import Status
from ...life import WorkerPlan
from ..features import Feature, Law
from ..world import World, engine_of
from .making import check, equal, failure, script, scripts_in


@script(Law.GRANT_VERBATIM)
async def work(world: World) -> None:
    """The work goes to the granted worker, with the grant byte for byte, the payload and the caller's own headers."""
    engine = engine_of()
    async with world.client(engine) as client:
        answer = await client.call("demo", "/echo", {"x": "tökën"}, cost=100.0, headers={"x-mine": "1"})
    equal(answer.data, {"echo": {"x": "tökën"}}, "the answer")
    (request,) = engine.workers[0].requests
    check(answer.grant.raw in request.body, "the grant is not in the request as it came")
    check(b'"cost": 100.0' in request.body, "a number of the grant is spelt anew")
    equal(request.headers.get("x-mine"), "1", "the caller's own header")


@script(Law.GRANT_VERBATIM)
async def large(world: World) -> None:
    """A payload and an answer of some hundred thousand bytes arrive whole."""
    payload = {"text": "x" * 300_000}
    async with world.client(engine_of()) as client:
        answer = await client.call("demo", "/echo", payload)
    check(answer.data == {"echo": payload}, "the answer is not what was sent")


@script(Law.NO_DECISION)
async def picture(world: World) -> None:
    """An answer that is no text comes as the bytes that it is, with its type."""
    async with world.client(engine_of()) as client:
        answer = await client.call("demo", "/media", {})
    equal((answer.content_type, answer.body[:4]), ("image/png", b"\x89PNG"), "type and first bytes")


@script(Law.NO_DECISION)
async def no_content(world: World) -> None:
    """A 204 is an answer without a body."""
    async with world.client(engine_of()) as client:
        answer = await client.call("demo", "/status", {"status": 204})
    equal((answer.status, answer.body), (204, b""), "status and body")


@script(Law.BLAME)
async def model_refuses(world: World) -> None:
    """What the model answers with a 4xx is the caller's: an error with the status and the whole body, asked once."""
    engine = engine_of(workers=2)
    async with world.client(engine) as client:
        error = await failure(client.call("demo", "/status", {"status": 404}), type=Refused, status=404)
    equal((error.body, error.outcome), (b'{"status": 404}', Outcome.ANSWERED), "body and outcome")
    equal(sum(worker.served for worker in engine.workers), 1, "how often the work is sent")


@script(Law.NO_DECISION, Feature.OBSERVER)
async def observer(world: World) -> None:
    """An observer gets every entry of a call's record once, in order, as it happens."""
    plans = [WorkerPlan(faults={("/echo", 1): Status(429)}), WorkerPlan()]
    engine = engine_of(workers=plans, faults={("demo", 1): Status(503)})
    told: list[object] = []
    async with world.client(engine, observer=told.append) as client:
        answer = await client.call("demo", "/echo", {})
        equal(told, list(answer.record), "what the observer got")
        kinds = {entry.kind for entry in answer.record}
        check({EntryKind.TROUBLE, EntryKind.WORKER_LOST} < kinds, "the record does not tell what happened")
        told.clear()
        error = await failure(client.call("demo", "/status", {"status": 404}))
        equal(told, list(error.record or ()), "what the observer got of a call that failed")


SCRIPTS = scripts_in(globals())
