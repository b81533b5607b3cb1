"""The pool: no slot is lost, no connection is in two places, nobody is overtaken, whatever happens and when."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import attrs
import pytest
import trio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trio.testing import MockClock

from vastroute.errors import InvalidValue, LocalProtocolError
from vastroute.pool import Holding, Open, Pool, PoolLimits, Ticket, Use, Wait

ORIGINS = ("engine", "worker")
IDLE_SECONDS = 10.0
EMPTY: Holding[int] = Holding(in_use=(), idle=(), opening=0, served=0, waiting=0)


class PoolMachine(RuleBasedStateMachine):
    """Drives a pool in every order there is, beside a plain account of what must be where."""

    @initialize(max_connections=st.integers(1, 3), max_idle=st.integers(0, 4), busy=st.integers(0, 3))
    def begin(self, max_connections: int, max_idle: int, busy: int) -> None:
        self.limits = PoolLimits(max_connections=max_connections, max_idle=max_idle, idle_seconds=IDLE_SECONDS)
        self.pool: Pool[str, int] = Pool(self.limits)
        self.now = 1e6
        self.opening = dict.fromkeys(ORIGINS, 0)
        self.line: dict[str, deque[Ticket[str, int]]] = {origin: deque() for origin in ORIGINS}
        self.fresh: dict[Ticket[str, int], bool] = {}
        self.served: dict[Ticket[str, int], str] = {}
        self.used: dict[int, str] = {}
        """What callers hold: a connection and its origin."""
        self.opened_at: dict[int, str] = {}
        self.released_at: dict[int, float] = {}
        self.closed: set[int] = set()
        self.is_closed = False
        # Most of what can go wrong begins where all connections are in use: few steps would lead there by themselves.
        for _ in range(min(busy, max_connections)):
            self.open()

    def open(self) -> None:
        origin = ORIGINS[0]
        self.acquire(origin, fresh=False)
        self.opening[origin] -= 1
        self.connected(origin)

    def connected(self, origin: str) -> None:
        connection = len(self.opened_at)
        self.opened_at[connection] = self.used[connection] = origin
        self.pool.opened(origin, connection)

    def given(self, origin: str, decision: Use[int] | Open, *, fresh: bool) -> None:
        if isinstance(decision, Open):
            self.opening[origin] += 1
            return
        connection = decision.connection
        assert not fresh
        assert connection not in self.used
        assert connection not in self.closed
        assert self.opened_at[connection] == origin
        self.used[connection] = origin

    def woken(self, origin: str, ticket: Ticket[str, int] | None) -> None:
        """A slot or a connection of `origin` came free: it went to the first in line, if there is one."""
        if not self.line[origin]:
            assert ticket is None
            return
        assert ticket is self.line[origin].popleft()
        assert ticket.served
        assert ticket.origin == origin
        self.served[ticket] = origin

    @rule(origin=st.sampled_from(ORIGINS), fresh=st.sampled_from([False, False, False, True]))
    def acquire(self, origin: str, fresh: bool) -> None:
        full = self.held(origin) == self.limits.max_connections
        match self.pool.acquire(origin, now=self.now, fresh=fresh):
            case Wait(ticket=ticket):
                assert full
                assert not ticket.served
                self.line[origin].append(ticket)
                self.fresh[ticket] = fresh
            case decision:
                assert not full
                if isinstance(decision, Use):
                    assert self.now - self.released_at[decision.connection] < IDLE_SECONDS
                self.given(origin, decision, fresh=fresh)

    def held(self, origin: str) -> int:
        """Slots that somebody answers for."""
        used = sum(each == origin for each in self.used.values())
        return used + self.opening[origin] + sum(each == origin for each in self.served.values())

    @precondition(lambda self: any(self.opening.values()))
    @rule(data=st.data(), success=st.sampled_from([True, True, True, False]))
    def connect(self, data: st.DataObject, success: bool) -> None:
        origin = data.draw(st.sampled_from([origin for origin in ORIGINS if self.opening[origin]]))
        self.opening[origin] -= 1
        if success:
            self.connected(origin)
        else:
            self.woken(origin, self.pool.failed(origin))

    @precondition(lambda self: self.used)
    @rule(data=st.data(), end=st.sampled_from(["reusable"] * 4 + ["not reusable", "lost"]))
    def end_exchange(self, data: st.DataObject, end: str) -> None:
        connection = data.draw(st.sampled_from(sorted(self.used)))
        origin = self.used.pop(connection)
        self.released_at[connection] = self.now
        if end == "lost":
            self.closed.add(connection)
            self.woken(origin, self.pool.lost(connection))
        else:
            self.woken(origin, self.pool.release(connection, now=self.now, reusable=end == "reusable"))
        with pytest.raises(LocalProtocolError, match="not in use"):
            self.pool.release(connection, now=self.now, reusable=True)

    @precondition(lambda self: self.used)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        connection = data.draw(st.sampled_from(sorted(self.used)))
        origin = self.used.pop(connection)
        self.released_at[connection] = self.now
        given = self.pool.replace(connection, now=self.now)
        if isinstance(given, Use):
            assert given.connection != connection
            assert self.now - self.released_at[given.connection] < IDLE_SECONDS
        self.given(origin, given, fresh=False)

    @precondition(lambda self: self.served)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(list(self.served)))
        self.given(self.served.pop(ticket), self.pool.take(ticket), fresh=self.fresh[ticket])
        with pytest.raises(LocalProtocolError, match="gives nothing"):
            self.pool.take(ticket)
        assert self.pool.give_up(ticket, now=self.now) is None

    @precondition(lambda self: self.served or any(self.line.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        waiting = [ticket for line in self.line.values() for ticket in line]
        ticket = data.draw(st.sampled_from(waiting + list(self.served)))
        if ticket in self.served:
            origin = self.served.pop(ticket)
            self.woken(origin, self.pool.give_up(ticket, now=self.now))
        else:
            self.line[ticket.origin].remove(ticket)
            assert self.pool.give_up(ticket, now=self.now) is None
        assert not ticket.served
        assert self.pool.give_up(ticket, now=self.now) is None

    @precondition(lambda self: self.opened_at)
    @rule(seconds=st.sampled_from([0.5, 0.5, 0.5, 4.0, IDLE_SECONDS]), drain=st.booleans())
    def pass_time(self, seconds: float, drain: bool) -> None:
        self.now += seconds
        if drain:
            self.drain()

    def drain(self) -> None:
        self.take_back(self.pool.to_close(now=self.now))
        for holding in self.pool.inspect().values():
            for connection in holding.idle:
                assert self.now - self.released_at[connection] < IDLE_SECONDS

    # A closed pool keeps nothing: it comes late, or there would be little to see.
    @precondition(lambda self: len(self.opened_at) > 5 and not self.is_closed)
    @rule()
    def close(self) -> None:
        self.is_closed = True
        self.take_back(self.pool.close())

    def take_back(self, connections: Sequence[int]) -> None:
        for connection in connections:
            assert connection not in self.used
            assert connection not in self.closed
            self.closed.add(connection)

    @invariant()
    def everything_is_accounted_for(self) -> None:
        holdings = self.pool.inspect()
        assert self.pool.in_use == len(self.used)
        everywhere = [c for holding in holdings.values() for c in holding.in_use + holding.idle]
        assert len(everywhere) == len(set(everywhere))
        assert not self.closed & set(everywhere)
        idle = 0
        for origin in ORIGINS:
            holding = holdings.get(origin, EMPTY)
            idle += len(holding.idle)
            assert set(holding.in_use) == {connection for connection, at in self.used.items() if at == origin}
            assert holding.opening == self.opening[origin]
            assert holding.served == sum(at == origin for at in self.served.values())
            assert self.held(origin) + len(holding.idle) <= self.limits.max_connections
            assert holding.waiting == len(self.line[origin])
            if holding.waiting:
                assert self.held(origin) == self.limits.max_connections
            assert origin not in holdings or holding != EMPTY
        assert idle <= (0 if self.is_closed else self.limits.max_idle)

    def teardown(self) -> None:
        """When everybody is done, every connection that was ever opened has been closed, exactly once."""
        if not hasattr(self, "pool"):
            return
        for ticket in [*self.served, *(ticket for line in self.line.values() for ticket in line)]:
            self.pool.give_up(ticket, now=self.now)
        for connection in self.used:
            self.pool.release(connection, now=self.now, reusable=True)
        for origin in ORIGINS:
            for _ in range(self.opening[origin]):
                self.pool.failed(origin)
        self.used.clear()
        self.take_back(self.pool.close())
        assert self.pool.inspect() == {}
        assert self.closed == set(self.opened_at)


TestPoolMachine = PoolMachine.TestCase


def make(connections: int, limits: PoolLimits | None = None) -> Pool[str, str]:
    """A pool with idle connections c0, c1 and so on, released at 0, 1 and so on."""
    pool: Pool[str, str] = Pool() if limits is None else Pool(limits)
    for number in range(connections):
        assert isinstance(pool.acquire("engine", now=0.0), Open)
        pool.opened("engine", f"c{number}")
    for number in range(connections):
        assert pool.release(f"c{number}", now=float(number), reusable=True) is None
    return pool


def test_the_connection_used_last_is_used_next() -> None:
    pool = make(3)
    assert pool.acquire("engine", now=5.0) == Use(connection="c2")
    assert pool.acquire("engine", now=5.0) == Use(connection="c1")
    pool.release("c2", now=6.0, reusable=True)
    assert pool.acquire("engine", now=7.0) == Use(connection="c2")
    assert pool.inspect() == {"engine": Holding(in_use=("c1", "c2"), idle=("c0",), opening=0, served=0, waiting=0)}


def test_a_connection_that_is_of_no_use_is_replaced_in_its_slot() -> None:
    pool = make(2, PoolLimits(max_connections=2))
    assert pool.acquire("engine", now=5.0) == Use(connection="c1")
    assert pool.replace("c1", now=5.0) == Use(connection="c0")
    assert isinstance(pool.acquire("engine", now=5.0), Open)
    waiting = pool.acquire("engine", now=5.0)
    assert isinstance(waiting, Wait)
    assert isinstance(pool.replace("c0", now=5.0), Open)
    assert not waiting.ticket.served, "whoever waits comes after the one whose slot it is"
    assert pool.to_close(now=5.0) == ["c1", "c0"]
    assert pool.failed("engine") is waiting.ticket
    with pytest.raises(LocalProtocolError, match="not in use"):
        pool.replace("c0", now=5.0)


def test_what_is_idle_too_long_is_closed_not_used() -> None:
    pool = make(3, PoolLimits(idle_seconds=10.0))
    assert pool.to_close(now=9.9) == []
    assert pool.to_close(now=11.0) == ["c0", "c1"]
    assert pool.acquire("engine", now=12.0) == Open()
    assert pool.to_close(now=12.0) == ["c2"]


def test_beyond_the_limit_the_longest_idle_connection_of_all_origins_is_closed() -> None:
    pool = make(2, PoolLimits(max_idle=2))
    pool.acquire("worker", now=2.0)
    pool.opened("worker", "w")
    pool.release("w", now=3.0, reusable=True)
    assert pool.to_close(now=3.0) == ["c0"]
    assert pool.acquire("worker", now=4.0) == Use(connection="w")


def test_a_fresh_connection_takes_the_slot_of_an_idle_one() -> None:
    pool = make(1, PoolLimits(max_connections=1))
    assert pool.acquire("engine", now=1.0, fresh=True) == Open()
    assert pool.to_close(now=1.0) == ["c0"]


def test_who_waits_for_a_fresh_connection_is_not_given_a_used_one() -> None:
    pool = make(1, PoolLimits(max_connections=1))
    pool.acquire("engine", now=1.0)
    waiting = pool.acquire("engine", now=1.0, fresh=True)
    assert isinstance(waiting, Wait)
    assert pool.release("c0", now=2.0, reusable=True) is waiting.ticket
    assert pool.take(waiting.ticket) == Open()
    assert pool.to_close(now=2.0) == ["c0"]


@pytest.mark.parametrize("reusable", [True, False])
def test_the_first_in_line_is_given_what_was_released_if_it_may_be_used_again(reusable: bool) -> None:
    pool = make(1, PoolLimits(max_connections=1))
    pool.acquire("engine", now=1.0)
    first, second = (pool.acquire("engine", now=1.0) for _ in range(2))
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert pool.release("c0", now=2.0, reusable=reusable) is first.ticket
    assert not second.ticket.served
    assert pool.take(first.ticket) == (Use(connection="c0") if reusable else Open())
    assert pool.to_close(now=2.0) == ([] if reusable else ["c0"])
    in_use, opening = (("c0",), 0) if reusable else ((), 1)
    assert pool.inspect() == {"engine": Holding(in_use=in_use, idle=(), opening=opening, served=0, waiting=1)}


def test_what_was_granted_and_is_given_up_goes_to_the_next_in_line_until_it_is_too_old() -> None:
    pool = make(1, PoolLimits(max_connections=1, idle_seconds=10.0))
    pool.acquire("engine", now=1.0)
    waits = [pool.acquire("engine", now=1.0) for _ in range(3)]
    first, second, third = (wait.ticket for wait in waits if isinstance(wait, Wait))
    assert pool.release("c0", now=2.0, reusable=True) is first
    assert pool.give_up(first, now=11.9) is second
    assert pool.give_up(second, now=12.0) is third
    assert pool.to_close(now=12.0) == ["c0"]
    assert pool.take(third) == Open()


def test_a_connection_that_was_granted_and_given_up_ages_from_its_release() -> None:
    pool = make(1, PoolLimits(max_connections=1, idle_seconds=10.0))
    pool.acquire("engine", now=0.0)
    waiting = pool.acquire("engine", now=0.0)
    assert isinstance(waiting, Wait)
    pool.release("c0", now=1.0, reusable=True)
    assert pool.give_up(waiting.ticket, now=9.0) is None
    assert pool.to_close(now=10.9) == []
    assert pool.to_close(now=11.0) == ["c0"]


def test_after_closing_calls_under_way_go_on_and_nothing_is_kept() -> None:
    pool = make(2)
    pool.acquire("engine", now=2.0)
    assert pool.close() == ["c0"]
    assert pool.close() == []
    assert pool.acquire("engine", now=3.0) == Open()
    pool.release("c1", now=3.0, reusable=True)
    assert pool.to_close(now=3.0) == ["c1"]


def test_misuse_is_refused_and_changes_nothing() -> None:
    pool = make(1)
    before = pool.inspect()
    misuses: list[Callable[[], object]] = [
        lambda: pool.failed("engine"),
        lambda: pool.failed("nowhere"),
        lambda: pool.opened("engine", "c9"),
        lambda: pool.lost("c0"),
        lambda: pool.release("c0", now=1.0, reusable=True),
    ]
    for misuse in misuses:
        with pytest.raises(LocalProtocolError):
            misuse()
    assert pool.inspect() == before


@pytest.mark.parametrize("place", ["in use", "idle", "granted"])
def test_a_connection_is_opened_once(place: str) -> None:
    pool = make(1, PoolLimits(max_connections=2))
    if place != "idle":
        pool.acquire("engine", now=1.0)
    pool.acquire("engine", now=1.0, fresh=True)
    if place == "granted":
        pool.acquire("engine", now=1.0)
        pool.release("c0", now=1.0, reusable=True)
    with pytest.raises(LocalProtocolError, match="already"):
        pool.opened("engine", "c0")
    assert pool.failed("engine") is None


def test_a_ticket_says_for_what_it_waits_and_where_it_stands() -> None:
    pool = make(1, PoolLimits(max_connections=1))
    pool.acquire("engine", now=1.0)
    waiting = pool.acquire("engine", now=1.0)
    assert isinstance(waiting, Wait)
    assert repr(waiting.ticket) == "<Ticket for engine: waiting in line>"
    with pytest.raises(LocalProtocolError, match="waiting in line"):
        pool.take(waiting.ticket)
    pool.lost("c0")
    assert repr(waiting.ticket) == "<Ticket for engine: served, not yet taken>"


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_connections": 0},
        {"max_connections": 1.5},
        {"max_idle": -1},
        {"idle_seconds": 0},
        {"idle_seconds": float("inf")},
    ],
)
def test_limits_that_mean_nothing_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(InvalidValue, match=next(iter(arguments))):
        PoolLimits(**arguments)  # type: ignore[arg-type]  # wrong on purpose


def test_trio_drives_it_with_one_event_per_ticket_whatever_is_cancelled() -> None:
    pool: Pool[str, int] = Pool(PoolLimits(max_connections=2))
    events: dict[Ticket[str, int], trio.Event] = {}
    finished: list[int] = []
    opened: list[int] = []

    def wake(ticket: Ticket[str, int] | None) -> None:
        if ticket is not None:
            events[ticket].set()

    async def connection() -> int:
        decision = pool.acquire("engine", now=trio.current_time())
        if isinstance(decision, Wait):
            ticket, event = decision.ticket, trio.Event()
            events[ticket] = event
            try:
                await event.wait()
                decision = pool.take(ticket)
            finally:
                del events[ticket]
                wake(pool.give_up(ticket, now=trio.current_time()))
        if isinstance(decision, Use):
            return decision.connection
        try:
            await trio.sleep(1.0)
        except BaseException:
            wake(pool.failed("engine"))
            raise
        opened.append(len(opened))
        pool.opened("engine", opened[-1])
        return opened[-1]

    async def call(number: int, patience: float) -> None:
        with trio.move_on_after(patience):
            held = await connection()
            try:
                await trio.sleep(3.0)
            except BaseException:
                wake(pool.lost(held))
                raise
            wake(pool.release(held, now=trio.current_time(), reusable=number % 5 != 0))
            finished.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(call, number, 0.5 * number if number % 3 else 1000.0)

    trio.run(main, clock=MockClock(autojump_threshold=0.0))
    assert set(range(0, 60, 3)) <= set(finished)
    assert not events
    # Nothing at all is held if the last connection to come back was not reusable.
    assert [attrs.evolve(holding, idle=()) for holding in pool.inspect().values()] in ([], [EMPTY])


def test_threads_drive_it_under_one_lock() -> None:
    pool: Pool[str, int] = Pool(PoolLimits(max_connections=3))
    changed = threading.Condition()
    opened: list[int] = []
    at_once: list[int] = []
    most = 0

    @contextmanager
    def connection() -> Iterator[int]:
        with changed:
            decision = pool.acquire("engine", now=0.0)
            if isinstance(decision, Wait):
                ticket = decision.ticket
                changed.wait_for(lambda: ticket.served)
                decision = pool.take(ticket)
            if isinstance(decision, Open):
                opened.append(len(opened))
                pool.opened("engine", opened[-1])
                held = opened[-1]
            else:
                held = decision.connection
        yield held
        with changed:
            if pool.release(held, now=0.0, reusable=True) is not None:
                changed.notify_all()

    def work() -> None:
        nonlocal most
        for _ in range(50):
            with connection() as held:
                assert held not in at_once
                at_once.append(held)
                most = max(most, len(at_once))
                at_once.remove(held)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 3
    assert len(opened) <= 3
    [holding] = pool.inspect().values()
    assert len(holding.idle) == len(opened)
