"""A worker session: a lease on one worker for several requests. What is known of one, and how long it lives.

A session is made at a worker with a grant, and lives ``lifetime`` seconds. Every request that names it adds one whole
``lifetime`` to its expiration, on top of what is left, before the signature is checked and so also when the request is
refused. Many short requests therefore stack up hours of paid time that nobody asked for, while one request that is
longer than what is left is cut: the worker closes the connections of a session that expires. `SessionLife` keeps
account of both. Looking at a session (get, health) adds nothing.

Source of all of it: wire facts, section 5, and the official worker's own code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard, final

import attrs

from .codec import decode_route
from .errors import CallFailed, InvalidValue, LocalProtocolError
from .messages import Grant, HttpResponse
from .policy import Limits
from .state import SESSION_TABLE, SessionInput, SessionState, advance
from .work import auth_data

DEFAULT_LIFETIME = 60.0
"""Seconds; the official worker's own default."""
SWEEP = 5.0
"""Seconds between two rounds in which the official worker looks for expired sessions: until then they go on."""

LONGEST = 1e9
LATEST = 1e12


def is_seconds(value: object, most: float) -> TypeGuard[float]:
    """Whether `value` is a number above 0 and not above `most`."""
    # Two comparisons, not math.isfinite, which raises for an int that no float can hold.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def is_id(value: object) -> TypeGuard[str]:
    """Whether `value` can be a session's name."""
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _grant(_instance: object, _attribute: object, value: Any) -> None:
    if not isinstance(value, Grant):
        raise InvalidValue("grant must be the Grant that the session was made with")


def _lifetime(_instance: object, _attribute: object, value: Any) -> None:
    check_lifetime(value)


def check_lifetime(value: Any) -> None:
    """Raise `InvalidValue` if `value` is no lifetime."""
    if not is_seconds(value, LONGEST):
        raise InvalidValue("lifetime must be seconds: a finite number above 0")


def _expiration(_instance: object, _attribute: object, value: Any) -> None:
    if not is_seconds(value, LATEST):
        raise InvalidValue("expiration must be seconds since 1970")


def _session_id(_instance: object, _attribute: object, value: Any) -> None:
    if not is_id(value):
        raise InvalidValue("session_id must be the text that the worker gave")


def _index(_instance: object, _attribute: object, value: Any) -> None:
    if value is not None and (not _is_count(value) or value < 1):
        raise InvalidValue("request_idx must be a whole number from 1, or None")


def _clock(_instance: object, _attribute: object, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LATEST:
        raise InvalidValue("clock_ahead must be seconds: a finite number")


def _count(_instance: object, attribute: Any, value: Any) -> None:
    if not _is_count(value):
        raise InvalidValue(f"{attribute.name} must be a whole number of at least 0")


@attrs.frozen(kw_only=True)
class SessionHandle:
    """All that it takes to use, look at and end a session, from this process or another one.

    The grant in it is a secret, as good as a key to the worker, and does not expire: the repr leaves it out.
    """

    session_id: str = attrs.field(validator=_session_id)
    grant: Grant = attrs.field(repr=False, validator=_grant)
    """What the session was made with. It leads to the worker, and proves that the session is ours."""
    lifetime: float = attrs.field(default=DEFAULT_LIFETIME, validator=_lifetime)
    """Seconds that the session was made for, and that every request adds."""
    expiration: float = attrs.field(validator=_expiration)
    """When the worker said that it ends: seconds since 1970 on the worker's own clock."""
    request_idx: int | None = attrs.field(default=None, validator=_index)
    """The number that was added to the grant because it lacked one."""
    clock_ahead: float = attrs.field(default=0.0, validator=_clock)
    """Seconds by which the worker's clock is ahead of ours. It is known to about one second; 0 if it is not known."""
    sent: int = attrs.field(default=0, validator=_count)
    """Requests that may have reached the worker since it told `expiration`; each adds a lifetime."""
    doubtful: int = attrs.field(default=0, validator=_count)
    """How many of them perhaps did not."""

    def __attrs_post_init__(self) -> None:
        if self.doubtful > self.sent:
            raise InvalidValue("doubtful must not be more than sent")

    @property
    def url(self) -> str:
        """The worker's address, as the engine wrote it."""
        return self.grant.url

    @property
    def auth(self) -> bytes:
        """What the worker keeps of the grant, byte for byte as it was sent: its proof has to be equal (section 5)."""
        return auth_data(self.grant, self.request_idx)

    def save(self) -> dict[str, Any]:
        """Plain JSON values from which `load` makes the same handle. The grant, a secret, is among them."""
        return {
            "vastroute": "session",
            "version": 1,
            "session_id": self.session_id,
            "grant": self.grant.raw.decode("utf-8"),
            "lifetime": self.lifetime,
            "expiration": self.expiration,
            "request_idx": self.request_idx,
            "clock_ahead": self.clock_ahead,
            "sent": self.sent,
            "doubtful": self.doubtful,
        }

    @classmethod
    def load(cls, saved: Mapping[str, Any], *, limits: Limits = Limits()) -> SessionHandle:
        """The handle that `save` wrote. Raises `InvalidValue` if `saved` is none; the text never repeats the grant."""
        try:
            if (saved["vastroute"], saved["version"]) != ("session", 1):
                raise InvalidValue("this was not saved by a SessionHandle of this version")
            grant = decode_route(HttpResponse(status=200, body=saved["grant"].encode("utf-8")), limits=limits)
            if not isinstance(grant, Grant):
                raise InvalidValue("the grant of this saved session names no worker")
            return cls(
                session_id=saved["session_id"],
                grant=grant,
                lifetime=saved["lifetime"],
                expiration=saved["expiration"],
                request_idx=saved["request_idx"],
                clock_ahead=saved["clock_ahead"],
                sent=saved["sent"],
                doubtful=saved["doubtful"],
            )
        except InvalidValue:
            raise
        except CallFailed as error:
            raise InvalidValue(f"the grant of this saved session cannot be used: {error.message}") from None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidValue(f"this is no saved session: {type(error).__name__}") from None


@attrs.frozen(kw_only=True)
class SessionInfo:
    """What the worker knows of a session."""

    session_id: str
    lifetime: float
    """Seconds that every request adds."""
    expiration: float
    """Seconds since 1970 on the worker's clock."""
    clock_ahead: float = 0.0
    """Seconds by which that clock is ahead of ours, from the answer's ``Date``; 0 if there was none."""
    created_at: float | None = None
    """Seconds since 1970 on the worker's clock, if it told."""
    on_close_route: str | None = None
    on_close_payload: Any = attrs.field(default=None, repr=False, hash=False)


@attrs.frozen(kw_only=True)
class SessionEnded:
    """There is no such session any more."""

    session_id: str
    was_open: bool
    """Whether this was its end; otherwise it had expired or been ended before."""


_GONE = 410
_COUNTED = frozenset({401, 429, 499})


@final
class SessionLife:
    """Keeps account of one session: whether it lives, until when at least and at most, and what is still out.

    It does nothing by itself: report every request that is sent with the session's id, and what came of it. `now` is
    monotonic seconds, on one clock throughout; `utc` is the wall clock in seconds since 1970, read at the same moment,
    and only ever used to turn the worker's wall-clock expiration into the former.

    All instants are in monotonic seconds, and as good as the worker's clock is known, which is to about a second: leave
    a margin. To send with a session that has ended raises `LocalProtocolError`, and nothing changes.
    """

    __slots__ = ("_doubtful", "_handle", "_number", "_out", "_over_at", "_sent", "_shift", "_state", "_told_at")

    def __init__(self, handle: SessionHandle, *, now: float, utc: float) -> None:
        self._state = SessionState.OPEN
        self._number = 0
        self._out: set[int] = set()
        self._over_at: float | None = None
        self._take_up(handle, now, utc)

    def _take_up(self, handle: SessionHandle, now: float, utc: float) -> None:
        shift = now - utc - handle.clock_ahead
        if not math.isfinite(shift):
            raise InvalidValue("now must be monotonic seconds, and utc seconds since 1970")
        self._handle = handle
        self._sent, self._doubtful = handle.sent, handle.doubtful
        self._shift = shift
        self._told_at = self._number

    # What is reported

    def request_sent(self) -> int:
        """A request with the session's id leaves now, or may have left. The number that names it in later reports."""
        self._take(SessionInput.SENT)
        self._number += 1
        self._out.add(self._number)
        self._sent += 1
        return self._number

    def request_answered(self, number: int, status: int, *, now: float) -> None:
        """The head of the answer to request `number` came, with this HTTP status.

        A 410 means that the session is gone. Any 2xx, 401, 429 or 499 shows that the worker has counted the request;
        other statuses may come from before that, and leave it in doubt.
        """
        self._check(number)
        self._take(SessionInput.ANSWERED)
        self._out.remove(number)
        if status == _GONE:
            self.gone(now=now)
        elif not (200 <= status < 300 or status in _COUNTED):
            self._doubt(number)

    def request_failed(self, number: int, *, sent: bool | None) -> None:
        """Request `number` broke before an answer. `sent` is False if surely no byte left, None if nobody can say."""
        self._check(number)
        self._take(SessionInput.FAILED)
        self._out.remove(number)
        if sent is False:
            self._sent -= 1
            self._doubtful -= number <= self._told_at
        else:
            self._doubt(number)

    def told(self, info: SessionInfo, *, now: float, utc: float) -> None:
        """The worker told of the session: its word replaces the account so far.

        What is out counts as doubtful from now on, since nobody knows whether it is in that word. A request that is
        sent and answered while the worker is asked may be missing: ask while none is sent.
        """
        if info.session_id != self._handle.session_id:
            raise InvalidValue("this is about another session")
        out = len(self._out)
        handle = attrs.evolve(
            self._handle,
            lifetime=info.lifetime,
            expiration=info.expiration,
            clock_ahead=info.clock_ahead,
            sent=out,
            doubtful=out,
        )
        self._take(SessionInput.TOLD)
        if self._state is SessionState.OPEN:
            self._take_up(handle, now, utc)

    def ended(self, answer: SessionEnded, *, now: float) -> None:
        """The worker answered our wish to end the session."""
        if answer.was_open:
            self._take(SessionInput.END)
            self._over(now)
        else:
            self.gone(now=now)

    def gone(self, *, now: float) -> None:
        """The worker does not know the session, by whatever answer that was learned."""
        self._take(SessionInput.GONE)
        self._over(now)

    # What is known

    @property
    def state(self) -> SessionState:
        """Where the session stands. Time alone changes nothing here: only the worker's word does."""
        return self._state

    @property
    def handle(self) -> SessionHandle:
        """The session's handle with the account as it stands, to save; what is out is doubtful in it."""
        doubtful = self._doubtful + sum(number > self._told_at for number in self._out)
        return attrs.evolve(self._handle, sent=self._sent, doubtful=doubtful)

    @property
    def out(self) -> frozenset[int]:
        """The numbers of the requests that are sent and not yet reported on."""
        return frozenset(self._out)

    @property
    def kept_until(self) -> float:
        """Until when the session lives if nothing more is sent: the worker may then cut what is in flight.

        Requests that are out count, since the worker counts a request as it arrives; doubtful ones do not. Once the
        session is over, this is when that was learned.
        """
        return self._instant(self._sent - self._doubtful) if self._over_at is None else self._over_at

    def ends_by(self, requests: int = 0) -> float:
        """When the session is over at the latest, if nothing more is sent; or after that many more requests.

        All that may have been counted is, and the worker's sweep too: it looks for expired sessions every `SWEEP`
        seconds. Once the session is over, this is when that was learned. (The sweep may be held up by the
        ``on_close_route`` of other sessions, up to 10 seconds for each.)
        """
        if not _is_count(requests):
            raise InvalidValue("requests must be a whole number of at least 0")
        return self._instant(self._sent + requests) + SWEEP if self._over_at is None else self._over_at

    def stacked(self, *, now: float) -> float:
        """Seconds of paid time ahead of `now`, at the most: what ending the session now would save."""
        return max(0.0, self._instant(self._sent) - now) if self._over_at is None else 0.0

    def requests_needed(self, until: float) -> int:
        """How many more requests it takes to keep the session until then; 0 if none. Each adds a whole lifetime.

        Raises `LocalProtocolError` if it has ended, `InvalidValue` if `until` is not a finite number.
        """
        if self._over_at is not None:
            raise LocalProtocolError(f"the session is {self._state.value}: nothing keeps it")
        if not math.isfinite(until):
            raise InvalidValue("until must be monotonic seconds: a finite number")
        return max(0, math.ceil((until - self.kept_until) / self._handle.lifetime))

    def __repr__(self) -> str:
        return f"SessionLife({self._handle.session_id!r}, {self._state.value}, out={len(self._out)})"

    # The steps

    def _take(self, given: SessionInput) -> None:
        self._state = advance(SESSION_TABLE, self._state, given)

    def _check(self, number: int) -> None:
        if number not in self._out:
            raise LocalProtocolError(f"no request {number} is out: it was never sent, or was reported on already")

    def _doubt(self, number: int) -> None:
        # What was out when the worker told of the session is in doubt already.
        self._doubtful += number > self._told_at

    def _over(self, now: float) -> None:
        if self._over_at is None:
            self._over_at = now

    def _instant(self, requests: int) -> float:
        return self._handle.expiration + requests * self._handle.lifetime + self._shift
