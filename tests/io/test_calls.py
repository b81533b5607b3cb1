"""Whole calls over real byte streams, the same on every transport: each verb, and what comes of misuse."""

from __future__ import annotations

import json

import pytest

from vastroute import (
    CallFailed,
    Entry,
    EntryKind,
    Lookup,
    PublicKey,
    Reason,
    decode_public_key,
    encode_public_key,
)
from vastroute_testing import (
    TEST_KEY,
    BadSignature,
    Status,
    WorkerPlan,
)

from .worlds import World, assert_tidy, engine_of, rows


class TestRoute:
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


class TestCall:
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
