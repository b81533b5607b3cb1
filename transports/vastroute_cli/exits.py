"""How the command ends: every exit code, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from vastroute import (
    CallFailed,
    Cancelled,
    ConnectionFailed,
    KeyRefused,
    LimitReached,
    Refused,
    SignatureRefused,
    UnexpectedAnswer,
)


class Exit(IntEnum):
    """The exit codes. They do not change their meaning; new ones may be added."""

    DONE = 0
    MACHINE = 1
    USAGE = 2
    NOT_READY = 3
    NOT_VERIFIED = 4
    KEY_REFUSED = 5
    REFUSED = 6
    UNEXPECTED_ANSWER = 7
    CONNECTION_FAILED = 8
    LIMIT_REACHED = 9
    SIGNATURE_REFUSED = 10
    DEMO_DIFFERS = 11
    INTERRUPTED = 130
    OUTPUT_CLOSED = 141


MEANINGS: Mapping[Exit, str] = {
    Exit.DONE: "done",
    Exit.MACHINE: "something on this machine failed, such as a full disk",
    Exit.USAGE: "an argument, a file or the key cannot be used; nothing was done",
    Exit.NOT_READY: "no worker is ready (route --no-wait)",
    Exit.NOT_VERIFIED: "the grant's signature is not verified (verify)",
    Exit.KEY_REFUSED: "the key is not accepted",
    Exit.REFUSED: "the engine or the worker answered, and the answer is no",
    Exit.UNEXPECTED_ANSWER: "they answered, but not in this protocol",
    Exit.CONNECTION_FAILED: "the exchange broke before there was a whole answer",
    Exit.LIMIT_REACHED: "a limit of yours ended the call, such as --timeout",
    Exit.SIGNATURE_REFUSED: "a grant did not pass --signature require",
    Exit.DEMO_DIFFERS: "a request did not end as its script says (demo)",
    Exit.INTERRUPTED: "interrupted with Ctrl-C",
    Exit.OUTPUT_CLOSED: "whoever read the output went away",
}

# The first row that fits decides, so a class stands before those that it derives from.
_BY_CLASS: tuple[tuple[type[CallFailed], Exit], ...] = (
    (KeyRefused, Exit.KEY_REFUSED),
    (Refused, Exit.REFUSED),
    (UnexpectedAnswer, Exit.UNEXPECTED_ANSWER),
    (ConnectionFailed, Exit.CONNECTION_FAILED),
    (LimitReached, Exit.LIMIT_REACHED),
    (SignatureRefused, Exit.SIGNATURE_REFUSED),
    (Cancelled, Exit.INTERRUPTED),
)


def exit_of(error: CallFailed) -> Exit:
    """The exit code for a call that failed."""
    return next((code for cls, code in _BY_CLASS if isinstance(error, cls)), Exit.MACHINE)


def table() -> str:
    """All of them, a line each."""
    return "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())
