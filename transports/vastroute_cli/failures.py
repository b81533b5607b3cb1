"""Errors in words: the text, what may be done about it in the command's own options, and where to go on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs

from vastroute import Advice, CallFailed, FailureKind, Phase, Verdict

from .exits import Exit, exit_of
from .output import say, write_json

_ADVICE: Mapping[Advice, str] = {
    Advice.ASK_AGAIN: "ask again later",
    Advice.CHECK_WORK: "check that before you repeat it, or say --safe-to-repeat",
    Advice.CHECK_KEY: "check the key: VAST_API_KEY or --key-file",
    Advice.CHECK_INPUT: "check the request",
    Advice.CHECK_ENDPOINT: "check the endpoint: `vastroute endpoints` lists those of the account's key",
    Advice.RAISE_LIMIT: "raise the limit",
    Advice.ALLOW: "allow it by its switch",
    Advice.CHECK_ANSWER: "look at the answer: it is not of this protocol",
}
_OPTIONS: Mapping[str, str] = {
    "total": "raise the limit with --timeout",
    "allow_plain_http": "--allow-plain-http allows it",
    "allow_private_address": "--allow-private-address allows it",
}
"""What the command has an option for, by the error's ``limit``."""


def advice_of(error: CallFailed) -> str:
    """What may be done about `error`, in one line; empty if there is nothing."""
    parts = []
    if error.may_have_run:
        parts.append("the work may have run")
    if error.advice is Advice.CHECK_WORK and error.limit in _OPTIONS:
        parts.append(_ADVICE[error.advice])
    if error.phase is Phase.LOOKUP and error.advice is Advice.CHECK_KEY:
        parts.append("check the key: this wants the account's own")
    elif error.kind is FailureKind.TLS:
        parts.append("look at the certificate, and at who answers there")
    elif error.limit is not None and error.limit in _OPTIONS:
        parts.append(_OPTIONS[error.limit])
    elif error.advice in _ADVICE:
        parts.append(_ADVICE[error.advice])
    if error.request_idx is not None:
        parts.append(f"--request-idx {error.request_idx} goes on with this request")
    return "; ".join(parts)


def reason_of(error: CallFailed) -> str:
    """What the system said at the bottom of it, where the error's own text does not: why TLS failed, for one."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause)
    return f" ({text})" if isinstance(cause, OSError) and text and text not in str(error) else ""


def say_error(error: CallFailed | str) -> None:
    """An error on stderr: one line, or two with its advice."""
    reason = reason_of(error) if isinstance(error, CallFailed) else ""
    say(f"error: {error}{reason}", "red")
    if isinstance(error, CallFailed) and (advice := advice_of(error)):
        say(f"  {advice}")


def verdict_fields(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values."""
    return {**attrs.asdict(verdict), "reason": verdict.reason.value, "verified": verdict.verified}


def error_fields(error: CallFailed) -> dict[str, Any]:
    """Everything known about a failed call, as JSON values; the bytes of an answer and the record left out."""
    return {
        "kind": "error",
        "error": type(error).__name__,
        "exit_code": exit_of(error).value,
        "message": error.message,
        "phase": error.phase.value,
        "outcome": error.outcome.value,
        "may_have_run": error.may_have_run,
        "advice": error.advice.value,
        "status": error.status,
        "excerpt": error.excerpt,
        "failure": error.kind.value if error.kind is not None else None,
        "limit": error.limit,
        "retry_after": error.retry_after,
        "request_idx": error.request_idx,
        "request_id": error.request_id,
        "verdict": verdict_fields(error.verdict) if error.verdict is not None else None,
        "counts": attrs.asdict(error.counts) if error.counts is not None else None,
    }


def attempt(work: Callable[[], Awaitable[Exit]], *, json: bool) -> Exit:
    """Run `work` to its end; what fails in it is reported, and becomes an exit code."""
    import trio

    try:
        return trio.run(work)
    except CallFailed as error:
        say_error(error)
        if json:
            write_json(error_fields(error))
        return exit_of(error)
    except BaseExceptionGroup as group:
        # Ctrl-C inside a nursery comes out in a group.
        if group.subgroup(KeyboardInterrupt) is None:
            raise
        raise KeyboardInterrupt from None
