"""Kept connections, beyond what the conformance scripts tell of them; and a `connect` of one's own."""

from __future__ import annotations

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
    PoolLimits,
    RetryPolicy,
)
from vastroute_testing import (
    CutSizes,
    Schedule,
    SimulatedEngine,
)
from vastroute_testing.conformance.scripts.edits import keeping, on_the_wire, with_headers, with_more
from vastroute_testing.conformance.stage import Edit

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
