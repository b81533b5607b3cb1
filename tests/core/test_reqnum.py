"""Reqnums: what a tracker says beside a plain list of what it saw, and what a gate holds for how long."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastroute import InvalidValue, LocalProtocolError, ReqnumGate, ReqnumOrder, ReqnumTracker, ReqnumVerdict

FRESH = ReqnumVerdict(order=ReqnumOrder.FRESH)
W, OTHER = "http://worker.example", "http://other.example"


def orders(tracker: ReqnumTracker, *reqnums: int) -> list[tuple[ReqnumOrder, int]]:
    verdicts = [tracker.observe(W, reqnum) for reqnum in reqnums]
    return [(verdict.order, verdict.late_by) for verdict in verdicts]


class TestTracker:
    def test_the_first_number_is_fresh_whatever_it_is(self) -> None:
        for reqnum in (0, 1, 10**30):
            assert ReqnumTracker().observe(W, reqnum) == FRESH

    def test_rising_numbers_are_fresh_with_gaps_or_without(self) -> None:
        assert {order for order, _ in orders(ReqnumTracker(), 1, 2, 3, 50, 10_000, 10**30)} == {ReqnumOrder.FRESH}

    def test_a_number_out_of_order_is_late_once_and_repeated_then(self) -> None:
        assert orders(ReqnumTracker(), 5, 3, 3, 5, 4) == [
            (ReqnumOrder.FRESH, 0),
            (ReqnumOrder.LATE, 2),
            (ReqnumOrder.REPEATED, 2),
            (ReqnumOrder.REPEATED, 0),
            (ReqnumOrder.LATE, 1),
        ]

    def test_beyond_the_window_nothing_is_known(self) -> None:
        assert orders(ReqnumTracker(window=10), 100, 91, 90, 0) == [
            (ReqnumOrder.FRESH, 0),
            (ReqnumOrder.LATE, 9),
            (ReqnumOrder.OUTSIDE, 10),
            (ReqnumOrder.OUTSIDE, 100),
        ]

    def test_how_much_it_remembers_by_default(self) -> None:
        assert orders(ReqnumTracker(), 100, 1, 0)[1:] == [(ReqnumOrder.LATE, 99), (ReqnumOrder.OUTSIDE, 100)]

    def test_a_window_of_one_knows_the_highest_only(self) -> None:
        assert [order for order, _ in orders(ReqnumTracker(window=1), 1, 2, 2, 1)] == [
            ReqnumOrder.FRESH,
            ReqnumOrder.FRESH,
            ReqnumOrder.REPEATED,
            ReqnumOrder.OUTSIDE,
        ]

    def test_workers_are_told_apart(self) -> None:
        tracker = ReqnumTracker()
        assert tracker.observe(W, 5) == FRESH
        assert tracker.observe(OTHER, 5) == FRESH
        assert tracker.observe(OTHER, 4).order is ReqnumOrder.LATE

    def test_the_worker_not_heard_of_for_longest_is_forgotten(self) -> None:
        tracker = ReqnumTracker(workers=2)
        for worker in ("a", "b", "a", "c"):
            tracker.observe(worker, 5)
        assert tracker.observe("a", 5).order is ReqnumOrder.REPEATED
        assert tracker.observe("b", 5).order is ReqnumOrder.FRESH

    @pytest.mark.parametrize("reqnum", [-1, True, 1.0, "1", None])
    def test_what_is_no_reqnum_is_refused_and_changes_nothing(self, reqnum: Any) -> None:
        tracker = ReqnumTracker(workers=1)
        tracker.observe(W, 5)
        for worker in (W, OTHER):
            with pytest.raises(InvalidValue, match="reqnum"):
                tracker.observe(worker, reqnum)
        assert tracker.observe(W, 5).order is ReqnumOrder.REPEATED

    @pytest.mark.parametrize("size", [0, -1, True, 1.5, None])
    def test_sizes_are_whole_numbers(self, size: Any) -> None:
        with pytest.raises(InvalidValue, match="window"):
            ReqnumTracker(window=size)
        with pytest.raises(InvalidValue, match="workers"):
            ReqnumTracker(workers=size)

    @settings(max_examples=200, deadline=None)
    @given(window=st.integers(1, 20), reqnums=st.lists(st.integers(0, 60), max_size=60))
    def test_it_says_what_a_list_of_everything_would_say(self, window: int, reqnums: list[int]) -> None:
        tracker = ReqnumTracker(window=window)
        seen: list[int] = []
        for reqnum in reqnums:
            verdict = tracker.observe(W, reqnum)
            late_by = max(seen, default=-1) - reqnum
            if late_by < 0:
                assert verdict == FRESH
            elif late_by >= window:
                assert verdict == ReqnumVerdict(order=ReqnumOrder.OUTSIDE, late_by=late_by)
            else:
                order = ReqnumOrder.REPEATED if reqnum in seen else ReqnumOrder.LATE
                assert verdict == ReqnumVerdict(order=order, late_by=late_by)
            seen.append(reqnum)

    @given(jumps=st.lists(st.integers(0, 2**62), min_size=1, max_size=20))
    def test_it_stays_small_however_far_the_numbers_jump(self, jumps: list[int]) -> None:
        tracker = ReqnumTracker(window=8)
        for reqnum in jumps:
            tracker.observe(W, reqnum)
        assert tracker._seen[W].bits < 2**8


class TestGate:
    def test_the_lowest_goes_at_once_and_the_others_wait_for_it(self) -> None:
        gate = ReqnumGate(most=2.0)
        for reqnum in (7, 5, 9):
            gate.arrive(W, reqnum, now=100.0)
        assert [gate.hold_until(W, reqnum, now=100.5) for reqnum in (5, 7, 9)] == [100.5, 102.0, 102.0]
        assert gate.leave(W, 5) == 7
        assert [gate.hold_until(W, reqnum, now=100.5) for reqnum in (7, 9)] == [100.5, 102.0]

    def test_nothing_is_held_beyond_its_own_bound(self) -> None:
        gate = ReqnumGate(most=2.0)
        gate.arrive(W, 5, now=100.0)
        gate.arrive(W, 7, now=101.0)
        assert gate.hold_until(W, 7, now=102.5) == 103.0
        assert gate.hold_until(W, 7, now=110.0) == 110.0

    def test_one_that_comes_later_with_a_lower_number_goes_first(self) -> None:
        gate = ReqnumGate()
        gate.arrive(W, 7, now=0.0)
        assert gate.hold_until(W, 7, now=0.0) == 0.0
        gate.arrive(W, 5, now=0.1)
        assert gate.hold_until(W, 7, now=0.1) == 0.25

    def test_workers_are_told_apart(self) -> None:
        gate = ReqnumGate()
        gate.arrive(W, 5, now=0.0)
        gate.arrive(OTHER, 7, now=0.0)
        assert gate.hold_until(OTHER, 7, now=0.0) == 0.0

    def test_leaving_out_of_order_wakes_nobody_new(self) -> None:
        gate = ReqnumGate()
        for reqnum in (5, 7):
            gate.arrive(W, reqnum, now=0.0)
        assert gate.leave(W, 7) == 5
        assert gate.leave(W, 5) is None

    def test_a_number_may_come_again_once_it_left(self) -> None:
        gate = ReqnumGate()
        for now in (0.0, 10.0):
            gate.arrive(W, 5, now=now)
            assert gate.leave(W, 5) is None

    def test_out_of_turn_it_refuses_and_changes_nothing(self) -> None:
        gate = ReqnumGate()
        for refused in (lambda: gate.leave(W, 5), lambda: gate.hold_until(W, 5, now=0.0)):
            with pytest.raises(LocalProtocolError):
                refused()
        gate.arrive(W, 5, now=0.0)
        with pytest.raises(LocalProtocolError):
            gate.arrive(W, 5, now=0.2)
        gate.arrive(W, 4, now=0.2)
        assert gate.hold_until(W, 5, now=0.2) == 0.25

    @pytest.mark.parametrize("most", [0, -1, True, math.inf, math.nan, "1", None])
    def test_its_bound_is_a_number_of_seconds(self, most: Any) -> None:
        with pytest.raises(InvalidValue, match="most"):
            ReqnumGate(most=most)

    @settings(max_examples=100, deadline=None)
    @given(
        arrivals=st.lists(st.tuples(st.integers(0, 9), st.floats(0, 3)), max_size=10, unique_by=lambda pair: pair[0])
    )
    def test_every_grant_leaves_within_its_bound_and_in_order_where_that_allows(
        self, arrivals: list[tuple[int, float]]
    ) -> None:
        gate = ReqnumGate(most=1.0)
        came: dict[int, float] = {}
        waiting = sorted(arrivals, key=lambda pair: pair[1])
        now = 0.0
        while waiting or came:
            due = {reqnum: gate.hold_until(W, reqnum, now=now) for reqnum in came}
            if due and (not waiting or min(due.values()) <= waiting[0][1]):
                reqnum = min(due, key=lambda each: (due[each], each))
                now = max(now, due[reqnum])
                assert now <= came[reqnum] + 1.0
                assert min(came) == reqnum or now == came[reqnum] + 1.0
                gate.leave(W, reqnum)
                del came[reqnum]
            else:
                reqnum, now = waiting.pop(0)
                gate.arrive(W, reqnum, now=now)
                came[reqnum] = now
