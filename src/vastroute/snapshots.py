"""Where a call stands, as a value: to print, to compare, to save, and to read again what was saved.

No key and no payload is ever saved, and a grant only where that is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import attrs

from .actions import WaitUntil, Why
from .errors import InvalidValue, LocalProtocolError
from .messages import Grant, NotReady, RouteRequest
from .record import Counts
from .state import AskState, CallState


@attrs.frozen(kw_only=True)
class RouteSnapshot:
    """Where a `RouteCall` stands, as a value: to print, to compare, to save."""

    phase: AskState
    request: RouteRequest
    request_idx: int | None
    request_idx_age: float | None
    """Seconds since the number was first given."""
    remaining: float
    """Seconds until the deadline; below 0 when it is past."""
    due_in: float
    """Seconds until the next ask; 0 unless it waits."""
    why: Why | None
    """What it waits for, if it waits."""
    in_flight: bool
    """Whether an ask is out; saved, it counts as *perhaps started*."""
    counts: Counts
    not_ready: NotReady | None
    """The engine's last word that nothing was ready."""
    grant: Grant | None
    """The grant, once there is one."""

    def save(self, *, utc: float, with_grant: bool = False) -> dict[str, Any]:
        """Plain JSON values from which `RouteCall.resume` goes on, in another process too.

        `utc` is the wall clock (seconds since 1970), so that the age of the ``request_idx`` is known later. No key
        is in it, and no grant unless `with_grant`: a grant is a secret. Saved without it, an answered call asks again
        under its ``request_idx`` when it is resumed.
        """
        return {
            "vastroute": "route",
            "version": 1,
            "utc": utc,
            "phase": self.phase.value,
            "request": attrs.asdict(self.request),
            "request_idx": self.request_idx,
            "request_idx_age": self.request_idx_age,
            "remaining": self.remaining if math.isfinite(self.remaining) else None,
            "due_in": self.due_in,
            "why": self.why and self.why.value,
            "in_flight": self.in_flight,
            "counts": attrs.asdict(self.counts),
            "grant": self.grant.raw.decode() if with_grant and self.grant else None,
        }


@attrs.frozen(kw_only=True)
class CallSnapshot:
    """Where a `Call` stands, as a value: to print, to compare, to save."""

    phase: CallState
    route: RouteSnapshot | None
    """Where its routing stands; None in a session."""
    in_flight: bool
    """Whether work is out at a worker; saved, it counts as *perhaps started*."""
    work_attempts: int
    possible_double_runs: int
    fresh_grants: int
    """Grants that a worker did not accept, so that another was asked for."""

    def save(self, *, utc: float) -> dict[str, Any]:
        """Plain JSON values from which `Call.resume` goes on. No key, no grant and no payload is in them.

        `utc` is the wall clock, in seconds since 1970. Raises `LocalProtocolError` in a session, which a
        `vastroute.SessionHandle` saves.
        """
        if self.route is None:
            raise LocalProtocolError("a call in a session is not saved: save the session's handle")
        return {
            "vastroute": "call",
            "version": 1,
            "route": self.route.save(utc=utc),
            "phase": self.phase.value,
            "in_flight": self.in_flight,
            "work_attempts": self.work_attempts,
            "possible_double_runs": self.possible_double_runs,
            "fresh_grants": self.fresh_grants,
        }


_ENDED = frozenset({AskState.FAILED, AskState.CANCELLED, CallState.ANSWERED, CallState.FAILED, CallState.CANCELLED})
"""Where nothing is left to do; a `RouteCall` that is answered may yet be told that its worker failed."""
_WAS_OVER = "this call was over when it was saved: there is nothing to go on with"


class SavedRoute(NamedTuple):
    """What `RouteSnapshot.save` wrote, on the clock of whoever reads it."""

    request: RouteRequest
    request_idx: int | None
    since: float | None
    """When the number was first given."""
    counts: Counts
    deadline: float
    wait: WaitUntil
    in_flight: bool
    grant: bytes | None


def read_route(saved: Mapping[str, Any], *, now: float, utc: float) -> SavedRoute:
    """What was saved of a route call. Raises `InvalidValue` if `saved` is not of this kind."""
    try:
        if (saved["vastroute"], saved["version"]) != ("route", 1):
            raise InvalidValue("this was not saved by a RouteCall of this version")
        request = RouteRequest(**saved["request"])
        counts = Counts(**saved["counts"])
        ended = AskState(saved["phase"]) in _ENDED
        remaining = math.inf if saved["remaining"] is None else float(saved["remaining"])
        index = RouteRequest(endpoint=request.endpoint, request_idx=saved["request_idx"]).request_idx
        age = saved["request_idx_age"]
        since = None if age is None else now - float(age) - max(0.0, utc - float(saved["utc"]))
        wait = WaitUntil(at=now + float(saved["due_in"]), why=Why(saved["why"] or "resume"))
        in_flight = bool(saved["in_flight"])
        grant = None if saved["grant"] is None else saved["grant"].encode()
        if not (_are_counts(counts) and now <= wait.at < math.inf and (since is None or math.isfinite(since))):
            raise InvalidValue("its counts and seconds are not numbers of at least 0")
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InvalidValue(f"this is no saved route call: {error}") from None
    if ended:
        raise InvalidValue(_WAS_OVER)
    return SavedRoute(request, index, since, counts, now + remaining, wait, in_flight, grant)


def _are_counts(counts: Counts) -> bool:
    return all(
        (type(value) is int or (type(value) is float and name.startswith("seconds_"))) and 0 <= value < math.inf
        for name, value in attrs.asdict(counts).items()
    )


class SavedCall(NamedTuple):
    """What `CallSnapshot.save` wrote beside what it wrote of the route."""

    in_flight: bool
    work_attempts: int
    possible_double_runs: int
    fresh_grants: int


def read_call(saved: Mapping[str, Any]) -> SavedCall:
    """What was saved of a call. Raises `InvalidValue` if `saved` is not of this kind."""
    try:
        if (saved["vastroute"], saved["version"]) != ("call", 1):
            raise InvalidValue("this was not saved by a Call of this version")
        counts = [saved[name] for name in ("work_attempts", "possible_double_runs", "fresh_grants")]
        in_flight, ended = bool(saved["in_flight"]), CallState(saved["phase"]) in _ENDED
    except (KeyError, TypeError, ValueError) as reason:
        raise InvalidValue(f"this is no saved call: {reason}") from None
    if ended:
        raise InvalidValue(_WAS_OVER)
    if not all(type(each) is int and each >= 0 for each in counts):
        raise InvalidValue("this is no saved call: its counts are not whole numbers")
    return SavedCall(in_flight, *counts)
