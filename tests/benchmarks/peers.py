"""The peers, each used as its documentation shows it, with a ten-second limit and a pool that is large enough.

They are imported where they are used: a process holds one of them, and this project's own environment none. No peer
checks a signature, keeps a record or looks at where a grant leads.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from importlib.metadata import version
from typing import Any

from .kinds import AsyncVerbs, Setup, Verbs
from .place import ENDPOINT, KEY, PAYLOAD, STREAM, WORK

ASK = {"endpoint": ENDPOINT, "cost": 100.0}
HEADERS = {"Authorization": f"Bearer {KEY}"}
SECONDS = 120.0
"""Every peer's limit: longer than the server holds anything back."""


def _done(status: int, grant: Any) -> dict[str, Any]:
    if status != 200 or "url" not in grant:
        raise SystemExit(f"no grant: {status} {grant}")
    return grant  # type: ignore[no-any-return]


def _worked(status: int, value: Any) -> None:
    if status != 200 or "choices" not in value:
        raise SystemExit(f"no answer: {status} {value}")


def _job(grant: Any) -> dict[str, Any]:
    return {"auth_data": grant, "session_id": None, "payload": PAYLOAD}


@asynccontextmanager
async def official(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """The official client. It would download a root certificate first; it is given a context instead."""
    vastai = import_module("vastai")
    endpoints = import_module("vastai.serverless.client.endpoint")
    client = vastai.CoroutineServerless(KEY, autoscaler_url=setup.place.url, connection_limit=setup.most + 10)
    client._ssl_context = ssl.create_default_context()
    async with client:
        endpoint = endpoints.Endpoint(client, name=ENDPOINT, id=1, api_key=KEY)

        async def route() -> None:
            answer = await endpoint._route(cost=100.0, req_idx=0, timeout=60.0)
            if answer.status != "READY":
                raise SystemExit("no grant")

        async def call() -> None:
            answer = await endpoint.request(WORK, PAYLOAD, cost=100)
            _worked(answer["status"], answer["response"])

        async def stream(size: int) -> int:
            answer = await endpoint.request(f"{STREAM}{size}", PAYLOAD, cost=100, stream=True)
            count = 0
            async for _ in answer["response"]:
                count += 1
            return count

        # It gives every event parsed, wanted or not.
        yield {"route": route, "call": call, "stream": stream, "stream-parsed": stream}


@asynccontextmanager
async def aiohttp_by_hand(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """aiohttp."""
    aiohttp = import_module("aiohttp")
    connector = aiohttp.TCPConnector(limit=setup.most + 10)
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:

        async def post(url: str, value: Any, headers: Any = None) -> tuple[int, Any]:
            async with session.post(url, json=value, headers=headers) as reply:
                return reply.status, await reply.json()

        async def ask() -> dict[str, Any]:
            return _done(*await post(f"{setup.place.url}/route/", ASK, HEADERS))

        async def route() -> None:
            await ask()

        async def call() -> None:
            grant = await ask()
            _worked(*await post(grant["url"] + WORK, _job(grant)))

        yield {"route": route, "call": call}


@asynccontextmanager
async def httpx_async(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """httpx, on whatever runs it; httpx-sse on top for streams."""
    httpx = import_module("httpx")
    limits = httpx.Limits(max_connections=setup.most + 10, max_keepalive_connections=setup.most + 10)
    async with httpx.AsyncClient(timeout=SECONDS, limits=limits) as client:

        async def ask() -> dict[str, Any]:
            reply = await client.post(f"{setup.place.url}/route/", json=ASK, headers=HEADERS)
            return _done(reply.status_code, reply.json())

        async def route() -> None:
            await ask()

        async def call() -> None:
            grant = await ask()
            reply = await client.post(grant["url"] + WORK, json=_job(grant))
            _worked(reply.status_code, reply.json())

        async def stream(size: int, parse: Callable[[str], Any] = str) -> int:
            connect = import_module("httpx_sse").aconnect_sse
            grant = await ask()
            count = 0
            async with connect(client, "POST", f"{grant['url']}{STREAM}{size}", json=_job(grant)) as source:
                async for event in source.aiter_sse():
                    if event.data != "[DONE]":
                        parse(event.data)
                        count += 1
            return count

        async def stream_parsed(size: int) -> int:
            return await stream(size, json.loads)

        yield {"route": route, "call": call, "stream": stream, "stream-parsed": stream_parsed}


@asynccontextmanager
async def niquests_async(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """niquests' AsyncSession."""
    niquests = import_module("niquests")
    size = setup.most + 10
    async with niquests.AsyncSession(pool_connections=size, pool_maxsize=size) as session:

        async def ask() -> dict[str, Any]:
            reply = await session.post(f"{setup.place.url}/route/", json=ASK, headers=HEADERS, timeout=SECONDS)
            return _done(reply.status_code, reply.json())

        async def route() -> None:
            await ask()

        async def call() -> None:
            grant = await ask()
            reply = await session.post(grant["url"] + WORK, json=_job(grant), timeout=SECONDS)
            _worked(reply.status_code, reply.json())

        yield {"route": route, "call": call}


@asynccontextmanager
async def pyreqwest_async(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """pyreqwest: Rust's reqwest."""
    from datetime import timedelta

    module = import_module("pyreqwest.client")
    builder = module.ClientBuilder().timeout(timedelta(seconds=SECONDS)).pool_max_idle_per_host(setup.most + 10)
    async with builder.build() as client:

        async def ask() -> dict[str, Any]:
            request = client.post(f"{setup.place.url}/route/").headers(HEADERS).body_json(ASK)
            reply = await request.build().send()
            return _done(reply.status, await reply.json())

        async def route() -> None:
            await ask()

        async def call() -> None:
            grant = await ask()
            reply = await client.post(grant["url"] + WORK).body_json(_job(grant)).build().send()
            _worked(reply.status, await reply.json())

        yield {"route": route, "call": call}


@contextmanager
def pyreqwest_blocking(setup: Setup) -> Iterator[Verbs]:
    """The same, blocking."""
    from datetime import timedelta

    module = import_module("pyreqwest.client")
    with module.SyncClientBuilder().timeout(timedelta(seconds=SECONDS)).build() as client:

        def route() -> None:
            reply = client.post(f"{setup.place.url}/route/").headers(HEADERS).body_json(ASK).build().send()
            _done(reply.status, reply.json())

        yield {"route": route}


@contextmanager
def httpx_blocking(setup: Setup) -> Iterator[Verbs]:
    """httpx.Client."""
    with import_module("httpx").Client(timeout=SECONDS) as client:

        def route() -> None:
            reply = client.post(f"{setup.place.url}/route/", json=ASK, headers=HEADERS)
            _done(reply.status_code, reply.json())

        yield {"route": route}


def _check_urllib3() -> None:
    # niquests brings urllib3-future, which takes the place of urllib3, under requests too, unless it is told not to.
    found, wanted = import_module("urllib3").__version__, version("urllib3")
    if found != wanted:
        raise RuntimeError(f"urllib3-future {found} stands in the place of urllib3 {wanted}: see docs/performance.md")


@contextmanager
def requests_session(setup: Setup) -> Iterator[Verbs]:
    """requests.Session."""
    _check_urllib3()
    yield from _session(import_module("requests").Session(), setup)


@contextmanager
def niquests_session(setup: Setup) -> Iterator[Verbs]:
    """niquests.Session."""
    yield from _session(import_module("niquests").Session(), setup)


def _session(session: Any, setup: Setup) -> Iterator[Verbs]:
    with session:

        def route() -> None:
            reply = session.post(f"{setup.place.url}/route/", json=ASK, headers=HEADERS, timeout=SECONDS)
            _done(reply.status_code, reply.json())

        yield {"route": route}


@contextmanager
def urllib3_pool(setup: Setup) -> Iterator[Verbs]:
    """urllib3.PoolManager."""
    _check_urllib3()
    manager = import_module("urllib3").PoolManager()

    def route() -> None:
        reply = manager.request("POST", f"{setup.place.url}/route/", json=ASK, headers=HEADERS, timeout=SECONDS)
        _done(reply.status, reply.json())

    yield {"route": route}


@contextmanager
def http_client(setup: Setup) -> Iterator[Verbs]:
    """The standard library's http.client."""
    connection = http.client.HTTPConnection("127.0.0.1", setup.place.port, timeout=SECONDS)
    headers = HEADERS | {"Content-Type": "application/json"}

    def route() -> None:
        connection.request("POST", "/route/", json.dumps(ASK), headers)
        reply = connection.getresponse()
        _done(reply.status, json.loads(reply.read()))

    yield {"route": route}
    connection.close()
