"""The worker of the documentation, called by our own client: the app is real, what lies between is memory.

An ASGI app is a coroutine that is handed two functions, so no ASGI server is needed: `asgi_server` runs it in virtual
time and writes down what it sends, and when.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import vastroute_io.blocking
from vastroute import (
    Guard,
    Headers,
    HttpRequest,
    Origin,
    Phase,
    PublicKey,
    Refused,
    ServerSentEvent,
    SignatureMode,
    WorkerGuard,
)
from vastroute_testing import (
    OTHER_TEST_PUBLIC_KEY,
    TEST_KEY,
    TEST_PUBLIC_KEY,
    Chunk,
    End,
    Head,
    ManualClock,
    Schedule,
    Serve,
    SimulatedEndpoint,
    SimulatedEngine,
    Step,
    blocking_connector,
    sign,
)
from vastroute_testing.memory import Client

requests: Any = pytest.importorskip(
    "starlette.requests", reason="the example is a Starlette app: install vastroute[test]"
)
ClientDisconnect: type[Exception] = requests.ClientDisconnect

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "worker_app.py"
ROUTE = "/v1/completions"
URL = "https://203.0.113.1:40001"
ENGINE = Origin.parse("https://run.vast.ai")
Message = dict[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


class Worker:
    """The example, with a guard of the test's."""

    def __init__(self, guard: WorkerGuard) -> None:
        names = run_path(str(EXAMPLE))
        self.state: Any = names["Worker"](guard)
        self.app: App = names["make_app"](self.state)

    @property
    def waiting(self) -> float:
        return round(float(self.state.waiting), 6)


def scope_of(request: HttpRequest, *, version: str = "2.3") -> Message:
    path, _, query = request.target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": version},
        "http_version": "1.1",
        "method": request.method,
        "path": path,
        "query_string": query.encode(),
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in request.headers],
    }


def asgi_server(app: App) -> Serve:
    """`app` as a server of the simulation."""

    def serve(request: HttpRequest, now: float) -> Schedule:
        steps: list[Step] = []
        pieces = [request.body[:10], request.body[10:]]

        async def receive() -> Message:
            if not pieces:
                await trio.sleep_forever()  # the client stays
            body = pieces.pop(0)
            return {"type": "http.request", "body": body, "more_body": bool(pieces)}

        async def send(message: Message) -> None:
            at = now + trio.current_time() - began[0]
            if message["type"] == "http.response.start":
                steps.append(Head(at=at, status=message["status"], headers=Headers(message["headers"])))
                return
            if message["body"]:
                steps.append(Chunk(at=at, data=message["body"]))
            if not message.get("more_body", False):
                steps.append(End(at=at))

        async def main() -> None:
            began.append(trio.current_time())
            await app(scope_of(request), receive, send)

        began: list[float] = []
        trio.run(main, clock=MockClock(autojump_threshold=0))
        return tuple(steps)

    return serve


def world(worker: Worker) -> dict[Origin, Any]:
    """An engine whose one worker is the app."""
    engine = SimulatedEngine(SimulatedEndpoint("my-endpoint", ready_after=60))
    return {ENGINE: engine, Origin.parse(engine.workers[0].url): asgi_server(worker.app)}


def test_a_client_gets_its_answer() -> None:
    worker = Worker(WorkerGuard(TEST_PUBLIC_KEY, url=URL))
    client = Client(server=world(worker), public_key=TEST_PUBLIC_KEY, signature=SignatureMode.REQUIRE)
    answer = client.call("my-endpoint", ROUTE, {"prompt": "two words"})
    assert answer.text() == 'data: {"token": "two"}\n\ndata: {"token": "words"}\n\ndata: [DONE]\n\n'
    assert worker.waiting == 0


def test_a_stream_comes_piece_by_piece() -> None:
    clock = ManualClock()
    servers = world(Worker(WorkerGuard(TEST_PUBLIC_KEY)))
    with (
        vastroute_io.blocking.Client(
            connect=blocking_connector(servers, clock),
            clock=clock,
            key=TEST_KEY,
            guard=Guard(allow_private_address=True),
        ) as client,
        client.stream("my-endpoint", ROUTE, {"prompt": "a b c"}) as events,
    ):
        seen = [(clock(), each.data) for each in events if isinstance(each, ServerSentEvent)]
    assert [(round(at - seen[0][0], 3), data) for at, data in seen] == [
        (0.0, '{"token": "a"}'),
        (0.1, '{"token": "b"}'),
        (0.2, '{"token": "c"}'),
        (0.2, "[DONE]"),
    ]


@pytest.mark.parametrize(
    ("guard", "status"),
    [
        (WorkerGuard(OTHER_TEST_PUBLIC_KEY), 401),
        (WorkerGuard(TEST_PUBLIC_KEY, url="https://203.0.113.2:40001"), 401),
    ],
)
def test_a_grant_that_opens_nothing_ends_the_call(guard: WorkerGuard, status: int) -> None:
    with pytest.raises(Refused) as caught:
        Client(server=world(Worker(guard))).call("my-endpoint", ROUTE, {"prompt": "p"})
    assert (caught.value.status, caught.value.phase) == (status, Phase.WORKER)


def post(body: bytes) -> HttpRequest:
    return HttpRequest(method="POST", origin=Origin.parse(URL), target=ROUTE, headers=Headers(), body=body)


def honest(prompt: str = "a b c") -> bytes:
    fields = {"url": URL, "endpoint": "e", "cost": 1, "reqnum": 1, "request_idx": 1}
    return json.dumps({"auth_data": fields | {"signature": sign(fields)}, "payload": {"prompt": prompt}}).encode()


@pytest.mark.parametrize(
    ("body", "waiting", "status", "said"),
    [
        (b"{", 0, 422, b'{"error": "invalid JSON"}'),
        (b"{}", 0, 422, b'{"auth_data": "field missing", "payload": "field missing"}'),
        (b" " * 2**25, 0, 413, b""),
        (honest(), 31, 429, b""),
        (honest(), 30, 200, b"data:"),
    ],
)
def test_what_the_guard_says_is_what_is_answered(body: bytes, waiting: float, status: int, said: bytes) -> None:
    worker = Worker(WorkerGuard(TEST_PUBLIC_KEY))
    worker.state.waiting = waiting
    head, *rest = asgi_server(worker.app)(post(body), 0.0)
    assert isinstance(head, Head)
    assert head.status == status
    first = rest[0].data if isinstance(rest[0], Chunk) else b""
    assert first.startswith(said)
    assert bool(said) is bool(first)


class Gone(OSError):
    """How an ASGI server of the newer kind says that nobody listens any more."""


@pytest.mark.parametrize("version", ["2.3", "2.4"])
def test_the_stream_ends_when_its_client_goes_away(version: str) -> None:
    worker = Worker(WorkerGuard(TEST_PUBLIC_KEY))
    request = post(honest("word " * 1000))
    sent: list[Message] = []
    left = trio.Event()

    async def receive() -> Message:
        if not sent and not left.is_set():
            left.set()
            return {"type": "http.request", "body": request.body, "more_body": False}
        await trio.sleep(1.05)  # the client listens for a second, then it is gone
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if version == "2.4" and len(sent) > 11:
            raise Gone

    async def main() -> float:
        began = trio.current_time()
        with suppress(ClientDisconnect):  # how the newer kind of server is told
            await worker.app(scope_of(request, version=version), receive, send)
        return trio.current_time() - began

    seconds = trio.run(main, clock=MockClock(autojump_threshold=0))
    assert seconds < 2, "it went on to the end of a stream that nobody read"
    assert 9 <= len(sent) <= 12
    assert worker.waiting == 0


def test_it_is_made_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_PUBLIC_KEY", TEST_PUBLIC_KEY)
    monkeypatch.setenv("WORKER_URL", URL)
    app: App = run_path(str(EXAMPLE))["from_environment"]()
    head, *_ = asgi_server(app)(post(honest()), 0.0)
    assert isinstance(head, Head)
    assert head.status == 200
    assert PublicKey.load(TEST_PUBLIC_KEY).bits == 2048
