"""Worker sessions over real byte streams: made on entering, used, looked at, and ended whatever happens."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vastroute import (
    ConnectionFailed,
    FailureKind,
    Guard,
    InvalidValue,
    LimitReached,
    LocalProtocolError,
    Outcome,
    RetryPolicy,
    SessionGone,
    SessionHandle,
    SessionState,
)
from vastroute_testing import (
    BEGIN,
    Hang,
    SimulatedEngine,
    WorkerPlan,
)

from .worlds import World, assert_tidy, engine_of


def routes(engine: SimulatedEngine, number: int = 0) -> list[str]:
    return [request.target for request in engine.workers[number].requests]


async def test_the_whole_life_of_a_session(world: World) -> None:
    engine = engine_of(workers=3)
    async with world.client(engine) as client:
        async with client.session("demo", lifetime=60, cost=9) as session:
            (open_now,) = engine.workers[0].sessions(now=world.now())
            assert session.handle.session_id == open_now.session_id
            assert session.life.kept_until == pytest.approx(BEGIN + 60, abs=1)
            answer = await session.call("/echo", {"n": 1})
            assert answer.data == {"echo": {"n": 1}}
            assert session.life.kept_until == pytest.approx(BEGIN + 120, abs=1)
            async with session.stream("/stream", {"count": 1}) as events:
                assert len([event async for event in events]) == 2
            assert await session.health()
            info = await session.info()
            assert info.lifetime == 60
            assert session.life.kept_until == pytest.approx(BEGIN + 180, abs=1)
        assert session.life.state is SessionState.ENDED
        assert not engine.workers[0].sessions(now=world.now())
    assert routes(engine) == [
        "/session/create",
        "/echo",
        "/stream",
        "/session/health",
        "/session/get",
        "/session/end",
    ]
    assert engine.asks == 1
    assert engine.load("demo") == 9
    assert all(not worker.requests for worker in engine.workers[1:])


async def test_what_is_posted_at_its_end_reaches_the_worker(world: World) -> None:
    engine = engine_of()
    async with (
        world.client(engine) as client,
        client.session("demo", on_close_route="/done", on_close_payload={"a": 1}, headers={"x-mine": "1"}) as session,
    ):
        info = await session.info()
    assert (info.on_close_route, info.on_close_payload) == ("/done", {"a": 1})
    assert engine.workers[0].requests[0].headers.get("x-mine") == "1"


async def test_a_session_that_was_ended_is_not_ended_again(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        async with client.session("demo") as session:
            ended = await session.end()
            assert ended.was_open
            with pytest.raises(LocalProtocolError):
                await session.call("/echo", {})
            with pytest.raises(LocalProtocolError):
                async with session.stream("/stream", {}):
                    raise AssertionError("it cannot be entered")
        assert_tidy(client)
    assert routes(engine) == ["/session/create", "/session/end"]


async def test_looking_notices_that_it_is_gone(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        async with client.session("demo", lifetime=10) as session:
            await world.sleep(11)
            assert not await session.health()
            assert session.life.state is SessionState.LOST
        async with client.session("demo", lifetime=10) as session:
            await world.sleep(11)
            with pytest.raises(SessionGone):
                await session.info()
            assert session.life.state is SessionState.LOST
    assert routes(engine)[-2:] == ["/session/create", "/session/get"], "what is gone is asked for once, and not ended"


async def test_another_process_goes_on_with_it(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client, client.session("demo", lifetime=100) as session:
        await session.call("/echo", {})
        saved = json.loads(json.dumps(session.handle.save()))
        async with world.client(engine) as other:
            resumed = other.resume_session(SessionHandle.load(saved))
            with pytest.raises(LocalProtocolError, match="enter its block first"):
                _ = resumed.life
            async with resumed:
                assert (await resumed.call("/echo", {"b": 2})).data == {"echo": {"b": 2}}
        assert not engine.workers[0].sessions(now=world.now())
        with pytest.raises(SessionGone):
            await session.call("/echo", {})
    assert engine.asks == 1


async def test_a_session_is_entered_once_and_first(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        session = client.session("demo")
        with pytest.raises(LocalProtocolError, match="enter its block first"):
            await session.call("/echo", {})
        with pytest.raises(LocalProtocolError, match="enter its block first"):
            _ = session.handle
        async with session:
            with pytest.raises(LocalProtocolError, match="entered once"):
                await session.__aenter__()
        with pytest.raises(LocalProtocolError, match="entered once"):
            await session.__aenter__()
    assert len(routes(engine)) == 2


@pytest.mark.parametrize("options", [{"lifetime": 0}, {"lifetime": float("nan")}, {"headers": {"host": "x"}}])
async def test_what_cannot_be_asked_is_refused_at_once(world: World, options: dict[str, Any]) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        with pytest.raises(InvalidValue):
            client.session("demo", **options)
    assert not engine.requests


async def test_a_worker_without_room_is_replaced(world: World) -> None:
    engine = engine_of(workers=[WorkerPlan(max_sessions=1), WorkerPlan(max_sessions=1)])
    async with world.client(engine) as client, client.session("demo") as first, client.session("demo") as second:
        assert first.handle.url != second.handle.url
        with pytest.raises(LimitReached) as caught:
            async with client.session("demo", policy=RetryPolicy(max_reroutes=1)):
                raise AssertionError("there is no room")
        assert caught.value.limit == "max_reroutes"


async def test_what_has_not_begun_is_not_detached(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client:
        session = client.session("demo")
        with pytest.raises(LocalProtocolError, match="enter its block first"):
            session.detach()
        async with session:
            pass
    assert routes(engine) == ["/session/create", "/session/end"], "a mistake changes nothing"


# --- the end ---------------------------------------------------------------------------------------------------------


async def test_an_explicit_end_that_fails_is_told(world: World) -> None:
    plan = WorkerPlan(faults={("/session/end", 0): Hang()})
    async with world.client(engine_of(workers=[plan])) as client, client.session("demo") as session:
        with pytest.raises(LimitReached) as caught:
            await session.end()
        assert caught.value.limit == "total"
        assert world.now() == BEGIN + 5


async def test_the_end_of_one_that_is_gone_is_an_end_too(world: World) -> None:
    async with world.client(engine_of()) as client:
        async with client.session("demo", lifetime=10) as session:
            await world.sleep(11)
        assert session.life.state is SessionState.LOST


# --- where a session may lead ----------------------------------------------------------------------------------------


async def test_the_guard_looks_at_every_request_of_a_session(world: World) -> None:
    engine = engine_of()
    async with world.client(engine) as client, client.session("demo") as session:
        saved = session.handle
        async with world.client(engine, guard=Guard()) as strict:
            resumed = strict.resume_session(saved)
            async with resumed:
                for verb in (resumed.health, resumed.info, resumed.end, lambda: resumed.call("/echo", {})):
                    with pytest.raises(ConnectionFailed, match="allow_private_address") as caught:
                        await verb()
                    assert caught.value.kind is FailureKind.GUARD
                    assert caught.value.outcome is Outcome.NOT_SENT
    assert routes(engine) == ["/session/create", "/session/end"]
