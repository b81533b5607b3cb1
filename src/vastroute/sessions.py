"""A worker session: a lease on one worker for several requests. Its messages, and the arithmetic of its lifetime.

A session is made at a worker with a grant, and lives ``lifetime`` seconds. Every request that names it adds one whole
``lifetime`` to its expiration, on top of what is left, before the signature is checked and so also when the request is
refused. Many short requests therefore stack up hours of paid time that nobody asked for, while one request that is
longer than what is left is cut: the worker closes the connections of a session that expires. `SessionLife` keeps
account of both. Looking at a session (get, health) adds nothing.

Source of all of it: wire facts, section 5, and what the official worker does (pitfalls, part 1, S1 and S2).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeGuard, final

import attrs

from .codec import _host_of, _http_date, decode_route, excerpt, parse_object, retry_after
from .errors import Advice, CallFailed, InvalidValue, LocalProtocolError, Outcome, Phase, Refused, UnexpectedAnswer
from .messages import USER_AGENT, Grant, Headers, HttpRequest, HttpResponse
from .outcomes import OutcomeRow, Then, outcome_of_status
from .policy import Limits
from .state import advance
from .urls import join_target
from .work import WorkerRequest, auth_data, encode_worker

SESSION_CREATE = "/session/create"
SESSION_GET = "/session/get"
SESSION_HEALTH = "/session/health"
SESSION_END = "/session/end"

DEFAULT_LIFETIME = 60.0
"""Seconds; the official worker's own default."""
SWEEP = 5.0
"""Seconds between two rounds in which the official worker looks for expired sessions: until then they go on."""

_HEADERS = Headers((("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT)))
_LONGEST = 1e9
_LATEST = 1e12


class SessionGone(Refused):
    """The worker knows no such session: it expired, was ended, or the worker was started anew. Make another one."""


# --- values --------------------------------------------------------------------------------------------------------


def _is_seconds(value: object, most: float) -> TypeGuard[float]:
    # Two comparisons, not math.isfinite, which raises for an int that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _grant(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, Grant):
        raise InvalidValue("grant must be the Grant that the session was made with")


def _lifetime(_instance: object, _attribute: object, value: Any) -> None:
    if not _is_seconds(value, _LONGEST):
        raise InvalidValue("lifetime must be seconds: a finite number above 0")


def _expiration(_instance: object, _attribute: object, value: Any) -> None:
    if not _is_seconds(value, _LATEST):
        raise InvalidValue("expiration must be seconds since 1970")


def _session_id(_instance: object, _attribute: object, value: Any) -> None:
    if not _is_id(value):
        raise InvalidValue("session_id must be the text that the worker gave")


def _index(_instance: object, _attribute: object, value: Any) -> None:
    if value is not None and (not _is_count(value) or value < 1):
        raise InvalidValue("request_idx must be a whole number from 1, or None")


def _clock(_instance: object, _attribute: object, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LATEST:
        raise InvalidValue("clock_ahead must be seconds: a finite number")


def _count(_instance: object, attribute: Any, value: Any) -> None:
    if not _is_count(value):
        raise InvalidValue(f"{attribute.name} must be a whole number of at least 0")


@attrs.frozen(kw_only=True)
class SessionHandle:
    """All that it takes to use, look at and end a session, from this process or another one.

    The grant in it is a secret, as good as a key to the worker, and does not expire: the repr leaves it out.
    """

    session_id: str = attrs.field(validator=_session_id)
    grant: Grant = attrs.field(repr=False, validator=_grant)
    """What the session was made with. It leads to the worker, and proves that the session is ours."""
    lifetime: float = attrs.field(default=DEFAULT_LIFETIME, validator=_lifetime)
    """Seconds that the session was made for, and that every request adds."""
    expiration: float = attrs.field(validator=_expiration)
    """When the worker said that it ends: seconds since 1970 on the worker's own clock."""
    request_idx: int | None = attrs.field(default=None, validator=_index)
    """The number that was added to the grant because it lacked one."""
    clock_ahead: float = attrs.field(default=0.0, validator=_clock)
    """Seconds by which the worker's clock is ahead of ours. It is known to about one second; 0 if it is not known."""
    sent: int = attrs.field(default=0, validator=_count)
    """Requests that may have reached the worker since it told `expiration`; each adds a lifetime."""
    doubtful: int = attrs.field(default=0, validator=_count)
    """How many of them perhaps did not."""

    def __attrs_post_init__(self) -> None:
        if self.doubtful > self.sent:
            raise InvalidValue("doubtful must not be more than sent")

    @property
    def url(self) -> str:
        """The worker's address, as the engine wrote it."""
        return self.grant.url

    @property
    def auth(self) -> bytes:
        """What the worker keeps of the grant, byte for byte as it was sent: its proof has to be equal (section 5)."""
        return auth_data(self.grant, self.request_idx)

    def save(self) -> dict[str, Any]:
        """Plain JSON values from which `load` makes the same handle. The grant, a secret, is among them."""
        return {
            "vastroute": "session",
            "version": 1,
            "session_id": self.session_id,
            "grant": self.grant.raw.decode("utf-8"),
            "lifetime": self.lifetime,
            "expiration": self.expiration,
            "request_idx": self.request_idx,
            "clock_ahead": self.clock_ahead,
            "sent": self.sent,
            "doubtful": self.doubtful,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any], *, limits: Limits = Limits()) -> SessionHandle:
        """The handle that `save` wrote. Raises `InvalidValue` if `saved` is none; the text never repeats the grant."""
        try:
            if (saved["vastroute"], saved["version"]) != ("session", 1):
                raise InvalidValue("this was not saved by a SessionHandle of this version")
            grant = decode_route(HttpResponse(status=200, body=saved["grant"].encode("utf-8")), limits=limits)
            if not isinstance(grant, Grant):
                raise InvalidValue("the grant of this saved session names no worker")
            return cls(
                session_id=saved["session_id"],
                grant=grant,
                lifetime=saved["lifetime"],
                expiration=saved["expiration"],
                request_idx=saved["request_idx"],
                clock_ahead=saved["clock_ahead"],
                sent=saved["sent"],
                doubtful=saved["doubtful"],
            )
        except InvalidValue:
            raise
        except CallFailed as error:
            raise InvalidValue(f"the grant of this saved session cannot be used: {error.message}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidValue(f"this is no saved session: {type(error).__name__}") from None


@attrs.frozen(kw_only=True)
class SessionInfo:
    """What the worker knows of a session."""

    session_id: str
    lifetime: float
    """Seconds that every request adds."""
    expiration: float
    """Seconds since 1970 on the worker's clock."""
    clock_ahead: float = 0.0
    """Seconds by which that clock is ahead of ours, from the answer's ``Date``; 0 if there was none."""
    created_at: float | None = None
    """Seconds since 1970 on the worker's clock, if it told."""
    on_close_route: str | None = None
    on_close_payload: Any = attrs.field(default=None, repr=False, hash=False)


@attrs.frozen(kw_only=True)
class SessionEnded:
    """There is no such session any more."""

    session_id: str
    was_open: bool
    """Whether this was its end; otherwise it had expired or been ended before."""


# --- messages ------------------------------------------------------------------------------------------------------


def session_payload(
    *, lifetime: float = DEFAULT_LIFETIME, on_close_route: str | None = None, on_close_payload: Any = None
) -> dict[str, Any]:
    """The payload of ``/session/create``, for a worker call to that route. Raises `InvalidValue`.

    `lifetime` is in seconds; every later request adds as much again.

    With `on_close_route` the worker POSTs `on_close_payload` there when the session ends, be it ended or expired; it
    adds ``session_id`` to a payload that is an object. Take care: that request is **not signed**, so its receiver
    cannot tell it from anybody's, and it is **sent from the worker**, an absolute URL wherever it leads, a path to
    the model beside the worker. The worker does not check who makes a session, so whoever reaches it can have it POST
    to any address. Put nothing into the route or the payload that the worker's owner must not see.
    """
    _lifetime(None, None, lifetime)
    payload: dict[str, Any] = {"lifetime": lifetime}
    if on_close_route is not None:
        if not isinstance(on_close_route, str) or not on_close_route.isprintable() or not on_close_route.strip():
            raise InvalidValue("on_close_route must be a URL, or a path at the worker's model")
        payload["on_close_route"] = on_close_route
        if on_close_payload is not None:
            try:
                payload["on_close_payload"] = json.loads(json.dumps(on_close_payload, allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidValue(f"on_close_payload must be something that JSON can hold: {error}") from None
    elif on_close_payload is not None:
        raise InvalidValue("on_close_payload is sent to on_close_route: without that the worker would drop it")
    return payload


def encode_session_create(
    grant: Grant,
    *,
    lifetime: float = DEFAULT_LIFETIME,
    on_close_route: str | None = None,
    on_close_payload: Any = None,
    request_idx: int | None = None,
) -> HttpRequest:
    """The request that makes a session at the grant's worker. See `session_payload` for the arguments.

    `request_idx` is the number that is held for the request; it is added to a grant that has none.
    """
    payload = session_payload(lifetime=lifetime, on_close_route=on_close_route, on_close_payload=on_close_payload)
    _index(None, None, request_idx)
    return encode_worker(grant, WorkerRequest(route=SESSION_CREATE, payload=payload), request_idx=request_idx)


def encode_session_get(handle: SessionHandle) -> HttpRequest:
    """The request for what the worker knows of a session. It does not prolong it."""
    return _request(handle, SESSION_GET)


def encode_session_health(handle: SessionHandle) -> HttpRequest:
    """The request whether a session is alive. It does not prolong it."""
    return _request(handle, SESSION_HEALTH)


def encode_session_end(handle: SessionHandle) -> HttpRequest:
    """The request that ends a session. The worker closes the connections of its requests in flight."""
    return _request(handle, SESSION_END)


def _request(handle: SessionHandle, route: str) -> HttpRequest:
    session_id = json.dumps(handle.session_id).encode("ascii")
    return HttpRequest(
        method="POST",
        origin=handle.grant.origin,
        target=join_target(handle.grant.path, route),
        headers=_HEADERS,
        body=b'{"session_id": %b, "session_auth": %b}' % (session_id, handle.auth),
    )


def decode_session_create(
    response: HttpResponse,
    *,
    grant: Grant,
    utc: float,
    lifetime: float = DEFAULT_LIFETIME,
    request_idx: int | None = None,
    limits: Limits = Limits(),
) -> SessionHandle:
    """The session that the worker has made. `grant`, `lifetime` and `request_idx` are those of the request.

    `utc` is our wall clock now, in seconds since 1970; with the answer's ``Date`` it tells how far the worker's clock
    is off. Raises a `CallFailed`: `Refused` where the worker has no room (429) or does not want it, `UnexpectedAnswer`
    where a session may have been made that nobody can name; it then expires by itself.
    """
    if not 200 <= response.status < 300:
        raise _refusal(response, _AT_CREATE, grant, request_idx)
    fields = _fields(response, limits, grant, request_idx)
    session_id, expiration = fields.get("session_id"), fields.get("expiration")
    if not _is_id(session_id) or not _is_seconds(expiration, _LATEST):
        raise _unusable("it names no session_id and expiration", response, grant, request_idx)
    return SessionHandle(
        session_id=session_id,
        grant=grant,
        lifetime=lifetime,
        expiration=float(expiration),
        request_idx=request_idx,
        clock_ahead=_clock_ahead(response, utc),
    )


def decode_session_get(
    response: HttpResponse, handle: SessionHandle, *, utc: float, limits: Limits = Limits()
) -> SessionInfo:
    """What the worker says of the session. `utc` is our wall clock now, in seconds since 1970.

    Raises a `CallFailed`: `SessionGone` if there is no such session, `Refused` if the grant is not the session's.
    """
    grant, index = handle.grant, handle.request_idx
    fields = _answer(response, limits, handle)
    lifetime, expiration = fields.get("lifetime"), fields.get("expiration")
    if fields.get("session_id") != handle.session_id:
        raise _unusable("it is about another session", response, grant, index)
    if not _is_seconds(lifetime, _LONGEST) or not _is_seconds(expiration, _LATEST):
        raise _unusable("it names no lifetime and expiration", response, grant, index)
    created_at, route = fields.get("created_at"), fields.get("on_close_route")
    return SessionInfo(
        session_id=handle.session_id,
        lifetime=lifetime,
        expiration=float(expiration),
        clock_ahead=_clock_ahead(response, utc),
        created_at=float(created_at) if _is_seconds(created_at, _LATEST) else None,
        on_close_route=route if isinstance(route, str) else None,
        on_close_payload=fields.get("on_close_payload"),
    )


def decode_session_health(response: HttpResponse, handle: SessionHandle, *, limits: Limits = Limits()) -> bool:
    """Whether the session is alive. Raises a `CallFailed`: `Refused` if the grant is not the session's."""
    try:
        alive = _answer(response, limits, handle).get("ok")
    except SessionGone:
        return False
    if not isinstance(alive, bool):
        raise _unusable("it does not say whether the session is alive", response, handle.grant, handle.request_idx)
    return alive


def decode_session_end(response: HttpResponse, handle: SessionHandle, *, limits: Limits = Limits()) -> SessionEnded:
    """The end of the session, also where it had ended before: that is what was wanted.

    Raises a `CallFailed`: `Refused` if the grant is not the session's.
    """
    try:
        fields = _answer(response, limits, handle)
    except SessionGone:
        return SessionEnded(session_id=handle.session_id, was_open=False)
    if fields.get("ended") is not True:
        raise _unusable("it does not say that the session has ended", response, handle.grant, handle.request_idx)
    return SessionEnded(session_id=handle.session_id, was_open=True)


_AT_CREATE: Mapping[int, OutcomeRow] = {
    429: OutcomeRow(Outcome.ANSWERED, Then.REROUTE, Advice.ASK_AGAIN, "the worker has no room for one more session"),
}
_LATER: Mapping[int, OutcomeRow] = {
    401: OutcomeRow(
        Outcome.ANSWERED, Then.STOP, Advice.CHECK_INPUT, "the grant is not the one that the session was made with"
    ),
}
"""Statuses that mean something else here than in answer to work; for all others, the table for work holds."""


def _answer(response: HttpResponse, limits: Limits, handle: SessionHandle) -> Mapping[str, Any]:
    """The fields of an answer about a session that exists. Raises a `CallFailed`."""
    if 200 <= response.status < 300:
        return _fields(response, limits, handle.grant, handle.request_idx)
    if response.status == 410 or (response.status == 400 and _names_session(response, limits)):
        message = f"the worker knows no session {handle.session_id}: it has ended"
        raise _error(SessionGone, message, Advice.ASK_AGAIN, response, handle.grant, handle.request_idx)
    raise _refusal(response, _LATER, handle.grant, handle.request_idx)


def _names_session(response: HttpResponse, limits: Limits) -> bool:
    # An unknown session is a 400 with a text about it; any other 400 may come from something before the worker.
    try:
        error = parse_object(response.body, limits)[1].get("error")
    except ValueError:
        return False
    return isinstance(error, str) and "session" in error.casefold()


def _fields(response: HttpResponse, limits: Limits, grant: Grant, request_idx: int | None) -> Mapping[str, Any]:
    try:
        return parse_object(response.body, limits)[1]
    except ValueError as error:
        raise _unusable(str(error), response, grant, request_idx) from None


def _refusal(
    response: HttpResponse, rows: Mapping[int, OutcomeRow], grant: Grant, request_idx: int | None
) -> CallFailed:
    row = rows.get(response.status) or outcome_of_status(response.status)
    reason = row.reason
    if 300 <= response.status < 400:
        reason = f"a redirect to {_host_of(response.headers.get('location'))}, never followed"
    cls = UnexpectedAnswer if row.advice is Advice.CHECK_ANSWER else Refused
    return _error(cls, reason, row.advice, response, grant, request_idx, row.outcome)


def _unusable(why: str, response: HttpResponse, grant: Grant, request_idx: int | None) -> CallFailed:
    message = f"the worker's answer about a session cannot be used: {why}"
    return _error(UnexpectedAnswer, message, Advice.CHECK_ANSWER, response, grant, request_idx)


def _error(
    cls: type[CallFailed],
    message: str,
    advice: Advice,
    response: HttpResponse,
    grant: Grant,
    request_idx: int | None,
    outcome: Outcome = Outcome.ANSWERED,
) -> CallFailed:
    # The worker's answer may repeat the grant, whose signature must not get into a text.
    secret = grant.signature.encode("utf-8", "replace")
    body = response.body.replace(secret, b"[masked]") if secret else response.body
    return cls(
        message,
        phase=Phase.WORKER,
        outcome=outcome,
        advice=advice,
        status=response.status,
        excerpt=excerpt(body),
        request_idx=grant.request_idx or request_idx,
        retry_after=retry_after(response),
    )


def _clock_ahead(response: HttpResponse, utc: float) -> float:
    # Date is cut to whole seconds, so this is up to one too small and no end is taken for earlier than it may be.
    date = _http_date(response.headers.get("date") or "")
    return 0.0 if date is None else date - utc


# --- the life of a session -----------------------------------------------------------------------------------------


class SessionState(Enum):
    """Where a session stands, as far as we know."""

    OPEN = "open"
    ENDED = "ended"
    """We ended it."""
    LOST = "lost"
    """The worker knows it no more."""


class SessionInput(Enum):
    """What can happen to it."""

    SENT = "a request was sent with it"
    ANSWERED = "a request was answered"
    FAILED = "a request broke"
    TOLD = "the worker told of it"
    END = "the worker ended it at our wish"
    GONE = "the worker does not know it"


SESSION_TABLE: Mapping[SessionState, Mapping[SessionInput, SessionState]] = {
    SessionState.OPEN: {
        SessionInput.SENT: SessionState.OPEN,
        SessionInput.ANSWERED: SessionState.OPEN,
        SessionInput.FAILED: SessionState.OPEN,
        SessionInput.TOLD: SessionState.OPEN,
        SessionInput.END: SessionState.ENDED,
        SessionInput.GONE: SessionState.LOST,
    },
    # Answers cross each other: what was out when the session ended is still reported, and changes nothing.
    SessionState.ENDED: {
        SessionInput.ANSWERED: SessionState.ENDED,
        SessionInput.FAILED: SessionState.ENDED,
        SessionInput.TOLD: SessionState.ENDED,
        SessionInput.GONE: SessionState.ENDED,
    },
    SessionState.LOST: {
        SessionInput.ANSWERED: SessionState.LOST,
        SessionInput.FAILED: SessionState.LOST,
        SessionInput.TOLD: SessionState.LOST,
        SessionInput.END: SessionState.ENDED,
        SessionInput.GONE: SessionState.LOST,
    },
}

_GONE = 410
_COUNTED = frozenset({401, 429, 499})


@final
class SessionLife:
    """Keeps account of one session: whether it lives, until when at least and at most, and what is still out.

    It does nothing by itself: report every request that is sent with the session's id, and what came of it. `now` is
    monotonic seconds, on one clock throughout; `utc` is the wall clock in seconds since 1970, read at the same moment,
    and only ever used to turn the worker's wall-clock expiration into the former.

    All instants are in monotonic seconds, and as good as the worker's clock is known, which is to about a second: leave
    a margin. To send with a session that has ended raises `LocalProtocolError`, and nothing changes.
    """

    __slots__ = ("_doubtful", "_handle", "_number", "_out", "_over_at", "_sent", "_shift", "_state", "_told_at")

    def __init__(self, handle: SessionHandle, *, now: float, utc: float) -> None:
        self._state = SessionState.OPEN
        self._number = 0
        self._out: set[int] = set()
        self._over_at: float | None = None
        self._take_up(handle, now, utc)

    def _take_up(self, handle: SessionHandle, now: float, utc: float) -> None:
        shift = now - utc - handle.clock_ahead
        if not math.isfinite(shift):
            raise InvalidValue("now must be monotonic seconds, and utc seconds since 1970")
        self._handle = handle
        self._sent, self._doubtful = handle.sent, handle.doubtful
        self._shift = shift
        self._told_at = self._number

    # What is reported

    def request_sent(self) -> int:
        """A request with the session's id leaves now, or may have left. The number that names it in later reports."""
        self._take(SessionInput.SENT)
        self._number += 1
        self._out.add(self._number)
        self._sent += 1
        return self._number

    def request_answered(self, number: int, status: int, *, now: float) -> None:
        """The head of the answer to request `number` came, with this HTTP status.

        A 410 means that the session is gone. Any 2xx, 401, 429 or 499 shows that the worker has counted the request;
        other statuses may come from before that, and leave it in doubt.
        """
        self._check(number)
        self._take(SessionInput.ANSWERED)
        self._out.remove(number)
        if status == _GONE:
            self.gone(now=now)
        elif not (200 <= status < 300 or status in _COUNTED):
            self._doubt(number)

    def request_failed(self, number: int, *, sent: bool | None) -> None:
        """Request `number` broke before an answer. `sent` is False if surely no byte left, None if nobody can say."""
        self._check(number)
        self._take(SessionInput.FAILED)
        self._out.remove(number)
        if sent is False:
            self._sent -= 1
            self._doubtful -= number <= self._told_at
        else:
            self._doubt(number)

    def told(self, info: SessionInfo, *, now: float, utc: float) -> None:
        """The worker told of the session: its word replaces the account so far.

        What is out counts as doubtful from now on, since nobody knows whether it is in that word. A request that is
        sent and answered while the worker is asked may be missing: ask while none is sent.
        """
        if info.session_id != self._handle.session_id:
            raise InvalidValue("this is about another session")
        out = len(self._out)
        handle = attrs.evolve(
            self._handle,
            lifetime=info.lifetime,
            expiration=info.expiration,
            clock_ahead=info.clock_ahead,
            sent=out,
            doubtful=out,
        )
        self._take(SessionInput.TOLD)
        if self._state is SessionState.OPEN:
            self._take_up(handle, now, utc)

    def ended(self, answer: SessionEnded, *, now: float) -> None:
        """The worker answered our wish to end the session."""
        if answer.was_open:
            self._take(SessionInput.END)
            self._over(now)
        else:
            self.gone(now=now)

    def gone(self, *, now: float) -> None:
        """The worker does not know the session, by whatever answer that was learned."""
        self._take(SessionInput.GONE)
        self._over(now)

    # What is known

    @property
    def state(self) -> SessionState:
        """Where the session stands. Time alone changes nothing here: only the worker's word does."""
        return self._state

    @property
    def handle(self) -> SessionHandle:
        """The session's handle with the account as it stands, to save; what is out is doubtful in it."""
        doubtful = self._doubtful + sum(number > self._told_at for number in self._out)
        return attrs.evolve(self._handle, sent=self._sent, doubtful=doubtful)

    @property
    def out(self) -> frozenset[int]:
        """The numbers of the requests that are sent and not yet reported on."""
        return frozenset(self._out)

    @property
    def kept_until(self) -> float:
        """Until when the session lives if nothing more is sent: the worker may then cut what is in flight.

        Requests that are out count, since the worker counts a request as it arrives; doubtful ones do not. Once the
        session is over, this is when that was learned.
        """
        return self._instant(self._sent - self._doubtful) if self._over_at is None else self._over_at

    def ends_by(self, requests: int = 0) -> float:
        """When the session is over at the latest, if nothing more is sent; or after that many more requests.

        All that may have been counted is, and the worker's sweep too: it looks for expired sessions every `SWEEP`
        seconds. Once the session is over, this is when that was learned. (The sweep may be held up by the
        ``on_close_route`` of other sessions, up to 10 seconds for each.)
        """
        if not _is_count(requests):
            raise InvalidValue("requests must be a whole number of at least 0")
        return self._instant(self._sent + requests) + SWEEP if self._over_at is None else self._over_at

    def stacked(self, *, now: float) -> float:
        """Seconds of paid time ahead of `now`, at the most: what ending the session now would save."""
        return max(0.0, self._instant(self._sent) - now) if self._over_at is None else 0.0

    def requests_needed(self, until: float) -> int:
        """How many more requests it takes to keep the session until then; 0 if none. Each adds a whole lifetime.

        Raises `LocalProtocolError` if it has ended, `InvalidValue` if `until` is not a finite number.
        """
        if self._over_at is not None:
            raise LocalProtocolError(f"the session is {self._state.value}: nothing keeps it")
        if not math.isfinite(until):
            raise InvalidValue("until must be monotonic seconds: a finite number")
        return max(0, math.ceil((until - self.kept_until) / self._handle.lifetime))

    def __repr__(self) -> str:
        return f"SessionLife({self._handle.session_id!r}, {self._state.value}, out={len(self._out)})"

    # The steps

    def _take(self, given: SessionInput) -> None:
        self._state = advance(SESSION_TABLE, self._state, given)

    def _check(self, number: int) -> None:
        if number not in self._out:
            raise LocalProtocolError(f"no request {number} is out: it was never sent, or was reported on already")

    def _doubt(self, number: int) -> None:
        # What was out when the worker told of the session is in doubt already.
        self._doubtful += number > self._told_at

    def _over(self, now: float) -> None:
        if self._over_at is None:
            self._over_at = now

    def _instant(self, requests: int) -> float:
        return self._handle.expiration + requests * self._handle.lifetime + self._shift
