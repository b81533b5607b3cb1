"""Streamed answers: pulled event by event, ended by the stream's own word, closed when they are left."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from vastroute import (
    EntryKind,
    HttpRequest,
    LimitReached,
    LocalProtocolError,
    Origin,
    ServerSentEvent,
    StreamEvent,
    WorkPolicy,
)
from vastroute_testing import (
    BEGIN,
    CutSizes,
    Schedule,
    Work,
    WorkerPlan,
    stream_answer,
)
from vastroute_testing.schedule import shifted

from .worlds import Streaming, World, engine_of, idle

EVENTS = [*(f'{{"n": {n}, "text": "tökën {n}"}}' for n in range(3)), "[DONE]"]


def plan(schedule_of: Any = None, **options: Any) -> WorkerPlan:
    """A worker whose route ``/custom`` answers with what `schedule_of` makes of a `Work`."""
    return WorkerPlan(models={"/custom": schedule_of}, **options) if schedule_of else WorkerPlan(**options)


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


# --- how they end ----------------------------------------------------------------------------------------------------


async def test_the_iteration_stays_at_its_end(world: World) -> None:
    async with (
        world.client(engine_of()) as client,
        client.stream("demo", "/stream", {"count": 0}) as events,
    ):
        assert text_of(await anext(events)) == "[DONE]"
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(events)


# --- leaving ---------------------------------------------------------------------------------------------------------


async def test_closing_twice_is_closing_once(world: World) -> None:
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {}) as events:
            await events.aclose()
            await events.aclose()
            assert idle(client) == world.open == 1
        unused = client.stream("demo", "/stream", {})
        await unused.aclose()


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


async def test_a_wait_for_an_event_may_be_cancelled_and_taken_up_again(tasks: World) -> None:
    got: list[str] = []
    async with tasks.client(engine_of()) as client, client.stream("demo", "/stream", {"count": 3}) as events:

        async def take() -> None:
            got.append(text_of(await anext(events)))

        cancelled = 0
        while len(got) < len(EVENTS):
            if await tasks.cancelled_at(1, take):
                cancelled += 1
                await take()
        assert cancelled >= 3
        assert events.finished
    assert got == EVENTS


async def test_entering_waits_for_the_head_and_for_no_event(world: World) -> None:
    engine = engine_of()

    def serve(request: HttpRequest, now: float) -> Schedule:
        worker = engine.worker_at(request.origin)
        if worker is None:
            return engine.serve(request, now=now)
        head, *rest = worker.serve(request, now=now)
        return (head, *shifted(tuple(rest), 30))

    async with world.client(serve) as client:
        began = world.now()
        async with client.stream("demo", "/stream", {}) as events:
            assert world.now() - began < 5
            assert events.status == 200
            assert [entry.kind for entry in events.record][-1] is EntryKind.STREAMING
            assert len([event async for event in events]) == 4
            assert world.now() - began >= 30


async def test_who_enters_may_take_time_before_the_first_event(world: World) -> None:
    async with (
        world.client(engine_of(), work_policy=WorkPolicy(silence=10)) as client,
        client.stream("demo", "/stream", {}) as events,
    ):
        await world.sleep(60)
        assert len([event async for event in events]) == 4
