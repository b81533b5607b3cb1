"""The simulated worker: beside recordings of the official one, and by itself."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    FORMS,
    FailureKind,
    Grant,
    Headers,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    Origin,
    WorkerRequest,
    decode_route,
    decode_session_create,
    decode_session_end,
    decode_session_get,
    decode_session_health,
    encode_session_create,
    encode_session_end,
    encode_session_get,
    encode_session_health,
    encode_worker,
    stream_decoder,
)
from vastroute_testing import (
    OTHER_TEST_PRIVATE_KEY,
    OTHER_TEST_PUBLIC_KEY,
    TEST_PRIVATE_KEY,
    TEST_PUBLIC_KEY,
    Chunk,
    Cut,
    CutStreamAt,
    Delay,
    Schedule,
    SimulatedWorker,
    Status,
    Work,
    WorkerPlan,
    WorkerState,
    answer,
    body_of,
    json_answer,
    sign,
)
from vastroute_testing.keys import public_half
from vastroute_testing.schedule import whole

T0 = 1000.25
ED25519_PRIVATE_KEY = """\
-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA
-----END PRIVATE KEY-----
"""  # all zeros: it is here for its kind
URL = "https://203.0.113.1:40001"
VECTORS = Path(__file__).parents[1] / "vectors"
Body: TypeAlias = dict[str, Any]


def grant_of(**more: Any) -> Body:
    fields: Body = {"endpoint": "demo", "url": URL, "cost": 5, "reqnum": 1, "request_idx": 1001} | more
    return fields if "signature" in fields else fields | {"signature": sign(fields)}


GRANT = grant_of()


def request(route: str, body: Any, *, method: str = "POST") -> HttpRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpRequest(method=method, origin=Origin.parse(URL), target=route, headers=Headers(), body=data)


def call(route: str, payload: Body, **more: Any) -> HttpRequest:
    return request(route, {"auth_data": GRANT, "payload": payload} | more)


def response_of(schedule: Schedule) -> HttpResponse:
    response = whole(schedule)
    assert response is not None
    return response


def send(worker: SimulatedWorker, sent: HttpRequest, *, now: float = T0) -> HttpResponse:
    return response_of(worker.serve(sent, now=now))


def fetch(worker: SimulatedWorker, route: str, body: Body, *, now: float = T0) -> tuple[int, Any]:
    response = send(worker, request(route, body), now=now)
    return response.status, json.loads(response.body) if response.body else None


# --- beside the official worker ----------------------------------------------------------------------------------


def recorded() -> list[tuple[HttpRequest, HttpResponse]]:
    """The recorded exchanges, as the messages that they are."""
    pairs = []
    for line in (VECTORS / "official-worker-answers.jsonl").read_text().splitlines():
        exchange = json.loads(line)
        head, _, body = b64decode(exchange["request_b64"]).partition(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
        wire = h11.Connection(h11.CLIENT)
        wire.send(h11.Request(method=method, target=target, headers=[("host", "w"), ("content-length", "0")]))
        wire.send(h11.EndOfMessage())
        wire.receive_data(b64decode(exchange["response_b64"]))
        answer = wire.next_event()
        assert isinstance(answer, h11.Response)
        data = b""
        while isinstance(event := wire.next_event(), h11.Data):
            data += event.data
        pairs.append(
            (
                request(target, body, method=method),
                HttpResponse(status=answer.status_code, headers=Headers(answer.headers), body=data),
            )
        )
    return pairs


RECORDED = recorded()
SESSION = next(json.loads(sent.body) for sent, _ in RECORDED if sent.target == "/session/get")
RECORDED_KEY = json.loads((VECTORS / "signing.json").read_text())["pubkey"]


def shape(value: Any) -> Any:
    """A JSON value with instants, which differ between runs, put out of sight."""
    if isinstance(value, dict):
        return {
            name: type(each) if name in {"expiration", "created_at"} else shape(each) for name, each in value.items()
        }
    return value


def content(response: HttpResponse) -> Any:
    is_json = (response.headers.get("content-type") or "").startswith("application/json")
    return shape(json.loads(response.body)) if is_json else response.body


def test_every_recorded_answer_of_the_official_worker_is_given() -> None:
    worker = SimulatedWorker(key=RECORDED_KEY)
    opening = {"auth_data": SESSION["session_auth"], "payload": {"lifetime": 30}}
    status, session = fetch(worker, "/session/create", opening)
    assert status == 201
    there, here = SESSION["session_id"].encode(), session["session_id"].encode()
    assert len(there) == len(here)
    seen = set()
    for sent, wanted in RECORDED:
        got = send(worker, request(sent.target, sent.body.replace(there, here), method=sent.method))
        assert got.status == wanted.status, sent
        assert got.headers.get("content-type") == wanted.headers.get("content-type"), sent
        assert content(got) == content(
            HttpResponse(status=wanted.status, headers=wanted.headers, body=wanted.body.replace(there, here))
        )
        seen.add((sent.target, got.status))
    assert len(seen) > 8


# --- the envelope ------------------------------------------------------------------------------------------------

MISSING = "missing parameter"


@pytest.mark.parametrize(
    ("body", "status", "errors"),
    [
        (b"", 422, {"error": "invalid JSON"}),
        (b"{", 422, {"error": "invalid JSON"}),
        (b"\xef\xbb\xbf{}", 422, {"error": "invalid JSON"}),
        ({}, 422, {"auth_data": "field missing", "payload": "field missing"}),
        ([], 422, {"auth_data": "field missing", "payload": "field missing"}),
        ({"payload": {}}, 422, {"auth_data": "field missing"}),
        ({"auth_data": GRANT}, 422, {"payload": "field missing"}),
        ({"auth_data": GRANT, "payload": [1]}, 422, {"payload": {"data": "payload must be a dictionary"}}),
        ({"auth_data": GRANT, "payload": None}, 422, {"payload": {"data": "payload must be a dictionary"}}),
        (
            {"auth_data": {"url": URL}, "payload": 5},
            422,
            {
                "auth_data": dict.fromkeys(("cost", "endpoint", "reqnum", "request_idx", "signature"), MISSING),
                "payload": {"data": "payload must be a dictionary"},
            },
        ),
    ],
)
def test_what_is_missing_is_named(body: Any, status: int, errors: Body) -> None:
    response = send(SimulatedWorker(), request("/echo", body))
    assert (response.status, json.loads(response.body)) == (status, errors)
    assert response.headers.get("content-type") == "application/json; charset=utf-8"


@pytest.mark.parametrize("name", ["cost", "endpoint", "reqnum", "request_idx", "signature", "url"])
def test_each_of_the_six_fields_is_wanted(name: str) -> None:
    grant = {field: value for field, value in GRANT.items() if field != name}
    assert fetch(SimulatedWorker(), "/echo", {"auth_data": grant, "payload": {}}) == (
        422,
        {"auth_data": {name: MISSING}},
    )


@pytest.mark.parametrize(
    "body",
    [
        5,
        None,
        b"\xff",
        b"[" * 100_000,
        b"1" * 5_000,
        {"auth_data": None, "payload": {}},
        {"auth_data": 5, "payload": {}},
        {"auth_data": grant_of(reqnum="1"), "payload": {}},
        {"auth_data": GRANT, "payload": {}, "session_id": []},
    ],
)
def test_where_the_official_worker_fails(body: Any) -> None:
    response = send(SimulatedWorker(), request("/echo", body))
    assert response.status == 500
    assert b"Server got itself in trouble" in response.body
    assert response.headers.get("connection") == "close"


@pytest.mark.parametrize("spelling", ["{}", "{}\n", " {}", "!{}", "{}=", "{}A==="])
def test_base64_is_read_leniently(spelling: str) -> None:
    grant = grant_of(signature=spelling.format(GRANT["signature"]))
    assert send(SimulatedWorker(), request("/echo", {"auth_data": grant, "payload": {}})).status == 200


def test_a_signature_in_hex_is_not_read() -> None:
    grant = grant_of(signature=b64decode(GRANT["signature"]).hex())
    assert send(SimulatedWorker(), request("/echo", {"auth_data": grant, "payload": {}})).status == 401


@pytest.mark.parametrize(
    ("route", "payload", "closes"),
    [
        ("/echo", {}, True),
        ("/status", {"status": 204}, False),
        ("/status", {"status": 500}, True),
        ("/stream", {}, False),
    ],
)
def test_whole_answers_of_the_model_close_the_connection(route: str, payload: Body, closes: bool) -> None:
    response = send(SimulatedWorker(), call(route, payload))
    assert (response.headers.get("connection") == "close") is closes


@pytest.mark.parametrize(
    "body", [{}, {"auth_data": {}, "payload": {}}, {"auth_data": GRANT, "payload": {}, "session_id": "x"}]
)
def test_its_own_refusals_do_not(body: Body) -> None:
    response = send(SimulatedWorker(), request("/echo", body))
    assert response.status in {410, 422}
    assert response.headers.get("connection") is None


@pytest.mark.parametrize("connection", [(), (("connection", "keep-alive"),)])
def test_what_a_model_says_without_a_type_is_bytes(connection: tuple[tuple[str, str], ...]) -> None:
    plan = WorkerPlan(models={"/raw": lambda work: answer(200, b"raw", at=work.at, headers=connection)})
    response = send(SimulatedWorker(plan=plan), call("/raw", {}))
    assert [each for name, each in response.headers if name == "content-type"] == ["application/octet-stream"]
    assert [each for name, each in response.headers if name == "connection"] == ["close"]


@pytest.mark.parametrize(
    "change",
    [
        {"url": URL + "0", "signature": GRANT["signature"]},
        {"signature": ""},
        {"signature": "not base64"},
        {"signature": 5},
        {"url": 5, "signature": GRANT["signature"]},
        {"signature": sign(GRANT, key=OTHER_TEST_PRIVATE_KEY)},
        {"signature": sign(GRANT, FORMS[1])},
    ],
)
def test_a_bad_signature_is_401_and_nothing_more(change: Body) -> None:
    response = send(SimulatedWorker(), request("/echo", {"auth_data": grant_of(**change), "payload": {}}))
    assert (response.status, response.body, response.headers.get("content-type")) == (401, b"", None)


@pytest.mark.parametrize(
    "change",
    [
        {"cost": "much"},
        {"cost": 10**400},
        {"endpoint": "another"},
        {"reqnum": 999},
        {"request_idx": None},
        {"__request_id": "x", "more": [1]},
        {"url": "https://203.0.113.99:1"},
    ],
)
def test_what_is_not_checked(change: Body) -> None:
    worker = SimulatedWorker(plan=WorkerPlan(perf=10))
    body = {"auth_data": grant_of(**change), "payload": {"a": 1}}
    for _ in range(2):
        assert fetch(worker, "/echo", body) == (200, {"echo": {"a": 1}})


def test_any_form_and_key_can_be_the_workers() -> None:
    fields = grant_of()
    for form in FORMS:
        worker = SimulatedWorker(key=OTHER_TEST_PUBLIC_KEY, form=form)
        good = fields | {"signature": sign(fields, form, key=OTHER_TEST_PRIVATE_KEY)}
        assert fetch(worker, "/echo", {"auth_data": good, "payload": {}})[0] == 200
        assert fetch(worker, "/echo", {"auth_data": fields, "payload": {}})[0] == 401


@pytest.mark.parametrize(
    ("method", "route", "status"),
    [
        ("POST", "/nothing", 404),
        ("GET", "/nothing", 404),
        ("GET", "/echo", 405),
        ("GET", "/session/get", 405),
        ("POST", "/echo/", 404),
    ],
)
def test_other_places_and_methods(method: str, route: str, status: int) -> None:
    response = send(SimulatedWorker(), request(route, {}, method=method))
    assert response.status == status
    assert response.headers.get("content-type") == "text/plain; charset=utf-8"


def test_the_query_is_no_part_of_the_route() -> None:
    assert send(SimulatedWorker(), call("/echo?api_key=x", {})).status == 200


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ROUTES = ["/echo", "/stream", "/status", "/slow", "/media", "/v1/completions", "/v1/chat/completions"]
PAYLOADS = st.dictionaries(
    st.sampled_from(["count", "status", "seconds", "prompt", "messages", "stream", "max_tokens", "input", "lifetime"]),
    VALUES,
    max_size=4,
)


@given(
    route=st.sampled_from([*ROUTES, "/session/create", "/session/get", "/session/health", "/session/end"]),
    body=st.binary(max_size=20)
    | VALUES
    | st.fixed_dictionaries({"auth_data": st.just(GRANT), "payload": PAYLOADS})
    | st.dictionaries(st.sampled_from(["auth_data", "payload", "session_id", "session_auth"]), VALUES),
)
def test_every_request_has_an_answer(route: str, body: Any) -> None:
    response = send(SimulatedWorker(), request(route, body))
    assert response.status >= 200


# --- models ------------------------------------------------------------------------------------------------------


def test_echo() -> None:
    assert fetch(SimulatedWorker(), "/echo", {"auth_data": GRANT, "payload": {"a": [1, "\u00e9"]}}) == (
        200,
        {"echo": {"a": [1, "\u00e9"]}},
    )


@pytest.mark.parametrize("count", [0, 1, 5])
def test_stream(count: int) -> None:
    schedule = SimulatedWorker(plan=WorkerPlan(pace=0.5, latency=1)).serve(call("/stream", {"count": count}), now=T0)
    response = response_of(schedule)
    assert response.headers.get("content-type") == "text/event-stream"
    assert response.headers.get("content-length") is None
    decoder = stream_decoder("text/event-stream")
    texts = [event.data for event in [*decoder.feed(response.body), *decoder.end()] if hasattr(event, "data")]
    assert [json.loads(text)["n"] for text in texts[:-1]] == list(range(count))
    assert texts[-1] == "[DONE]"
    assert [step.at for step in schedule if isinstance(step, Chunk)] == [T0 + 1 + n * 0.5 for n in range(count + 1)]


@pytest.mark.parametrize(("status", "body"), [(200, b'{"status": 200}'), (503, b'{"status": 503}'), (204, b"")])
def test_status(status: int, body: bytes) -> None:
    response = send(SimulatedWorker(), call("/status", {"status": status}))
    assert (response.status, response.body) == (status, body)
    assert response.headers.get("content-length") == (str(len(body)) if body else None)


def test_slow() -> None:
    schedule = SimulatedWorker().serve(call("/slow", {"seconds": 90}), now=T0)
    assert {step.at for step in schedule} == {T0 + 90}


def test_media() -> None:
    response = send(SimulatedWorker(), call("/media", {}))
    assert response.headers.get("content-type") == "image/png"
    assert response.body.startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize(
    ("route", "payload"),
    [
        ("/status", {"status": "x"}),
        ("/status", {"status": 100}),
        ("/stream", {"count": -1}),
        ("/slow", {"seconds": True}),
    ],
)
def test_a_failed_model_is_500_with_nothing_in_it(route: str, payload: Body) -> None:
    response = send(SimulatedWorker(), call(route, payload))
    assert (response.status, response.body) == (500, b"")


CHAT = {"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "two words"}]}


def events_of(response: HttpResponse) -> list[Any]:
    texts = response.body.decode().removesuffix("\n\n").split("\n\n")
    assert texts[-1] == "data: [DONE]"
    return [json.loads(text.removeprefix("data: ")) for text in texts[:-1]]


@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: {"input": payload}])
def test_completions(wrap: Callable[[Body], Body]) -> None:
    payload = {"model": "m", "prompt": "two words"}
    answer = json.loads(send(SimulatedWorker(), call("/v1/completions", wrap(payload))).body)
    assert (answer["object"], answer["model"]) == ("text_completion", "m")
    assert answer["choices"][0] == {
        "index": 0,
        "text": "You said: two words",
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 4, "total_tokens": 6}
    streamed = events_of(send(SimulatedWorker(), call("/v1/completions", wrap(payload | {"stream": True}))))
    assert "".join(event["choices"][0]["text"] for event in streamed) == "You said: two words"
    assert [event["choices"][0]["finish_reason"] for event in streamed] == [None] * 4 + ["stop"]


@pytest.mark.parametrize("wrap", [lambda payload: payload, lambda payload: {"input": payload}])
def test_chat_completions(wrap: Callable[[Body], Body]) -> None:
    answer = json.loads(send(SimulatedWorker(), call("/v1/chat/completions", wrap(CHAT))).body)
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "You said: two words"}
    streamed = events_of(send(SimulatedWorker(), call("/v1/chat/completions", wrap(CHAT | {"stream": True}))))
    assert {event["object"] for event in streamed} == {"chat.completion.chunk"}
    assert streamed[0]["choices"][0]["delta"]["role"] == "assistant"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in streamed) == "You said: two words"


def test_fewer_tokens_than_there_are() -> None:
    answer = json.loads(send(SimulatedWorker(), call("/v1/chat/completions", CHAT | {"max_tokens": 2})).body)
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "You said:"},
        "finish_reason": "length",
    }


@pytest.mark.parametrize(
    ("route", "payload"),
    [
        ("/v1/completions", {}),
        ("/v1/completions", {"prompt": 5}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": [5]}),
    ],
)
def test_a_models_own_refusal_looks_like_the_workers(route: str, payload: Body) -> None:
    response = send(SimulatedWorker(), call(route, payload))
    assert response.status == 400
    assert json.loads(response.body)["error"]["type"] == "invalid_request_error"


def test_models_of_ones_own() -> None:
    def double(work: Work) -> Schedule:
        return json_answer(200, work.payload["x"] * 2, at=work.at + 1)

    worker = SimulatedWorker(plan=WorkerPlan(models={"/double": double}))
    assert fetch(worker, "/double", {"auth_data": GRANT, "payload": {"x": 4}}) == (200, 8)
    assert send(worker, call("/echo", {})).status == 404


# --- the queue, the life, faults ---------------------------------------------------------------------------------


def test_work_waits_for_the_work_before_it_and_a_long_queue_is_429() -> None:
    worker = SimulatedWorker(plan=WorkerPlan(perf=1, max_queue_time=12))
    ends = [worker.serve(call("/echo", {}), now=T0)[-1].at - T0 for _ in range(3)]
    assert ends == [5, 10, 15]
    response = send(worker, call("/echo", {}))
    assert (response.status, response.body, response.headers.get("retry-after")) == (429, b"", None)
    assert worker.state(now=T0) is WorkerState.FULL
    assert worker.state(now=T0 + 3) is WorkerState.READY
    assert worker.serve(call("/echo", {}), now=T0 + 3)[-1].at == T0 + 20


def test_a_life() -> None:
    plan = WorkerPlan(loading_after=5, ready_after=10, fails_after=20, dies_after=30)
    worker = SimulatedWorker(plan=plan)
    assert worker.state(now=T0) is WorkerState.CREATED
    seen = []
    for seconds in (0, 5, 10, 20, 30):
        schedule = worker.serve(call("/echo", {}), now=T0 + seconds)
        response = whole(schedule)
        seen.append((worker.state(now=T0 + seconds).value, response.status if response else schedule))
    refused = FailureKind.REFUSED
    assert seen == [
        ("created", (Cut(at=T0, kind=refused),)),
        ("loading", (Cut(at=T0 + 5, kind=refused),)),
        ("ready", 200),
        ("failed", 500),
        ("dead", (Cut(at=T0 + 30, kind=refused),)),
    ]
    assert [worker.refuses(Origin.parse(URL), now=T0 + seconds) for seconds in (5, 10, 20, 30)] == [
        True,
        False,
        False,
        True,
    ]


def test_a_death_cuts_what_is_under_way() -> None:
    worker = SimulatedWorker(plan=WorkerPlan(pace=1, dies_after=2.5))
    schedule = worker.serve(call("/stream", {"count": 9}), now=T0)
    assert body_of(schedule).count(b"data:") == 3
    assert schedule[-1] == Cut(at=T0 + 2.5, kind=FailureKind.RESET)


def test_a_worker_can_die_of_a_request() -> None:
    worker = SimulatedWorker(plan=WorkerPlan(dies_on=2))
    assert send(worker, call("/echo", {})).status == 200
    assert worker.serve(call("/echo", {}), now=T0 + 1) == (Cut(at=T0 + 1, kind=FailureKind.RESET),)
    assert worker.serve(call("/echo", {}), now=T0 + 2) == (Cut(at=T0 + 2, kind=FailureKind.REFUSED),)
    assert worker.served == 2


def test_a_worker_can_be_killed() -> None:
    worker = SimulatedWorker()
    worker.die(now=T0 + 1)
    assert send(worker, call("/echo", {})).status == 200
    assert worker.refuses(Origin.parse(URL), now=T0 + 1)


def test_faults_go_by_route_and_attempt() -> None:
    faults = {("/echo", 2): Status(429), ("/stream", 1): CutStreamAt(1)}
    worker = SimulatedWorker(plan=WorkerPlan(faults=faults))
    assert [send(worker, call("/echo?x=1", {})).status for _ in range(3)] == [200, 429, 200]
    assert worker.served == 2
    assert whole(worker.serve(call("/stream", {}), now=T0)) is None
    assert whole(worker.serve(call("/stream", {}), now=T0)) is not None


def test_a_label_can_be_anything_about_the_request() -> None:
    def index(sent: HttpRequest) -> str:
        return str(json.loads(sent.body)["auth_data"]["request_idx"])

    worker = SimulatedWorker(plan=WorkerPlan(faults={("1001", 1): Delay(7)}, label=index))
    other = request("/echo", {"auth_data": grant_of(request_idx=5), "payload": {}})
    assert worker.serve(other, now=T0)[-1].at == T0
    assert worker.serve(call("/echo", {}), now=T0)[-1].at == T0 + 7


def test_what_arrived_is_remembered() -> None:
    worker = SimulatedWorker(keep=2)
    for number in range(3):
        send(worker, call("/echo", {"n": number}))
    assert [json.loads(sent.body)["payload"]["n"] for sent in worker.requests] == [1, 2]
    assert worker.served == 3


def test_answers_carry_the_workers_clock() -> None:
    response = send(SimulatedWorker(epoch=1_700_000_000.0), call("/echo", {}), now=1.0)
    assert response.headers.get("date") == "Tue, 14 Nov 2023 22:13:21 GMT"
    assert send(SimulatedWorker(epoch=1e15), call("/echo", {})).headers.get("date") is None


# --- sessions ----------------------------------------------------------------------------------------------------


def granted() -> Grant:
    grant = decode_route(HttpResponse(status=200, body=json.dumps(GRANT).encode()))
    assert isinstance(grant, Grant)
    return grant


def test_a_session_through_the_library() -> None:
    worker, grant = SimulatedWorker(epoch=0.0), granted()
    made = send(worker, encode_session_create(grant, lifetime=30))
    assert made.status == 201
    handle = decode_session_create(made, grant=grant, lifetime=30, utc=T0)
    assert handle.expiration == T0 + 30
    assert decode_session_health(send(worker, encode_session_health(handle)), handle)
    work = encode_worker(grant, WorkerRequest(route="/echo", payload={}), session_id=handle.session_id)
    assert send(worker, work, now=T0 + 29).status == 200
    info = decode_session_get(send(worker, encode_session_get(handle)), handle, utc=T0)
    assert (info.expiration, info.created_at, info.lifetime) == (T0 + 60, T0, 30)
    assert len(worker.sessions(now=T0 + 59)) == 1
    assert decode_session_end(send(worker, encode_session_end(handle)), handle).was_open
    assert not decode_session_end(send(worker, encode_session_end(handle)), handle).was_open
    assert not decode_session_health(send(worker, encode_session_health(handle)), handle)
    gone = send(worker, work)
    assert (gone.status, json.loads(gone.body)) == (410, {"error": "invalid session"})


def test_a_session_expires() -> None:
    worker = SimulatedWorker()
    status, session = fetch(worker, "/session/create", {"auth_data": GRANT, "payload": {}})
    assert status == 201
    assert len(session["session_id"]) == 13
    assert fetch(worker, "/echo", {"auth_data": GRANT, "payload": {}, **session}, now=T0 + 60)[0] == 410


def test_a_forged_grant_opens_and_prolongs_a_session_and_does_no_work() -> None:
    worker, forged = SimulatedWorker(), grant_of(signature="forged")
    _, session = fetch(worker, "/session/create", {"auth_data": forged, "payload": {"lifetime": 10}})
    body = {"auth_data": forged, "payload": {}, "session_id": session["session_id"]}
    assert fetch(worker, "/echo", body, now=T0 + 9)[0] == 401
    assert [each.expires_at for each in worker.sessions(now=T0 + 19)] == [T0 + 20]


def test_no_more_sessions_than_it_has_room_for() -> None:
    worker = SimulatedWorker()
    body = {"auth_data": GRANT, "payload": {"lifetime": 20}}
    assert [fetch(worker, "/session/create", body)[0] for _ in range(11)] == [201] * 10 + [429]
    assert fetch(worker, "/session/create", body, now=T0 + 20)[0] == 201


def test_session_ids_come_from_the_seed() -> None:
    def make(seed: int) -> Any:
        return fetch(SimulatedWorker(seed=seed), "/session/create", {"auth_data": GRANT, "payload": {}})[1]

    assert make(1) == make(1)
    assert make(1) != make(2)


@pytest.mark.parametrize(
    ("route", "body", "answer"),
    [
        ("/session/get", {}, (422, {"error": "missing session_id"})),
        ("/session/health", {"session_id": ""}, (422, {"error": "missing session_id"})),
        ("/session/end", {"session_auth": {}}, (422, {"error": "missing session_id"})),
        ("/session/get", {"session_id": "none"}, (400, {"error": "session does not exist"})),
        ("/session/health", {"session_id": "none"}, (200, {"ok": False})),
        ("/session/end", {"session_id": "none"}, (400, {"error": "session with id none not found"})),
        ("/session/get", {"session_id": "REAL"}, (401, {"error": "session_auth is not valid"})),
        ("/session/health", {"session_id": "REAL"}, (401, {"error": "session_auth is not valid"})),
        ("/session/end", {"session_id": "REAL", "session_auth": {}}, (401, {"error": "session_auth is not valid"})),
    ],
)
def test_session_refusals(route: str, body: Body, answer: tuple[int, Any]) -> None:
    worker = SimulatedWorker()
    session = fetch(worker, "/session/create", {"auth_data": GRANT, "payload": {}})[1]
    if body.get("session_id") == "REAL":
        body = body | {"session_id": session["session_id"]}
    assert fetch(worker, route, body) == answer
    assert len(worker.sessions(now=T0)) == 1


@pytest.mark.parametrize(
    "body", [{"payload": {}}, {"auth_data": GRANT}, {"auth_data": GRANT, "payload": {"lifetime": "long"}}]
)
def test_sessions_that_cannot_be_made(body: Body) -> None:
    assert send(SimulatedWorker(), request("/session/create", body)).status == 500


@pytest.mark.parametrize("grant", [{}, {"cost": None}, {"cost": "5"}])
def test_a_session_whose_cost_cannot_be_counted_is_made_all_the_same(grant: Body) -> None:
    worker = SimulatedWorker(plan=WorkerPlan(max_sessions=1))
    for _ in range(2):  # the second time there is no room
        assert send(worker, request("/session/create", {"auth_data": grant, "payload": {}})).status == 500
        assert len(worker.sessions(now=T0)) == 1
    assert send(worker, request("/session/create", {"auth_data": GRANT, "payload": {}})).status == 429


# --- keys --------------------------------------------------------------------------------------------------------


def test_the_public_keys_belong_to_the_private_ones() -> None:
    assert public_half(TEST_PRIVATE_KEY) == TEST_PUBLIC_KEY
    assert public_half(OTHER_TEST_PRIVATE_KEY) == OTHER_TEST_PUBLIC_KEY
    assert TEST_PUBLIC_KEY != OTHER_TEST_PUBLIC_KEY


def test_what_cannot_be_signed_is_refused() -> None:
    with pytest.raises(InvalidValue, match="url"):
        sign({"cost": 5})
    with pytest.raises(InvalidValue, match="PEM"):
        sign(GRANT, key="no key")
    with pytest.raises(InvalidValue, match="PEM"):
        sign(GRANT, key=TEST_PUBLIC_KEY)
    with pytest.raises(InvalidValue, match="RSA"):
        sign(GRANT, key=ED25519_PRIVATE_KEY)
