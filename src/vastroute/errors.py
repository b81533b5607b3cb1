"""What can go wrong, in one tree. This module imports nothing of ours.

::

    VastrouteError
    ├── LocalProtocolError      a machine was used out of turn; nothing changed
    ├── InvalidValue            an argument cannot be used; nothing changed (also a ValueError)
    ├── TunnelFailed            a proxy did not connect us; a driver reports it like any failure to connect
    └── CallFailed              what the engine, a worker or the network did
        ├── Refused             they answered, and the answer is no
        │   ├── KeyRefused      the key is not accepted
        │   └── SessionGone     the worker knows no such session
        ├── UnexpectedAnswer    they answered, but not in this protocol
        ├── ConnectionFailed    the exchange broke before there was a whole answer
        ├── LimitReached        a limit of the caller's ended the call
        ├── SignatureRefused    a grant did not pass a check that the caller required
        └── Cancelled           the caller ended the call

The class says who is to blame: the first two are raised at once where the mistake is made, everything under
`CallFailed` ends a call as a value (`vastroute.GiveUp`) that ``result()`` raises.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For types only: at run time this module stands alone.
    from .messages import NotReady
    from .record import Counts, Record
    from .verdicts import Verdict


class Phase(Enum):
    """Which conversation an event belongs to."""

    ROUTE = "route"
    WORKER = "worker"
    LOOKUP = "lookup"
    """The neighbouring calls: the public key, the list of endpoints, the list of workers."""


class Outcome(Enum):
    """How far one exchange came: the question on which paying twice depends."""

    NOT_SENT = "not sent"
    """No byte of the request left. Repeating it is always safe."""
    PERHAPS_STARTED = "perhaps started"
    """Bytes left, or nobody can say; the other side may have acted on them."""
    ANSWERED = "answered"
    """An answer came, so it is known what the other side did."""


class Advice(Enum):
    """What may be done about a failure, for programs; the error's text says it for people."""

    ASK_AGAIN = "ask again later"
    """Passing trouble. Ask again with the same ``request_idx``."""
    CHECK_WORK = "check whether the work ran"
    """The work may have run, and be paid for. Find out before you repeat it, or say ``safe_to_repeat`` where running it
    twice does no harm. If a limit ended the call, the error's ``limit`` names it."""
    CHECK_KEY = "check the key"
    """The key is wrong, or of the wrong kind."""
    CHECK_INPUT = "check the request"
    """The request itself is refused; the same request will be refused again."""
    CHECK_ENDPOINT = "check the endpoint"
    """The endpoint does not exist, is not yours, or is stopped."""
    RAISE_LIMIT = "raise the limit"
    """A limit of the caller's own ended the call; the error's ``limit`` names it."""
    ALLOW = "allow it by its switch"
    """A guard refused; the error's ``limit`` names the switch that would allow it."""
    CHECK_ANSWER = "look at the answer"
    """The other side does not speak this protocol: an error page, a proxy, a new version."""
    NOTHING = "nothing"
    """It was the caller's own wish."""


class FailureKind(Enum):
    """The ways in which an exchange can break. Drivers map their exceptions to these by a table."""

    NAME = "host name not found"
    REFUSED = "connection refused"
    UNREACHABLE = "host unreachable"
    TLS = "TLS failed"
    PROXY = "the proxy refused"
    GUARD = "the address is not allowed"
    TIMEOUT = "no answer in time"
    RESET = "connection reset"
    EOF = "connection closed before the end of the answer"
    GARBAGE = "not HTTP"
    TOO_LARGE = "answer too large"
    OTHER = "the exchange failed"


class VastrouteError(Exception):
    """The root of everything this library raises on purpose."""


class LocalProtocolError(VastrouteError):
    """A machine or a connection was used out of turn. The text says what it waits for. Nothing changed."""


class InvalidValue(VastrouteError, ValueError):
    """An argument cannot be used. The text says why and what would do. Nothing changed."""


class TunnelFailed(VastrouteError):
    """An HTTP proxy did not connect us to where we asked."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status of the proxy's answer, if there was one."""


class CallFailed(VastrouteError):
    """A call ended without what it was made for. Everything known about it is an attribute.

    No attribute and no text ever holds a key or a grant's signature; `body` alone is the peer's own bytes.
    """

    def __init__(
        self,
        message: str,
        *,
        phase: Phase,
        outcome: Outcome,
        advice: Advice,
        status: int | None = None,
        excerpt: str = "",
        request_idx: int | None = None,
        request_id: str | None = None,
        kind: FailureKind | None = None,
        limit: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.phase = phase
        """Which hop it happened on."""
        self.outcome = outcome
        """Whether the request may have been acted on."""
        self.advice = advice
        """What may be done about it."""
        self.status = status
        """The HTTP status, if there was one."""
        self.excerpt = excerpt
        """At most 200 characters of the answer, printable, with secrets masked."""
        self.request_idx = request_idx
        """The request's number at the engine, if one is held: ask again with it."""
        self.request_id = request_id
        """The server's own name for the one HTTP request (``__request_id``): quote it to support."""
        self.kind = kind
        """How the exchange broke, if it did."""
        self.limit = limit
        """The name of the limit or switch that ended the call, if one did."""
        self.retry_after = retry_after
        """Seconds the server asked to wait, if it did."""
        self.may_have_run = False
        """Whether the work may have run at a worker, and be paid for: at the last one, or one that was lost."""
        self.not_ready: NotReady | None = None
        """The last answer that nothing was ready, if there was one."""
        self.verdict: Verdict | None = None
        """The verdict on the grant's signature, if one was looked at."""
        self.body: bytes | None = None
        """The whole body of an answer that was paid for but cannot be used."""
        self.counts: Counts | None = None
        """How often the call asked, polled and retried, once it is over."""
        self.record: Record | None = None
        """What happened in the call, once it is over."""

    def __str__(self) -> str:
        where = f"{self.phase.value}: " if self.status is None else f"{self.phase.value}: HTTP {self.status}: "
        quote = f" (it said: {self.excerpt})" if self.excerpt else ""
        return f"{where}{self.message}{quote}"

    def __reduce__(self) -> tuple[Any, ...]:
        # An exception's own way to pickle repeats the positional arguments only; all that is known here has a name.
        return _rebuild, (type(self), vars(self))


def _rebuild(cls: type[CallFailed], state: dict[str, Any]) -> CallFailed:
    error = cls.__new__(cls, state["message"])
    vars(error).update(state)
    return error


class Refused(CallFailed):
    """The other side answered, and the answer is no."""


class KeyRefused(Refused):
    """The key was not accepted: wrong, or an account's where an endpoint's own is wanted."""


class SessionGone(Refused):
    """The worker knows no such session: it expired, was ended, or the worker was started anew. Make another one."""


class UnexpectedAnswer(CallFailed):
    """There was an answer, but not one of this protocol: an error page, broken JSON, a redirect, a useless grant."""


class ConnectionFailed(CallFailed):
    """The exchange broke before there was a whole answer; ``kind`` says how."""


class LimitReached(CallFailed):
    """A limit of the caller's own ended the call; ``limit`` names it, ``__cause__`` is the last failure if any."""


class SignatureRefused(CallFailed):
    """A grant did not pass a check that the caller required; `verdict` says why."""


class Cancelled(CallFailed):
    """The caller ended the call."""
