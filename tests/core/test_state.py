"""The tables, each found by its name: every pair of state and input, and what must be true of any such machine."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from itertools import product
from typing import Any

import pytest

from vastroute import ASK_TABLE, CALL_TABLE, AskInput, AskState, CallInput, CallState, LocalProtocolError, state
from vastroute.state import advance

Table = Mapping[Any, Mapping[Any, Any]]

ASK_OVER = {AskState.FAILED, AskState.CANCELLED}
CALL_OVER = {CallState.ANSWERED, CallState.FAILED, CallState.CANCELLED}
MACHINES: list[tuple[Table, type[Enum], type[Enum], Enum, set[Any]]] = [
    (ASK_TABLE, AskState, AskInput, AskState.WAITING, ASK_OVER),
    (CALL_TABLE, CallState, CallInput, CallState.ROUTING, CALL_OVER),
]
machines = pytest.mark.parametrize(
    ("table", "states", "inputs", "first", "over"), [pytest.param(*row, id=row[1].__name__) for row in MACHINES]
)
TABLES: dict[str, Table] = {name: each for name, each in vars(state).items() if name.endswith("_TABLE")}
every_table = pytest.mark.parametrize("table", [pytest.param(table, id=name) for name, table in TABLES.items()])


def inputs_of(table: Table) -> type[Enum]:
    """The kind of input that a table takes."""
    (kind,) = {type(given) for row in table.values() for given in row}
    return kind


PAIRS = [
    pytest.param(table, state, given, id=f"{state}-{given}")
    for table in TABLES.values()
    for state, given in product(table, inputs_of(table))
]


def reachable(table: Table, begin: Enum) -> set[Enum]:
    found, ahead = {begin}, [begin]
    while ahead:
        new = set(table[ahead.pop()].values()) - found
        found |= new
        ahead += new
    return found


class TestAdvance:
    @pytest.mark.parametrize(("table", "state", "given"), PAIRS)
    def test_every_state_and_every_input(self, table: Table, state: Enum, given: Enum) -> None:
        possible = dict(table[state])
        if given in possible:
            assert advance(table, state, given) is possible[given]
            return
        with pytest.raises(LocalProtocolError) as refused:
            advance(table, state, given)
        takes = ", ".join(repr(each.value) for each in possible) or "nothing: it is over"
        assert repr(state.value) in str(refused.value)
        assert str(refused.value).endswith(f"cannot take {given.value!r}; it takes {takes}")
        assert refused.value.__suppress_context__
        assert dict(table[state]) == possible


class TestEveryTable:
    @every_table
    def test_every_state_and_every_input_stands_in_it(self, table: Table) -> None:
        first = next(iter(table))
        states: Any = type(first)
        assert list(table) == list(states)
        assert {given for row in table.values() for given in row} == set(inputs_of(table))
        assert reachable(table, first) == set(table)

    @every_table
    def test_every_value_has_words_of_its_own(self, table: Table) -> None:
        kinds: list[Any] = [type(next(iter(table))), inputs_of(table)]
        for words in kinds:
            assert len({each.value for each in words}) == len(list(words))

    @every_table
    def test_no_state_before_the_end_is_a_trap(self, table: Table) -> None:
        ends = {state for state, row in table.items() if set(row.values()) <= {state}}
        assert ends
        assert all(reachable(table, state) & ends for state in table)


class TestCalls:
    @machines
    def test_what_is_over_takes_nothing(
        self, table: Table, states: type[Enum], inputs: type[Enum], first: Enum, over: set[Any]
    ) -> None:
        assert {state for state, row in table.items() if not row} == over
        assert next(iter(table)) is first
        assert set(table) == set(states)
        assert inputs_of(table) is inputs

    @machines
    def test_a_caller_can_always_cancel_what_is_not_over(
        self, table: Table, states: type[Enum], inputs: type[Enum], first: Enum, over: set[Any]
    ) -> None:
        cancel: Any = inputs["CANCEL"]
        assert {state for state, row in table.items() if cancel in row} == set(states) - over
        assert all(row.get(cancel, states["CANCELLED"]) is states["CANCELLED"] for row in table.values())

    @machines
    def test_an_input_that_ends_a_call_ends_it_everywhere(
        self, table: Table, states: type[Enum], inputs: type[Enum], first: Enum, over: set[Any]
    ) -> None:
        for name, end in [("REFUSE", "FAILED"), ("LIMIT", "FAILED"), ("CANCEL", "CANCELLED")]:
            given: Any = inputs[name]
            assert {row[given] for row in table.values() if given in row} == {states[end]}

    def test_work_that_streams_is_never_sent_to_another_worker(self) -> None:
        assert CallInput.REROUTE not in CALL_TABLE[CallState.STREAMING]

    def test_only_an_answered_ask_can_lose_its_worker(self) -> None:
        assert [state for state, row in ASK_TABLE.items() if AskInput.LOST in row] == [AskState.ANSWERED]
        assert ASK_TABLE[AskState.ANSWERED][AskInput.LOST] is AskState.WAITING
