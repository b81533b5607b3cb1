"""The official client with our engine and our simulated workers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from vastroute import Answer, Guard
from vastroute_io.blocking import Client
from vastroute_testing import (
    BadSignature,
    CloseBeforeHead,
    LoopbackThread,
    Refuse,
    SimulatedEndpoint,
    SimulatedEngine,
    Status,
    TestAuthority,
    WorkerPlan,
)

from .official import open_official, vastai
from .stage import OFFICIAL_KEY, Stage

ACCOUNT = "test-account-key"
KEY = "test-endpoint-key"


@attrs.frozen(kw_only=True)
class Simulation:
    """Our engine and its workers, each at a port of its own."""

    engine: SimulatedEngine
    url: str
    authority: TestAuthority | None

    def play(self, story: Callable[[Any], Awaitable[None]], *, key: str = ACCOUNT) -> None:
        """Run `story` with the official client."""

        async def main() -> None:
            context = None if self.authority is None else self.authority.client_context()
            async with asyncio.timeout(20), open_official(self.url, key=key, context=context) as client:
                await story(client)

        asyncio.run(main())

    def bodies(self) -> list[Any]:
        """What was asked of the engine for a worker, in order."""
        return [json.loads(request.body) for request in self.engine.requests if request.target.startswith("/route/")]


@contextmanager
def simulation(*plans: WorkerPlan, authority: TestAuthority | None = None, **options: Any) -> Iterator[Simulation]:
    """An engine with the endpoint "demo" and a worker for each plan, over TLS if there is an authority for it."""
    bare = options.pop("bare_worker_list", True)
    endpoint = SimulatedEndpoint("demo", workers=plans or (WorkerPlan(),), **options)
    engine = SimulatedEngine(endpoint, bare_worker_list=bare)
    context = None if authority is None else authority.server_context()
    with LoopbackThread(engine, ssl_context=context) as loopback:
        yield Simulation(engine=engine, url=loopback.url, authority=authority)


def ours(simulated: Simulation, route: str, payload: Mapping[str, Any], *, stream: bool = False) -> Any:
    """What our own client makes of the same call."""
    guard = Guard(allow_plain_http=True, allow_private_address=True)
    with Client(key=KEY, engine=simulated.url, guard=guard, fetch_public_key=True, proxy=None) as client:
        if not stream:
            return client.call("demo", route, payload)
        with client.stream("demo", route, payload) as events:
            return list(events)


# --- the look-up, and calls --------------------------------------------------------------------------------------


def test_it_finds_the_endpoint() -> None:
    async def story(client: Any) -> None:
        (found,) = await client.get_endpoints()
        assert (found.name, found.id, found.api_key) == ("demo", 1, KEY)
        assert (await client.fetch_endpoint(1)).api_key == KEY
        await found.refresh(block=True)
        assert found.name == "demo"
        with pytest.raises(Exception, match="other could not be found"):
            await client.get_endpoint("other")

    async def with_a_wrong_key(client: Any) -> None:
        with pytest.raises(Exception, match="401"):
            await client.get_endpoints()

    with simulation() as simulated:
        simulated.play(story)
        simulated.play(with_a_wrong_key, key="wrong")


@pytest.mark.parametrize("tls", [False, True])
def test_a_call(tls: bool) -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answer = await endpoint.request("/echo", {"text": "größer 🦭"}, cost=12.5)
        assert (answer["ok"], answer["status"]) == (True, 200)
        assert answer["response"] == {"echo": {"text": "größer 🦭"}}
        assert answer["request_idx"] == answer["auth_data"]["request_idx"]
        assert answer["auth_data"]["cost"] == 12.5
        assert answer["url"] == simulated.engine.workers[0].url

    with simulation(authority=TestAuthority() if tls else None) as simulated:
        simulated.play(story)
        assert simulated.engine.load("demo") == 12.5
        (sent,) = simulated.engine.workers[0].requests
        assert set(json.loads(sent.body)) == {"auth_data", "session_id", "payload"}


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/echo", {"deep": [1, 2.5, None, {"é": True}]}),
    ("/slow", {"seconds": 0.1}),
    ("/media", {}),
    ("/status", {"status": 201}),
    ("/v1/completions", {"prompt": "hello there", "max_tokens": 2}),
    ("/v1/chat/completions", {"input": {"messages": [{"role": "user", "content": "hello"}]}}),
]


@pytest.mark.parametrize(("route", "payload"), CALLS)
def test_it_sees_what_our_client_sees(route: str, payload: dict[str, Any]) -> None:
    seen: list[Any] = []

    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        seen.append(await endpoint.request(route, payload))

    with simulation() as simulated:
        simulated.play(story)
        answer = ours(simulated, route, payload)
    assert isinstance(answer, Answer)
    (official,) = seen
    assert official["status"] == answer.status
    assert _comparable(official["response"]) == _comparable(answer.data)
    granted = official["auth_data"]
    assert granted.keys() == answer.grant.fields.keys()
    assert [granted[name] for name in ("url", "signature")] == [answer.grant.url, answer.grant.signature]


@pytest.mark.parametrize("stream", [CALLS[4], CALLS[5]])
def test_it_sees_the_events_that_our_client_sees(stream: tuple[str, dict[str, Any]]) -> None:
    route, payload = stream
    wanted = payload | {"stream": True} if "prompt" in payload else {"input": payload["input"] | {"stream": True}}
    seen: list[Any] = []

    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answer = await endpoint.request(route, wanted, stream=True)
        seen.extend([event async for event in answer["response"]])

    with simulation() as simulated:
        simulated.play(story)
        *events, last = ours(simulated, route, wanted, stream=True)
    assert [_comparable(event) for event in seen] == [_comparable(event.json()) for event in events]
    assert last.data == "[DONE]"  # which the official client swallows


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _comparable(each) for name, each in value.items() if name not in ("id", "created")}
    return value


# --- waiting, and workers that fail ------------------------------------------------------------------------------


def test_a_cold_start() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answer = await endpoint.request("/echo", {"n": 1}, cost=7)
        assert answer["response"] == {"echo": {"n": 1}}

    with simulation(WorkerPlan(loading_after=0.5, ready_after=1.5)) as simulated:
        simulated.play(story)
        first, *polls = simulated.bodies()
        (lifetime,) = simulated.engine.lifetimes.values()
        assert first["request_idx"] == 0
        assert {poll["request_idx"] for poll in polls} == {lifetime.request_idx}
        assert (lifetime.polls, lifetime.asks) == (len(polls), len(polls) + 1)
        assert lifetime.polls >= 2
        assert simulated.engine.load("demo") == 7


@pytest.mark.parametrize("fault", [Status(429), Status(503), CloseBeforeHead(), Refuse()], ids=repr)
def test_a_worker_that_fails_once(fault: Any) -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answer = await endpoint.request("/echo", {"n": 1})
        assert answer["response"] == {"echo": {"n": 1}}
        assert answer["url"] == simulated.engine.workers[1].url

    with simulation(WorkerPlan(faults={("/echo", 1): fault}), WorkerPlan()) as simulated:
        simulated.play(story)
        (lifetime,) = simulated.engine.lifetimes.values()
        assert lifetime.grants == tuple(worker.url for worker in simulated.engine.workers)
        assert simulated.engine.load("demo") == 100


def test_a_full_worker() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answers = await asyncio.gather(*(endpoint.request("/echo", {"n": n}) for n in range(3)))
        assert [answer["response"] for answer in answers] == [{"echo": {"n": n}} for n in range(3)]

    with simulation(WorkerPlan(perf=200, max_queue_time=0.3)) as simulated:
        simulated.play(story)
        assert simulated.engine.load("demo") == 300
        assert len(simulated.engine.lifetimes) == 3


def test_a_forged_grant_comes_back_to_the_caller() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        answer = await endpoint.request("/echo", {})
        assert (answer["ok"], answer["status"], answer["text"]) == (False, 401, "")

    with simulation(faults={("demo", 1): BadSignature()}) as simulated:
        simulated.play(story)


def test_what_the_engine_refuses() -> None:
    async def story(client: Any) -> None:
        wrong = vastai.Endpoint(client, "demo", 1, "wrong")
        with pytest.raises(RuntimeError, match="HTTP 401"):
            await wrong.request("/echo", {})
        # A refusal in a 200 is taken for a wait.
        unknown = vastai.Endpoint(client, "nowhere", 2, KEY)
        with pytest.raises(TimeoutError):
            await unknown.request("/echo", {}, timeout=1.2)

    with simulation() as simulated:
        simulated.play(story)
        assert simulated.engine.grants == 0


# --- sessions and workers ----------------------------------------------------------------------------------------


def test_a_session() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        async with await endpoint.session(cost=5, lifetime=30) as session:
            for n in range(3):
                answer = await session.request("/echo", {"n": n})
                assert answer["response"] == {"echo": {"n": n}}
            answer = await session.request("/stream", {"count": 2}, stream=True)
            assert [event["n"] async for event in answer["response"]] == [0, 1]
            assert await session.is_open()
            again = await endpoint.get_session(session.session_id, session.auth_data)
            assert again.expiration == pytest.approx(session.expiration + 4 * 30)
            assert (again.lifetime, again.url) == (30, simulated.engine.workers[0].url)
        assert not session.open
        with pytest.raises(Exception, match="session does not exist"):
            await endpoint.get_session(session.session_id, session.auth_data)
        again.open = True
        with pytest.raises(ValueError, match="closed session"):
            await again.request("/echo", {})

    with simulation() as simulated:
        simulated.play(story)


def test_the_workers() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        await endpoint.request("/echo", {})
        first, second = await endpoint.get_workers()
        assert (first.id, first.status, second.id, second.status) == (1, "ready", 2, "ready")
        assert first.started_at <= first.loaded_at

    with simulation(WorkerPlan(), WorkerPlan()) as simulated:
        simulated.play(story)


def test_the_workers_of_a_cold_endpoint() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        (worker,) = await endpoint.get_workers()
        assert worker.status == "created"

    with simulation(WorkerPlan(ready_after=100)) as simulated:
        simulated.play(story)


def test_the_documented_list_of_workers_is_not_what_it_expects() -> None:
    async def story(client: Any) -> None:
        endpoint = await client.get_endpoint("demo")
        with pytest.raises(RuntimeError, match="wanted list"):
            await endpoint.get_workers()

    with simulation(bare_worker_list=False) as simulated:
        simulated.play(story)


# --- with the official worker ------------------------------------------------------------------------------------


def test_both_official_programs_with_our_engine_between_them(stage: Stage) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), open_official(stage.engine_url, key=ACCOUNT) as client:
            endpoint = await client.get_endpoint("official")
            answer = await endpoint.request("/echo", {"text": "é"})
            assert answer["response"] == {"echo": {"text": "é"}}
            async with await endpoint.session(lifetime=30) as session:
                assert (await session.request("/echo", {"n": 1}))["ok"]
        assert stage.end_of(answer["request_idx"])["status"] == "Success"
        # Its key is in the log of a machine that somebody rents out; ours never is, see test_worker.
        stage.worker.wait_for(OFFICIAL_KEY)

    asyncio.run(main())
