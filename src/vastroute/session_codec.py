"""The messages of worker sessions: made, looked at, ended. Pure functions, like the codec's.

Source: wire facts, section 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .errors import Advice, CallFailed, InvalidValue, Outcome, Phase, Refused, SessionGone, UnexpectedAnswer
from .messages import USER_AGENT, Grant, Headers, HttpRequest, HttpResponse
from .outcomes import OutcomeRow, Then, outcome_of_status
from .policy import Limits
from .reading import excerpt, host_of, http_date, parse_object, retry_after
from .sessions import (
    DEFAULT_LIFETIME,
    LATEST,
    LONGEST,
    SessionEnded,
    SessionHandle,
    SessionInfo,
    check_lifetime,
    is_id,
    is_seconds,
)
from .urls import join_target
from .work import WorkerRequest, encode_worker

SESSION_CREATE = "/session/create"
SESSION_GET = "/session/get"
SESSION_HEALTH = "/session/health"
SESSION_END = "/session/end"

_HEADERS = Headers((("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT)))


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
    check_lifetime(lifetime)
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
    if not is_id(session_id) or not is_seconds(expiration, LATEST):
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
    if not is_seconds(lifetime, LONGEST) or not is_seconds(expiration, LATEST):
        raise _unusable("it names no lifetime and expiration", response, grant, index)
    created_at, route = fields.get("created_at"), fields.get("on_close_route")
    return SessionInfo(
        session_id=handle.session_id,
        lifetime=lifetime,
        expiration=float(expiration),
        clock_ahead=_clock_ahead(response, utc),
        created_at=float(created_at) if is_seconds(created_at, LATEST) else None,
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
        reason = f"a redirect to {host_of(response.headers.get('location'))}, never followed"
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
    date = http_date(response.headers.get("date") or "")
    return 0.0 if date is None else date - utc
