"""What a broken exchange amounts to, whatever an HTTP library or a driver says of it.

The exceptions are Python's own. Those of an HTTP library wrap them, as their cause or as one of their arguments, and
are read down to the first that is known. The context of an exception is not read: it may be of something else.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .errors import Advice, ConnectionFailed, FailureKind, Outcome, Phase, TunnelFailed
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


class Told(NamedTuple):
    """What an exception says."""

    kind: FailureKind
    unsent: bool = False
    """Whether it can only come before the first byte of a request leaves."""


_BY_CLASS: Mapping[tuple[str, str], Told] = {
    ("builtins", "TimeoutError"): Told(FailureKind.TIMEOUT),
    ("socket", "gaierror"): Told(FailureKind.NAME, True),
    ("ssl", "SSLCertVerificationError"): Told(FailureKind.TLS, True),
    ("ssl", "SSLEOFError"): Told(FailureKind.EOF),
    ("ssl", "SSLError"): Told(FailureKind.TLS),
    ("builtins", "ConnectionRefusedError"): Told(FailureKind.REFUSED, True),
    ("builtins", "ConnectionError"): Told(FailureKind.RESET),
}
"""By module and name, since the core imports neither ssl nor socket; the nearest class that is listed decides."""

_BY_ERRNO: Mapping[int, Told] = {
    errno.ECONNREFUSED: Told(FailureKind.REFUSED, True),
    errno.EHOSTUNREACH: Told(FailureKind.UNREACHABLE),
    errno.ENETUNREACH: Told(FailureKind.UNREACHABLE),
    errno.EHOSTDOWN: Told(FailureKind.UNREACHABLE),
    errno.ENETDOWN: Told(FailureKind.UNREACHABLE),
    errno.ECONNRESET: Told(FailureKind.RESET),
    errno.EPIPE: Told(FailureKind.RESET),
    errno.ECONNABORTED: Told(FailureKind.RESET),
    errno.ETIMEDOUT: Told(FailureKind.TIMEOUT),
}

_BEYOND_THE_PROXY = frozenset({502, 503, 504})
"""What a proxy answers where it is the host behind it that cannot be reached."""
_NOTHING = Told(FailureKind.OTHER)


def told_by(error: FailureKind | BaseException | str, depth: int = _MOST_CAUSES) -> Told:
    """What `error` says; a kind is itself, and a text says nothing."""
    if isinstance(error, FailureKind):
        return Told(error)
    if isinstance(error, str):
        return _NOTHING
    if isinstance(error, ConnectionFailed):
        return Told(error.kind or FailureKind.OTHER, error.outcome is Outcome.NOT_SENT)
    if isinstance(error, TunnelFailed):
        beyond = error.status in _BEYOND_THE_PROXY
        return Told(FailureKind.UNREACHABLE if beyond else FailureKind.PROXY, True)
    for cls in type(error).__mro__:
        if (told := _BY_CLASS.get((cls.__module__, cls.__name__))) is not None:
            return told
    if isinstance(error, OSError) and (told := _BY_ERRNO.get(error.errno or 0)) is not None:
        return told
    causes = [told_by(cause, depth - 1) for cause in _causes(error)] if depth else []
    kind = next((each.kind for each in causes if each.kind is not FailureKind.OTHER), FailureKind.OTHER)
    # Of several, as of a host whose addresses all failed, each must say that nothing left.
    return Told(kind, bool(causes) and all(each.unsent for each in causes))


def judge_failure(
    error: FailureKind | BaseException | str, kind: FailureKind | None = None, *, sent: bool | None
) -> tuple[FailureKind, bool | None]:
    """How an exchange broke, and whether its request left: what a driver says, and what `error` says of the rest.

    It is what a machine makes of the arguments of its ``failed``, for whoever stands between it and its driver.
    """
    told = told_by(error)
    says_so = isinstance(error, FailureKind) or (isinstance(error, ConnectionFailed) and error.kind is not None)
    if kind is None or says_so:
        kind = told.kind
    return kind, False if sent is None and told.unsent else sent


def failure_of(
    error: FailureKind | BaseException | str, kind: FailureKind, *, phase: Phase, sent: bool | None, key: Secret | None
) -> ConnectionFailed:
    """The error that a broken exchange amounts to; an exception becomes its cause."""
    detail, limit = "", None
    if not isinstance(error, FailureKind):
        if isinstance(error, ConnectionFailed):
            limit = error.limit
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


def _causes(error: BaseException) -> Sequence[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return error.exceptions
    if error.__cause__ is not None:
        return (error.__cause__,)
    return [each for each in error.args if isinstance(each, BaseException)][:1]


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
