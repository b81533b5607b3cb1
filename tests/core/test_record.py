"""What a call says about itself: plain values that can be listed, sliced, compared, pickled and written as JSON."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import Counts, Entry, EntryKind, Phase, Record
from vastroute.record import Row

ROWS: list[Row] = [
    (EntryKind.ASKED, 1e6, Phase.ROUTE, 1, None, None, "", None),
    (EntryKind.NOT_READY, 1e6 + 0.5, Phase.ROUTE, 1, 7, 200, "loading: 1", None),
    (EntryKind.WAITING, 1e6 + 0.5, Phase.ROUTE, 1, 7, None, "poll", 1e6 + 1.25),
    (EntryKind.GAVE_UP, 0.0, Phase.WORKER, 0, 7, 0, "the deadline has come", 0.0),
]
rows = st.lists(
    st.tuples(
        st.sampled_from(EntryKind),
        st.floats(0, 1e9),
        st.sampled_from(Phase),
        st.integers(0, 99),
        st.none() | st.integers(1),
        st.none() | st.integers(100, 599),
        st.text(max_size=5),
        st.none() | st.floats(0, 1e9),
    ),
    max_size=6,
)


class TestRecord:
    def test_makes_entries_of_rows(self) -> None:
        record = Record(ROWS)
        assert isinstance(record, Sequence)
        assert record[1] == Entry(
            kind=EntryKind.NOT_READY,
            at=1e6 + 0.5,
            phase=Phase.ROUTE,
            attempt=1,
            request_idx=7,
            status=200,
            detail="loading: 1",
        )
        assert record[-2].until == 1e6 + 1.25
        assert [entry.kind.value for entry in record] == ["asked", "not ready", "waiting", "gave up"]
        assert Record(ROWS[:1])[0] == Entry(kind=EntryKind.ASKED, at=1e6, phase=Phase.ROUTE, attempt=1)

    @given(rows, st.slices(6))
    def test_is_a_sequence_like_any_other(self, rows: list[Row], part: slice) -> None:
        record, entries = Record(rows), list(Record(rows))
        assert len(record) == len(entries) == len(rows)
        assert [record[n] for n in range(-len(rows), len(rows))] == entries * 2
        assert isinstance(record[part], Record)
        assert list(record[part]) == entries[part]
        assert list(reversed(record)) == entries[::-1]
        assert all(entry in record for entry in entries)
        assert repr(record) == f"Record({entries!r})"

    @given(rows)
    def test_is_a_value(self, rows: list[Row]) -> None:
        record = Record(rows)
        assert record == Record(tuple(rows))
        assert hash(record) == hash(Record(tuple(rows)))
        assert pickle.loads(pickle.dumps(record)) == record
        assert record != Record([*rows, ROWS[0]])
        assert record != rows
        assert not hasattr(record, "__dict__")

    def test_does_not_change_with_its_rows(self) -> None:
        rows = list(ROWS)
        record = Record(rows)
        rows.clear()
        assert len(record) == len(ROWS)

    @pytest.mark.parametrize("index", [4, -5, 10**9])
    def test_an_index_outside(self, index: int) -> None:
        with pytest.raises(IndexError):
            Record(ROWS)[index]

    def test_may_be_empty(self) -> None:
        assert len(Record()) == 0
        assert not Record()
        assert repr(Record()) == "Record([])"


class TestEntry:
    @pytest.mark.parametrize(
        ("row", "plain"),
        [
            (ROWS[0], {"kind": "asked", "at": 1e6, "phase": "route", "attempt": 1}),
            (
                ROWS[2],
                {
                    "kind": "waiting",
                    "at": 1e6 + 0.5,
                    "phase": "route",
                    "attempt": 1,
                    "request_idx": 7,
                    "detail": "poll",
                    "until": 1e6 + 1.25,
                },
            ),
            (
                ROWS[3],
                {
                    "kind": "gave up",
                    "at": 0.0,
                    "phase": "worker",
                    "attempt": 0,
                    "request_idx": 7,
                    "status": 0,
                    "detail": "the deadline has come",
                    "until": 0.0,
                },
            ),
        ],
    )
    def test_as_dict_leaves_out_what_is_empty_and_keeps_what_is_0(self, row: Row, plain: dict[str, Any]) -> None:
        assert Record([row])[0].as_dict() == plain
        assert list(plain) == list(Record([row])[0].as_dict())

    @given(rows)
    def test_as_dict_is_json(self, rows: list[Row]) -> None:
        plain = [entry.as_dict() for entry in Record(rows)]
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain

    @pytest.mark.parametrize("missing", ["kind", "at", "phase", "attempt"])
    def test_what_every_entry_has(self, missing: str) -> None:
        fields: Any = {"kind": EntryKind.ASKED, "at": 1e6, "phase": Phase.ROUTE, "attempt": 1}
        del fields[missing]
        with pytest.raises(TypeError, match=missing):
            Entry(**fields)

    def test_holds_no_request(self) -> None:
        names = {field.name for field in attrs.fields(Entry)}
        assert names == {"kind", "at", "phase", "attempt", "request_idx", "status", "detail", "until"}
        assert all(field.kw_only for kind in (Entry, Counts) for field in attrs.fields(kind))


class TestCounts:
    def test_everything_begins_at_0(self) -> None:
        assert set(attrs.astuple(Counts())) == {0}
        assert Counts() == Counts(asks=0)
        assert pickle.loads(pickle.dumps(Counts(asks=3))) == Counts(asks=3)

    @pytest.mark.parametrize("field", [field.name for field in attrs.fields(Counts)])
    def test_seconds_are_floats_and_the_rest_are_whole(self, field: str) -> None:
        value = getattr(Counts(), field)
        assert type(value) is (float if field.startswith("seconds_") else int)
        assert math.isclose(getattr(attrs.evolve(Counts(), **{field: 3}), field), 3)
