"""Order and repeats of ``reqnum``, the engine's running number of requests for one worker. Pure, and bounded.

Workers expect roughly this order. Older ones refused a number far below the highest they had seen, or one they had seen
before; the current one checks neither (wire facts, section 4, "Replay window"). The numbers run across all clients of
an endpoint, so a gap proves nothing: a `ReqnumTracker` says what one client has seen, and a `ReqnumGate` can only put
the grants that one client holds into order.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from enum import Enum
from typing import final

import attrs

from .errors import InvalidValue, LocalProtocolError


class ReqnumOrder(Enum):
    """How a reqnum stands to those seen before it from the same worker."""

    FRESH = "fresh"
    """Higher than all of them."""
    LATE = "late"
    """Lower than the highest, not seen before."""
    REPEATED = "repeated"
    """Seen before: the same grant, or a replay."""
    OUTSIDE = "outside the window"
    """So far below the highest that it is no longer known whether it was seen."""


@attrs.frozen(kw_only=True)
class ReqnumVerdict:
    """What a `ReqnumTracker` found."""

    order: ReqnumOrder
    late_by: int = 0
    """How far below the highest number seen; 0 for a fresh one."""


_FRESH = ReqnumVerdict(order=ReqnumOrder.FRESH)


class _Seen:
    """The highest number of one worker, and which of those below it were seen: bit n stands for ``highest - n``."""

    __slots__ = ("bits", "highest")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self.bits = 1


def _whole(value: object, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidValue(f"{name} must be a whole number of at least {least}")


@final
class ReqnumTracker:
    """Remembers each worker's last numbers. `window` numbers per worker, `workers` workers; then the oldest go.

    The default window is the one that workers had until December 2025. Use it from one thread at a time.
    """

    __slots__ = ("_seen", "_window", "_workers")

    def __init__(self, *, window: int = 100, workers: int = 1024) -> None:
        _whole(window, "window", 1)
        _whole(workers, "workers", 1)
        self._window = window
        self._workers = workers
        self._seen: OrderedDict[str, _Seen] = OrderedDict()

    def observe(self, worker: str, reqnum: int) -> ReqnumVerdict:
        """Take note of `reqnum` from `worker` (its url) and say how it stands. Raises `InvalidValue` below 0."""
        _whole(reqnum, "reqnum", 0)
        seen = self._seen.get(worker)
        if seen is None:
            self._seen[worker] = _Seen(reqnum)
            if len(self._seen) > self._workers:
                self._seen.popitem(last=False)
            return _FRESH
        self._seen.move_to_end(worker)
        late_by = seen.highest - reqnum
        if late_by < 0:
            # Shifting by more than the window would leave nothing, at any price the peer likes.
            seen.bits = 1 if -late_by >= self._window else (seen.bits << -late_by | 1) & ((1 << self._window) - 1)
            seen.highest = reqnum
            return _FRESH
        if late_by >= self._window:
            return ReqnumVerdict(order=ReqnumOrder.OUTSIDE, late_by=late_by)
        order = ReqnumOrder.REPEATED if seen.bits >> late_by & 1 else ReqnumOrder.LATE
        seen.bits |= 1 << late_by
        return ReqnumVerdict(order=order, late_by=late_by)


@final
class ReqnumGate:
    """Puts the grants that one client holds for one worker into the order of their reqnums. Off unless you use it.

    Give each grant to `arrive`, hold it until the instant that `hold_until` says, send it, and tell `leave`; also if it
    is not sent after all. No grant is held for longer than `most` seconds, whatever happens to the others.
    """

    __slots__ = ("_held", "_most")

    def __init__(self, *, most: float = 0.25) -> None:
        if isinstance(most, bool) or not isinstance(most, int | float) or not 0 < most < math.inf:
            raise InvalidValue("most must be seconds: a finite number above 0")
        self._most = most
        self._held: dict[str, dict[int, float]] = {}

    def arrive(self, worker: str, reqnum: int, *, now: float) -> None:
        """A grant has come. Raises `LocalProtocolError` if one with this number is held already."""
        held = self._held.setdefault(worker, {})
        if reqnum in held:
            raise LocalProtocolError(f"a grant with reqnum {reqnum} is held for this worker already")
        held[reqnum] = now + self._most

    def hold_until(self, worker: str, reqnum: int, *, now: float) -> float:
        """When it may be sent: `now` if none with a lower number is held, else the end of its own bound.

        Ask again whenever another one left. Raises `LocalProtocolError` if it is not held.
        """
        held = self._held.get(worker, {})
        if reqnum not in held:
            raise LocalProtocolError(f"no grant with reqnum {reqnum} is held for this worker")
        return now if min(held) == reqnum else max(now, held[reqnum])

    def leave(self, worker: str, reqnum: int) -> int | None:
        """It was sent or given up. Returns the number that is the lowest now, if any: wake whoever holds it.

        Raises `LocalProtocolError` if it is not held.
        """
        held = self._held.get(worker, {})
        if held.pop(reqnum, None) is None:
            raise LocalProtocolError(f"no grant with reqnum {reqnum} is held for this worker")
        if not held:
            del self._held[worker]
            return None
        return min(held)
