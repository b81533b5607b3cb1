"""Every way in which the worker hop can end, and what follows: one table, one row each.

Two questions decide. Did the work perhaps start? Work that perhaps started is paid for, so it is repeated only where
the caller said that it is safe to run twice. And whose fault is it? A full worker, or one that is gone, is replaced by
another under the same ``request_idx``; what the request itself is to blame for comes back to the caller.

The rows follow what the official worker answers (wire facts, sections 2 and 3). It passes a model's own status on
unchanged, so a 4xx or 5xx may be the model's: only 429 and 503, which say that nothing was begun, are taken as a
worker's refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

from .errors import Advice, FailureKind, Outcome


class Then(Enum):
    """What follows."""

    ANSWER = "give the caller the answer"
    REROUTE = "ask for another worker"
    REROUTE_IF_SAFE = "ask for another worker if the work may run twice, else stop"
    FRESH_GRANT = "ask for another grant once, then stop"
    STOP = "stop"


@attrs.frozen
class OutcomeRow:
    """One row: how far the exchange came, what follows, what may be done about it, and the reason in words.

    Where the work may have run, `vastroute.Advice.ASK_AGAIN` holds for work that is safe to repeat: a `vastroute.Call`
    turns it into `vastroute.Advice.CHECK_WORK` for any other.
    """

    outcome: Outcome
    then: Then
    advice: Advice
    reason: str
    may_have_run: bool = False
    """Whether the work may have run, and be paid for."""


def _lost(reason: str) -> OutcomeRow:
    return OutcomeRow(Outcome.PERHAPS_STARTED, Then.REROUTE_IF_SAFE, Advice.ASK_AGAIN, reason, may_have_run=True)


def _unsent(reason: str) -> OutcomeRow:
    return OutcomeRow(Outcome.NOT_SENT, Then.REROUTE, Advice.ASK_AGAIN, reason)


def _final(advice: Advice, reason: str) -> OutcomeRow:
    return OutcomeRow(Outcome.ANSWERED, Then.STOP, advice, reason)


NOT_SENT: Mapping[FailureKind, OutcomeRow] = {
    FailureKind.NAME: _unsent("the worker's host name is not found"),
    FailureKind.REFUSED: _unsent("the worker refuses connections"),
    FailureKind.UNREACHABLE: _unsent("the worker cannot be reached"),
    FailureKind.TLS: _unsent("the worker's TLS cannot be trusted"),
    FailureKind.PROXY: OutcomeRow(
        Outcome.NOT_SENT, Then.STOP, Advice.CHECK_INPUT, "the proxy does not let us reach the worker"
    ),
    FailureKind.GUARD: OutcomeRow(
        Outcome.NOT_SENT, Then.STOP, Advice.ALLOW, "the grant leads where it is not allowed to lead"
    ),
    FailureKind.TIMEOUT: _unsent("the worker does not take connections in time"),
    FailureKind.RESET: _unsent("the worker resets connections"),
    FailureKind.EOF: _unsent("the worker closes connections"),
    FailureKind.GARBAGE: _unsent("the worker does not speak HTTP"),
    FailureKind.TOO_LARGE: _unsent("the worker's first words are too long"),
    FailureKind.OTHER: _unsent("the request could not be sent"),
}
"""Failures before the first byte of the request left."""

PERHAPS_STARTED: Mapping[FailureKind, OutcomeRow] = {
    FailureKind.NAME: _lost("the worker's host name was lost"),
    FailureKind.REFUSED: _lost("the worker refused in the middle of the exchange"),
    FailureKind.UNREACHABLE: _lost("the worker became unreachable"),
    FailureKind.TLS: _lost("the worker's TLS broke"),
    FailureKind.PROXY: _lost("the proxy broke off"),
    FailureKind.GUARD: _lost("the connection led where it is not allowed to lead"),
    FailureKind.TIMEOUT: _lost("the worker did not answer in time"),
    FailureKind.RESET: _lost("the worker reset the connection"),
    FailureKind.EOF: _lost("the worker closed the connection before the end of its answer"),
    FailureKind.GARBAGE: _lost("the worker answered something that is not HTTP"),
    FailureKind.TOO_LARGE: OutcomeRow(
        Outcome.ANSWERED,
        Then.STOP,
        Advice.RAISE_LIMIT,
        "the worker's answer is larger than allowed",
        may_have_run=True,
    ),
    FailureKind.OTHER: _lost("the exchange with the worker failed"),
}
"""Failures after bytes of the request left, or where nobody can say."""

STATUSES: Mapping[int, OutcomeRow] = {
    401: OutcomeRow(
        Outcome.ANSWERED, Then.FRESH_GRANT, Advice.ASK_AGAIN, "the worker does not accept the grant's signature"
    ),
    408: _lost("the worker, or its model, timed out"),
    410: _final(Advice.ASK_AGAIN, "the worker knows no such session: it has ended"),
    422: _final(Advice.CHECK_INPUT, "the worker finds the envelope or the payload wrong"),
    429: OutcomeRow(Outcome.ANSWERED, Then.REROUTE, Advice.ASK_AGAIN, "the worker is full"),
    499: _lost("the worker believes that we went away"),
    502: _lost("something before the worker lost it"),
    503: OutcomeRow(Outcome.ANSWERED, Then.REROUTE, Advice.ASK_AGAIN, "the worker takes no work now"),
    504: _lost("something before the worker gave up waiting for it"),
}
"""Statuses with a meaning of their own."""

STATUS_CLASSES: Mapping[int, OutcomeRow] = {
    2: OutcomeRow(Outcome.ANSWERED, Then.ANSWER, Advice.NOTHING, "the worker answered", may_have_run=True),
    3: _final(Advice.CHECK_ANSWER, "a redirect, never followed"),
    4: _final(Advice.CHECK_INPUT, "the worker, or its model, refuses the request"),
    5: OutcomeRow(
        Outcome.ANSWERED,
        Then.REROUTE_IF_SAFE,
        Advice.ASK_AGAIN,
        "the worker, or its model, failed at the work",
        may_have_run=True,
    ),
}
"""All other statuses, by their first digit."""

_STRANGE = _final(Advice.CHECK_ANSWER, "a status that ends no exchange")


def outcome_of_failure(kind: FailureKind, *, sent: bool | None) -> OutcomeRow:
    """The row for an exchange that broke; `sent` is False only if surely no byte left."""
    return (NOT_SENT if sent is False else PERHAPS_STARTED)[kind]


def outcome_of_status(status: int) -> OutcomeRow:
    """The row for an answer with this HTTP status."""
    return STATUSES.get(status) or STATUS_CLASSES.get(status // 100, _STRANGE)
