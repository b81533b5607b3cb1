"""What a broken exchange amounts to, whatever an HTTP library or a driver says of it."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import Advice, ConnectionFailed, FailureKind, Outcome, Phase
from .messages import Secret
from .reading import excerpt

FAILURE_ADVICE: Mapping[FailureKind, Advice] = {
    FailureKind.NAME: Advice.ASK_AGAIN,
    FailureKind.REFUSED: Advice.ASK_AGAIN,
    FailureKind.UNREACHABLE: Advice.ASK_AGAIN,
    FailureKind.TLS: Advice.CHECK_ANSWER,
    FailureKind.PROXY: Advice.CHECK_INPUT,
    FailureKind.GUARD: Advice.ALLOW,
    FailureKind.TIMEOUT: Advice.ASK_AGAIN,
    FailureKind.RESET: Advice.ASK_AGAIN,
    FailureKind.EOF: Advice.ASK_AGAIN,
    FailureKind.GARBAGE: Advice.ASK_AGAIN,
    FailureKind.TOO_LARGE: Advice.CHECK_ANSWER,
    FailureKind.OTHER: Advice.ASK_AGAIN,
}
"""What may be done about a broken exchange with the engine; only what may pass by itself is tried again."""

_MOST_CAUSES = 16
"""How far the causes of an exception are followed: they may go in a circle."""


def failure_of(
    error: FailureKind | BaseException | str, kind: FailureKind, *, phase: Phase, sent: bool | None, key: Secret | None
) -> ConnectionFailed:
    """The error that a broken exchange amounts to; an exception becomes its cause."""
    detail, limit = "", None
    if isinstance(error, FailureKind):
        kind = error
    else:
        if isinstance(error, ConnectionFailed):
            kind, limit = error.kind or kind, error.limit
        detail = f": {excerpt(_words(error), key)}"
    failure = ConnectionFailed(
        kind.value + detail,
        phase=phase,
        outcome=Outcome.NOT_SENT if sent is False else Outcome.PERHAPS_STARTED,
        advice=FAILURE_ADVICE[kind],
        kind=kind,
        limit=limit,
    )
    failure.__cause__ = error if isinstance(error, BaseException) else None
    return failure


def _words(error: BaseException | str) -> str:
    """What an exception says; a library that wraps one often says nothing itself."""
    if isinstance(error, str):
        return error
    deepest = error
    for _ in range(_MOST_CAUSES):
        if str(deepest) or deepest.__cause__ is None:
            break
        deepest = deepest.__cause__
    return ": ".join(filter(None, (type(deepest).__name__, str(deepest))))
