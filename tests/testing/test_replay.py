"""What is recorded over any transport is replayed over any other: the same end, at the same instants."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from trio.testing import MockClock

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import (
    Answer,
    CallFailed,
    Guard,
    HttpRequest,
    InvalidValue,
    Record,
    RetryPolicy,
    WorkPolicy,
)
from vastroute_io.recording import Recorder
from vastroute_io.redaction import plain_record
from vastroute_testing import (
    TEST_KEY,
    TEST_PUBLIC_KEY,
    BadJson,
    BadSignature,
    CloseBeforeHead,
    CutBody,
    CutStreamAt,
    Delay,
    DropField,
    DropIndex,
    Garbled,
    Hang,
    Html,
    ManualClock,
    OtherIndex,
    Padded,
    Redirect,
    Refuse,
    ReplayDiffers,
    ResetBeforeHead,
    Servers,
    SetField,
    SimulatedEndpoint,
    SimulatedEngine,
    Slow,
    Status,
    VirtualLoop,
    WorkerPlan,
    asyncio_connector,
    blocking_connector,
    connector,
    replay,
)
from vastroute_testing.memory import Client

Options: TypeAlias = dict[str, Any]


@attrs.frozen
class End:
    """How a call ended: what programs read of it, its record, and what its stream gave."""

    facts: Mapping[str, Any]
    record: list[dict[str, Any]]
    events: int | None = None


def end_of(result: Answer | CallFailed, events: int | None = None) -> End:
    names = ("phase", "outcome", "advice", "status", "request_idx", "kind", "limit", "retry_after")
    if isinstance(result, CallFailed):
        facts = {"class": type(result)} | {name: getattr(result, name) for name in names}
        verdict = result.verdict
    else:
        facts = {"status": result.status, "type": result.content_type, "length": len(result.body)}
        facts |= {"data": type(result.data), "request_idx": result.request_idx, "differences": result.differences}
        verdict = result.verdict
    facts["verdict"] = None if verdict is None else (verdict.reason, verdict.form)
    assert result.counts is not None
    counts = attrs.asdict(result.counts)
    facts |= {name: round(value, 6) for name, value in counts.items()}
    record = result.record if result.record is not None else Record()
    return End(facts, plain_record(record, began=record[0].at), events)


@attrs.frozen(kw_only=True)
class Scene:
    """A call of `route` in a world with these faults."""

    name: str
    engine: tuple[Any, ...] = ()
    """What goes wrong at the engine, ask by ask."""
    worker: tuple[Any, ...] = ()
    """What goes wrong at the first worker."""
    route: str = "/echo"
    payload: Mapping[str, Any] = attrs.field(factory=lambda: {"prompt": "private"})
    stream: bool = False
    call: Options = attrs.field(factory=dict)
    client: Options = attrs.field(factory=dict)
    endpoint: Options = attrs.field(factory=dict)
    plan: WorkerPlan = WorkerPlan()
    key: str = TEST_KEY

    def servers(self) -> SimulatedEngine:
        plan = attrs.evolve(
            self.plan, faults={(self.route, n): fault for n, fault in enumerate(self.worker, 1) if fault}
        )
        faults = {("demo", n): fault for n, fault in enumerate(self.engine, 1) if fault}
        endpoint: Options = {"workers": [plan, WorkerPlan(ready_after=1.0)]} | self.endpoint
        return SimulatedEngine(SimulatedEndpoint("demo", faults=faults, **endpoint))

    def options(self, **more: Any) -> Options:
        known = {"key": self.key, "public_key": TEST_PUBLIC_KEY, "guard": Guard(allow_private_address=True)}
        return known | self.client | more


SAFE: Options = {"safe_to_repeat": True}
ONCE: Options = {"policy": RetryPolicy(max_retries=0)}
SCENES = (
    Scene(name="all is well"),
    Scene(name="a cold start", endpoint={"workers": 2, "ready_after": 420.0}),
    Scene(name="never ready", endpoint={"workers": 1, "ready_after": 1e6}, call={"timeout": 60.0}),
    Scene(name="stopped", endpoint={"stopped": True}),
    Scene(name="busy, then ready", engine=(Status(503, retry_after=7), Status(429), Html(status=502))),
    Scene(name="busy for ever", engine=(Status(503),) * 30),
    Scene(name="slow", engine=(Delay(3), Slow(100))),
    Scene(name="silent", engine=(Hang(), Hang(after_bytes=20))),
    Scene(name="garbled", engine=(Garbled(), ResetBeforeHead(), CloseBeforeHead(), CutBody(30))),
    Scene(name="no JSON", engine=(BadJson(), Html(), DropField("url"), SetField("cost", "much"))),
    Scene(name="a redirect", engine=(Redirect("https://elsewhere.example/"),)),
    Scene(name="too long", engine=(Padded(100_000),)),
    Scene(name="padded", engine=(Padded(1_000),)),
    Scene(name="refused, then taken", engine=(Refuse(),)),
    Scene(name="another index", engine=(Status(503), DropIndex(), OtherIndex(77))),
    Scene(name="a bad request", engine=(Status(400, body={"error_msg": "no such endpoint"}),)),
    Scene(name="a bad signature", engine=(BadSignature(),)),
    Scene(name="no signature at all", engine=(BadSignature("x"),)),
    Scene(name="a bad signature, refused", engine=(BadSignature(),) * 9, client={"signature": "require"}),
    Scene(name="a good one", client={"signature": "require"}),
    Scene(name="the key is refused", key="another-key", client={"find_key": False}),
    Scene(name="worker full", worker=(Status(429), Status(503))),
    Scene(name="worker fails", worker=(Status(500),)),
    Scene(name="worker fails, safe", worker=(Status(500),), call=SAFE),
    Scene(name="a long refusal", worker=(Status(503, body={"error": "x" * 100_000}),)),
    Scene(name="worker gone", worker=(Refuse(),)),
    Scene(name="worker lost", worker=(CutBody(5),)),
    Scene(name="worker lost, safe", worker=(ResetBeforeHead(), Garbled()), call=SAFE),
    Scene(name="worker dies", plan=WorkerPlan(dies_on=1)),
    Scene(name="worker silent", worker=(Hang(),), client={"work_policy": WorkPolicy(first_byte=5.0)}),
    Scene(name="worker redirects", worker=(Redirect("https://elsewhere.example/"),)),
    Scene(name="answer too long", client={"work_policy": WorkPolicy(max_body=10)}),
    Scene(name="answer is no JSON", worker=(BadJson(),)),
    Scene(name="a picture", route="/media"),
    Scene(name="no content", route="/status", payload={"status": 204}),
    Scene(name="teapot", route="/status", payload={"status": 418}),
    Scene(name="once", engine=(Status(503),), call=ONCE),
)
STREAMS = (
    Scene(name="a stream", route="/stream", payload={"count": 5}, stream=True),
    Scene(name="tokens", route="/v1/completions", payload={"prompt": "a b c", "stream": True}, stream=True),
    Scene(name="a stream cut", route="/stream", worker=(CutStreamAt(2),), stream=True),
    Scene(name="a stream reset", route="/stream", worker=(CutBody(50),), stream=True),
    Scene(name="a silent stream", route="/stream", worker=(Hang(after_bytes=60),), stream=True),
    Scene(name="a stream of bytes", route="/media", stream=True),
    Scene(name="a stream of one JSON", route="/echo", stream=True),
    Scene(name="a stream refused", route="/stream", worker=(Status(429),), stream=True),
)
Play: TypeAlias = Callable[[Scene, Servers, Options], End]


def over_messages(scene: Scene, servers: Servers, options: Options) -> End:
    client = Client(server=servers, **options)
    try:
        return end_of(client.call("demo", scene.route, scene.payload, **scene.call))
    except CallFailed as error:
        return end_of(error)


def over_blocking(scene: Scene, servers: Servers, options: Options) -> End:
    clock = ManualClock()
    connect = blocking_connector(servers, clock)
    count = None
    with vastroute_io.blocking.Client(connect=connect, clock=clock, **options) as client:
        try:
            if not scene.stream:
                return end_of(client.call("demo", scene.route, scene.payload, **scene.call))
            count = 0
            with client.stream("demo", scene.route, scene.payload, **scene.call) as events:
                for _ in events:
                    count += 1
                return end_of(events.result(), count)
        except CallFailed as error:
            return end_of(error, count)


def over_trio(scene: Scene, servers: Servers, options: Options) -> End:
    async def main() -> End:
        count = None
        async with vastroute_io.trio.Client(connect=connector(servers), **options) as client:
            try:
                if not scene.stream:
                    return end_of(await client.call("demo", scene.route, scene.payload, **scene.call))
                count = 0
                async with client.stream("demo", scene.route, scene.payload, **scene.call) as events:
                    async for _ in events:
                        count += 1
                    return end_of(events.result(), count)
            except CallFailed as error:
                return end_of(error, count)

    return trio.run(main, clock=MockClock(autojump_threshold=0))


def over_asyncio(scene: Scene, servers: Servers, options: Options) -> End:
    async def main() -> End:
        count = None
        async with vastroute_io.asyncio.Client(connect=asyncio_connector(servers), **options) as client:
            try:
                if not scene.stream:
                    return end_of(await client.call("demo", scene.route, scene.payload, **scene.call))
                count = 0
                async with client.stream("demo", scene.route, scene.payload, **scene.call) as events:
                    async for _ in events:
                        count += 1
                    return end_of(events.result(), count)
            except CallFailed as error:
                return end_of(error, count)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


ROUND = [(over_trio, over_messages), (over_blocking, over_trio), (over_messages, over_blocking)]


@pytest.mark.parametrize(("first", "again"), ROUND)
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_a_replay_comes_to_the_same_end(scene: Scene, first: Play, again: Play, tmp_path: Path) -> None:
    check(scene, first, again, tmp_path)


@pytest.mark.parametrize(
    ("first", "again"), [(over_trio, over_asyncio), (over_asyncio, over_blocking), (over_blocking, over_trio)]
)
@pytest.mark.parametrize("scene", STREAMS, ids=lambda scene: scene.name)
def test_a_stream_is_replayed_event_by_event(scene: Scene, first: Play, again: Play, tmp_path: Path) -> None:
    check(scene, first, again, tmp_path)


@pytest.mark.parametrize("again", [over_messages, over_blocking, over_trio])
def test_no_connection_is_kept_where_the_next_one_is_refused(again: Play, tmp_path: Path) -> None:
    scene = Scene(name="taken, then refused", engine=(Status(503), Refuse(), Status(503)))
    check(scene, over_messages, again, tmp_path)


def check(scene: Scene, first: Play, again: Play, folder: Path) -> None:
    path = folder / "calls.jsonl"
    recorded = first(scene, scene.servers(), scene.options(recorder=Recorder(path)))
    replayed = replay(path)
    (call,) = replayed.calls
    assert list(call.record) == recorded.record
    found = again(scene, replayed, scene.options(rng=replayed.rng))
    assert found == recorded
    assert replayed.left == 0
    assert call.asks == recorded.facts["asks"]


def test_a_connection_that_had_gone_stale_is_found_so_again(tmp_path: Path) -> None:
    faults = {("demo", 2): CloseBeforeHead(served=False)}
    engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=1.5, faults=faults))
    path = tmp_path / "calls.jsonl"
    scene = SCENES[0]
    recorded = over_trio(scene, engine, scene.options(recorder=Recorder(path)))
    assert recorded.facts["repeats"] == 1
    for play in (over_trio, over_blocking):
        replayed = replay(path)
        assert play(scene, replayed, scene.options(rng=replayed.rng)) == recorded


# --- several calls -------------------------------------------------------------------------------------------------


def test_calls_that_overlap_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    faults = {("demo", 1): Status(503), ("demo", 3): Delay(2)}
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=3, ready_after=4.0, faults=faults))

    async def main(servers: Servers, options: Options) -> list[End]:
        ends: dict[int, End] = {}
        async with vastroute_io.trio.Client(connect=connector(servers), **options) as client:

            async def one(number: int) -> None:
                await trio.sleep(0.3 * number)
                ends[number] = end_of(await client.call("demo", "/echo", {"n": number}))

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(one, number)
        return [ends[number] for number in range(3)]

    options = SCENES[0].options(rng=lambda: 0.5)
    clock = MockClock(autojump_threshold=0)
    recorded = trio.run(main, engine, options | {"recorder": Recorder(path)}, clock=clock)
    replayed = replay(path)
    assert trio.run(main, replayed, options, clock=MockClock(autojump_threshold=0)) == recorded
    assert replayed.left == 0
    assert sorted(round(call.began, 3) for call in replayed.calls) == [0.0, 0.3, 0.6]


def test_a_session_and_what_is_asked_beside_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo", key="own-key"), account_key="account-key")

    def play(servers: Servers, options: Options) -> list[Any]:
        clock = ManualClock()
        connect = blocking_connector(servers, clock)
        with vastroute_io.blocking.Client(connect=connect, clock=clock, **options) as client:
            seen: list[Any] = [[each.name for each in client.endpoints()]]
            seen.append([each.status for each in client.workers("demo")])
            seen.append(client.fetch_public_key())
            with client.session("demo", lifetime=30) as session:
                seen += [session.call("/echo", {"n": 1}).status, session.health(), session.info().lifetime]
                with session.stream("/stream", {"count": 2}) as events:
                    seen.append(len(list(events)))
            return seen

    options: Options = {
        "key": "account-key",
        "engine": "https://engine.example",
        "console": "https://engine.example",
        "guard": Guard(allow_private_address=True),
    }
    recorded = play(engine, options | {"recorder": Recorder(path)})
    replayed = replay(path)
    assert play(replayed, options) == recorded
    assert replayed.left == 0
    text = path.read_text()
    (created,) = (json.loads(each.body)["session_id"] for each in engine.workers[0].requests if _ends(each))
    for secret in ("own-key", "account-key", "engine.example", created):
        assert secret not in text


def _ends(request: HttpRequest) -> bool:
    return request.target == "/session/end"


# --- what differs ----------------------------------------------------------------------------------------------------


def recording(folder: Path, **kept: Any) -> Path:
    """A call that asked twice and was then answered by a worker."""
    path = folder / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 1): Status(503)}))
    Client(server=engine, recorder=Recorder(path, **kept)).call("demo", "/echo", {"prompt": "private"})
    return path


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (("another", "/echo", {}), 'its endpoint was "demo", not "another"'),
        (
            ("demo", "/stream", {}),
            "POST /stream to https://203.0.113.1:40001 differs from the recording (call 1, request",
        ),
        (("demo", "/echo?more=1", {}), "it had no query"),
    ],
)
def test_what_differs_is_named(call: tuple[str, str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ReplayDiffers, match=re.escape(said)):
        Client(server=replay(recording(tmp_path))).call(*call)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cost": 5}, "its cost was 100.0, not 5"),
        ({"request_idx": 3}, "its request_idx was null, not 3"),
        ({"replay_timeout": 60.0}, "its replay_timeout was null, not 60.0"),
        ({"headers": {"authorization": "Bearer secret"}}, "no key went with it"),
    ],
)
def test_other_options_are_named(options: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ReplayDiffers, match=re.escape(said)) as caught:
        Client(server=replay(recording(tmp_path))).call("demo", "/echo", {}, **options)
    assert "secret" not in str(caught.value)


def test_a_payload_is_compared_where_it_was_recorded(tmp_path: Path) -> None:
    path = recording(tmp_path, keep_payloads=True)
    assert Client(server=replay(path)).call("demo", "/echo", {"prompt": "private"}).status == 200
    with pytest.raises(ReplayDiffers, match="its payload was another"):
        Client(server=replay(path)).call("demo", "/echo", {"prompt": "other"})


def test_an_answer_is_given_where_it_was_recorded(tmp_path: Path) -> None:
    filled = Client(server=replay(recording(tmp_path))).call("demo", "/echo", {"prompt": "private"})
    assert filled.data == {}
    (tmp_path / "calls.jsonl").unlink()
    kept = Client(server=replay(recording(tmp_path, keep_answers=True))).call("demo", "/echo", {"prompt": "private"})
    assert kept.data == {"echo": {"prompt": "private"}}
    assert len(kept.body) == len(filled.body)


def test_a_recording_is_played_once(tmp_path: Path) -> None:
    replayed = replay(recording(tmp_path))
    client = Client(server=replayed)
    assert replayed.left == 3
    client.call("demo", "/echo", {})
    assert replayed.left == 0
    with pytest.raises(ReplayDiffers, match="the recording is at its end"):
        client.call("demo", "/echo", {})


@pytest.mark.parametrize("play", [over_blocking, over_trio])
def test_a_difference_ends_a_call_over_streams_too(play: Play, tmp_path: Path) -> None:
    scene = attrs.evolve(SCENES[0], route="/stream")
    with pytest.raises(ReplayDiffers):
        play(scene, replay(recording(tmp_path)), scene.options())


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    with pytest.raises(InvalidValue, match="cannot be read"):
        replay(path)
    whole = recording(tmp_path).read_text()
    for text, said in (
        (whole.replace('"version": 1', '"version": 2'), "line 1 is no recorded call of version 1"),
        (whole + "{}\n", "line 2 is no recorded call"),
        (whole + "5\n", "line 2 is no recorded call"),
        (whole + "[\n", "line 2 is no recorded call"),
        (whole.replace('"cuts"', '"cut"'), "line 1 is no recorded call"),
        (whole.replace('"method"', '"verb"'), "line 1 is no recorded call"),
    ):
        path.write_text(text)
        with pytest.raises(InvalidValue, match=said):
            replay(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(InvalidValue, match="it is not UTF-8"):
        replay(path)


def test_half_a_line_at_the_end_is_left_out(tmp_path: Path) -> None:
    path = recording(tmp_path)
    whole = path.read_text()
    path.write_text(whole + whole[:100])
    assert len(replay(path).calls) == 1


def test_a_call_that_was_too_long_to_record_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="line 1 is a call that was too long"):
        replay(recording(tmp_path, most=100))
