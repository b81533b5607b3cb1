"""What the library's values are called in the vectors: plain JSON, with names that no language owns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import attrs

from vastroute import (
    CallFailed,
    Cancelled,
    ConnectionFailed,
    Counts,
    Entry,
    Grant,
    Headers,
    HttpRequest,
    InvalidValue,
    KeyRefused,
    LimitReached,
    NotReady,
    Refused,
    ServerSentEvent,
    SessionEnded,
    SessionGone,
    SessionHandle,
    SessionInfo,
    SignatureRefused,
    StreamEvent,
    TunnelFailed,
    UnexpectedAnswer,
    VastrouteError,
)

from .files import Plain, put

ERRORS: Mapping[type[VastrouteError], str] = {
    InvalidValue: "invalid_value",
    TunnelFailed: "tunnel_failed",
    Refused: "refused",
    KeyRefused: "key_refused",
    SessionGone: "session_gone",
    UnexpectedAnswer: "unexpected_answer",
    ConnectionFailed: "connection_failed",
    LimitReached: "limit_reached",
    SignatureRefused: "signature_refused",
    Cancelled: "cancelled",
}
"""The names of errors."""


def name_of(member: Enum | None) -> str | None:
    """The name of an enum's member: ``not_sent``, ``ask_again``, ``too_large``."""
    return None if member is None else member.name.lower()


def error(failure: VastrouteError, hidden: Iterable[str] = ()) -> Plain:
    """An error, which must not show what is `hidden`."""
    said: Plain = {"name": ERRORS[type(failure)]}
    if isinstance(failure, TunnelFailed):
        said["status"] = failure.status
    if isinstance(failure, CallFailed):
        said |= {
            "phase": name_of(failure.phase),
            "outcome": name_of(failure.outcome),
            "advice": name_of(failure.advice),
            "status": failure.status,
            "kind": name_of(failure.kind),
            "limit": failure.limit,
            "may_have_run": failure.may_have_run or None,
            "retry_after": failure.retry_after,
            "request_idx": failure.request_idx,
            "request_id": failure.request_id,
        }
    text = f"{failure} {failure!r} {getattr(failure, 'excerpt', '')} {getattr(failure, 'request_id', '')}"
    assert not [secret for secret in hidden if secret in text], "it shows what it must not"
    return {"error": said}


def headers(values: Headers) -> list[list[str]]:
    """Headers in order."""
    return [[name, value] for name, value in values]


def request(made: HttpRequest) -> Plain:
    """A request, all of it."""
    return {
        "request": {
            "method": made.method,
            "origin": str(made.origin),
            "target": made.target,
            "headers": headers(made.headers),
            **put("body", made.body),
        }
    }


def route_answer(answer: Grant | NotReady) -> Plain:
    """What the engine's answer says."""
    if isinstance(answer, NotReady):
        return {
            "not_ready": {
                "status": answer.status,
                "counts": dict(answer.counts),
                "request_idx": answer.request_idx,
                "request_id": answer.request_id,
                "endpoint": answer.endpoint,
            }
        }
    return {
        "grant": {
            **put("raw", answer.raw),
            "url": answer.url,
            "origin": str(answer.origin),
            "path": answer.path,
            "endpoint": answer.endpoint,
            "cost_json": repr(answer.cost),
            "reqnum": answer.reqnum,
            "signature": answer.signature,
            "request_idx": answer.request_idx,
            "request_id": answer.request_id,
        }
    }


def session(handle: SessionHandle) -> Plain:
    """A session that was made."""
    return {
        "session": {
            "session_id": handle.session_id,
            "lifetime": handle.lifetime,
            "expiration": handle.expiration,
            "clock_ahead": handle.clock_ahead,
            "request_idx": handle.request_idx,
        }
    }


def session_info(info: SessionInfo) -> Plain:
    """What a worker tells of a session."""
    return {
        "info": {
            "session_id": info.session_id,
            "lifetime": info.lifetime,
            "expiration": info.expiration,
            "clock_ahead": info.clock_ahead,
            "created_at": info.created_at,
            "on_close_route": info.on_close_route,
            "on_close_payload": info.on_close_payload,
        }
    }


def session_ended(ended: SessionEnded) -> Plain:
    """The end of a session."""
    return {"ended": {"session_id": ended.session_id, "was_open": ended.was_open}}


def event(given: StreamEvent) -> Plain:
    """One event of a stream."""
    if isinstance(given, bytes):
        return put("bytes", given)
    if isinstance(given, ServerSentEvent):
        named = {} if given.event == "message" else {"event": given.event}
        return {"data": given.data, **named, **({"id": given.id} if given.id else {}), "retry": given.retry}
    return {"line": given.text}


def counts(given: Counts) -> Plain:
    """The counts that are not 0."""
    return {name: value for name, value in attrs.asdict(given).items() if value}


def record(entries: Sequence[Entry]) -> list[Plain]:
    """What happened, without the words for people."""
    return [
        {
            "kind": name_of(each.kind),
            "at": each.at,
            "phase": name_of(each.phase),
            "attempt": each.attempt,
            "request_idx": each.request_idx,
            "status": each.status,
            "until": each.until,
        }
        for each in entries
    ]


def answered(data: Any, body: bytes, content_type: str) -> Plain:
    """What the body of a worker's answer says."""
    if not body:
        return {"empty": True}
    if isinstance(data, bytes):
        return put("bytes", data)
    if data is None:
        return {"null": True}
    return {"text": data} if content_type.startswith("text/") else {"json": data}
