"""What a recorder writes, and above all what it does not."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import vastroute_io.blocking
from vastroute import (
    Call,
    CallFailed,
    FailureKind,
    Guard,
    Headers,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    JsonLine,
    LocalProtocolError,
    Origin,
    Phase,
    ResponseHead,
    RouteCall,
    RouteRequest,
    Send,
    ServerSentEvent,
    WorkerRequest,
    stream_decoder,
)
from vastroute_io.bodies import Body
from vastroute_io.recording import Recorder
from vastroute_io.redaction import plain_record
from vastroute_testing import (
    TEST_KEY,
    Chunk,
    End,
    Head,
    ManualClock,
    Schedule,
    SimulatedEndpoint,
    SimulatedEngine,
    WorkerPlan,
    answer,
    blocking_connector,
    json_answer,
    replay,
    sign,
)
from vastroute_testing.memory import Client
from vastroute_testing.rebuild import render


def secrets(letters: str) -> st.SearchStrategy[str]:
    """Texts that are in no recording by chance: no words, and not of the filler's letter."""
    return st.text(letters, min_size=12, max_size=30)


GUARD = Guard(allow_private_address=True)


def calls_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- no secret ------------------------------------------------------------------------------------------------------


def hostile_engine(secret: str, url: str) -> Callable[[HttpRequest, float], Schedule]:
    """An engine that repeats what it should not, wherever it can."""
    asks: list[HttpRequest] = []
    more = {"note": secret, secret: 1, "nested": {"a": [secret]}, "__request_id": secret}

    def serve(request: HttpRequest, now: float) -> Schedule:
        asks.append(request)
        headers = [
            ("set-cookie", secret),
            ("x-note", secret),
            ("server", secret),
            ("location", f"https://{secret}.example/"),
        ]
        said: tuple[int, Any]
        if len(asks) == 1:
            said = 503, {"error": secret, "error_msg": f"Authentication failed for {secret}"} | more
        elif len(asks) == 2:
            said = 502, [secret]
        elif len(asks) == 3:
            said = 200, {"status": f"1 loading {secret}", "request_idx": 7} | more
        elif len(asks) == 4:
            said = 200, {"status": {"loading": 1, secret: 2, "ready": secret}, "endpoint": secret} | more
        else:
            grant = {"url": url, "endpoint": "demo", "cost": 100.0, "reqnum": 1, "request_idx": 7}
            said = 200, grant | {"signature": sign(grant)} | more
        return json_answer(said[0], said[1], at=now, headers=headers)

    return serve


def hostile_worker(secret: str, kind: str) -> Callable[[HttpRequest, float], Schedule]:
    """A worker that answers in one of several ways, with `secret` in every corner."""
    bodies = {
        "json": ("application/json", json.dumps({secret: [secret], "a": secret}).encode()),
        "text": (f"text/plain; charset={secret}", secret.encode()),
        "media": (f"application/{secret}", secret.encode() * 3),
        "events": (
            "text/event-stream",
            f": {secret}\nevent: {secret}\nid: {secret}\nretry: {secret}\ndata: {secret}\n\n{secret}: {secret}\n"
            f'data: {{"{secret}": 1}}\ndata: "{secret}"\n\ndata: [DONE]\n\n{secret}'.encode(),
        ),
        "lines": ("application/x-ndjson", f'{{"a": "{secret}"}}\n{secret}\n"{secret}"\n[1, "{secret}'.encode()),
        "error": ("application/json", json.dumps({"error": secret}).encode()),
    }
    media, body = bodies[kind]

    def serve(_request: HttpRequest, now: float) -> Schedule:
        headers = Headers([("content-type", media), ("x-secret", secret), ("set-cookie", secret)])
        pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
        chunks = [Chunk(at=now + 0.1 * n, data=piece) for n, piece in enumerate(pieces, 1)]
        status = 500 if kind == "error" else 200
        return (Head(at=now, status=status, headers=headers), *chunks, End(at=now + 0.1 * len(pieces)))

    return serve


@settings(max_examples=60)
@given(
    key=secrets("bcd"),
    payload=secrets("fgh"),
    said=secrets("jkm"),
    header=secrets("pqv"),
    kind=st.sampled_from(["json", "text", "media", "events", "lines", "error"]),
    streamed=st.booleans(),
    host=st.integers(1, 254),
    path=st.just("") | secrets("wyz").map(lambda each: f"/{each}"),
)
def test_no_secret_gets_into_the_file(
    key: str, payload: str, said: str, header: str, kind: str, streamed: bool, host: int, path: str
) -> None:
    url = f"https://93.184.215.{host}:41234{path}"
    servers = {
        "https://engine.example": hostile_engine(said, url),
        f"https://93.184.215.{host}:41234": hostile_worker(said, kind),
    }
    with TemporaryDirectory() as folder:
        file = Path(folder) / "calls.jsonl"
        recorder = Recorder(file)
        clock = ManualClock()
        with vastroute_io.blocking.Client(
            connect=blocking_connector(servers, clock),
            clock=clock,
            key=key,
            engine="https://engine.example",
            key_in_body=True,
            recorder=recorder,
            rng=lambda: 0.5,
        ) as client:
            options: Any = {"headers": {"x-mine": header}, "extra": {"guid": payload}, "timeout": 60.0}
            work = {"prompt": payload, payload: {"deep": [payload]}}
            try:
                if streamed:
                    with client.stream("demo", f"/work?token={payload}", work, **options) as events:
                        list(events)
                else:
                    client.call("demo", f"/work?token={payload}", work, **options)
            except CallFailed:
                pass
        text = file.read_text()
    (recorded,) = [json.loads(line) for line in text.splitlines()]
    assert recorded["exchanges"][-1]["request"]["path"] == "/work"
    signature = sign({"url": url})
    for secret in (key, payload, said, header, signature, "engine.example", "93.184.215", "41234", path or key):
        assert secret not in text


def test_what_is_kept_for_the_asking(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    Client(server=engine, recorder=Recorder(path, keep_payloads=True)).call("demo", "/echo", {"a": "\u00e9"})
    Client(server=engine, recorder=Recorder(path, keep_answers=True)).call("demo", "/echo", {"a": 1})
    Client(server=engine, recorder=Recorder(path, keep_answers=True)).call("demo", "/media", {})
    sent, told, picture = [each["exchanges"][-1] for each in calls_in(path)]
    assert sent["request"]["body"]["payload"] == {"value": {"a": "\u00e9"}}
    assert sent["answer"]["body"] == {"json": "object", "bytes": 25}
    assert told["request"]["body"]["payload"] == {"bytes": 8}
    assert told["answer"]["body"] == {"text": '{"echo": {"a": 1}}'}
    assert picture["answer"]["body"]["base64"].startswith("iVBORw0KGgo")
    assert TEST_KEY not in path.read_text()


# --- the format -----------------------------------------------------------------------------------------------------


def test_a_line_is_a_whole_call(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=1.0))
    client = Client(server=engine, recorder=Recorder(path))
    client.call("demo", "/echo", {"a": 1}, cost=5)
    (transcript,) = client.transcripts
    (call,) = calls_in(path)
    assert {name: call[name] for name in ("vastroute", "version", "machine", "began", "seconds", "draws")} == {
        "vastroute": "recording",
        "version": 1,
        "machine": "Call",
        "began": 0.0,
        "seconds": 1.875,
        "draws": [0.5, 0.5],
    }
    assert call["outcome"] == {"result": "Answer", "status": 200}
    assert call["record"] == plain_record(transcript.record, began=transcript.began)
    *asks, work = call["exchanges"]
    assert [(each["phase"], each["attempt"], each["at"]) for each in asks] == [
        ("route", 1, 0.0),
        ("route", 2, 0.75),
        ("route", 3, 1.875),
    ]
    assert asks[2]["request"] == {
        "method": "POST",
        "to": "engine",
        "path": "/route/",
        "query": False,
        "key": True,
        "headers": [
            ["content-type", "application/json"],
            ["accept-encoding", "identity"],
            ["user-agent", "vastroute"],
        ],
        "body": {"endpoint": "demo", "cost": 5, "request_idx": 1001},
    }
    assert asks[1]["answer"]["body"]["fields"] == {"endpoint": "demo", "request_idx": 1001, "status": "1 loading"}
    assert work["request"]["to"] == "https://203.0.113.1:40001"
    assert work["request"]["key"] is False
    assert work["answer"]["cuts"] == [[1.875, 18]]


def test_the_file_is_its_owners_and_grows(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    for _ in range(2):
        client = Client(server=engine, recorder=Recorder(path))
        client.route("demo")
        client.route("demo")
    assert [call["machine"] for call in calls_in(path)] == ["RouteCall"] * 4
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_half_a_line_of_a_process_that_died_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text('{"vastroute": "recor')
    Client(server=SimulatedEngine(SimulatedEndpoint("demo")), recorder=Recorder(path)).route("demo")
    broken, whole = path.read_text().splitlines()
    assert json.loads(whole)["outcome"] == {"result": "RouteResult", "status": None}
    assert broken == '{"vastroute": "recor (its writer was stopped)'
    assert len(replay(path).calls) == 1


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="the recording cannot be written: "):
        Recorder(tmp_path)
    with pytest.raises(InvalidValue, match="most must be"):
        Recorder(tmp_path / "calls.jsonl", most=0)


def test_a_failure_to_write_disturbs_no_call(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "calls.jsonl"
    path.parent.mkdir()
    recorder = Recorder(path)
    client = Client(server=SimulatedEngine(SimulatedEndpoint("demo")), recorder=recorder)
    path.unlink()
    path.parent.rmdir()
    assert client.call("demo", "/echo", {}).status == 200
    assert isinstance(recorder.trouble, OSError)
    path.parent.mkdir()
    client.call("demo", "/echo", {})
    assert not path.exists()


def test_threads_share_one(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    recorder = Recorder(path)
    draws = {0.25: 0.0, 0.75: 0.0}

    def work(draw: float) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=20.0))
        Client(server=engine, recorder=recorder, rng=lambda: draw).call("demo", "/echo", {})

    threads = [threading.Thread(target=work, args=(draw,)) for draw in draws]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(call["draws"]) == {call["draws"][0]} for call in calls_in(path)) == [True, True]
    assert {call["draws"][0] for call in calls_in(path)} == set(draws)


# --- machines that somebody else drives -----------------------------------------------------------------------------


def machine(*, stream: bool = False) -> Call:
    route = RouteCall(RouteRequest(endpoint="demo"), key=TEST_KEY, rng=lambda: 0.5, deadline=900.0)
    return Call(route, WorkerRequest(route="/work", payload={}, stream=stream), guard=GUARD)


def granted(path: str = "") -> HttpResponse:
    grant = {
        "url": f"https://93.184.215.14:40001{path}",
        "endpoint": "demo",
        "cost": 100.0,
        "reqnum": 1,
        "request_idx": 7,
    }
    return HttpResponse(status=200, body=json.dumps(grant | {"signature": sign(grant)}).encode())


def test_any_machine_can_be_recorded_whole_or_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    inner = machine()
    call = Recorder(path).record(inner)
    assert isinstance(call.next_action(now=5.0), Send)
    assert call.next_action(now=5.0) is call.next_action(now=5.5)
    call.receive(granted(), now=6.0)
    assert isinstance(call.next_action(now=6.0), Send)
    call.failed(OSError("refused"), kind=FailureKind.REFUSED, sent=False, now=6.25)
    call.next_action(now=6.25)
    call.next_action(now=7.0)
    call.receive(granted(), now=7.0)
    call.next_action(now=7.0)
    call.head(ResponseHead(status=200, headers=Headers([("content-type", "text/plain")])), now=7.5)
    for number in range(3):
        call.chunk(b"abc", now=8.0 + number // 2)
    assert not call.over
    call.end(now=9.0)
    assert call.over
    assert call.result() == inner.result()
    assert call.record == inner.record
    (recorded,) = calls_in(path)
    first, lost, second, work = recorded["exchanges"]
    assert first["answer"]["at"] == 1.0
    assert lost["failed"] == {"kind": "the connection was refused", "sent": False, "reused": False, "at": 1.25} | {
        "kind": FailureKind.REFUSED.value
    }
    assert second["answer"]["body"]["fields"]["url"] == lost["request"]["to"] == work["request"]["to"]
    assert work["answer"]["cuts"] == [[3.0, 6], [4.0, 3]]
    assert work["answer"]["end"] == 4.0


def test_the_path_of_a_worker_is_left_out_though_its_grant_came_before(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    call = machine()
    call.next_action(now=0.0)
    call.receive(granted("/p-private"), now=0.0)
    recorded = Recorder(path).record(call)
    recorded.next_action(now=0.0)
    recorded.receive(HttpResponse(status=200, body=b"{}"), now=0.0)
    assert [each["request"]["path"] for each in calls_in(path)[0]["exchanges"]] == ["/work"]


def test_what_an_exception_says_is_written_and_a_stream_is_driven_through_it(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    call = Recorder(path).record(machine(stream=True))
    call.next_action(now=1.0)
    call.receive(granted(), now=1.0)
    call.next_action(now=1.0)
    call.failed(ConnectionRefusedError(), sent=None, now=2.0)
    while not isinstance(call.next_action(now=9.0), Send):
        pass
    call.receive(granted(), now=9.0)
    call.next_action(now=9.0)
    assert call.read_limit(now=9.0) is None
    call.head(ResponseHead(status=200, headers=Headers([("content-length", "3")])), now=9.0)
    assert call.read_limit(now=9.0) == 120.0
    call.chunk(b"abc", now=9.0)
    assert call.next_event(now=9.0) == b"abc"
    assert call.next_event(now=9.0) is None
    with pytest.raises(TimeoutError) as late:
        call.read_limit(now=200.0)
    call.failed(late.value, sent=None, now=200.0)
    (recorded,) = calls_in(path)
    said = [(each["failed"]["kind"], each["failed"]["sent"]) for each in recorded["exchanges"] if "failed" in each]
    assert said == [(FailureKind.REFUSED.value, False), (FailureKind.TIMEOUT.value, None)]


def test_a_call_that_is_cancelled_is_written_with_what_there_was(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    recorder = Recorder(path)
    never = recorder.record(machine())
    never.cancelled(now=1.0)
    begun = recorder.record(machine())
    begun.next_action(now=1.0)
    begun.head(ResponseHead(status=200), now=2.0)
    begun.chunk(b"{", now=2.5)
    begun.cancelled(now=3.0)
    first, second = calls_in(path)
    assert (first["exchanges"], first["cancelled_at"], first["outcome"]["error"]) == ([], 0.0, "Cancelled")
    (exchange,) = second["exchanges"]
    assert (second["cancelled_at"], exchange["answer"]["end"], exchange["answer"]["cuts"]) == (2.0, None, [[1.5, 1]])


def test_misuse_is_the_machines_to_refuse_and_nothing_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    call = Recorder(path).record(machine())
    with pytest.raises(LocalProtocolError):
        call.receive(granted(), now=1.0)
    call.next_action(now=1.0)
    call.cancelled(now=2.0)
    (recorded,) = calls_in(path)
    assert "answer" not in recorded["exchanges"][0]


def test_a_long_stream_is_marked_and_takes_no_more_memory(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    call = Recorder(path, most=10_000).record(machine(stream=True))
    call.next_action(now=1.0)
    call.receive(granted(), now=1.0)
    call.next_action(now=1.0)
    call.head(ResponseHead(status=200, headers=Headers([("content-type", "text/event-stream")])), now=1.0)
    for number in range(1000):
        call.chunk(b"data: 1\n\n", now=1.0 + number / 10)
    call.cancelled(now=101.0)
    (recorded,) = calls_in(path)
    assert recorded["exchanges"][-1]["answer"]["body"] == {"bytes": 9000, "cut_short": True}
    assert path.stat().st_size < 10_000
    assert recorded["outcome"]["phase"] == Phase.WORKER.value


# --- bodies ---------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINE = (
    JSON.map(lambda value: b"data: " + value)
    | st.just(b"")
    | st.just(b"data: [DONE]")
    | st.text(max_size=8).map(lambda text: text.encode())
    | st.sampled_from([b"event: message", b"event: mine", b"id: 5", b"retry: 300", b"retry:", b"data", b"data:x", b":"])
)
EVENTS = st.lists(st.tuples(LINE, ENDS).map(b"".join)).map(b"".join)
LINES = st.lists((JSON | st.binary(max_size=8)).map(lambda line: line + b"\n")).map(b"".join)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def again(media: str, data: bytes, sizes: list[int], *, streamed: bool) -> bytes:
    body = Body(media, streamed=streamed, kept=False, most=2**20)
    for number, piece in enumerate(cut(data, sizes)):
        body.feed(piece, at=float(number))
    assert sum(int(length) for _, length in body.cuts) == len(data)
    return render(json.loads(json.dumps(body.form())), "/work")


def events_in(media: str, data: bytes) -> list[Mapping[str, Any]]:
    decoder = stream_decoder(media)
    found: list[Mapping[str, Any]] = []
    for event in [*decoder.feed(data), *decoder.end()]:
        if isinstance(event, ServerSentEvent):
            found.append({"done": event.done, "length": len(event.data.encode()), "retry": event.retry})
        elif isinstance(event, JsonLine):
            found.append({"length": len(event.text.encode())})
    return [*found, {"incomplete": decoder.incomplete, "finished": decoder.finished}]


@given(
    media_and_data=st.tuples(st.just("text/event-stream"), EVENTS) | st.tuples(st.just("application/jsonl"), LINES),
    rest=st.binary(max_size=10),
    sizes=st.lists(st.integers(0, 9), max_size=20),
    streamed=st.booleans(),
)
@example(media_and_data=("application/jsonl", b"\xef\xbb\xbf\n"), rest=b"", sizes=[], streamed=False)
@example(media_and_data=("application/jsonl", b"\xef\xbb\xbf1\n\xef\xbb\xbf\n"), rest=b"", sizes=[1], streamed=True)
@example(media_and_data=("text/event-stream", b"\xef\xbb\xbf\n"), rest=b"", sizes=[], streamed=True)
@example(media_and_data=("text/event-stream", b"\xef\xbb\xbfdata: [DONE]\n\n"), rest=b"", sizes=[2], streamed=True)
@example(media_and_data=("text/event-stream", b"\n\xef\xbb\xbfdata: 1\n\n"), rest=b"", sizes=[], streamed=True)
def test_a_stream_has_the_same_events_again(
    media_and_data: tuple[str, bytes], rest: bytes, sizes: list[int], streamed: bool
) -> None:
    media, data = media_and_data
    made = again(media, data, sizes, streamed=streamed)
    assert len(made) == len(data)
    assert len(events_in(media, made)) == len(events_in(media, data))
    assert events_in(media, made)[-1] == events_in(media, data)[-1]
    assert len(again(media, data + rest, sizes, streamed=streamed)) == len(data + rest)


@given(data=JSON | st.binary(max_size=20), media=st.sampled_from(["application/json", "text/plain", "image/png", ""]))
def test_a_whole_body_has_the_same_length_and_kind_again(data: bytes, media: str) -> None:
    made = again(media, data, [3, 1], streamed=False)
    assert len(made) == len(data)
    try:
        value = json.loads(data)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            json.loads(made)
        return
    kinds = (type(value), type(json.loads(made)))
    assert kinds[0] is kinds[1] or set(kinds) <= {bool, type(None), int, float}


def test_a_stream_of_bytes_is_counted_and_not_held() -> None:
    body = Body("image/png", streamed=True, kept=False, most=1000)
    for number in range(10):
        body.feed(b"x" * 500, at=float(number // 5))
    assert (body.form(), body.cuts, body.raw) == ({"bytes": 5000}, [[0.0, 2500], [1.0, 2500]], None)
    assert body.size < 200


def test_origins_of_workers_are_told_apart_throughout(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[WorkerPlan(dies_on=1), WorkerPlan()]))
    engine.workers[0].url, engine.workers[1].url = "https://198.51.100.7:41000", "https://worker.example:41000"
    client = Client(server=engine, recorder=Recorder(path))
    for _ in range(2):
        client.call("demo", "/echo", {}, safe_to_repeat=True)
    to = [each["request"]["to"] for call in calls_in(path) for each in call["exchanges"] if each["phase"] == "worker"]
    assert [Origin.parse(each).host for each in to] == ["203.0.113.1", "203.0.113.2", "203.0.113.1", "203.0.113.2"]


def test_an_answer_at_an_unknown_path_is_a_shape(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    servers = {"https://run.vast.ai": lambda _request, now: answer(200, b"no key", at=now)}
    with pytest.raises(CallFailed):
        Client(server=servers, recorder=Recorder(path)).fetch_public_key()
    assert calls_in(path)[0]["exchanges"][0]["answer"]["body"] == {"bytes": 6}
