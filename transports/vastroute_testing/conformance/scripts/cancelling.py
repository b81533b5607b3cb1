"""Calls that are cancelled from outside, at each step that they have, until they are over before it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from vastroute import Entry, EntryKind, PoolLimits

from ...engine import SimulatedEngine
from ...faults import Delay, Status
from ...fleet import SimulatedEndpoint
from ...life import WorkerPlan
from ..features import Feature, Law
from ..verbs import AnyClient
from ..world import World
from .making import check, equal, script, scripts_in

Verb = Callable[[AnyClient], Awaitable[None]]
_TAIL = 4
"""How many steps there may be at which it is too late to be cancelled: closing by force waits for nobody."""


def engine_to_wait_for(world: World) -> SimulatedEngine:
    """Its calls wait, poll, retry and are re-routed; over sockets, where each step is played in real time, less so."""
    if not world.virtual:
        return SimulatedEngine(SimulatedEndpoint("demo"))
    plans = [WorkerPlan(ready_after=2, latency=0.5, pace=0.5, faults={("/echo", 1): Status(503)}) for _ in range(2)]
    faults = {("demo", 2): Status(500), ("demo", 3): Delay(0.5)}
    return SimulatedEngine(SimulatedEndpoint("demo", workers=plans, faults=faults), latency=0.1)


def _note(told: list[EntryKind], entry: Entry) -> None:
    told.append(entry.kind)


async def every_step(world: World, verb: Verb, **options: Any) -> None:
    """Play it with a new client each time, cancelled one step later each time; each client can be used after that."""
    late = step = 0
    cancelled = True
    while cancelled:
        step += 1
        done = False

        async def work(client: AnyClient) -> None:
            nonlocal done
            await verb(client)
            done = True

        told: list[EntryKind] = []
        if world.has(Feature.OBSERVER):
            options["observer"] = partial(_note, told)
        async with world.client(engine_to_wait_for(world), **options) as client:
            cancelled = await world.cancelled_at(step, partial(work, client))
            check(told.count(EntryKind.CANCELLED) <= 1, "a cancellation is told twice")
            late += cancelled and done
            check(late <= _TAIL, f"cancelled at step {step}, it goes on to its end")
            answered = await client.call("demo", "/echo", {"again": step}, safe_to_repeat=True)
            equal(answered.data, {"echo": {"again": step}}, f"the next answer, after a cancellation at step {step}")
    check(step > 2, "it never waits")


@script(Law.NOTHING_LEFT, Feature.CANCELLATION)
async def cancel_asking(world: World) -> None:
    """Cancelled at each step of asking for a worker, a call leaves nothing open, and the client can be used."""

    async def verb(client: AnyClient) -> None:
        await client.route("demo")

    await every_step(world, verb)


@script(Law.NOTHING_LEFT, Feature.CANCELLATION)
async def cancel_working(world: World) -> None:
    """The same at each step of a whole call, re-routed to another worker."""

    async def verb(client: AnyClient) -> None:
        await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)

    await every_step(world, verb)


@script(Law.NOTHING_LEFT, Feature.CANCELLATION, Feature.STREAMS)
async def cancel_streaming(world: World) -> None:
    """The same at each step of a stream."""

    async def verb(client: AnyClient) -> None:
        async with client.stream("demo", "/stream", {"count": 3}) as events:
            async for _ in events:
                pass

    await every_step(world, verb)


@script(Law.NOTHING_LEFT, Feature.CANCELLATION, Feature.LOOKUPS)
async def cancel_looking_up(world: World) -> None:
    """The same where a call first fetches the public key, and looks for the endpoint's own."""

    async def verb(client: AnyClient) -> None:
        await client.route("demo")
        await client.workers("demo")

    await every_step(world, verb, key="test-account-key", public_key=None, fetch_public_key=True)


@script(Law.NOTHING_LEFT, Feature.CANCELLATION, Feature.SESSIONS)
async def cancel_leasing(world: World) -> None:
    """The same at each step of a session: a lease that is cancelled in its block is ended at the worker."""
    where = ""
    late = step = 0
    cancelled = True
    while cancelled:
        step += 1
        where = "entering"
        plan = WorkerPlan(latency=0.5 if world.virtual else 0, pace=0.5 if world.virtual else 0)
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[plan]))

        async def work(client: AnyClient) -> None:
            nonlocal where
            async with client.session("demo", lifetime=3600) as session:
                where = "inside"
                await session.call("/echo", {})
                await session.health()
                where = "leaving"
            where = "left"

        async with world.client(engine) as client:
            cancelled = await world.cancelled_at(step, partial(work, client))
            late += cancelled and where == "left"
            (worker,) = engine.workers
            if where in {"inside", "left"}:
                ended = [request.target for request in worker.requests].count("/session/end")
                equal(ended, 1, f"how often the lease is ended, after a cancellation at step {step}, {where}")
    check(late <= _TAIL + 20, "cancellation is outlasted")


@script(Law.NOTHING_LEFT, Feature.CANCELLATION, Feature.CONCURRENCY, Feature.POOL)
async def cancel_in_a_queue(world: World) -> None:
    """A call that is cancelled as it waits for a connection, or as others wait for its own, holds nobody up."""
    for place in (0, 1):
        cancelled = True
        step = 0
        while cancelled:
            step += 1
            engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=1 if world.virtual else 0)
            async with world.client(engine, pool=PoolLimits(max_connections=1)) as client:

                async def one(client: AnyClient = client, step: int = step) -> None:
                    nonlocal cancelled
                    cancelled = await world.cancelled_at(step, partial(ask, client))

                works: list[Any] = [partial(ask, client)] * 2
                works.insert(place, one)
                await world.together(*works)
            check(engine.grants >= 2, "those that were not cancelled have no grant")


async def ask(client: AnyClient) -> None:
    """One ask."""
    await client.route("demo")


SCRIPTS = scripts_in(globals())
