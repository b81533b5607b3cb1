"""Faults: what each makes of an honest answer, that they compose, and how they are planned."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import FailureKind, InvalidValue, PublicKey, verify
from vastroute_testing import (
    OTHER_TEST_PUBLIC_KEY,
    TEST_PUBLIC_KEY,
    BadJson,
    BadSignature,
    Chunk,
    CloseBeforeHead,
    Cut,
    CutBody,
    CutStreamAt,
    Delay,
    DropField,
    DropIndex,
    End,
    Fault,
    Garbage,
    Garbled,
    Hang,
    Head,
    Html,
    OtherIndex,
    Padded,
    Redirect,
    Refuse,
    ResetBeforeHead,
    Schedule,
    SetField,
    Slow,
    Status,
    answer,
    body_of,
    check_schedule,
    json_answer,
    sign,
    stream_answer,
)
from vastroute_testing.fault_table import EVERY, FaultTable
from vastroute_testing.schedule import whole

NOW = 500.5
LATER = 501.0
GRANT: dict[str, Any] = {"request_idx": 7, "url": "https://203.0.113.7:40123", "cost": 5, "endpoint": "demo"}
GRANT |= {"reqnum": 1, "signature": sign(GRANT)}
HONEST = json_answer(200, GRANT, at=LATER)
EVENTS = [f"data: {number}\n\n".encode() for number in range(4)]
STREAM = stream_answer(EVENTS, at=LATER, every=0.5, headers={"content-type": "text/event-stream"})
EMPTY: Schedule = ()


def fields_of(schedule: Schedule) -> Any:
    return json.loads(body_of(schedule))


def status_of(schedule: Schedule) -> int:
    response = whole(schedule)
    assert response is not None
    return response.status


# --- one by one --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind", "at"),
    [
        (Refuse(), FailureKind.REFUSED, NOW),
        (CloseBeforeHead(), FailureKind.EOF, LATER),
        (ResetBeforeHead(), FailureKind.RESET, LATER),
    ],
)
def test_the_connection_ends_without_a_head(fault: Fault, kind: FailureKind, at: float) -> None:
    assert fault.spoil(HONEST, now=NOW) == (Cut(at=at, kind=kind),)
    assert fault.spoil(EMPTY, now=NOW) == (Cut(at=NOW, kind=kind),)


@pytest.mark.parametrize(
    ("fault", "served"),
    [
        (Refuse(), False),
        (Garbled(), False),
        (Status(503), False),
        (Html(), False),
        (Redirect("https://elsewhere.example/"), False),
        (CloseBeforeHead(), True),
        (ResetBeforeHead(), True),
        (Hang(), True),
        (Delay(1), True),
        (Slow(10), True),
        (CutBody(3), True),
        (CutStreamAt(1), True),
        (BadJson(), True),
        (BadSignature(), True),
        (DropIndex(), True),
        (Status(502, served=True), True),
        (CloseBeforeHead(served=False), False),
    ],
)
def test_whether_the_server_does_its_part(fault: Fault, served: bool) -> None:
    called = []

    def serve() -> Schedule:
        called.append(True)
        return HONEST

    FaultTable({("x", 1): fault}).play("x", serve, now=NOW)
    assert fault.served is served
    assert called == ([True] if served else [])


def test_garbled_is_not_http() -> None:
    (step,) = Garbled().spoil(EMPTY, now=NOW)
    assert isinstance(step, Garbage)
    assert not step.data.startswith(b"HTTP")


@pytest.mark.parametrize("after", [0, 1, 10])
def test_cut_body_leaves_its_beginning(after: int) -> None:
    schedule = CutBody(after, FailureKind.RESET).spoil(HONEST, now=NOW)
    assert schedule[0] == HONEST[0]
    assert body_of(schedule) == body_of(HONEST)[:after]
    assert schedule[-1] == Cut(at=LATER, kind=FailureKind.RESET)
    assert whole(schedule) is None


def test_cut_body_leaves_a_shorter_answer_alone() -> None:
    assert CutBody(len(body_of(HONEST))).spoil(HONEST, now=NOW) == HONEST


@pytest.mark.parametrize("event", [0, 1, 3])
def test_a_stream_is_cut_after_whole_events(event: int) -> None:
    schedule = CutStreamAt(event).spoil(STREAM, now=NOW)
    assert body_of(schedule) == b"".join(EVENTS[:event])
    assert isinstance(schedule[-1], Cut)
    assert schedule[-1].at == LATER + max(0, event - 1) * 0.5


def test_a_stream_can_end_properly_and_yet_too_early() -> None:
    schedule = CutStreamAt(2, kind=None).spoil(STREAM, now=NOW)
    assert body_of(schedule) == b"".join(EVENTS[:2])
    assert isinstance(schedule[-1], End)


def test_only_streams_with_more_events_are_cut() -> None:
    assert CutStreamAt(4).spoil(STREAM, now=NOW) == STREAM
    assert CutStreamAt(0).spoil(HONEST, now=NOW) == HONEST


def test_hanging() -> None:
    assert Hang().spoil(HONEST, now=NOW) == ()
    assert Hang(0).spoil(HONEST, now=NOW) == HONEST[:1]
    after = Hang(4).spoil(HONEST, now=NOW)
    assert body_of(after) == body_of(HONEST)[:4]
    assert isinstance(after[-1], Chunk)


def test_delay_moves_everything() -> None:
    assert [step.at for step in Delay(2.5).spoil(STREAM, now=NOW)] == [step.at + 2.5 for step in STREAM]


@pytest.mark.parametrize("rate", [0.5, 3, 10, 1000])
def test_slow_keeps_its_rate(rate: float) -> None:
    body = bytes(range(100))
    schedule = Slow(rate).spoil(answer(200, body, at=LATER), now=NOW)
    assert body_of(schedule) == body
    assert isinstance(schedule[0], Head)
    assert schedule[0].at == LATER
    assert isinstance(schedule[-1], End)
    assert schedule[-1].at == pytest.approx(LATER + len(body) / rate)


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (Status(503), 503, {}, b""),
        (Status(429, retry_after=3), 429, {"retry-after": "3"}, b""),
        (Status(429, retry_after="Fri, 24 Nov 2023 05:00:00 GMT"), 429, {}, b""),
        (Status(502, body="bad gateway"), 502, {"content-type": "text/plain; charset=utf-8"}, b"bad gateway"),
        (Status(500, body={"error": "no"}), 500, {"content-type": "application/json"}, b'{"error": "no"}'),
        (Status(500, body=b"\x00"), 500, {}, b"\x00"),
        (Status(500, body={}), 500, {"content-type": "application/json"}, b"{}"),
        (Redirect("https://elsewhere.example/"), 307, {"location": "https://elsewhere.example/"}, b""),
        (Redirect("/x", 302), 302, {"location": "/x"}, b""),
    ],
)
def test_another_answer(fault: Fault, status: int, headers: dict[str, str], body: bytes) -> None:
    response = whole(fault.spoil(EMPTY, now=NOW))
    assert response is not None
    assert response.status == status
    assert response.body == body
    assert response.headers.get("content-length") == str(len(body))
    assert headers.items() <= dict(response.headers).items()


def test_html_is_a_page() -> None:
    response = whole(Html().spoil(HONEST, now=NOW))
    assert response is not None
    assert response.status == 200
    assert response.body.startswith(b"<!DOCTYPE html>")


def test_bad_json_is_a_complete_answer() -> None:
    schedule = BadJson().spoil(HONEST, now=NOW)
    response = whole(schedule)
    assert response is not None
    assert response.headers.get("content-length") == str(len(response.body))
    with pytest.raises(json.JSONDecodeError):
        fields_of(schedule)


def test_padding_changes_the_size_alone() -> None:
    schedule = Padded(100_000).spoil(HONEST, now=NOW)
    assert fields_of(schedule) == GRANT
    assert len(body_of(schedule)) > 100_000


@pytest.mark.parametrize(
    ("fault", "wanted"),
    [
        (DropIndex(), {name: value for name, value in GRANT.items() if name != "request_idx"}),
        (OtherIndex(99), GRANT | {"request_idx": 99}),
        (DropField("cost"), {name: value for name, value in GRANT.items() if name != "cost"}),
        (DropField("nothing"), GRANT),
        (SetField("url", None), GRANT | {"url": None}),
        (SetField("more", [1, {}]), GRANT | {"more": [1, {}]}),
    ],
)
def test_fields_are_edited_and_the_rest_stays(fault: Fault, wanted: dict[str, Any]) -> None:
    schedule = fault.spoil(HONEST, now=NOW)
    assert fields_of(schedule) == wanted
    assert list(fields_of(schedule)) == list(wanted)


@pytest.mark.parametrize("body", [b"", b"[1]", b"not JSON"])
def test_what_holds_no_fields_is_not_edited(body: bytes) -> None:
    honest = answer(200, body, at=LATER)
    assert OtherIndex(3).spoil(honest, now=NOW) == honest


def test_a_bad_signature_is_one_by_another_key() -> None:
    forged = fields_of(BadSignature().spoil(HONEST, now=NOW))
    assert forged | {"signature": GRANT["signature"]} == GRANT
    assert not verify(forged, TEST_PUBLIC_KEY).verified
    assert verify(forged, OTHER_TEST_PUBLIC_KEY).verified
    assert verify(GRANT, PublicKey.load(TEST_PUBLIC_KEY)).verified


def test_a_bad_signature_can_be_any_text_and_belongs_to_a_grant() -> None:
    assert fields_of(BadSignature("").spoil(HONEST, now=NOW))["signature"] == ""
    waiting = json_answer(200, {"status": "1 loading"}, at=LATER)
    assert fields_of(BadSignature().spoil(waiting, now=NOW)) == {"status": "1 loading"}


# --- together ----------------------------------------------------------------------------------------------------

SIZES = st.integers(0, 40)
FAULTS: st.SearchStrategy[Fault] = st.one_of(
    st.builds(Refuse),
    st.builds(CloseBeforeHead),
    st.builds(ResetBeforeHead),
    st.builds(Garbled),
    st.builds(CutBody, SIZES, st.sampled_from([FailureKind.EOF, FailureKind.RESET])),
    st.builds(CutStreamAt, st.integers(0, 5), st.sampled_from([FailureKind.EOF, None])),
    st.builds(Hang, SIZES | st.none()),
    st.builds(Delay, st.floats(0, 100)),
    st.builds(Slow, st.floats(0.1, 1e6)),
    st.builds(Status, st.sampled_from([204, 429, 503]), body=st.sampled_from([None, "text", {"a": 1}])),
    st.builds(Redirect, st.just("/")),
    st.builds(Html),
    st.builds(BadJson),
    st.builds(Padded, SIZES),
    st.builds(SetField, st.just("url"), st.none()),
    st.builds(DropIndex),
    st.builds(BadSignature),
)


@given(faults=st.lists(FAULTS, max_size=4), honest=st.sampled_from([HONEST, STREAM, answer(401, at=LATER)]))
def test_any_faults_make_a_schedule_that_can_be_played(faults: list[Fault], honest: Schedule) -> None:
    schedule = check_schedule(FaultTable({("x", 1): faults}).play("x", lambda: honest, now=NOW))
    times = [step.at for step in schedule]
    assert times == sorted(times)
    assert all(at >= NOW for at in times)
    response = whole(schedule)
    if response is not None and response.headers.get("content-length") is not None:
        assert response.headers.get_all("content-length") == (str(len(response.body)),)


def test_faults_apply_in_their_order() -> None:
    table = FaultTable({("x", 1): (Status(503), Delay(2))})
    assert table.play("x", lambda: HONEST, now=NOW) == answer(503, at=NOW + 2)


# --- planned -----------------------------------------------------------------------------------------------------


def test_each_label_counts_its_own_attempts() -> None:
    table = FaultTable({("a", 1): Status(501), ("a", 3): Status(503), ("7", 2): Status(502)})
    answers = [status_of(table.play(label, lambda: HONEST, now=NOW)) for label in "a7a7aab"]
    assert answers == [501, 200, 200, 502, 503, 200, 200]


def test_every_stands_for_every_other_attempt() -> None:
    table = FaultTable({("a", EVERY): Status(503), ("a", 2): ()})
    assert [status_of(table.play("a", lambda: HONEST, now=NOW)) for _ in range(4)] == [503, 200, 503, 503]


@pytest.mark.parametrize(
    "make",
    [
        lambda: FaultTable({("a", -1): Status(503)}),
        lambda: FaultTable({(7, 1): Status(503)}),  # type: ignore[dict-item]
        lambda: FaultTable({("a", True): Status(503)}),
        lambda: FaultTable({("a", 1): ("x",)}),  # type: ignore[dict-item]
    ],
)
def test_a_plan_that_cannot_be_is_refused(make: Callable[[], FaultTable]) -> None:
    with pytest.raises(InvalidValue):
        make()


@pytest.mark.parametrize("make", [lambda: CutBody(-1), lambda: Delay(-1), lambda: Slow(0), lambda: Padded(-1)])
def test_a_fault_that_cannot_be_is_refused(make: Callable[[], Fault]) -> None:
    with pytest.raises(InvalidValue, match="must be"):
        make()
