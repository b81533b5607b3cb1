"""`RouteCall`: what each answer of the engine leads to, one identity over all asks, bounds, and a state to save."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from itertools import cycle, product
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vastroute import (
    Advice,
    AskState,
    CallFailed,
    Cancelled,
    ConnectionFailed,
    Counts,
    Done,
    EntryKind,
    FailureKind,
    GiveUp,
    HttpResponse,
    InvalidValue,
    KeyRefused,
    LimitReached,
    Limits,
    LocalProtocolError,
    NotReady,
    Origin,
    Outcome,
    Pause,
    Phase,
    PublicKey,
    Reason,
    Refused,
    ReqnumOrder,
    ReqnumTracker,
    ResponseHead,
    RetryPolicy,
    RouteCall,
    RouteMemory,
    RouteRequest,
    Send,
    SignatureMode,
    SignatureRefused,
    UnexpectedAnswer,
    Verifier,
    WaitUntil,
    Why,
)

E = TypeVar("E", bound=CallFailed)

NOW = 1024.0
TOTAL = 128.0
DEADLINE = NOW + TOTAL
UTC = 1_795_447_495.0
KEY = "canary-key-5f1c"
VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "signing.json").read_text())
SIGNED: dict[str, Any] = json.loads(VECTORS["rows"][0]["grant_json"])
SIGNATURE: str = SIGNED["signature"]
INDEX: int = SIGNED["request_idx"]
REQUEST = RouteRequest(endpoint=SIGNED["endpoint"], cost=SIGNED["cost"])
ENGINE_KEY = PublicKey.load(VECTORS["pubkey"])
BARE = {name: value for name, value in SIGNED.items() if name != "request_idx"}
NOTHING_YET = {"status": "loading: 1"}


def route(
    request: RouteRequest = REQUEST, *, deadline: float = DEADLINE, draw: float = 0.5, **others: Any
) -> RouteCall:
    names = {field.name for field in attrs.fields(RetryPolicy)}
    policy = RetryPolicy(**{name: value for name, value in others.items() if name in names})
    rest = {name: value for name, value in others.items() if name not in names}
    return RouteCall(request, key=KEY, rng=lambda: draw, deadline=deadline, policy=policy, **rest)


def message(fields: object = None, *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    body = fields if isinstance(fields, bytes) else b"" if fields is None else json.dumps(fields).encode()
    return HttpResponse(status=status, headers=headers or {}, body=body)


def sent(call: RouteCall, now: float = NOW) -> Send:
    action = call.next_action(now=now)
    assert isinstance(action, Send)
    return action


def answer(call: RouteCall, fields: object = None, *, now: float = NOW, **others: Any) -> None:
    sent(call, now)
    call.receive(message(fields, **others), now=now)


def waits(call: RouteCall, now: float = NOW) -> WaitUntil:
    action = call.next_action(now=now)
    assert isinstance(action, WaitUntil)
    return action


def later(call: RouteCall) -> float:
    """When it asks again, if it was left alone at `NOW`."""
    return waits(call).at


def index_sent(send: Send) -> int | None:
    index = json.loads(send.request.body).get("request_idx")
    assert index is None or type(index) is int
    return index


def gave_up(call: RouteCall, kind: type[E], now: float = NOW) -> E:
    action = call.next_action(now=now)
    assert isinstance(action, GiveUp)
    assert type(action.error) is kind
    with pytest.raises(kind) as raised:
        call.result()
    assert raised.value is action.error
    assert (action.error.counts, action.error.record) == (call.counts, call.record)
    assert action.error.phase is Phase.ROUTE
    return action.error


# --- every state, every input ------------------------------------------------------------------------------------


def asking(call: RouteCall) -> None:
    sent(call)


def reading(call: RouteCall) -> None:
    sent(call)
    call.head(ResponseHead(status=200), now=NOW)


STATES: dict[AskState, Callable[[RouteCall], None]] = {
    AskState.WAITING: lambda call: None,
    AskState.ASKING: asking,
    AskState.READING: reading,
    AskState.ANSWERED: lambda call: answer(call, SIGNED),
    AskState.FAILED: lambda call: answer(call, status=401),
    AskState.CANCELLED: lambda call: call.cancelled(now=NOW),
}
INPUTS: dict[str, Callable[[RouteCall], Any]] = {
    "head": lambda call: call.head(ResponseHead(status=200), now=NOW),
    "chunk": lambda call: call.chunk(b"{", now=NOW),
    "end": lambda call: call.end(now=NOW),
    "receive": lambda call: call.receive(message(SIGNED), now=NOW),
    "failed": lambda call: call.failed("broke", sent=None, now=NOW),
    "cancelled": lambda call: call.cancelled(now=NOW),
    "worker_failed": lambda call: call.worker_failed("gone", now=NOW),
}
FITS: dict[AskState, set[str]] = {
    AskState.WAITING: {"cancelled"},
    AskState.ASKING: {"head", "receive", "failed", "cancelled"},
    AskState.READING: {"chunk", "end", "failed", "cancelled"},
    AskState.ANSWERED: {"worker_failed", "cancelled"},
    AskState.FAILED: set(),
    AskState.CANCELLED: set(),
}


class TestReports:
    @pytest.mark.parametrize(("state", "name"), list(product(STATES, INPUTS)))
    def test_what_does_not_fit_is_refused_and_changes_nothing(self, state: AskState, name: str) -> None:
        call, twin = route(), route()
        STATES[state](call)
        STATES[state](twin)
        before, record = call.snapshot(now=NOW), call.record
        assert before == twin.snapshot(now=NOW)
        assert before.phase is state
        if name in FITS[state]:
            INPUTS[name](call)
            assert call.snapshot(now=NOW) != before or name == "chunk"
            return
        with pytest.raises(LocalProtocolError, match=f"in the state '{state.value}' it cannot take"):
            INPUTS[name](call)
        assert call.snapshot(now=NOW) == before
        assert call.record == record
        assert type(call.next_action(now=NOW)) is type(twin.next_action(now=NOW))
        assert call.snapshot(now=NOW) == twin.snapshot(now=NOW)

    @pytest.mark.parametrize("state", STATES)
    def test_asked_twice_it_answers_the_same(self, state: AskState) -> None:
        for now in (NOW, NOW + 9.5, DEADLINE):
            call = route()
            STATES[state](call)
            action = call.next_action(now=now)
            snapshot = call.snapshot(now=now)
            assert call.next_action(now=now) is action
            assert call.snapshot(now=now) == snapshot

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (AskState.WAITING, Outcome.NOT_SENT),
            (AskState.ASKING, Outcome.PERHAPS_STARTED),
            (AskState.READING, Outcome.PERHAPS_STARTED),
            (AskState.ANSWERED, Outcome.ANSWERED),
        ],
    )
    def test_cancelled(self, state: AskState, outcome: Outcome) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=5))
        STATES[state](call)
        call.cancelled(now=NOW)
        error = gave_up(call, Cancelled)
        assert error.outcome is outcome
        assert error.request_idx == (INDEX if state is AskState.ANSWERED else 5)

    def test_an_answer_that_comes_late_still_counts(self) -> None:
        call = route()
        sent(call)
        call.receive(message(SIGNED), now=DEADLINE + 60)
        assert isinstance(call.next_action(now=DEADLINE + 61), Done)


# --- what is asked ------------------------------------------------------------------------------------------------


class TestAsking:
    def test_the_first_ask(self) -> None:
        request = sent(route()).request
        assert request.url == "https://run.vast.ai/route/"
        assert request.headers.get("authorization") == f"Bearer {KEY}"
        assert json.loads(request.body) == {"endpoint": REQUEST.endpoint, "cost": 100.0}

    def test_another_engine_and_the_key_in_the_body(self) -> None:
        engine = Origin(scheme="http", host="localhost", port=8080)
        request = sent(route(engine=engine, key_in_body=True)).request
        assert request.origin == engine
        assert json.loads(request.body)["api_key"] == KEY

    def test_a_key_is_checked_where_it_is_given(self) -> None:
        with pytest.raises(InvalidValue, match="the key"):
            RouteCall(REQUEST, key="two words", rng=lambda: 0.5, deadline=DEADLINE)

    def test_the_answer_tells_all_that_was_found(self) -> None:
        call = route(tracker=ReqnumTracker())
        answer(call, NOTHING_YET | {"request_idx": INDEX})
        at = later(call)
        answer(call, SIGNED, now=at)
        result = call.result()
        assert call.next_action(now=at) == Done(result=result)
        assert json.loads(result.grant.raw) == SIGNED
        assert result.reqnum is not None
        assert (result.reqnum.order, result.differences) == (ReqnumOrder.FRESH, ())
        assert (result.request_idx, result.request_idx_age) == (INDEX, at - NOW)
        assert result.counts == Counts(asks=2, polls=1, seconds_waited=at - NOW)
        assert [each.as_dict() for each in result.record] == [
            {"kind": "asked", "at": NOW, "phase": "route", "attempt": 1},
            {
                "kind": "not ready",
                "at": NOW,
                "phase": "route",
                "attempt": 1,
                "request_idx": INDEX,
                "status": 200,
                "detail": "loading: 1",
            },
            {
                "kind": "waiting",
                "at": NOW,
                "phase": "route",
                "attempt": 1,
                "request_idx": INDEX,
                "detail": "poll",
                "until": at,
            },
            {"kind": "asked", "at": at, "phase": "route", "attempt": 2, "request_idx": INDEX},
            {
                "kind": "granted",
                "at": at,
                "phase": "route",
                "attempt": 2,
                "request_idx": INDEX,
                "detail": SIGNED["url"],
            },
        ]

    def test_calls_that_share_what_they_know_of_workers_share_the_origin(self) -> None:
        memory = RouteMemory()
        origins = []
        for shared in (memory, memory, None):
            call = route(memory=shared)
            answer(call, SIGNED)
            origins.append(call.result().grant.origin)
        assert origins[0] is origins[1]
        assert origins[0] == origins[2]

    def test_reqnums_are_looked_at_only_with_a_tracker(self) -> None:
        tracker = ReqnumTracker()
        orders = []
        for _ in range(2):
            call = route(tracker=tracker)
            answer(call, SIGNED)
            assert call.result().reqnum is not None
            orders.append(getattr(call.result().reqnum, "order", None))
        assert orders == [ReqnumOrder.FRESH, ReqnumOrder.REPEATED]
        call = route()
        answer(call, SIGNED)
        assert call.result().reqnum is None


# --- the request's identity -----------------------------------------------------------------------------------------


class TestIdentity:
    def test_every_later_ask_carries_the_number_of_the_first_answer(self) -> None:
        call = route()
        now, indexes = NOW, []
        for fields, status in [
            (NOTHING_YET | {"request_idx": 7}, 200),
            (None, 502),
            (NOTHING_YET, 200),
            (BARE, 200),
        ]:
            indexes.append(index_sent(sent(call, now)))
            call.receive(message(fields, status=status), now=now)
            now = getattr(call.next_action(now=now), "at", now)
        assert indexes == [None, 7, 7, 7]
        assert call.result().request_idx == 7
        call.worker_failed("gone", now=now)
        assert index_sent(sent(call, waits(call, now).at)) == 7

    @pytest.mark.parametrize("absent", [{}, {"request_idx": 0}, {"request_idx": None}, {"request_idx": "8"}])
    @pytest.mark.parametrize("kind", [NOTHING_YET, BARE])
    def test_an_answer_without_one_clears_nothing(self, kind: dict[str, Any], absent: dict[str, Any]) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=7))
        answer(call, kind | absent)
        assert call.request_idx == 7
        assert call.counts.index_missing == 1

    @pytest.mark.parametrize("fields", [{}, {"request_idx": 0}, {"request_idx": "text"}])
    def test_none_is_missing_before_there_is_one(self, fields: dict[str, Any]) -> None:
        call = route()
        answer(call, NOTHING_YET | fields)
        assert call.request_idx is None
        assert call.counts.index_missing == 0
        assert "request_idx" not in json.loads(sent(call, later(call)).request.body)

    @pytest.mark.parametrize("status", [200, 500, 429])
    def test_another_one_is_adopted_and_told(self, status: int) -> None:
        call = route()
        answer(call, NOTHING_YET | {"request_idx": 7})
        at = later(call)
        answer(call, NOTHING_YET | {"request_idx": 9}, now=at, status=status)
        assert call.request_idx == 9
        assert call.counts.index_changes == 1
        changed = [each for each in call.record if each.kind is EntryKind.INDEX_CHANGED]
        assert [(each.detail, each.at) for each in changed] == [("from 7 to 9", at)]
        assert call.snapshot(now=at + 2).request_idx_age == 2
        assert index_sent(sent(call, waits(call, at).at)) == 9

    @pytest.mark.parametrize("fields", [{"error": "busy"}, b"<html>busy</html>"])
    def test_a_failure_without_one_is_not_missing_it(self, fields: object) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=7))
        answer(call, fields, status=503)
        assert (call.request_idx, call.counts.index_missing) == (7, 0)

    def test_its_age_counts_from_when_it_was_given(self) -> None:
        call = route()
        assert call.snapshot(now=NOW).request_idx_age is None
        answer(call, NOTHING_YET | {"request_idx": 7})
        answer(call, NOTHING_YET | {"request_idx": 7}, now=later(call))
        assert call.snapshot(now=NOW + 60).request_idx_age == 60

    def test_the_age_of_one_that_was_brought_along_is_not_known(self) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=INDEX))
        assert index_sent(sent(call)) == INDEX
        call.receive(message(SIGNED), now=NOW)
        assert call.result().request_idx_age is None


# --- answers ------------------------------------------------------------------------------------------------------

KEY_ADVICE, INPUT, ENDPOINT, ANSWER = (
    Advice.CHECK_KEY,
    Advice.CHECK_INPUT,
    Advice.CHECK_ENDPOINT,
    Advice.CHECK_ANSWER,
)
HTML = b"<html><title>504</title></html>"
FINAL: dict[str, tuple[HttpResponse, type[CallFailed], Advice, str]] = {
    "wrong key": (
        message({"error": "Authentication failed"}, status=401),
        KeyRefused,
        KEY_ADVICE,
        "endpoint's own key",
    ),
    "forbidden": (message(status=403), KeyRefused, KEY_ADVICE, "endpoint's own key"),
    "bad request": (message({"error_msg": "cost"}, status=400), Refused, INPUT, r"it said: cost"),
    "bad request, the page's word": (message({"error": "cost"}, status=400), Refused, INPUT, r"it said: cost"),
    "not an engine": (message(HTML, status=404), UnexpectedAnswer, ANSWER, "is it an engine"),
    "redirect": (
        message(status=307, headers={"Location": "https://other.example/x?y"}),
        UnexpectedAnswer,
        ANSWER,
        "a redirect to other.example, never followed",
    ),
    "redirect inside": (message(status=302, headers={"Location": "/login"}), UnexpectedAnswer, ANSWER, "same host"),
    "no end": (message(status=199), UnexpectedAnswer, ANSWER, "ends no exchange"),
    "unknown endpoint": (
        message({"error_msg": "endpoint 0 not found or unauthorized"}),
        Refused,
        ENDPOINT,
        r"name is wrong.*it said: endpoint 0 not found",
    ),
    "too large": (message(b" " * 70_000), UnexpectedAnswer, ANSWER, "larger than the 65536 bytes allowed"),
    "stopped": (message({"status": "Stopped"}), Refused, ENDPOINT, "not running.*'Stopped'"),
    "endpoint stopped": (message({"status": " ENDPOINT stopped "}), Refused, ENDPOINT, "not running"),
}
PASSING: dict[str, tuple[HttpResponse, type[CallFailed]]] = {
    **{f"status {status}": (message(HTML, status=status), Refused) for status in (408, 425, 429, 500, 502, 503, 599)},
    "HTML": (message(HTML), UnexpectedAnswer),
    "nothing": (message(b""), UnexpectedAnswer),
    "broken JSON": (message(b'{"url": '), UnexpectedAnswer),
    "no object": (message([SIGNED]), UnexpectedAnswer),
    "no url": (message(SIGNED | {"url": None}), UnexpectedAnswer),
    "an empty url": (message(SIGNED | {"url": ""}), UnexpectedAnswer),
    "a bad url": (message(SIGNED | {"url": "ftp://worker.example"}), UnexpectedAnswer),
    "no reqnum": (message(SIGNED | {"reqnum": "4"}), UnexpectedAnswer),
}


class TestAnswers:
    @pytest.mark.parametrize(("response", "kind", "advice", "words"), FINAL.values(), ids=FINAL)
    def test_final_ones_end_the_call_at_once(
        self, response: HttpResponse, kind: type[CallFailed], advice: Advice, words: str
    ) -> None:
        call = route()
        sent(call)
        call.receive(response, now=NOW)
        error = gave_up(call, kind)
        assert (error.advice, error.outcome, error.status) == (advice, Outcome.ANSWERED, response.status)
        with pytest.raises(kind, match=words):
            call.result()
        assert call.counts == Counts(asks=1)

    @pytest.mark.parametrize(("response", "kind"), PASSING.values(), ids=PASSING)
    def test_passing_ones_are_asked_again_up_to_the_limit(self, response: HttpResponse, kind: type[CallFailed]) -> None:
        call = route(max_retries=2)
        now = NOW
        for attempt in (1, 2, 3):
            assert sent(call, now).attempt == attempt
            assert not call.over
            call.receive(response, now=now)
            now = getattr(call.next_action(now=now), "at", now)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.status, type(error.__cause__)) == ("max_retries", response.status, kind)
        assert (call.counts.asks, call.counts.retries, call.counts.polls) == (3, 2, 0)
        assert SIGNATURE not in str(error)

    @pytest.mark.parametrize("status", [None, "", "waiting", "stopping", {"ready": 0, "total": 2}, 5, ["Stopped"]])
    def test_every_other_status_waits(self, status: object) -> None:
        call = route()
        answer(call, {"endpoint": "demo", "status": status})
        assert waits(call).why is Why.POLL
        assert isinstance(call.record[1].detail, str)
        assert isinstance(call.not_ready, NotReady)
        assert call.not_ready == call.snapshot(now=NOW).not_ready

    def test_an_error_has_the_engines_name_for_the_request(self) -> None:
        call = route(max_retries=1)
        answer(call, {"error": "busy", "__request_id": "d0aa"}, status=503)
        answer(call, {"error": "busy", "__request_id": "d0ab"}, now=later(call), status=503)
        error = gave_up(call, LimitReached)
        assert (error.request_id, error.excerpt) == ("d0ab", "busy")

    def test_limits_are_the_callers(self) -> None:
        call = route(limits=Limits(max_depth=2), max_retries=0)
        answer(call, {"status": [[[]]]})
        assert gave_up(call, UnexpectedAnswer).message == "the answer is nested too deeply"

    def test_statuses_that_stop_are_the_policys(self) -> None:
        call = route(stop_statuses=["waiting"])
        answer(call, {"status": "Waiting", "__request_id": "d0aa"})
        error = gave_up(call, Refused)
        assert error.not_ready == NotReady(status="Waiting", request_id="d0aa")
        assert error.request_id == "d0aa"

    def test_the_error_has_the_last_word_of_the_engine(self) -> None:
        call = route()
        answer(call, NOTHING_YET | {"__request_id": "d0aa", "request_idx": 7})
        answer(call, {"error_msg": "no", "__request_id": "d0ab"}, now=later(call))
        error = gave_up(call, Refused)
        assert error.not_ready is not None
        assert (error.not_ready.counts, error.not_ready.request_id) == ({"loading": 1}, "d0aa")
        assert (error.request_id, error.request_idx) == ("d0ab", 7)


# --- polls, retries -------------------------------------------------------------------------------------------------


class TestPauses:
    def test_polls_and_retries_have_counts_and_pauses_of_their_own(self) -> None:
        poll, retry = Pause(first=2.0, factor=2.0, cap=16.0), Pause(first=1.0, factor=4.0, cap=64.0)
        call = route(draw=0.0, poll_pause=poll, retry_pause=retry)
        now, pauses = NOW, []
        for ready in (True, False, True, False, False, True):
            answer(call, NOTHING_YET if ready else None, now=now, status=200 if ready else 503)
            wait = waits(call, now)
            pauses.append((wait.why, wait.at - now))
            now = wait.at
        P, R = Why.POLL, Why.RETRY  # noqa: N806
        assert pauses == [(P, 1.0), (R, 0.5), (P, 2.0), (R, 2.0), (R, 8.0), (P, 4.0)]
        sent(call, now)
        assert call.counts == Counts(asks=7, polls=3, retries=3, seconds_waited=17.5)

    @pytest.mark.parametrize("most", [0, 1, 3])
    def test_too_many_polls(self, most: int) -> None:
        call = route(max_polls=most)
        now = NOW
        for _ in range(most):
            answer(call, NOTHING_YET, now=now)
            now = waits(call, now).at
        answer(call, NOTHING_YET, now=now)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.outcome, error.advice) == ("max_polls", Outcome.ANSWERED, Advice.RAISE_LIMIT)
        assert error.message == f"the limit max_polls={most} is reached"
        assert error.not_ready is not None
        assert (call.counts.asks, call.counts.polls) == (most + 1, most)

    @pytest.mark.parametrize(("asked", "pause"), [("0.1", 0.375), ("20", 20.0), ("86400", 60.0)])
    @pytest.mark.parametrize("status", [429, 503])
    def test_retry_after_is_honoured_up_to_the_cap(self, status: int, asked: str, pause: float) -> None:
        call = route()
        answer(call, status=status, headers={"Retry-After": asked})
        assert later(call) - NOW == pause

    def test_a_date_counts_from_the_answers_own(self) -> None:
        call = route()
        dates = {"Date": "Mon, 23 Nov 2026 15:24:55 GMT", "Retry-After": "Mon, 23 Nov 2026 15:25:05 GMT"}
        answer(call, status=503, headers=dates)
        assert later(call) - NOW == 10


class TestFirstAsk:
    """Before there is a number, an ask that is lost and repeated may count twice."""

    @pytest.mark.parametrize("most", [0, 1, 2])
    @pytest.mark.parametrize("was_sent", [True, None])
    def test_is_repeated_only_so_often(self, most: int, was_sent: bool | None) -> None:
        call = route(first_ask_repeats=most)
        now = NOW
        for _ in range(most):
            sent(call, now)
            call.failed(FailureKind.TIMEOUT, sent=was_sent, now=now)
            now = waits(call, now).at
        sent(call, now)
        assert call.counts.possible_double_loads == most
        call.failed(FailureKind.RESET, sent=was_sent, now=now)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.kind, error.outcome) == (
            "first_ask_repeats",
            FailureKind.RESET,
            Outcome.PERHAPS_STARTED,
        )
        assert error.message == f"the limit first_ask_repeats={most} is reached; the last failure: connection reset"
        assert call.counts.possible_double_loads == most

    def test_a_stale_connection_is_no_exception(self) -> None:
        call = route()
        sent(call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        assert sent(call).fresh
        assert call.counts == Counts(asks=2, repeats=1, possible_double_loads=1)
        call = route(first_ask_repeats=0)
        sent(call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        assert gave_up(call, LimitReached).limit == "first_ask_repeats"

    def test_under_a_number_a_lost_ask_counts_once(self) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=7), first_ask_repeats=0)
        sent(call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        sent(call)
        call.failed(FailureKind.TIMEOUT, sent=True, now=NOW)
        assert index_sent(sent(call, later(call))) == 7
        assert call.counts.possible_double_loads == 0

    def test_what_surely_did_not_leave_is_no_loss(self) -> None:
        call = route(first_ask_repeats=0)
        sent(call)
        call.failed(FailureKind.REFUSED, sent=False, now=NOW)
        assert sent(call, later(call)).attempt == 2
        assert call.counts.possible_double_loads == 0

    def test_what_was_answered_is_no_loss(self) -> None:
        call = route(first_ask_repeats=0)
        answer(call, status=502)
        assert sent(call, later(call)).attempt == 2

    @pytest.mark.parametrize(
        ("kind", "others", "now"),
        [
            (FailureKind.TLS, {}, NOW),
            (FailureKind.EOF, {"max_retries": 0}, NOW),
            (FailureKind.EOF, {}, DEADLINE),
            (FailureKind.EOF, {}, DEADLINE - 0.25),
        ],
    )
    def test_what_is_not_asked_again_is_not_counted(
        self, kind: FailureKind, others: dict[str, Any], now: float
    ) -> None:
        call = route(**others)
        sent(call)
        call.failed(kind, sent=None, now=now)
        assert isinstance(call.next_action(now=now), GiveUp)
        assert call.counts.possible_double_loads == 0

    def test_a_final_failure_is_told_as_what_it_is(self) -> None:
        call = route(first_ask_repeats=0)
        sent(call)
        call.failed(FailureKind.TLS, sent=None, now=NOW)
        assert gave_up(call, ConnectionFailed).kind is FailureKind.TLS


# --- signatures -----------------------------------------------------------------------------------------------------

OFF, REPORT, REQUIRE = SignatureMode
FORGED = SIGNED | {"url": "https://198.51.100.9:40123"}
GOOD = [
    (None, SIGNED, Reason.NO_KEY),
    (Verifier(mode=REPORT), SIGNED, Reason.NO_KEY),
    (Verifier(ENGINE_KEY, mode=OFF), FORGED, Reason.OFF),
    (Verifier(ENGINE_KEY, mode=REPORT), SIGNED, Reason.VERIFIED),
    (Verifier(ENGINE_KEY, mode=REPORT), FORGED, Reason.NO_MATCH),
    (Verifier(ENGINE_KEY, mode=REPORT), SIGNED | {"signature": "x"}, Reason.MALFORMED),
    (Verifier(ENGINE_KEY, mode=REQUIRE), SIGNED, Reason.VERIFIED),
]
BAD = [
    (Verifier(mode=REQUIRE), SIGNED, Reason.NO_KEY, "no key"),
    (Verifier(ENGINE_KEY, mode=REQUIRE), FORGED, Reason.NO_MATCH, "no match"),
    (Verifier(ENGINE_KEY, mode=REQUIRE), SIGNED | {"signature": ""}, Reason.MALFORMED, "malformed"),
    (Verifier(ENGINE_KEY, mode=REQUIRE), SIGNED | {"cost": 1}, Reason.VERIFIED, "it is for another cost"),
    (Verifier(ENGINE_KEY, mode=REQUIRE), SIGNED | {"endpoint": "x"}, Reason.VERIFIED, "it is for another endpoint"),
    (
        Verifier(ENGINE_KEY, mode=REQUIRE),
        SIGNED | {"endpoint": "x", "cost": 1},
        Reason.VERIFIED,
        "it is for another endpoint and cost",
    ),
]


class TestSignatures:
    @pytest.mark.parametrize(("verifier", "fields", "reason"), GOOD)
    def test_are_reported(self, verifier: Verifier | None, fields: dict[str, Any], reason: Reason) -> None:
        call = route(verifier=verifier)
        answer(call, fields)
        assert call.result().verdict.reason is reason

    @pytest.mark.parametrize(("verifier", "fields", "reason", "words"), BAD)
    def test_are_required(self, verifier: Verifier, fields: dict[str, Any], reason: Reason, words: str) -> None:
        call = route(verifier=verifier)
        answer(call, fields | {"__request_id": "d0aa"})
        error = gave_up(call, SignatureRefused)
        assert error.request_id == "d0aa"
        assert error.verdict is not None
        assert (error.verdict.reason, error.advice, error.request_idx) == (reason, Advice.CHECK_ANSWER, INDEX)
        assert f"not to be trusted: {words}" in str(error)
        assert call.snapshot(now=NOW).grant is None

    @pytest.mark.parametrize(
        ("fields", "differences"),
        [
            ({}, ()),
            ({"cost": 100}, ()),
            ({"cost": 7}, ("cost",)),
            ({"endpoint": "x"}, ("endpoint",)),
            ({"endpoint": "x", "cost": 7}, ("endpoint", "cost")),
        ],
    )
    @pytest.mark.parametrize("mode", [OFF, REPORT])
    def test_what_came_back_otherwise_is_told(
        self, fields: dict[str, Any], differences: tuple[str, ...], mode: SignatureMode
    ) -> None:
        call = route(verifier=Verifier(ENGINE_KEY, mode=mode))
        answer(call, SIGNED | fields)
        assert call.result().differences == differences


# --- the granted worker fails ---------------------------------------------------------------------------------------


def full(retry_after: float | None) -> CallFailed:
    return Refused(
        "the worker is full",
        phase=Phase.WORKER,
        outcome=Outcome.ANSWERED,
        advice=Advice.ASK_AGAIN,
        status=429,
        retry_after=retry_after,
    )


class TestWorkerFailed:
    @pytest.mark.parametrize(
        ("error", "status", "pause"),
        [("gone", None, 0.375), (full(None), 429, 0.375), (full(30.0), 429, 30.0), (full(900.0), 429, 60.0)],
    )
    def test_asks_again_under_the_same_number(self, error: CallFailed | str, status: int | None, pause: float) -> None:
        call = route()
        answer(call, SIGNED)
        call.worker_failed(error, now=NOW)
        assert waits(call) == WaitUntil(at=NOW + pause, why=Why.REROUTE)
        lost = call.record[-2]
        assert (lost.kind, lost.phase, lost.attempt, lost.status, lost.detail) == (
            EntryKind.WORKER_LOST,
            Phase.WORKER,
            1,
            status,
            error if isinstance(error, str) else error.message,
        )
        assert call.snapshot(now=NOW).grant is None
        assert not call.over
        assert index_sent(sent(call, NOW + pause)) == INDEX
        assert call.counts == Counts(asks=2, workers_lost=1, seconds_waited=pause)

    @pytest.mark.parametrize("most", [0, 1, 3])
    def test_only_so_many_workers_may_fail(self, most: int) -> None:
        call = route(max_reroutes=most)
        now = NOW
        for _ in range(most):
            answer(call, SIGNED, now=now)
            call.worker_failed("gone", now=now)
            now = waits(call, now).at
        answer(call, SIGNED, now=now)
        call.worker_failed(full(None), now=now)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.status, error.request_idx) == ("max_reroutes", 429, INDEX)
        assert error.message == f"the limit max_reroutes={most} is reached; the last failure: the worker is full"
        assert isinstance(error.__cause__, Refused)
        assert call.counts.workers_lost == most

    def test_no_time_is_left_for_another(self) -> None:
        call = route()
        answer(call, SIGNED)
        call.worker_failed("gone", now=DEADLINE - 0.25)
        assert gave_up(call, LimitReached).limit == "total"
        assert call.counts == Counts(asks=1)

    def test_has_pauses_of_its_own_that_grow(self) -> None:
        call = route(draw=0.0, retry_pause=Pause(first=1.0, factor=2.0, cap=16.0))
        now, pauses = NOW, []
        for _ in range(3):
            answer(call, status=503, now=now)
            now = waits(call, now).at
            answer(call, SIGNED, now=now)
            call.worker_failed("gone", now=now)
            pauses.append(waits(call, now).at - now)
            now = waits(call, now).at
        assert pauses == [0.5, 1.0, 2.0]


# --- save and resume ------------------------------------------------------------------------------------------------

THEN = 8.0
"""The monotonic clock of the process that goes on."""


def saved(call: RouteCall, *, now: float = NOW, with_grant: bool = False) -> dict[str, Any]:
    """What `save` wrote, as another process reads it."""
    text = json.dumps(call.snapshot(now=now).save(utc=UTC, with_grant=with_grant), allow_nan=False)
    assert KEY not in text
    assert with_grant or SIGNATURE not in text
    values = json.loads(text)
    assert isinstance(values, dict)
    return values


def resumed(values: Any, *, utc: float = UTC, **others: Any) -> RouteCall:
    return RouteCall.resume(values, key=KEY, rng=lambda: 0.5, now=THEN, utc=utc, **others)


def polling() -> RouteCall:
    """A call with a history: a lost first ask, two polls, a changed number, and a pause under way."""
    call = route(RouteRequest(endpoint="demo", cost=5, replay_timeout=60.0, extra={"guid": [1, {"a": None}]}))
    sent(call)
    call.failed(FailureKind.RESET, sent=True, now=NOW)
    now = later(call)
    for index in (7, 9):
        answer(call, NOTHING_YET | {"request_idx": index}, now=now)
        now = waits(call, now).at
    answer(call, NOTHING_YET, now=now)
    return call


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


class TestResume:
    def test_a_wait_goes_on_where_it_was(self) -> None:
        call = polling()
        old = call.snapshot(now=NOW + 4)
        new = resumed(saved(call, now=NOW + 4)).snapshot(now=THEN)
        assert new == attrs.evolve(old, not_ready=None)
        assert (new.request_idx, new.phase, new.why) == (9, AskState.WAITING, Why.POLL)
        assert new.counts.possible_double_loads == new.counts.index_missing == new.counts.index_changes == 1
        again = resumed(saved(call, now=NOW + 4))
        assert index_sent(sent(again, THEN + new.due_in)) == 9
        assert again.counts.polls == old.counts.polls + 1

    @pytest.mark.parametrize("state", STATES)
    def test_snapshots_are_values(self, state: AskState) -> None:
        call, twin = route(), route()
        STATES[state](call)
        STATES[state](twin)
        one, two = call.snapshot(now=NOW), twin.snapshot(now=NOW)
        assert one == two
        assert one is not two
        assert one != call.snapshot(now=NOW + 1)
        assert SIGNATURE not in repr(one)
        assert KEY not in repr(one)

    @pytest.mark.parametrize(("elapsed", "age"), [(0.0, 20.0), (3600.0, 3620.0), (-50.0, 20.0)])
    def test_the_numbers_age_is_known_by_the_wall_clock(self, elapsed: float, age: float) -> None:
        call = route()
        answer(call, NOTHING_YET | {"request_idx": 7})
        new = resumed(saved(call, now=NOW + 20), utc=UTC + elapsed).snapshot(now=THEN)
        assert (new.request_idx, new.request_idx_age) == (7, age)
        assert new.remaining == TOTAL - 20

    def test_the_time_left_is_kept_or_given_anew(self) -> None:
        values = saved(route(), now=NOW + 100)
        assert resumed(values).deadline == THEN + 28
        assert resumed(values, deadline=THEN + 5).deadline == THEN + 5
        assert resumed(saved(route(deadline=math.inf))).deadline == math.inf
        assert gave_up(resumed(saved(route(), now=DEADLINE + 5)), LimitReached, THEN).limit == "total"

    def test_a_wait_never_passes_the_new_deadline(self) -> None:
        call = route()
        answer(call, status=503, headers={"Retry-After": "60"})
        again = resumed(saved(call), deadline=THEN + 5)
        assert waits(again, THEN) == WaitUntil(at=THEN + 5, why=Why.RETRY)
        assert gave_up(again, LimitReached, THEN + 5).limit == "total"

    @pytest.mark.parametrize("state", [AskState.ASKING, AskState.READING])
    @pytest.mark.parametrize("index", [None, 7])
    def test_an_ask_in_flight_has_perhaps_arrived(self, state: AskState, index: int | None) -> None:
        call = route(attrs.evolve(REQUEST, request_idx=index))
        STATES[state](call)
        values = saved(call)
        again = resumed(values)
        assert again.snapshot(now=THEN).why is Why.RESUME
        assert index_sent(sent(again, THEN)) == index
        assert again.counts == Counts(asks=2, possible_double_loads=index is None)
        strict = resumed(values, policy=RetryPolicy(first_ask_repeats=0))
        if index is None:
            error = gave_up(strict, LimitReached, THEN)
            assert (error.limit, error.outcome) == ("first_ask_repeats", Outcome.PERHAPS_STARTED)
        else:
            assert index_sent(sent(strict, THEN)) == index

    def test_a_doubt_is_kept_over_several_resumptions(self) -> None:
        call = route()
        sent(call)
        once = resumed(saved(call))
        twice = resumed(saved(once, now=THEN))
        assert twice.counts.possible_double_loads == 1
        sent(twice, THEN)
        assert gave_up(resumed(saved(twice, now=THEN)), LimitReached).limit == "first_ask_repeats"

    def test_an_answered_call_asks_again_unless_its_grant_was_saved(self) -> None:
        call = route()
        answer(call, SIGNED)
        body = json.loads(sent(resumed(saved(call)), THEN).request.body)
        assert body == {"endpoint": REQUEST.endpoint, "cost": 100.0, "request_idx": INDEX}
        again = resumed(saved(call, with_grant=True), verifier=Verifier(ENGINE_KEY))
        assert again.result().grant == call.result().grant
        assert again.result().verdict.verified
        assert again.counts == call.counts
        again.worker_failed("gone", now=THEN)
        assert index_sent(sent(again, waits(again, THEN).at)) == INDEX

    def test_the_limits_are_given_anew(self) -> None:
        again = resumed(saved(route()), limits=Limits(max_body=10))
        sent(again, THEN)
        again.receive(message(SIGNED), now=THEN)
        assert gave_up(again, UnexpectedAnswer).limit == "max_body"

    def test_a_saved_grant_is_checked_like_any_other(self) -> None:
        call = route()
        answer(call, FORGED)
        values = saved(call, with_grant=True)
        strict = resumed(values, verifier=Verifier(ENGINE_KEY, mode=REQUIRE))
        assert gave_up(strict, SignatureRefused).status is None
        assert waits(resumed(values | {"grant": "<html>"}), THEN).why is Why.RETRY

    def test_without_a_grant_none_is_saved(self) -> None:
        assert saved(route(), with_grant=True)["grant"] is None

    def test_what_is_given_anew_is_used(self) -> None:
        engine = Origin(scheme="http", host="localhost", port=8080)
        again = resumed(
            saved(route()),
            engine=engine,
            key_in_body=True,
            policy=RetryPolicy(max_polls=0, ask_limit=2.0),
            limits=Limits(max_body=1000),
            tracker=ReqnumTracker(),
        )
        send = sent(again, THEN)
        assert (send.request.origin, send.deadline) == (engine, THEN + 2)
        assert json.loads(send.request.body)["api_key"] == KEY
        again.receive(message(SIGNED), now=THEN)
        assert again.result().reqnum is not None

    @pytest.mark.parametrize("state", [AskState.FAILED, AskState.CANCELLED])
    def test_what_is_over_without_a_grant_is_not_gone_on_with(self, state: AskState) -> None:
        call = route()
        STATES[state](call)
        assert call.over
        with pytest.raises(InvalidValue, match="was over when it was saved"):
            resumed(saved(call))

    @pytest.mark.parametrize(
        "values",
        [
            None,
            5,
            "saved",
            [],
            {},
            {"vastroute": "call", "version": 1},
            saved(route()) | {"vastroute": "session"},
            saved(route()) | {"version": 2},
            saved(route()) | {"phase": "dreaming"},
            saved(route()) | {"request": {"endpoint": "demo", "speed": 3}},
            saved(route()) | {"request": {"endpoint": ""}},
            saved(route()) | {"request_idx": 0},
            saved(route()) | {"counts": {"asks": -1}},
            saved(route()) | {"counts": {"polls": "many"}},
            saved(route()) | {"counts": {"polls": 1.5}},
            saved(route()) | {"counts": {"seconds_waited": math.nan}},
            saved(route()) | {"counts": {"guesses": 1}},
            saved(route()) | {"due_in": math.nan},
            saved(route()) | {"due_in": -1},
            saved(route()) | {"remaining": math.nan},
            saved(route()) | {"remaining": 10**400},
            saved(route()) | {"request_idx_age": math.inf},
            saved(route()) | {"utc": "noon", "request_idx_age": 5},
            saved(route()) | {"why": "boredom"},
            saved(route()) | {"why": ["poll"]},
            saved(route()) | {"grant": 5},
            saved(route()) | {"grant": "\ud800"},
        ],
    )
    def test_what_is_no_saved_call(self, values: Any) -> None:
        with pytest.raises(InvalidValue):
            resumed(values)

    @given(st.data())
    def test_a_damaged_one_is_refused_or_driven_to_an_end(self, data: st.DataObject) -> None:
        values = saved(data.draw(st.sampled_from([polling(), route()])))
        inner = data.draw(st.sampled_from([values, values["counts"], values["request"]]))
        inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
        try:
            call = resumed(values, deadline=THEN + 4)
        except InvalidValue:
            return
        now = THEN
        while not call.over:
            action = call.next_action(now=now)
            if isinstance(action, Send):
                call.receive(message(NOTHING_YET), now=now)
            elif isinstance(action, WaitUntil):
                assert now < action.at <= THEN + 4
                now = action.at
        assert isinstance(call.snapshot(now=now).counts, Counts)


# --- any engine at all ----------------------------------------------------------------------------------------------

Act = Callable[[RouteCall, float], None]


def replies(response: HttpResponse) -> Act:
    return lambda call, now: call.receive(response, now=now)


def breaks(kind: FailureKind, was_sent: bool | None, reused: bool) -> Act:
    return lambda call, now: call.failed(kind, sent=was_sent, now=now, reused=reused)


INDEXES = st.sampled_from([None, 0, "x", 7, 8])
HEADERS = st.sampled_from([{}, {"Retry-After": "3"}, {"Retry-After": "1000"}])
ACTS = st.one_of(
    INDEXES.map(lambda index: replies(message(NOTHING_YET | {"request_idx": index}))),
    INDEXES.map(lambda index: replies(message(SIGNED | {"request_idx": index}))),
    st.builds(
        lambda index, headers, status: replies(message({"request_idx": index}, headers=headers, status=status)),
        INDEXES,
        HEADERS,
        st.sampled_from([408, 429, 500, 503]),
    ),
    st.just(replies(message(HTML))),
    st.builds(breaks, st.sampled_from(FailureKind), st.sampled_from([True, False, None]), st.booleans()),
)
STEPS = st.lists(st.tuples(st.sampled_from([0.0, 0.125, 1.0, 11.0]), ACTS), min_size=1, max_size=6)
POLICIES = st.builds(
    RetryPolicy,
    total=st.sampled_from([2.0, 30.0]),
    ask_limit=st.sampled_from([1.0, 10.0]),
    max_polls=st.sampled_from([0, 3, 1000]),
    max_retries=st.sampled_from([0, 3, 1000]),
    max_reroutes=st.sampled_from([0, 2, 1000]),
    first_ask_repeats=st.integers(0, 3),
    retry_after_cap=st.sampled_from([2.0, 60.0]),
)


@given(POLICIES, STEPS, st.sampled_from([0.0, 0.5, 0.9990234375]))
@example(RetryPolicy(total=30.0), [(0.0, breaks(FailureKind.EOF, True, True))], 0.0)
def test_whatever_an_engine_does_the_policy_holds(
    policy: RetryPolicy, steps: list[tuple[float, Act]], draw: float
) -> None:
    now, deadline = NOW, NOW + policy.total
    call = RouteCall(REQUEST, key=KEY, rng=lambda: draw, deadline=deadline, policy=policy)
    script, asks = cycle(steps), 0
    while True:
        held = call.request_idx
        action = call.next_action(now=now)
        assert call.next_action(now=now) is action
        if isinstance(action, Send):
            asks += 1
            assert action.attempt == asks
            assert action.deadline <= min(deadline, now + policy.ask_limit)
            assert index_sent(action) == held
            delay, act = next(script)
            now = min(now + delay, action.deadline)
            if now < action.deadline:
                act(call, now)
            else:
                call.failed(FailureKind.TIMEOUT, sent=True, now=now)
        elif isinstance(action, WaitUntil):
            pause = policy.poll_pause if action.why is Why.POLL else policy.retry_pause
            assert now + pause.floor <= action.at < deadline
            assert action.at <= now + max(pause.cap, 0 if action.why is Why.POLL else policy.retry_after_cap)
            now = action.at
        elif isinstance(action, Done) and next(script)[0]:
            call.worker_failed("gone", now=now)
        else:
            break
        assert held is None or call.request_idx is not None
    worst, counts = policy.worst_case(), call.counts
    assert now - NOW <= worst.seconds
    assert asks == counts.asks <= worst.asks
    assert counts.polls <= policy.max_polls
    assert counts.retries <= policy.max_retries
    assert counts.workers_lost <= policy.max_reroutes
    assert counts.possible_double_loads <= policy.first_ask_repeats + policy.max_retries
    assert asks <= 1 + counts.polls + counts.retries + counts.workers_lost + counts.repeats
    assert sum(each.kind is EntryKind.ASKED for each in call.record) == asks


# --- secrets --------------------------------------------------------------------------------------------------------


@given(st.lists(ACTS, max_size=4), st.sampled_from([f"no {KEY}", f'{{"api_key": "{KEY}"}}', json.dumps(SIGNED)]))
def test_no_text_ever_shows_a_secret(acts: list[Act], last: str) -> None:
    call = route(first_ask_repeats=5)
    now = NOW
    shown: list[object] = []
    for act in [*acts, *(replies(message(last.encode(), status=status)) for status in (503, 400))]:
        action = call.next_action(now=now)
        if isinstance(action, WaitUntil):
            now = action.at
        if isinstance(call.next_action(now=now), Send):
            shown.append(call.next_action(now=now))
            act(call, now)
        if isinstance(call.next_action(now=now), Done):
            shown.append(call.result())
            call.worker_failed("gone", now=now)
        shown += [action, call.next_action(now=now), call.snapshot(now=now), call, [e.as_dict() for e in call.record]]
    if call.over:
        with pytest.raises(CallFailed) as raised:
            call.result()
        shown += [str(raised.value), vars(raised.value), raised.value.__cause__]
    texts = "\n".join(f"{each!r} {each}" for each in shown)
    assert KEY not in texts
    assert SIGNATURE not in texts


@pytest.mark.parametrize(
    ("response", "doubts"),
    [
        ({"status": 500}, 1),
        ({"status": 504}, 1),
        ({"fields": b"<html>"}, 1),
        ({"fields": {"request_idx": 9, "error": "x"}, "status": 500}, 0),
        ({"status": 503}, 0),
        ({"status": 429}, 0),
        ({"status": 425}, 0),
    ],
    ids=str,
)
def test_a_first_ask_that_nobody_knows_the_fate_of_is_counted(response: dict[str, Any], doubts: int) -> None:
    """The engine may have taken it: whoever answered in its place did not say."""
    call = route()
    sent(call)
    answer(call, **response)
    assert waits(call).why is Why.RETRY
    assert call.counts.possible_double_loads == doubts


def test_what_is_final_is_not_asked_again_and_not_counted() -> None:
    call = route()
    sent(call)
    answer(call, status=404)
    assert gave_up(call, UnexpectedAnswer).counts is not None
    assert call.counts.possible_double_loads == 0
