"""What users of every kind write, for the type checkers alone: mypy and pyright read this, and nobody runs it.

``assert_type`` says what a checker has to know, ``assert_never`` that a match leaves nothing out. What must *not* pass
is in ``wrong.py``.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, assert_never, assert_type

import trio

import vastroute
import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
import vastroute_testing
import vastroute_testing.memory
from vastroute_io.options import CallOptions, ClientOptions, RouteOptions, SessionOptions

T = TypeVar("T")

# --- who calls workers -----------------------------------------------------------------------------------------------


async def trio_user(handle: vastroute.SessionHandle) -> None:
    async with vastroute_io.trio.Client(key="key", signature="require", observer=print) as client:
        assert_type(client, vastroute_io.trio.Client)
        result = await client.route("my-endpoint", cost=256, timeout=60)
        assert_type(result, vastroute.RouteResult)
        assert_type(result.grant, vastroute.Grant)
        assert_type(result.grant.raw, bytes)
        assert_type(result.request_idx, int | None)
        assert_type(result.verdict.verified, bool)
        answer = await client.call("my-endpoint", "/v1/completions", {"prompt": "p"}, safe_to_repeat=True)
        assert_type(answer, vastroute.Answer)
        assert_type(answer.status, int)
        assert_type(answer.body, bytes)
        assert_type(answer.text(), str)
        assert_type(answer.counts.polls, int)
        async with client.stream("my-endpoint", "/stream", b'{"n": 1}', headers={"X-Trace": "1"}) as events:
            assert_type(events, vastroute_io.trio.Stream)
            async for event in events:
                assert_type(take(event), str)
            assert_type(events.finished, bool)
            assert_type(events.result(), vastroute.Answer)
        async with client.session("my-endpoint", lifetime=90, on_close_route="/save") as session:
            assert_type(session, vastroute_io.trio.Session)
            assert_type(await session.call("/step", {}), vastroute.Answer)
            assert_type(await session.health(), bool)
            assert_type(await session.info(), vastroute.SessionInfo)
            assert_type(session.life.kept_until, float)
            assert_type(session.detach(), vastroute.SessionHandle)
        async with client.resume_session(handle) as session:
            assert_type(await session.end(), vastroute.SessionEnded)
        assert_type(await client.endpoints(), tuple[vastroute.EndpointInfo, ...])
        assert_type(await client.workers("my-endpoint"), tuple[vastroute.WorkerInfo, ...])
        assert_type(await client.fetch_public_key(), vastroute.PublicKey)


async def asyncio_user() -> None:
    async with vastroute_io.asyncio.Client(key=vastroute.Secret("key"), proxy=None) as client:
        answers = await asyncio.gather(*(client.call("my-endpoint", "/echo", {"n": n}) for n in range(3)))
        assert_type(answers, list[vastroute.Answer])
        async with client.stream("my-endpoint", "/stream", {}) as events:
            assert_type([event async for event in events], list[vastroute.StreamEvent])
        async with client.session("my-endpoint") as session, session.stream("/stream", {}) as events:
            assert_type(events, vastroute_io.asyncio.Stream)


def blocking_user() -> None:
    with vastroute_io.blocking.Client(policy=vastroute.RetryPolicy(total=60.0, max_polls=10)) as client:
        assert_type(client.route("my-endpoint"), vastroute.RouteResult)
        assert_type(client.call("my-endpoint", "/echo", {"n": 1}, work_policy=vastroute.WorkPolicy()), vastroute.Answer)
        with client.stream("my-endpoint", "/stream", {}) as events:
            assert_type([take(event) for event in events], list[str])
        with client.session("my-endpoint") as session:
            assert_type(session.call("/step", {}), vastroute.Answer)
        threading.Thread(target=client.call, args=("my-endpoint", "/echo", {})).start()


def take(event: vastroute.StreamEvent) -> str:
    """A stream's events are these three and no others."""
    match event:
        case vastroute.ServerSentEvent():
            assert_type(event.data, str)
            return event.data
        case vastroute.JsonLine():
            assert_type(event.text, str)
            return event.text
        case bytes():
            return event.decode()
        case _:
            assert_never(event)


def options_from_a_file(settings: Mapping[str, str]) -> vastroute_io.blocking.Client:
    options: ClientOptions = {"engine": settings["engine"], "limits": vastroute.Limits(max_body=1024)}
    if settings.get("plain"):
        options["guard"] = vastroute.Guard(allow_plain_http=True)
    return vastroute_io.blocking.Client(**options)


def options_of_the_verbs(client: vastroute_io.blocking.Client) -> None:
    route: RouteOptions = {"cost": 1, "request_idx": None, "extra": {"guid": 1}}
    call: CallOptions = {"cost": 1.5, "timeout": None, "headers": {"X-Trace": "1"}, "safe_to_repeat": False}
    session: SessionOptions = {"timeout": 60, "lifetime": 90.0}
    client.route("my-endpoint", **route)
    client.call("my-endpoint", "/echo", {}, **call)
    client.session("my-endpoint", **session)


def policy_maker() -> vastroute.WorstCase:
    policy = vastroute.RetryPolicy(
        poll_pause=vastroute.Pause(first=2.0, cap=30.0), stop_statuses=["stopped", "no workers"]
    )
    assert_type(policy.stop_statuses, frozenset[str])
    assert_type(policy.worst_case().seconds, float)
    return policy.worst_case()


def watcher(entry: vastroute.Entry) -> None:
    """An observer is any function of an entry."""
    assert_type(entry.kind, vastroute.EntryKind)
    assert_type(entry.until, float | None)
    assert_type(entry.as_dict(), dict[str, Any])


watched = vastroute_io.trio.Client(observer=watcher, rng=lambda: 0.5)

# --- who catches errors ----------------------------------------------------------------------------------------------


def catcher(client: vastroute_io.blocking.Client) -> str:
    try:
        client.call("my-endpoint", "/echo", {})
    except vastroute.LimitReached as error:
        assert_type(error.limit, str | None)
        assert_type(error.not_ready, vastroute.NotReady | None)
    except vastroute.SessionGone as error:
        assert_type(error.status, int | None)
    except vastroute.CallFailed as error:
        assert_type(error.counts, vastroute.Counts | None)
        return f"{may_be_paid(error.outcome)} {what_to_do(error.advice)} {hop(error.phase)}"
    except vastroute.InvalidValue as error:
        as_value_error: ValueError = error
        return str(as_value_error)
    return ""


def may_be_paid(outcome: vastroute.Outcome) -> bool:
    match outcome:
        case vastroute.Outcome.NOT_SENT:
            return False
        case vastroute.Outcome.PERHAPS_STARTED | vastroute.Outcome.ANSWERED:
            return True
        case _:
            assert_never(outcome)


def what_to_do(advice: vastroute.Advice) -> str:
    match advice:
        case vastroute.Advice.ASK_AGAIN:
            return "again"
        case vastroute.Advice.CHECK_WORK:
            return "only if it did not run"
        case vastroute.Advice.CHECK_KEY | vastroute.Advice.CHECK_INPUT | vastroute.Advice.CHECK_ENDPOINT:
            return "mine"
        case vastroute.Advice.RAISE_LIMIT | vastroute.Advice.ALLOW:
            return "a switch"
        case vastroute.Advice.CHECK_ANSWER:
            return "theirs"
        case vastroute.Advice.NOTHING:
            return ""
        case _:
            assert_never(advice)


def hop(phase: vastroute.Phase) -> int:
    match phase:
        case vastroute.Phase.LOOKUP:
            return 0
        case vastroute.Phase.ROUTE:
            return 1
        case vastroute.Phase.WORKER:
            return 2
        case _:
            assert_never(phase)


def what_follows(row: vastroute.OutcomeRow) -> bool:
    match row.then:
        case vastroute.Then.ANSWER | vastroute.Then.STOP:
            return False
        case vastroute.Then.REROUTE | vastroute.Then.REROUTE_IF_SAFE | vastroute.Then.FRESH_GRANT:
            return True
        case _:
            assert_never(row.then)


# --- who embeds the machines -----------------------------------------------------------------------------------------


def embedder(clock: Callable[[], float], rng: Callable[[], float]) -> vastroute.Answer:
    request = vastroute.RouteRequest(endpoint="my-endpoint", cost=256)
    route = vastroute.RouteCall(request, key="key", rng=rng, deadline=clock() + 900)
    assert_type(drive(route, clock), vastroute.RouteResult)
    call = vastroute.Call(route, vastroute.WorkerRequest(route="/echo", payload={"n": 1}, stream=True))
    assert_type(call.next_event(now=clock()), vastroute.StreamEvent | None)
    assert_type(call.snapshot(now=clock()).save(utc=0.0), dict[str, Any])
    again = vastroute.RouteCall.resume({}, key="key", rng=rng, now=clock(), utc=0.0)
    assert_type(
        vastroute.Call.resume({}, again, vastroute.WorkerRequest(route="/", payload=b"{}"), now=0.0), vastroute.Call
    )
    assert_type(call.phase, vastroute.CallState)
    return drive(call, clock)


def drive(machine: vastroute.Machine[T], clock: Callable[[], float]) -> T:
    """The five actions are all there are."""
    while True:
        action = machine.next_action(now=clock())
        match action:
            case vastroute.Send(request=request, guard=guard):
                assert_type(request, vastroute.HttpRequest)
                assert_type(guard, vastroute.Guard | None)
                exchange(machine, action, clock)
            case vastroute.Receive(deadline=deadline):
                assert_type(deadline, float)
            case vastroute.WaitUntil(at=at, why=why):
                assert_type(at, float)
                assert_type(why, vastroute.Why)
            case vastroute.Done(result=result):
                return result
            case vastroute.GiveUp(error=error):
                assert_type(error, vastroute.CallFailed)
                raise error
            case _:
                assert_never(action)


def exchange(machine: vastroute.Machine[Any], send: vastroute.Send, clock: Callable[[], float]) -> None:
    refusal = send.guard.check_address("203.0.113.7", send.request.origin) if send.guard else None
    if refusal is not None:
        machine.failed(refusal.as_error(), sent=False, now=clock())
        return
    send.check_host()
    assert_type(send.timeouts(now=clock()), tuple[float, float])
    assert_type(machine.read_limit(now=clock()), float | None)
    assert_type(machine.next_event(now=clock()), vastroute.StreamEvent | None)
    try:
        response = vastroute.HttpResponse(status=200, headers={"content-type": "text/plain"}, body=b"")
        machine.receive(response, now=clock())
    except OSError as error:
        machine.failed(error, kind=vastroute.FailureKind.RESET, sent=None, now=clock(), reused=True)


def over_bytes(machine: vastroute.Machine[Any], send: vastroute.Send, peer: socket.socket) -> bool:
    http = vastroute.Http1Connection(vastroute.Limits())
    peer.sendall(http.send(send.request))
    events = http.receive(peer.recv(65536))
    assert_type(events, list[vastroute.Event])
    for event in events:
        match event:
            case vastroute.ResponseHead():
                machine.head(event, now=0.0)
            case bytes():
                machine.chunk(event, now=0.0)
            case vastroute.End():
                machine.end(now=0.0)
            case vastroute.Broken():
                machine.failed(event.kind, sent=True, now=0.0)
            case _:
                assert_never(event)
    assert_type(machine.feed(events, now=0.0), float | None)
    return http.reusable


def pure_functions(response: vastroute.HttpResponse) -> bytes | None:
    request = vastroute.encode_route(vastroute.RouteRequest(endpoint="my-endpoint"), key=vastroute.Secret("key"))
    assert_type(request.url, str)
    assert_type(request.headers.get("authorization"), str | None)
    answer = vastroute.decode_route(response)
    assert_type(answer, vastroute.Grant | vastroute.NotReady)
    if isinstance(answer, vastroute.NotReady):
        assert_type(answer.counts, Mapping[str, int])
        return None
    work = vastroute.WorkerRequest(route="/echo", payload={"n": 1})
    assert_type(vastroute.judge_failure(TimeoutError(), None, sent=None), tuple[vastroute.FailureKind, bool | None])
    assert_type(vastroute.outcome_of_failure(vastroute.FailureKind.EOF, sent=None), vastroute.OutcomeRow)
    assert_type(vastroute.stream_decoder("text/event-stream"), vastroute.StreamDecoder)
    return vastroute.encode_worker(answer, work, request_idx=7).body


def keeper_of_connections(pool: vastroute.Pool[str, socket.socket]) -> None:
    got = pool.acquire("origin", now=0.0)
    match got:
        case vastroute.Use():
            assert_type(got.connection, socket.socket)
        case vastroute.Open():
            pass
        case vastroute.Wait():
            assert_type(got.ticket, vastroute.Ticket[str, socket.socket])
        case _:
            assert_never(got)


# --- who brings streams of his own -----------------------------------------------------------------------------------


async def trio_connect(origin: vastroute.Origin) -> trio.SocketStream:
    return await trio.open_tcp_stream(origin.host, origin.port)


class AsyncioStream:
    """Has what is asked for, and inherits nothing."""

    async def send_all(self, data: bytes) -> None: ...

    async def receive_some(self, most: int) -> bytes:
        return b"" if most else b"."

    def abort(self) -> None: ...


async def asyncio_connect(origin: vastroute.Origin) -> AsyncioStream:
    assert_type(origin.authority, str)
    return AsyncioStream()


class BlockingStream:
    """Has what is asked for, and inherits nothing."""

    def send_all(self, data: bytes, *, deadline: float) -> None: ...

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        return b"" if most else b"."

    def close(self) -> None: ...


def blocking_connect(origin: vastroute.Origin, deadline: float) -> BlockingStream:
    assert_type((origin.port, deadline), tuple[int, float])
    return BlockingStream()


async def connected(ready: trio.SocketStream) -> None:
    vastroute_io.trio.Client(connect=trio_connect)
    vastroute_io.trio.Client(connect=ready)
    vastroute_io.asyncio.Client(connect=asyncio_connect)
    vastroute_io.blocking.Client(connect=blocking_connect)
    vastroute_io.blocking.Client(connect=BlockingStream())


# --- who tests -------------------------------------------------------------------------------------------------------


def tester() -> None:
    engine = vastroute_testing.SimulatedEngine(vastroute_testing.SimulatedEndpoint("my-endpoint", ready_after=600))
    with vastroute_testing.memory.Client(server=engine) as client:
        assert_type(client.call("my-endpoint", "/echo", {"n": 1}).counts.polls, int)
        assert_type(client.clock, vastroute_testing.ManualClock)
        assert_type(client.transcripts[0].error, vastroute.CallFailed | None)
    clock = vastroute_testing.ManualClock()
    with vastroute_io.blocking.Client(connect=vastroute_testing.blocking_connector(engine, clock), clock=clock) as real:
        assert_type(real.route("my-endpoint"), vastroute.RouteResult)
    route = vastroute.RouteCall(
        vastroute.RouteRequest(endpoint="my-endpoint"), key="key", rng=lambda: 0.5, deadline=900.0
    )
    transcript = vastroute_testing.run(route, engine, clock)
    assert_type(transcript, vastroute_testing.Transcript[vastroute.RouteResult])
    assert_type(transcript.result(), vastroute.RouteResult)
    with vastroute_testing.LoopbackThread(engine) as loopback:
        assert_type(loopback.url, str)


async def trio_tester(server: vastroute_testing.Server) -> None:
    connect = vastroute_testing.connector(server, cut=(1, 7, 3))
    async with vastroute_io.trio.Client(connect=connect, key=vastroute_testing.TEST_KEY):
        assert_type(connect.open, int)
    async with vastroute_testing.open_loopback(server) as loopback:
        assert_type(loopback, vastroute_testing.Loopback)


def asyncio_tester(servers: vastroute_testing.Servers) -> None:
    async def main() -> vastroute.RouteResult:
        connect = vastroute_testing.asyncio_connector(servers)
        async with vastroute_io.asyncio.Client(connect=connect, key=vastroute_testing.TEST_KEY) as client:
            return await client.route("my-endpoint")

    with asyncio.Runner(loop_factory=vastroute_testing.VirtualLoop) as runner:
        assert_type(runner.run(main()), vastroute.RouteResult)


class OwnServer:
    """A server of one's own is whatever answers a request with a schedule."""

    def serve(self, request: vastroute.HttpRequest, *, now: float) -> vastroute_testing.Schedule:
        assert_type(request.body, bytes)
        return vastroute_testing.json_answer(200, {"status": "loading"}, at=now)

    def refuses(self, origin: vastroute.Origin, *, now: float) -> bool:
        return origin.port == 1 and now > 0


def own_server(clock: vastroute_testing.ManualClock) -> None:
    vastroute_testing.blocking_connector(OwnServer(), clock)


def step(of: vastroute_testing.Step) -> float:
    """The steps of a schedule are these and no others."""
    match of:
        case vastroute_testing.Head() | vastroute_testing.Chunk() | vastroute_testing.End():
            return of.at
        case vastroute_testing.Cut() | vastroute_testing.Garbage():
            return of.at
        case _:
            assert_never(of)


# --- who writes a worker ---------------------------------------------------------------------------------------------


def worker_author(auth_data: Mapping[str, Any], pem: str) -> int:
    verifier = vastroute.Verifier(pem, mode=vastroute.SignatureMode.REQUIRE)
    verdict = verifier.check(auth_data)
    assert_type(verdict, vastroute.Verdict)
    match verdict.reason:
        case vastroute.Reason.VERIFIED:
            assert_type(verdict.form, str | None)
            return 200
        case vastroute.Reason.NO_KEY | vastroute.Reason.OFF:
            return 200
        case vastroute.Reason.MALFORMED | vastroute.Reason.NO_MATCH:
            return 401
        case _:
            assert_never(verdict.reason)


def order_of_reqnums(tracker: vastroute.ReqnumTracker, grant: vastroute.Grant) -> bool:
    seen = tracker.observe(grant.url, grant.reqnum)
    assert_type(seen.order, vastroute.ReqnumOrder)
    text = vastroute.signed_text(vastroute.FORMS[0], grant.fields)
    assert_type(text, bytes | None)
    assert_type(vastroute.verify(grant, [vastroute.PublicKey.load(text or b"")]).verified, bool)
    own = vastroute.SigningForm(name="own", fields=("url", ("load", "cost")))
    assert_type(own.covers, tuple[str, ...])
    return seen.order is vastroute.ReqnumOrder.FRESH
