"""The table of the worker's hop, against a second one written from the wire facts (sections 2 and 3) and the laws."""

from __future__ import annotations

import pytest

from vastroute import Advice, FailureKind, Outcome, OutcomeRow, Then, outcome_of_failure, outcome_of_status
from vastroute.outcomes import NOT_SENT, PERHAPS_STARTED, STATUS_CLASSES, STATUSES

STATUS_RANGE = range(100, 600)
ROWS = [
    *(outcome_of_failure(kind, sent=sent) for kind in FailureKind for sent in (False, True, None)),
    *(outcome_of_status(status) for status in STATUS_RANGE),
]

NOTHING_BEGAN = {429, 503}
"""The worker is full (section 3), or takes no work: another one is asked for, whatever the work."""
PERHAPS_RUNS = {408, 499, 502, 504}
"""Somebody on the way gave up waiting: the work may still run."""
MODEL_FAILED = set(range(500, 600)) - NOTHING_BEGAN - PERHAPS_RUNS
"""The worker's own 500 looks like the model's (section 3): the work may have been done."""


def what_follows(status: int) -> Then:
    if status in range(200, 300):
        return Then.ANSWER
    if status == 401:  # the signature, and nothing was begun
        return Then.FRESH_GRANT
    if status in NOTHING_BEGAN:
        return Then.REROUTE
    if status in PERHAPS_RUNS | MODEL_FAILED:
        return Then.REROUTE_IF_SAFE
    return Then.STOP


def what_to_do(status: int) -> Advice:
    if status in range(200, 300):
        return Advice.NOTHING
    if status in {401, 408, 410, 429, 499} | set(range(500, 600)):
        return Advice.ASK_AGAIN
    return Advice.CHECK_INPUT if status in range(400, 500) else Advice.CHECK_ANSWER


class TestStatuses:
    def test_each_has_its_row(self) -> None:
        for status in STATUS_RANGE:
            row = outcome_of_status(status)
            assert row.then is what_follows(status), status
            assert row.advice is what_to_do(status), status
            assert row.outcome is (Outcome.PERHAPS_STARTED if status in PERHAPS_RUNS else Outcome.ANSWERED), status
            assert row.may_have_run is (status in {*range(200, 300), *PERHAPS_RUNS, *MODEL_FAILED}), status

    @pytest.mark.parametrize("status", [-200, -1, 0, 1, 99, 600, 999, 20000])
    def test_what_is_no_status_stops(self, status: int) -> None:
        row = outcome_of_status(status)
        assert (row.then, row.advice) == (Then.STOP, Advice.CHECK_ANSWER)
        assert row.reason == "a status that ends no exchange"

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (200, "answered"),
            (302, "redirect, never followed"),
            (401, "signature"),
            (404, "refuses the request"),
            (410, "no such session"),
            (422, "envelope or the payload"),
            (429, "full"),
            (500, "failed at the work"),
            (503, "takes no work"),
        ],
    )
    def test_says_why(self, status: int, words: str) -> None:
        assert words in outcome_of_status(status).reason


class TestFailures:
    @pytest.mark.parametrize("kind", FailureKind)
    def test_what_did_not_leave_goes_to_another_worker(self, kind: FailureKind) -> None:
        row = outcome_of_failure(kind, sent=False)
        ours = {FailureKind.PROXY: Advice.CHECK_INPUT, FailureKind.GUARD: Advice.ALLOW}
        assert row.outcome is Outcome.NOT_SENT
        assert row.advice is ours.get(kind, Advice.ASK_AGAIN)
        assert row.then is (Then.STOP if kind in ours else Then.REROUTE)

    @pytest.mark.parametrize("sent", [True, None])
    @pytest.mark.parametrize("kind", FailureKind)
    def test_what_perhaps_left_is_repeated_only_where_that_is_safe(self, kind: FailureKind, sent: bool | None) -> None:
        row = outcome_of_failure(kind, sent=sent)
        if kind is FailureKind.TOO_LARGE:  # an answer came, and a second one would be as large
            assert (row.outcome, row.then, row.advice) == (Outcome.ANSWERED, Then.STOP, Advice.RAISE_LIMIT)
            assert row.may_have_run
        else:
            wanted = (Outcome.PERHAPS_STARTED, Then.REROUTE_IF_SAFE, Advice.ASK_AGAIN)
            assert (row.outcome, row.then, row.advice) == wanted


class TestEveryRow:
    def test_work_that_perhaps_started_is_never_sent_again_unasked(self) -> None:
        for row in ROWS:
            assert row.outcome is not Outcome.PERHAPS_STARTED or row.then is Then.REROUTE_IF_SAFE
            assert row.outcome is not Outcome.NOT_SENT or row.then in {Then.REROUTE, Then.STOP}
            assert row.then is not Then.ANSWER or row.advice is Advice.NOTHING
            assert not (row.may_have_run and row.outcome is Outcome.NOT_SENT)
            assert row.may_have_run or row.outcome is not Outcome.PERHAPS_STARTED
            assert not (row.may_have_run and row.then in {Then.REROUTE, Then.FRESH_GRANT})

    def test_there_is_one_for_every_kind_of_failure(self) -> None:
        assert set(NOT_SENT) == set(PERHAPS_STARTED) == set(FailureKind)
        assert set(STATUSES) <= set(STATUS_RANGE)
        assert set(STATUS_CLASSES) == {2, 3, 4, 5}

    def test_each_has_words_of_its_own(self) -> None:
        rows: list[OutcomeRow] = [
            row for table in (NOT_SENT, PERHAPS_STARTED, STATUSES, STATUS_CLASSES) for row in table.values()
        ]
        assert len({row.reason for row in rows}) == len(rows)
        assert all(row.reason == row.reason.strip(" .") for row in rows)
