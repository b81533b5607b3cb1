"""`Call`: what each end of the worker's hop leads to, nothing paid twice, limits, streams, sessions, resumption."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from itertools import product
from typing import Any, TypeVar

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    FORMS,
    Advice,
    Answer,
    Broken,
    Call,
    CallFailed,
    CallSnapshot,
    CallState,
    Cancelled,
    ConnectionFailed,
    Counts,
    Done,
    End,
    EntryKind,
    FailureKind,
    GiveUp,
    Grant,
    Guard,
    Headers,
    HttpResponse,
    InvalidValue,
    JsonLine,
    KeyRefused,
    LimitReached,
    Limits,
    LocalProtocolError,
    Outcome,
    Phase,
    PublicKey,
    Reason,
    Receive,
    Refused,
    ReqnumTracker,
    ResponseHead,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Send,
    ServerSentEvent,
    SessionGone,
    SessionHandle,
    SigningForm,
    StreamLimits,
    UnexpectedAnswer,
    Verifier,
    WaitUntil,
    Why,
    WorkerRequest,
    WorkPolicy,
    decode_route,
    outcome_of_status,
    signed_text,
)

E = TypeVar("E", bound=CallFailed)

NOW = 4096.0
TOTAL = 2048.0
DEADLINE = NOW + TOTAL
UTC = 1_795_447_495.0
KEY = "canary-key-77e0"
SIGNATURE = "c2lnbmF0dXJlIG9m/a+canary/AAAAAAAAAAAAAAAA=="
INDEX = 2421
FIELDS: dict[str, Any] = {
    "url": "https://worker.example:40123",
    "endpoint": "demo",
    "cost": 100.0,
    "reqnum": 4,
    "signature": SIGNATURE,
    "request_idx": INDEX,
}
BARE = {name: value for name, value in FIELDS.items() if name != "request_idx"}
JSON = {"Content-Type": "application/json"}
EVENTS = {"Content-Type": "text/event-stream"}
CHUNKED = EVENTS | {"Transfer-Encoding": "chunked"}
REQUEST = RouteRequest(endpoint="demo")
OWN: dict[type, set[str]] = {
    kind: {field.name for field in attrs.fields(kind)} for kind in (RetryPolicy, WorkPolicy, WorkerRequest)
}


def of(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that are fields of `kind`."""
    return {name: value for name, value in values.items() if name in OWN[kind]}


def work(**others: Any) -> WorkerRequest:
    values: dict[str, Any] = {"route": "/echo", "payload": {"prompt": "p"}}
    return WorkerRequest(**(values | others))


def made(*, deadline: float = DEADLINE, tracker: ReqnumTracker | None = None, **others: Any) -> Call:
    """A call; each named argument goes where it belongs: the work, the policies, or the call itself."""
    policy = WorkPolicy(**of(WorkPolicy, others))
    rest = {name: value for name, value in others.items() if not any(name in own for own in OWN.values())}
    source = RouteCall(
        REQUEST,
        key=KEY,
        rng=lambda: 0.5,
        deadline=deadline,
        policy=RetryPolicy(**of(RetryPolicy, others)),
        tracker=tracker,
    )
    return Call(source, work(**of(WorkerRequest, others)), policy=policy, **rest)


def grant(fields: dict[str, Any]) -> Grant:
    parsed = decode_route(message(fields))
    assert isinstance(parsed, Grant)
    return parsed


def in_session(*, deadline: float = DEADLINE, fields: dict[str, Any] = FIELDS, **others: Any) -> Call:
    handle = SessionHandle(
        session_id="FSP3KN0FhYQbY",
        grant=grant(fields),
        expiration=UTC,
        request_idx=None if "request_idx" in fields else 7,
    )
    rest = {name: value for name, value in others.items() if not any(name in own for own in OWN.values())}
    policy = WorkPolicy(**of(WorkPolicy, others))
    return Call(handle, work(**of(WorkerRequest, others)), deadline=deadline, policy=policy, **rest)


def message(fields: object = None, *, status: int = 200, headers: dict[str, str] = JSON) -> HttpResponse:
    body = fields if isinstance(fields, bytes) else b"" if fields is None else json.dumps(fields).encode()
    return HttpResponse(status=status, headers=headers, body=body)


def sent(call: Call, now: float = NOW) -> Send:
    action = call.next_action(now=now)
    assert isinstance(action, Send)
    return action


def granted(call: Call, now: float = NOW, fields: dict[str, Any] = FIELDS) -> Send:
    """The work's `Send`, the engine having granted a worker at once."""
    if call.snapshot(now=now).route is not None:
        assert sent(call, now).phase is Phase.ROUTE
        call.receive(message(fields), now=now)
    send = sent(call, now)
    assert send.phase is Phase.WORKER
    return send


def answer(call: Call, fields: object = None, *, now: float = NOW, **others: Any) -> None:
    granted(call, now)
    call.receive(message(fields, **others), now=now)


def waits(call: Call, now: float = NOW) -> WaitUntil:
    action = call.next_action(now=now)
    assert isinstance(action, WaitUntil)
    return action


def awaits(call: Call, now: float = NOW) -> Receive:
    action = call.next_action(now=now)
    assert isinstance(action, Receive)
    return action


def gave_up(call: Call, kind: type[E], now: float = NOW) -> E:
    action = call.next_action(now=now)
    assert isinstance(action, GiveUp)
    assert type(action.error) is kind
    assert call.over
    with pytest.raises(kind) as raised:
        call.result()
    assert raised.value is action.error
    assert (action.error.counts, action.error.record) == (call.counts, call.record)
    return action.error


# --- every state, every input ------------------------------------------------------------------------------------


def streaming(call: Call) -> None:
    granted(call)
    call.head(ResponseHead(status=200, headers=CHUNKED), now=NOW)


def reading(call: Call) -> None:
    granted(call)
    call.head(ResponseHead(status=500), now=NOW)


def asking(call: Call) -> None:
    sent(call)


def asked(call: Call) -> None:
    sent(call)
    call.head(ResponseHead(status=200), now=NOW)


def answered(call: Call) -> None:
    streaming(call)
    call.end(now=NOW)


STATES: dict[str, tuple[CallState, Callable[[Call], object]]] = {
    "begin": (CallState.ROUTING, lambda call: None),
    "asking": (CallState.ROUTING, asking),
    "asked": (CallState.ROUTING, asked),
    "sending": (CallState.SENDING, granted),
    "reading": (CallState.READING, reading),
    "streaming": (CallState.STREAMING, streaming),
    "answered": (CallState.ANSWERED, answered),
    "failed": (CallState.FAILED, lambda call: answer(call, status=422)),
    "cancelled": (CallState.CANCELLED, lambda call: call.cancelled(now=NOW)),
}
IN_SESSION = {name: each for name, each in STATES.items() if name not in {"asking", "asked"}}
INPUTS: dict[str, Callable[[Call], object]] = {
    "head": lambda call: call.head(ResponseHead(status=200), now=NOW),
    "chunk": lambda call: call.chunk(b"", now=NOW),
    "end": lambda call: call.end(now=NOW),
    "receive": lambda call: call.receive(message({}), now=NOW),
    "failed": lambda call: call.failed("broke", sent=None, now=NOW),
    "cancelled": lambda call: call.cancelled(now=NOW),
    "feed": lambda call: call.feed([ResponseHead(status=200)], now=NOW),
    "feed breach": lambda call: call.feed([Broken(kind=FailureKind.EOF, detail="closed")], now=NOW),
}
OPEN = {"head", "receive", "failed", "cancelled", "feed", "feed breach"}
MORE = {"chunk", "end", "failed", "cancelled", "feed breach"}
FITS: dict[str, set[str]] = {
    "begin": {"cancelled"},
    "asking": OPEN,
    "asked": MORE,
    "sending": OPEN,
    "reading": MORE,
    "streaming": MORE,
    "answered": set(),
    "failed": set(),
    "cancelled": set(),
}
Make = Callable[..., Call]
MAKERS: list[Make] = [made, in_session]
both_sources = pytest.mark.parametrize("make", MAKERS)
CASES: list[tuple[Make, str, str]] = [
    *((made, state, name) for state, name in product(STATES, INPUTS)),
    *((in_session, state, name) for state, name in product(IN_SESSION, INPUTS)),
]


class TestReports:
    @pytest.mark.parametrize(("make", "state", "name"), CASES)
    def test_what_does_not_fit_is_refused_and_changes_nothing(self, make: Make, state: str, name: str) -> None:
        call, twin = make(stream=True), make(stream=True)
        STATES[state][1](call)
        STATES[state][1](twin)
        before, record = call.snapshot(now=NOW), call.record
        assert before == twin.snapshot(now=NOW)
        assert before.phase is call.phase is STATES[state][0]
        if name in FITS[state]:
            INPUTS[name](call)
            assert call.snapshot(now=NOW) != before or name == "chunk"
            return
        with pytest.raises(LocalProtocolError, match="it cannot take"):
            INPUTS[name](call)
        assert call.snapshot(now=NOW) == before
        assert (call.record, call.counts, call.over) == (record, twin.counts, twin.over)
        assert type(call.next_action(now=NOW)) is type(twin.next_action(now=NOW))
        assert call.snapshot(now=NOW) == twin.snapshot(now=NOW)

    @both_sources
    @pytest.mark.parametrize("state", IN_SESSION)
    def test_asked_twice_it_answers_the_same(self, make: Make, state: str) -> None:
        for now in (NOW, NOW + 9.5, DEADLINE, DEADLINE + 5):
            call = make(stream=True)
            STATES[state][1](call)
            action = call.next_action(now=now)
            assert call.next_action(now=now) == action
            assert call.over is isinstance(action, Done | GiveUp)
            if call.over:
                assert call.next_action(now=-math.inf) is call.next_action(now=math.inf) is action
            else:
                with pytest.raises(LocalProtocolError, match=f"not over: it is {call.phase.value}"):
                    call.result()

    @pytest.mark.parametrize(
        ("state", "sent", "phase", "outcome"),
        [
            ("begin", True, Phase.ROUTE, Outcome.NOT_SENT),
            ("asking", True, Phase.ROUTE, Outcome.NOT_SENT),
            ("sending", True, Phase.WORKER, Outcome.PERHAPS_STARTED),
            ("sending", False, Phase.WORKER, Outcome.NOT_SENT),
            ("reading", True, Phase.WORKER, Outcome.PERHAPS_STARTED),
            ("reading", False, Phase.WORKER, Outcome.PERHAPS_STARTED),
            ("streaming", False, Phase.WORKER, Outcome.PERHAPS_STARTED),
        ],
    )
    def test_cancelled(self, state: str, sent: bool, phase: Phase, outcome: Outcome) -> None:
        call = made(stream=True)
        STATES[state][1](call)
        call.cancelled(now=NOW + 3, sent=sent)
        error = gave_up(call, Cancelled)
        assert (error.phase, error.outcome, error.advice) == (phase, outcome, Advice.NOTHING)
        assert error.may_have_run is (outcome is Outcome.PERHAPS_STARTED)
        cancellations = [each.phase for each in call.record if each.kind is EntryKind.CANCELLED]
        assert cancellations == [phase]
        assert call.counts.seconds_working == (3 if phase is Phase.WORKER else 0)

    def test_cancelled_between_the_hops(self) -> None:
        call = made()
        sent(call)
        call.receive(message(FIELDS), now=NOW)
        call.cancelled(now=NOW)
        error = gave_up(call, Cancelled)
        assert (error.outcome, error.request_idx, call.counts.work_attempts) == (Outcome.NOT_SENT, INDEX, 0)

    def test_a_cancelled_wait_tells_what_it_waited_for(self) -> None:
        call = made()
        sent(call)
        call.receive(message({"status": "loading: 1", "request_idx": 7}), now=NOW)
        call.cancelled(now=NOW + 1)
        error = gave_up(call, Cancelled)
        assert error.not_ready is not None
        assert (error.not_ready.counts, error.request_idx) == ({"loading": 1}, 7)

    def test_where_the_deadline_is_said(self) -> None:
        with pytest.raises(InvalidValue, match="belongs to the RouteCall"):
            Call(RouteCall(REQUEST, key=KEY, rng=lambda: 0.5, deadline=DEADLINE), work(), deadline=DEADLINE)
        with pytest.raises(InvalidValue, match="in a session needs a deadline"):
            Call(SessionHandle(session_id="s", grant=grant(FIELDS), expiration=UTC), work())


# --- the whole way --------------------------------------------------------------------------------------------------


class TestBothHops:
    def test_an_answer_and_all_that_was_found_out(self) -> None:
        call = made(tracker=ReqnumTracker(), headers={"X-Trace": "1"})
        sent(call)
        call.receive(message({"status": "loading: 1", "request_idx": INDEX}), now=NOW)
        at = waits(call).at
        send = granted(call, at)
        assert send.request.url == "https://worker.example:40123/echo"
        assert send.request.headers.get("x-trace") == "1"
        assert json.loads(send.request.body) == {"auth_data": FIELDS, "session_id": None, "payload": {"prompt": "p"}}
        assert (send.connect_by, send.deadline, send.attempt) == (at + 10, at + 600, 1)
        assert (send.fresh, send.guard) == (True, Guard())
        call.receive(message({"echo": 1}, headers=JSON | {"X-Model": "m"}), now=at + 4)
        result = call.result()
        assert call.next_action(now=at + 4) == Done(result=result)
        assert (result.status, result.data, result.body) == (200, {"echo": 1}, b'{"echo": 1}')
        assert result.headers.get("x-model") == "m"
        assert (result.grant.fields, result.verdict.reason) == (FIELDS, Reason.NO_KEY)
        assert (result.request_idx, result.request_idx_added, result.differences) == (INDEX, False, ())
        assert result.reqnum is not None
        assert result.counts == Counts(
            asks=2, polls=1, seconds_waited=at - NOW, work_attempts=1, seconds_routing=at - NOW, seconds_working=4.0
        )
        kept = [(each.kind.value, each.phase.value, each.attempt, each.status, each.detail) for each in result.record]
        assert kept == [
            ("asked", "route", 1, None, ""),
            ("not ready", "route", 1, 200, "loading: 1"),
            ("waiting", "route", 1, None, "poll"),
            ("asked", "route", 2, None, ""),
            ("granted", "route", 2, None, FIELDS["url"]),
            ("sent", "worker", 1, None, "https://worker.example:40123"),
            ("answered", "worker", 1, 200, ""),
        ]
        assert call.record == result.record

    @pytest.mark.parametrize("route", ["/v1/x?y=1", "v1/x?y=1"])
    @pytest.mark.parametrize("url", ["https://worker.example:40123/base", "https://worker.example:40123/base/"])
    def test_the_route_is_below_the_workers_address(self, route: str, url: str) -> None:
        send = granted(made(route=route), fields=FIELDS | {"url": url})
        assert send.request.url == "https://worker.example:40123/base/v1/x?y=1"

    @pytest.mark.parametrize("named", [{}, {"Authorization": "Bearer worker's own"}])
    def test_no_key_of_ours_goes_to_a_worker(self, named: dict[str, str]) -> None:
        request = granted(made(headers=named)).request
        assert request.headers.get("authorization") == named.get("Authorization")
        assert KEY not in f"{request.url}{list(request.headers)}{request.body!r}"

    @pytest.mark.parametrize("safe", [True, False])
    def test_only_safe_work_goes_over_a_kept_connection(self, safe: bool) -> None:
        assert granted(made(safe_to_repeat=safe)).fresh is not safe

    @pytest.mark.parametrize(
        ("fields", "added"),
        [(FIELDS, False), (BARE, True), *[(FIELDS | {"request_idx": no}, True) for no in (None, 0, "7")]],
    )
    def test_the_number_is_added_where_the_grant_lacks_it(self, fields: dict[str, Any], added: bool) -> None:
        call = made()
        sent(call)
        call.receive(message({"request_idx": 7}), now=NOW)
        at = waits(call).at
        body = granted(call, at, fields).request.body
        assert json.dumps(BARE).encode()[:-1] in body
        assert json.loads(body)["auth_data"] == (fields | {"request_idx": 7} if added else fields)
        call.receive(message({}), now=at)
        assert call.result().request_idx_added is added

    @pytest.mark.parametrize("form", [form for form in FORMS if form.seen], ids=lambda form: form.name)
    def test_a_number_that_is_signed_is_left_as_it_is(self, form: SigningForm) -> None:
        fields = FIELDS | {"request_idx": 0}
        engine = rsa.generate_private_key(65537, 1024)
        text = signed_text(form, fields)
        assert text is not None
        signature = engine.sign(text, PKCS1v15(), SHA256())
        fields["signature"] = base64.b64encode(signature).decode()
        added = "request_idx" not in form.covers
        key = PublicKey.load(
            engine.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), min_bits=1024
        )
        route = RouteCall(REQUEST, key=KEY, rng=lambda: 0.5, deadline=DEADLINE, verifier=Verifier(key))
        call = Call(route, work())
        sent(call)
        call.receive(message({"request_idx": 7}), now=NOW)
        at = waits(call).at
        body = json.loads(granted(call, at, fields).request.body)
        assert body["auth_data"]["request_idx"] == (7 if added else 0)
        call.receive(message({}), now=at)
        assert call.result().verdict.verified
        assert (call.result().request_idx, call.result().request_idx_added) == (7, added)

    def test_without_any_number_none_is_added(self) -> None:
        call = made()
        assert json.loads(granted(call, fields=BARE).request.body)["auth_data"] == BARE
        call.receive(message({}), now=NOW)
        assert (call.result().request_idx, call.result().request_idx_added) == (None, False)

    def test_what_the_engine_refuses_ends_the_call(self) -> None:
        call = made()
        sent(call)
        call.receive(message({"error": "no"}, status=401), now=NOW + 2)
        error = gave_up(call, KeyRefused, NOW + 2)
        assert error.phase is Phase.ROUTE
        assert call.counts == Counts(asks=1, seconds_routing=2.0)
        assert call.record[-1].kind is EntryKind.GAVE_UP

    def test_the_engines_answer_in_pieces(self) -> None:
        call = made()
        sent(call)
        body = json.dumps(FIELDS).encode()
        assert call.feed([ResponseHead(status=200), body[:9]], now=NOW)
        assert call.reading
        assert awaits(call).phase is Phase.ROUTE
        assert not call.feed([body[9:], End()], now=NOW)
        send = sent(call)
        assert (send.phase, send.deadline) == (Phase.WORKER, call.feed([], now=NOW))

    @pytest.mark.parametrize("feeds", [True, False])
    @pytest.mark.parametrize("reused", [True, False])
    def test_what_the_engines_hop_is_told_of_a_failure(self, reused: bool, feeds: bool) -> None:
        call = made()
        sent(call)
        if feeds:
            call.feed([Broken(kind=FailureKind.EOF, detail="closed")], now=NOW, **({"reused": True} if reused else {}))
        else:
            call.failed("closed", kind=FailureKind.EOF, sent=True, now=NOW, **({"reused": True} if reused else {}))
        assert isinstance(call.next_action(now=NOW), Send) is reused
        assert call.counts.possible_double_loads == 1

    @pytest.mark.parametrize(
        ("headers", "body", "data"),
        [
            (JSON, b"", None),
            (JSON, b'{"a": 1}', {"a": 1}),
            ({"Content-Type": "text/plain"}, b"hi", "hi"),
            ({"Content-Type": "image/png"}, b"\x89", b"\x89"),
            ({}, b"{}", b"{}"),
        ],
    )
    def test_bodies(self, headers: dict[str, str], body: bytes, data: object) -> None:
        call = made()
        answer(call, body, headers=headers)
        assert (call.result().data, call.result().body) == (data, body)


# --- every way in which a worker's hop can end ----------------------------------------------------------------------

NOTHING_BEGAN = {429, 503}
"""Wire facts, section 3: the worker is full, or takes no work. Another is asked for, whatever the work."""
NOT_ITS_FAULT = {FailureKind.PROXY, FailureKind.GUARD}
"""No other worker would change anything."""


def goes_on(status: int, safe: bool) -> bool:
    """Whether another worker is asked for after this status, by the wire facts and the law of paying once."""
    return status in NOTHING_BEGAN or status == 401 or (safe and status in {408, 499} | set(range(500, 600)))


class TestOutcomes:
    @pytest.mark.parametrize("safe", [True, False])
    @pytest.mark.parametrize("hundred", [100, 300, 400, 500])
    def test_each_status(self, hundred: int, safe: bool) -> None:
        for status in range(hundred, hundred + 100):
            self.check_status(status, safe)

    def check_status(self, status: int, safe: bool) -> None:
        call = made(safe_to_repeat=safe)
        answer(call, b"because", status=status)
        if goes_on(status, safe):
            wait = waits(call)
            assert (wait.why, call.phase) == (Why.REROUTE, CallState.ROUTING)
            assert not any("safe_to_repeat" in each.detail for each in call.record)
            again = sent(call, wait.at).request
            assert json.loads(again.body)["request_idx"] == INDEX
            assert call.counts.workers_lost == 1
            assert call.counts.possible_double_runs == (status not in NOTHING_BEGAN | {401})
            return
        error = gave_up(call, UnexpectedAnswer if status < 400 else Refused)
        assert (error.status, error.phase, error.body, error.excerpt) == (status, Phase.WORKER, b"because", "because")
        assert error.request_idx == INDEX
        assert error.verdict is not None
        assert error.verdict.reason is Reason.NO_KEY
        assert ("safe_to_repeat" in error.message) is (not safe and goes_on(status, True))
        assert error.outcome is (Outcome.PERHAPS_STARTED if status in {408, 499, 502, 504} else Outcome.ANSWERED)
        assert call.counts.workers_lost == 0

    def test_each_success(self) -> None:
        for status in range(200, 300):
            call = made()
            answer(call, {"a": 1}, status=status)
            assert (call.result().status, call.result().data) == (status, {"a": 1})

    @pytest.mark.parametrize("was_sent", [True, False, None])
    @pytest.mark.parametrize("safe", [True, False])
    @pytest.mark.parametrize("kind", FailureKind)
    def test_each_failure(self, kind: FailureKind, safe: bool, was_sent: bool | None) -> None:
        call = made(safe_to_repeat=safe)
        granted(call)
        call.failed(kind, sent=was_sent, now=NOW)
        again = kind not in NOT_ITS_FAULT if was_sent is False else safe and kind is not FailureKind.TOO_LARGE
        if again:
            assert waits(call).why is Why.REROUTE
            assert call.counts.possible_double_runs == (was_sent is not False)
            return
        error = gave_up(call, ConnectionFailed)
        assert (error.kind, error.phase, error.request_idx) == (kind, Phase.WORKER, INDEX)
        if was_sent is False:
            assert error.outcome is Outcome.NOT_SENT
        elif kind is FailureKind.TOO_LARGE:
            assert (error.outcome, error.advice) == (Outcome.ANSWERED, Advice.RAISE_LIMIT)
        else:
            assert (error.outcome, error.advice) == (Outcome.PERHAPS_STARTED, Advice.CHECK_WORK)
            assert "the work may have run, so it is not sent again: say safe_to_repeat" in str(error)
        assert error.may_have_run is (was_sent is not False)
        assert call.counts.work_attempts == 1

    @pytest.mark.parametrize("was_sent", [True, False, None])
    @pytest.mark.parametrize("stream", [True, False])
    def test_past_the_head_it_has_left_whatever_is_said(self, stream: bool, was_sent: bool | None) -> None:
        call = made(stream=stream)
        granted(call)
        call.head(ResponseHead(status=200), now=NOW)
        call.failed(FailureKind.EOF, sent=was_sent, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert error.outcome is Outcome.PERHAPS_STARTED
        assert error.message.startswith("the worker closed the connection before the end of its answer: ")

    def test_a_breach_before_the_head_has_perhaps_run(self) -> None:
        call = made()
        granted(call)
        call.feed([Broken(kind=FailureKind.EOF, detail="closed")], now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert error.outcome is Outcome.PERHAPS_STARTED
        last = call.record[-1]
        assert (last.kind, last.phase, last.detail) == (EntryKind.GAVE_UP, Phase.WORKER, error.message)

    def test_a_librarys_exception_is_the_cause(self) -> None:
        call = made()
        granted(call)
        broken = OSError("broken pipe")
        call.failed(broken, kind=FailureKind.RESET, sent=True, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert error.__cause__ is broken
        words = "the worker reset the connection: connection reset: OSError: broken pipe; the work may have run"
        assert error.message.startswith(words)

    @pytest.mark.parametrize("kind", [None, FailureKind.NAME])
    def test_an_error_of_ours_says_itself_how_it_broke(self, kind: FailureKind | None) -> None:
        call = made()
        granted(call)
        broken = ConnectionFailed(
            "no way", phase=Phase.WORKER, outcome=Outcome.NOT_SENT, advice=Advice.NOTHING, kind=kind
        )
        call.failed(broken, kind=FailureKind.PROXY, sent=False, now=NOW)
        if kind is None:
            error = gave_up(call, ConnectionFailed)
            assert error.message == "the proxy does not let us reach the worker: no way"
            assert (error.kind, error.advice) == (FailureKind.PROXY, Advice.CHECK_INPUT)
        else:
            assert waits(call).why is Why.REROUTE

    @pytest.mark.parametrize("was_reused", [True, False])
    def test_a_stale_connection_is_like_any_other_loss(self, was_reused: bool) -> None:
        call = made(safe_to_repeat=True)
        granted(call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=was_reused)
        assert waits(call).at > NOW

    def test_a_signature_that_is_not_accepted_gets_one_fresh_grant(self) -> None:
        call = made()
        answer(call, status=401)
        at = waits(call).at
        answer(call, b"no", status=401, now=at)
        error = gave_up(call, Refused)
        assert (error.status, error.advice, call.counts.work_attempts) == (401, Advice.ASK_AGAIN, 2)
        assert call.snapshot(now=at).fresh_grants == 1

    @pytest.mark.parametrize("status", sorted(NOTHING_BEGAN))
    @pytest.mark.parametrize(
        ("headers", "pause"), [({}, 0.375), ({"Retry-After": "20"}, 20), ({"Retry-After": "86400"}, 60)]
    )
    def test_a_full_worker_is_left_for_another(self, status: int, headers: dict[str, str], pause: float) -> None:
        call = made()
        answer(call, b"full", status=status, headers=headers)
        assert waits(call).at - NOW == pause
        other = FIELDS | {"url": "https://other.example"}
        send = granted(call, NOW + pause, other)
        assert (send.request.origin.host, send.attempt) == ("other.example", 2)
        assert json.loads(send.request.body)["auth_data"]["request_idx"] == INDEX
        assert call.counts.seconds_waited == pause
        lost = [(each.status, each.detail) for each in call.record if each.kind is EntryKind.WORKER_LOST]
        assert lost == [(status, "the worker is full" if status == 429 else "the worker takes no work now")]
        call.receive(message({"a": 1}), now=NOW + pause)
        assert (call.result().data, call.result().grant.fields) == ({"a": 1}, other)

    def test_an_error_after_a_loss_has_nothing_of_the_lost_grant(self) -> None:
        call = made()
        answer(call, status=429)
        at = waits(call).at
        sent(call, at)
        call.receive(message(status=401), now=at)
        assert gave_up(call, KeyRefused, at).verdict is None

    def test_a_grant_without_number_after_a_loss_gets_the_one_that_is_held(self) -> None:
        call = made()
        answer(call, status=429)
        at = waits(call).at
        body = granted(call, at, BARE).request.body
        assert json.loads(body)["auth_data"]["request_idx"] == INDEX

    @pytest.mark.parametrize("most", [0, 1, 3])
    def test_only_so_many_workers_may_fail(self, most: int) -> None:
        call = made(max_reroutes=most, safe_to_repeat=True)
        now = NOW
        for _ in range(most):
            answer(call, status=500, now=now)
            now = waits(call, now).at
        answer(call, status=500, now=now)
        error = gave_up(call, LimitReached, now)
        assert (error.limit, error.status, error.phase) == ("max_reroutes", 500, Phase.ROUTE)
        assert isinstance(error.__cause__, Refused)
        assert call.counts.work_attempts == most + 1
        assert call.counts.possible_double_runs == call.counts.workers_lost == most

    @pytest.mark.parametrize(("sent_at_all", "outcome"), [(False, Outcome.NOT_SENT), (True, Outcome.PERHAPS_STARTED)])
    def test_the_limit_says_how_far_the_last_worker_came(self, sent_at_all: bool, outcome: Outcome) -> None:
        call = made(max_reroutes=0, safe_to_repeat=True)
        granted(call)
        call.failed(FailureKind.RESET, sent=sent_at_all, now=NOW)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.outcome, error.kind) == ("max_reroutes", outcome, FailureKind.RESET)

    @pytest.mark.parametrize("status", range(300, 600))
    @pytest.mark.parametrize("safe", [True, False])
    def test_each_refusal_says_whether_the_work_may_have_run(self, status: int, safe: bool) -> None:
        call = in_session(safe_to_repeat=safe)
        answer(call, status=status)
        row = outcome_of_status(status)
        with pytest.raises(CallFailed) as raised:
            call.result()
        error = raised.value
        assert error.may_have_run is row.may_have_run
        assert error.advice is (Advice.CHECK_WORK if row.may_have_run and not safe else row.advice)

    def test_a_run_that_came_before_is_not_forgotten(self) -> None:
        call = made(safe_to_repeat=True, max_reroutes=1)
        answer(call, status=500)
        later = waits(call).at
        answer(call, now=later, status=429)
        error = gave_up(call, LimitReached, later)
        assert (error.limit, error.may_have_run, error.advice) == ("max_reroutes", True, Advice.RAISE_LIMIT)

    def test_a_worker_that_was_full_has_run_nothing(self) -> None:
        call = made(max_reroutes=0)
        answer(call, status=429)
        assert not gave_up(call, LimitReached).may_have_run

    def test_a_route_call_that_is_told_of_a_lost_worker_says_it_too(self) -> None:
        route = RouteCall(REQUEST, key=KEY, rng=lambda: 0.5, deadline=DEADLINE, policy=RetryPolicy(max_reroutes=0))
        assert isinstance(route.next_action(now=NOW), Send)
        route.receive(message(FIELDS), now=NOW)
        lost = Refused("no", phase=Phase.WORKER, outcome=Outcome.PERHAPS_STARTED, advice=Advice.CHECK_WORK)
        lost.may_have_run = True
        route.worker_failed(lost, now=NOW)
        with pytest.raises(LimitReached) as raised:
            route.result()
        assert raised.value.may_have_run

    def test_broken_json_is_paid_for_and_never_run_again(self) -> None:
        call = made(safe_to_repeat=True)
        answer(call, b'{"half": ', status=200)
        error = gave_up(call, UnexpectedAnswer)
        assert (error.body, error.outcome, error.status) == (b'{"half": ', Outcome.ANSWERED, 200)
        assert (error.may_have_run, error.advice) == (True, Advice.CHECK_ANSWER)
        assert call.counts.work_attempts == 1

    @pytest.mark.parametrize("safe", [True, False])
    @pytest.mark.parametrize("status", [200, 299])
    def test_an_answer_too_large_to_keep_is_not_asked_for_again(self, safe: bool, status: int) -> None:
        call = made(max_body=10, safe_to_repeat=safe)
        answer(call, b"0123456789", headers={})
        assert call.result().body == b"0123456789"
        call = made(max_body=10, safe_to_repeat=safe)
        granted(call)
        assert call.feed([ResponseHead(status=status), b"01234", b"56789"], now=NOW)
        assert not call.feed([b"x", b"y"], now=NOW)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.kind, error.status) == ("max_body", FailureKind.TOO_LARGE, status)
        assert (error.outcome, error.advice) == (Outcome.ANSWERED, Advice.RAISE_LIMIT)
        assert error.may_have_run
        assert error.message == "the worker's answer is larger than the 10 bytes allowed"

    @pytest.mark.parametrize(("status", "again"), [(429, True), (422, False), (300, False)])
    def test_a_refusal_is_judged_by_its_status_however_long(self, status: int, again: bool) -> None:
        call = made(limits=Limits(max_body=400))
        granted(call)
        assert call.feed([ResponseHead(status=status), b"0123456789" * 60], now=NOW) is None
        if again:
            assert waits(call).why is Why.REROUTE
        else:
            assert gave_up(call, UnexpectedAnswer if status == 300 else Refused).body == b"0123456789" * 40


# --- the guard ----------------------------------------------------------------------------------------------------


class TestGuard:
    @pytest.mark.parametrize(
        ("url", "switch"),
        [
            ("http://worker.example:40123", "allow_plain_http"),
            ("https://10.1.2.3:40123", "allow_private_address"),
            ("https://[::1]:40123", "allow_private_address"),
            ("https://169.254.169.254", "allow_metadata_address"),
            ("https://worker.example:22", "allow_any_port"),
        ],
    )
    @pytest.mark.parametrize("safe", [True, False])
    def test_what_it_refuses_is_never_sent_and_names_its_switch(self, url: str, switch: str, safe: bool) -> None:
        call = made(safe_to_repeat=safe)
        sent(call)
        call.receive(message(FIELDS | {"url": url}), now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert (error.limit, error.kind, error.advice) == (switch, FailureKind.GUARD, Advice.ALLOW)
        assert (error.outcome, error.phase) == (Outcome.NOT_SENT, Phase.WORKER)
        assert f"{switch} would allow it" in str(error)
        assert call.counts == Counts(asks=1)
        guard = Guard(**{switch: True})
        assert granted(made(guard=guard), fields=FIELDS | {"url": url}).guard is guard

    def test_its_refusal_at_the_address_names_the_switch_too(self) -> None:
        call = made()
        send = granted(call)
        assert send.guard is not None
        refusal = send.guard.check_address("192.168.0.9", send.request.origin)
        assert refusal is not None
        call.failed(refusal.as_error(), kind=FailureKind.GUARD, sent=False, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert (error.limit, error.outcome) == ("allow_private_address", Outcome.NOT_SENT)
        assert error.message == f"the grant leads where it is not allowed to lead: {refusal.text}"


# --- limits -------------------------------------------------------------------------------------------------------


class TestLimits:
    def test_waiting(self) -> None:
        call = made(waiting=5.0)
        assert sent(call).deadline == NOW + 5
        call.receive(message({"status": "loading: 1"}), now=NOW + 4.9)
        error = gave_up(call, LimitReached, NOW + 4.9)
        assert (error.limit, error.phase, error.advice) == ("waiting", Phase.ROUTE, Advice.RAISE_LIMIT)
        assert error.not_ready is not None

    def test_waiting_begins_anew_when_a_worker_is_lost(self) -> None:
        call = made(waiting=5.0)
        granted(call)
        call.receive(message(status=503), now=NOW + 400)
        assert sent(call, NOW + 401).deadline == NOW + 405
        assert gave_up(call, LimitReached, NOW + 405).limit == "waiting"
        assert call.counts.seconds_routing == 5
        assert call.counts.seconds_working == 400

    @pytest.mark.parametrize("sooner", [0.0, 1.0])
    def test_connecting(self, sooner: float) -> None:
        call = made(connecting=7.0, max_reroutes=0)
        send = granted(call)
        assert send.connect_by == NOW + 7
        call.failed(FailureKind.TIMEOUT, sent=False, now=send.connect_by - sooner)
        cause = gave_up(call, LimitReached).__cause__
        assert isinstance(cause, LimitReached)
        assert (cause.limit, cause.outcome, cause.kind) == ("connecting", Outcome.NOT_SENT, FailureKind.TIMEOUT)
        assert cause.message == "the worker does not take connections in time (connecting=7 s)"

    def test_connecting_until_the_deadline(self) -> None:
        call = made(deadline=NOW + 5)
        assert granted(call).connect_by == NOW + 5
        call.failed(FailureKind.TIMEOUT, sent=False, now=NOW + 5)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.outcome) == ("total", Outcome.NOT_SENT)
        assert isinstance(error.__cause__, LimitReached)
        assert error.__cause__.limit == "total"

    @pytest.mark.parametrize("was_sent", [True, None])
    def test_first_byte(self, was_sent: bool | None) -> None:
        call = made(first_byte=7.5)
        send = granted(call)
        assert send.deadline == NOW + 7.5
        call.failed(FailureKind.TIMEOUT, sent=was_sent, now=send.deadline)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.outcome, error.kind) == ("first_byte", Outcome.PERHAPS_STARTED, FailureKind.TIMEOUT)
        assert "did not answer in time (first_byte=7.5 s); the work may have run" in error.message

    def test_silence(self) -> None:
        call = made(silence=7.0, first_byte=100.0)
        granted(call)
        call.head(ResponseHead(status=200), now=NOW + 50)
        assert awaits(call).deadline == NOW + 57
        call.chunk(b"{", now=NOW + 56)
        assert awaits(call).deadline == NOW + 63
        call.failed(FailureKind.TIMEOUT, sent=True, now=NOW + 63)
        assert gave_up(call, LimitReached).limit == "silence"

    def test_working(self) -> None:
        call = made(silence=7.0, working=20.0)
        assert granted(call).deadline == NOW + 20
        call.head(ResponseHead(status=200), now=NOW)
        for second in range(1, 20):
            call.chunk(b".", now=NOW + second)
        assert awaits(call).deadline == NOW + 20
        call.failed(FailureKind.TIMEOUT, sent=True, now=NOW + 20)
        assert gave_up(call, LimitReached).limit == "working"

    def test_working_is_not_for_streams(self) -> None:
        call = made(working=20.0, stream=True)
        granted(call)
        call.head(ResponseHead(status=200, headers=CHUNKED), now=NOW + 19)
        assert awaits(call).deadline == NOW + 19 + 120

    @pytest.mark.parametrize("state", ["sending", "reading", "streaming"])
    @pytest.mark.parametrize("reported", [True, False])
    @both_sources
    def test_total(self, make: Make, state: str, reported: bool) -> None:
        call = make(stream=True, deadline=NOW + 9)
        STATES[state][1](call)
        action = call.next_action(now=NOW)
        assert isinstance(action, Send | Receive)
        assert action.deadline == NOW + 9
        if reported:
            call.failed(FailureKind.TIMEOUT, sent=True, now=NOW + 9)
        error = gave_up(call, LimitReached, NOW + 9)
        assert (error.limit, error.outcome, error.phase) == ("total", Outcome.PERHAPS_STARTED, Phase.WORKER)
        assert call.counts.seconds_working == 9

    @both_sources
    def test_no_work_is_sent_when_no_time_is_left_for_it(self, make: Make) -> None:
        call = make()
        if make is made:
            sent(call)
            call.receive(message(FIELDS), now=DEADLINE)
        error = gave_up(call, LimitReached, DEADLINE)
        assert (error.limit, error.outcome) == ("total", Outcome.NOT_SENT)
        assert call.counts.work_attempts == 0

    @both_sources
    def test_an_answer_that_comes_late_still_counts(self, make: Make) -> None:
        call = make()
        granted(call)
        call.receive(message({"a": 1}), now=DEADLINE + 50)
        assert call.result().data == {"a": 1}

    def test_no_other_worker_is_asked_for_when_time_is_up(self) -> None:
        call = made()
        granted(call)
        call.receive(message(status=429), now=DEADLINE)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.outcome) == ("total", Outcome.ANSWERED)
        assert str(error) == "worker: the deadline has come; the last failure: the worker is full"
        assert isinstance(error.__cause__, Refused)

    def test_a_time_out_that_is_none_of_ours(self) -> None:
        call = made()
        granted(call)
        call.failed(FailureKind.TIMEOUT, sent=True, now=NOW + 5)
        assert gave_up(call, ConnectionFailed).limit is None

    def test_a_time_out_of_safe_work_goes_on(self) -> None:
        call = made(safe_to_repeat=True)
        send = granted(call)
        call.failed(FailureKind.TIMEOUT, sent=True, now=send.deadline)
        assert waits(call, send.deadline).why is Why.REROUTE


# --- streams ------------------------------------------------------------------------------------------------------


def begun(headers: dict[str, str] = CHUNKED, **others: Any) -> Call:
    call = made(stream=True, **others)
    granted(call)
    call.head(ResponseHead(status=200, headers=headers), now=NOW)
    return call


def taken(call: Call, now: float = NOW) -> list[Any]:
    """All events that have come, as what they say."""
    events = []
    while (event := call.next_event(now=now)) is not None:
        events.append(event.data if isinstance(event, ServerSentEvent) else event)
    return events


class TestStreams:
    def test_a_driver_asks_how_long_a_read_may_take(self) -> None:
        call = made(stream=True)
        assert call.read_limit(now=NOW) is None
        granted(call)
        assert call.read_limit(now=NOW) is None
        call.head(ResponseHead(status=200, headers=CHUNKED), now=NOW)
        action = call.next_action(now=NOW)
        assert isinstance(action, Receive)
        assert call.read_limit(now=NOW + 1) == action.deadline - NOW - 1
        with pytest.raises(TimeoutError) as late:
            call.read_limit(now=action.deadline)
        call.failed(late.value, sent=None, now=action.deadline)
        assert call.read_limit(now=action.deadline) is None
        with pytest.raises(LimitReached, match="silence"):
            call.result()

    def test_events_wait_until_they_are_taken(self) -> None:
        call = begun()
        assert call.stream_head == ResponseHead(status=200, headers=CHUNKED)
        assert (call.reading, call.finished, call.phase) == (True, False, CallState.STREAMING)
        assert call.next_event(now=NOW) is None
        assert call.feed([b"data: 1\n"], now=NOW)
        assert not call.feed([b"\ndata: 2\n\nda", b"ta: 3\n\n"], now=NOW)
        assert not call.feed([], now=NOW)
        assert taken(call) == ["1", "2", "3"]
        assert call.feed([b"data: [DONE]"], now=NOW)
        assert not call.feed([b"\n\n", End()], now=NOW)
        assert call.over
        assert taken(call) == ["[DONE]"]
        assert (call.finished, call.reading) == (True, False)
        result = call.result()
        assert (result.status, result.body, result.data) == (200, b"", None)
        assert result.headers == Headers(CHUNKED)
        assert [each.kind for each in result.record][-3:] == [EntryKind.SENT, EntryKind.STREAMING, EntryKind.ANSWERED]

    @pytest.mark.parametrize(
        ("headers", "body", "events"),
        [
            (CHUNKED, b"event: x\ndata: a\ndata: b\n\n", ["a\nb"]),
            ({"Content-Type": "application/x-ndjson", "Content-Length": "9"}, b"1\n\n2\n", ["1", "2"]),
            ({"Content-Type": "application/jsonl", "Content-Length": "9"}, b'{"a": 1}', ['{"a": 1}']),
            ({"Content-Type": "audio/wav", "Content-Length": "3"}, b"abc", [b"abc"]),
            (CHUNKED, b": nothing\n\n", []),
            ({"Content-Length": "0"}, b"", []),
        ],
    )
    def test_a_whole_answer_at_once(self, headers: dict[str, str], body: bytes, events: list[Any]) -> None:
        call = made(stream=True)
        granted(call)
        call.receive(message(body, headers=headers), now=NOW)
        assert [each.text if isinstance(each, JsonLine) else each for each in taken(call)] == events
        assert isinstance(call.result(), Answer)

    def test_an_answer_that_can_have_no_body_is_whole(self) -> None:
        call = made(stream=True)
        granted(call)
        call.receive(HttpResponse(status=204), now=NOW)
        assert call.result().status == 204

    @pytest.mark.parametrize("status", [199, 300, 422, 500])
    def test_a_refusal_is_no_stream(self, status: int) -> None:
        call = made(stream=True)
        granted(call)
        call.receive(message(b"data: no\n\n", status=status, headers=CHUNKED), now=NOW)
        error = gave_up(call, Refused if status >= 400 else UnexpectedAnswer)
        assert error.body == b"data: no\n\n"
        assert call.stream_head is None
        assert (call.finished, taken(call)) == (False, [])

    def test_a_driver_stops_at_the_head_whose_caller_may_take_time(self) -> None:
        call = made(stream=True, silence=10.0)
        granted(call)
        assert call.feed([], now=NOW)
        assert call.feed([ResponseHead(status=200, headers=CHUNKED)], now=NOW) is None
        assert call.next_event(now=NOW + 60) is None
        assert awaits(call, NOW + 60).deadline == NOW + 70
        assert call.feed([b"data: 1\n"], now=NOW + 60) == NOW + 70
        assert call.feed([b"\n"], now=NOW + 60) is None

    def test_silence_counts_from_the_wish_for_more(self) -> None:
        call = begun(silence=10.0)
        assert awaits(call).deadline == NOW + 10
        assert not call.feed([b"data: 1\n\ndata: 2\n\n"], now=NOW + 5)
        assert awaits(call).deadline == NOW + 15
        assert call.next_event(now=NOW + 500) is not None
        assert call.next_event(now=NOW + 600) is not None
        assert call.next_event(now=NOW + 700) is None
        assert awaits(call, NOW + 700).deadline == NOW + 710
        # Asking again is not a new wish: the worker has been silent all the while.
        assert call.next_event(now=NOW + 705) is None
        assert awaits(call, NOW + 705).deadline == NOW + 710

    def test_a_slow_caller_is_still_bound_by_the_deadline(self) -> None:
        call = begun()
        call.feed([b"data: 1\n\n"], now=NOW)
        assert gave_up(call, LimitReached, DEADLINE).limit == "total"
        assert taken(call, DEADLINE) == ["1"]
        assert gave_up(call, LimitReached, DEADLINE).limit == "total"

    @pytest.mark.parametrize("safe", [True, False])
    def test_what_is_cut_off_raises_after_its_events_and_is_never_sent_again(self, safe: bool) -> None:
        call = begun(safe_to_repeat=safe)
        call.feed([b"data: 1\n\n", Broken(kind=FailureKind.EOF, detail="closed")], now=NOW)
        assert taken(call) == ["1"]
        error = gave_up(call, ConnectionFailed)
        assert (error.kind, error.outcome) == (FailureKind.EOF, Outcome.PERHAPS_STARTED)
        assert call.counts.work_attempts == 1

    @pytest.mark.parametrize(
        ("headers", "body", "whole"),
        [
            (EVENTS, b"data: 1\n\n", False),
            (EVENTS, b"data: 1\n\ndata: [DONE]\n\n", True),
            (CHUNKED, b"data: 1\n\n", True),
            ({"Content-Type": "application/x-ndjson"}, b"1\n", False),
            ({"Content-Type": "audio/wav"}, b"abc", False),
        ],
    )
    def test_an_end_that_nothing_vouches_for_is_none(self, headers: dict[str, str], body: bytes, whole: bool) -> None:
        call = begun(headers)
        call.feed([body, End()], now=NOW)
        assert len(taken(call)) in {1, 2}
        if whole:
            assert call.result().status == 200
            return
        error = gave_up(call, ConnectionFailed)
        assert (error.kind, error.outcome, error.status) == (FailureKind.EOF, Outcome.PERHAPS_STARTED, 200)
        assert error.message == "the stream stopped and nothing says that this was its end"

    @pytest.mark.parametrize("body", [b"data: 1\n\n", b"data: 1\n\ndata: ha"])
    @pytest.mark.parametrize("feeds", [True, False])
    def test_an_end_that_the_version_of_http_marks_needs_no_header(self, feeds: bool, body: bytes) -> None:
        call = made(stream=True)
        granted(call)
        head = ResponseHead(status=200, headers=EVENTS, framed=True)
        if feeds:
            call.feed([head, body], now=NOW)
            taken(call)
            call.feed([End()], now=NOW)
        else:
            call.head(head, now=NOW)
            call.chunk(body, now=NOW)
            call.end(now=NOW)
        if body.endswith(b"\n\n"):
            assert call.result().status == 200
        else:
            assert "in the middle of an event" in gave_up(call, ConnectionFailed).message

    @pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
    def test_a_breach_is_one_in_any_version_of_http(self, kind: FailureKind) -> None:
        call = made(stream=True)
        granted(call)
        call.head(ResponseHead(status=200, headers=EVENTS, framed=True), now=NOW)
        call.chunk(b"data: 1\n\n", now=NOW)
        call.failed(kind, sent=True, now=NOW)
        assert gave_up(call, ConnectionFailed).kind is kind

    @pytest.mark.parametrize(
        ("kind", "body", "rest", "events"),
        [
            ("text/event-stream", b"data: 1\n\ndata: half", b"data: half", ["1"]),
            ("text/event-stream", b"data: 1\n\ndata: half\n", b"half\n", ["1"]),
            ("application/jsonl", b'1\n{"half": ', b'{"half": ', ["1", '{"half": ']),
        ],
    )
    def test_an_event_that_was_not_finished(self, kind: str, body: bytes, rest: bytes, events: list[str]) -> None:
        call = begun({"Content-Type": kind, "Transfer-Encoding": "chunked"})
        call.feed([body, End()], now=NOW)
        assert [each.text if isinstance(each, JsonLine) else each for each in taken(call)] == events
        error = gave_up(call, ConnectionFailed)
        assert (error.body, error.message) == (rest, "the stream stopped in the middle of an event")
        assert (error.may_have_run, error.advice) == (True, Advice.CHECK_WORK)
        assert error.excerpt == rest.decode().strip()

    @pytest.mark.parametrize(
        ("pieces", "limit"),
        [
            ([b"data: 1\n\ndata: 2", b"3456789" * 3], "max_line"),
            ([b"data: 1\n\n" + b"data: 234567\n" * 3, b"data: 8\n\n"], "max_event"),
        ],
    )
    def test_what_is_too_large_raises_after_the_events_before_it(self, pieces: list[bytes], limit: str) -> None:
        call = begun(stream_limits=StreamLimits(max_line=20, max_event=20))
        for piece in pieces:
            call.chunk(piece, now=NOW)
        assert call.over
        assert taken(call) == ["1"]
        error = gave_up(call, LimitReached)
        assert (error.limit, error.advice, error.outcome) == (limit, Advice.RAISE_LIMIT, Outcome.ANSWERED)
        assert error.may_have_run
        assert "234567" in error.excerpt

    def test_a_line_that_is_too_long_at_the_very_end(self) -> None:
        call = begun(stream_limits=StreamLimits(max_line=20))
        call.chunk(b"data: 1\n\ndata: 2" + b"3456789" * 3, now=NOW)
        assert call.reading
        call.end(now=NOW)
        assert taken(call) == ["1"]
        assert gave_up(call, LimitReached).limit == "max_line"


# --- sessions -----------------------------------------------------------------------------------------------------


class TestSessions:
    def test_the_worker_is_the_sessions(self) -> None:
        call = in_session(deadline=NOW + 30)
        send = sent(call)
        assert json.loads(send.request.body)["session_id"] == "FSP3KN0FhYQbY"
        assert json.loads(send.request.body)["auth_data"] == FIELDS
        assert send.deadline == NOW + 30
        call.receive(message({"a": 1}), now=NOW + 2)
        result = call.result()
        assert (result.data, result.grant.fields, result.verdict.reason) == ({"a": 1}, FIELDS, Reason.OFF)
        assert "when the session was made" in str(result.verdict)
        assert (result.request_idx, result.request_idx_added, result.reqnum) == (INDEX, False, None)
        assert result.counts == Counts(work_attempts=1, seconds_working=2.0)

    def test_the_number_that_the_session_was_made_with_goes_along(self) -> None:
        call = in_session(fields=BARE)
        assert json.loads(sent(call).request.body)["auth_data"] == BARE | {"request_idx": 7}
        call.receive(message({}), now=NOW)
        assert (call.result().request_idx, call.result().request_idx_added) == (7, True)

    @pytest.mark.parametrize("safe", [True, False])
    @pytest.mark.parametrize("status", [302, 401, 404, 410, 422, 429, 500, 502, 503])
    @pytest.mark.parametrize("late", [True, False])
    def test_no_other_worker_is_asked_for(self, status: int, safe: bool, late: bool) -> None:
        call = in_session(safe_to_repeat=safe)
        sent(call)
        call.receive(message(b"no", status=status), now=DEADLINE if late else NOW)
        error = gave_up(call, SessionGone if status == 410 else UnexpectedAnswer if status == 302 else Refused)
        assert (error.status, error.request_idx, error.verdict) == (status, INDEX, None)

    @pytest.mark.parametrize("was_sent", [True, False])
    def test_a_failure_ends_it(self, was_sent: bool) -> None:
        call = in_session(safe_to_repeat=True)
        sent(call)
        call.failed(FailureKind.RESET, sent=was_sent, now=NOW)
        assert gave_up(call, ConnectionFailed).kind is FailureKind.RESET

    def test_its_worker_is_guarded_too(self) -> None:
        call = in_session(fields=FIELDS | {"url": "https://127.0.0.1:1024"})
        assert gave_up(call, ConnectionFailed).limit == "allow_private_address"

    def test_outside_of_one_a_410_is_the_models(self) -> None:
        call = made()
        answer(call, status=410)
        assert gave_up(call, Refused).status == 410

    def test_is_not_saved(self) -> None:
        with pytest.raises(LocalProtocolError, match="save the session's handle"):
            in_session().snapshot(now=NOW).save(utc=UTC)

    def test_streams_in_it(self) -> None:
        call = in_session(stream=True)
        sent(call)
        call.receive(message(b"data: 1\n\n", headers=CHUNKED), now=NOW)
        assert taken(call) == ["1"]
        assert call.result().status == 200


# --- save and resume ----------------------------------------------------------------------------------------------

THEN = 8.0
"""The monotonic clock of the process that goes on."""


def saved(call: Call, now: float = NOW) -> dict[str, Any]:
    """What `save` wrote, as another process reads it."""
    text = json.dumps(call.snapshot(now=now).save(utc=UTC), allow_nan=False)
    assert not any(secret in text for secret in (KEY, SIGNATURE, "prompt"))
    values = json.loads(text)
    assert isinstance(values, dict)
    return values


def resumed(values: Any, **others: Any) -> Call:
    route = RouteCall.resume(
        values["route"] if isinstance(values, dict) and "route" in values else saved(made())["route"],
        key=KEY,
        rng=lambda: 0.5,
        now=THEN,
        utc=UTC,
    )
    rest = {name: value for name, value in others.items() if name not in OWN[WorkerRequest]}
    return Call.resume(values, route, work(**of(WorkerRequest, others)), now=THEN, **rest)


class TestResume:
    @pytest.mark.parametrize("state", ["begin", "asking", "asked"])
    def test_before_there_is_a_worker(self, state: str) -> None:
        call = made()
        STATES[state][1](call)
        again = resumed(saved(call))
        assert (again.phase, again.snapshot(now=THEN).in_flight) == (CallState.ROUTING, False)
        assert granted(again, THEN).attempt == 1
        again.receive(message({"a": 1}), now=THEN)
        assert again.result().data == {"a": 1}

    def test_what_is_given_anew_is_used(self) -> None:
        guard = Guard(allow_any_port=True)
        others: dict[str, Any] = {"limits": Limits(max_body=4), "stream_limits": StreamLimits(max_line=5)}
        again = resumed(saved(made()), stream=True, guard=guard, policy=WorkPolicy(first_byte=3.0), **others)
        send = granted(again, THEN)
        assert (send.guard, send.deadline) == (guard, THEN + 3)
        again.receive(message(b"data: 1\n\n", headers=CHUNKED), now=THEN)
        assert gave_up(again, LimitReached).limit == "max_line"
        again = resumed(saved(made()), **others)
        answer(again, b"123456", now=THEN, status=422)
        assert gave_up(again, Refused).body == b"1234"

    def test_between_the_hops_the_grant_is_asked_for_again(self) -> None:
        call = made()
        sent(call)
        call.receive(message(FIELDS), now=NOW)
        assert json.loads(sent(resumed(saved(call)), THEN).request.body)["request_idx"] == INDEX

    @pytest.mark.parametrize("state", ["sending", "reading", "streaming"])
    def test_work_in_flight_has_perhaps_started(self, state: str) -> None:
        call = made(stream=True)
        STATES[state][1](call)
        values = saved(call)
        assert values["in_flight"] is True
        error = gave_up(resumed(values), ConnectionFailed, THEN)
        assert (error.outcome, error.phase, error.request_idx) == (Outcome.PERHAPS_STARTED, Phase.WORKER, INDEX)
        assert "say safe_to_repeat" in error.message
        assert error.counts == call.counts
        again = resumed(values, safe_to_repeat=True)
        send = granted(again, THEN)
        assert send.attempt == 2
        assert again.counts.possible_double_runs == 1

    def test_counts_go_on(self) -> None:
        call = made(safe_to_repeat=True)
        now = NOW
        for status in (401, 500):
            answer(call, status=status, now=now)
            now = waits(call, now).at
        again = resumed(saved(call, now), safe_to_repeat=True)
        old, new = call.snapshot(now=now), again.snapshot(now=THEN)
        assert new == old
        assert (new.work_attempts, new.possible_double_runs, new.fresh_grants) == (2, 1, 1)
        answer(again, status=401, now=THEN)
        assert gave_up(again, Refused, THEN).status == 401

    @pytest.mark.parametrize("state", STATES)
    def test_snapshots_are_values(self, state: str) -> None:
        call, twin = made(stream=True), made(stream=True)
        STATES[state][1](call)
        STATES[state][1](twin)
        one, two = call.snapshot(now=NOW), twin.snapshot(now=NOW)
        assert isinstance(one, CallSnapshot)
        assert one == two
        assert one != call.snapshot(now=NOW + 1)
        assert not any(secret in repr(one) for secret in (KEY, SIGNATURE, "prompt"))

    @pytest.mark.parametrize("state", ["answered", "failed", "cancelled"])
    def test_what_is_over_is_not_gone_on_with(self, state: str) -> None:
        call = made(stream=True)
        STATES[state][1](call)
        with pytest.raises(InvalidValue, match="was over when it was saved"):
            resumed(saved(call))

    @pytest.mark.parametrize(
        "values",
        [
            None,
            5,
            [],
            {},
            saved(made())["route"],
            saved(made()) | {"vastroute": "route"},
            saved(made()) | {"version": 2},
            saved(made()) | {"phase": "dreaming"},
            saved(made()) | {"phase": ["routing"]},
            saved(made()) | {"work_attempts": -1},
            saved(made()) | {"work_attempts": True},
            saved(made()) | {"possible_double_runs": 1.0},
            saved(made()) | {"fresh_grants": None},
            {name: value for name, value in saved(made()).items() if name != "in_flight"},
        ],
    )
    def test_what_is_no_saved_call(self, values: Any) -> None:
        with pytest.raises(InvalidValue):
            resumed(values)


# --- any worker at all --------------------------------------------------------------------------------------------

Act = Callable[[Call, float], None]


def replies(response: HttpResponse) -> Act:
    return lambda call, now: call.receive(response, now=now)


def breaks(kind: FailureKind, was_sent: bool | None, after_head: bool) -> Act:
    def act(call: Call, now: float) -> None:
        if after_head:
            call.head(ResponseHead(status=200), now=now)
        call.failed(kind, sent=was_sent, now=now)

    return act


BODIES = st.sampled_from([b"", b"{}", b"{", SIGNATURE.encode(), json.dumps([SIGNATURE, FIELDS]).encode()])
ACTS = st.one_of(
    st.builds(
        lambda status, body: (status, replies(HttpResponse(status=status, headers=JSON, body=body))),
        st.sampled_from([200, 302, 401, 408, 410, 422, 429, 499, 500, 502, 503, 504]),
        BODIES,
    ),
    st.builds(
        lambda kind, was_sent, after_head: (
            None if was_sent is not False or after_head else 0,
            breaks(kind, was_sent, after_head),
        ),
        st.sampled_from(FailureKind),
        st.sampled_from([True, False, None]),
        st.booleans(),
    ),
)
"""What a worker does, with the status it answers: None if it perhaps began and 0 if it surely did not."""
UNCERTAIN = {None, 408, 499, 500, 502, 504}


@given(st.lists(ACTS, max_size=8), st.booleans(), st.sampled_from([0, 2, 9]))
def test_nothing_that_perhaps_ran_is_sent_again_unless_that_is_safe(
    acts: list[tuple[int | None, Act]], safe: bool, most: int
) -> None:
    call = made(safe_to_repeat=safe, max_reroutes=most)
    now, perhaps, sends = NOW, 0, 0
    script = iter(acts)
    while not isinstance(action := call.next_action(now=now), Done | GiveUp):
        assert call.next_action(now=now) == action
        if isinstance(action, WaitUntil):
            assert now < action.at < DEADLINE
            now = action.at
        elif isinstance(action, Send) and action.phase is Phase.ROUTE:
            held = json.loads(action.request.body).get("request_idx")
            assert held == (None if sends == 0 else INDEX)
            call.receive(message(FIELDS), now=now)
        elif isinstance(action, Send):
            sends += 1
            assert safe or not perhaps
            assert KEY not in repr((action.request.body, list(action.request.headers), action.request.url))
            status, act = next(script, (200, replies(message({}))))
            perhaps += status in UNCERTAIN
            act(call, now)
    counts = call.counts
    assert sends == counts.work_attempts <= most + 1
    assert counts.workers_lost <= most
    assert safe or perhaps <= 1
    assert counts.possible_double_runs <= (perhaps if safe else 0)
    assert isinstance(action, Done | GiveUp)
    assert sum(each.kind is EntryKind.SENT for each in call.record) == sends


# --- secrets ------------------------------------------------------------------------------------------------------


def shown(call: Call, now: float) -> list[object]:
    """Everything that a program might print of a call as it stands."""
    action = call.next_action(now=now)
    texts: list[object] = [call, action, call.snapshot(now=now), [each.as_dict() for each in call.record]]
    if isinstance(action, GiveUp):
        error: BaseException | None = action.error
        while isinstance(error, CallFailed):  # a library's own exception says what it likes
            texts += [error, {name: value for name, value in vars(error).items() if name != "body"}]
            error = error.__cause__
    return texts


@given(st.lists(ACTS, max_size=4), st.sampled_from(MAKERS), st.booleans())
def test_no_text_ever_shows_a_secret(acts: list[tuple[int | None, Act]], make: Make, safe: bool) -> None:
    call = make(safe_to_repeat=safe)
    now, texts, script = NOW, list[object](), iter(acts)
    while not call.over:
        texts += shown(call, now)
        action = call.next_action(now=now)
        if isinstance(action, WaitUntil):
            now = action.at
        elif isinstance(action, Send) and action.phase is Phase.ROUTE:
            call.receive(message(FIELDS), now=now)
        elif isinstance(action, Send):
            texts.append(action.request)
            next(script, (200, replies(message({}))))[1](call, now)
    texts += shown(call, now)
    text = "\n".join(f"{each!r} {each}" for each in texts)
    assert KEY not in text
    assert SIGNATURE not in text


QUOTES = [
    SIGNATURE.encode(),
    f"bad token {SIGNATURE}!".encode(),
    f'{{"error": "bad token {SIGNATURE}"}}'.encode(),
    f'{{"error": "{SIGNATURE}"}}'.replace("/", "\\/").encode(),
    b"." * 170 + SIGNATURE.encode(),
    b"x" * 4000 + SIGNATURE.encode(),
]


def refuses(call: Call, quote: bytes) -> None:
    call.receive(message(quote, status=422), now=NOW)


def answers_no_json(call: Call, quote: bytes) -> None:
    call.receive(message(b"{" + quote), now=NOW)


def is_cut(call: Call, quote: bytes) -> None:
    call.receive(message(b"data: " + quote, headers=CHUNKED), now=NOW)


def never_ends_a_line(call: Call, quote: bytes) -> None:
    call.receive(message(b"data: " + quote + b"x" * 5000, headers=CHUNKED), now=NOW)


def breaks_a_library(call: Call, quote: bytes) -> None:
    call.failed(ValueError(quote.decode()), sent=True, now=NOW)


class TestSecrets:
    @pytest.mark.parametrize("quote", QUOTES)
    @both_sources
    @pytest.mark.parametrize(
        ("act", "stream"),
        [
            (refuses, False),
            (answers_no_json, False),
            (is_cut, True),
            (never_ends_a_line, True),
            (breaks_a_library, False),
        ],
    )
    def test_a_signature_that_a_worker_repeats_is_masked(
        self, act: Callable[[Call, bytes], None], stream: bool, make: Make, quote: bytes
    ) -> None:
        call = make(stream=stream, stream_limits=StreamLimits(max_line=4500))
        granted(call)
        act(call, quote)
        text = "\n".join(f"{each!r} {each}" for each in shown(call, NOW)).replace("\\", "")
        assert call.over
        assert SIGNATURE[:16] not in text
        assert SIGNATURE[-18:] not in text

    def test_the_rest_of_what_it_says_is_quoted(self) -> None:
        call = made()
        answer(call, f"bad token {SIGNATURE}!".encode(), status=422)
        assert gave_up(call, Refused).excerpt == "bad token [key]!"

    @pytest.mark.parametrize("signature", ["", "two words", "\u00e9"])
    def test_a_signature_that_could_be_none_hides_nothing(self, signature: str) -> None:
        for stream in (False, True):
            call = made(stream=stream)
            granted(call, fields=FIELDS | {"signature": signature})
            if stream:
                call.receive(message(b"data: half", headers=CHUNKED), now=NOW)
                assert gave_up(call, ConnectionFailed).excerpt == "data: half"
            else:
                call.receive(message(b"because", status=422), now=NOW)
                assert gave_up(call, Refused).excerpt == "because"


@pytest.mark.parametrize(
    ("location", "words"), [("https://elsewhere.example/x?api_key=1", "elsewhere.example"), (None, "nowhere")]
)
def test_a_redirect_names_its_host_and_nothing_more(location: str | None, words: str) -> None:
    call = made()
    granted(call)
    call.receive(message(status=307, headers={} if location is None else {"location": location}), now=NOW)
    error = gave_up(call, UnexpectedAnswer)
    assert error.message == f"a redirect to {words}, never followed"


def test_in_a_session_work_never_goes_over_a_kept_connection() -> None:
    call = in_session(safe_to_repeat=True)
    assert sent(call).fresh


def test_a_session_needs_a_deadline_that_is_one() -> None:
    with pytest.raises(InvalidValue, match="needs a deadline"):
        in_session(deadline=float("nan"))


def test_an_exception_that_says_nothing_is_told_by_its_cause() -> None:
    call = made()
    granted(call)
    silent = ConnectionError()
    silent.__cause__ = OSError("certificate has expired")
    call.failed(silent, kind=FailureKind.TLS, sent=False, now=NOW)
    assert any("certificate has expired" in entry.detail for entry in call.record)
