"""Kept connections: used again, found stale, bounded in number and age, closed when they must be."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from vastroute import (
    ENGINE,
    CallFailed,
    ConnectionFailed,
    EntryKind,
    FailureKind,
    Headers,
    HttpRequest,
    Origin,
    Outcome,
    PoolLimits,
    RetryPolicy,
)
from vastroute_testing import (
    BEGIN,
    Chunk,
    CloseBeforeHead,
    Cut,
    CutSizes,
    End,
    Garbage,
    Head,
    Schedule,
    SimulatedEndpoint,
    SimulatedEngine,
)

from .worlds import Streaming, World, assert_tidy, engine_of, idle

Edit = Callable[[Schedule], Schedule]


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
        schedule = (
            without(worker.serve(request, now=now), "connection") if worker else self.engine.serve(request, now=now)
        )
        return self.edit(schedule) if (worker is not None) is self.at_worker else schedule


def without(schedule: Schedule, name: str) -> Schedule:
    head = schedule[0]
    assert isinstance(head, Head)
    return (attrs.evolve(head, headers=Headers([pair for pair in head.headers if pair[0] != name])), *schedule[1:])


def with_headers(*headers: tuple[str, str]) -> Edit:
    def edit(schedule: Schedule) -> Schedule:
        head = schedule[0]
        assert isinstance(head, Head)
        return (attrs.evolve(head, headers=Headers((*head.headers, *headers))), *schedule[1:])

    return edit


def closing_after(seconds: float, kind: FailureKind = FailureKind.EOF) -> Edit:
    """The server closes the connection when it has been idle for so long."""
    return lambda schedule: (*schedule, Cut(at=schedule[-1].at + seconds, kind=kind))


def on_the_wire(text: str, body: bytes = b"") -> Edit:
    """These very bytes in place of the answer, of whose body ``{}`` in the text takes the length; then it closes."""

    def edit(schedule: Schedule) -> Schedule:
        data = body or b"".join(step.data for step in schedule if isinstance(step, Chunk))
        head = text.format(len(data)).replace("\n", "\r\n").encode()
        return (Garbage(at=schedule[0].at, data=head + b"\r\n\r\n" + data),)

    return edit


# --- used again ------------------------------------------------------------------------------------------------------


async def test_all_polls_go_over_one_connection(world: World) -> None:
    async with world.client(engine_of(ready_after=300)) as client:
        await client.route("demo")
        await client.route("demo")
        assert world.opened == 1
        assert idle(client) == 1


async def test_work_goes_over_a_new_connection_unless_it_may_run_twice(world: World) -> None:
    async with world.client(Editing(engine_of())) as client:
        for _ in range(3):
            await client.call("demo", "/echo", {}, safe_to_repeat=True)
        assert world.opened == 2
        for _ in range(3):
            await client.call("demo", "/echo", {})
        assert world.opened == 5


async def test_a_worker_at_the_engines_address_gets_a_connection_of_its_own(world: World) -> None:
    url = "https://203.0.113.50:4000"
    engine = SimulatedEngine(SimulatedEndpoint("demo", worker_urls=[url]))
    worker = SimulatedEngine(SimulatedEndpoint("other", workers=1)).workers[0]

    def both(request: HttpRequest, now: float) -> Schedule:
        server = engine if request.target == "/route/" else worker
        return without(server.serve(request, now=now), "connection")

    async with world.client(both, engine=url) as client:
        for _ in range(2):
            assert (await client.call("demo", "/echo", {}, safe_to_repeat=True)).status == 200
        places = set(client.pool.inspect())
    assert places == {(Origin.parse(url), False), (Origin.parse(url), True)}
    assert world.opened == 2


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
@pytest.mark.parametrize("cut", [None, 1, 7])
async def test_answers_before_the_answer(world: World, at_worker: bool, cut: CutSizes) -> None:
    def edit(schedule: Schedule) -> Schedule:
        early = [Head(at=schedule[0].at, status=status) for status in (100, 102, 103)]
        return (*early, *schedule)

    async with world.client(Editing(engine_of(), edit, at_worker=at_worker), cut=cut) as client:
        assert (await client.call("demo", "/echo", {"a": 1})).data == {"echo": {"a": 1}}
        assert idle(client) == 2


async def test_too_many_answers_before_the_answer(world: World) -> None:
    def edit(schedule: Schedule) -> Schedule:
        return (*[Head(at=schedule[0].at, status=103)] * 9, *schedule)

    async with world.client(Editing(engine_of(), edit)) as client:
        with pytest.raises(CallFailed) as caught:
            await client.route("demo")
        assert caught.value.kind is FailureKind.TOO_LARGE
        assert world.open == 0


async def test_a_chunked_answer_in_pieces(world: World) -> None:
    def edit(schedule: Schedule) -> Schedule:
        head, body, _ = without(schedule, "content-length")
        assert isinstance(body, Chunk)
        pieces = [Chunk(at=head.at + n, data=bytes([byte])) for n, byte in enumerate(body.data)]
        return (head, *pieces, End(at=pieces[-1].at))

    async with world.client(Editing(engine_of(), edit, at_worker=True)) as client:
        assert (await client.call("demo", "/echo", {"a": 1})).data == {"echo": {"a": 1}}
        assert idle(client) == 2
        assert world.now() > BEGIN + 10


@pytest.mark.parametrize("at_worker", [False, True])
@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"])
async def test_bytes_that_nobody_asked_for_close_the_connection(world: World, at_worker: bool, more: bytes) -> None:
    def edit(schedule: Schedule) -> Schedule:
        head, body, _ = schedule
        assert isinstance(body, Chunk)
        return (head, attrs.evolve(body, data=body.data + more), *schedule[2:])

    # The head names the length of the honest body: what follows it is not part of the answer.
    async with world.client(Editing(engine_of(), edit, at_worker=at_worker)) as client:
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        assert got.data == {"echo": {"a": 1}}
        assert idle(client) == world.open == 1


# --- stale -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
async def test_a_poll_over_a_stale_connection_is_repeated_at_once(world: World, kind: FailureKind) -> None:
    server = Editing(engine_of(ready_after=20), closing_after(0.1, kind))
    async with world.client(server) as client:
        result = await client.route("demo", cost=5)
    counts = result.counts
    assert counts.repeats == counts.polls > 3
    assert (counts.retries, counts.possible_double_loads) == (0, 0)
    assert counts.asks == 1 + counts.polls + counts.repeats
    assert server.engine.load("demo") == 5
    assert world.opened == 1 + counts.repeats
    trouble = [entry for entry in result.record if entry.kind is EntryKind.TROUBLE]
    assert all("stale" in entry.detail for entry in trouble)


@pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
async def test_a_first_ask_over_a_stale_connection_is_repeated_once(world: World, kind: FailureKind) -> None:
    server = Editing(engine_of(), closing_after(5, kind))
    async with world.client(server) as client:
        await client.route("demo")
        await world.sleep(6)
        began = world.now()
        result = await client.route("demo")
        assert (result.counts.repeats, result.counts.possible_double_loads) == (1, 1)
        assert world.now() == began
        await world.sleep(6)
        with pytest.raises(CallFailed) as caught:
            await client.route("demo", policy=RetryPolicy(first_ask_repeats=0))
        assert caught.value.limit == "first_ask_repeats"
        assert caught.value.outcome is Outcome.PERHAPS_STARTED


async def test_a_server_that_always_closes_ends_in_an_error(world: World) -> None:
    engine = engine_of(faults={("demo", number): CloseBeforeHead() for number in range(2, 99)})
    async with world.client(engine) as client:
        await client.route("demo")
        with pytest.raises(CallFailed) as caught:
            await client.route("demo", policy=RetryPolicy(max_retries=2, first_ask_repeats=99))
        assert caught.value.counts is not None
        assert (caught.value.counts.repeats, caught.value.counts.retries) == (1, 2)
        assert world.open == 0


async def test_work_over_a_stale_connection_goes_to_another_grant(world: World) -> None:
    server = Editing(engine_of(), closing_after(5), at_worker=True)
    async with world.client(server) as client:
        await client.call("demo", "/echo", {}, safe_to_repeat=True)
        await world.sleep(6)
        got = await client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True)
        assert got.data == {"echo": {"a": 1}}
        assert got.counts.possible_double_runs == 1
    assert server.engine.asks == 3


# --- bounded ---------------------------------------------------------------------------------------------------------


async def test_a_connection_is_not_kept_longer_than_it_may_be(world: World) -> None:
    async with world.client(engine_of(), pool=PoolLimits(idle_seconds=10)) as client:
        await client.route("demo")
        await world.sleep(9)
        await client.route("demo")
        assert world.opened == 1
        await world.sleep(10)
        await client.route("demo")
        assert world.opened == 2
        assert world.open == 1


async def test_what_is_idle_is_bounded_in_number(world: World) -> None:
    engine = Editing(engine_of(workers=5))
    async with world.client(engine, pool=PoolLimits(max_idle=2)) as client:
        for _ in range(5):
            await client.call("demo", "/echo", {}, safe_to_repeat=True)
            assert idle(client) == world.open <= 2
    async with world.client(engine, pool=PoolLimits(max_idle=0)) as client:
        for _ in range(3):
            await client.call("demo", "/echo", {}, safe_to_repeat=True)
            assert idle(client) == world.open == 0


async def test_one_connection_to_each_origin_is_enough(world: World) -> None:
    engine = Editing(engine_of(ready_after=30, workers=2))
    async with world.client(engine, pool=PoolLimits(max_connections=1)) as client:
        for safe in (True, False, True, False):
            await client.call("demo", "/echo", {}, safe_to_repeat=safe)
            async with client.stream("demo", "/stream", {}, safe_to_repeat=safe) as events:
                assert [event async for event in events]
            assert world.open == idle(client)
            assert all(len(holding.idle) == 1 for holding in client.pool.inspect().values())


async def test_closing_the_client_closes_what_is_idle(world: World) -> None:
    async with world.client(Editing(engine_of())) as client:
        await client.call("demo", "/echo", {})
        assert world.open == 2
        await client.aclose()
        assert world.open == idle(client) == 0
        await client.aclose()
        await client.call("demo", "/echo", {})
        assert world.open == idle(client) == 0, "a client that is closed works on, and keeps nothing"


async def test_what_is_in_use_when_the_client_closes_is_closed_at_its_end(world: World) -> None:
    client = world.client(engine_of())
    async with client.stream("demo", "/stream", {}) as events:
        await client.aclose()
        assert world.open == 1
        assert len([event async for event in events]) == 4
        assert world.open == 0


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
