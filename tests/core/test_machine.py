"""The loop of every ask: what may be reported in which state, one deadline, pauses, bounds, and how it ends.

A `Lookup` stands for the machine here: all it adds is what is asked and how an answer is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    CONSOLE,
    Advice,
    AskState,
    Broken,
    CallFailed,
    Cancelled,
    ConnectionFailed,
    Counts,
    Done,
    End,
    EntryKind,
    Event,
    FailureKind,
    GiveUp,
    Guard,
    Headers,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    LimitReached,
    Limits,
    LocalProtocolError,
    Lookup,
    Origin,
    Outcome,
    Pause,
    Phase,
    Receive,
    Refused,
    ResponseHead,
    RetryPolicy,
    Secret,
    Send,
    UnexpectedAnswer,
    WaitUntil,
    Why,
)
from vastroute.exchange import joined

E = TypeVar("E", bound=CallFailed)
Call = Lookup[bytes]

NOW = 1000.0
DEADLINE = NOW + 100
KEY = Secret("canary-key-93ab")
QUESTION = HttpRequest(method="GET", origin=CONSOLE, target="/question", headers=Headers())
HEAD = ResponseHead(status=200)
OK = HttpResponse(status=200, body=b"yes")
NO = HttpResponse(status=400)
BUSY = HttpResponse(status=503)
LOST = Broken(kind=FailureKind.EOF, detail="closed")


def read(response: HttpResponse) -> bytes:
    """The body of a 200; a 5xx may pass, any other status is final."""
    if response.status == 200:
        return response.body
    after = response.headers.get("retry-after")
    raise Refused(
        "no",
        phase=Phase.LOOKUP,
        outcome=Outcome.ANSWERED,
        advice=Advice.ASK_AGAIN if response.status >= 500 else Advice.CHECK_INPUT,
        status=response.status,
        retry_after=None if after is None else float(after),
    )


def lookup(*, deadline: float = DEADLINE, draw: float = 0.5, **others: Any) -> Call:
    names = {"limits", "guard", "phase"}
    policy = RetryPolicy(**{name: value for name, value in others.items() if name not in names})
    rest = {name: value for name, value in others.items() if name in names}
    return Lookup(QUESTION, read, rng=lambda: draw, deadline=deadline, key=KEY, policy=policy, **rest)


def sent(call: Call, now: float = NOW) -> Send:
    action = call.next_action(now=now)
    assert isinstance(action, Send)
    return action


def waits(call: Call, now: float = NOW) -> WaitUntil:
    action = call.next_action(now=now)
    assert isinstance(action, WaitUntil)
    return action


def gave_up(call: Call, kind: type[E], now: float = NOW) -> E:
    action = call.next_action(now=now)
    assert isinstance(action, GiveUp)
    assert type(action.error) is kind
    with pytest.raises(kind) as raised:
        call.result()
    assert raised.value is action.error
    assert call.over
    return action.error


def ask_again(call: Call) -> Send:
    """Wait as long as it wants to, from `NOW`, and ask."""
    return sent(call, waits(call).at)


# --- every state, every input ------------------------------------------------------------------------------------


def asking(call: Call) -> None:
    sent(call)


def reading(call: Call) -> None:
    sent(call)
    call.head(HEAD, now=NOW)


def answered(call: Call) -> None:
    sent(call)
    call.receive(OK, now=NOW)


def refused(call: Call) -> None:
    sent(call)
    call.receive(NO, now=NOW)


STATES: dict[AskState, Callable[[Call], None]] = {
    AskState.WAITING: lambda call: None,
    AskState.ASKING: asking,
    AskState.READING: reading,
    AskState.ANSWERED: answered,
    AskState.FAILED: refused,
    AskState.CANCELLED: lambda call: call.cancelled(now=NOW),
}
INPUTS: dict[str, Callable[[Call], Any]] = {
    "head": lambda call: call.head(HEAD, now=NOW),
    "chunk": lambda call: call.chunk(b"y", now=NOW),
    "end": lambda call: call.end(now=NOW),
    "receive": lambda call: call.receive(OK, now=NOW),
    "failed": lambda call: call.failed(FailureKind.RESET, sent=True, now=NOW),
    "cancelled": lambda call: call.cancelled(now=NOW),
    "feed head": lambda call: call.feed([HEAD], now=NOW),
    "feed piece": lambda call: call.feed([b"y"], now=NOW),
    "feed end": lambda call: call.feed([End()], now=NOW),
    "feed breach": lambda call: call.feed([LOST], now=NOW),
}
FITS: dict[AskState, set[str]] = {
    AskState.WAITING: {"cancelled"},
    AskState.ASKING: {"head", "receive", "failed", "cancelled", "feed head", "feed breach"},
    AskState.READING: {"chunk", "end", "failed", "cancelled", "feed piece", "feed end", "feed breach"},
    AskState.ANSWERED: {"cancelled"},
    AskState.FAILED: set(),
    AskState.CANCELLED: set(),
}


def seen(call: Call) -> tuple[object, ...]:
    return call.phase, call.counts, call.record, call.over, call.reading, call.deadline


class TestReports:
    @pytest.mark.parametrize(("state", "name"), list(product(STATES, INPUTS)))
    def test_what_does_not_fit_is_refused_and_changes_nothing(self, state: AskState, name: str) -> None:
        call, twin = lookup(), lookup()
        STATES[state](call)
        STATES[state](twin)
        before = seen(call)
        assert call.phase is state
        if name in FITS[state]:
            INPUTS[name](call)
            assert seen(call) != before or name in {"chunk", "feed piece"}
            return
        with pytest.raises(LocalProtocolError, match=f"in the state '{state.value}' it cannot take"):
            INPUTS[name](call)
        assert seen(call) == before == seen(twin)
        mine, other = call.next_action(now=NOW), twin.next_action(now=NOW)
        assert mine == other or (isinstance(mine, GiveUp) and isinstance(other, GiveUp))

    @pytest.mark.parametrize("state", STATES)
    def test_what_is_to_be_read_and_given_out(self, state: AskState) -> None:
        call = lookup()
        STATES[state](call)
        action = call.next_action(now=NOW)
        assert call.read_limit(now=NOW) == (action.deadline - NOW if isinstance(action, Receive) else None)
        assert call.next_event(now=NOW) is None, "only a Call streams"

    def test_a_read_that_comes_too_late_is_a_timeout(self) -> None:
        call = lookup()
        STATES[AskState.READING](call)
        action = call.next_action(now=NOW)
        assert isinstance(action, Receive)
        assert call.read_limit(now=action.deadline - 0.5) == 0.5
        with pytest.raises(TimeoutError, match="did not come in time"):
            call.read_limit(now=action.deadline)
        assert call.read_limit(now=DEADLINE) is None, "the call itself is over then"

    @pytest.mark.parametrize("state", STATES)
    def test_there_is_a_result_only_when_it_is_over(self, state: AskState) -> None:
        call = lookup()
        STATES[state](call)
        assert call.over is (state in {AskState.ANSWERED, AskState.FAILED, AskState.CANCELLED})
        assert call.reading is (state is AskState.READING)
        if not call.over:
            with pytest.raises(LocalProtocolError, match=f"not over: it is {state.value}"):
                call.result()
        elif state is AskState.ANSWERED:
            assert call.next_action(now=NOW) == Done(result=b"yes")
            assert call.result() == b"yes"
        else:
            gave_up(call, Refused if state is AskState.FAILED else Cancelled)

    @pytest.mark.parametrize("state", [AskState.ANSWERED, AskState.FAILED, AskState.CANCELLED])
    def test_the_end_stays_whatever_the_time(self, state: AskState) -> None:
        call = lookup()
        STATES[state](call)
        ends = [call.next_action(now=now) for now in (NOW, DEADLINE, math.inf, -math.inf)]
        assert all(each is ends[0] for each in ends)

    @pytest.mark.parametrize("state", STATES)
    def test_asked_twice_it_answers_the_same(self, state: AskState) -> None:
        for now in (NOW, NOW + 5, DEADLINE):
            call = lookup()
            STATES[state](call)
            first = call.next_action(now=now)
            assert call.next_action(now=now) is first

    @pytest.mark.parametrize(
        ("state", "sent", "outcome"),
        [
            (AskState.WAITING, True, Outcome.NOT_SENT),
            (AskState.ASKING, True, Outcome.PERHAPS_STARTED),
            (AskState.ASKING, False, Outcome.NOT_SENT),
            (AskState.READING, True, Outcome.PERHAPS_STARTED),
            (AskState.READING, False, Outcome.PERHAPS_STARTED),
            (AskState.ANSWERED, False, Outcome.ANSWERED),
        ],
    )
    def test_cancelled(self, state: AskState, sent: bool, outcome: Outcome) -> None:
        call = lookup()
        STATES[state](call)
        call.cancelled(now=NOW + 1, sent=sent)
        error = gave_up(call, Cancelled)
        assert (error.outcome, error.advice, error.phase) == (outcome, Advice.NOTHING, Phase.LOOKUP)
        assert call.record[-1].kind is EntryKind.CANCELLED
        assert call.record[-1].at == NOW + 1
        assert (error.counts, error.record) == (call.counts, call.record)


# --- time ---------------------------------------------------------------------------------------------------------


class TestTime:
    @pytest.mark.parametrize("deadline", [math.nan, -math.inf])
    def test_a_deadline_is_on_the_clock(self, deadline: float) -> None:
        with pytest.raises(InvalidValue, match="deadline must be monotonic seconds"):
            lookup(deadline=deadline)

    @pytest.mark.parametrize(("deadline", "by"), [(DEADLINE, NOW + 7), (NOW + 3, NOW + 3), (math.inf, NOW + 7)])
    def test_the_first_ask_is_due_at_once_and_has_its_limit(self, deadline: float, by: float) -> None:
        call = lookup(deadline=deadline, ask_limit=7)
        assert sent(call) == Send(request=QUESTION, connect_by=by, deadline=by, attempt=1, phase=Phase.LOOKUP)
        call.head(HEAD, now=NOW + 1)
        assert call.next_action(now=NOW + 1) == Receive(deadline=by, attempt=1, phase=Phase.LOOKUP)
        assert call.deadline == deadline

    def test_a_wait_becomes_an_ask_by_time_alone(self) -> None:
        call = lookup()
        sent(call)
        call.receive(BUSY, now=NOW)
        at = waits(call).at
        assert waits(call, math.nextafter(at, 0)) == WaitUntil(at=at, why=Why.RETRY)
        assert sent(call, at).attempt == 2

    @pytest.mark.parametrize(
        ("state", "outcome"),
        [
            (AskState.WAITING, Outcome.NOT_SENT),
            (AskState.ASKING, Outcome.PERHAPS_STARTED),
            (AskState.READING, Outcome.PERHAPS_STARTED),
        ],
    )
    def test_the_deadline_ends_whatever_is_unfinished(self, state: AskState, outcome: Outcome) -> None:
        call = lookup()
        STATES[state](call)
        if state is not AskState.WAITING:
            assert not isinstance(call.next_action(now=math.nextafter(DEADLINE, 0)), GiveUp)
        error = gave_up(call, LimitReached, DEADLINE)
        assert (error.limit, error.outcome, error.advice) == ("total", outcome, Advice.RAISE_LIMIT)
        assert str(error) == "lookup: the deadline has come"
        assert (call.record[-1].kind, call.record[-1].detail) == (EntryKind.GAVE_UP, error.message)

    @pytest.mark.parametrize("state", [AskState.ASKING, AskState.READING])
    def test_an_answer_that_comes_late_still_counts(self, state: AskState) -> None:
        call = lookup()
        STATES[state](call)
        if state is AskState.ASKING:
            call.receive(OK, now=DEADLINE + 5)
        else:
            call.chunk(b"yes", now=DEADLINE + 4)
            call.end(now=DEADLINE + 5)
        assert call.next_action(now=DEADLINE + 9) == Done(result=b"yes")

    def test_a_failure_at_the_deadline_is_the_last_one(self) -> None:
        call = lookup()
        sent(call)
        call.failed(FailureKind.TIMEOUT, sent=True, now=DEADLINE)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.kind, error.outcome) == ("total", FailureKind.TIMEOUT, Outcome.PERHAPS_STARTED)
        assert isinstance(error.__cause__, ConnectionFailed)
        assert str(error) == "lookup: the deadline has come; the last failure: no answer in time"

    def test_nor_is_a_stale_connection_replaced_then(self) -> None:
        call = lookup()
        sent(call)
        call.failed(FailureKind.EOF, sent=True, now=DEADLINE, reused=True)
        assert isinstance(gave_up(call, LimitReached).__cause__, ConnectionFailed)
        assert call.counts == Counts(asks=1)

    @pytest.mark.parametrize(("left", "waits_for_it"), [(0.375, False), (0.376, True)])
    def test_a_pause_that_would_end_at_the_deadline_is_not_begun(self, left: float, waits_for_it: bool) -> None:
        call = lookup()
        sent(call)
        call.receive(HttpResponse(status=503, headers={"retry-after": "0"}), now=DEADLINE - left)
        if waits_for_it:
            assert waits(call, DEADLINE - left).at < DEADLINE
            return
        error = gave_up(call, LimitReached)
        assert (error.limit, error.status, error.retry_after) == ("total", 503, 0.0)
        assert error.counts is not None
        assert error.counts.seconds_waited == 0


class TestLimitTo:
    def test_gives_up_sooner_and_says_by_which_name(self) -> None:
        call = lookup()
        call.limit_to(NOW + 3, "waiting")
        assert sent(call).deadline == NOW + 3
        assert call.deadline == DEADLINE
        error = gave_up(call, LimitReached, NOW + 3)
        assert (error.limit, error.message) == ("waiting", "the deadline has come")

    @pytest.mark.parametrize("at", [DEADLINE, DEADLINE + 1, math.inf, math.nan])
    def test_never_later_than_the_deadline(self, at: float) -> None:
        call = lookup()
        call.limit_to(NOW + 3, "waiting")
        call.limit_to(at, "later")
        assert gave_up(call, LimitReached, DEADLINE).limit == "total"

    def test_a_wait_under_way_ends_with_it(self) -> None:
        call = lookup()
        sent(call)
        call.receive(HttpResponse(status=503, headers={"retry-after": "20"}), now=NOW)
        assert waits(call).at == NOW + 20
        call.limit_to(NOW + 3, "waiting")
        assert waits(call) == WaitUntil(at=NOW + 3, why=Why.RETRY)
        assert gave_up(call, LimitReached, NOW + 3).limit == "waiting"


# --- failures -----------------------------------------------------------------------------------------------------

PASSES = Advice.ASK_AGAIN
ADVICE = {
    FailureKind.NAME: PASSES,
    FailureKind.REFUSED: PASSES,
    FailureKind.UNREACHABLE: PASSES,
    FailureKind.TLS: Advice.CHECK_ANSWER,
    FailureKind.PROXY: Advice.CHECK_INPUT,
    FailureKind.GUARD: Advice.ALLOW,
    FailureKind.TIMEOUT: PASSES,
    FailureKind.RESET: PASSES,
    FailureKind.EOF: PASSES,
    FailureKind.GARBAGE: PASSES,
    FailureKind.TOO_LARGE: Advice.CHECK_ANSWER,
    FailureKind.OTHER: PASSES,
}


class TestFailures:
    @pytest.mark.parametrize("was_sent", [False, True, None])
    @pytest.mark.parametrize("kind", FailureKind)
    def test_only_what_may_pass_is_asked_again(self, kind: FailureKind, was_sent: bool | None) -> None:
        call = lookup()
        sent(call)
        call.failed(kind, sent=was_sent, now=NOW)
        if ADVICE[kind] is PASSES:
            assert ask_again(call).attempt == 2
            assert call.counts == Counts(asks=2, retries=1, seconds_waited=call.counts.seconds_waited)
            return
        error = gave_up(call, ConnectionFailed)
        assert (error.kind, error.advice, error.message) == (kind, ADVICE[kind], kind.value)
        assert error.outcome is (Outcome.NOT_SENT if was_sent is False else Outcome.PERHAPS_STARTED)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ("it hung\nup", "TLS failed: it hung up"),
            (OSError("broken pipe"), "TLS failed: OSError: broken pipe"),
            (OSError(), "TLS failed: OSError"),
            (OSError(f"no {KEY.reveal()} here"), "TLS failed: OSError: no [key] here"),
        ],
    )
    def test_says_what_a_library_said_and_keeps_the_exception(self, given: str | Exception, words: str) -> None:
        call = lookup()
        sent(call)
        call.failed(given, kind=FailureKind.TLS, sent=False, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert error.message == words
        assert error.__cause__ is (given if isinstance(given, Exception) else None)

    @pytest.mark.parametrize("state", [AskState.ASKING, AskState.READING])
    def test_a_kept_connection_that_was_stale_costs_no_pause(self, state: AskState) -> None:
        call = lookup()
        STATES[state](call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        if state is AskState.READING:  # a head had come: it was not stale
            assert waits(call).at > NOW
            return
        assert sent(call) == Send(
            request=QUESTION, connect_by=NOW + 10, deadline=NOW + 10, attempt=2, phase=Phase.LOOKUP, fresh=True
        )
        assert call.counts == Counts(asks=2, repeats=1)
        assert call.record[1].detail == "connection closed before the end of the answer; the kept connection was stale"

    @pytest.mark.parametrize("kind", FailureKind)
    def test_only_a_close_before_the_first_byte_makes_a_connection_stale(self, kind: FailureKind) -> None:
        call = lookup()
        sent(call)
        call.failed(kind, sent=True, now=NOW, reused=True)
        action = call.next_action(now=NOW)
        assert isinstance(action, Send) is (kind in {FailureKind.EOF, FailureKind.RESET})

    def test_a_fresh_connection_is_never_stale(self) -> None:
        call = lookup()
        sent(call)
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        assert sent(call).fresh
        call.failed(FailureKind.EOF, sent=True, now=NOW, reused=True)
        assert waits(call).why is Why.RETRY
        assert not ask_again(call).fresh
        assert call.counts == Counts(asks=3, repeats=1, retries=1, seconds_waited=0.375)

    def test_an_exception_that_says_nothing_leaves_it_to_its_cause(self) -> None:
        outer, middle, inner = TimeoutError(), ValueError(), OSError("no route")
        outer.__cause__, middle.__cause__ = middle, inner
        call = lookup()
        sent(call)
        call.failed(outer, kind=FailureKind.TLS, sent=False, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert (error.message, error.__cause__) == ("TLS failed: OSError: no route", outer)

    def test_causes_that_go_in_a_circle_are_left(self) -> None:
        one, two = TimeoutError(), OSError()
        one.__cause__, two.__cause__ = two, one
        call = lookup()
        sent(call)
        call.failed(one, kind=FailureKind.TLS, sent=False, now=NOW)
        assert gave_up(call, ConnectionFailed).message in {"TLS failed: TimeoutError", "TLS failed: OSError"}

    @pytest.mark.parametrize("kind", [None, FailureKind.PROXY])
    def test_an_error_of_ours_says_itself_how_it_broke(self, kind: FailureKind | None) -> None:
        call = lookup()
        sent(call)
        refusal = ConnectionFailed(
            "no way", phase=Phase.WORKER, outcome=Outcome.NOT_SENT, advice=Advice.ALLOW, kind=kind, limit="switch"
        )
        call.failed(refusal, kind=FailureKind.TLS, sent=False, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert (error.kind, error.limit, error.phase) == (kind or FailureKind.TLS, "switch", Phase.LOOKUP)
        assert error.__cause__ is refusal

    @given(st.sampled_from(FailureKind), st.booleans(), st.floats(0, 1))
    def test_every_loop_has_a_pause(self, kind: FailureKind, reused: bool, draw: float) -> None:
        call = lookup(draw=draw, max_retries=5)
        now = NOW
        while not call.over:
            action = call.next_action(now=now)
            if isinstance(action, Send):
                call.failed(kind, sent=None, now=now, reused=reused)
            elif isinstance(action, WaitUntil):
                assert action.at >= now + 0.25
                now = action.at
            assert call.counts.asks <= RetryPolicy(max_retries=5).worst_case().asks
        assert call.counts.retries <= 5


# --- retries ------------------------------------------------------------------------------------------------------


class TestRetries:
    @pytest.mark.parametrize("draw", [0.0, 0.5, 0.999])
    def test_pauses_grow_up_to_the_cap(self, draw: float) -> None:
        pause = Pause(first=1.0, factor=3.0, cap=8.0, floor=0.75)
        call = lookup(draw=draw, retry_pause=pause, max_retries=4)
        now, pauses = NOW, []
        for _ in range(4):
            sent(call, now)
            call.receive(BUSY, now=now)
            pauses.append(waits(call, now).at - now)
            now = waits(call, now).at
        spread = 0.5 + 0.5 * draw
        assert pauses == pytest.approx([max(0.75, spread), 3 * spread, 8 * spread, 8 * spread])
        assert call.counts.seconds_waited == pytest.approx(sum(pauses))

    @pytest.mark.parametrize("most", [1, 2, 5])
    def test_the_limit_is_named_and_the_last_failure_kept(self, most: int) -> None:
        call = lookup(max_retries=most)
        now = NOW
        for _ in range(most):
            sent(call, now)
            call.receive(BUSY, now=now)
            now = waits(call, now).at
        sent(call, now)
        call.receive(HttpResponse(status=502), now=now)
        error = gave_up(call, LimitReached)
        assert (error.limit, error.status, error.advice) == ("max_retries", 502, Advice.RAISE_LIMIT)
        assert error.message == f"the limit max_retries={most} is reached; the last failure: no"
        assert isinstance(error.__cause__, Refused)
        assert error.counts == call.counts
        assert (call.counts.asks, call.counts.retries) == (most + 1, most)

    def test_without_retries_a_failure_is_given_as_it_is(self) -> None:
        call = lookup(max_retries=0)
        sent(call)
        call.receive(BUSY, now=NOW)
        assert gave_up(call, Refused).status == 503

    @pytest.mark.parametrize(
        ("asked", "pause"), [("0", 0.375), ("0.1", 0.375), ("2", 2.0), ("30", 30.0), ("31", 30.0), ("1e9", 30.0)]
    )
    def test_retry_after_is_honoured_up_to_the_cap(self, asked: str, pause: float) -> None:
        call = lookup(retry_after_cap=30)
        sent(call)
        call.receive(HttpResponse(status=503, headers={"Retry-After": asked}), now=NOW)
        assert waits(call).at - NOW == pytest.approx(pause)

    def test_what_happened_is_noted(self) -> None:
        call = lookup()
        sent(call)
        call.receive(BUSY, now=NOW + 1)
        sent(call, NOW + 2)
        call.receive(NO, now=NOW + 3)
        kept = [(each.kind, each.at, each.attempt, each.status, each.detail, each.until) for each in call.record]
        assert kept == [
            (EntryKind.ASKED, NOW, 1, None, "", None),
            (EntryKind.TROUBLE, NOW + 1, 1, 503, "no", None),
            (EntryKind.WAITING, NOW + 1, 1, None, "retry", NOW + 1.375),
            (EntryKind.ASKED, NOW + 2, 2, None, "", None),
            (EntryKind.GAVE_UP, NOW + 3, 2, 400, "no", None),
        ]
        assert {each.phase for each in call.record} == {Phase.LOOKUP}
        assert {each.request_idx for each in call.record} == {None}


# --- bodies -------------------------------------------------------------------------------------------------------


AFTER = {"retry-after": "9"}


def whole(call: Call, status: int, body: bytes) -> None:
    call.receive(HttpResponse(status=status, headers=AFTER, body=body), now=NOW)


def in_pieces(call: Call, status: int, body: bytes) -> None:
    call.head(ResponseHead(status=status, headers=AFTER), now=NOW)
    while body and call.reading:
        call.chunk(body[:3], now=NOW)
        body = body[3:]
    if call.reading:
        call.end(now=NOW)


def fed(call: Call, status: int, body: bytes) -> None:
    call.feed(
        [ResponseHead(status=status, headers=AFTER), *(body[n : n + 3] for n in range(0, len(body), 3)), End()], now=NOW
    )


@pytest.mark.parametrize("answer", [whole, in_pieces, fed])
class TestBodies:
    @pytest.mark.parametrize("body", [b"", b"yes", b"0123456789"])
    def test_are_read_whole(self, answer: Callable[[Call, int, bytes], None], body: bytes) -> None:
        call = lookup(limits=Limits(max_body=10))
        sent(call)
        answer(call, 200, body)
        assert call.result() == body

    def test_too_large_is_final_and_names_the_limit(self, answer: Callable[[Call, int, bytes], None]) -> None:
        call = lookup(limits=Limits(max_body=10))
        sent(call)
        answer(call, 200, b"signature: abc,123456")
        error = gave_up(call, UnexpectedAnswer)
        assert (error.kind, error.limit, error.status) == (FailureKind.TOO_LARGE, "max_body", 200)
        assert (error.outcome, error.advice) == (Outcome.ANSWERED, Advice.CHECK_ANSWER)
        assert error.message == "the answer is larger than the 10 bytes allowed"
        assert error.excerpt.startswith("signature: [masked]")
        assert call.counts.asks == 1

    @pytest.mark.parametrize(("status", "kind"), [(400, Refused), (300, Refused), (199, Refused), (503, None)])
    @pytest.mark.parametrize("size", [1, 11])
    def test_a_refusal_is_judged_by_its_status_however_long(
        self, answer: Callable[[Call, int, bytes], None], status: int, kind: type[Refused] | None, size: int
    ) -> None:
        call = lookup(limits=Limits(max_body=10))
        sent(call)
        answer(call, status, b"<" * size)
        if kind is None:
            assert waits(call) == WaitUntil(at=NOW + 9, why=Why.RETRY)
        else:
            assert gave_up(call, kind).status == status


def bytes_of(response: HttpResponse) -> bytes:
    return response.body


def test_a_body_in_many_pieces_is_not_copied_for_each() -> None:
    body = joined(b"", b"a")
    assert body == b"a"
    body = joined(body, b"b")
    assert joined(body, b"c") is body
    assert body == b"abc"


def test_a_refusals_body_is_kept_up_to_the_limit() -> None:
    call = Lookup(QUESTION, bytes_of, rng=lambda: 0.5, deadline=DEADLINE, limits=Limits(max_body=4))
    sent(call)
    call.receive(HttpResponse(status=400, body=b"123456"), now=NOW)
    assert call.result() == b"1234"


class TestFeed:
    @pytest.mark.parametrize(
        ("events", "more", "state"),
        [
            ([], True, AskState.ASKING),
            ([HEAD], True, AskState.READING),
            ([HEAD, b"y"], True, AskState.READING),
            ([HEAD, b"yes", End()], False, AskState.ANSWERED),
            ([HEAD, b"y", LOST], False, AskState.WAITING),
            ([LOST], False, AskState.WAITING),
            ([Broken(kind=FailureKind.TOO_LARGE, detail="head")], False, AskState.FAILED),
        ],
    )
    def test_says_whether_more_is_wanted(self, events: Sequence[Event], more: bool, state: AskState) -> None:
        call = lookup()
        sent(call)
        until = call.feed(events, now=NOW)
        assert (until is not None) is more
        if until is not None:
            action = call.next_action(now=NOW)
            assert isinstance(action, Send | Receive)
            assert until == action.deadline
        assert call.phase is state

    @pytest.mark.parametrize("first", range(5))
    @pytest.mark.parametrize("second", range(5))
    def test_an_answer_is_the_same_however_its_events_are_given(self, first: int, second: int) -> None:
        events: list[Event] = [HEAD, b"y", b"es", End()]
        call = lookup()
        sent(call)
        for part in (events[:first], events[first:][:second], events[first:][second:]):
            if part:
                call.feed(part, now=NOW)
        assert call.result() == b"yes"

    def test_a_kept_connection_may_have_been_stale(self) -> None:
        call = lookup()
        sent(call)
        assert not call.feed([LOST], now=NOW, reused=True)
        assert sent(call).fresh
        call = lookup()
        sent(call)
        assert not call.feed([LOST], now=NOW)
        assert waits(call).at > NOW

    def test_a_breach_counts_as_perhaps(self) -> None:
        call = lookup(max_retries=0)
        sent(call)
        call.feed([Broken(kind=FailureKind.GARBAGE, detail="no HTTP")], now=NOW)
        assert gave_up(call, ConnectionFailed).outcome is Outcome.PERHAPS_STARTED


# --- the guard ----------------------------------------------------------------------------------------------------


class TestGuard:
    @pytest.mark.parametrize("phase", [Phase.WORKER, Phase.LOOKUP])
    def test_what_it_refuses_is_never_asked(self, phase: Phase) -> None:
        private = HttpRequest(
            method="GET", origin=Origin(scheme="https", host="10.1.2.3", port=443), target="/", headers=Headers()
        )
        call = Lookup(private, read, rng=lambda: 0.5, deadline=DEADLINE, phase=phase, guard=Guard())
        error = gave_up(call, ConnectionFailed)
        assert (error.limit, error.advice, error.outcome) == ("allow_private_address", Advice.ALLOW, Outcome.NOT_SENT)
        assert (error.phase, error.kind) == (phase, FailureKind.GUARD)
        assert call.counts == Counts()
        assert [each.kind for each in call.record] == [EntryKind.GAVE_UP]

    def test_goes_with_the_request_for_the_address_that_is_dialled(self) -> None:
        guard = Guard(allow_any_port=True)
        assert sent(lookup(guard=guard)).guard is guard
        assert sent(lookup()).guard is None

    def test_its_refusal_at_the_address_names_the_switch_too(self) -> None:
        guard = Guard()
        call = lookup(guard=guard)
        refusal = guard.check_address("127.0.0.1", sent(call).request.origin)
        assert refusal is not None
        call.failed(refusal.as_error(), kind=FailureKind.GUARD, sent=False, now=NOW)
        error = gave_up(call, ConnectionFailed)
        assert (error.limit, error.advice, error.outcome) == ("allow_private_address", Advice.ALLOW, Outcome.NOT_SENT)
        assert refusal.text in error.message
