"""Whole calls over real byte streams, the same on every transport: each verb, and what comes of misuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from vastroute import (
    Advice,
    Answer,
    CallFailed,
    Entry,
    EntryKind,
    InvalidValue,
    Lookup,
    PublicKey,
    Reason,
    Refused,
    RouteResult,
    decode_public_key,
    encode_public_key,
)
from vastroute_testing import (
    BEGIN,
    OTHER_TEST_PUBLIC_KEY,
    TEST_KEY,
    BadSignature,
    DropIndex,
    SimulatedEngine,
    Status,
    WorkerPlan,
)
from vastroute_testing.memory import Client as MessageClient

from .worlds import World, assert_tidy, engine_of, rows


def over_messages(engine: SimulatedEngine, verb: Callable[[MessageClient], Any]) -> Any:
    """What the same script gives where there are no bytes: the reference for every transport."""
    client = MessageClient(server=engine, public_key=engine.public_key)
    client.clock.sleep_until(BEGIN)
    return verb(client)


class TestRoute:
    async def test_a_cold_start_of_ten_minutes(self, world: World) -> None:
        engine = engine_of(ready_after=600, workers=2)
        async with world.client(engine) as client:
            result = await client.route("demo", cost=7)
            assert 600 <= world.now() - BEGIN < 606
        assert result.counts.polls > 100
        assert engine.load("demo") == 7
        (lifetime,) = engine.lifetimes.values()
        assert lifetime.polls == result.counts.polls
        assert result.request_idx == lifetime.request_idx
        asked = [json.loads(request.body).get("request_idx") for request in engine.requests]
        assert asked == [None, *[lifetime.request_idx] * result.counts.polls]
        assert world.opened == 1

    async def test_the_record_and_the_counts_are_the_same_everywhere(self, world: World) -> None:
        def make() -> SimulatedEngine:
            faults = {("demo", 2): Status(503, retry_after=9), ("demo", 4): DropIndex(), ("demo", 6): Status(429)}
            return engine_of(ready_after=60, faults=faults)

        wanted: RouteResult = over_messages(make(), lambda client: client.route("demo"))
        async with world.client(make()) as client:
            result = await client.route("demo")
        assert rows(result.record) == rows(wanted.record)
        assert result.counts == wanted.counts
        assert result == wanted

    async def test_a_request_is_gone_on_with(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine) as client:
            first = await client.route("demo", cost=3)
            again = await client.route("demo", cost=3, request_idx=first.request_idx)
        assert again.request_idx == first.request_idx
        assert engine.load("demo") == 3

    async def test_every_argument_reaches_the_engine(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine, key_in_body=True) as client:
            await client.route("demo", cost=2, replay_timeout=30.5, extra={"guid": "abc"})
        body = json.loads(engine.requests[0].body)
        assert body == {
            "endpoint": "demo",
            "api_key": TEST_KEY,
            "cost": 2,
            "replay_timeout": 30.5,
            "guid": "abc",
        }

    async def test_a_refusal_is_raised_with_all_that_is_known(self, world: World) -> None:
        async with world.client(engine_of(stopped=True)) as client:
            with pytest.raises(Refused, match="not running") as caught:
                await client.route("demo")
        error = caught.value
        assert error.advice is Advice.CHECK_ENDPOINT
        assert error.counts is not None
        assert error.counts.asks == 1
        assert error.not_ready is not None

    async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine) as client:
            with pytest.raises(InvalidValue):
                await client.route("")
            with pytest.raises(InvalidValue):
                await client.route("demo", cost=-1)
            with pytest.raises(InvalidValue):
                await client.call("demo", "//elsewhere", {})
            with pytest.raises(InvalidValue):
                await client.call("demo", "/echo", b"[]")
        assert not engine.requests


class TestCall:
    async def test_a_call_is_the_same_everywhere(self, world: World) -> None:
        def make() -> SimulatedEngine:
            plans = [WorkerPlan(ready_after=40, faults={("/echo", 1): Status(503, retry_after=2)}) for _ in range(2)]
            return engine_of(workers=plans)

        wanted: Answer = over_messages(make(), lambda client: client.call("demo", "/echo", {"x": 1}))
        async with world.client(make()) as client:
            answer = await client.call("demo", "/echo", {"x": 1})
        assert answer.data == {"echo": {"x": 1}}
        assert answer.counts.work_attempts == 3
        assert rows(answer.record) == rows(wanted.record)
        assert answer == wanted

    async def test_the_grant_reaches_the_worker_byte_for_byte(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine) as client:
            answer = await client.call("demo", "/echo", {}, cost=100.0, headers={"x-mine": "1"})
        (request,) = engine.workers[0].requests
        assert answer.grant.raw in request.body
        assert b'"cost": 100.0' in request.body
        assert request.headers.get("x-mine") == "1"
        assert request.headers.get("authorization") is None

    async def test_an_answer_that_is_large(self, world: World) -> None:
        payload = {"text": "x" * 300_000}
        async with world.client(engine_of()) as client:
            answer = await client.call("demo", "/echo", payload)
        assert answer.data == {"echo": payload}

    async def test_a_picture(self, world: World) -> None:
        async with world.client(engine_of()) as client:
            answer = await client.call("demo", "/media", {})
        assert answer.content_type == "image/png"
        assert answer.body.startswith(b"\x89PNG")

    async def test_the_public_key_is_fetched_once_and_then_used(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine, public_key=None, fetch_public_key=True) as client:
            first = await client.call("demo", "/echo", {})
            second = await client.route("demo")
            key = await client.fetch_public_key()
        assert [request.target for request in engine.requests] == ["/pubkey/", "/route/", "/route/"]
        assert engine.requests[0].headers.get("authorization") is None
        assert (first.verdict.reason, second.verdict.reason) == (Reason.VERIFIED, Reason.VERIFIED)
        assert first.verdict.key == key.fingerprint

    async def test_require_fetches_the_key_and_refuses_what_does_not_verify(self, world: World) -> None:
        engine = engine_of(faults={("demo", 2): BadSignature()})
        async with world.client(engine, public_key=None, signature="require") as client:
            await client.route("demo")
            with pytest.raises(CallFailed, match="not to be trusted"):
                await client.call("demo", "/echo", {})
        assert engine.requests[0].target == "/pubkey/"
        assert not engine.workers[0].requests

    async def test_off_fetches_nothing(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine, public_key=None, signature="off", fetch_public_key=True) as client:
            assert (await client.route("demo")).verdict.reason is Reason.NO_KEY
        assert len(engine.requests) == 1

    async def test_report_reports_what_another_key_says(self, world: World) -> None:
        async with world.client(engine_of(), public_key=OTHER_TEST_PUBLIC_KEY) as client:
            answer = await client.call("demo", "/echo", {})
        assert not answer.verdict.verified

    async def test_any_machine_can_be_driven(self, world: World) -> None:
        engine = engine_of()
        async with world.client(engine) as client:
            lookup = Lookup(encode_public_key(), decode_public_key, rng=lambda: 0.5, deadline=world.now() + 10)
            assert await client.run(lookup) == PublicKey.load(engine.public_key)


class TestObserver:
    async def test_it_gets_every_entry_once_and_in_order(self, world: World) -> None:
        faults = {("demo", 1): Status(503), ("demo", 5): Status(500)}
        plans = [WorkerPlan(ready_after=9, faults={("/echo", 1): Status(429)}), WorkerPlan(ready_after=30)]
        told: list[Entry] = []
        async with world.client(engine_of(workers=plans, faults=faults), observer=told.append) as client:
            answer = await client.call("demo", "/echo", {})
            assert told == list(answer.record)
            assert {EntryKind.TROUBLE, EntryKind.WORKER_LOST, EntryKind.ANSWERED} < {entry.kind for entry in told}
            told.clear()
            with pytest.raises(CallFailed) as caught:
                await client.call("demo", "/status", {"status": 404})
            assert told == rows(caught.value.record)
            told.clear()
            async with client.stream("demo", "/stream", {"count": 2}) as events:
                assert [event async for event in events]
            assert told == list(events.record)
            told.clear()
            async with client.stream("demo", "/stream", {"count": 2}) as events:
                pass
            assert told == list(events.record)
            assert told[-1].kind is EntryKind.CANCELLED

    async def test_it_sees_an_entry_before_the_next_step(self, world: World) -> None:
        engine = engine_of(ready_after=3)
        asked: list[tuple[EntryKind, int]] = []

        def observe(entry: Entry) -> None:
            asked.append((entry.kind, len(engine.requests)))
            assert entry.at == world.now()

        async with world.client(engine, observer=observe) as client:
            await client.route("demo")
        assert asked[:4] == [
            (EntryKind.ASKED, 0),
            (EntryKind.NOT_READY, 1),
            (EntryKind.WAITING, 1),
            (EntryKind.ASKED, 1),
        ]

    async def test_one_that_raises_leaves_no_connection_behind(self, world: World) -> None:
        class Wrong(Exception):
            pass

        def observe(entry: Entry) -> None:
            if entry.kind is kind:
                raise Wrong

        moments = (EntryKind.ASKED, EntryKind.GRANTED, EntryKind.SENT, EntryKind.STREAMING, EntryKind.ANSWERED)
        async with world.client(engine_of(), observer=observe) as client:
            for kind in moments:  # noqa: B007 - the observer looks at it
                with pytest.raises(Wrong):
                    async with client.stream("demo", "/stream", {}) as events:
                        assert [event async for event in events]
                assert_tidy(client)
        assert world.open == 0
