"""A `Call` over a `RouteCall`, driven at random, beside a plain account of what was seen and said.

Whatever engine, worker, driver and clock do: there is one action, the request keeps its number, no wait passes a
limit, what perhaps ran is not sent again unasked, the end stays, every path has one, and the counts are true.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from vastroute import (
    Answer,
    Call,
    CallFailed,
    Counts,
    Done,
    FailureKind,
    GiveUp,
    HttpResponse,
    InvalidValue,
    LocalProtocolError,
    Phase,
    Receive,
    ResponseHead,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Send,
    WaitUntil,
    Why,
    WorkerRequest,
    WorkPolicy,
)

NOW = 4096.0
KEY = "canary-key-0b5e"
SIGNATURE = "c2lnbmF0dXJlIG9m/a+canary=="
GRANT: dict[str, Any] = {
    "url": "https://worker.example:40123",
    "endpoint": "demo",
    "cost": 100.0,
    "reqnum": 4,
    "signature": SIGNATURE,
}
UNCERTAIN = {408, 499, 500, 502, 504}
"""Statuses after which the work may have run."""
STALE = {FailureKind.EOF, FailureKind.RESET}
SECONDS = st.sampled_from([0.0, 0.125, 1.0, 3.0, 20.0])
INDEXES = st.sampled_from([None, 0, "x", 7, 8])
LIMITS = st.sampled_from([0, 1, 2, 1000, 1000])
SELDOM = st.sampled_from([False, False, False, True])
"""For what ends a call at once: most calls are to come to something."""
CALLS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "safe": st.booleans(),
        "stream": st.booleans(),
        "draw": st.sampled_from([0.0, 0.5]),
        "total": st.sampled_from([16.0, 128.0, 128.0]),
        "waiting": st.sampled_from([8.0, 900.0]),
        "limits": st.tuples(LIMITS, LIMITS, LIMITS, st.integers(0, 2)),
        "granted": st.booleans(),
    }
)
NOT_FITTING: dict[str, Callable[[Call, float], object]] = {
    "head": lambda call, now: call.head(ResponseHead(status=200), now=now),
    "chunk": lambda call, now: call.chunk(b"x", now=now),
    "end": lambda call, now: call.end(now=now),
    "receive": lambda call, now: call.receive(HttpResponse(status=200), now=now),
    "failed": lambda call, now: call.failed("broke", sent=True, now=now),
    "cancelled": lambda call, now: call.cancelled(now=now),
}
FITTING: dict[type, set[str]] = {
    Send: {"head", "receive", "failed", "cancelled"},
    Receive: {"chunk", "end", "failed", "cancelled"},
    WaitUntil: {"cancelled"},
    Done: set(),
    GiveUp: set(),
}


@attrs.define
class Account:
    """What a plain observer has counted."""

    asks: int = 0
    polls: int = 0
    retries: int = 0
    repeats: int = 0
    possible_double_loads: int = 0
    index_missing: int = 0
    index_changes: int = 0
    workers_lost: int = 0
    seconds_waited: float = 0.0
    work_attempts: int = 0
    possible_double_runs: int = 0


def out(machine: Driver, phase: Phase) -> bool:
    """Whether an exchange of this hop is out, with no head of an answer yet."""
    return isinstance(machine.action, Send) and machine.action.phase is phase


def lives(machine: Driver) -> bool:
    """Whether there is a call, and it goes on or has only just ended: little can happen to one that is over."""
    return machine.action is not None and machine.looks_after_end < 3


class Driver(RuleBasedStateMachine):
    """Drives one call after another, plays the engine and the workers, and keeps the account of each call."""

    action: object = None
    looks_after_end = 0

    @initialize(call=CALLS)
    def first_call(self, call: dict[str, Any]) -> None:
        self.begin(**call)

    @precondition(lambda self: self.action is not None and self.ended is not None)
    @rule(call=CALLS)
    def next_call(self, call: dict[str, Any]) -> None:
        self.action = None
        self.begin(**call)

    def begin(
        self,
        safe: bool,
        stream: bool,
        draw: float,
        total: float,
        waiting: float,
        limits: tuple[int, int, int, int],
        granted: bool,
    ) -> None:
        polls, retries, reroutes, repeats = limits
        self.policy = RetryPolicy(
            total=total,
            ask_limit=4.0,
            max_polls=polls,
            max_retries=retries,
            max_reroutes=reroutes,
            first_ask_repeats=repeats,
        )
        self.work_policy = WorkPolicy(waiting=waiting, connecting=2.0, first_byte=4.0, silence=4.0, working=16.0)
        self.work = WorkerRequest(route="/echo", payload={}, stream=stream, safe_to_repeat=safe)
        self.rng = lambda: draw
        self.now, self.deadline = NOW, NOW + total
        route = RouteCall(
            RouteRequest(endpoint="demo"), key=KEY, rng=self.rng, deadline=self.deadline, policy=self.policy
        )
        self.call = Call(route, self.work, policy=self.work_policy)
        self.account = Account()
        self.held: int | None = None
        self.perhaps = 0
        self.reason: str | None = None
        self.wait_until = NOW + waiting
        self.ended: object = None
        self.looks_after_end = 0
        self.look()
        if granted:  # few calls would come as far as a worker by themselves
            self.grant(7)

    # Seeing

    def look(self) -> None:
        """Ask for the next action, as a driver does, and write down what it is."""
        before, action = self.action, self.call.next_action(now=self.now)
        assert self.call.next_action(now=self.now) == action
        if self.ended is not None:
            self.looks_after_end += 1
            assert action is self.ended
        elif isinstance(action, Send):
            if action is not before:
                self.see_send(action)
            assert action.connect_by <= action.deadline <= self.deadline
        elif isinstance(action, WaitUntil):
            assert self.now < action.at <= min(self.deadline, self.wait_until)
            assert action.why in {Why.POLL, Why.RETRY, Why.REROUTE}
        elif isinstance(action, Receive):
            assert action.deadline <= self.deadline
        else:
            self.see_end(action)
        self.action = action

    def see_send(self, send: Send) -> None:
        body, account = json.loads(send.request.body), self.account
        if send.phase is Phase.ROUTE:
            account.asks += 1
            account.polls += self.reason == "poll"
            account.retries += self.reason == "retry"
            account.repeats += self.reason == "repeat"
            assert send.attempt == account.asks
            assert body.get("request_idx") == self.held
            assert send.fresh is (self.reason == "repeat")
            return
        account.work_attempts += 1
        assert send.attempt == account.work_attempts
        assert self.work.safe_to_repeat or not self.perhaps
        assert body["auth_data"].get("request_idx") == self.given
        assert KEY not in f"{send.request.url}{list(send.request.headers)}{body}"

    def see_end(self, action: object) -> None:
        self.ended = action
        assert self.call.over
        if isinstance(action, Done):
            assert isinstance(self.call.result(), Answer)
            assert self.call.result().counts == self.call.counts
            return
        assert isinstance(action, GiveUp)
        error, account = action.error, self.account
        with pytest.raises(CallFailed) as raised:
            self.call.result()
        assert raised.value is error
        assert (error.request_idx, error.counts, error.record) == (self.held, self.call.counts, self.call.record)
        assert KEY not in f"{error!r}{error}"
        assert SIGNATURE not in f"{error!r}{error}{error.excerpt}{error.record}"
        used = {
            "max_polls": account.polls,
            "max_retries": account.retries,
            "max_reroutes": account.workers_lost,
        }
        if error.limit in used:
            assert used[error.limit] == getattr(self.policy, error.limit)
        if error.limit == "first_ask_repeats":
            assert account.possible_double_loads >= self.policy.first_ask_repeats

    # Saying

    def say(self, reason: str | None, report: Callable[[], object], *, perhaps: bool = False) -> None:
        """Make a report, and write down what follows from it. `perhaps`: what was out may have been acted on."""
        worker = getattr(self.action, "phase", None) is Phase.WORKER
        self.reason = None if worker else reason
        report()
        route = self.call.snapshot(now=self.now).route
        assert route is not None
        goes_on = not self.call.over and route.why is not None
        if worker:
            self.perhaps += perhaps
            if goes_on:
                self.account.workers_lost += 1
                self.account.possible_double_runs += perhaps
            self.wait_until = self.now + self.work_policy.waiting
        elif goes_on and perhaps and self.held is None:
            self.account.possible_double_loads += 1
        if goes_on and reason != "repeat":
            floor = self.policy.poll_pause.floor if reason == "poll" else self.policy.retry_pause.floor
            assert route.due_in >= floor
            self.account.seconds_waited += route.due_in
        self.look()

    def deliver(self, reason: str | None, response: HttpResponse, pieces: bool, *, perhaps: bool = False) -> None:
        """Give an answer whole, or its head now and the rest as one more report."""
        if not pieces:
            self.say(reason, lambda: self.call.receive(response, now=self.now), perhaps=perhaps)
            return
        self.call.head(ResponseHead(status=response.status, headers=response.headers), now=self.now)
        self.look()
        if not isinstance(self.action, Receive):  # the deadline
            return

        def rest() -> None:
            self.call.chunk(response.body, now=self.now)
            self.call.end(now=self.now)

        self.say(reason, rest, perhaps=perhaps)

    def hold(self, index: object, *, missing: bool = True) -> None:
        """What an engine's answer says of the request's number."""
        if not isinstance(index, int) or index < 1:
            self.account.index_missing += missing and self.held is not None
        else:
            self.account.index_changes += self.held not in {None, index}
            self.held = index

    # The engine

    @precondition(lambda self: out(self, Phase.ROUTE))
    @rule(index=INDEXES, pieces=st.booleans())
    def engine_has_nothing(self, index: object, pieces: bool) -> None:
        if self.now >= self.deadline and pieces:
            return
        self.hold(index)
        body = json.dumps({"status": "loading: 1", "request_idx": index}).encode()
        self.deliver("poll", HttpResponse(status=200, body=body), pieces)

    @precondition(lambda self: out(self, Phase.ROUTE))
    @rule(index=INDEXES, named=st.booleans(), pieces=st.booleans())
    def engine_grants(self, index: object, named: bool, pieces: bool) -> None:
        if self.now >= self.deadline and pieces:
            return
        self.grant(index, named=named, pieces=pieces)

    def grant(self, index: object, *, named: bool = True, pieces: bool = False) -> None:
        self.hold(index if named else None)
        self.given = index if named and self.held is None else self.held
        body = json.dumps(GRANT | ({"request_idx": index} if named else {})).encode()
        self.deliver(None, HttpResponse(status=200, body=body), pieces)

    @precondition(lambda self: out(self, Phase.ROUTE))
    @rule(status=st.sampled_from([200, 429, 503]), after=st.sampled_from([None, "2", "900"]), index=INDEXES)
    def engine_fails(self, status: int, after: str | None, index: object) -> None:
        body = b"<html>" if status == 200 else json.dumps({"request_idx": index}).encode()
        if status != 200:
            self.hold(index, missing=False)
        headers = {} if after is None else {"Retry-After": after}
        # A status of these says that nothing was begun; after any other the engine may have taken the ask.
        perhaps = status not in {425, 429, 503}
        response = HttpResponse(status=status, headers=headers, body=body)
        self.deliver("retry", response, pieces=False, perhaps=perhaps)

    @precondition(lambda self: out(self, Phase.ROUTE))
    @rule(status=st.sampled_from([302, 400, 401]), really=SELDOM)
    def engine_refuses(self, status: int, really: bool) -> None:
        if not really:
            return
        self.deliver(None, HttpResponse(status=status, body=b"no"), pieces=False)
        assert self.call.over

    # The worker

    @precondition(lambda self: out(self, Phase.WORKER))
    @rule(status=st.sampled_from([200, 302, 401, 408, 422, 429, 500, 503, 504]), pieces=st.booleans())
    def worker_answers(self, status: int, pieces: bool) -> None:
        headers = {"Content-Type": "application/json", "Content-Length": "99"}
        body = b"{}" if status == 200 else f"not {SIGNATURE}".encode()
        perhaps = status in UNCERTAIN
        self.deliver(None, HttpResponse(status=status, headers=headers, body=body), pieces, perhaps=perhaps)

    @precondition(lambda self: out(self, Phase.WORKER) and self.work.stream)
    @rule()
    def worker_begins_to_stream(self) -> None:
        self.call.head(ResponseHead(status=200, headers={"Content-Type": "text/event-stream"}), now=self.now)
        self.look()

    @precondition(lambda self: isinstance(self.action, Receive))
    @rule(data=st.sampled_from([b"data: 1\n\n", b"data: half", b"\n\ndata: [DONE]\n\n"]), last=st.booleans())
    def worker_streams_on(self, data: bytes, last: bool) -> None:
        def report() -> None:
            self.call.chunk(data, now=self.now)
            if last:
                self.call.end(now=self.now)

        self.say(None, report)

    @precondition(lambda self: lives(self) and self.work.stream and not isinstance(self.action, Send | WaitUntil))
    @rule()
    def caller_takes_an_event(self) -> None:
        self.call.next_event(now=self.now)
        self.look()

    # Both

    @precondition(lambda self: isinstance(self.action, Send | Receive))
    @rule(
        kind=st.sampled_from(FailureKind), sent=st.sampled_from([True, False, None]), reused=st.booleans(), late=SECONDS
    )
    def exchange_breaks(self, kind: FailureKind, sent: bool | None, reused: bool, late: float) -> None:
        action = self.action
        assert isinstance(action, Send | Receive)
        self.now += late
        perhaps = sent is not False or (isinstance(action, Receive) and action.phase is Phase.WORKER)
        stale = reused and kind in STALE and isinstance(action, Send) and not action.fresh
        reason = "repeat" if stale and action.phase is Phase.ROUTE else "retry"
        perhaps = perhaps and not (action.phase is Phase.WORKER and kind is FailureKind.TOO_LARGE)
        self.say(reason, lambda: self.call.failed(kind, sent=sent, now=self.now, reused=reused), perhaps=perhaps)

    @precondition(lambda self: isinstance(self.action, Send | Receive))
    @rule()
    def exchange_takes_too_long(self) -> None:
        assert isinstance(self.action, Send | Receive)
        self.now = max(self.now, self.action.deadline)
        self.say("retry", lambda: self.call.failed(FailureKind.TIMEOUT, sent=True, now=self.now), perhaps=True)

    @precondition(lambda self: isinstance(self.action, WaitUntil))
    @rule()
    def pause_is_over(self) -> None:
        assert isinstance(self.action, WaitUntil)
        self.now = self.action.at
        self.look()

    @precondition(lives)
    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.look()

    @precondition(lambda self: self.action is not None and self.ended is None)
    @rule(really=SELDOM)
    def caller_cancels(self, really: bool) -> None:
        if really:
            self.call.cancelled(now=self.now)
            self.look()
            assert self.ended is not None

    @precondition(lives)
    @rule(name=st.sampled_from(sorted(NOT_FITTING)))
    def driver_reports_out_of_turn(self, name: str) -> None:
        if name in FITTING[type(self.action)]:
            return
        self.looks_after_end += self.ended is not None
        before, record = self.call.snapshot(now=self.now), self.call.record
        with pytest.raises(LocalProtocolError):
            NOT_FITTING[name](self.call, self.now)
        assert (self.call.snapshot(now=self.now), self.call.record) == (before, record)

    @precondition(lives)
    @rule(really=SELDOM)
    def process_is_replaced(self, really: bool) -> None:
        if not really:
            return
        text = json.dumps(self.call.snapshot(now=self.now).save(utc=0.0))
        assert KEY not in text
        assert SIGNATURE not in text
        saved = json.loads(text)
        resume = partial(RouteCall.resume, key=KEY, rng=self.rng, now=self.now, utc=0.0, policy=self.policy)
        if self.ended is not None:
            self.looks_after_end += 1
            with pytest.raises(InvalidValue, match="over when it was saved"):
                Call.resume(saved, resume(saved["route"]), self.work, now=self.now)
            return
        route = resume(saved["route"])
        phase, waits = getattr(self.action, "phase", None), isinstance(self.action, WaitUntil)
        self.call = Call.resume(saved, route, self.work, now=self.now, policy=self.work_policy)
        self.wait_until = self.now + self.work_policy.waiting
        if phase is Phase.WORKER:
            self.perhaps += 1
            self.account.possible_double_runs += self.work.safe_to_repeat
            assert self.call.over is not self.work.safe_to_repeat
        elif phase is Phase.ROUTE and self.held is None and not route.over:
            self.account.possible_double_loads += 1
        if not waits:
            self.reason, self.action = None, WaitUntil(at=self.now, why=Why.RESUME)
        self.look()

    # Always

    @invariant()
    def counts_are_true(self) -> None:
        if self.action is None:
            return
        counts = self.call.counts
        assert attrs.asdict(self.account) == {name: getattr(counts, name) for name in attrs.asdict(self.account)}
        assert isinstance(counts, Counts)
        assert min(counts.seconds_routing, counts.seconds_working) >= 0
        assert self.call.request_idx == self.held
        assert counts.polls <= self.policy.max_polls
        assert counts.retries <= self.policy.max_retries
        assert counts.workers_lost <= self.policy.max_reroutes
        assert counts.possible_double_loads <= self.policy.first_ask_repeats + self.policy.max_retries
        assert self.work.safe_to_repeat or counts.possible_double_runs == 0

    def teardown(self) -> None:
        """Every path ends, and in time."""
        if self.action is None:
            return
        end = max(self.now, self.deadline)
        while self.ended is None:
            if isinstance(self.action, WaitUntil):
                self.pause_is_over()
            else:
                self.exchange_takes_too_long()
            self.counts_are_true()
            assert self.now <= end


TestCall = Driver.TestCase
TestCall.settings = settings(max_examples=100, stateful_step_count=50)
