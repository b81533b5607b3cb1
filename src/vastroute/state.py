"""The states, the inputs and the tables: every transition there is. Nothing else in the package changes a state.

A pair of state and input that has no entry is a mistake of whoever gave the input: `advance` refuses it with
`LocalProtocolError` and nothing changes. This module knows no HTTP and no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeVar

from .errors import LocalProtocolError


class _Row(Enum):
    """What a table is looked up by. Its members are singletons, and an Enum's own hash is a Python function."""

    __hash__: Callable[..., int] = object.__hash__


class AskState(_Row):
    """Where a call to the engine (or a look-up) stands."""

    WAITING = "waiting"
    """Until an ask is due; the first one is due at once."""
    ASKING = "asking"
    """A request is out, no head of an answer has come."""
    READING = "reading"
    """The head has come, the rest is on its way."""
    ANSWERED = "answered"
    """There is a result."""
    FAILED = "failed"
    CANCELLED = "cancelled"


class AskInput(_Row):
    """What can happen to it."""

    DUE = "the pause is over"
    HEAD = "the answer's head came"
    CHUNK = "a piece of the answer's body came"
    ACCEPT = "the answer is what was asked for"
    NOT_READY = "the answer says to ask again later"
    TROUBLE = "the exchange failed and may be repeated"
    REFUSE = "the answer or the failure is final"
    LIMIT = "a limit was reached"
    CANCEL = "the caller cancelled"
    LOST = "the granted worker failed"


ASK_TABLE: Mapping[AskState, Mapping[AskInput, AskState]] = {
    AskState.WAITING: {
        AskInput.DUE: AskState.ASKING,
        AskInput.LIMIT: AskState.FAILED,
        AskInput.CANCEL: AskState.CANCELLED,
    },
    AskState.ASKING: {
        AskInput.HEAD: AskState.READING,
        AskInput.TROUBLE: AskState.WAITING,
        AskInput.REFUSE: AskState.FAILED,
        AskInput.LIMIT: AskState.FAILED,
        AskInput.CANCEL: AskState.CANCELLED,
    },
    AskState.READING: {
        AskInput.CHUNK: AskState.READING,
        AskInput.ACCEPT: AskState.ANSWERED,
        AskInput.NOT_READY: AskState.WAITING,
        AskInput.TROUBLE: AskState.WAITING,
        AskInput.REFUSE: AskState.FAILED,
        AskInput.LIMIT: AskState.FAILED,
        AskInput.CANCEL: AskState.CANCELLED,
    },
    AskState.ANSWERED: {
        AskInput.LOST: AskState.WAITING,
        AskInput.LIMIT: AskState.FAILED,
        AskInput.CANCEL: AskState.CANCELLED,
    },
    AskState.FAILED: {},
    AskState.CANCELLED: {},
}
"""What follows upon what in a call to the engine, and in a look-up."""


class CallState(_Row):
    """Where a call of both hops stands."""

    ROUTING = "routing"
    """The inner route call decides what to do."""
    SENDING = "sending"
    """The work is out at a worker, no head of an answer has come."""
    READING = "reading"
    """The answer's head has come, the rest is on its way."""
    STREAMING = "streaming"
    """The answer is handed to the caller as it comes."""
    ANSWERED = "answered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CallInput(_Row):
    """What can happen to it."""

    GRANTED = "there is a worker"
    HEAD = "the answer's head came"
    STREAM = "the head of a stream came"
    CHUNK = "a piece of the answer's body came"
    ANSWER = "the answer is complete"
    REROUTE = "another worker is needed"
    REFUSE = "the answer or the failure is final"
    LIMIT = "a limit was reached"
    CANCEL = "the caller cancelled"


CALL_TABLE: Mapping[CallState, Mapping[CallInput, CallState]] = {
    CallState.ROUTING: {
        CallInput.GRANTED: CallState.SENDING,
        CallInput.REFUSE: CallState.FAILED,
        CallInput.CANCEL: CallState.CANCELLED,
    },
    CallState.SENDING: {
        CallInput.HEAD: CallState.READING,
        CallInput.STREAM: CallState.STREAMING,
        CallInput.REROUTE: CallState.ROUTING,
        CallInput.REFUSE: CallState.FAILED,
        CallInput.LIMIT: CallState.FAILED,
        CallInput.CANCEL: CallState.CANCELLED,
    },
    CallState.READING: {
        CallInput.CHUNK: CallState.READING,
        CallInput.ANSWER: CallState.ANSWERED,
        CallInput.REROUTE: CallState.ROUTING,
        CallInput.REFUSE: CallState.FAILED,
        CallInput.LIMIT: CallState.FAILED,
        CallInput.CANCEL: CallState.CANCELLED,
    },
    CallState.STREAMING: {
        CallInput.CHUNK: CallState.STREAMING,
        CallInput.ANSWER: CallState.ANSWERED,
        CallInput.REFUSE: CallState.FAILED,
        CallInput.LIMIT: CallState.FAILED,
        CallInput.CANCEL: CallState.CANCELLED,
    },
    CallState.ANSWERED: {},
    CallState.FAILED: {},
    CallState.CANCELLED: {},
}
"""What follows upon what in a call of both hops."""


class SessionState(_Row):
    """Where a session stands, as far as we know."""

    OPEN = "open"
    ENDED = "ended"
    """We ended it."""
    LOST = "lost"
    """The worker knows it no more."""


class SessionInput(_Row):
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
"""What follows upon what in the life of a worker session."""

S = TypeVar("S", bound=Enum)
I = TypeVar("I", bound=Enum)  # noqa: E741  # states and inputs are S and I in every book


def advance(table: Mapping[S, Mapping[I, S]], state: S, given: I) -> S:
    """The state that follows `state` upon `given`. Raises `LocalProtocolError` if the table has none."""
    try:
        return table[state][given]
    except KeyError:
        possible = ", ".join(repr(each.value) for each in table[state]) or "nothing: it is over"
        raise LocalProtocolError(
            f"in the state {state.value!r} it cannot take {given.value!r}; it takes {possible}"
        ) from None
