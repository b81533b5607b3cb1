"""Which kept connection to use, whether to open a new one or to wait, and what to close: tables, never a search.

A `Pool` knows no connections: it keeps tokens of the driver's, any hashable objects, and says what to do with them. It
opens, closes and wakes nothing. Every token is in one place: in use, idle, granted to a ticket, or handed back to be
closed; every slot (``max_connections`` per origin) is free or somebody answers for it.

The rules of driving, for trio with one event per ticket as for threads under one lock
    `acquire` answers `Use`, `Open` or `Wait`. After `Use`, look at the connection if that is cheap: where its peer has
    closed it or spoken unasked, `replace` it. After `Open`, report `opened` or `failed`, however connecting ends,
    cancellation included. A connection in use ends with `release`, or with `lost` if it was closed by force. After
    `Wait`, sleep until the ticket is ``served``, then `take` what it was given; `give_up` in a ``finally`` passes on
    what was not taken. `release`, `lost`, `failed` and `give_up` return the one ticket that they served, if any: wake
    whoever sleeps on it. Close whatever `to_close` returns.

The connection that came back last is used first: what a burst left behind grows old and goes.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar, final

import attrs

from .errors import InvalidValue, LocalProtocolError
from .policy import _count, _positive

K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Hashable)


@attrs.frozen(kw_only=True)
class PoolLimits:
    """How many connections are kept, and for how long."""

    max_connections: int = attrs.field(default=1000, validator=_count)
    """Connections to one origin, idle ones included, at least 1. More callers than that wait for one another."""
    max_idle: int = attrs.field(default=200, validator=_count)
    """Idle connections to all origins together; beyond it the oldest is closed. 0 keeps none.

    One number for all, because the engine names the workers' origins: a limit per origin would bound nothing.
    """
    idle_seconds: float = attrs.field(default=30.0, validator=_positive)
    """Seconds after which an idle connection is closed.

    Longer than the pauses between polls (5 s), so that a poll finds its connection; well below the 60 to 75 s after
    which common servers and load balancers hang up, so that a request seldom meets a connection that is already gone.
    """

    def __attrs_post_init__(self) -> None:
        if self.max_connections < 1:
            raise InvalidValue("max_connections must be at least 1")


@attrs.frozen(kw_only=True)
class Use(Generic[C]):
    """Use this kept connection."""

    connection: C


@attrs.frozen(kw_only=True)
class Open:
    """Open a new connection; the slot for it is yours until you report `Pool.opened` or `Pool.failed`."""


_OPEN = Open()


@attrs.frozen(kw_only=True)
class Wait(Generic[K, C]):
    """Every slot is taken: wait until `ticket` is served."""

    ticket: Ticket[K, C]


@attrs.frozen(kw_only=True)
class Holding(Generic[C]):
    """What a pool holds for one origin."""

    in_use: tuple[C, ...]
    idle: tuple[C, ...]
    """The oldest first; the last will be used next."""
    opening: int
    """Connections that are being opened."""
    served: int
    """Tickets that were served, with a connection or the right to open one, and have not been taken yet."""
    waiting: int
    """Tickets that wait in line."""


class _Place(Enum):
    LINE = "waiting in line"
    SERVED = "served, not yet taken"
    OVER = "taken or given up"


@final
class Ticket(Generic[K, C]):
    """A place in the line for a connection; compared by identity, so that events can be hung on it."""

    __slots__ = ("_fresh", "_kept", "_place", "_table")

    def __init__(self, table: _Table[K, C], fresh: bool) -> None:
        self._table = table
        self._fresh = fresh
        self._place = _Place.LINE
        self._kept: _Kept[K, C] | None = None

    @property
    def origin(self) -> K:
        """The origin whose connections it waits for."""
        return self._table.origin

    @property
    def served(self) -> bool:
        """Whether `Pool.take` will give something."""
        return self._place is _Place.SERVED

    def __repr__(self) -> str:
        return f"<Ticket for {self.origin}: {self._place.value}>"


class _Kept(Generic[K, C]):
    """A connection and what is known of it; made once, when it was opened."""

    __slots__ = ("connection", "table", "until", "use")

    def __init__(self, connection: C, table: _Table[K, C]) -> None:
        self.connection = connection
        self.table = table
        self.use = Use(connection=connection)
        self.until = math.inf
        """When it will have been idle for too long; it counts from its last release."""


class _Table(Generic[K, C]):
    """One origin's slots, idle connections (the newest on the right) and waiting tickets (the first comes first)."""

    __slots__ = ("busy", "idle", "opening", "origin", "waiting")

    def __init__(self, origin: K) -> None:
        self.origin: K = origin
        self.busy: int = 0
        """Slots in use, being opened or served. While anybody waits, that is all of them, and none is idle."""
        self.opening: int = 0
        """Those of them that wait for `Pool.opened` or `Pool.failed`."""
        self.idle: deque[_Kept[K, C]] = deque()
        self.waiting: OrderedDict[Ticket[K, C], None] = OrderedDict()


@final
class Pool(Generic[K, C]):
    """The kept connections of one client. See the module's text for the rules of driving.

    `K` is what tells connections apart: an `Origin`, and with it whatever else must never be mixed, such as the name of
    the trust store under which a connection was verified. `C` is the driver's connection; neither its equality nor its
    hash may change. Misuse raises `LocalProtocolError` and changes nothing.
    """

    __slots__ = ("_closed", "_closing", "_granted", "_idle", "_limits", "_tables", "_used")

    def __init__(self, limits: PoolLimits = PoolLimits()) -> None:
        self._limits = limits
        self._tables: dict[K, _Table[K, C]] = {}
        self._used: dict[C, _Kept[K, C]] = {}
        self._idle: OrderedDict[C, _Kept[K, C]] = OrderedDict()
        """All that is idle, whatever its origin, in the order of release: what goes too far is always the first."""
        self._granted: dict[C, _Kept[K, C]] = {}
        """What a ticket was served with and has not been taken yet: nobody's, so that nobody can release it."""
        self._closing: list[C] = []
        self._closed = False

    def acquire(self, origin: K, *, now: float, fresh: bool = False) -> Use[C] | Open | Wait[K, C]:
        """The connection to use for one exchange with `origin`; with `fresh`, never one that was used before."""
        table = self._tables.get(origin) or self._tables.setdefault(origin, _Table(origin))
        idle = table.idle
        if not fresh:
            while idle:
                kept = idle.pop()
                connection = kept.connection
                del self._idle[connection]
                if now < kept.until:
                    self._used[connection] = kept
                    table.busy += 1
                    return kept.use
                self._closing.append(connection)
        if table.busy == self._limits.max_connections:
            ticket = Ticket(table, fresh)
            table.waiting[ticket] = None
            return Wait(ticket=ticket)
        table.busy += 1
        table.opening += 1
        if table.busy + len(idle) > self._limits.max_connections:
            self._retire(idle[0])
        return _OPEN

    def replace(self, connection: C, *, now: float) -> Use[C] | Open:
        """What to use in place of a connection that was given out and turned out to be of no use; the slot is kept.

        The connection is yours to close, through `to_close`.
        """
        kept = self._leave(connection)
        self._closing.append(connection)
        kept.table.busy -= 1
        given = self.acquire(kept.table.origin, now=now)
        assert not isinstance(given, Wait)  # its own slot is free
        return given

    def opened(self, origin: K, connection: C) -> None:
        """`Open` succeeded: `connection` is in use now."""
        table = self._opening(origin)
        if connection in self._used or connection in self._idle or connection in self._granted:
            raise LocalProtocolError("this connection is in the pool already")
        table.opening -= 1
        self._used[connection] = _Kept(connection, table)

    def failed(self, origin: K) -> Ticket[K, C] | None:
        """`Open` did not succeed, or was cancelled. Returns the ticket that was served with the free slot, if any."""
        table = self._opening(origin)
        table.opening -= 1
        return self._free(table)

    def release(self, connection: C, *, now: float, reusable: bool) -> Ticket[K, C] | None:
        """An exchange is over. If it is not `reusable`, the connection is yours to close, through `to_close`.

        Returns the ticket that was served with the connection or its slot, if any.
        """
        return self._pass_on(self._leave(connection), now + self._limits.idle_seconds if reusable else now, now)

    def lost(self, connection: C) -> Ticket[K, C] | None:
        """A connection in use is closed already, by force. Returns the ticket that was served with its slot, if any."""
        return self._free(self._leave(connection).table)

    def take(self, ticket: Ticket[K, C]) -> Use[C] | Open:
        """What a served ticket was given. It can be taken once."""
        if ticket._place is not _Place.SERVED:
            raise LocalProtocolError(f"the ticket gives nothing: it is {ticket._place.value}")
        ticket._place = _Place.OVER
        kept = ticket._kept
        if kept is None:
            ticket._table.opening += 1
            return _OPEN
        self._used[kept.connection] = self._granted.pop(kept.connection)
        return kept.use

    def give_up(self, ticket: Ticket[K, C], *, now: float) -> Ticket[K, C] | None:
        """Whoever waited does not want it any more: what the ticket was given goes on to the next one in line.

        Returns that next one, if it was served. A ticket that was taken or given up before is left alone.
        """
        place, ticket._place = ticket._place, _Place.OVER
        if place is not _Place.SERVED:
            ticket._table.waiting.pop(ticket, None)
            return None
        kept = ticket._kept
        if kept is None:
            return self._free(ticket._table)
        del self._granted[kept.connection]
        # It has not been used since its release, so its time runs on from there.
        return self._pass_on(kept, kept.until, now)

    def to_close(self, *, now: float) -> list[C]:
        """The connections that must be closed now, each once: not reusable, idle for too long, or too many."""
        while self._idle:
            oldest = next(iter(self._idle.values()))
            if now < oldest.until:
                break
            self._retire(oldest)
        closing, self._closing = self._closing, []
        return closing

    def close(self) -> list[C]:
        """Keep nothing from now on: all idle connections, to be closed; those in use follow as they are released.

        Whether a call may still begin is for the client to say: those under way can go on, and open what they need.
        """
        self._closed = True
        return self.to_close(now=math.inf)

    @property
    def in_use(self) -> int:
        """How many connections are in use, to all origins together."""
        return len(self._used)

    def inspect(self) -> dict[K, Holding[C]]:
        """All that is held, by origin; for people and tests, since this one does search."""
        used: dict[K, list[C]] = {origin: [] for origin in self._tables}
        for connection, kept in self._used.items():
            used[kept.table.origin].append(connection)
        return {
            origin: Holding(
                in_use=tuple(used[origin]),
                idle=tuple(kept.connection for kept in table.idle),
                opening=table.opening,
                served=table.busy - len(used[origin]) - table.opening,
                waiting=len(table.waiting),
            )
            for origin, table in self._tables.items()
        }

    def _opening(self, origin: K) -> _Table[K, C]:
        table = self._tables.get(origin)
        if table is None or not table.opening:
            raise LocalProtocolError(f"no connection to {origin} is being opened")
        return table

    def _leave(self, connection: C) -> _Kept[K, C]:
        kept = self._used.pop(connection, None)
        if kept is None:
            raise LocalProtocolError("this connection is not in use: was it released twice?")
        return kept

    def _pass_on(self, kept: _Kept[K, C], until: float, now: float) -> Ticket[K, C] | None:
        """What becomes of a connection that came back and may be used until `until`."""
        table = kept.table
        if until <= now or self._closed:
            self._closing.append(kept.connection)
            return self._free(table)
        kept.until = until
        if table.waiting:
            if next(iter(table.waiting))._fresh:
                self._closing.append(kept.connection)
                return self._free(table)
            self._granted[kept.connection] = kept
            return self._serve(table, kept)
        table.busy -= 1
        table.idle.append(kept)
        self._idle[kept.connection] = kept
        if len(self._idle) > self._limits.max_idle:
            self._retire(next(iter(self._idle.values())))
        return None

    def _free(self, table: _Table[K, C]) -> Ticket[K, C] | None:
        """What becomes of a slot whose connection is no more."""
        if table.waiting:
            return self._serve(table, None)
        table.busy -= 1
        self._forget_if_empty(table)
        return None

    def _serve(self, table: _Table[K, C], kept: _Kept[K, C] | None) -> Ticket[K, C]:
        """Give the first in line a connection, or the right to open one. The slot stays taken throughout."""
        ticket, _ = table.waiting.popitem(last=False)
        ticket._place = _Place.SERVED
        ticket._kept = kept
        return ticket

    def _retire(self, kept: _Kept[K, C]) -> None:
        """Hand back the idle connection `kept`, the oldest one of its origin."""
        table = kept.table
        table.idle.popleft()
        del self._idle[kept.connection]
        self._closing.append(kept.connection)
        self._forget_if_empty(table)

    def _forget_if_empty(self, table: _Table[K, C]) -> None:
        """Origins come and go with the workers: an origin with nothing left takes no memory."""
        if not table.busy and not table.idle:
            del self._tables[table.origin]
