"""Kept connections, beyond what the conformance scripts tell of them; and a `connect` of one's own."""

from __future__ import annotations

from functools import partial

import attrs
import pytest

from vastroute import (
    ENGINE,
    CallFailed,
    ConnectionFailed,
    FailureKind,
    HttpRequest,
    Origin,
    Outcome,
    Pause,
    PoolLimits,
    RetryPolicy,
)
from vastroute_testing import (
    CutSizes,
    Garbage,
    Schedule,
    SimulatedEngine,
)
from vastroute_testing.conformance.scripts.edits import closing_after, keeping, on_the_wire, with_headers, with_more
from vastroute_testing.conformance.stage import Edit
from vastroute_testing.schedule import shifted

from .worlds import Streaming, World, assert_tidy, engine_of, idle


@attrs.define
class Editing:
    """An engine whose answers, or its workers', are edited before they leave.

    The workers keep their connections, which the official one does not after a whole answer.
    """

    engine: SimulatedEngine
    edit: Edit = attrs.field(default=lambda schedule: schedule)
    at_worker: bool = False

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        worker = self.engine.worker_at(request.origin)
        schedule = keeping(worker.serve(request, now=now)) if worker else self.engine.serve(request, now=now)
        return self.edit(schedule) if (worker is not None) is self.at_worker else schedule


# --- used again ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_worker", [False, True])
@pytest.mark.parametrize(
    ("edit", "kept"),
    [
        (with_headers(), True),
        (with_headers(("connection", "close")), False),
        (with_headers(("connection", "Keep-Alive"), ("x-one", "1"), ("X-One", "2")), True),
        (with_headers(("set-cookie", "a"), ("set-cookie", "b"), ("date", "x"), ("date", "y")), True),
        (on_the_wire("HTTP/1.1 200 OK\ncontent-type: application/json"), False),
        (on_the_wire("HTTP/1.0 200 OK\ncontent-type: application/json"), False),
        (on_the_wire("HTTP/1.1 200 OK\ncontent-type: application/json\ncontent-length: {}\nconnection: close"), False),
    ],
    ids=["plain", "close", "keep", "repeated", "until-close", "http-1.0", "length-close"],
)
@pytest.mark.parametrize("cut", [None, 1])
async def test_a_connection_is_kept_as_the_peer_says(
    world: World, edit: Edit, kept: bool, at_worker: bool, cut: CutSizes
) -> None:
    server = Editing(engine_of(), edit, at_worker=at_worker)
    async with world.client(server, cut=cut) as client:
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        assert got.data == {"echo": {"a": 1}}
        assert idle(client) == world.open == 1 + kept


@pytest.mark.parametrize("at_worker", [False, True])
@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
async def test_bytes_that_nobody_asked_for_close_the_connection(world: World, at_worker: bool, more: bytes) -> None:
    # The head names the length of the honest body: what follows it is not part of the answer.
    async with world.client(Editing(engine_of(), with_more(more), at_worker=at_worker)) as client:
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        assert got.data == {"echo": {"a": 1}}
        assert idle(client) == world.open == 1


# --- spoiled while idle ----------------------------------------------------------------------------------------------


def saying_after(seconds: float, status: int) -> Edit:
    """The server speaks unasked when the connection has been idle for so long, and closes it."""
    late = f"HTTP/1.1 {status} Late\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
    return lambda schedule: (*schedule, Garbage(at=schedule[-1].at + seconds, data=late))


SPOILED = pytest.mark.parametrize(
    "edit",
    [closing_after(5), closing_after(5, FailureKind.RESET), saying_after(5, 408), saying_after(5, 200)],
    ids=["closed", "reset", "408", "200"],
)


@SPOILED
async def test_a_connection_that_was_spoiled_while_idle_is_not_used(world: World, edit: Edit) -> None:
    server = Editing(engine_of(), edit)
    async with world.client(server, policy=RetryPolicy(first_ask_repeats=0, max_retries=0)) as client:
        await client.route("demo")
        await world.sleep(4)
        await client.route("demo")
        assert world.opened == 1
        await world.sleep(6)
        counts = (await client.route("demo")).counts
        assert (counts.asks, counts.repeats, counts.possible_double_loads) == (1, 0, 0)
        assert (world.opened, world.open) == (2, 1)
    assert server.engine.asks == 3


@SPOILED
async def test_polls_go_past_connections_that_were_spoiled(world: World, edit: Edit) -> None:
    server = Editing(engine_of(ready_after=40), edit)
    async with world.client(server, policy=RetryPolicy(poll_pause=Pause(first=8, cap=8))) as client:
        counts = (await client.route("demo", cost=5)).counts
        assert counts.polls > 3
        assert (counts.asks, counts.repeats, counts.retries) == (1 + counts.polls, 0, 0)
        assert world.opened == counts.asks
    assert server.engine.load("demo") == 5


@SPOILED
async def test_work_does_not_go_over_a_connection_that_was_spoiled(world: World, edit: Edit) -> None:
    server = Editing(engine_of(), edit, at_worker=True)
    async with world.client(server) as client:
        await client.call("demo", "/echo", {}, safe_to_repeat=True)
        await world.sleep(6)
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        assert got.data == {"echo": {"a": 1}}
        assert (got.counts.work_attempts, got.counts.possible_double_runs) == (1, 0)
    assert server.engine.asks == 2


async def test_where_one_was_spoiled_the_next_one_is_used(tasks: World) -> None:
    engine = engine_of()

    def edit(schedule: Schedule) -> Schedule:
        later = engine.asks == 2  # so that its connection comes back last, and would be used first
        return closing_after(5 if later else 60)(shifted(schedule, 1.0 + later))

    async with tasks.client(Editing(engine, edit)) as client:
        await tasks.together(partial(client.route, "demo"), partial(client.route, "demo"))
        assert idle(client) == 2
        await tasks.sleep(6)
        assert (await client.route("demo")).counts.asks == 1
        assert tasks.opened == 2
        assert idle(client) == tasks.open == 1


async def test_a_stream_of_ones_own_says_so_if_it_can(world: World) -> None:
    server = Editing(engine_of(), closing_after(5))

    async def opens(origin: Origin) -> Streaming:
        return await world.stream(server, origin)

    async with world.client(connect=world.connect(opens)) as client:
        await client.route("demo")
        await world.sleep(6)
        counts = (await client.route("demo")).counts
        assert (counts.repeats, counts.possible_double_loads) == (1, 1), "it has no is_quiet: only the ask finds out"


# --- bounded ---------------------------------------------------------------------------------------------------------


async def test_one_connection_to_each_origin_is_enough(world: World) -> None:
    engine = Editing(engine_of(ready_after=30, workers=2))
    async with world.client(engine, pool=PoolLimits(max_connections=1)) as client:
        for safe in (True, False, True, False):
            await client.call("demo", "/echo", {}, safe_to_repeat=safe)
            async with client.stream("demo", "/stream", {}, safe_to_repeat=safe) as events:
                assert [event async for event in events]
            assert world.open == idle(client)
            assert all(len(holding.idle) == 1 for holding in client.pool.inspect().values())


# --- a connect of one's own ------------------------------------------------------------------------------------------


async def test_one_ready_stream_serves_until_it_ends(world: World) -> None:
    engine = engine_of(ready_after=20)
    stream = await world.ready(engine, ENGINE)
    async with world.client(connect=stream, policy=RetryPolicy(max_retries=2)) as client:
        assert (await client.route("demo")).counts.polls > 3
        await client.route("demo")
        with pytest.raises(CallFailed) as caught:
            await client.call("demo", "/echo", {}, policy=RetryPolicy(max_reroutes=0))
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectionFailed)
        assert (cause.kind, cause.outcome) == (FailureKind.REFUSED, Outcome.NOT_SENT)
    assert world.open == 0


@pytest.mark.parametrize("error", [ConnectionRefusedError("no"), OSError("no"), TimeoutError(), BrokenPipeError()])
async def test_a_connect_that_fails_is_asked_again(world: World, error: OSError) -> None:
    engine = engine_of()
    failures = [error] * 3

    async def opens(origin: Origin) -> Streaming:
        if failures:
            raise failures.pop()
        return await world.stream(engine, origin)

    async with world.client(connect=world.connect(opens)) as client:
        result = await client.route("demo")
        assert result.counts.retries == 3
        assert result.counts.possible_double_loads == 0
        assert_tidy(client)


async def test_what_is_no_failure_of_the_network_flies(world: World) -> None:
    class Mine(Exception):
        pass

    async def opens(_origin: Origin) -> Streaming:
        raise Mine

    async with world.client(connect=world.connect(opens)) as client:
        for verb in (client.route("demo"), client.call("demo", "/echo", {}), client.endpoints()):
            with pytest.raises(Mine):
                await verb
            assert_tidy(client)


@attrs.define
class Failing:
    """A stream that raises at one of its verbs."""

    verb: str
    error: BaseException
    closed: bool = False

    async def send(self, data: bytes) -> None:
        if self.verb == "send":
            raise self.error

    async def receive(self, most: int) -> bytes:
        raise self.error

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("verb", ["send", "receive"])
@pytest.mark.parametrize("error", [OSError("no"), ConnectionResetError(), ZeroDivisionError()], ids=repr)
async def test_a_stream_that_raises_is_closed(world: World, verb: str, error: Exception) -> None:
    made: list[Failing] = []

    async def opens(_origin: Origin) -> Streaming:
        made.append(Failing(verb, error))
        return made[-1]

    wanted = CallFailed if isinstance(error, OSError) else type(error)
    async with world.client(connect=world.connect(opens)) as client:
        with pytest.raises(wanted):
            await client.route("demo", policy=RetryPolicy(max_retries=0))
        assert [stream.closed for stream in made] == [True]
        assert_tidy(client)
