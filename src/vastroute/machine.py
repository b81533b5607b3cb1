"""The loop that every call to a server is: ask, wait, ask again, until there is an answer or a reason to stop.

`AskMachine` knows states, time, counts and limits. What is asked and what an answer means is its subclass's: a
`vastroute.RouteCall` asks for a worker, a look-up for a list. It does nothing by itself: a driver asks it for the
`next_action`, does that, and reports what came of it.

The rules of driving
    Exactly one action is pending. `next_action`, asked twice with the same ``now``, gives equal answers. A report that
    does not fit the pending action raises `LocalProtocolError` and changes nothing. Time alone turns a wait into an
    ask, and anything unfinished into giving up at the deadline. An answer that comes late still counts, if it is
    reported before the driver asks again. A machine serves one call and is thrown away.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from .actions import Done, GiveUp, Receive, Send, WaitUntil, Why, read_limit_of
from .errors import (
    Advice,
    CallFailed,
    Cancelled,
    FailureKind,
    InvalidValue,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
    UnexpectedAnswer,
)
from .exchange import Broken, Event, joined, whole_answer
from .failures import failure_of, judge_failure
from .messages import HttpRequest, HttpResponse, ResponseHead, Secret
from .policy import Limits, RetryPolicy
from .reading import excerpt
from .record import NOTHING, ONE_ASK, Counts, EntryKind, Record, Row
from .state import ASK_TABLE, AskInput, AskState, advance

if TYPE_CHECKING:
    from .guard import Guard
    from .streams import StreamEvent

T = TypeVar("T")

_STALE = frozenset({FailureKind.EOF, FailureKind.RESET})
_OVER = (Done, GiveUp)
_AT_ONCE = WaitUntil(at=-math.inf, why=Why.START)


class AskMachine(Generic[T]):
    """One question to one server. See the module's text for the rules of driving.

    `rng` draws from [0, 1) and spreads the pauses; `deadline` is in monotonic seconds, on the clock whose readings are
    passed as ``now``.
    """

    __slots__ = (
        "_action",
        "_body",
        "_counts",
        "_deadline",
        "_deadline_name",
        "_fresh",
        "_guard",
        "_head",
        "_key",
        "_limits",
        "_log",
        "_outcome",
        "_phase",
        "_policy",
        "_repeating",
        "_request_idx",
        "_rng",
        "_state",
        "_total",
    )

    def __init__(
        self,
        *,
        policy: RetryPolicy,
        limits: Limits,
        key: Secret | None,
        rng: Callable[[], float],
        deadline: float,
        phase: Phase,
        guard: Guard | None = None,
    ) -> None:
        if deadline != deadline or deadline == -math.inf:
            raise InvalidValue("deadline must be monotonic seconds on the clock that `now` is read from")
        self._phase = phase
        self._guard = guard
        self._policy = policy
        self._limits = limits
        self._key = key
        self._rng = rng
        self._deadline = self._total = deadline
        self._deadline_name = "total"
        self._state = AskState.WAITING
        self._action: Send | Receive | WaitUntil | Done[T] | GiveUp = _AT_ONCE
        self._counts = NOTHING
        self._outcome = Outcome.NOT_SENT
        self._fresh = False
        self._repeating = False
        self._head: ResponseHead | None = None
        self._body: bytes | bytearray = b""
        self._request_idx: int | None = None
        """The ``request_idx`` that stands in entries and errors, if a subclass has one."""
        self._log: list[Row] = []

    # What a driver calls

    def next_action(self, *, now: float) -> Send | Receive | WaitUntil | Done[T] | GiveUp:
        """What to do next. Equal answers for equal ``now``; `Done` and `GiveUp` stay for ever."""
        state = self._state
        if state is AskState.WAITING:
            if now >= self._deadline:
                self._stop_for_limit(self._deadline_name, now)
            elif now >= self._action.at:  # type: ignore[union-attr]  # in this state the action is a WaitUntil
                self._ask(now)
        elif state is AskState.ASKING or state is AskState.READING:
            send = self._action
            if now >= self._deadline:
                self._stop_for_limit(self._deadline_name, now)
            elif state is AskState.READING and type(send) is Send:
                self._action = Receive(deadline=send.deadline, attempt=send.attempt, phase=send.phase)
        return self._action

    def read_limit(self, *, now: float) -> float | None:
        """Seconds for the next piece of the answer; None once no more is wanted: then `next_action` says how to go on.

        Raises TimeoutError at the deadline, as the read itself would: report it with `failed` like any other. So a
        library whose time-outs are for one read each is held to the limit on all of them.
        """
        return read_limit_of(self.next_action(now=now), now=now)

    def receive(self, response: HttpResponse, *, now: float) -> None:
        """The whole answer to the pending `Send`, as an HTTP library gives it."""
        self._state = advance(ASK_TABLE, self._state, AskInput.HEAD)
        self._whole(response, now)

    def head(self, head: ResponseHead, *, now: float) -> None:
        """The beginning of the answer to the pending `Send`; then `chunk` for each piece, and `end`."""
        self._state = advance(ASK_TABLE, self._state, AskInput.HEAD)
        self._head = head
        self._body = b""

    def chunk(self, data: bytes, *, now: float) -> None:
        """A piece of the answer's body. Too much of it ends the exchange: then the next action is no `Receive`."""
        self._state = advance(ASK_TABLE, self._state, AskInput.CHUNK)
        self._body = joined(self._body, data)
        if len(self._body) > self._limits.max_body:
            self._end(now)

    def end(self, *, now: float) -> None:
        """The answer is complete."""
        if self._state is not AskState.READING:
            self._state = advance(ASK_TABLE, self._state, AskInput.ACCEPT)  # refuses, with the words of the table
        self._end(now)

    def feed(self, events: Sequence[Event], *, now: float, reused: bool = False) -> float | None:
        """What `vastroute.Http1Connection.receive` gave; the instant by which more of this answer must come.

        None once no more of it is wanted: then `next_action` says how to go on, and if the connection's exchange is not
        at its end, the connection is of no more use. `reused` as for `failed`.
        """
        if (response := whole_answer(events)) is not None:
            self.receive(response, now=now)
            return None
        for event in events:
            if type(event) is bytes:
                self.chunk(event, now=now)
            elif type(event) is ResponseHead:
                self.head(event, now=now)
            elif type(event) is Broken:
                self.failed(event.kind, sent=True, now=now, reused=reused)
            else:
                self.end(now=now)
            if self._state is not AskState.READING:
                return None
        action = self._action
        return action.deadline if type(action) is Send or type(action) is Receive else None

    def failed(
        self,
        error: FailureKind | BaseException | str,
        *,
        kind: FailureKind | None = None,
        sent: bool | None,
        now: float,
        reused: bool = False,
    ) -> None:
        """The exchange broke. `error` says how; an exception becomes the cause of the error that may come of it.

        `kind` is what it amounts to; without it that is told from an exception of Python's own, or from the one that a
        library's exception has as its cause or among its arguments. `sent` is False if surely no byte of the request
        left, True if some did, None if the library cannot say. Then such an exception says it, where it can only come
        before a request leaves (a refused connection, an unknown name, an untrusted certificate); else it counts as
        perhaps. `reused` says that it went over a kept connection: closed before the first byte of an answer, it had
        gone stale, and the ask is repeated at once on a fresh one.
        """
        if self._state is not AskState.ASKING and self._state is not AskState.READING:
            self._state = advance(ASK_TABLE, self._state, AskInput.TROUBLE)  # refuses, with the words of the table
        kind, sent = judge_failure(error, kind, sent=sent)
        failure = failure_of(error, kind, phase=self._phase, sent=sent, key=self._key)
        self._outcome = failure.outcome
        # Where a fresh connection was asked for, none was stale, whatever is said: every loop has a pause.
        send = self._action if self._state is AskState.ASKING else None
        stale = reused and failure.kind in _STALE and isinstance(send, Send) and not send.fresh
        self._head = None
        if now >= self._deadline:
            self._stop_for_limit(self._deadline_name, now, failure)
        elif not stale:
            self._trouble(failure, now)
        elif self._may_repeat():
            self._repeat_at_once(failure, now)
        else:
            self._stop_for_limit("first_ask_repeats", now, failure)
        if self._state is AskState.WAITING:
            self._will_repeat()

    def next_event(self, *, now: float) -> StreamEvent | None:
        """None: only a stream has events, and only a `vastroute.Call` streams."""
        return None

    def cancelled(self, *, now: float, sent: bool = True) -> None:
        """The caller ends the call, whatever it is doing. The driver closes what is open.

        `sent` is False if surely no byte of the pending request has left: its connection was still being opened, say.
        """
        if not sent and self._state is AskState.ASKING:
            self._outcome = Outcome.NOT_SENT
        self._state = advance(ASK_TABLE, self._state, AskInput.CANCEL)
        error = Cancelled("cancelled by the caller", phase=self._phase, outcome=self._outcome, advice=Advice.NOTHING)
        self._note(EntryKind.CANCELLED, now)
        self._give_up(error)

    @property
    def over(self) -> bool:
        """Whether there is a result or an error, and nothing more to do."""
        return isinstance(self._action, _OVER)

    def result(self) -> T:
        """The result, or the raised error of a call that gave up. `LocalProtocolError` while it is not over."""
        action = self._action
        if isinstance(action, Done):
            return action.result
        if isinstance(action, GiveUp):
            raise action.error
        raise LocalProtocolError(f"the call is not over: it is {self._state.value}")

    @property
    def deadline(self) -> float:
        """Monotonic seconds: the end of the whole call, whatever `limit_to` says."""
        return self._total

    def limit_to(self, at: float, name: str) -> None:
        """Give up `at` already (monotonic seconds), with `name` as the error's ``limit``; not later than `deadline`."""
        self._deadline, self._deadline_name = (at, name) if at < self._total else (self._total, "total")
        if isinstance(self._action, WaitUntil) and self._action.at > self._deadline:
            self._action = WaitUntil(at=self._deadline, why=self._action.why)

    @property
    def reading(self) -> bool:
        """Whether the head of an answer has come, and the rest is awaited."""
        return self._state is AskState.READING

    @property
    def phase(self) -> AskState:
        """Where the call stands."""
        return self._state

    @property
    def record(self) -> Record:
        """What has happened so far."""
        return Record(self._log)

    @property
    def counts(self) -> Counts:
        """How often things have happened so far."""
        return self._counts

    # What a subclass says

    def _encode(self) -> HttpRequest:
        """The request to send now."""
        raise NotImplementedError

    def _judge(self, response: HttpResponse, now: float) -> None:
        """Look at a whole answer and call one of `_accept`, `_poll`, `_trouble` and `_refuse`."""
        raise NotImplementedError

    def _may_repeat(self) -> bool:
        """Whether the exchange that just broke may be asked again at all."""
        return True

    def _will_repeat(self) -> None:
        """The exchange that just broke is asked again: for a subclass to count."""

    # The steps, each of which ends in exactly one pending action

    def _ask(self, now: float) -> None:
        wait = self._action
        assert isinstance(wait, WaitUntil)
        request = self._encode()
        self._state = advance(ASK_TABLE, self._state, AskInput.DUE)
        counts = self._counts
        if self._repeating:
            counts = counts.plus(repeats=1)
            self._repeating = False
        elif counts.asks:
            counts = counts.plus(polls=wait.why is Why.POLL, retries=wait.why is Why.RETRY)
        self._counts = counts
        if self._guard is not None and (refusal := self._guard.check_origin(request.origin)):
            self._refuse(refusal.as_error(phase=self._phase), now)
            return
        self._counts = counts = ONE_ASK if counts is NOTHING else counts.plus(asks=1)
        self._outcome = Outcome.PERHAPS_STARTED
        by = min(now + self._policy.ask_limit, self._deadline)
        self._action = Send(
            request=request,
            connect_by=by,
            deadline=by,
            attempt=counts.asks,
            phase=self._phase,
            fresh=self._fresh,
            guard=self._guard,
        )
        self._fresh = False
        self._note(EntryKind.ASKED, now)

    def _end(self, now: float) -> None:
        head = self._head
        assert head is not None
        self._head = None
        self._whole(HttpResponse(status=head.status, headers=head.headers, body=self._body), now)

    def _whole(self, response: HttpResponse, now: float) -> None:
        """A whole answer is here, or more of one than is allowed."""
        self._outcome = Outcome.ANSWERED
        if len(response.body) <= self._limits.max_body:
            self._judge(response, now)
        elif 200 <= response.status < 300:
            self._refuse(
                UnexpectedAnswer(
                    f"the answer is larger than the {self._limits.max_body} bytes allowed",
                    phase=self._phase,
                    outcome=Outcome.ANSWERED,
                    advice=Advice.CHECK_ANSWER,
                    status=response.status,
                    excerpt=excerpt(response.body, self._key),
                    kind=FailureKind.TOO_LARGE,
                    limit="max_body",
                ),
                now,
            )
        else:
            # A refusal is judged by its status, however long its page; only a success has to be read whole.
            self._judge(attrs.evolve(response, body=response.body[: self._limits.max_body]), now)

    def _accept(self, result: T, now: float) -> None:
        self._state = advance(ASK_TABLE, self._state, AskInput.ACCEPT)
        self._action = Done(result=result)

    def _poll(self, now: float) -> None:
        """Nothing is ready: ask again after a pause, if the limits allow."""
        polls = self._counts.polls
        if polls >= self._policy.max_polls:
            self._stop_for_limit("max_polls", now)
            return
        pause = self._policy.poll_pause.seconds(polls + 1, self._rng())
        self._wait(AskInput.NOT_READY, Why.POLL, pause, now)

    def _trouble(self, error: CallFailed, now: float) -> None:
        """Something failed: ask again after a pause if that may help and the limits allow."""
        if error.advice is not Advice.ASK_AGAIN or not self._policy.max_retries:
            self._refuse(error, now)
            return
        self._note(EntryKind.TROUBLE, now, error.status, error.message)
        if not self._may_repeat():
            self._stop_for_limit("first_ask_repeats", now, error)
        elif (retries := self._counts.retries) >= self._policy.max_retries:
            self._stop_for_limit("max_retries", now, error)
        else:
            self._wait(AskInput.TROUBLE, Why.RETRY, self._pause(retries + 1, error), now, error)

    def _pause(self, number: int, error: CallFailed | None) -> float:
        pause = self._policy.retry_pause.seconds(number, self._rng())
        if error is None or error.retry_after is None:
            return pause
        return max(pause, min(error.retry_after, self._policy.retry_after_cap))

    def _repeat_at_once(self, error: CallFailed, now: float) -> None:
        self._note(EntryKind.TROUBLE, now, None, f"{error.message}; the kept connection was stale")
        self._state = advance(ASK_TABLE, self._state, AskInput.TROUBLE)
        self._fresh = self._repeating = True
        self._action = WaitUntil(at=now, why=Why.RETRY)

    def _wait(self, given: AskInput, why: Why, pause: float, now: float, error: CallFailed | None = None) -> None:
        at = now + pause
        if at >= self._deadline:
            # Nothing that could still come would come in time: better to say so now.
            self._stop_for_limit(self._deadline_name, now, error)
            return
        self._state = advance(ASK_TABLE, self._state, given)
        self._counts = self._counts.plus(seconds_waited=pause)
        self._action = WaitUntil(at=at, why=why)
        self._note(EntryKind.WAITING, now, None, why.value, at)

    def _refuse(self, error: CallFailed, now: float) -> None:
        self._state = advance(ASK_TABLE, self._state, AskInput.REFUSE)
        self._note(EntryKind.GAVE_UP, now, error.status, error.message)
        self._give_up(error)

    def _stop_for_limit(self, limit: str, now: float, cause: CallFailed | None = None) -> None:
        self._state = advance(ASK_TABLE, self._state, AskInput.LIMIT)
        number = getattr(self._policy, limit, None)
        message = f"the limit {limit}={number} is reached" if limit != self._deadline_name else "the deadline has come"
        error = LimitReached(
            message if cause is None else f"{message}; the last failure: {cause.message}",
            phase=self._phase,
            outcome=self._outcome if cause is None else cause.outcome,  # a lost worker may have done the work
            advice=Advice.RAISE_LIMIT,
            status=cause.status if cause is not None else None,
            excerpt=cause.excerpt if cause is not None else "",
            request_id=cause.request_id if cause is not None else None,
            kind=cause.kind if cause is not None else None,
            limit=limit,
            retry_after=cause.retry_after if cause is not None else None,
        )
        error.__cause__ = cause
        error.may_have_run = cause is not None and cause.may_have_run
        self._note(EntryKind.GAVE_UP, now, error.status, error.message)
        self._give_up(error)

    def _give_up(self, error: CallFailed) -> None:
        if error.request_idx is None:
            error.request_idx = self._request_idx
        error.counts = self._counts
        error.record = self.record
        self._action = GiveUp(error=error)

    def _note(
        self, kind: EntryKind, now: float, status: int | None = None, detail: str = "", until: float | None = None
    ) -> None:
        self._log.append((kind, now, self._phase, self._counts.asks, self._request_idx, status, detail, until))
