"""Worker sessions: their messages byte for byte, their answers, and the account of their lifetime."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    DEFAULT_LIFETIME,
    SESSION_TABLE,
    SessionEnded,
    SessionGone,
    SessionHandle,
    SessionInfo,
    SessionInput,
    SessionLife,
    SessionState,
    decode_session_create,
    decode_session_end,
    decode_session_get,
    decode_session_health,
    encode_session_create,
    encode_session_end,
    encode_session_get,
    encode_session_health,
    session_payload,
)
from vastroute.codec import decode_route
from vastroute.errors import (
    Advice,
    CallFailed,
    InvalidValue,
    LocalProtocolError,
    Outcome,
    Phase,
    Refused,
    UnexpectedAnswer,
)
from vastroute.messages import USER_AGENT, Grant, HttpRequest, HttpResponse
from vastroute.policy import Limits
from vastroute.sessions import LATEST, LONGEST, SWEEP

SIGNATURE = "c2lnbmVk/+w=="
# Odd on purpose: spaces, a number's spelling, an unknown field, and a field's order that no writer would repeat.
RAW = (
    b'{ "url":"https://203.0.113.7:40123/base/", "cost":100.0,  "reqnum": 4,"endpoint": "demo",\n'
    b' "signature": "' + SIGNATURE.encode() + b'", "request_idx": 1004, "extra": [1.0, "\xc3\xa9"]}'
)
BARE = RAW.replace(b' "request_idx": 1004,', b"")
SESSION = "FSP3KN0FhYQbY"
DATE = ("date", "Mon, 23 Nov 2026 15:24:55 GMT")
UTC = 1795447495.0
"""The same instant as `DATE`."""
NOW = 1_000_003.5
LOCATION = ("location", "https://b.example/x?y")
ANSWERED = Outcome.ANSWERED


def grant(raw: bytes = RAW) -> Grant:
    parsed = decode_route(HttpResponse(status=200, body=raw))
    assert isinstance(parsed, Grant)
    return parsed


def handle(**others: Any) -> SessionHandle:
    values: dict[str, Any] = {"session_id": SESSION, "grant": grant(), "lifetime": 60, "expiration": UTC + 60}
    return SessionHandle(**(values | others))


def answer(status: int, body: Any = None, *headers: tuple[str, str]) -> HttpResponse:
    raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status=status, headers=headers, body=raw)


# --- requests -------------------------------------------------------------------------------------------------------


def test_the_request_that_makes_a_session() -> None:
    request = encode_session_create(grant())
    assert request.url == "https://203.0.113.7:40123/base/session/create"
    assert request.body == b'{"auth_data": ' + RAW + b', "session_id": null, "payload": {"lifetime": 60.0}}'


@pytest.mark.parametrize(
    ("encode", "route"),
    [(encode_session_get, "get"), (encode_session_health, "health"), (encode_session_end, "end")],
)
def test_the_requests_about_a_session(encode: Callable[[SessionHandle], HttpRequest], route: str) -> None:
    request = encode(handle())
    assert request.url == f"https://203.0.113.7:40123/base/session/{route}"
    assert request.body == b'{"session_id": "FSP3KN0FhYQbY", "session_auth": ' + RAW + b"}"


@pytest.mark.parametrize(
    "request_",
    [
        encode_session_create(grant()),
        encode_session_get(handle()),
        encode_session_health(handle()),
        encode_session_end(handle()),
    ],
)
def test_no_request_carries_a_key(request_: HttpRequest) -> None:
    assert request_.method == "POST"
    assert sorted(request_.headers) == [
        ("accept-encoding", "identity"),
        ("content-type", "application/json"),
        ("user-agent", USER_AGENT),
    ]
    assert SIGNATURE not in repr(request_)


def test_a_held_number_is_added_to_a_grant_without_one_and_proves_the_session_later() -> None:
    added = BARE[:-1] + b', "request_idx": 7}'
    assert encode_session_create(grant(BARE), request_idx=7).body.startswith(b'{"auth_data": ' + added + b", ")
    response = answer(201, {"session_id": SESSION, "expiration": UTC + 60})
    made = decode_session_create(response, grant=grant(BARE), request_idx=7, utc=UTC)
    assert made.auth == added
    assert added in encode_session_end(made).body
    # A grant with a number of its own is left alone.
    assert encode_session_create(grant(), request_idx=7).body == encode_session_create(grant()).body


@pytest.mark.parametrize("request_idx", [0, -1, True, 1.0, "7"])
def test_a_held_number_is_a_number(request_idx: Any) -> None:
    with pytest.raises(InvalidValue, match="request_idx"):
        encode_session_create(grant(BARE), request_idx=request_idx)
    with pytest.raises(InvalidValue, match="request_idx"):
        handle(request_idx=request_idx)


def test_a_session_id_is_written_as_json() -> None:
    assert handle(session_id="a" * 200).session_id == "a" * 200
    request = encode_session_get(handle(session_id='a"b\u00e9'))
    assert json.loads(request.body)["session_id"] == 'a"b\u00e9'
    assert request.body.startswith(b'{"session_id": "a\\"b\\u00e9", ')


@pytest.mark.parametrize(
    ("arguments", "payload"),
    [
        ({}, {"lifetime": DEFAULT_LIFETIME}),
        ({"lifetime": 30}, {"lifetime": 30}),
        ({"on_close_route": "/done"}, {"lifetime": 60.0, "on_close_route": "/done"}),
        (
            {"lifetime": 0.5, "on_close_route": "https://a.example/x", "on_close_payload": {"k": (1, None)}},
            {"lifetime": 0.5, "on_close_route": "https://a.example/x", "on_close_payload": {"k": [1, None]}},
        ),
        (
            {"on_close_route": "/x", "on_close_payload": 0},
            {"lifetime": 60.0, "on_close_route": "/x", "on_close_payload": 0},
        ),
    ],
)
def test_the_payload(arguments: dict[str, Any], payload: dict[str, Any]) -> None:
    assert session_payload(**arguments) == payload
    assert repr(session_payload(**arguments)["lifetime"]) == repr(payload["lifetime"])
    assert json.loads(encode_session_create(grant(), **arguments).body)["payload"] == payload


@pytest.mark.parametrize("lifetime", [0, -1, 1e10, math.inf, math.nan, 10**400, True, "60", None])
def test_a_lifetime_is_seconds(lifetime: Any) -> None:
    with pytest.raises(InvalidValue, match="lifetime must be seconds"):
        session_payload(lifetime=lifetime)
    with pytest.raises(InvalidValue, match="lifetime must be seconds"):
        handle(lifetime=lifetime)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"on_close_route": ""}, "URL"),
        ({"on_close_route": " "}, "URL"),
        ({"on_close_route": "/a\n"}, "URL"),
        ({"on_close_route": 5}, "URL"),
        ({"on_close_payload": {}}, "drop"),
        ({"on_close_route": "/a", "on_close_payload": math.nan}, "JSON"),
        ({"on_close_route": "/a", "on_close_payload": {1, 2}}, "JSON"),
    ],
)
def test_what_cannot_be_sent_on_close(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidValue, match=match):
        session_payload(**arguments)


# --- answers --------------------------------------------------------------------------------------------------------


def test_a_session_was_made() -> None:
    body = {"session_id": SESSION, "expiration": UTC + 30.25}
    made = decode_session_create(answer(201, body, DATE), grant=grant(), lifetime=30, utc=UTC + 7)
    assert made == handle(lifetime=30, expiration=UTC + 30.25, clock_ahead=-7.0)
    assert made.url == "https://203.0.113.7:40123/base/"
    assert decode_session_create(answer(200, body), grant=grant(), lifetime=30, utc=0).clock_ahead == 0
    whole = decode_session_create(answer(201, {"session_id": "x", "expiration": 5}), grant=grant(), utc=UTC)
    assert type(whole.expiration) is float


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"<html>",
        [],
        {},
        {"session_id": SESSION},
        {"expiration": 5.0},
        {"session_id": "", "expiration": 5.0},
        {"session_id": "a\n", "expiration": 5.0},
        {"session_id": "a" * 201, "expiration": 5.0},
        {"session_id": 5, "expiration": 5.0},
        {"session_id": SESSION, "expiration": "5"},
        {"session_id": SESSION, "expiration": True},
        {"session_id": SESSION, "expiration": -5},
        {"session_id": SESSION, "expiration": 10**400},
        b'{"session_id": "a", "expiration": NaN}',
        b'{"session_id": "a", "session_id": "b", "expiration": 5}',
    ],
)
def test_a_session_that_nobody_can_name(body: Any) -> None:
    with pytest.raises(UnexpectedAnswer, match="cannot be used") as caught:
        decode_session_create(answer(201, body), grant=grant(), utc=UTC)
    error = caught.value
    assert (error.phase, error.outcome, error.advice) == (Phase.WORKER, Outcome.ANSWERED, Advice.CHECK_ANSWER)
    assert (error.status, error.request_idx, error.body) == (201, 1004, None)


TOLD = {
    "session_id": SESSION,
    "auth_data": {"signature": SIGNATURE, "url": "https://203.0.113.7:40123/base/"},
    "lifetime": 30,
    "expiration": 1795447525.740033,
    "created_at": 1795447495.740063,
    "on_close_route": None,
    "on_close_payload": None,
}
"""What the official worker answers (recorded; the grant shortened)."""


def test_what_the_worker_tells_of_a_session() -> None:
    info = decode_session_get(answer(200, TOLD, DATE), handle(), utc=UTC - 2)
    assert info == SessionInfo(
        session_id=SESSION,
        lifetime=30,
        expiration=1795447525.740033,
        clock_ahead=2.0,
        created_at=1795447495.740063,
    )
    more = TOLD | {"on_close_route": "/x", "on_close_payload": {"secret": "hidden"}, "created_at": "yesterday"}
    info = decode_session_get(answer(200, more), handle(), utc=UTC)
    assert (info.on_close_route, info.on_close_payload) == ("/x", {"secret": "hidden"})
    assert (info.clock_ahead, info.created_at) == (0.0, None)
    assert "hidden" not in repr(info)
    assert decode_session_get(answer(200, TOLD | {"on_close_route": 5}), handle(), utc=UTC).on_close_route is None


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        TOLD | {"session_id": "another"},
        TOLD | {"lifetime": 0},
        TOLD | {"lifetime": None},
        TOLD | {"expiration": "5"},
    ],
)
def test_what_is_no_word_about_the_session(body: Any) -> None:
    with pytest.raises(UnexpectedAnswer, match="cannot be used") as caught:
        decode_session_get(answer(200, body), handle(), utc=UTC)
    assert SIGNATURE not in str(caught.value)


def test_health() -> None:
    assert decode_session_health(answer(200, {"ok": True}), handle()) is True
    assert decode_session_health(answer(200, {"ok": False}), handle()) is False
    assert decode_session_health(answer(410, {"error": "invalid session"}), handle()) is False
    for body in (None, {}, {"ok": 1}, {"ok": "true"}, b"true"):
        with pytest.raises(UnexpectedAnswer, match="cannot be used"):
            decode_session_health(answer(200, body), handle())


def test_the_end() -> None:
    body = {"ended": True, "removed_session": SESSION}
    assert decode_session_end(answer(200, body), handle()) == SessionEnded(session_id=SESSION, was_open=True)
    for response in (
        answer(400, {"error": f"session with id {SESSION} not found"}),
        answer(410, {"error": "session already closed"}),
        answer(410),
    ):
        assert decode_session_end(response, handle()) == SessionEnded(session_id=SESSION, was_open=False)
    for body_ in (None, {}, {"ended": False}, {"ended": 1}):
        with pytest.raises(UnexpectedAnswer, match="cannot be used"):
            decode_session_end(answer(200, body_), handle())


@pytest.mark.parametrize(
    ("response", "cls", "advice", "outcome", "text"),
    [
        (answer(400, {"error": "session does not exist"}), SessionGone, Advice.ASK_AGAIN, ANSWERED, SESSION),
        (answer(410), SessionGone, Advice.ASK_AGAIN, ANSWERED, SESSION),
        (answer(400, {"error": "bad request"}), Refused, Advice.CHECK_INPUT, ANSWERED, "refuses"),
        (answer(400, {"error": 5}), Refused, Advice.CHECK_INPUT, ANSWERED, "refuses"),
        (answer(400, b"no such session"), Refused, Advice.CHECK_INPUT, ANSWERED, "refuses"),
        (answer(401, {"error": "session_auth is not valid"}), Refused, Advice.CHECK_INPUT, ANSWERED, "made with"),
        (answer(422, {"error": "missing session_id"}), Refused, Advice.CHECK_INPUT, ANSWERED, "missing"),
        (answer(429), Refused, Advice.ASK_AGAIN, ANSWERED, "full"),
        (answer(500), Refused, Advice.ASK_AGAIN, ANSWERED, "failed"),
        (answer(504), Refused, Advice.ASK_AGAIN, Outcome.PERHAPS_STARTED, "gave up"),
        (answer(302, None, LOCATION), UnexpectedAnswer, Advice.CHECK_ANSWER, ANSWERED, "to b.example,"),
        (answer(101), UnexpectedAnswer, Advice.CHECK_ANSWER, ANSWERED, "ends no exchange"),
    ],
)  # fmt: skip
def test_refusals(response: HttpResponse, cls: type[CallFailed], advice: Advice, outcome: Outcome, text: str) -> None:
    with pytest.raises(CallFailed) as caught:
        decode_session_get(response, handle(), utc=UTC)
    error = caught.value
    assert type(error) is cls
    assert (error.advice, error.outcome, error.phase, error.status) == (advice, outcome, Phase.WORKER, response.status)
    assert error.request_idx == 1004
    assert text in str(error)


@pytest.mark.parametrize(
    ("response", "advice", "text"),
    [
        (answer(429, None, ("retry-after", "3")), Advice.ASK_AGAIN, "no room"),
        (answer(422, {"error": "invalid JSON"}), Advice.CHECK_INPUT, "invalid JSON"),
        (answer(500, b"500 Internal Server Error\n\nServer got itself in trouble"), Advice.ASK_AGAIN, "in trouble"),
        (answer(401), Advice.ASK_AGAIN, "signature"),
        (answer(404), Advice.CHECK_INPUT, "refuses"),
    ],
)
def test_a_session_that_was_not_made(response: HttpResponse, advice: Advice, text: str) -> None:
    with pytest.raises(Refused, match=text) as caught:
        decode_session_create(response, grant=grant(BARE), request_idx=7, utc=UTC)
    assert (caught.value.advice, caught.value.request_idx) == (advice, 7)
    assert caught.value.retry_after == (3.0 if response.status == 429 else None)


HELD: dict[str, Callable[[HttpResponse], object]] = {
    "create": lambda response: decode_session_create(response, grant=grant(BARE), request_idx=7, utc=UTC),
    "get": lambda response: decode_session_get(response, handle(grant=grant(BARE), request_idx=7), utc=UTC),
    "health": lambda response: decode_session_health(response, handle(grant=grant(BARE), request_idx=7)),
    "end": lambda response: decode_session_end(response, handle(grant=grant(BARE), request_idx=7)),
}
"""Each reading, of an answer about a session whose grant has no number, so that one is held beside it."""


@pytest.mark.parametrize("decode", HELD.values(), ids=HELD)
@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, {}), (200, TOLD | {"session_id": 5}), (299, {}), (300, {}), (401, {}), (503, None)],
)
def test_every_error_names_the_number_and_quotes_the_answer(
    decode: Callable[[HttpResponse], object], status: int, body: Any
) -> None:
    response = answer(status, body, ("retry-after", "3"))
    with pytest.raises(CallFailed) as caught:
        decode(response)
    error = caught.value
    assert (error.request_idx, error.phase, error.outcome) == (7, Phase.WORKER, Outcome.ANSWERED)
    assert (error.status, error.retry_after) == (status, 3.0)
    assert error.excerpt[:3] == response.body[:3].decode()


def test_a_session_that_is_gone_names_the_number() -> None:
    with pytest.raises(SessionGone) as caught:
        HELD["get"](answer(410, {"error": "session already closed"}))
    assert (caught.value.request_idx, caught.value.status) == (7, 410)
    # The grant's own number is the one that the engine knows.
    with pytest.raises(SessionGone) as caught:
        decode_session_get(answer(410), handle(request_idx=7), utc=UTC)
    assert caught.value.request_idx == 1004


def test_no_error_repeats_the_signature() -> None:
    bodies = [RAW, json.dumps({"error": json.dumps(TOLD)}).encode(), f"<p>{SIGNATURE}</p>".encode()]
    for body in bodies:
        for status in (200, 400, 500):
            with pytest.raises(CallFailed) as caught:
                decode_session_get(answer(status, body), handle(), utc=UTC)
            assert SIGNATURE not in repr(vars(caught.value))
            assert SIGNATURE not in str(caught.value)
    lone = grant(RAW.replace(SIGNATURE.encode(), b"\\ud800"))
    unsigned = grant(RAW.replace(SIGNATURE.encode(), b""))
    with pytest.raises(Refused, match="in plain words"):
        decode_session_end(answer(500, b"in plain words"), handle(grant=lone))
    with pytest.raises(Refused, match="in plain words"):
        decode_session_end(answer(500, b"in plain words"), handle(grant=unsigned))


def test_the_callers_limits_hold() -> None:
    with pytest.raises(UnexpectedAnswer, match="more than the 10 allowed"):
        decode_session_health(answer(200, {"ok": True}), handle(), limits=Limits(max_body=10))
    # What is too long to be read is no word about the session either.
    with pytest.raises(Refused, match="refuses"):
        decode_session_end(answer(400, {"error": "session x not found"}), handle(), limits=Limits(max_body=10))


# --- handles --------------------------------------------------------------------------------------------------------


def test_a_handle_hides_its_grant() -> None:
    shown = repr(handle())
    assert SESSION in shown
    assert SIGNATURE not in shown
    assert "203.0.113.7" not in shown


@pytest.mark.parametrize("raw", [RAW, BARE, b" \n" + RAW + b"\n"])
def test_a_handle_is_saved_and_loaded(raw: bytes) -> None:
    before = handle(grant=grant(raw), request_idx=7, clock_ahead=-3.5, sent=4, doubtful=1, lifetime=0.5)
    saved = before.save()
    assert saved["grant"] == raw.decode().strip()
    after = SessionHandle.load(json.loads(json.dumps(saved)))
    assert after == before
    assert after.auth == before.auth
    assert after.save() == saved
    assert encode_session_end(after).body == encode_session_end(before).body


@pytest.mark.parametrize(
    "change",
    [
        {"vastroute": "route"},
        {"version": 2},
        {"session_id": ""},
        {"session_id": None},
        {"grant": None},
        {"grant": 5},
        {"grant": "{}"},
        {"grant": RAW.decode().replace("https", "ftp")},
        {"grant": '{"url": null, "error": "no"}'},
        {"grant": "\ud800"},
        {"lifetime": "60"},
        {"expiration": None},
        {"expiration": math.inf},
        {"request_idx": "7"},
        {"clock_ahead": math.nan},
        {"clock_ahead": None},
        {"clock_ahead": True},
        {"sent": -1},
        {"sent": 1.0},
        {"sent": 1, "doubtful": 2},
        {"doubtful": True},
    ],
)
def test_what_is_no_saved_session(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as caught:
        SessionHandle.load(handle().save() | change)
    assert SIGNATURE not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("name", sorted(handle().save()))
def test_nothing_may_be_missing_in_a_saved_session(name: str) -> None:
    saved = handle().save()
    del saved[name]
    with pytest.raises(InvalidValue, match="no saved session"):
        SessionHandle.load(saved)


def test_what_is_no_mapping_is_no_saved_session() -> None:
    with pytest.raises(InvalidValue, match="no saved session"):
        SessionHandle.load([])  # type: ignore[arg-type]


def test_a_saved_grant_beyond_the_limits_is_refused() -> None:
    with pytest.raises(InvalidValue, match="cannot be used"):
        SessionHandle.load(handle().save(), limits=Limits(max_body=10))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("request_idx", 1, 2**63 - 1),
        ("sent", 0, 2**63 - 1),
        ("lifetime", math.ulp(0.0), LONGEST),
        ("expiration", math.ulp(0.0), LATEST),
        ("clock_ahead", -LATEST, LATEST),
    ],
)
def test_how_far_the_numbers_of_a_handle_go(name: str, least: float, most: float) -> None:
    for value in (least, most):
        assert getattr(handle(**{name: value}), name) == value
    for value in (least - 1, most + 1):
        with pytest.raises(InvalidValue, match=f"{name} must be"):
            handle(**{name: value})


def test_a_handle_needs_a_grant() -> None:
    with pytest.raises(InvalidValue, match="grant"):
        handle(grant=RAW)


# --- the account ----------------------------------------------------------------------------------------------------


def life(**others: Any) -> SessionLife:
    return SessionLife(handle(**others), now=NOW, utc=UTC)


def test_a_fresh_session() -> None:
    session = life()
    assert session.state is SessionState.OPEN
    assert session.kept_until == NOW + 60
    assert session.ends_by() == NOW + 60 + SWEEP
    assert session.stacked(now=NOW) == 60
    assert session.stacked(now=NOW + 100) == 0
    assert session.out == frozenset()
    assert session.handle == handle()
    assert repr(session) == "SessionLife('FSP3KN0FhYQbY', open, out=0)"


def test_every_request_adds_a_whole_lifetime_on_top() -> None:
    session = life()
    assert [session.request_sent() for _ in range(3)] == [1, 2, 3]
    assert session.ends_by() == NOW + 240 + SWEEP
    assert session.kept_until == NOW + 240
    assert session.stacked(now=NOW + 1) == 239
    for number, status in ((1, 200), (2, 429), (3, 401)):
        session.request_answered(number, status, now=NOW + 2)
    # Refused or not, it was counted.
    assert session.kept_until == NOW + 240
    assert session.handle == handle(sent=3)
    assert session.ends_by(requests=2) == NOW + 360 + SWEEP


@pytest.mark.parametrize(
    ("report", "sent", "doubtful"),
    [
        (lambda session: session.request_answered(1, 204, now=NOW), 1, 0),
        (lambda session: session.request_answered(1, 499, now=NOW), 1, 0),
        (lambda session: session.request_answered(1, 299, now=NOW), 1, 0),
        (lambda session: session.request_answered(1, 300, now=NOW), 1, 1),
        (lambda session: session.request_answered(1, 101, now=NOW), 1, 1),
        (lambda session: session.request_answered(1, 422, now=NOW), 1, 1),
        (lambda session: session.request_answered(1, 500, now=NOW), 1, 1),
        (lambda session: session.request_answered(1, 404, now=NOW), 1, 1),
        (lambda session: session.request_failed(1, sent=False), 0, 0),
        (lambda session: session.request_failed(1, sent=True), 1, 1),
        (lambda session: session.request_failed(1, sent=None), 1, 1),
    ],
)
def test_what_a_report_means(report: Callable[[SessionLife], None], sent: int, doubtful: int) -> None:
    session = life()
    session.request_sent()
    assert session.handle == handle(sent=1, doubtful=1)
    report(session)
    assert session.handle == handle(sent=sent, doubtful=doubtful)
    assert session.ends_by() == NOW + 60 + 60 * sent + SWEEP
    assert session.kept_until == NOW + 60 + 60 * (sent - doubtful)
    with pytest.raises(LocalProtocolError, match="no request 1 is out"):
        report(session)


@pytest.mark.parametrize("number", [0, 2, -1])
def test_only_what_was_sent_is_reported_on(number: int) -> None:
    session = life()
    session.request_sent()
    with pytest.raises(LocalProtocolError):
        session.request_answered(number, 200, now=NOW)
    with pytest.raises(LocalProtocolError):
        session.request_failed(number, sent=False)
    assert session.out == {1}


def test_how_many_requests_keep_it() -> None:
    session = life()
    for until, requests in (
        (-math.inf, None),
        (NOW, 0),
        (NOW + 60, 0),
        (NOW + 60.5, 1),
        (NOW + 120, 1),
        (NOW + 121, 2),
    ):
        if requests is not None:
            assert session.requests_needed(until) == requests
    session.request_sent()
    assert session.requests_needed(NOW + 120) == 0
    session.request_failed(1, sent=True)
    assert session.requests_needed(NOW + 120) == 1
    for until in (math.inf, math.nan, -math.inf):
        with pytest.raises(InvalidValue, match="until"):
            session.requests_needed(until)


@pytest.mark.parametrize("requests", [-1, 1.0, True, None])
def test_requests_are_counted_in_whole_numbers(requests: Any) -> None:
    with pytest.raises(InvalidValue, match="requests"):
        life().ends_by(requests=requests)


@pytest.mark.parametrize(("now", "utc"), [(math.nan, UTC), (NOW, math.inf)])
def test_clocks_are_finite(now: float, utc: float) -> None:
    with pytest.raises(InvalidValue, match="monotonic"):
        SessionLife(handle(), now=now, utc=utc)


def test_a_worker_whose_clock_is_wrong_is_understood() -> None:
    # The worker is ten minutes ahead and grants 60 seconds; its answer is on the way for no time.
    date = ("date", "Mon, 23 Nov 2026 15:34:55 GMT")
    body = {"session_id": SESSION, "expiration": UTC + 600.25 + 60}
    made = decode_session_create(answer(201, body, date), grant=grant(), utc=UTC)
    session = SessionLife(made, now=NOW, utc=UTC)
    assert session.kept_until == pytest.approx(NOW + 60.25)
    # Taken up later, and in a process with another monotonic clock.
    again = SessionLife(SessionHandle.load(made.save()), now=7.0, utc=UTC + 50)
    assert again.kept_until == pytest.approx(17.25)


def test_a_session_that_is_taken_up_goes_on_with_the_account() -> None:
    session = life()
    for _ in range(3):
        session.request_sent()
    session.request_answered(1, 200, now=NOW)
    again = SessionLife(SessionHandle.load(session.handle.save()), now=5.0, utc=UTC + 10)
    # What was out is doubtful there: nobody will report on it.
    assert again.kept_until == 5 + 50 + 60
    assert again.ends_by() == 5 + 50 + 180 + SWEEP
    assert again.request_sent() == 1


def info(**others: Any) -> SessionInfo:
    values: dict[str, Any] = {"session_id": SESSION, "lifetime": 30, "expiration": UTC + 100}
    return SessionInfo(**(values | others))


def test_the_workers_word_replaces_the_account() -> None:
    session = life()
    for _ in range(4):
        session.request_sent()
    session.request_failed(1, sent=True)
    session.told(info(clock_ahead=1.0), now=NOW + 10, utc=UTC + 10)
    # Three are out: perhaps they are in the worker's word, perhaps they come.
    assert session.kept_until == NOW + 99
    assert session.ends_by() == NOW + 99 + 3 * 30 + SWEEP
    session.request_sent()
    assert session.handle == handle(lifetime=30, expiration=UTC + 100, clock_ahead=1.0, sent=4, doubtful=4)
    session.request_answered(2, 200, now=NOW)
    session.request_answered(3, 500, now=NOW)
    session.request_failed(4, sent=False)
    session.request_answered(5, 200, now=NOW)
    assert session.handle == handle(lifetime=30, expiration=UTC + 100, clock_ahead=1.0, sent=3, doubtful=2)
    assert session.kept_until == NOW + 99 + 30


def test_the_word_about_another_session_is_refused() -> None:
    session = life()
    with pytest.raises(InvalidValue, match="another session"):
        session.told(info(session_id="other"), now=NOW, utc=UTC)
    with pytest.raises(InvalidValue, match="lifetime"):
        session.told(info(lifetime=0), now=NOW, utc=UTC)
    with pytest.raises(InvalidValue, match="monotonic"):
        session.told(info(), now=NOW, utc=math.nan)
    assert session.handle == handle()


def over(session: SessionLife, state: SessionState, at: float) -> None:
    assert session.state is state
    assert session.kept_until == session.ends_by() == session.ends_by(requests=3) == at
    assert session.stacked(now=NOW) == 0
    with pytest.raises(LocalProtocolError, match=session.state.value):
        session.request_sent()
    with pytest.raises(LocalProtocolError, match=session.state.value):
        session.requests_needed(NOW)


def test_the_end_at_our_wish() -> None:
    session = life()
    session.request_sent()
    session.request_sent()
    session.ended(SessionEnded(session_id=SESSION, was_open=True), now=NOW + 3)
    over(session, SessionState.ENDED, NOW + 3)
    # What was out is still reported, and changes nothing.
    session.request_answered(1, 410, now=NOW + 4)
    session.request_failed(2, sent=True)
    before = session.handle
    session.told(info(), now=NOW + 5, utc=UTC + 5)
    session.gone(now=NOW + 6)
    assert session.handle == before
    over(session, SessionState.ENDED, NOW + 3)
    with pytest.raises(LocalProtocolError, match="ended"):
        session.ended(SessionEnded(session_id=SESSION, was_open=True), now=NOW + 7)


def test_a_session_is_lost() -> None:
    session = life()
    session.request_sent()
    session.request_sent()
    session.request_answered(1, 410, now=NOW + 3)
    over(session, SessionState.LOST, NOW + 3)
    session.request_answered(2, 410, now=NOW + 4)
    session.ended(SessionEnded(session_id=SESSION, was_open=False), now=NOW + 5)
    over(session, SessionState.LOST, NOW + 3)
    # The answer to our wish may come after the 410 that it caused.
    session.ended(SessionEnded(session_id=SESSION, was_open=True), now=NOW + 6)
    over(session, SessionState.ENDED, NOW + 3)


def test_the_end_of_a_session_that_had_expired() -> None:
    session = life()
    session.ended(SessionEnded(session_id=SESSION, was_open=False), now=NOW + 100)
    over(session, SessionState.LOST, NOW + 100)


def test_the_table_is_whole() -> None:
    assert set(SESSION_TABLE) == set(SessionState)
    assert set(SESSION_TABLE[SessionState.OPEN]) == set(SessionInput)
    for state in (SessionState.ENDED, SessionState.LOST):
        assert SessionState.OPEN not in SESSION_TABLE[state].values()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "answer", "answer", "lose", "unsent", "told", "resume"]),
        st.integers(0, 5),
        st.sampled_from([200, 401, 422, 429, 500]),
        st.floats(0.0, 5.0),
        st.booleans(),
    ),
    max_size=25,
)


@given(STEPS, st.floats(0.5, 100.0), st.floats(-1000.0, 1000.0))
def test_the_truth_is_always_between_the_bounds(
    steps: list[tuple[str, int, int, float, bool]], lifetime: float, ahead: float
) -> None:
    """Beside a worker that counts as the official one does, and whose clock is `ahead` of ours."""
    now, expiration = NOW, UTC + ahead + lifetime
    session = SessionLife(handle(lifetime=lifetime, expiration=expiration, clock_ahead=ahead), now=now, utc=UTC)
    counted: dict[int, bool] = {}
    for step, which, status, pause, arrives in steps:
        now += pause
        utc = UTC + now - NOW
        if step == "send":
            counted[session.request_sent()] = arrives
            expiration += lifetime * arrives
        elif step == "told":
            told = info(lifetime=lifetime, expiration=expiration, clock_ahead=ahead)
            session.told(told, now=now, utc=utc)
        elif step == "resume":
            session = SessionLife(SessionHandle.load(session.handle.save()), now=now, utc=utc)
            counted.clear()
        elif counted:
            number = sorted(counted)[which % len(counted)]
            arrived = counted.pop(number)
            if step == "answer":
                session.request_answered(number, status if arrived else 422, now=now)
            else:
                session.request_failed(number, sent=None if arrived or step == "lose" else False)
        truth = expiration - ahead - UTC + NOW
        assert session.ends_by() - SWEEP >= truth - 1e-3
        if all(counted.values()):
            assert session.kept_until <= truth + 1e-3
        assert session.out == frozenset(counted)


def test_values_are_frozen() -> None:
    for value in (handle(), info(), SessionEnded(session_id=SESSION, was_open=True)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            value.session_id = "x"  # type: ignore[misc]
        assert isinstance(hash(value), int)
