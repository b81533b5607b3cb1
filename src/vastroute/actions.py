"""What a machine can ask of its driver. Exactly one action is pending at any time.

A driver does what the action says and reports what came of it; it decides nothing. `Done` and `GiveUp` stay for ever.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Generic, TypeVar

import attrs

from .errors import CallFailed, Phase
from .messages import HttpRequest

if TYPE_CHECKING:
    from .guard import Guard

T_co = TypeVar("T_co", covariant=True)


class Why(Enum):
    """The reason for a pause."""

    START = "start"
    """None: the first ask is due at once."""
    POLL = "poll"
    """Nothing was ready."""
    RETRY = "retry"
    """Something failed."""
    REROUTE = "re-route"
    """The granted worker failed; another is asked for."""
    RESUME = "resume"
    """The call was taken up from its saved state."""


@attrs.frozen(kw_only=True)
class Send:
    """Send this request. Report the answer with ``receive`` (or ``head``, ``chunk``, ``end``), or ``failed``.

    If nothing has come by `deadline`, end the exchange and report ``failed(FailureKind.TIMEOUT, ...)``.
    """

    request: HttpRequest
    connect_by: float
    """Monotonic seconds: by then the request must have left."""
    deadline: float
    """Monotonic seconds: by then the answer's head must be here."""
    attempt: int
    """The number of this exchange within the call, from 1."""
    phase: Phase = Phase.ROUTE
    fresh: bool = False
    """Use a new connection, not a kept one."""
    max_body: int | None = None
    """Bytes of body that will be taken; None for a stream."""
    guard: Guard | None = None
    """Ask it about the address that the host name resolved to, before dialling it."""


@attrs.frozen(kw_only=True)
class Receive:
    """Go on with the answer whose head was reported: more comes by `deadline`, or it has failed."""

    deadline: float
    attempt: int
    phase: Phase = Phase.ROUTE


@attrs.frozen(kw_only=True)
class WaitUntil:
    """Do nothing until `at` (monotonic seconds), then ask for the next action."""

    at: float
    why: Why


@attrs.frozen(kw_only=True)
class Done(Generic[T_co]):
    """The call is over and here is its result."""

    result: T_co


@attrs.frozen(kw_only=True)
class GiveUp:
    """The call is over without a result; ``call.result()`` raises `error`."""

    error: CallFailed
