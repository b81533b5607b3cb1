"""This project's own clients, with all that they do for a user: checks, the signature's verdict, records."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import vastroute
from vastroute_io.options import ClientOptions
from vastroute_testing.keys import TEST_PUBLIC_KEY

from .kinds import AsyncVerbs, Setup, Verbs
from .place import ENDPOINT, KEY, PAYLOAD, STREAM, WORK


def _options(setup: Setup) -> ClientOptions:
    return {
        "key": KEY,
        "engine": setup.place.url,
        "guard": vastroute.Guard(allow_plain_http=True, allow_private_address=True),
        "public_key": TEST_PUBLIC_KEY,
        # No limit of the pool's is to be measured, nor an ask that is repeated because the server holds it back.
        "pool": vastroute.PoolLimits(max_connections=setup.most + 10, max_idle=2 * setup.most + 10),
        "policy": vastroute.RetryPolicy(ask_limit=120.0),
        "proxy": None,
    }


def _check(result: vastroute.RouteResult) -> None:
    if not result.verdict.verified:
        raise SystemExit(f"the signature was not verified: {result.verdict}")


@asynccontextmanager
async def on_trio(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """`vastroute_io.trio`."""
    from vastroute_io.trio import Client

    async with Client(**_options(setup)) as client:
        yield await _verbs(client, setup)


@asynccontextmanager
async def on_asyncio(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """`vastroute_io.asyncio`."""
    from vastroute_io.asyncio import Client

    async with Client(**_options(setup)) as client:
        yield await _verbs(client, setup)


async def _verbs(client: Any, setup: Setup) -> AsyncVerbs:
    """The same verbs on both clients."""

    async def route() -> None:
        await client.route(ENDPOINT, cost=100.0)

    async def call() -> None:
        await client.call(ENDPOINT, WORK, PAYLOAD, safe_to_repeat=True)

    async def call_fresh() -> None:
        await client.call(ENDPOINT, WORK, PAYLOAD)

    async def stream(size: int, parse: Callable[[str], Any] = str) -> int:
        count = 0
        async with client.stream(ENDPOINT, f"{STREAM}{size}", PAYLOAD) as events:
            async for event in events:
                if event.data != "[DONE]":
                    parse(event.data)
                    count += 1
        return count

    async def stream_parsed(size: int) -> int:
        return await stream(size, json.loads)

    _check(await client.route(ENDPOINT))
    return {"route": route, "call": call, "call-fresh": call_fresh, "stream": stream, "stream-parsed": stream_parsed}


@contextmanager
def blocking(setup: Setup) -> Iterator[Verbs]:
    """`vastroute_io.blocking`."""
    from vastroute_io.blocking import Client

    with Client(**_options(setup)) as client:

        def route() -> None:
            client.route(ENDPOINT, cost=100.0)

        def call() -> None:
            client.call(ENDPOINT, WORK, PAYLOAD, safe_to_repeat=True)

        def call_fresh() -> None:
            client.call(ENDPOINT, WORK, PAYLOAD)

        _check(client.route(ENDPOINT))
        yield {"route": route, "call": call, "call-fresh": call_fresh}
