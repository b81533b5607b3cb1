"""The simulated worker beside the official one: the same requests, the same models behind both, the same answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from typing import Any

import attrs
import pytest

from vastroute import Origin
from vastroute_testing import MODELS, LoopbackThread, SimulatedWorker, WorkerPlan, sign

from .stage import Stage

INSTANTS = {"created", "created_at", "expiration", "id"}
"""Fields that differ between any two runs."""


@attrs.frozen
class Seen:
    """What a caller can tell of an answer."""

    status: int
    closes: bool
    """Whether the connection ends with it."""
    content_type: str | None
    is_chunked: bool
    allow: str | None
    body: Any


@attrs.frozen(kw_only=True)
class Pair:
    """Two workers, a grant that both accept, and a session at each."""

    ports: tuple[int, int]
    sessions: tuple[str, str]
    grant: Mapping[str, Any]

    def ask(self, method: str, route: str, body: Any) -> tuple[Seen, Seen]:
        """Both answers. GRANT and SESSION in a body stand for the grant, and for each worker's session."""
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        text = text.replace(b'"GRANT"', json.dumps(self.grant).encode())
        official, simulated = (
            fetch(port, method, route, text.replace(b"SESSION", session.encode()), session)
            for port, session in zip(self.ports, self.sessions, strict=True)
        )
        return official, simulated


def fetch(port: int, method: str, route: str, body: bytes, session: str = "") -> Seen:
    """One exchange, by the standard library's client."""
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, route, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read()
        kind = response.getheader("content-type")
        return Seen(
            status=response.status,
            closes=response.will_close,
            content_type=kind,
            is_chunked=response.getheader("transfer-encoding") == "chunked",
            allow=response.getheader("allow"),
            body=content(kind, data, session),
        )


def content(kind: str | None, data: bytes, session: str) -> Any:
    """A body with what differs between any two runs put out of sight."""

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: type(each) if name in INSTANTS else shape(each) for name, each in value.items()}
        return "SESSION" if session and value == session else value

    if data and kind and kind.startswith("application/json"):
        return shape(json.loads(data))
    return re.sub(rb'"id": "[^"]*"|"created": \d+', b"", data)


@pytest.fixture(scope="module")
def pair(stage: Stage) -> Iterator[Pair]:
    """The official worker, and a simulated one."""
    url = stage.worker_url
    grant: dict[str, Any] = {"endpoint": "plain", "url": url, "cost": 100, "reqnum": 1, "request_idx": 7}
    grant["signature"] = sign(grant)
    simulated = SimulatedWorker(url, plan=WorkerPlan(max_sessions=3))
    with LoopbackThread(simulated) as loopback:
        ports = Origin.parse(url).port, loopback.origin.port
        made = []
        for port in ports:
            with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                body = json.dumps({"auth_data": grant, "payload": {"lifetime": 60}})
                connection.request("POST", "/session/create", body)
                made.append(json.loads(connection.getresponse().read())["session_id"])
        both = Pair(ports=ports, sessions=(made[0], made[1]), grant=grant)
        yield both
        ends = both.ask("POST", "/session/end", {"session_id": "SESSION", "session_auth": "GRANT"})
        assert [end.status for end in ends] == [200, 200]


def call(payload: Any, **more: Any) -> dict[str, Any]:
    """An envelope."""
    return {"auth_data": "GRANT", "payload": payload} | more


MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}]}
ANSWERS: list[tuple[str, dict[str, Any]]] = [
    ("/echo", {"text": "é", "deep": [1, 2.5, None, True]}),
    ("/stream", {"count": 3}),
    ("/stream", {"count": "many"}),
    ("/slow", {"seconds": 0.1}),
    ("/media", {}),
    ("/v1/completions", {"prompt": "hello"}),
    ("/v1/completions", {"prompt": "hello", "stream": True}),
    ("/v1/chat/completions", MESSAGES),
    ("/v1/chat/completions", {"input": MESSAGES}),
    ("/v1/chat/completions", MESSAGES | {"stream": True}),
    ("/v1/chat/completions", {}),
    *[("/status", {"status": n}) for n in (201, 204, 304, 400, 401, 404, 410, 422, 429, 500, 503, 599)],
]


@pytest.mark.parametrize(("route", "payload"), ANSWERS)
def test_what_the_model_says(pair: Pair, route: str, payload: dict[str, Any]) -> None:
    official, simulated = pair.ask("POST", route, call(payload))
    assert simulated == official


def short(value: Any) -> str:
    """A test's name."""
    return str(value)[:40]


PAYLOADS: tuple[Any, ...] = (None, [], "text", 5, True)
IDS: tuple[Any, ...] = (None, "SESSION", "unknown", "", 0, True, [1], {})
ENVELOPES: list[Any] = [
    b"",
    b"{",
    b"5",
    b"null",
    b"NaN",
    [],
    {},
    b'{"auth_data": "\xe9"}',
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b"1" * 5_000,
    {"payload": {}},
    {"auth_data": "GRANT"},
    *[{"auth_data": "GRANT", "payload": each} for each in PAYLOADS],
    *[{"auth_data": each, "payload": {}} for each in (*PAYLOADS, {})],
    *[call({}, session_id=each) for each in IDS],
]


@pytest.mark.parametrize("body", ENVELOPES, ids=short)
def test_the_envelope(pair: Pair, body: Any) -> None:
    official, simulated = pair.ask("POST", "/echo", body)
    assert simulated == official


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/echo", call({})),
        ("/echo", b"5"),
        ("/stream", call({"count": 1})),
        ("/echo", {}),
        ("/echo", call({}, session_id="unknown")),
        ("/echo", call({}, auth_data={})),
        ("/unknown", {}),
    ],
)
def test_who_closes_the_connection(pair: Pair, route: str, body: Any) -> None:
    official, simulated = pair.ask("POST", route, body)
    assert simulated.closes == official.closes


def test_a_full_worker(stage: Stage, pair: Pair) -> None:
    plan = WorkerPlan(perf=100, max_queue_time=0.5, models=dict.fromkeys(("/busy", "/slow"), MODELS["/echo"]))
    body = json.dumps({"auth_data": pair.grant, "payload": {}}).encode()
    with LoopbackThread(SimulatedWorker(stage.worker_url, plan=plan)) as loopback, ExitStack() as stack:
        # The work is taken and not yet done: its answer is not waited for.
        busy = stack.enter_context(closing(HTTPConnection("127.0.0.1", loopback.origin.port)))
        busy.request("POST", "/slow", body)
        stack.enter_context(stage.occupied("likeness, occupant", seconds=0.5))
        official, simulated = (fetch(port, "POST", "/busy", body) for port in (pair.ports[0], loopback.origin.port))
    assert simulated == official
    assert (official.status, official.body, official.closes) == (429, b"", False)


@pytest.mark.parametrize("name", ["cost", "endpoint", "reqnum", "request_idx", "signature", "url"])
def test_a_grant_that_lacks_a_field(pair: Pair, name: str) -> None:
    grant = {key: value for key, value in pair.grant.items() if key != name}
    official, simulated = pair.ask("POST", "/echo", call({}, auth_data=grant))
    assert simulated == official
    assert official.body == {"auth_data": {name: "missing parameter"}}


FIELDS: dict[str, list[Any]] = {
    "__request_id": ["any"],
    "cost": [None, "text", 1e300, -1],
    "endpoint": [None, 5],
    "reqnum": [None, "text", 2.5, -5, True, [1], {}],
    "request_idx": [None, "text"],  # a list ends all reports of the official worker for good
    "url": [None, 5, True, [1], "é", "\ud800", "https://203.0.113.1:40001"],
    "signature": [None, 5, True, [1], {}, "", "é", "####"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FIELDS for value in FIELDS[name]])
def test_a_field_of_the_grant(pair: Pair, name: str, value: Any) -> None:
    official, simulated = pair.ask("POST", "/echo", call({}, auth_data={**pair.grant, name: value}))
    assert simulated == official


@pytest.mark.parametrize(
    "spelling",
    ["{}", "{}\n", " {}", "!{}", "{}=", "{}A===", "A{}"],
)
def test_the_spelling_of_a_signature(pair: Pair, spelling: str) -> None:
    grant = {**pair.grant, "signature": spelling.format(pair.grant["signature"])}
    official, simulated = pair.ask("POST", "/echo", call({}, auth_data=grant))
    assert simulated == official


@pytest.mark.parametrize(
    ("method", "route"),
    [
        ("POST", "/echo?api_key=any"),
        ("POST", "/echo/"),
        ("POST", "//echo"),
        ("POST", "/unknown"),
        *[("GET", route) for route in ("/", "/unknown", "/echo", "/session/create", "/session/get", "/session/end")],
        *[(method, "/echo") for method in ("PUT", "HEAD", "OPTIONS")],
    ],
)
def test_a_route_and_a_method(pair: Pair, method: str, route: str) -> None:
    official, simulated = pair.ask(method, route, call({}))
    assert simulated == official


SESSION: dict[str, Any] = {"session_id": "SESSION", "session_auth": "GRANT"}
NO_IDS: tuple[Any, ...] = ("unknown", "", None, 0, 5, True, [], [1])
NO_GRANTS: tuple[Any, ...] = (None, {}, "text")
ABOUT_SESSIONS: list[Any] = [
    *[SESSION | {"session_id": each} for each in NO_IDS],
    *[SESSION | {"session_auth": each} for each in NO_GRANTS],
    {"session_id": "SESSION"},
    {"session_auth": "GRANT"},
    b"",
    b"null",
    b'"text"',
    [],
]


@pytest.mark.parametrize("route", ["/session/get", "/session/health", "/session/end"])
@pytest.mark.parametrize("body", ABOUT_SESSIONS, ids=short)
def test_what_is_asked_about_sessions(pair: Pair, route: str, body: Any) -> None:
    official, simulated = pair.ask("POST", route, body)
    assert simulated == official


@pytest.mark.parametrize("cost", [100, 100.0])
@pytest.mark.parametrize("route", ["/session/get", "/session/health"])
def test_a_session_that_is_open(pair: Pair, route: str, cost: float) -> None:
    # The grant that proves a session is compared as JSON values, to which 100.0 is 100.
    official, simulated = pair.ask("POST", route, SESSION | {"session_auth": {**pair.grant, "cost": cost}})
    assert simulated == official
    assert official.status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        [],
        {"payload": {}},
        {"auth_data": "GRANT"},
        call(None),
        *[call({"lifetime": each}) for each in (None, "text", [1])],
        call({}, auth_data=[]),
        # Not one without a cost: it is made, and the official worker never gets rid of it.
    ],
    ids=short,
)
def test_sessions_that_are_not_made(pair: Pair, body: Any) -> None:
    official, simulated = pair.ask("POST", "/session/create", body)
    assert simulated == official
    assert official.status >= 400
