"""Keys, grants, signatures: what goes where, and what is believed."""

from __future__ import annotations

import json
from collections import Counter

from vastroute import (
    CallFailed,
    ConnectionFailed,
    FailureKind,
    Guard,
    HttpRequest,
    KeyRefused,
    Reason,
    RetryPolicy,
    SignatureRefused,
)

from ...engine import SimulatedEngine
from ...faults import BadSignature, CloseBeforeHead, Status
from ...fleet import SimulatedEndpoint
from ...keys import OTHER_TEST_PUBLIC_KEY
from ...life import WorkerPlan
from ..features import Feature, Law
from ..world import World, engine_of
from .edits import keeping
from .making import check, equal, failure, script, scripts_in

_KEY = "c4n4ry-key"
_ACCOUNT = "c4n4ry-account-key"


def shows(request: HttpRequest, secret: str) -> bool:
    """Whether `secret` is anywhere in a request."""
    return any(secret in part for part in (request.url, repr(list(request.headers)), request.body.decode("latin-1")))


def check_keys(engine: SimulatedEngine) -> None:
    """The key is in the header of every ask, not in its URL or body; no worker was shown it, nor any authorization."""
    for request in engine.requests:
        if request.target == "/route/":
            equal(request.headers.get("authorization"), f"Bearer {_KEY}", "the authorization of an ask")
        check(_KEY not in request.url, "the key is in a URL")
        check(_KEY.encode() not in request.body, "the key is in the body of a request to the engine")
    for worker in engine.workers:
        for request in worker.requests:
            check(not shows(request, _KEY), "the key is shown to a worker")
            equal(request.headers.get("authorization"), None, "the authorization that a worker is shown")


@script(Law.KEYS_STAY)
async def key_stays(world: World) -> None:
    """The key goes to the engine, in the `Authorization` header alone; a worker is never shown it, whatever happens."""
    plans = [WorkerPlan(faults={("/echo", 1): fault}) for fault in (Status(503), CloseBeforeHead(), Status(401))]
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY, workers=[*plans, WorkerPlan()]))
    async with world.client(engine, key=_KEY) as client:
        await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)
        await client.route("demo")
    check(engine.workers[-1].requests, "the work does not reach the last worker")
    check_keys(engine)


@script(Law.KEYS_STAY, Feature.STREAMS)
async def key_stays_in_streams(world: World) -> None:
    """The same for a stream."""
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY))
    async with world.client(engine, key=_KEY) as client, client.stream("demo", "/stream", {}) as events:
        check([event async for event in events], "there are no events")
    check_keys(engine)


@script(Law.KEYS_STAY, Feature.SESSIONS)
async def key_stays_in_sessions(world: World) -> None:
    """The same for a session."""
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY))
    async with world.client(engine, key=_KEY) as client, client.session("demo") as session:
        await session.call("/echo", {})
        await session.health()
    check_keys(engine)


@script(Law.KEYS_STAY)
async def secrets_unsaid(world: World) -> None:
    """No error and no record repeats a key, or a grant's signature, even where a server does."""
    said = {"error": f"no: {_KEY}", "msg": _KEY}
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY, faults={("demo", 0): Status(400, body=said)}))
    async with world.client(engine, key=_KEY) as client:
        error = await failure(client.route("demo"))
        check_unsaid(error, _KEY)
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY))
    async with world.client(engine, key=_KEY) as client:
        result = await client.route("demo")
        signature = json.loads(result.grant.raw)["signature"]
        check(signature not in repr(result), "a result's repr shows the grant's signature")
        check(_KEY not in repr(result), "a result's repr shows the key")
        error = await failure(client.call("demo", "/status", {"status": 404}))
        check_unsaid(error, _KEY)


def check_unsaid(error: CallFailed, secret: str) -> None:
    """The error's words, repr and record do not show it."""
    for what, text in (("text", str(error)), ("repr", repr(error)), ("record", repr(error.record))):
        check(secret not in text, f"the {what} of an error shows the key")


@script(Law.SIGNATURES)
async def signature_reported(world: World) -> None:
    """By default a verdict on the grant's signature is part of the answer, and refuses nothing."""
    async with world.client(engine_of(), public_key=OTHER_TEST_PUBLIC_KEY) as client:
        answer = await client.call("demo", "/echo", {})
        check(not answer.verdict.verified, "a signature of another key is verified")
    async with world.client(engine_of(), public_key=None) as client:
        equal((await client.route("demo")).verdict.reason, Reason.NO_KEY, "the verdict without a key")


@script(Law.SIGNATURES)
async def signature_required(world: World) -> None:
    """Where a signature is required, a grant that does not verify is refused, and no worker hears of it."""
    engine = engine_of(faults={("demo", 0): BadSignature()})
    async with world.client(engine, signature="require") as client:
        await failure(client.call("demo", "/echo", {}), type=SignatureRefused)
    equal(engine.workers[0].served, 0, "requests that reached the worker")


@script(Law.SIGNATURES, Feature.LOOKUPS)
async def public_key(world: World) -> None:
    """The public key is fetched before the first ask, without a key, and once."""
    engine = engine_of()
    async with world.client(engine, public_key=None, fetch_public_key=True) as client:
        first = await client.call("demo", "/echo", {})
        second = await client.route("demo")
    paths = [request.target for request in engine.requests]
    equal(paths, ["/pubkey/", "/route/", "/route/"], "what the engine is asked")
    equal(engine.requests[0].headers.get("authorization"), None, "the authorization of the fetch")
    check(first.verdict.verified and second.verdict.verified, "the signature is not verified")


@script(Law.KEYS_STAY, Feature.LOOKUPS)
async def account_key(world: World) -> None:
    """An account's key finds the endpoint's own at the console, once, and that one is used from then on."""
    engine = SimulatedEngine(SimulatedEndpoint("demo", key=_KEY), account_key=_ACCOUNT)
    async with world.client(engine, key=_ACCOUNT) as client:
        await client.call("demo", "/echo", {})
        await client.route("demo")
    used = [request.headers.get("authorization") for request in engine.requests if request.target == "/route/"]
    equal(used, [f"Bearer {_ACCOUNT}", f"Bearer {_KEY}", f"Bearer {_KEY}"], "the keys that the engine is shown")
    counted = Counter(request.target.partition("?")[0] for request in engine.requests)
    equal(counted["/api/v0/endptjobs/"], 1, "how often the console is asked")
    check(not any(shows(request, _ACCOUNT) for request in engine.workers[0].requests), "a worker is shown the key")


@script(Law.KEYS_STAY, Feature.LOOKUPS)
async def account_key_of_others(world: World) -> None:
    """A key that is nobody's ends the call, after one look at the console."""
    engine = engine_of()
    async with world.client(engine, key="nobodys-key") as client:
        await failure(client.route("demo"), type=KeyRefused)
    equal(engine.asks, 1, "how often the engine is asked")


@script(Law.KEYS_STAY)
async def guard(world: World) -> None:
    """A grant that leads where it may not is refused before a connection is opened."""
    engine = engine_of()
    async with world.client(engine, guard=Guard()) as client:
        policy = RetryPolicy(max_reroutes=0)
        error = await failure(client.call("demo", "/echo", {}, policy=policy), type=ConnectionFailed)
        equal((error.kind, error.outcome.value), (FailureKind.GUARD, "not sent"), "kind and outcome")
    equal(engine.workers[0].served, 0, "requests that reached the worker")


@script(Law.KEYS_STAY, Feature.SOCKETS)
async def guard_names(world: World) -> None:
    """The guard is asked about the address that a worker's name leads to, which is then the one that is dialled."""
    engine = engine_of()
    async with world.client(engine, guard=Guard(allow_plain_http=True)) as client:
        worker = engine.workers[0]
        worker.url = worker.url.replace("127.0.0.1", "localhost")
        error = await failure(client.call("demo", "/echo", {}, policy=RetryPolicy(max_reroutes=0)))
        equal(error.kind, FailureKind.GUARD, "the kind of the failure")
    equal(worker.served, 0, "requests that reached the worker")


@script(Law.KEYS_STAY, Feature.ROADS, Feature.KEPT)
async def trust_apart(world: World) -> None:
    """A worker at the engine's own address gets a connection of its own: the two kinds of trust are never mixed."""
    url = "https://203.0.113.1:40001"  # that of the one simulated worker
    engine = engine_of()
    async with world.client(engine, engine=url, worker_edit=keeping, one_address=True) as client:
        for _ in range(2):
            await client.call("demo", "/echo", {}, safe_to_repeat=True)
        equal(client.network.opened, 2, "connections that were opened")


SCRIPTS = scripts_in(globals())
