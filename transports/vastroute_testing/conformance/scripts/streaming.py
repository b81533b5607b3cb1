"""Answers that are taken piece by piece."""

from __future__ import annotations

from typing import Any

from vastroute import (
    Cancelled,
    ConnectionFailed,
    FailureKind,
    JsonLine,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
    Refused,
    StreamEvent,
    StreamLimits,
    WorkPolicy,
)

from ...faults import CloseBeforeHead, CutStreamAt, Hang, Status
from ...life import WorkerPlan
from ...models import Model, Work
from ...schedule import Garbage, Schedule, stream_answer
from ..features import Feature, Law
from ..report import NotConforming
from ..verbs import AnyStream
from ..world import World, engine_of
from .making import check, equal, failure, script, scripts_in

EVENTS = [*(f'{{"n": {n}, "text": "tökën {n}"}}' for n in range(3)), "[DONE]"]
"""What the simulated route ``/stream`` says for a count of 3."""
_SSE = {"content-type": "text/event-stream"}


def model(*pieces: bytes, every: float = 0.0, kind: str = "text/event-stream") -> dict[str, Model]:
    """A worker's models: ``/custom`` answers with these pieces."""

    def answer(work: Work) -> Schedule:
        return stream_answer(pieces, at=work.at, every=every, headers={"content-type": kind})

    return {"/custom": answer}


async def texts(events: AnyStream) -> list[str]:
    """The data of all events that are still to come."""
    return [text_of(event) async for event in events]


def text_of(event: StreamEvent) -> str:
    """The data of a server-sent event."""
    text: str = getattr(event, "data", repr(event))
    return text


async def broken(events: AnyStream, **wanted: Any) -> list[str]:
    """The data of all events that come before the error that is wanted."""
    got: list[str] = []

    async def take() -> None:
        async for event in events:
            got.append(text_of(event))

    await failure(take(), **wanted)
    return got


@script(Law.NO_DECISION, Feature.STREAMS)
async def stream(world: World) -> None:
    """Events come in order and whole, however the bytes are cut; the stream's own word ends it."""
    for cut in (None, 1, (3, 50)):
        async with world.client(engine_of(), cut=cut) as client:
            async with client.stream("demo", "/stream", {"count": 3}, cost=4) as events:
                equal(await texts(events), EVENTS, "the events")
                check(events.finished, "it is not said that the stream ended itself")
            answer = events.result()
        equal((answer.status, answer.grant.cost), (200, 4), "status and cost")
        equal(list(events.record), list(answer.record), "the record of the stream")


@script(Law.NO_DECISION, Feature.STREAMS, Feature.VIRTUAL_TIME)
async def stream_at_once(world: World) -> None:
    """An event is there as soon as it was sent, and not when the next one, or the end, has come."""
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=7)])) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        began = world.now()
        equal([round(world.now() - began, 3) async for _ in events], [0, 7, 14, 21], "the seconds of the events")


@script(Law.NO_DECISION, Feature.STREAMS)
async def stream_kinds(world: World) -> None:
    """JSON lines come as lines, and what is neither of these as bytes."""
    lines = (b'{"a": 1}\n', b'{"b": 2}\n')
    plans = WorkerPlan(models=model(*lines, kind="application/x-ndjson"))
    async with (
        world.client(engine_of(workers=[plans])) as client,
        client.stream("demo", "/custom", {}) as events,
    ):
        equal([event async for event in events], [JsonLine(text='{"a": 1}'), JsonLine(text='{"b": 2}')], "the lines")
    async with (
        world.client(engine_of(workers=[WorkerPlan(models=model(*lines, kind="audio/mpeg"))])) as client,
        client.stream("demo", "/custom", {}) as events,
    ):
        got = [event async for event in events]
        equal(b"".join(event for event in got if isinstance(event, bytes)), b"".join(lines), "the bytes")


@script(Law.PAY_ONCE, Feature.STREAMS, Feature.CUTS)
async def stream_cut(world: World) -> None:
    """A stream that is cut gives its events and then an error; what the caller has seen is not run again."""
    wanted = {"type": ConnectionFailed, "outcome": Outcome.PERHAPS_STARTED, "phase": Phase.WORKER}
    for kind in (FailureKind.EOF, FailureKind.RESET):
        plan = WorkerPlan(faults={("/stream", 1): CutStreamAt(2, kind=kind)})
        engine = engine_of(workers=[plan, WorkerPlan()])
        async with (
            world.client(engine) as client,
            client.stream("demo", "/stream", {"count": 3}, safe_to_repeat=True) as events,
        ):
            equal(await broken(events, **wanted), EVENTS[:2], "the events")
            await failure(anext(events), type=ConnectionFailed)
        equal(engine.grants, 1, "grants that were used")


@script(Law.BLAME, Feature.STREAMS)
async def stream_short(world: World) -> None:
    """A stream that ends properly, but without its last word, is told from one that is finished."""
    plan = WorkerPlan(faults={("/stream", 1): CutStreamAt(2, kind=None)})
    async with (
        world.client(engine_of(workers=[plan])) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        equal(await texts(events), EVENTS[:2], "the events")
        check(not events.finished, "it is said that the stream ended itself")


@script(Law.BLAME, Feature.STREAMS, Feature.BYTES)
async def stream_until_close(world: World) -> None:
    """Where only the connection ends a stream, it is whole if it said so itself, and cut if it did not."""
    for body, whole in (
        (b"data: 1\n\ndata: [DONE]\n\n", True),
        (b"data: 1\n\n", False),
        (b"data: 1\n\ndata: 2", False),
    ):

        def answer(work: Work, body: bytes = body) -> Schedule:
            return (Garbage(at=work.at, data=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + body),)

        async with (
            world.client(engine_of(workers=[WorkerPlan(models={"/custom": answer})])) as client,
            client.stream("demo", "/custom", {}) as events,
        ):
            if whole:
                equal(await texts(events), ["1", "[DONE]"], "the events")
            else:
                equal(await broken(events, type=ConnectionFailed), ["1"], "the events")


@script(Law.NOTHING_LEFT, Feature.STREAMS)
async def stream_left(world: World) -> None:
    """A stream that is left early is cancelled, and its connection closed at once, not when the client is."""
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {"count": 1000}) as events:
            equal(text_of(await anext(events)), EVENTS[0], "the first event")
        await world.until(lambda: client.network.open <= 1, "the stream's connection is still open")
        try:
            events.result()
        except Cancelled as error:
            equal(error.outcome, Outcome.PERHAPS_STARTED, "the outcome")
        else:
            raise NotConforming("a stream that was left has a result")
        equal((await client.call("demo", "/echo", {})).status, 200, "the next call's status")


@script(Law.NOTHING_LEFT, Feature.STREAMS)
async def stream_left_by_error(world: World) -> None:
    """An error in a stream's block flies, and the connection is closed."""

    class Mine(Exception):
        pass

    async with world.client(engine_of()) as client:
        try:
            async with client.stream("demo", "/stream", {"count": 1000}):
                raise Mine
        except Mine:
            await world.until(lambda: client.network.open <= 1, "the stream's connection is still open")
        else:
            raise NotConforming("the error in the block is swallowed")


@script(Law.BLAME, Feature.STREAMS)
async def stream_refused(world: World) -> None:
    """What fails before a stream begins is raised on entering its block, with the body."""
    async with world.client(engine_of()) as client:

        async def enter() -> None:
            async with client.stream("demo", "/status", {"status": 404}):
                raise NotConforming("a stream that was refused is entered")

        error = await failure(enter(), type=Refused, status=404)
        equal(error.body, b'{"status": 404}', "the body")


@script(Law.PAY_ONCE, Feature.STREAMS)
async def stream_rerouted(world: World) -> None:
    """Before a stream begins, a worker that fails is replaced as for any work."""
    faults = (Status(503), CloseBeforeHead())
    plans = [*(WorkerPlan(faults={("/stream", 1): fault}) for fault in faults), WorkerPlan()]
    async with (
        world.client(engine_of(workers=plans)) as client,
        client.stream("demo", "/stream", {"count": 3}, safe_to_repeat=True) as events,
    ):
        equal(await texts(events), EVENTS, "the events")
        equal((events.counts.workers_lost, events.counts.possible_double_runs), (2, 1), "workers lost, run twice")


@script(Law.ONE_DEADLINE, Feature.STREAMS)
async def stream_silent(world: World) -> None:
    """A stream has to begin within `first_byte`, and then never be silent for `silence`."""
    first = len(f"data: {EVENTS[0]}\n\n".encode())
    policy = WorkPolicy(first_byte=9, silence=8)
    async with world.client(engine_of(workers=[WorkerPlan(faults={("/stream", 1): Hang()})])) as client:

        async def enter() -> None:
            async with client.stream("demo", "/stream", {}, work_policy=policy):
                raise NotConforming("a stream that does not begin is entered")

        began = world.now()
        await failure(enter(), type=LimitReached, limit="first_byte")
        check(world.now() - began <= 9 + world.slack, "it takes too long")
    async with (
        world.client(engine_of(workers=[WorkerPlan(faults={("/stream", 1): Hang(first)})])) as client,
        client.stream("demo", "/stream", {}, work_policy=policy) as events,
    ):
        began = world.now()
        equal(await broken(events, type=LimitReached, limit="silence"), EVENTS[:1], "the events")
        check(world.now() - began <= 8 + world.slack, "it takes too long")


@script(Law.ONE_DEADLINE, Feature.STREAMS)
async def stream_deadline(world: World) -> None:
    """The call's deadline is over its stream too, however busy that is."""
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=1)])) as client,
        client.stream("demo", "/stream", {"count": 60}, timeout=9) as events,
    ):
        got = await broken(events, type=LimitReached, limit="total")
        check(len(got) < 40, "the stream goes on after the deadline")


@script(Law.ONE_DEADLINE, Feature.STREAMS, Feature.VIRTUAL_TIME)
async def stream_taken_slowly(world: World) -> None:
    """The caller's own pauses are no silence of the worker's."""
    policy = WorkPolicy(silence=20)
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=1)]), work_policy=policy) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        count = 0
        async for _ in events:
            count += 1
            await world.sleep(30)
        equal(count, 4, "events")


@script(Law.BOUNDED, Feature.STREAMS)
async def stream_long_line(world: World) -> None:
    """A line that is too long ends the stream after the events before it."""
    plan = WorkerPlan(models=model(b"data: 1\n\n", b"data: " + b"x" * 500))
    async with (
        world.client(engine_of(workers=[plan]), stream_limits=StreamLimits(max_line=100)) as client,
        client.stream("demo", "/custom", {}) as events,
    ):
        equal(await broken(events, type=LimitReached, limit="max_line"), ["1"], "the events")


@script(Law.BLAME, Feature.STREAMS)
async def stream_misuse(world: World) -> None:
    """A stream is entered before it is read, and entered once."""
    async with world.client(engine_of()) as client:
        events = client.stream("demo", "/stream", {"count": 0})
        for what in ("read", "entered", "entered again"):
            try:
                if what == "read":
                    await anext(events)
                else:
                    async with events:
                        equal(await texts(events), ["[DONE]"], "the events")
            except LocalProtocolError:
                check(what != "entered", "it cannot be entered")
            else:
                check(what == "entered", f"it is {what}")


SCRIPTS = scripts_in(globals())
