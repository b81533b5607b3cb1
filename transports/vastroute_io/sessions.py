"""What the transports' sessions share: no I/O, only the account of what came of it."""

from __future__ import annotations

from vastroute import (
    DEFAULT_LIFETIME,
    Answer,
    Call,
    CallFailed,
    HttpResponse,
    Outcome,
    SessionHandle,
    SessionLife,
    decode_session_create,
)

END_SECONDS = 5.0
"""How long the end of a session is waited for on leaving its block."""


def handle_of(answer: Answer, *, utc: float, lifetime: float | None) -> SessionHandle:
    """The session that a worker's answer to ``/session/create`` tells of. Raises a `vastroute.CallFailed`."""
    return decode_session_create(
        HttpResponse(status=answer.status, headers=answer.headers, body=answer.body),
        grant=answer.grant,
        utc=utc,
        lifetime=DEFAULT_LIFETIME if lifetime is None else lifetime,
        request_idx=answer.request_idx if answer.request_idx_added else None,
    )


def report(life: SessionLife, number: int, call: Call, *, now: float) -> None:
    """Tell `life` what came of its request `number`, as far as `call` knows."""
    head = call.stream_head
    if head is not None:
        life.request_answered(number, head.status, now=now)
        return
    try:
        status: int | None = call.result().status
        sent = True
    except CallFailed as error:
        status, sent = error.status, error.outcome is not Outcome.NOT_SENT
    if status is None:
        life.request_failed(number, sent=sent)
    else:
        life.request_answered(number, status, now=now)
