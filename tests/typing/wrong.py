"""Mistakes that a type checker has to find: each line that is marked is one, for mypy and for pyright.

Both say so where a mark is not needed, so a mistake that they no longer find fails the gate. Nobody runs this.
"""

from __future__ import annotations

import vastroute
import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
import vastroute_testing
from vastroute_io.options import ClientOptions


def see(_value: object) -> None: ...


async def trio_user() -> None:
    client = vastroute_io.trio.Client(kye="key")  # type: ignore[call-arg]  # misspelt
    client.route("my-endpoint")  # type: ignore[unused-coroutine]  # not awaited
    await client.route("my-endpoint", cost="256")  # type: ignore[arg-type]  # not a number
    await client.call("my-endpoint", "/echo")  # type: ignore[call-arg]  # no payload
    await client.call("my-endpoint", "/echo", "text")  # type: ignore[arg-type]  # no object
    await client.call("my-endpoint", "/echo", {}, save_to_repeat=True)  # type: ignore[call-arg]  # misspelt: money
    await client.route("my-endpoint", safe_to_repeat=True)  # type: ignore[call-arg]  # nothing is run
    await client.route("my-endpoint", lifetime=60)  # type: ignore[call-arg]  # only a session has one
    for _ in client.stream("my-endpoint", "/stream", {}):  # type: ignore[attr-defined]  # async for
        pass
    with client:  # type: ignore[attr-defined]  # async with
        pass
    (await client.route("my-endpoint")).grant.url = "https://other.example"  # type: ignore[misc]  # frozen


def blocking_user(client: vastroute_io.blocking.Client) -> None:
    client.call("my-endpoint", "/echo", {}, timeout="60")  # type: ignore[arg-type]  # not a number
    with client.stream("my-endpoint", "/stream", {}) as events:
        see(events.text)  # type: ignore[attr-defined]  # an event has it, a stream has none
    see(client.route("my-endpoint").body)  # type: ignore[attr-defined]  # there is no answer yet
    vastroute_io.blocking.Client(clock=lambda: 0.0)  # type: ignore[arg-type]  # it has to sleep as well


def names() -> None:
    see(vastroute.RouteCal)  # type: ignore[attr-defined]  # misspelt, though names are loaded on first use
    see(vastroute_testing.SimulatedEngin)  # type: ignore[attr-defined]


def embedder(action: vastroute.Action[vastroute.Answer]) -> None:
    vastroute.RouteRequest("my-endpoint")  # type: ignore[call-arg]  # by name
    request = vastroute.RouteRequest(endpoint="e")
    vastroute.RouteCall(request, key="key", deadline=1.0)  # type: ignore[call-arg]  # no rng: nothing is drawn by itself
    vastroute.WorkerRequest(route="/echo", payload=[1])  # type: ignore[arg-type]  # no object
    vastroute.Limits(max_boddy=1)  # type: ignore[call-arg]
    match action:
        case vastroute.Send() | vastroute.WaitUntil() | vastroute.Done() | vastroute.GiveUp():
            pass
        case _:
            never(action)  # type: ignore[arg-type]  # Receive is left out
    call = vastroute.RouteCall(request, key="key", rng=lambda: 0.5, deadline=1.0)
    call.next_action()  # type: ignore[call-arg]  # without now
    call.failed("broken", now=0.0)  # type: ignore[call-arg]  # without sent
    call.failed(7, sent=None, now=0.0)  # type: ignore[arg-type]


def never(value: vastroute.Send) -> None: ...


def catcher(error: vastroute.CallFailed) -> str:
    if error.outcome == "not sent":  # type: ignore[comparison-overlap]  # a member, not its text
        return ""
    return error.status  # type: ignore[return-value]


def options() -> ClientOptions:
    return {"key": "key", "gaurd": vastroute.Guard()}  # type: ignore[typeddict-unknown-key]


def connect_to_nothing(origin: vastroute.Origin) -> bytes:
    return origin.host.encode()


def watcher(entry: str) -> None: ...


def own_streams() -> None:
    vastroute_io.trio.Client(connect=connect_to_nothing)  # type: ignore[arg-type]  # not async
    vastroute_io.asyncio.Client(connect=object())  # type: ignore[arg-type]
    vastroute_io.blocking.Client(connect=connect_to_nothing)  # type: ignore[arg-type]
    vastroute_io.trio.Client(observer=watcher)  # type: ignore[arg-type]
    vastroute_io.trio.Client(guard="allow_plain_http")  # type: ignore[arg-type]


def tester() -> None:
    vastroute_testing.SimulatedEndpoint("my-endpoint", ready_after="soon")  # type: ignore[arg-type]
    vastroute_testing.connector(3)  # type: ignore[arg-type]


def worker_author(grant: vastroute.Grant) -> None:
    vastroute.Verifier("pem", mode=True)  # type: ignore[arg-type]
    vastroute.verify(grant)  # type: ignore[call-arg]
    vastroute.Verdict(reason="verified")  # type: ignore[arg-type]
