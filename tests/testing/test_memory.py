"""Calls against simulated servers in virtual time: over messages, over trio's streams and over blocking ones.

The same schedules must come to the same end everywhere, at the same instants; what only bytes can show is shown apart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeVar

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

import vastroute_io.blocking
import vastroute_io.trio
from vastroute import (
    ENGINE,
    Call,
    CallFailed,
    Counts,
    Done,
    Entry,
    EntryKind,
    FailureKind,
    GiveUp,
    Guard,
    HttpRequest,
    InvalidValue,
    KeyRefused,
    LimitReached,
    Limits,
    LocalProtocolError,
    Origin,
    Outcome,
    PoolLimits,
    Receive,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    RouteResult,
    Send,
    ServerSentEvent,
    SignatureRefused,
    UnexpectedAnswer,
    WaitUntil,
    WorkerRequest,
)
from vastroute_testing import (
    BEGIN,
    TEST_KEY,
    TEST_PUBLIC_KEY,
    BadJson,
    BadSignature,
    BlockingMemoryStream,
    Chunk,
    CloseBeforeHead,
    Cut,
    CutBody,
    CutSizes,
    Delay,
    Drive,
    DropIndex,
    End,
    Fault,
    Garbage,
    Garbled,
    Hang,
    Head,
    Html,
    ManualClock,
    MemoryStream,
    Padded,
    Redirect,
    Refuse,
    ResetBeforeHead,
    Road,
    Schedule,
    ServerConnection,
    Servers,
    SimulatedEndpoint,
    SimulatedEngine,
    Slow,
    Status,
    Transcript,
    WorkerPlan,
    answer,
    blocking_connector,
    connector,
    json_answer,
    run,
)
from vastroute_testing.memory import Client

T = TypeVar("T")
NOT_READY = {"endpoint": "demo", "request_idx": 7, "status": "1 loading"}
GUARD = Guard(allow_private_address=True)
REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"


def half() -> float:
    return 0.5


def route_call(clock: ManualClock, *, seconds: float = 900.0, limits: Limits = Limits(), **policy: Any) -> RouteCall:
    return RouteCall(
        RouteRequest(endpoint="demo"),
        key=TEST_KEY,
        rng=half,
        deadline=clock() + seconds,
        policy=RetryPolicy(**policy),
        limits=limits,
    )


def asked(*steps: Callable[[float], Schedule], **options: Any) -> tuple[Transcript[RouteResult], ManualClock]:
    """A route call whose asks are answered by these, one after the other; the last for ever."""
    clock = ManualClock()
    left = list(steps)

    def serve(_request: HttpRequest, now: float) -> Schedule:
        return (left.pop(0) if len(left) > 1 else left[0])(now)

    return run(route_call(clock, **options), serve, clock), clock


def granted(now: float) -> Schedule:
    grant = {"endpoint": "demo", "url": "https://203.0.113.1:1", "cost": 100.0, "reqnum": 1, "signature": "c2VjcmV0"}
    return json_answer(200, grant | {"request_idx": 7}, at=now)


def waiting(now: float) -> Schedule:
    return json_answer(200, NOT_READY, at=now)


def silent(_now: float) -> Schedule:
    return ()


def virtual(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` under trio in virtual time."""
    return trio.run(main, clock=MockClock(autojump_threshold=0))


class TestOverMessages:
    def test_a_grant_at_once(self) -> None:
        transcript, clock = asked(granted)
        assert transcript.result().grant.url == "https://203.0.113.1:1"
        assert [type(action) for action in transcript.actions] == [Send, Receive, Done]
        assert isinstance(transcript.outcome, Done)
        assert transcript.error is None
        assert transcript.seconds == 0.0
        (received,) = transcript.requests
        assert received.at == clock()
        assert received.request.headers.get("authorization") == f"Bearer {TEST_KEY}"

    def test_waits_pass_at_once(self) -> None:
        transcript, _ = asked(waiting, waiting, granted)
        kinds = [type(action) for action in transcript.actions]
        assert kinds == [Send, Receive, WaitUntil, Send, Receive, WaitUntil, Send, Receive, Done]
        assert len(transcript.requests) == 3
        assert transcript.seconds == pytest.approx(0.75 + 1.125)

    def test_its_text_is_a_line_for_each_thing_that_happened(self) -> None:
        transcript, _ = asked(waiting, lambda now: answer(503, at=now + 0.25), granted)
        assert str(transcript).splitlines() == [
            "     0.000 s  route 1: asked",
            "     0.000 s  route 1: not ready, HTTP 200, 1 loading",
            "     0.000 s  route 1: waiting, poll",
            "     0.750 s  route 2: asked",
            "     1.000 s  route 2: trouble, HTTP 503, the engine is busy or failing",
            "     1.000 s  route 2: waiting, retry",
            "     1.375 s  route 3: asked",
            "     1.375 s  route 3: granted, https://203.0.113.1:1",
            "     1.375 s  done",
        ]

    def test_neither_its_text_nor_its_repr_shows_a_secret(self) -> None:
        for transcript, _ in (asked(granted), asked(silent), asked(lambda now: answer(401, at=now))):
            shown = str(transcript) + repr(transcript) + repr(transcript.requests) + repr(transcript.actions)
            assert TEST_KEY not in shown
            assert "c2VjcmV0" not in shown

    def test_a_call_that_gives_up_is_no_exception_until_its_result_is_wanted(self) -> None:
        transcript, _ = asked(lambda now: answer(404, b"no", at=now))
        assert isinstance(transcript.outcome, GiveUp)
        assert transcript.error is transcript.outcome.error
        assert (
            str(transcript).splitlines()[-1].endswith(f"gave up: {type(transcript.error).__name__}: {transcript.error}")
        )
        with pytest.raises(CallFailed) as caught:
            transcript.result()
        assert caught.value is transcript.error

    def test_silence_is_a_time_out_at_the_deadline(self) -> None:
        transcript, _ = asked(silent, granted, ask_limit=10.0)
        trouble = entry(transcript, EntryKind.TROUBLE)
        assert trouble.at - transcript.began == 10.0
        assert FailureKind.TIMEOUT.value in trouble.detail
        assert transcript.result().counts.retries == 1

    @pytest.mark.parametrize("at", [10.0, 10.5, inf])
    def test_what_comes_at_the_deadline_or_later_is_too_late(self, at: float) -> None:
        late = lambda now: answer(200, at=now + at)  # noqa: E731 - a schedule like the others
        transcript, _ = asked(late, max_retries=0, ask_limit=10.0)
        assert transcript.error is not None
        assert transcript.error.kind is FailureKind.TIMEOUT
        assert transcript.error.outcome is Outcome.PERHAPS_STARTED
        assert transcript.seconds == 10.0

    def test_the_head_alone_does_not_move_an_asks_deadline(self) -> None:
        transcript, _ = asked(lambda now: (Head(at=now + 9, status=200),), max_retries=0, ask_limit=10.0)
        assert transcript.seconds == 10.0
        assert [type(action) for action in transcript.actions] == [Send, Receive, GiveUp]

    @pytest.mark.parametrize(
        ("step", "kind", "outcome"),
        [
            (Cut(at=0.0), FailureKind.EOF, Outcome.PERHAPS_STARTED),
            (Cut(at=0.0, kind=FailureKind.RESET), FailureKind.RESET, Outcome.PERHAPS_STARTED),
            (Cut(at=0.0, kind=FailureKind.REFUSED), FailureKind.REFUSED, Outcome.NOT_SENT),
            (Garbage(at=0.0), FailureKind.GARBAGE, Outcome.PERHAPS_STARTED),
        ],
    )
    def test_how_an_exchange_can_break(self, step: Cut | Garbage, kind: FailureKind, outcome: Outcome) -> None:
        transcript, _ = asked(lambda _now: (step,), max_retries=0)
        assert transcript.error is not None
        assert transcript.error.kind is kind
        assert transcript.error.outcome is outcome
        assert len(transcript.requests) == (outcome is not Outcome.NOT_SENT)

    def test_a_cut_in_the_middle_of_the_body(self) -> None:
        transcript, _ = asked(lambda now: (*waiting(now)[:2], Cut(at=now + 1)), max_retries=0)
        assert transcript.error is not None
        assert transcript.error.kind is FailureKind.EOF
        assert transcript.seconds == 1.0

    def test_where_nobody_listens_the_connection_is_refused(self) -> None:
        clock = ManualClock()
        transcript = run(route_call(clock, max_retries=0), {"https://elsewhere.example": lambda _r, _n: ()}, clock)
        assert transcript.error is not None
        assert transcript.error.kind is FailureKind.REFUSED
        assert transcript.requests == ()

    def test_what_no_machine_hears_of(self) -> None:
        def serve(now: float) -> Schedule:
            head, *rest = granted(now + 1)
            return (Head(at=now, status=103), head, Chunk(at=now + 1, data=b""), *rest)

        transcript, _ = asked(serve)
        assert transcript.result().grant.reqnum == 1
        assert [type(action) for action in transcript.actions] == [Send, Receive, Done]

    def test_too_much_of_a_body_is_read_no_further(self) -> None:
        def serve(now: float) -> Schedule:
            return (Head(at=now, status=200), *[Chunk(at=now + n, data=b"x" * 50) for n in range(9)], End(at=now + 9))

        transcript, _ = asked(serve, limits=Limits(max_body=120))
        assert isinstance(transcript.error, UnexpectedAnswer)
        assert transcript.error.kind is FailureKind.TOO_LARGE
        assert transcript.seconds == 2.0

    def test_a_schedule_that_cannot_be_is_a_mistake_of_the_test(self) -> None:
        with pytest.raises(InvalidValue, match="schedule"):
            asked(lambda now: (End(at=now),))

    def test_an_observer_hears_of_everything_once(self) -> None:
        clock = ManualClock()
        heard: list[Entry] = []
        engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=3.0))
        transcript = run(route_call(clock), engine, clock, observer=heard.append)
        assert heard == list(transcript.record)
        assert heard

    def test_without_a_clock_it_makes_one(self) -> None:
        call = route_call(ManualClock())
        assert run(call, lambda _request, now: granted(now)).result() is call.result()

    def test_whoever_steps_sees_a_stream_event_by_event(self) -> None:
        clock = ManualClock()
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[WorkerPlan(pace=2.0)]))
        work = WorkerRequest(route="/stream", payload={"input": {}}, stream=True)
        call = Call(route_call(clock), work, guard=GUARD)
        drive = Drive(call, engine, clock)
        came: list[float] = []
        while drive.step():
            while (event := call.next_event(now=clock())) is not None:
                assert isinstance(event, ServerSentEvent)
                came.append(clock())
        assert len(came) > 2
        assert came == sorted(set(came))
        assert drive.run().result().status == 200


def entry(transcript: Transcript[Any], kind: EntryKind) -> Entry:
    return next(each for each in transcript.record if each.kind is kind)


class TestClient:
    def test_a_cold_start_of_seven_minutes(self) -> None:
        with Client(server=SimulatedEngine(SimulatedEndpoint("demo", workers=2, ready_after=420.0))) as client:
            began = client.clock()
            result = client.route("demo")
        assert 420.0 <= client.clock() - began < 425.0
        assert result.counts.polls > 80
        (transcript,) = client.transcripts
        assert transcript.result() is result

    def test_a_call_over_both_hops(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=60.0))
        client = Client(server=engine)
        reply = client.call("demo", "/echo", {"x": 1}, cost=5.0)
        assert reply.status == 200
        engine_request, worker_request = client.transcripts[0].requests[-2:]
        assert engine_request.request.origin == ENGINE
        assert worker_request.request.origin == Origin.parse(engine.workers[0].url)
        assert worker_request.request.headers.get("authorization") is None

    def test_a_call_that_gives_up_raises_and_leaves_its_transcript(self) -> None:
        client = Client(server=SimulatedEngine(SimulatedEndpoint("demo", ready_after=inf)))
        with pytest.raises(LimitReached) as caught:
            client.route("demo", timeout=30.0)
        assert client.transcripts[0].error is caught.value
        assert client.transcripts[0].seconds <= 30.0

    def test_signatures_are_checked_where_that_is_asked_for(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 2): BadSignature()}))
        client = Client(server=engine, signature="require")
        assert client.route("demo").verdict.verified
        with pytest.raises(SignatureRefused):
            client.route("demo")
        assert [each.requests[0].request.target for each in client.transcripts] == ["/pubkey/", "/route/", "/route/"]
        assert client.fetch_public_key() is client.fetch_public_key()
        assert Client(server=engine, public_key=TEST_PUBLIC_KEY).route("demo").verdict.verified

    def test_an_accounts_key_finds_the_endpoints_own(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        client = Client(server=engine, key="test-account-key")
        assert client.route("demo").grant.endpoint == "demo"
        assert [each.name for each in client.endpoints()] == ["demo"]
        assert len(client.workers("demo")) == 1
        with pytest.raises(KeyRefused):
            Client(server=engine, key="test-account-key", find_key=False).route("demo")
        with pytest.raises(KeyRefused):
            Client(server=engine, key="nobody's").route("demo")

    def test_it_looks_for_no_key_around_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VAST_API_KEY", "a-real-key")
        client = Client(server=lambda _request, now: granted(now))
        client.route("demo")
        assert client.transcripts[0].requests[0].request.headers.get("authorization") == f"Bearer {TEST_KEY}"

    def test_the_same_again_is_the_same(self) -> None:
        def once() -> str:
            client = Client(server=SimulatedEngine(SimulatedEndpoint("demo", ready_after=30.0)))
            client.call("demo", "/echo", {"x": 1})
            return str(client.transcripts[0])

        assert once() == once()


# The same at every level

Told = list[tuple[str, str, int, float, int | None]]


def told(entries: list[Entry]) -> Told:
    """What happened and when, but for words."""
    return [(e.kind.value, e.phase.value, e.attempt, round(e.at - entries[0].at, 6), e.status) for e in entries]


def tally(counts: Counts) -> str:
    """The counts, but for what two clocks' arithmetic makes of their last digits."""
    return ", ".join(f"{name}={round(value, 6)}" for name, value in attrs.asdict(counts).items())


OPTIONS: dict[str, Any] = {"key": TEST_KEY, "rng": half, "guard": GUARD, "proxy": None, "find_key": False}


def over_messages(server: Servers, work: dict[str, Any] | None, policy: RetryPolicy) -> tuple[Told, str]:
    heard: list[Entry] = []
    client = Client(server=server, policy=policy, observer=heard.append, **OPTIONS)
    try:
        ended = tally((client.route("demo") if work is None else client.call("demo", "/echo", work)).counts)
    except CallFailed as error:
        ended = f"{type(error).__name__} {error.kind} {error.outcome}"
    return told(heard), ended


def over_trio(
    server: Servers, work: dict[str, Any] | None, policy: RetryPolicy, *, cut: CutSizes = None
) -> tuple[Told, str]:
    heard: list[Entry] = []

    async def main() -> str:
        streams = connector(server, cut=cut)
        options = OPTIONS | {"pool": PoolLimits(max_idle=0), "policy": policy, "observer": heard.append}
        async with vastroute_io.trio.Client(connect=streams, **options) as client:
            try:
                result = await (client.route("demo") if work is None else client.call("demo", "/echo", work))
                return tally(result.counts)
            except CallFailed as error:
                return f"{type(error).__name__} {error.kind} {error.outcome}"
            finally:
                assert streams.open == 0

    ended = virtual(main)
    return told(heard), ended


def over_blocking(
    server: Servers, work: dict[str, Any] | None, policy: RetryPolicy, *, cut: CutSizes = None
) -> tuple[Told, str]:
    heard: list[Entry] = []
    clock = ManualClock()
    streams = blocking_connector(server, clock, cut=cut)
    options = OPTIONS | {"pool": PoolLimits(max_idle=0), "policy": policy, "observer": heard.append}
    with vastroute_io.blocking.Client(connect=streams, clock=clock, **options) as client:
        try:
            ended = tally((client.route("demo") if work is None else client.call("demo", "/echo", work)).counts)
        except CallFailed as error:
            ended = f"{type(error).__name__} {error.kind} {error.outcome}"
        assert streams.open == 0
    return told(heard), ended


FAULTS: list[Fault] = [
    CloseBeforeHead(),
    ResetBeforeHead(),
    Garbled(),
    CutBody(5),
    CutBody(5, kind=FailureKind.RESET),
    Hang(),
    Hang(after_bytes=3),
    Delay(4.0),
    Delay(10.0),
    Delay(11.0),
    Slow(50.0),
    Status(503, retry_after=3),
    Status(429),
    Redirect("https://elsewhere.example/"),
    Html(),
    BadJson(),
    Padded(100_000),
    DropIndex(),
]


class TestTheSameEverywhere:
    policy = RetryPolicy(total=60.0, ask_limit=10.0)

    def engine(self, *faults: Fault, ready_after: float = 2.0, worker: WorkerPlan | None = None) -> SimulatedEngine:
        planned = {("demo", number): fault for number, fault in enumerate(faults, 1)}
        workers: Any = 1 if worker is None else [worker]
        return SimulatedEngine(SimulatedEndpoint("demo", workers=workers, ready_after=ready_after, faults=planned))

    def check(self, make: Callable[[], SimulatedEngine], work: dict[str, Any] | None) -> None:
        expected = over_messages(make(), work, self.policy)
        assert over_trio(make(), work, self.policy) == expected
        assert over_blocking(make(), work, self.policy) == expected

    def test_a_worker_that_takes_no_connection(self) -> None:
        plan = WorkerPlan(dies_after=1.0, noticed_after=5.0)
        self.check(lambda: self.engine(worker=plan, ready_after=0.0), {"x": 1})

    @settings(max_examples=40)
    @given(faults=st.lists(st.sampled_from(FAULTS), max_size=5), ready_after=st.floats(0.0, 80.0))
    def test_any_row_of_faults(self, faults: list[Fault], ready_after: float) -> None:
        self.check(lambda: self.engine(*faults, ready_after=ready_after), {"x": 1})

    @pytest.mark.parametrize("over", [over_trio, over_blocking])
    def test_a_head_that_does_not_come_at_once_is_waited_for(self, over: Callable[..., tuple[Told, str]]) -> None:
        def serve(_request: HttpRequest, now: float) -> Schedule:
            return (Head(at=now, status=103), *granted(now + 5))

        _, ended = over(at_most(serve, 5), None, self.policy)
        assert "asks=1," in ended


def at_most(server: Any, most: int) -> Servers:
    """`server` for that many requests: a driver that asks without an end fails instead of asking for ever."""
    count = iter(range(most))

    @attrs.define
    class Bounded:
        def serve(self, request: HttpRequest, *, now: float) -> Schedule:
            assert next(count, None) is not None, "the client asks and asks"
            if hasattr(server, "serve"):
                origin = server.worker_at(request.origin) or server
                served: Schedule = origin.serve(request, now=now)
                return served
            answered: Schedule = server(request, now)
            return answered

    return Bounded()


# What only bytes can show


class TestKeptConnections:
    def test_one_connection_serves_many_calls(self) -> None:
        async def main() -> int:
            streams = connector(SimulatedEngine(SimulatedEndpoint("demo")))
            async with vastroute_io.trio.Client(connect=streams, **OPTIONS) as client:
                for _ in range(5):
                    await client.route("demo")
                assert streams.open == 1
            assert streams.open == 0
            return len(streams.streams)

        assert virtual(main) == 1

    @pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
    def test_one_that_was_closed_while_idle_is_replaced_before_the_ask(self, kind: FailureKind) -> None:
        def serve(_request: HttpRequest, now: float) -> Schedule:
            return (*granted(now), Cut(at=now + 5, kind=kind))

        async def main() -> int:
            streams = connector(serve)
            async with vastroute_io.trio.Client(connect=streams, **OPTIONS) as client:
                await client.route("demo")
                await trio.sleep(4)
                assert (await client.route("demo")).counts.repeats == 0
                await trio.sleep(4)
                began = trio.current_time()
                result = await client.route("demo")
                assert (result.counts.asks, result.counts.repeats) == (1, 0)
                assert trio.current_time() == began
            return len(streams.streams)

        assert virtual(main) == 2

    def test_blocking_clients_keep_them_too(self) -> None:
        clock = ManualClock()
        streams = blocking_connector(SimulatedEngine(SimulatedEndpoint("demo")), clock)
        with vastroute_io.blocking.Client(connect=streams, clock=clock, **OPTIONS) as client:
            for _ in range(5):
                client.route("demo")
            assert streams.open == 1
        assert streams.open == 0
        assert len(streams.streams) == 1

    def test_a_refused_connection_is_refused_before_there_is_a_request(self) -> None:
        origin = Origin.parse("https://nobody.example")

        async def main() -> None:
            with pytest.raises(ConnectionRefusedError):
                await connector({})(origin)

        virtual(main)
        with pytest.raises(ConnectionRefusedError):
            blocking_connector({}, ManualClock())(origin, inf)


def always(schedule: Callable[[float], Schedule]) -> Callable[[HttpRequest, float], Schedule]:
    return lambda _request, now: schedule(now)


def body(seconds: float, data: bytes, kind: FailureKind | None = None) -> Callable[[float], Schedule]:
    """An answer whose body comes at once and after `seconds`, half and half; then the connection ends like `kind`."""

    def schedule(now: float) -> Schedule:
        half = len(data) // 2
        head = Head(at=now, status=200)
        first, second = Chunk(at=now, data=data[:half]), Chunk(at=now + seconds, data=data[half:])
        return (head, first, second, End(at=now + seconds) if kind is None else Cut(at=now + seconds, kind=kind))

    return schedule


class TestTrioStream:
    def stream(self, schedule: Callable[[float], Schedule], *, cut: CutSizes = None) -> MemoryStream:
        return MemoryStream(ServerConnection(always(schedule)), cut=cut)

    def test_bytes_come_at_their_time(self) -> None:
        async def main() -> None:
            stream = self.stream(body(600.0, b"helloyou"))
            await stream.send_all(REQUEST)
            first = await stream.receive_some()
            assert first.endswith(b"\r\n4\r\nhell\r\n")
            assert trio.current_time() == 0.0
            assert await stream.receive_some() == b"4\r\noyou\r\n0\r\n\r\n"
            assert trio.current_time() == 600.0
            with trio.move_on_after(5) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught

        virtual(main)

    @pytest.mark.parametrize(("cut", "sizes"), [(3, [3, 3, 3]), ([1, 5], [1, 5, 1])])
    def test_pieces_have_the_wanted_sizes(self, cut: CutSizes, sizes: list[int]) -> None:
        async def main() -> None:
            stream = self.stream(waiting, cut=cut)
            await stream.send_all(memoryview(REQUEST))
            assert [len(await stream.receive_some()) for _ in sizes] == sizes
            assert len(await stream.receive_some(1)) == 1

        virtual(main)

    @pytest.mark.parametrize("cut", [0, -1, [], [1, 0], 1.5, "7"])
    def test_other_sizes_are_refused(self, cut: Any) -> None:
        with pytest.raises((InvalidValue, TypeError)):
            self.stream(waiting, cut=cut)

    def test_a_cancelled_receive_loses_nothing(self) -> None:
        async def main() -> bytes:
            stream = self.stream(body(10.0, b"helloyou"))
            await stream.send_all(REQUEST)
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                with trio.move_on_after(3):
                    got += await stream.receive_some(5)
                with trio.CancelScope() as scope:
                    scope.cancel()
                    got += await stream.receive_some(5)
            assert trio.current_time() == 10.0
            return got

        assert virtual(main).endswith(b"4\r\nhell\r\n4\r\noyou\r\n0\r\n\r\n")

    def test_a_cancelled_send_sends_nothing(self) -> None:
        async def main() -> None:
            stream = self.stream(waiting)
            with trio.CancelScope() as scope:
                scope.cancel()
                await stream.send_all(REQUEST)
            assert scope.cancelled_caught
            with trio.move_on_after(1) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught

        virtual(main)

    def test_the_end_stays_the_end(self) -> None:
        async def main() -> None:
            stream = self.stream(body(2.0, b"helloyou", FailureKind.EOF))
            await stream.send_all(REQUEST)
            assert await stream.receive_some()
            assert await stream.receive_some()
            for _ in range(2):
                assert await stream.receive_some() == b""
                await stream.send_all(REQUEST)
            assert trio.current_time() == 2.0

        virtual(main)

    def test_a_reset_is_an_error_in_both_directions(self) -> None:
        async def main() -> None:
            stream = self.stream(body(2.0, b"helloyou", FailureKind.RESET))
            await stream.send_all(REQUEST)
            assert await stream.receive_some()
            assert (await stream.receive_some()).startswith(b"4\r\noyou")
            for _ in range(2):
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.receive_some()
                assert isinstance(caught.value.__cause__, ConnectionResetError)
                with pytest.raises(trio.BrokenResourceError):
                    await stream.send_all(REQUEST)

        virtual(main)

    def test_closing_wakes_who_is_waiting(self) -> None:
        async def main() -> None:
            stream = self.stream(waiting)

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await stream.receive_some()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await stream.receive_some()
                await stream.aclose()
                await stream.aclose()
            assert stream.closed
            for refused in (stream.receive_some, stream.wait_send_all_might_not_block, lambda: stream.send_all(b"x")):
                with pytest.raises(trio.ClosedResourceError):
                    await refused()

        virtual(main)

    def test_an_answer_that_is_due_earlier_overtakes_the_end_that_was_awaited(self) -> None:
        async def main() -> None:
            served = iter([(*waiting(0.0), Cut(at=100.0)), waiting(0.0)])
            stream = MemoryStream(ServerConnection(lambda _request, _now: next(served)))
            await stream.send_all(REQUEST)
            await stream.receive_some()

            async def ask_again() -> None:
                await trio.sleep(7)
                await stream.wait_send_all_might_not_block()
                await stream.send_all(REQUEST)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask_again)
                assert await stream.receive_some()
                assert trio.current_time() == 7.0

        virtual(main)

    def test_nothing_is_no_amount(self) -> None:
        async def main() -> None:
            with pytest.raises(ValueError, match="max_bytes"):
                await self.stream(waiting).receive_some(0)

        virtual(main)


class TestBlockingStream:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock(100.0)

    def stream(
        self, schedule: Callable[[float], Schedule], clock: ManualClock, cut: CutSizes = None
    ) -> BlockingMemoryStream:
        return BlockingMemoryStream(ServerConnection(always(schedule)), clock, cut=cut)

    def test_bytes_come_at_their_time(self, clock: ManualClock) -> None:
        stream = self.stream(body(600.0, b"helloyou"), clock)
        stream.send_all(REQUEST, deadline=101.0)
        assert stream.receive_some(65536, deadline=101.0).endswith(b"\r\n4\r\nhell\r\n")
        assert clock() == 100.0
        assert stream.receive_some(5, deadline=inf) == b"4\r\noy"
        assert clock() == 700.0
        assert stream.receive_some(100, deadline=inf) == b"ou\r\n0\r\n\r\n"

    @pytest.mark.parametrize("deadline", [150.0, 110.0])
    def test_a_deadline_is_passed_to_and_kept(self, clock: ManualClock, deadline: float) -> None:
        stream = self.stream(lambda now: answer(200, at=now + 50.0), clock)
        stream.send_all(REQUEST, deadline=deadline)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                stream.receive_some(10, deadline=deadline)
            assert clock() == deadline
        with pytest.raises(TimeoutError):
            stream.send_all(REQUEST, deadline=deadline)
        assert stream.receive_some(10, deadline=151.0)

    def test_what_would_hang_for_ever_is_a_mistake_of_the_test(self, clock: ManualClock) -> None:
        stream = self.stream(silent, clock)
        stream.send_all(REQUEST, deadline=inf)
        with pytest.raises(LocalProtocolError, match="for ever"):
            stream.receive_some(10, deadline=inf)
        assert clock() == 100.0

    def test_the_end_stays_the_end(self, clock: ManualClock) -> None:
        stream = self.stream(lambda now: (Cut(at=now + 1),), clock)
        stream.send_all(REQUEST, deadline=inf)
        for _ in range(2):
            assert stream.receive_some(10, deadline=inf) == b""
            stream.send_all(REQUEST, deadline=inf)

    def test_a_reset_is_an_error_in_both_directions(self, clock: ManualClock) -> None:
        stream = self.stream(lambda now: (Cut(at=now + 1, kind=FailureKind.RESET),), clock)
        stream.send_all(REQUEST, deadline=inf)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                stream.receive_some(10, deadline=inf)
            with pytest.raises(ConnectionResetError):
                stream.send_all(REQUEST, deadline=inf)

    def test_once_closed_it_is_of_no_use(self, clock: ManualClock) -> None:
        stream = self.stream(waiting, clock)
        stream.close()
        stream.close()
        with pytest.raises(OSError, match="closed"):
            stream.send_all(REQUEST, deadline=inf)
        with pytest.raises(OSError, match="closed"):
            stream.receive_some(10, deadline=inf)

    @pytest.mark.parametrize(("cut", "sizes"), [(3, [3, 3, 3]), ([1, 5], [1, 5, 1])])
    def test_pieces_have_the_wanted_sizes(self, clock: ManualClock, cut: CutSizes, sizes: list[int]) -> None:
        stream = self.stream(waiting, clock, cut)
        stream.send_all(REQUEST, deadline=inf)
        assert [len(stream.receive_some(100, deadline=inf)) for _ in sizes] == sizes


class TestRoads:
    def test_one_for_each_origin(self) -> None:
        clock = ManualClock()
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        connect = blocking_connector(engine, clock, roads=lambda origin: Road(connecting=5 * (origin == ENGINE)))
        connect(Origin.parse("https://elsewhere.example"), inf)
        assert clock() == BEGIN
        connect(ENGINE, inf)
        assert clock() == BEGIN + 5
        with pytest.raises(TimeoutError):
            connect(ENGINE, clock() + 5)
        assert clock() == BEGIN + 10
        assert connect.open == 2

    def test_one_that_has_no_end_is_a_mistake_without_a_deadline(self) -> None:
        clock = ManualClock()
        connect = blocking_connector(lambda _request, now: granted(now), clock, roads=Road(sending=inf))
        stream = connect(ENGINE, inf)
        with pytest.raises(LocalProtocolError, match="would hang for ever"):
            stream.send_all(REQUEST, deadline=inf)
        with pytest.raises(TimeoutError):
            stream.send_all(REQUEST, deadline=clock() + 3)
        assert clock() == BEGIN + 3

    @pytest.mark.parametrize("seconds", [-1, "5", True])
    def test_it_takes_seconds(self, seconds: Any) -> None:
        with pytest.raises(InvalidValue, match="connecting must be a number of at least 0"):
            Road(connecting=seconds)


class TestManualClock:
    def test_it_passes_when_it_is_told_to_and_never_backwards(self) -> None:
        clock = ManualClock()
        begin = clock()
        clock.advance(2.5)
        clock.sleep_until(begin)
        assert clock() == begin + 2.5
        clock.sleep_until(begin + 10)
        assert repr(clock) == f"<ManualClock at {begin + 10}>"
        for wrong in (-1.0, float("nan")):
            with pytest.raises(InvalidValue):
                clock.advance(wrong)


def test_a_refusing_fault_means_the_same_up_to_how_much_was_sent() -> None:
    """Over bytes a request is known only once it is sent, so that such a fault resets there."""
    policy = RetryPolicy(total=60.0, max_retries=0)

    def make() -> SimulatedEngine:
        return SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 1): Refuse()}))

    assert over_messages(make(), None, policy)[1].endswith("REFUSED Outcome.NOT_SENT")
    assert over_trio(make(), None, policy)[1].endswith("RESET Outcome.PERHAPS_STARTED")
    assert over_blocking(make(), None, policy)[1].endswith("RESET Outcome.PERHAPS_STARTED")
