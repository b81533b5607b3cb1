"""`RouteCall`: one request to the engine for a worker, from the first ask until there is a grant.

It keeps the request's identity: the ``request_idx`` of the engine's first answer goes with every later ask, so that the
engine counts the load once. A grant whose worker then fails is not the end: `RouteCall.worker_failed` goes on with the
same ``request_idx``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from .actions import WaitUntil, Why
from .codec import decode_route, encode_route
from .errors import Advice, CallFailed, Outcome, Phase, Refused, SignatureRefused
from .machine import AskMachine
from .messages import ENGINE, Grant, HttpRequest, HttpResponse, NotReady, RouteRequest, Secret
from .policy import Limits, RetryPolicy
from .record import Counts, EntryKind, Record
from .snapshots import RouteSnapshot, read_route
from .state import ASK_TABLE, AskInput, AskState, advance
from .urls import Origin
from .verdicts import NO_KEY, SignatureMode, Verdict

if TYPE_CHECKING:
    from .memory import RouteMemory
    from .reqnum import ReqnumTracker, ReqnumVerdict
    from .verification import Verifier

_NOT_BEGUN = frozenset({425, 429, 503})
"""Statuses that say that an ask was not taken; after any other trouble without a number it may have been."""


@attrs.frozen(kw_only=True)
class RouteResult:
    """A grant, and everything that was found out while getting it."""

    grant: Grant
    verdict: Verdict
    """What the check of the signature said."""
    reqnum: ReqnumVerdict | None
    """Whether the grant's reqnum is in order, where a tracker was given."""
    differences: tuple[str, ...]
    """Fields that came back other than they were asked: ``endpoint``, ``cost``. Usually none."""
    request_idx: int | None
    """The request's number at the engine: the grant's, or the one that was held where the grant lacks it."""
    request_idx_age: float | None
    """Seconds since that number was first given."""
    counts: Counts
    record: Record = attrs.field(repr=False)


class RouteCall(AskMachine[RouteResult]):
    """One request for a worker, as a machine: see `vastroute.machine` for the rules of driving.

    `key` is the endpoint's own key. `rng` draws from [0, 1). `deadline` is in monotonic seconds. `verifier` checks the
    grant's signature; without one the verdict says that no key is known. `tracker` says whether a grant's reqnum is in
    order. `memory` is what a client's calls know of one another, to be quicker. The call ends with a `RouteResult`
    or one of the errors under `vastroute.CallFailed`.
    """

    __slots__ = (
        "_engine",
        "_grant",
        "_key_in_body",
        "_memory",
        "_not_ready",
        "_request",
        "_request_idx_since",
        "_secret",
        "_tracker",
        "_verifier",
    )

    def __init__(
        self,
        request: RouteRequest,
        *,
        key: Secret | str,
        rng: Callable[[], float],
        deadline: float,
        policy: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        verifier: Verifier | None = None,
        tracker: ReqnumTracker | None = None,
        memory: RouteMemory | None = None,
        engine: Origin = ENGINE,
        key_in_body: bool = False,
    ) -> None:
        secret = Secret.of(key)
        super().__init__(policy=policy, limits=limits, key=secret, rng=rng, deadline=deadline, phase=Phase.ROUTE)
        self._secret = secret
        self._request = request
        self._verifier = verifier
        self._tracker = tracker
        self._memory = memory
        self._engine = engine
        self._key_in_body = key_in_body
        self._request_idx = request.request_idx
        self._request_idx_since: float | None = None
        self._not_ready: NotReady | None = None
        self._grant: Grant | None = None

    @property
    def request_idx(self) -> int | None:
        """The number under which the engine knows this request, once it is known."""
        return self._request_idx

    @property
    def not_ready(self) -> NotReady | None:
        """The engine's last word that nothing was ready."""
        return self._not_ready

    def snapshot(self, *, now: float) -> RouteSnapshot:
        """Where the call stands at `now`."""
        action = self._action
        return RouteSnapshot(
            phase=self._state,
            request=self._request,
            request_idx=self._request_idx,
            request_idx_age=self._age(now),
            remaining=self._total - now,
            due_in=max(0.0, action.at - now) if isinstance(action, WaitUntil) else 0.0,
            why=action.why if isinstance(action, WaitUntil) else None,
            in_flight=self._state in {AskState.ASKING, AskState.READING},
            counts=self._counts,
            not_ready=self._not_ready,
            grant=self._grant,
        )

    def worker_failed(self, error: CallFailed | str, *, now: float) -> None:
        """The granted worker is of no use: ask again, after a pause, under the same ``request_idx``.

        `error` says why; a ``retry_after`` in it is honoured. Raises `LocalProtocolError` if there is no grant. Beyond
        the policy's ``max_reroutes`` workers the call gives up.
        """
        detail = error if isinstance(error, str) else error.message
        cause = error if isinstance(error, CallFailed) else None
        if self._state is not AskState.ANSWERED:
            self._state = advance(ASK_TABLE, self._state, AskInput.LOST)  # refuses, with the words of the table
        lost = self._counts.workers_lost
        status = None if cause is None else cause.status
        self._log.append((EntryKind.WORKER_LOST, now, Phase.WORKER, lost + 1, self._request_idx, status, detail, None))
        if lost >= self._policy.max_reroutes:
            self._stop_for_limit("max_reroutes", now, cause)
            return
        self._grant = None
        self._wait(AskInput.LOST, Why.REROUTE, self._pause(lost + 1, cause), now, cause)
        if self._state is AskState.WAITING:
            self._counts = self._counts.plus(workers_lost=1)

    @classmethod
    def resume(
        cls,
        saved: Mapping[str, Any],
        *,
        key: Secret | str,
        rng: Callable[[], float],
        now: float,
        utc: float,
        deadline: float | None = None,
        policy: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        verifier: Verifier | None = None,
        tracker: ReqnumTracker | None = None,
        memory: RouteMemory | None = None,
        engine: Origin = ENGINE,
        key_in_body: bool = False,
    ) -> RouteCall:
        """Go on with a call that `RouteSnapshot.save` wrote, in this or another process.

        The time it had left counts from `now`, unless `deadline` is given; `utc` is the wall clock, from which the age
        of its ``request_idx`` is known. An ask that was in flight is treated as one that perhaps arrived: under a
        ``request_idx`` it is simply asked again, without one it uses up one of the policy's ``first_ask_repeats``.
        Raises `InvalidValue` if `saved` is not of this kind, or of a call that had failed or was cancelled.
        """
        known = read_route(saved, now=now, utc=utc)
        call = cls(
            known.request,
            key=key,
            rng=rng,
            deadline=known.deadline if deadline is None else deadline,
            policy=policy,
            limits=limits,
            verifier=verifier,
            tracker=tracker,
            memory=memory,
            engine=engine,
            key_in_body=key_in_body,
        )
        call._counts = known.counts
        call._request_idx, call._request_idx_since = known.request_idx, known.since
        call._action = WaitUntil(at=min(known.wait.at, call._deadline), why=known.wait.why)
        if known.grant is not None:
            call._regrant(known.grant, now)
        elif known.in_flight:
            call._outcome = Outcome.PERHAPS_STARTED
            if call._may_repeat():
                call._will_repeat()
            else:
                call._stop_for_limit("first_ask_repeats", now)
        return call

    def _regrant(self, raw: bytes, now: float) -> None:
        # The same road as a fresh answer takes, so that a saved grant is checked like any other.
        self._state = advance(ASK_TABLE, self._state, AskInput.DUE)
        self._state = advance(ASK_TABLE, self._state, AskInput.HEAD)
        self._judge(HttpResponse(status=200, body=raw), now)

    # What the machine asks of us

    def _encode(self) -> HttpRequest:
        if self._memory is not None and self._request_idx is None:
            return self._memory.first_ask(
                self._request, key=self._secret, engine=self._engine, key_in_body=self._key_in_body
            )
        return encode_route(
            self._request,
            key=self._secret,
            engine=self._engine,
            request_idx=self._request_idx,
            key_in_body=self._key_in_body,
        )

    def _may_repeat(self) -> bool:
        """A first ask that may have arrived is repeated only so often: each time its load may count twice."""
        return not self._first_ask_lost or self._counts.possible_double_loads < self._policy.first_ask_repeats

    def _will_repeat(self) -> None:
        if self._first_ask_lost:
            self._counts = self._counts.plus(possible_double_loads=1)

    @property
    def _first_ask_lost(self) -> bool:
        return self._request_idx is None and self._outcome is Outcome.PERHAPS_STARTED

    def _judge(self, response: HttpResponse, now: float) -> None:
        try:
            answer = decode_route(response, limits=self._limits, key=self._secret, memory=self._memory)
        except CallFailed as error:
            self._hold(error.request_idx, now, missing=False)
            unnamed = self._request_idx is None and error.status not in _NOT_BEGUN
            self._trouble(error, now)
            # Something answered, and nobody knows whether the engine took the ask: what follows may count twice.
            if unnamed and self._state is AskState.WAITING:
                self._counts = self._counts.plus(possible_double_loads=1)
            return
        self._hold(answer.request_idx, now, missing=True)
        if isinstance(answer, Grant):
            self._look_at(answer, now)
        else:
            self._wait_for_worker(answer, response.status, now)

    def _hold(self, index: int | None, now: float, *, missing: bool) -> None:
        """Keep the request's number: an answer without one clears nothing, one with another is adopted and noted."""
        if index is None:
            if missing and self._request_idx is not None:
                self._counts = self._counts.plus(index_missing=1)
        elif index != self._request_idx:
            if self._request_idx is not None:
                self._counts = self._counts.plus(index_changes=1)
                self._note(EntryKind.INDEX_CHANGED, now, None, f"from {self._request_idx} to {index}")
            self._request_idx = index
            self._request_idx_since = now

    def _age(self, now: float) -> float | None:
        return None if self._request_idx_since is None else now - self._request_idx_since

    def _look_at(self, grant: Grant, now: float) -> None:
        request, verifier = self._request, self._verifier
        verdict = NO_KEY if verifier is None else verifier.check(grant)
        differences: tuple[str, ...] = ()
        if grant.endpoint != request.endpoint or grant.cost != request.cost:
            differences = tuple(name for name in ("endpoint", "cost") if getattr(grant, name) != getattr(request, name))
        if verifier is not None and verifier.mode is SignatureMode.REQUIRE and (differences or not verdict.verified):
            why = str(verdict) if not verdict.verified else f"it is for another {' and '.join(differences)}"
            error = SignatureRefused(
                f"the grant is not to be trusted: {why}",
                phase=Phase.ROUTE,
                outcome=Outcome.ANSWERED,
                advice=Advice.CHECK_ANSWER,
                request_id=grant.request_id,
            )
            error.verdict = verdict
            self._refuse(error, now)
            return
        self._grant = grant
        self._note(EntryKind.GRANTED, now, None, grant.url)
        self._accept(
            RouteResult(
                grant=grant,
                verdict=verdict,
                reqnum=None if self._tracker is None else self._tracker.observe(grant.url, grant.reqnum),
                differences=differences,
                request_idx=self._request_idx,
                request_idx_age=self._age(now),
                counts=self._counts,
                record=self.record,
            ),
            now,
        )

    def _wait_for_worker(self, answer: NotReady, status: int, now: float) -> None:
        self._not_ready = answer
        self._note(EntryKind.NOT_READY, now, status, answer.status or "")
        if answer.status is not None and answer.status.strip().casefold() in self._policy.stop_statuses:
            error = Refused(
                f"the endpoint is not running (its status is {answer.status!r}): start it, then ask again",
                phase=Phase.ROUTE,
                outcome=Outcome.ANSWERED,
                advice=Advice.CHECK_ENDPOINT,
                status=status,
                request_id=answer.request_id,
            )
            self._refuse(error, now)
        else:
            self._poll(now)

    def _give_up(self, error: CallFailed) -> None:
        error.not_ready = self._not_ready
        super()._give_up(error)
