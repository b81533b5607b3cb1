"""The core calls no more of its functions for one route and one whole call than is recorded.

A count is the same on every machine, busy or not, and on every Python: so a change that makes a call dearer shows. If
it is worth its price, or if a call has become cheaper, record the new counts and say why:
``python tests/benchmarks/counts.py --record``; with ``--functions`` it lists what is called.
"""

from __future__ import annotations

import json

import pytest

from benchmarks.counts import CEILINGS, counted

RECORDED: dict[str, int] = json.loads(CEILINGS.read_text("utf-8"))


@pytest.mark.parametrize("what", ["route", "call"])
def test_the_core_calls_no_more_functions_than_recorded(what: str) -> None:
    count, ceiling = counted()[what], RECORDED[what]
    assert count <= ceiling, (
        f"one {what} calls {count} functions of the core, recorded are {ceiling}: see "
        "`python tests/benchmarks/counts.py --functions`, and record with --record what is worth it"
    )


@pytest.mark.parametrize("what", ["route", "call"])
def test_the_record_is_near_what_is_counted(what: str) -> None:
    """A ceiling far above the count would let the next change through unseen."""
    count, ceiling = counted()[what], RECORDED[what]
    assert count > 0.9 * ceiling, f"one {what} calls {count} functions, recorded are {ceiling}: record that"


def test_counting_does_not_change_the_count() -> None:
    assert counted() == counted()
