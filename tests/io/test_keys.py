"""Which key is used where: an account's key finds the endpoints' own, and the look-ups around that."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vastroute import (
    CONSOLE,
    ENGINE,
    Advice,
    HttpRequest,
    InvalidValue,
    KeyRefused,
    LimitReached,
    Phase,
    Refused,
    RetryPolicy,
    UnexpectedAnswer,
)
from vastroute_testing import (
    BEGIN,
    TEST_KEY,
    Hang,
    Html,
    Schedule,
    SimulatedEndpoint,
    SimulatedEngine,
    Status,
    json_answer,
)
from vastroute_testing.conformance.verbs import AnyClient

from .worlds import World

ACCOUNT = "test-account-key"


def engine_of_two(**options: Any) -> SimulatedEngine:
    return SimulatedEngine(
        [SimulatedEndpoint("one", key="key-of-one"), SimulatedEndpoint("two", key="key-of-two")], **options
    )


def asked(engine: SimulatedEngine) -> list[tuple[str, str]]:
    """The path of every request to the engine or the console, and the key in its header."""
    return [
        (request.target.partition("?")[0], (request.headers.get("authorization") or "").removeprefix("Bearer "))
        for request in engine.requests
    ]


async def route(client: AnyClient) -> Any:
    return await client.route("one")


async def call(client: AnyClient) -> Any:
    return await client.call("one", "/echo", {})


async def stream(client: AnyClient) -> Any:
    async with client.stream("one", "/stream", {}) as events:
        return [event async for event in events]


async def session(client: AnyClient) -> Any:
    async with client.session("one") as lease:
        return await lease.call("/echo", {})


VERBS = pytest.mark.parametrize("verb", [route, call, stream, session], ids=lambda verb: verb.__name__)
Verb = Callable[[AnyClient], Awaitable[Any]]


@VERBS
async def test_an_accounts_key_finds_the_endpoints_own(world: World, verb: Verb) -> None:
    engine = engine_of_two()
    async with world.client(engine, key=ACCOUNT) as client:
        assert await verb(client)
        assert asked(engine) == [
            ("/route/", ACCOUNT),
            ("/api/v0/endptjobs/", ACCOUNT),
            ("/route/", "key-of-one"),
        ]
        assert [request.origin for request in engine.requests] == [ENGINE, CONSOLE, ENGINE]
        engine.requests.clear()
        assert await verb(client)
        await client.route("two")
    assert asked(engine) == [("/route/", "key-of-one"), ("/route/", "key-of-two")]


@VERBS
async def test_an_endpoint_that_the_account_does_not_have(world: World, verb: Verb) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("other"))
    async with world.client(engine, key=ACCOUNT) as client:
        with pytest.raises(KeyRefused, match="this account has no endpoint 'one'") as caught:
            await verb(client)
    error = caught.value
    assert (error.phase, error.advice) == (Phase.LOOKUP, Advice.CHECK_ENDPOINT)
    assert isinstance(error.__cause__, KeyRefused)
    assert error.__cause__.phase is Phase.ROUTE
    assert engine.asks == 1


@VERBS
async def test_it_can_be_switched_off(world: World, verb: Verb) -> None:
    engine = engine_of_two()
    async with world.client(engine, key=ACCOUNT, find_key=False) as client:
        with pytest.raises(KeyRefused) as caught:
            await verb(client)
    assert caught.value.advice is Advice.CHECK_KEY
    assert caught.value.counts is not None
    assert asked(engine) == [("/route/", ACCOUNT)]


@VERBS
async def test_another_engines_key_is_not_shown_to_production(world: World, verb: Verb) -> None:
    engine = engine_of_two()
    async with world.client(engine, key=ACCOUNT, engine="https://engine.example") as client:
        with pytest.raises(KeyRefused):
            await verb(client)
        with pytest.raises(InvalidValue, match="console="):
            await client.endpoints()
    assert asked(engine) == [("/route/", ACCOUNT)]


async def test_another_engine_can_have_a_console_of_its_own(world: World) -> None:
    engine = engine_of_two()
    here = "https://engine.example"
    async with world.client(engine, key=ACCOUNT, engine=here, console=here) as client:
        await client.call("one", "/echo", {})
    assert {str(request.origin) for request in engine.requests} == {here}


async def test_a_key_that_is_nobodys(world: World) -> None:
    engine = engine_of_two()
    async with world.client(engine, key="nobodys") as client:
        with pytest.raises(KeyRefused) as caught:
            await client.call("one", "/echo", {})
    assert caught.value.phase is Phase.ROUTE
    cause = caught.value.__cause__
    assert isinstance(cause, KeyRefused)
    assert cause.phase is Phase.LOOKUP
    assert asked(engine) == [("/route/", "nobodys"), ("/api/v0/endptjobs/", "nobodys")]


async def test_the_account_may_have_no_endpoint_at_all(world: World) -> None:
    engine = SimulatedEngine([])
    async with world.client(engine, key=ACCOUNT) as client:
        assert await client.endpoints() == ()
        with pytest.raises(KeyRefused, match="no endpoint"):
            await client.workers("one")


async def test_the_endpoints_are_listed(world: World) -> None:
    engine = engine_of_two()
    async with world.client(engine, key=ACCOUNT) as client:
        one, two = await client.endpoints()
        assert (one.id, one.name, one.state) == (1, "one", "active")
        assert two.key is not None
        assert two.key.reveal() == "key-of-two"
        await client.route("two")
    assert asked(engine) == [("/api/v0/endptjobs/", ACCOUNT), ("/route/", "key-of-two")]


async def test_an_endpoint_whose_key_is_not_told(world: World) -> None:
    def console(request: HttpRequest, now: float) -> Schedule:
        if request.target == "/route/":
            return json_answer(401, {"error": "Authentication failed"}, at=now)
        return json_answer(200, {"success": True, "results": [{"id": 1, "endpoint_name": "one"}]}, at=now)

    async with world.client(console, key=ACCOUNT) as client:
        with pytest.raises(KeyRefused, match="gives no key for endpoint 'one'"):
            await client.route("one")


@pytest.mark.parametrize("bare", [False, True])
async def test_the_workers_are_listed_with_the_endpoints_own_key(world: World, bare: bool) -> None:
    engine = engine_of_two(bare_worker_list=bare)
    async with world.client(engine, key=ACCOUNT) as client:
        (worker,) = await client.workers("two")
    assert (worker.id, worker.status) == (1, "created")
    assert asked(engine) == [("/api/v0/endptjobs/", ACCOUNT), ("/get_endpoint_workers/", "key-of-two")]
    assert json.loads(engine.requests[-1].body) == {"id": 2, "api_key": "key-of-two"}


async def test_a_refusal_of_the_list(world: World) -> None:
    engine = engine_of_two(faults={("/get_endpoint_workers/", 1): Status(200, body={"error_msg": "not now"})})
    async with world.client(engine, key=ACCOUNT) as client:
        with pytest.raises(Refused, match="not now"):
            await client.workers("one")


async def test_trouble_at_the_console_passes(world: World) -> None:
    faults = {("/api/v0/endptjobs/", 1): Status(503, retry_after=3), ("/api/v0/endptjobs/", 2): Hang()}
    async with world.client(engine_of_two(faults=faults), key=ACCOUNT) as client:
        assert len(await client.endpoints()) == 2
        assert world.now() > BEGIN + 3 + 10


async def test_a_console_that_is_none(world: World) -> None:
    faults = {("/api/v0/endptjobs/", 1): Html()}
    async with world.client(engine_of_two(faults=faults), key=ACCOUNT) as client:
        with pytest.raises(UnexpectedAnswer, match="HTML"):
            await client.endpoints()


async def test_a_list_that_is_long_is_read(world: World) -> None:
    many = [SimulatedEndpoint(f"endpoint-{number:05}", key=f"key-{number}") for number in range(1000)]
    async with world.client(SimulatedEngine(many), key=ACCOUNT) as client:
        assert len(await client.endpoints()) == 1000
        await client.route("endpoint-00999")


# --- the call's time is over the look-ups too ------------------------------------------------------------------------


@VERBS
async def test_the_search_for_a_key_is_within_the_calls_time(world: World, verb: Verb) -> None:
    engine = engine_of_two(faults={("/api/v0/endptjobs/", 0): Hang()})
    async with world.client(engine, key=ACCOUNT, policy=RetryPolicy(total=25)) as client:
        with pytest.raises(KeyRefused) as caught:
            await verb(client)
        cause = caught.value.__cause__
        assert isinstance(cause, LimitReached)
        assert cause.limit == "total"
        assert world.now() <= BEGIN + 25


async def test_a_shorter_time_bounds_the_search_too(world: World) -> None:
    engine = engine_of_two(faults={("/api/v0/endptjobs/", 0): Hang()})
    async with world.client(engine, key=ACCOUNT) as client:
        with pytest.raises(KeyRefused) as caught:
            await client.call("one", "/echo", {}, timeout=7)
        cause = caught.value.__cause__
        assert isinstance(cause, LimitReached)
        assert cause.limit == "total"
        assert world.now() == BEGIN + 7


async def test_the_fetch_of_the_public_key_is_within_the_calls_time(world: World) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("one"), faults={("/pubkey/", 0): Hang()})
    async with world.client(engine, public_key=None, key=TEST_KEY, signature="require") as client:
        for verb in (client.route("one", timeout=7), client.call("one", "/echo", {}, timeout=7)):
            began = world.now()
            with pytest.raises(LimitReached) as caught:
                await verb
            assert caught.value.limit == "total"
            assert world.now() == began + 7
        with pytest.raises(LimitReached):
            async with client.stream("one", "/stream", {}, timeout=7):
                raise AssertionError("there is no key")
        assert world.now() == BEGIN + 21


async def test_the_time_for_the_public_key_is_taken_from_the_calls(world: World) -> None:
    engine = SimulatedEngine(
        SimulatedEndpoint("one", ready_after=60), faults={("/pubkey/", 1): Status(503, retry_after=20)}
    )
    async with world.client(engine, public_key=None, key=TEST_KEY, fetch_public_key=True) as client:
        with pytest.raises(LimitReached) as caught:
            await client.route("one", timeout=30)
        assert caught.value.limit == "total"
        assert world.now() <= BEGIN + 30


async def test_a_refusal_in_the_middle_keeps_the_number(world: World) -> None:
    """Another machine would begin a new lifetime, and its load would be counted again."""
    engine = SimulatedEngine(
        SimulatedEndpoint("one", key="key-of-one", ready_after=600), faults={("one", 3): Status(401)}
    )
    async with world.client(engine, key="key-of-one") as client:
        with pytest.raises(KeyRefused) as caught:
            await client.route("one")
    assert caught.value.request_idx in engine.lifetimes
    assert len(engine.lifetimes) == 1
    assert not [path for path, _ in asked(engine) if path == "/api/v0/endptjobs/"]
