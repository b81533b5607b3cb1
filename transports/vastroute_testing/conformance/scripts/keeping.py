"""Connections: kept, used again, found stale, bounded, closed."""

from __future__ import annotations

from functools import partial

from vastroute import FailureKind, PoolLimits, RetryPolicy

from ...faults import CloseBeforeHead, ResetBeforeHead
from ...life import WorkerPlan
from ..features import Feature, Law
from ..verbs import AnyClient
from ..world import World, engine_of
from .edits import closing_after, keeping, on_the_wire, once, speaking_after, with_headers
from .making import check, equal, failure, script, scripts_in

_BROKEN = (CloseBeforeHead(served=False), ResetBeforeHead(served=False))
"""The connection ends as the request comes: however well it was looked at before, nobody could know."""


@script(Law.CONNECTIONS, Feature.BYTES, Feature.KEPT)
async def polls_share(world: World) -> None:
    """All asks of a call, and of the next one, go over one connection."""
    async with world.client(engine_of(ready_after=9)) as client:
        await client.route("demo")
        await client.route("demo")
        equal(client.network.opened, 1, "connections that were opened")


@script(Law.CONNECTIONS, Feature.BYTES)
async def kept_as_told(world: World) -> None:
    """A connection is not used again where the peer said that it closes it, or where only that ends an answer."""
    length = "content-type: application/json\ncontent-length: {}"
    edits = {
        "connection: close": with_headers(("connection", "close")),
        "a body without a length": on_the_wire("HTTP/1.1 200 OK\ncontent-type: application/json"),
        "HTTP/1.0": on_the_wire(f"HTTP/1.0 200 OK\n{length}"),
        "a length, and then the end": on_the_wire(f"HTTP/1.1 200 OK\n{length}\nconnection: close"),
    }
    for what, edit in edits.items():
        async with world.client(engine_of(), engine_edit=edit) as client:
            for _ in range(2):
                result = await client.route("demo")
                equal(result.counts.repeats, 0, f"asks that were repeated after {what}")
            equal(client.network.opened, 2, f"connections that were opened after {what}")


@script(Law.PAY_ONCE, Feature.BYTES, Feature.KEPT)
async def fresh_for_work(world: World) -> None:
    """Work that may not run twice gets a new connection: a kept one, closed at the wrong time, leaves it in doubt."""
    async with world.client(engine_of(), worker_edit=keeping) as client:
        for _ in range(2):
            await client.call("demo", "/echo", {}, safe_to_repeat=True)
        before = client.network.opened
        for _ in range(3):
            await client.call("demo", "/echo", {})
        equal(client.network.opened - before, 3, "connections that were opened for three pieces of work")


@script(Law.CONNECTIONS, Feature.BYTES, Feature.KEPT)
async def stale_poll(world: World) -> None:
    """A kept connection that proves closed before the answer is no failure: a poll over it is repeated at once."""
    for fault in _BROKEN:
        engine = engine_of(ready_after=9, faults={("demo", attempt): fault for attempt in (2, 4)})
        async with world.client(engine) as client:
            result = await client.route("demo", cost=5)
        counts = result.counts
        equal((counts.retries, counts.possible_double_loads), (0, 0), "retries, and loads that were perhaps doubled")
        equal(counts.repeats, 2, "asks that were repeated at once")
        equal(engine.load("demo"), 5, "the load that the engine counts")


@script(Law.CONNECTIONS, Feature.BYTES, Feature.KEPT)
async def stale_first_ask(world: World) -> None:
    """A first ask over a kept connection that proves closed is repeated once, and the possible double load counted."""
    for fault in _BROKEN:
        async with world.client(engine_of(faults={("demo", 2): fault, ("demo", 4): fault})) as client:
            await client.route("demo")
            result = await client.route("demo")
            equal(
                (result.counts.repeats, result.counts.possible_double_loads), (1, 1), "repeats, possible double loads"
            )
            policy = RetryPolicy(first_ask_repeats=0)
            await failure(client.route("demo", policy=policy), limit="first_ask_repeats")


@script(Law.BOUNDED, Feature.BYTES)
async def always_closing(world: World) -> None:
    """A server that closes every connection before it answers ends the call by a limit, with pauses between."""
    engine = engine_of(faults={("demo", number): CloseBeforeHead() for number in range(2, 99)})
    async with world.client(engine) as client:
        await client.route("demo")
        policy = RetryPolicy(max_retries=2, first_ask_repeats=99)
        error = await failure(client.route("demo", policy=policy))
        check(error.counts is not None and error.counts.repeats <= 1, "asks are repeated at once, again and again")
        check(engine.asks <= 5, "it asks too often")


@script(Law.PAY_ONCE, Feature.BYTES, Feature.KEPT)
async def stale_work(world: World) -> None:
    """Work over a kept connection that proves closed perhaps started: it goes to another grant if it may run twice."""
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", 2): CloseBeforeHead(served=False)})])
    async with world.client(engine, worker_edit=keeping) as client:
        await client.call("demo", "/echo", {}, safe_to_repeat=True)
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        equal(got.data, {"echo": {"a": 1}}, "the answer")
        equal(got.counts.possible_double_runs, 1, "runs that were perhaps doubled")


@script(Law.CONNECTIONS, Feature.BYTES, Feature.KEPT, Feature.LOOKS, Feature.VIRTUAL_TIME)
async def spoiled_while_idle(world: World) -> None:
    """A kept connection that its peer has closed, or spoken on unasked, is not used again."""
    edits = {
        "it was closed": closing_after(5),
        "it was reset": closing_after(5, FailureKind.RESET),
        "a late 408": speaking_after(5, "HTTP/1.1 408 Request Timeout\ncontent-length: 0\n\n"),
    }
    for what, edit in edits.items():
        async with world.client(engine_of(), engine_edit=once(edit)) as client:
            await client.route("demo")
            await world.sleep(4)
            await client.route("demo")
            equal(client.network.opened, 1, f"connections that were opened before {what}")
        async with world.client(engine_of(), engine_edit=edit) as client:
            await client.route("demo")
            await world.sleep(6)
            result = await client.route("demo")
            counts = result.counts
            equal((counts.repeats, counts.possible_double_loads), (0, 0), f"repeats and double loads after {what}")
            equal(client.network.opened, 2, f"connections that were opened after {what}")


@script(Law.BOUNDED, Feature.BYTES, Feature.KEPT, Feature.POOL, Feature.VIRTUAL_TIME)
async def idle_for_so_long(world: World) -> None:
    """A connection is not used after it was idle for `idle_seconds`."""
    async with world.client(engine_of(), pool=PoolLimits(idle_seconds=10)) as client:
        await client.route("demo")
        await world.sleep(9)
        await client.route("demo")
        equal(client.network.opened, 1, "connections that were opened")
        await world.sleep(10)
        await client.route("demo")
        equal((client.network.opened, client.network.open), (2, 1), "connections that were opened, and are open")


@script(Law.BOUNDED, Feature.BYTES, Feature.POOL)
async def idle_so_many(world: World) -> None:
    """No more than `max_idle` connections are kept."""
    for most in (2, 0):
        engine = engine_of(workers=4)
        async with world.client(engine, worker_edit=keeping, pool=PoolLimits(max_idle=most)) as client:
            for _ in range(4):
                await client.call("demo", "/echo", {}, safe_to_repeat=True)
                await world.until(partial(_at_most, client, most), f"it keeps more than {most}")


@script(Law.BOUNDED, Feature.BYTES, Feature.POOL, Feature.CONCURRENCY)
async def one_at_a_time(world: World) -> None:
    """`max_connections` calls at most are under way to an origin; the others wait their turn."""
    engine = engine_of()
    async with world.client(engine, pool=PoolLimits(max_connections=1)) as client:
        await world.together(*[partial(_route, client)] * 6)
        check(client.network.opened <= 1, f"{client.network.opened} connections were opened, and not 1")
    equal(engine.grants, 6, "grants")


@script(Law.NOTHING_LEFT, Feature.BYTES)
async def closing(world: World) -> None:
    """Closing the client closes what is idle; a call after that works, and keeps nothing."""
    async with world.client(engine_of(), worker_edit=keeping) as client:
        await client.call("demo", "/echo", {}, safe_to_repeat=True)
        for _ in range(2):
            await client.aclose()
            await world.until(lambda: not client.network.open, "a connection is open after the client is closed")
        await client.call("demo", "/echo", {}, safe_to_repeat=True)
        await world.until(lambda: not client.network.open, "a closed client keeps a connection")


@script(Law.NOTHING_LEFT, Feature.BYTES, Feature.STREAMS)
async def closing_while_in_use(world: World) -> None:
    """A stream that is under way as the client is closed goes on to its end, and its connection is closed then."""
    async with world.client(engine_of()) as client:
        async with client.stream("demo", "/stream", {"count": 3}) as events:
            await client.aclose()
            equal(len([event async for event in events]), 4, "events")
        await world.until(lambda: not client.network.open, "a connection is open after its stream ended")


def _at_most(client: AnyClient, most: int) -> bool:
    return client.network.open <= most


async def _route(client: AnyClient) -> None:
    await client.route("demo")


SCRIPTS = scripts_in(globals())
