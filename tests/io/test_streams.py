"""Streamed answers: pulled event by event, ended by the stream's own word, closed when they are left."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from vastroute import (
    Cancelled,
    ConnectionFailed,
    EntryKind,
    FailureKind,
    JsonLine,
    LimitReached,
    LocalProtocolError,
    Origin,
    Outcome,
    Phase,
    Refused,
    ServerSentEvent,
    StreamEvent,
    StreamLimits,
    WorkPolicy,
)
from vastroute_testing import (
    BEGIN,
    CloseBeforeHead,
    CutSizes,
    CutStreamAt,
    Garbage,
    Hang,
    Schedule,
    Status,
    Work,
    WorkerPlan,
    stream_answer,
)
from vastroute_testing.conformance.verbs import AnyStream

from .worlds import Streaming, World, assert_tidy, engine_of, idle

EVENTS = [*(f'{{"n": {n}, "text": "tökën {n}"}}' for n in range(3)), "[DONE]"]


def plan(schedule_of: Any = None, **options: Any) -> WorkerPlan:
    """A worker whose route ``/custom`` answers with what `schedule_of` makes of a `Work`."""
    return WorkerPlan(models={"/custom": schedule_of}, **options) if schedule_of else WorkerPlan(**options)


def raw(head: str, body: bytes) -> Any:
    """A model that answers with these very bytes, then closes."""
    data = head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body
    return lambda work: (Garbage(at=work.at, data=data),)


def text_of(event: StreamEvent) -> str:
    assert isinstance(event, ServerSentEvent)
    return event.data


@pytest.mark.parametrize("cut", [None, 1, 7, (3, 50)])
async def test_the_events_are_the_same_however_the_bytes_are_cut(world: World, cut: CutSizes) -> None:
    async with world.client(engine_of(), cut=cut) as client:
        async with client.stream("demo", "/stream", {"count": 3}, cost=4) as events:
            assert events.status == 200
            assert events.headers.get("content-type") == "text/event-stream"
            assert events.request_idx == 1001
            assert not events.finished
            with pytest.raises(LocalProtocolError, match="not over"):
                events.result()
            assert [text_of(event) async for event in events] == EVENTS
            assert events.finished
            assert world.now() == pytest.approx(BEGIN + 3 * 0.02)
        answer = events.result()
        assert (answer.body, answer.data) == (b"", None)
        assert answer.grant.cost == 4
        assert events.counts == answer.counts
        assert [entry.kind for entry in events.record] == [
            EntryKind.ASKED,
            EntryKind.GRANTED,
            EntryKind.SENT,
            EntryKind.STREAMING,
            EntryKind.ANSWERED,
        ]
        assert idle(client) == 2


async def test_an_event_is_there_as_soon_as_it_is_sent(world: World) -> None:
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=7)])) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        times = [world.now() - BEGIN async for _ in events]
    assert times == [0, 7, 14, 21]


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("application/x-ndjson", [JsonLine(text='{"a": 1}'), JsonLine(text='{"b": 2}')]),
        ("audio/mpeg", [b'{"a": 1}\n', b'{"b": 2}\n']),
    ],
)
async def test_other_kinds_of_streams(world: World, kind: str, wanted: list[StreamEvent]) -> None:
    def model(work: Work) -> Schedule:
        return stream_answer([b'{"a": 1}\n', b'{"b": 2}\n'], at=work.at, every=1, headers={"content-type": kind})

    async with (
        world.client(engine_of(workers=[plan(model)])) as client,
        client.stream("demo", "/custom", {}) as events,
    ):
        assert [event async for event in events] == wanted
        assert not events.finished
        assert events.result().status == 200


# --- how they end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
async def test_a_cut_stream_raises_after_its_events(world: World, kind: FailureKind) -> None:
    cut = plan(faults={("/stream", 1): CutStreamAt(2, kind=kind)})
    got = []

    async def take(events: AnyStream) -> None:
        async for event in events:
            got.append(text_of(event))

    async with world.client(engine_of(workers=[cut])) as client:
        async with client.stream("demo", "/stream", {"count": 3}, safe_to_repeat=True) as events:
            with pytest.raises(ConnectionFailed) as caught:
                await take(events)
        assert_tidy(client)
        assert idle(client) == 1
    assert got == EVENTS[:2]
    error = caught.value
    assert (error.kind, error.outcome, error.phase) == (kind, Outcome.PERHAPS_STARTED, Phase.WORKER)
    assert error.counts is not None
    assert error.counts.work_attempts == 1, "what the caller has seen is not run again"


async def test_a_stream_that_ends_without_its_word_says_so(world: World) -> None:
    cut = plan(faults={("/stream", 1): CutStreamAt(2, kind=None)})
    async with (
        world.client(engine_of(workers=[cut])) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        assert [text_of(event) async for event in events] == EVENTS[:2]
        assert not events.finished


@pytest.mark.parametrize(
    ("body", "whole"),
    [(b"data: 1\n\ndata: [DONE]\n\n", True), (b"data: 1\n\n", False), (b"data: 1\n\ndata: 2", False)],
)
async def test_a_stream_that_only_the_connection_ends(world: World, body: bytes, whole: bool) -> None:
    model = raw("HTTP/1.1 200 OK\ncontent-type: text/event-stream", body)
    async with world.client(engine_of(workers=[plan(model)])) as client:
        async with client.stream("demo", "/custom", {}) as events:
            assert text_of(await anext(events)) == "1"
            if whole:
                assert text_of(await anext(events)) == "[DONE]"
                with pytest.raises(StopAsyncIteration):
                    await anext(events)
            else:
                with pytest.raises(ConnectionFailed, match="the stream stopped"):
                    await anext(events)
        assert idle(client) == 1


async def test_the_iteration_stays_at_its_end(world: World) -> None:
    async with (
        world.client(engine_of()) as client,
        client.stream("demo", "/stream", {"count": 0}) as events,
    ):
        assert text_of(await anext(events)) == "[DONE]"
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(events)


async def test_the_error_stays(world: World) -> None:
    cut = plan(faults={("/stream", 1): CutStreamAt(0)})
    async with (
        world.client(engine_of(workers=[cut])) as client,
        client.stream("demo", "/stream", {}) as events,
    ):
        for _ in range(3):
            with pytest.raises(ConnectionFailed):
                await anext(events)


async def test_a_line_that_is_too_long_ends_it_after_the_events_before(world: World) -> None:
    model = lambda work: stream_answer(  # noqa: E731
        [b"data: 1\n\n", b"data: " + b"x" * 500], at=work.at, every=1, headers={"content-type": "text/event-stream"}
    )
    limits = StreamLimits(max_line=100)
    async with world.client(engine_of(workers=[plan(model)]), stream_limits=limits) as client:
        async with client.stream("demo", "/custom", {}) as events:
            assert text_of(await anext(events)) == "1"
            with pytest.raises(LimitReached) as caught:
                await anext(events)
        assert caught.value.limit == "max_line"
        assert_tidy(client)


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_leaving_early_closes_the_connection(world: World) -> None:
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {"count": 100}) as events:
            assert text_of(await anext(events)) == EVENTS[0]
            assert world.open == 2
        assert world.open == idle(client) == 1
        with pytest.raises(Cancelled) as caught:
            events.result()
        assert caught.value.outcome is Outcome.PERHAPS_STARTED
        with pytest.raises(Cancelled):
            await anext(events)


async def test_closing_twice_is_closing_once(world: World) -> None:
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {}) as events:
            await events.aclose()
            await events.aclose()
            assert idle(client) == world.open == 1
        unused = client.stream("demo", "/stream", {})
        await unused.aclose()


async def test_an_error_in_the_block_flies_and_closes_the_connection(world: World) -> None:
    class Mine(Exception):
        pass

    async with world.client(engine_of()) as client:
        with pytest.raises(Mine):
            async with client.stream("demo", "/stream", {}):
                raise Mine
        assert idle(client) == world.open == 1


async def test_a_stream_that_is_over_gives_its_connection_back(world: World) -> None:
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {}) as events:
            assert [event async for event in events]
            assert idle(client) == 2
        async with client.stream("demo", "/stream", {}, safe_to_repeat=True) as events:
            assert [event async for event in events]
    assert world.opened == 2


# --- misuse ----------------------------------------------------------------------------------------------------------


async def test_a_stream_is_entered_once_and_first(world: World) -> None:
    async with world.client(engine_of()) as client:
        events = client.stream("demo", "/stream", {})
        for use in ("status", "headers", "finished", "counts", "record", "request_idx"):
            with pytest.raises(LocalProtocolError, match="enter its block first"):
                getattr(events, use)
        with pytest.raises(LocalProtocolError, match="enter its block first"):
            await anext(events)
        with pytest.raises(LocalProtocolError, match="enter its block first"):
            events.result()
        async with events:
            with pytest.raises(LocalProtocolError, match="entered once"):
                await events.__aenter__()
        with pytest.raises(LocalProtocolError, match="entered once"):
            await events.__aenter__()


# --- before the first event ------------------------------------------------------------------------------------------


async def test_what_fails_before_the_head_is_raised_on_entering(world: World) -> None:
    async with world.client(engine_of()) as client:
        with pytest.raises(Refused) as caught:
            async with client.stream("demo", "/status", {"status": 404}):
                raise AssertionError("it cannot be entered")
        assert caught.value.status == 404
        assert caught.value.body == b'{"status": 404}'
        assert_tidy(client)


async def test_another_worker_is_asked_for_before_the_head(world: World) -> None:
    plans = [plan(faults={("/stream", 1): Status(503)}), plan(faults={("/stream", 1): CloseBeforeHead()}), plan()]
    async with (
        world.client(engine_of(workers=plans)) as client,
        client.stream("demo", "/stream", {}, safe_to_repeat=True) as events,
    ):
        assert [text_of(event) async for event in events] == EVENTS
        assert events.counts.workers_lost == 2
        assert events.counts.possible_double_runs == 1


async def test_an_empty_answer_is_a_stream_of_nothing(world: World) -> None:
    async with (
        world.client(engine_of()) as client,
        client.stream("demo", "/status", {"status": 204}) as events,
    ):
        assert events.status == 204
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert not events.finished


# --- nothing is read ahead -------------------------------------------------------------------------------------------


@attrs.define
class Counting:
    """Counts what the client has taken from the wire."""

    inner: Streaming
    received: int = 0

    async def send(self, data: bytes) -> None:
        await self.inner.send(data)

    async def receive(self, most: int) -> bytes:
        data = await self.inner.receive(most)
        self.received += len(data)
        return data

    async def close(self) -> None:
        await self.inner.close()


async def test_nothing_is_read_ahead_of_the_caller(world: World) -> None:
    size, count = 10_000, 50

    def model(work: Work) -> Schedule:
        events = [b"data: " + b"x" * size + b"\n\n"] * count
        return stream_answer(events, at=work.at, every=0, headers={"content-type": "text/event-stream"})

    engine = engine_of(workers=[plan(model)])
    made: list[Counting] = []

    async def opens(origin: Origin) -> Streaming:
        made.append(Counting(await world.stream(engine, origin)))
        return made[-1]

    taken = 0
    async with (
        world.client(connect=world.connect(opens)) as client,
        client.stream("demo", "/custom", {}) as events,
    ):
        async for event in events:
            assert isinstance(event, ServerSentEvent)
            taken += size
            await world.sleep(10)
            assert made[-1].received <= taken + 65536 + 1000
    assert taken == size * count


async def test_the_callers_pauses_are_no_silence_of_the_worker(world: World) -> None:
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=1)]), work_policy=WorkPolicy(silence=20)) as client,
        client.stream("demo", "/stream", {"count": 3}) as events,
    ):
        async for _ in events:
            await world.sleep(30)


async def test_the_callers_pauses_count_for_the_whole_call(world: World) -> None:
    async with (
        world.client(engine_of(workers=[WorkerPlan(pace=1)])) as client,
        client.stream("demo", "/stream", {"count": 9}, timeout=30) as events,
    ):
        assert text_of(await anext(events)) == EVENTS[0]
        await world.sleep(60)
        with pytest.raises(LimitReached) as caught:
            await anext(events)
        assert caught.value.limit == "total"
        assert world.now() == BEGIN + 60


async def test_silence_ends_a_stream(world: World) -> None:
    first = f"data: {EVENTS[0]}\n\n".encode()
    hanging = plan(faults={("/stream", 1): Hang(len(first))})
    async with (
        world.client(engine_of(workers=[hanging]), work_policy=WorkPolicy(silence=20)) as client,
        client.stream("demo", "/stream", {}) as events,
    ):
        assert text_of(await anext(events)) == EVENTS[0]
        with pytest.raises(LimitReached) as caught:
            await anext(events)
        assert caught.value.limit == "silence"
        assert world.now() == BEGIN + 20
