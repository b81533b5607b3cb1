"""What a machine can ask of its driver. Exactly one action is pending at any time.

A driver does what the action says and reports what came of it; it decides nothing. `Done` and `GiveUp` stay for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Generic, Protocol, TypeAlias, TypeVar

import attrs

from .errors import CallFailed, FailureKind, Phase
from .messages import HttpRequest, HttpResponse, ResponseHead

if TYPE_CHECKING:
    from .exchange import Event
    from .guard import Guard
    from .record import Record
    from .streams import StreamEvent

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
    """Monotonic seconds: by then there must be a connection."""
    deadline: float
    """Monotonic seconds: by then the answer's head must be here."""
    attempt: int
    """The number of this exchange within the call, from 1."""
    phase: Phase = Phase.ROUTE
    fresh: bool = False
    """Use a new connection, not a kept one."""
    guard: Guard | None = None
    """Ask it about the address that the host name resolved to, before dialling it."""

    def timeouts(self, *, now: float) -> tuple[float, float]:
        """Seconds until there must be a connection, and until the answer's head must be here.

        Never below a millisecond: HTTP libraries refuse a time-out of 0, or take it for none at all.
        """
        return max(0.001, self.connect_by - now), max(0.001, self.deadline - now)

    def check_host(self) -> None:
        """Refuse a host that is a name, for a library that resolves names by itself and shows nobody to what.

        Raises the guard's refusal, a `vastroute.ConnectionFailed`, unless its ``allow_proxied_names`` is set. An IP
        address passes: the guard has seen it already.
        """
        if self.guard is not None and (refusal := self.guard.check_origin(self.request.origin, proxied=True)):
            raise refusal.as_error(phase=self.phase)


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


Action: TypeAlias = Send | Receive | WaitUntil | Done[T_co] | GiveUp
"""All that a machine can ask for: a driver that knows these five is complete."""


class Machine(Protocol[T_co]):
    """What a driver drives: `vastroute.AskMachine` and `vastroute.Call` have these methods, and say what they do."""

    def next_action(self, *, now: float) -> Action[T_co]:
        """What to do next."""

    def read_limit(self, *, now: float) -> float | None:
        """Seconds for the next piece of the answer, or None if the next action is another one than `Receive`."""

    def receive(self, response: HttpResponse, *, now: float) -> None:
        """The whole answer to the pending `Send`."""

    def head(self, head: ResponseHead, *, now: float) -> None:
        """The beginning of the answer to the pending `Send`."""

    def chunk(self, data: bytes, *, now: float) -> None:
        """A piece of the answer's body."""

    def end(self, *, now: float) -> None:
        """The answer is complete."""

    def feed(self, events: Sequence[Event], *, now: float, reused: bool = False) -> float | None:
        """What a connection gave; the instant by which more must come, or None if the next action is another one."""

    def failed(
        self,
        error: FailureKind | BaseException | str,
        *,
        kind: FailureKind | None = None,
        sent: bool | None,
        now: float,
        reused: bool = False,
    ) -> None:
        """The exchange broke."""

    def next_event(self, *, now: float) -> StreamEvent | None:
        """The next event of a stream that has come, or None."""

    def cancelled(self, *, now: float, sent: bool = True) -> None:
        """The caller ends the call. `sent` is False if surely no byte of the pending request has left."""

    def result(self) -> T_co:
        """The result, or the raised error."""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to do."""

    @property
    def record(self) -> Record:
        """What has happened so far."""


def read_limit_of(action: Action[T_co], *, now: float) -> float | None:
    """Seconds until the deadline of a `Receive`; None for another action. Raises TimeoutError if there are none."""
    if not isinstance(action, Receive):
        return None
    if now >= action.deadline:
        raise TimeoutError("the rest of the answer did not come in time")
    return action.deadline - now
