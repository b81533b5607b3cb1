"""Asking for a worker."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from vastroute import Advice, InvalidValue, LimitReached, Pause, Refused, RetryPolicy

from ...faults import DropIndex, OtherIndex, Status
from ..features import Law
from ..world import World, engine_of
from .making import check, equal, fail, failure, script, scripts_in


@script(Law.GRANT_VERBATIM)
async def ask(world: World) -> None:
    """One ask gives the grant, as it came; every argument reaches the engine."""
    engine = engine_of()
    async with world.client(engine) as client:
        result = await client.route("demo", cost=2, replay_timeout=30.5, extra={"guid": "abc"})
    (request,) = engine.requests
    wanted = {"endpoint": "demo", "cost": 2, "replay_timeout": 30.5, "guid": "abc"}
    equal(json.loads(request.body), wanted, "the body of the ask")
    equal(result.grant.url, engine.workers[0].url, "the granted worker")
    check(result.verdict.verified, "the grant's signature is not verified, though the key was given")


@script(Law.ONE_CALL)
async def cold_start(world: World) -> None:
    """A cold start is waited for: every poll carries the first answer's `request_idx`, and load is counted once."""
    seconds = 600 if world.virtual else 8
    engine = engine_of(ready_after=seconds, workers=2)
    async with world.client(engine) as client:
        began = world.now()
        result = await client.route("demo", cost=7)
        check(world.now() - began >= seconds, "there is a grant before a worker is ready")
    (lifetime,) = engine.lifetimes.values()
    equal(engine.load("demo"), 7, "the load that the engine counts")
    equal(result.counts.polls, lifetime.polls, "the polls that the result counts")
    asked = [json.loads(request.body).get("request_idx") for request in engine.requests]
    equal(asked, [None, *[lifetime.request_idx] * lifetime.polls], "the request_idx of the asks")


@script(Law.ONE_CALL)
async def go_on(world: World) -> None:
    """A call that is given a `request_idx` goes on with that request."""
    engine = engine_of()
    async with world.client(engine) as client:
        first = await client.route("demo", cost=3)
        again = await client.route("demo", cost=3, request_idx=first.request_idx)
    equal(again.request_idx, first.request_idx, "request_idx")
    equal(engine.load("demo"), 3, "the load that the engine counts")


@script(Law.BOUNDED)
async def poll_limit(world: World) -> None:
    """`max_polls` ends the wait for a worker, and the error says so."""
    engine = engine_of(ready_after=600)
    async with world.client(engine) as client:
        policy = RetryPolicy(max_polls=3)
        error = await failure(client.route("demo", policy=policy), type=LimitReached, limit="max_polls")
    equal(engine.asks, 4, "how often the engine is asked")
    check(error.not_ready is not None, "the error does not hold the last answer")


@script(Law.BOUNDED)
async def retry_limit(world: World) -> None:
    """`max_retries` ends asking again after failures, with the last failure as the cause."""
    engine = engine_of(faults={("demo", 0): Status(503)})
    async with world.client(engine) as client:
        policy = RetryPolicy(max_retries=2)
        await failure(client.route("demo", policy=policy), type=LimitReached, limit="max_retries", status=503)
    equal(engine.asks, 3, "how often the engine is asked")


@script(Law.BOUNDED)
async def pauses(world: World) -> None:
    """Between two asks there is the pause of the policy: an engine is never asked in a tight loop."""
    engine = engine_of(ready_after=14)
    async with world.client(engine) as client:
        began = world.now()
        pause = Pause(first=4, factor=1, cap=4, floor=4)
        result = await client.route("demo", policy=RetryPolicy(poll_pause=pause))
        polls = result.counts.polls
        check(world.now() - began >= 4 * polls - 1e-6, "the pauses are shorter than the policy says")
    check(polls == 4 if world.virtual else 1 <= polls <= 4, f"it polls {polls} times, and not 4")


@script(Law.BLAME)
async def stopped(world: World) -> None:
    """An endpoint that is stopped ends the call at once, as a refusal with advice."""
    engine = engine_of(stopped=True)
    async with world.client(engine) as client:
        error = await failure(client.route("demo"), type=Refused, advice=Advice.CHECK_ENDPOINT)
    equal(engine.asks, 1, "how often the engine is asked")
    check(error.counts is not None and error.record is not None, "the error holds no counts or no record")


@script(Law.BLAME)
async def misuse(world: World) -> None:
    """An argument that cannot be used raises `InvalidValue`, and nothing is sent."""
    engine = engine_of()
    async with world.client(engine) as client:
        unknown: dict[str, Any] = {"tiemout": 5}
        works: dict[str, Callable[[], Awaitable[Any]]] = {
            "an empty endpoint": lambda: client.route(""),
            "a cost below 0": lambda: client.route("demo", cost=-1),
            "a time-out that is no number": lambda: client.route("demo", timeout=float("nan")),
            "a route that leads elsewhere": lambda: client.call("demo", "//elsewhere", {}),
            "a payload that is no object": lambda: client.call("demo", "/echo", b"[]"),
            "an option that does not exist": lambda: client.route("demo", **unknown),
        }
        for what, work in works.items():
            try:
                await work()
            except InvalidValue:
                continue
            fail(f"{what} is taken")
    check(not engine.requests, "something is sent")


@script(Law.ONE_CALL)
async def index_lost_or_changed(world: World) -> None:
    """An answer without `request_idx` does not clear the one that is held; another one is adopted and counted."""
    engine = engine_of(ready_after=20, faults={("demo", 2): DropIndex(), ("demo", 4): OtherIndex(77)})
    async with world.client(engine) as client:
        result = await client.route("demo")
    equal((result.counts.index_missing, result.counts.index_changes), (1, 2), "indexes that were missing, and changed")
    asked = [json.loads(request.body).get("request_idx") for request in engine.requests]
    equal(asked[:5], [None, 1001, 1001, 1001, 77], "the request_idx of the asks")


SCRIPTS = scripts_in(globals())
