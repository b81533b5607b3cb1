"""`Call`: route and worker, and back to route under the same ``request_idx`` when the worker is gone, full or refuses.

Every way in which the worker's hop can end is a row of `vastroute.outcomes`; this machine keeps the time, the limits
and the account. It is driven like any other: see `vastroute.machine`. A stream's events wait in it until the caller
takes them with `Call.next_event`, and it asks for no more while any are left.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs

from .actions import Done, GiveUp, Receive, Send, WaitUntil, read_limit_of
from .decoders import StreamLimits
from .errors import (
    Advice,
    CallFailed,
    Cancelled,
    ConnectionFailed,
    FailureKind,
    InvalidValue,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
    Refused,
    SessionGone,
    UnexpectedAnswer,
)
from .exchange import Broken, Event, joined, whole_answer
from .failures import failure_of, judge_failure
from .guard import Guard
from .messages import Grant, Headers, HttpResponse, ResponseHead, Secret
from .outcomes import OutcomeRow, Then, outcome_of_failure, outcome_of_status
from .policy import Limits, WorkPolicy
from .reading import excerpt, host_of, retry_after
from .record import NOTHING, Counts, EntryKind, Record, Row
from .routing import RouteCall, RouteResult
from .sessions import SessionHandle
from .snapshots import CallSnapshot, read_call
from .state import CALL_TABLE, CallInput, CallState, advance
from .streams import StreamDecoder, StreamEvent, stream_decoder
from .verdicts import Reason, Verdict
from .work import Answer, WorkerRequest, decode_body, encode_worker

_OUT = frozenset({CallState.SENDING, CallState.READING, CallState.STREAMING})
_READING = frozenset({CallState.READING, CallState.STREAMING})
_OVER = (Done, GiveUp)
_MAYBE_RUN = "; the work may have run, so it is not sent again: say safe_to_repeat where running it twice does no harm"


@final
class Call:
    """One piece of work: until there is a worker's answer, or the reason why there is none.

    `source` says where the worker comes from: a `RouteCall`, whose deadline is the whole call's, or a `SessionHandle`,
    whose worker is held already; then `deadline` is needed (monotonic seconds), and nothing is ever re-routed.
    """

    __slots__ = (
        "_action",
        "_attempts",
        "_body",
        "_deadline",
        "_decoder",
        "_double_runs",
        "_events",
        "_fresh_grants",
        "_granted",
        "_guard",
        "_head",
        "_heard_at",
        "_index_added",
        "_is_away",
        "_limits",
        "_log",
        "_may_have_run",
        "_policy",
        "_route",
        "_routing_since",
        "_seconds_routing",
        "_seconds_working",
        "_sent_at",
        "_session",
        "_state",
        "_stream_limits",
        "_work",
    )

    def __init__(
        self,
        source: RouteCall | SessionHandle,
        work: WorkerRequest,
        *,
        deadline: float | None = None,
        policy: WorkPolicy = WorkPolicy(),
        guard: Guard = Guard(),
        limits: Limits = Limits(),
        stream_limits: StreamLimits = StreamLimits(),
    ) -> None:
        self._route = source if isinstance(source, RouteCall) else None
        self._session = source if isinstance(source, SessionHandle) else None
        if self._route is not None:
            if deadline is not None:
                raise InvalidValue("deadline belongs to the RouteCall: it is over both hops")
            self._deadline = self._route.deadline
            self._log: list[Row] = self._route._log
        else:
            if deadline is None or deadline != deadline:
                raise InvalidValue("a call in a session needs a deadline, in monotonic seconds")
            self._deadline = deadline
            self._log = []
        self._work = work
        self._policy = policy
        self._guard = guard
        self._limits = limits
        self._stream_limits = stream_limits
        self._state = CallState.ROUTING
        self._action: Send | Receive | Done[Answer] | GiveUp | None = None
        self._granted: RouteResult | None = None
        self._index_added = False
        self._attempts = self._double_runs = self._fresh_grants = 0
        self._seconds_routing = self._seconds_working = 0.0
        self._routing_since: float | None = None
        self._sent_at = self._heard_at = 0.0
        self._head: ResponseHead | None = None
        self._body: bytes | bytearray = b""
        self._decoder: StreamDecoder | None = None
        self._events: deque[StreamEvent] | None = None
        self._is_away = False
        """Whether the caller has the head of a stream, or an event, and has not come back for more."""
        self._may_have_run = False
        """Whether any worker may have done the work, as far as is known of those that are over."""

    # What a driver calls

    def next_action(self, *, now: float) -> Send | Receive | WaitUntil | Done[Answer] | GiveUp:
        """What to do next. Equal answers for equal ``now``; `Done` and `GiveUp` stay for ever."""
        if self._state is CallState.ROUTING:
            action = self._next_of_route(now)
            if action is not None:
                return action
        elif self._state in _OUT and now >= self._deadline:
            self._stop("total", None, now)
        if self._action is None:  # more of the answer is awaited
            self._action = Receive(deadline=self._more_by(), attempt=self._attempts, phase=Phase.WORKER)
        return self._action

    def read_limit(self, *, now: float) -> float | None:
        """Seconds for the next piece of the answer, as in `vastroute.AskMachine`; a stream's events are taken first."""
        return read_limit_of(self.next_action(now=now), now=now)

    def receive(self, response: HttpResponse, *, now: float) -> None:
        """The whole answer to the pending `Send`, as an HTTP library gives it."""
        if (route := self._at_route) is not None:
            route.receive(response, now=now)
        elif self._work.stream:
            self.head(ResponseHead(status=response.status, headers=response.headers), now=now)
            if response.body:
                self.chunk(response.body, now=now)
            if self.reading:
                self.end(now=now)
        else:
            self._state = advance(CALL_TABLE, self._state, CallInput.HEAD)
            self._whole(response, now)

    def head(self, head: ResponseHead, *, now: float) -> None:
        """The beginning of the answer to the pending `Send`; then `chunk` for each piece, and `end`."""
        if (route := self._at_route) is not None:
            route.head(head, now=now)
            return
        stream = self._work.stream and 200 <= head.status < 300
        self._state = advance(CALL_TABLE, self._state, CallInput.STREAM if stream else CallInput.HEAD)
        self._action = None
        self._head = head
        self._body = b""
        self._heard_at = now
        if stream:
            self._decoder = stream_decoder(head.headers.get("content-type"), self._stream_limits)
            self._note(EntryKind.STREAMING, now, head.status)

    def chunk(self, data: bytes, *, now: float) -> None:
        """A piece of the answer's body. Too much of it ends the exchange: then the next action is no `Receive`."""
        if (route := self._at_route) is not None:
            route.chunk(data, now=now)
            return
        self._state = advance(CALL_TABLE, self._state, CallInput.CHUNK)
        self._action = None
        self._heard_at = now
        if self._decoder is not None:
            try:
                self._keep(self._decoder.feed(data))
            except CallFailed as failure:
                self._give_up(self._masked(failure), now)
        else:
            self._body = joined(self._body, data)
            assert self._head is not None
            if len(self._body) > self._most_body(self._head.status):
                self._end(now)

    def end(self, *, now: float) -> None:
        """The answer is complete."""
        if (route := self._at_route) is not None:
            route.end(now=now)
            return
        if self._state not in _READING:
            self._state = advance(CALL_TABLE, self._state, CallInput.ANSWER)  # refuses, with the words of the table
        if self._decoder is not None:
            self._end_stream(self._decoder, now)
        else:
            self._end(now)

    def feed(self, events: Sequence[Event], *, now: float, reused: bool = False) -> float | None:
        """What `vastroute.Http1Connection.receive` gave; the instant by which more of this answer must come.

        None once no more of it is wanted for now: the exchange is over, or a stream has something for the caller, who
        gets its head before its events.
        """
        if (route := self._at_route) is not None:
            return route.feed(events, now=now, reused=reused)
        if (response := whole_answer(events)) is not None:
            self.receive(response, now=now)
            return None
        has_begun = self._state is CallState.STREAMING
        for event in events:
            if type(event) is bytes:
                self.chunk(event, now=now)
            elif type(event) is ResponseHead:
                self.head(event, now=now)
            elif type(event) is Broken:
                self.failed(event.kind, sent=True, now=now, reused=reused)
            else:
                self.end(now=now)
            if self._state not in _READING:
                return None
        if self._state is CallState.SENDING:
            action = self._action
            return action.deadline if type(action) is Send else None
        if self._state is CallState.STREAMING and not has_begun:
            self._is_away = True
            return None
        return None if self._events else self._more_by()

    def failed(
        self,
        error: FailureKind | BaseException | str,
        *,
        kind: FailureKind | None = None,
        sent: bool | None,
        now: float,
        reused: bool = False,
    ) -> None:
        """The exchange broke: see `vastroute.AskMachine.failed`. Past the answer's head, `sent` says nothing."""
        if (route := self._at_route) is not None:
            route.failed(error, kind=kind, sent=sent, now=now, reused=reused)
            return
        if self._state not in _OUT:
            self._state = advance(CALL_TABLE, self._state, CallInput.REROUTE)  # refuses, with the words of the table
        kind, sent = judge_failure(error, kind, sent=True if self._state in _READING else sent)
        failure = (
            error
            if isinstance(error, ConnectionFailed)
            else failure_of(error, kind, phase=Phase.WORKER, sent=sent, key=self._signature)
        )
        failure.kind = failure.kind or kind
        row = outcome_of_failure(failure.kind, sent=sent)
        limit = self._limit_at(now, sent) if failure.kind is FailureKind.TIMEOUT else None
        if limit is not None:
            number = "" if limit == "total" else f" ({limit}={getattr(self._policy, limit):g} s)"
            failure = LimitReached(  # type: ignore[assignment]
                f"{row.reason}{number}",
                phase=Phase.WORKER,
                outcome=row.outcome,
                advice=self._unless_run(row.may_have_run, Advice.RAISE_LIMIT),
                kind=FailureKind.TIMEOUT,
                limit=limit,
            )
        else:
            failure.message = f"{row.reason}: {failure.message}"
            failure.outcome = row.outcome
            failure.advice = self._advice_of(row)
        self._conclude(row, failure, now)

    def cancelled(self, *, now: float, sent: bool = True) -> None:
        """The caller ends the call. The driver closes what is open; the official worker then cancels a whole answer.

        `sent` as for `vastroute.AskMachine.cancelled`.
        """
        out = self._state in _OUT
        has_started = out and (sent or self._state in _READING)
        self._state = advance(CALL_TABLE, self._state, CallInput.CANCEL)
        phase = Phase.WORKER
        self._may_have_run |= has_started
        if out:
            self._seconds_working += now - self._sent_at
        if self._route is not None and not self._route.over:
            self._route.cancelled(now=now, sent=sent)
            phase = Phase.ROUTE
        else:
            self._note(EntryKind.CANCELLED, now)
        outcome = Outcome.PERHAPS_STARTED if has_started else Outcome.NOT_SENT
        error = Cancelled("cancelled by the caller", phase=phase, outcome=outcome, advice=Advice.NOTHING)
        self._finish(error)

    def next_event(self, *, now: float) -> StreamEvent | None:
        """The next event of a stream that has come, or None: then do what `next_action` asks for."""
        if self._events:
            self._is_away = True
            return self._events.popleft()
        if self._is_away and self._state is CallState.STREAMING:
            # The worker's silence counts from the wish for more: until now it was the caller who kept it waiting.
            self._heard_at = now
            self._action = None
        self._is_away = False
        return None

    def result(self) -> Answer:
        """The answer, or the raised error of a call that gave up. `LocalProtocolError` while it is not over."""
        action = self._action
        if isinstance(action, Done):
            return action.result
        if isinstance(action, GiveUp):
            raise action.error
        raise LocalProtocolError(f"the call is not over: it is {self._state.value}")

    @property
    def over(self) -> bool:
        """Whether there is an answer or an error, and nothing more to do. Events may still wait to be taken."""
        return isinstance(self._action, _OVER)

    @property
    def reading(self) -> bool:
        """Whether the head of an answer has come, and the rest is awaited."""
        if (route := self._at_route) is not None:
            return route.reading
        return self._state in _READING

    @property
    def phase(self) -> CallState:
        """Where the call stands."""
        return self._state

    @property
    def stream_head(self) -> ResponseHead | None:
        """The status and headers of the stream, once it has begun."""
        return self._head if self._decoder is not None else None

    @property
    def finished(self) -> bool:
        """Whether the stream has said itself that it is done, with OpenAI's ``[DONE]``."""
        return self._decoder is not None and self._decoder.finished

    @property
    def request_idx(self) -> int | None:
        """The number under which the engine knows this request, once it is known."""
        route, session = self._route, self._session
        if route is not None:
            return route._request_idx
        assert session is not None
        return session.grant.request_idx or session.request_idx

    @property
    def record(self) -> Record:
        """What has happened so far, on both hops."""
        return Record(self._log)

    @property
    def counts(self) -> Counts:
        """How often things have happened so far, on both hops."""
        routing = NOTHING if self._route is None else self._route._counts
        return Counts(
            asks=routing.asks,
            polls=routing.polls,
            retries=routing.retries,
            repeats=routing.repeats,
            possible_double_loads=routing.possible_double_loads,
            index_missing=routing.index_missing,
            index_changes=routing.index_changes,
            workers_lost=routing.workers_lost,
            seconds_waited=routing.seconds_waited,
            work_attempts=self._attempts,
            possible_double_runs=self._double_runs,
            seconds_routing=self._seconds_routing,
            seconds_working=self._seconds_working,
        )

    def snapshot(self, *, now: float) -> CallSnapshot:
        """Where the call stands at `now`."""
        return CallSnapshot(
            phase=self._state,
            route=None if self._route is None else self._route.snapshot(now=now),
            in_flight=self._state in _OUT,
            work_attempts=self._attempts,
            possible_double_runs=self._double_runs,
            fresh_grants=self._fresh_grants,
        )

    @classmethod
    def resume(
        cls,
        saved: Mapping[str, Any],
        route: RouteCall,
        work: WorkerRequest,
        *,
        now: float,
        policy: WorkPolicy = WorkPolicy(),
        guard: Guard = Guard(),
        limits: Limits = Limits(),
        stream_limits: StreamLimits = StreamLimits(),
    ) -> Call:
        """Go on with a call that `CallSnapshot.save` wrote; `route` is `RouteCall.resume` of its ``"route"``.

        Work that was out at a worker counts as *perhaps started*: unless `work` is safe to repeat, the call gives up.
        Raises `InvalidValue` if `saved` is not of this kind, or of a call that was over.
        """
        call = cls(route, work, policy=policy, guard=guard, limits=limits, stream_limits=stream_limits)
        known = read_call(saved)
        call._attempts, call._double_runs = known.work_attempts, known.possible_double_runs
        call._fresh_grants = known.fresh_grants
        call._may_have_run = known.possible_double_runs > 0 or known.in_flight
        if known.in_flight and work.safe_to_repeat:
            call._double_runs += 1
        elif known.in_flight:
            error = ConnectionFailed(
                "the call was saved while its work was out at a worker" + _MAYBE_RUN,
                phase=Phase.WORKER,
                outcome=Outcome.PERHAPS_STARTED,
                advice=Advice.CHECK_WORK,
            )
            call._give_up(error, now)
        return call

    # The steps

    def _advice_of(self, row: OutcomeRow) -> Advice:
        return self._unless_run(row.may_have_run, row.advice) if row.advice is Advice.ASK_AGAIN else row.advice

    def _unless_run(self, may_have_run: bool, advice: Advice) -> Advice:
        """`advice`, unless whoever follows it would perhaps pay twice."""
        return Advice.CHECK_WORK if may_have_run and not self._work.safe_to_repeat else advice

    @property
    def _at_route(self) -> RouteCall | None:
        """The route call, while it is its turn."""
        return self._route if self._state is CallState.ROUTING else None

    def _most_body(self, status: int) -> int:
        """A refusal is judged by its status, however long its page; only a success has to be read whole."""
        return self._policy.max_body if 200 <= status < 300 else self._limits.max_body

    @property
    def _signature(self) -> Secret | None:
        """The signature of the grant in use, which errors never quote; None if it is nothing that a worker accepts."""
        held = self._granted or self._session
        assert held is not None
        try:
            return Secret(held.grant.signature)
        except InvalidValue:
            return None

    def _masked(self, failure: CallFailed) -> CallFailed:
        """A decoder's failure, which quotes nothing where it would quote the signature, be it cut already."""
        signature = self._signature
        if signature is not None and signature.reveal()[:16] in failure.excerpt.replace("\\", ""):
            failure.excerpt = ""
        return failure

    def _next_of_route(self, now: float) -> Send | Receive | WaitUntil | None:
        """What the route call asks for; None once it has a worker or has given up."""
        route, session = self._route, self._session
        if session is not None:
            self._send(session.grant, None, now)
            return None
        assert route is not None
        if self._routing_since is None:
            self._routing_since = now
            route.limit_to(now + self._policy.waiting, "waiting")
        action = route.next_action(now=now)
        if isinstance(action, Done):
            self._seconds_routing += now - self._routing_since
            self._send(action.result.grant, action.result, now)
            return None
        if isinstance(action, GiveUp):
            self._seconds_routing += now - self._routing_since
            self._state = advance(CALL_TABLE, self._state, CallInput.REFUSE)
            self._finish(action.error)
            return None
        return action

    def _send(self, grant: Grant, granted: RouteResult | None, now: float) -> None:
        """There is a worker: send it the work, if it is where a grant may lead."""
        request_idx = self.request_idx
        self._granted = granted
        # Where the signature covers a useless number, it goes along: a worker that checks it would refuse another.
        signed = () if granted is None else granted.verdict.covers
        self._index_added = request_idx is not None and grant.request_idx is None and "request_idx" not in signed
        self._state = advance(CALL_TABLE, self._state, CallInput.GRANTED)
        self._sent_at = now
        if now >= self._deadline:  # the grant came late: no time is left for the work
            self._stop("total", None, now, outcome=Outcome.NOT_SENT)
            return
        if refusal := self._guard.check_origin(grant.origin):
            self.failed(refusal.as_error(), sent=False, now=now)
            return
        session_id = None if self._session is None else self._session.session_id
        self._attempts += 1
        self._action = Send(
            request=encode_worker(
                grant, self._work, request_idx=request_idx if self._index_added else None, session_id=session_id
            ),
            connect_by=min(now + self._policy.connecting, self._deadline),
            deadline=min(self._bounds(CallState.SENDING)),
            attempt=self._attempts,
            phase=Phase.WORKER,
            # On a kept connection a close before the answer would leave it open whether the work began.
            # In a session nobody else can take the work over, so it never risks a stale one.
            fresh=not self._work.safe_to_repeat or self._session is not None,
            guard=self._guard,
        )
        self._note(EntryKind.SENT, now, None, str(grant.origin))

    def _bounds(self, state: CallState) -> dict[float, str]:
        """The instants at which this exchange has taken too long, and the limits that say so."""
        policy = self._policy
        bounds = {self._deadline: "total"}
        if state is not CallState.STREAMING:
            bounds[self._sent_at + policy.working] = "working"
        if state is CallState.SENDING:
            bounds[self._sent_at + policy.first_byte] = "first_byte"
        else:
            bounds[self._heard_at + policy.silence] = "silence"
        return bounds

    def _limit_at(self, now: float, sent: bool | None) -> str | None:
        """The limit of ours that a time-out reported `now` means; None if it was some other one."""
        if sent is False:
            return "total" if now >= self._deadline else "connecting"
        bounds = self._bounds(self._state)
        first = min(bounds)
        return bounds[first] if now >= first else None

    def _more_by(self) -> float:
        """When more of the answer must have come."""
        return min(self._bounds(self._state))

    def _end(self, now: float) -> None:
        head = self._head
        assert head is not None
        self._whole(HttpResponse(status=head.status, headers=head.headers, body=self._body), now)

    def _whole(self, response: HttpResponse, now: float) -> None:
        """A whole answer is here, or more of one than is allowed."""
        most = self._most_body(response.status)
        if len(response.body) <= most:
            self._judge(response, now)
        elif 200 <= response.status < 300:
            error = LimitReached(
                f"the worker's answer is larger than the {most} bytes allowed",
                phase=Phase.WORKER,
                outcome=Outcome.ANSWERED,
                advice=Advice.RAISE_LIMIT,
                status=response.status,
                kind=FailureKind.TOO_LARGE,
                limit="max_body",
            )
            self._give_up(error, now)
        else:
            self._judge(attrs.evolve(response, body=response.body[:most]), now)

    def _judge(self, response: HttpResponse, now: float) -> None:
        row = outcome_of_status(response.status)
        if row.then is not Then.ANSWER:
            refusal = _refusal(row, response, self._session is not None, self._signature)
            refusal.advice = self._advice_of(row)
            self._conclude(row, refusal, now)
            return
        try:
            data = decode_body(response)
        except CallFailed as failure:
            failure.excerpt = excerpt(response.body, self._signature)
            self._give_up(failure, now)
            return
        self._answer(response.status, response.headers, response.body, data, now)

    def _keep(self, events: Sequence[StreamEvent]) -> None:
        if self._events is None:
            self._events = deque(events)
        else:
            self._events += events

    def _end_stream(self, decoder: StreamDecoder, now: float) -> None:
        assert self._head is not None
        try:
            self._keep(decoder.end())
        except CallFailed as failure:
            self._give_up(self._masked(failure), now)
            return
        head = self._head
        framed = (
            head.framed
            or head.headers.get("content-length")
            or head.headers.get("transfer-encoding")
            or head.status == 204
        )
        if decoder.incomplete or not (framed or decoder.finished):
            why = "in the middle of an event" if decoder.incomplete else "and nothing says that this was its end"
            error = ConnectionFailed(
                f"the stream stopped {why}",
                phase=Phase.WORKER,
                outcome=Outcome.PERHAPS_STARTED,
                advice=self._unless_run(True, Advice.ASK_AGAIN),
                status=self._head.status,
                kind=FailureKind.EOF,
                excerpt=excerpt(decoder.rest, self._signature),
            )
            error.body = decoder.rest
            self._give_up(error, now)
            return
        self._answer(head.status, head.headers, b"", None, now)

    def _answer(self, status: int, headers: Headers, body: bytes, data: Any, now: float) -> None:
        self._state = advance(CALL_TABLE, self._state, CallInput.ANSWER)
        self._seconds_working += now - self._sent_at
        self._note(EntryKind.ANSWERED, now, status)
        granted, held = self._granted, self._session
        if granted is not None:
            grant, verdict, reqnum = granted.grant, granted.verdict, granted.reqnum
            differences = granted.differences
        else:
            assert held is not None
            grant, verdict, reqnum, differences = held.grant, _NOT_LOOKED, None, ()
        self._action = Done(
            result=Answer(
                status=status,
                headers=headers,
                body=body,
                data=data,
                grant=grant,
                verdict=verdict,
                reqnum=reqnum,
                request_idx=self.request_idx,
                request_idx_added=self._index_added,
                differences=differences,
                counts=self.counts,
                record=self.record,
            )
        )

    def _conclude(self, row: OutcomeRow, error: CallFailed, now: float) -> None:
        """An exchange with a worker ended without an answer: do what the row says."""
        again = (
            row.then is Then.REROUTE
            or (row.then is Then.REROUTE_IF_SAFE and self._work.safe_to_repeat)
            or (row.then is Then.FRESH_GRANT and not self._fresh_grants)
        )
        if row.then is Then.REROUTE_IF_SAFE and not again:
            error.message += _MAYBE_RUN
        self._may_have_run |= row.may_have_run
        error.may_have_run = self._may_have_run
        if not again or self._route is None or self._state is CallState.STREAMING:
            self._give_up(error, now, may_have_run=row.may_have_run)
        elif now >= self._deadline:
            self._stop("total", error, now)
        else:
            self._fresh_grants += row.then is Then.FRESH_GRANT
            self._seconds_working += now - self._sent_at
            self._state = advance(CALL_TABLE, self._state, CallInput.REROUTE)
            self._granted = None
            self._routing_since = now
            self._route.limit_to(now + self._policy.waiting, "waiting")
            self._route.worker_failed(error, now=now)
            self._double_runs += row.then is Then.REROUTE_IF_SAFE and not self._route.over

    def _stop(
        self, limit: str, cause: CallFailed | None, now: float, *, outcome: Outcome = Outcome.PERHAPS_STARTED
    ) -> None:
        may_have_run = cause is None and outcome is Outcome.PERHAPS_STARTED
        error = LimitReached(
            "the deadline has come" if cause is None else f"the deadline has come; the last failure: {cause.message}",
            phase=Phase.WORKER,
            outcome=outcome if cause is None else cause.outcome,
            advice=self._unless_run(may_have_run, Advice.RAISE_LIMIT),
            limit=limit,
        )
        error.__cause__ = cause
        self._give_up(error, now, given=CallInput.LIMIT, may_have_run=may_have_run)

    def _give_up(
        self, error: CallFailed, now: float, *, given: CallInput = CallInput.REFUSE, may_have_run: bool = True
    ) -> None:
        self._may_have_run |= may_have_run
        if self._state in _OUT:
            self._seconds_working += now - self._sent_at
        self._state = advance(CALL_TABLE, self._state, given)
        self._note(EntryKind.GAVE_UP, now, error.status, error.message)
        self._finish(error)

    def _finish(self, error: CallFailed) -> None:
        if error.request_idx is None:
            error.request_idx = self.request_idx
        if self._route is not None:
            error.not_ready = self._route.not_ready
        if self._granted is not None:
            error.verdict = self._granted.verdict
        error.may_have_run = self._may_have_run
        error.counts = self.counts
        error.record = self.record
        self._action = GiveUp(error=error)

    def _note(self, kind: EntryKind, now: float, status: int | None = None, detail: str = "") -> None:
        request_idx = self.request_idx if self._route is None else self._route._request_idx
        self._log.append((kind, now, Phase.WORKER, self._attempts, request_idx, status, detail, None))


_NOT_LOOKED = Verdict(reason=Reason.OFF, detail="the grant was checked when the session was made, if at all")


def _refusal(row: OutcomeRow, response: HttpResponse, in_session: bool, signature: Secret | None) -> CallFailed:
    """The error that a worker's answer other than 2xx amounts to; its body, bounded, is attached."""
    status = response.status
    if in_session and status == 410:
        kind: type[CallFailed] = SessionGone
    else:
        kind = UnexpectedAnswer if row.advice is Advice.CHECK_ANSWER else Refused
    reason = row.reason
    if 300 <= status < 400:
        reason = f"a redirect to {host_of(response.headers.get('location'))}, never followed"
    error = kind(
        reason,
        phase=Phase.WORKER,
        outcome=row.outcome,
        advice=row.advice,
        status=status,
        excerpt=excerpt(response.body, signature),
        retry_after=retry_after(response),
    )
    error.body = response.body
    return error
