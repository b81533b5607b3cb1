"""What a worker's guard lets in and what it does not: each rule by itself, then what holds for any body at all."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    FORMS,
    Admitted,
    Envelope,
    InvalidValue,
    Limits,
    PublicKey,
    Reason,
    Rejected,
    RejectReason,
    ReqnumOrder,
    ReqnumVerdict,
    SignatureMode,
    SigningForm,
    WorkerGuard,
    signed_text,
)

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEY = PublicKey.from_cryptography(PRIVATE.public_key())
OTHER_KEY = PublicKey.from_cryptography(OTHER_PRIVATE.public_key())
URL = "https://203.0.113.7:40123"
SORTED = FORMS[1]
"""A form that covers the reqnum."""
FIELDS = ("cost", "endpoint", "reqnum", "request_idx", "signature", "url")
SIGNATURES: dict[tuple[bytes, int], str] = {}


def sign(text: bytes, private: rsa.RSAPrivateKey) -> str:
    made = SIGNATURES.get((text, id(private)))
    if made is None:
        made = SIGNATURES[text, id(private)] = b64encode(private.sign(text, PKCS1v15(), SHA256())).decode()
    return made


def grant(form: SigningForm = FORMS[0], private: rsa.RSAPrivateKey = PRIVATE, **more: Any) -> dict[str, Any]:
    fields = {"cost": 100.0, "endpoint": "demo", "reqnum": 12, "request_idx": 7, "url": URL, "__request_id": "5f"}
    fields |= more
    text = signed_text(form, fields)
    assert text is not None
    return {"signature": sign(text, private), **fields}


def body(auth_data: Any = None, **more: Any) -> dict[str, Any]:
    auth_data = grant() if auth_data is None else auth_data
    return {"auth_data": auth_data, "session_id": None, "payload": {"prompt": "p"}} | more


def rejected(result: Admitted | Rejected) -> Rejected:
    assert isinstance(result, Rejected), result
    return result


def admitted(result: Admitted | Rejected) -> Admitted:
    assert isinstance(result, Admitted), result
    return result


def orders(guard: WorkerGuard, *reqnums: int, form: SigningForm = SORTED) -> list[Any]:
    """What each grant came to: its place in the order, or the reason why it was rejected."""
    results = [guard.check(body(grant(form, reqnum=number))) for number in reqnums]
    return [each.reqnum and each.reqnum.order if isinstance(each, Admitted) else each.reason for each in results]


# --- who is let in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_as", ["bytes", "bytearray", "memoryview", "mapping", "another mapping"])
def test_an_honest_request_is_let_in_with_all_that_is_known(given_as: str) -> None:
    whole = body()
    data = json.dumps(whole).encode()
    forms: dict[str, Any] = {
        "bytes": data,
        "bytearray": bytearray(data),
        "memoryview": memoryview(data),
        "mapping": whole,
        "another mapping": MappingProxyType(whole | {"auth_data": MappingProxyType(whole["auth_data"])}),
    }
    found = admitted(WorkerGuard(KEY, url=URL).check(forms[given_as]))
    assert found.auth_data == whole["auth_data"]
    assert found.payload == {"prompt": "p"}
    assert found.session_id is None
    assert found.verdict.covers == ("url",)
    assert found.reqnum == ReqnumVerdict(order=ReqnumOrder.FRESH)


def test_values_show_no_signature_and_no_payload() -> None:
    guard = WorkerGuard(KEY)
    found = admitted(guard.check(body(payload={"prompt": "private"})))
    envelope = guard.read(body(payload={"prompt": "private"}))
    text = f"{found!r} {envelope!r}"
    assert found.auth_data["signature"] not in text
    assert "private" not in text
    assert hash(found)
    assert hash(envelope)


def test_a_grant_lets_in_again_and_again_as_the_official_worker_has_it() -> None:
    guard = WorkerGuard(KEY)
    assert orders(guard, 5, 5, 5, form=FORMS[0]) == [ReqnumOrder.FRESH, ReqnumOrder.REPEATED, ReqnumOrder.REPEATED]


# --- the form ------------------------------------------------------------------------------------------------------

MISSING = "missing parameter"
WANTED = "payload must be a dictionary"


@pytest.mark.parametrize(
    ("sent", "reason", "errors"),
    [
        ({}, RejectReason.ENVELOPE, {"auth_data": "field missing", "payload": "field missing"}),
        ([], RejectReason.ENVELOPE, {"auth_data": "field missing", "payload": "field missing"}),
        ("payload", RejectReason.ENVELOPE, {"auth_data": "field missing", "payload": "field missing"}),
        ({"payload": {}}, RejectReason.ENVELOPE, {"auth_data": "field missing"}),
        ({"auth_data": grant()}, RejectReason.ENVELOPE, {"payload": "field missing"}),
        (body(payload=[1]), RejectReason.ENVELOPE, {"payload": {"data": WANTED}}),
        (body(payload=None), RejectReason.ENVELOPE, {"payload": {"data": WANTED}}),
        (body({}), RejectReason.FIELD_MISSING, {"auth_data": dict.fromkeys(FIELDS, MISSING)}),
        (body("x"), RejectReason.ENVELOPE, {"auth_data": dict.fromkeys(FIELDS, MISSING)}),
        (
            body({"url": URL}, payload=5),
            RejectReason.ENVELOPE,
            {"auth_data": dict.fromkeys(FIELDS[:-1], MISSING), "payload": {"data": WANTED}},
        ),
    ],
)
@pytest.mark.parametrize("like_official", [False, True])
def test_what_is_missing_is_named_in_the_official_words(
    sent: Any, reason: RejectReason, errors: Any, like_official: bool
) -> None:
    found = rejected(WorkerGuard(KEY, like_official=like_official).check(json.dumps(sent).encode()))
    assert (found.reason, found.status, json.loads(found.body)) == (reason, 422, errors)
    assert found.verdict is None


@pytest.mark.parametrize("name", FIELDS)
def test_each_of_the_six_fields_is_wanted(name: str) -> None:
    fields = grant()
    del fields[name]
    found = rejected(WorkerGuard(KEY).check(body(fields)))
    assert (found.reason, found.status) == (RejectReason.FIELD_MISSING, 422)
    assert json.loads(found.body) == {"auth_data": {name: MISSING}}
    assert found.text == f"auth_data: {name}: missing parameter"


@pytest.mark.parametrize(
    ("sent", "reason", "text"),
    [
        (5, RejectReason.ENVELOPE, "error: the body must be an object"),
        (None, RejectReason.ENVELOPE, "error: the body must be an object"),
        (b"\xff", RejectReason.NOT_JSON, "the body is not UTF-8"),
        (b"[" * 100_000, RejectReason.NOT_JSON, "the body is nested too deeply"),
        (b'{"payload": ' + b"1" * 5_000 + b"}", RejectReason.NOT_JSON, "the body holds a number of"),
        (body(5), RejectReason.ENVELOPE, "auth_data: must be an object"),
        ({"auth_data": None, "payload": {}}, RejectReason.ENVELOPE, "auth_data: must be an object"),
        (body(list(FIELDS)), RejectReason.ENVELOPE, "auth_data: must be an object"),
        (body(grant(reqnum="1")), RejectReason.FIELD, "auth_data: reqnum: must be a"),
    ],
)
def test_where_the_official_worker_fails(sent: Any, reason: RejectReason, text: str) -> None:
    data = sent if isinstance(sent, bytes) else json.dumps(sent).encode()
    found = rejected(WorkerGuard(KEY).check(data))
    assert (found.reason, found.status) == (reason, 422)
    assert found.text.startswith(text)
    official = rejected(WorkerGuard(KEY, like_official=True).check(data))
    assert (official.reason, official.status) == (reason, 500)


@pytest.mark.parametrize("sent", [b"", b" ", b"{", b"<html>", b'{"payload": {}} x'])
@pytest.mark.parametrize("like_official", [False, True])
def test_what_is_no_json_at_all(sent: bytes, like_official: bool) -> None:
    found = rejected(WorkerGuard(KEY, like_official=like_official).check(sent))
    assert (found.reason, found.status) == (RejectReason.NOT_JSON, 422)
    assert json.loads(found.body) == {"error": "invalid JSON"}
    assert found.text.startswith("the body is ")


AMBIGUOUS = [
    json.dumps(body())[:-1].encode() + b', "payload": {"prompt": "another"}}',
    json.dumps(body(payload={"temperature": float("nan")})).encode(),
    json.dumps(body(grant(cost=float("inf")))).encode(),
    json.dumps(body(payload={"a": json.loads("[" * 100 + "]" * 100)})).encode(),
]


@pytest.mark.parametrize("sent", AMBIGUOUS, ids=["a field twice", "NaN", "infinity", "deep"])
def test_what_two_readers_could_read_differently_is_for_the_official_worker_alone(sent: bytes) -> None:
    assert rejected(WorkerGuard(KEY).check(sent)).reason is RejectReason.NOT_JSON
    admitted(WorkerGuard(KEY, like_official=True).check(sent))


def test_a_body_is_read_up_to_its_limit() -> None:
    sent = json.dumps(body()).encode()
    exact, less = Limits(max_body=len(sent)), Limits(max_body=len(sent) - 1)
    admitted(WorkerGuard(KEY, limits=exact).check(sent))
    found = rejected(WorkerGuard(KEY, limits=less).check(sent))
    assert (found.reason, found.status, found.body) == (RejectReason.TOO_LARGE, 413, b"")
    admitted(WorkerGuard(KEY, limits=less, like_official=True).check(sent))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("url", [5, None, ["x"]]),
        ("endpoint", [5, None, {}]),
        ("cost", ["much", None, True, 10**400, float("nan")]),
        ("reqnum", [-1, 1.0, True, None, "1", 2**63]),
        ("request_idx", [-1, "x", True, 1.5]),
    ],
)
def test_a_field_of_another_kind_is_rejected_however_it_is_signed(name: str, values: list[Any]) -> None:
    for value in values:
        found = rejected(WorkerGuard(KEY).check(body(grant(**{name: value}))))
        assert (found.reason, found.status) == (RejectReason.FIELD, 422)
        assert list(json.loads(found.body)["auth_data"]) == [name]
        assert found.verdict is not None
        official = WorkerGuard(KEY, like_official=True).check(body(grant(**{name: value})))
        is_compared = name == "reqnum" and not isinstance(value, int | float)
        assert isinstance(official, Rejected) is is_compared


def test_a_request_index_may_be_missing_its_value() -> None:
    admitted(WorkerGuard(KEY).check(body(grant(request_idx=None))))


# --- the signature -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["url", "signature"])
@given(data=st.data())
def test_what_is_signed_cannot_be_tampered_with(name: str, data: st.DataObject) -> None:
    honest = grant()
    at = data.draw(st.integers(0, len(honest[name]) - 1))
    letter = data.draw(st.characters(codec="utf-8").filter(lambda each: each != honest[name][at]))
    forged = honest | {name: honest[name][:at] + letter + honest[name][at + 1 :]}
    found = rejected(WorkerGuard(KEY).check(body(forged)))
    assert (found.reason, found.status, found.body) == (RejectReason.SIGNATURE, 401, b"")


@pytest.mark.parametrize("name", ["cost", "endpoint", "reqnum", "request_idx", "url"])
@given(value=st.integers(0, 2**63 - 1) | st.text() | st.floats(allow_nan=False) | st.none())
def test_a_form_that_covers_every_field_protects_every_field(name: str, value: Any) -> None:
    honest = grant(SORTED)
    if json.dumps(value) == json.dumps(honest[name]):
        return
    found = rejected(WorkerGuard(KEY, forms=[SORTED]).check(body(honest | {name: value})))
    assert found.reason is RejectReason.SIGNATURE


@pytest.mark.parametrize("signature", [None, 5, "", "not base64", ["x"], "A" * 344])
def test_what_is_no_signature(signature: Any) -> None:
    found = rejected(WorkerGuard(KEY).check(body(grant() | {"signature": signature})))
    assert (found.reason, found.status) == (RejectReason.SIGNATURE, 401)
    assert found.verdict is not None
    assert found.verdict.reason in {Reason.MALFORMED, Reason.NO_MATCH}


def test_the_form_in_use_alone_is_accepted_unless_others_are_named() -> None:
    assert rejected(WorkerGuard(KEY).check(body(grant(SORTED)))).reason is RejectReason.SIGNATURE
    for form in FORMS:
        assert admitted(WorkerGuard(KEY, forms=FORMS).check(body(grant(form)))).verdict.form == form.name


def test_keys_can_come_later_and_be_several() -> None:
    guard = WorkerGuard()
    found = rejected(guard.check(body()))
    assert (found.status, found.text) == (401, "the engine's public key is not known")
    guard.add_key(OTHER_KEY)
    assert rejected(guard.check(body())).reason is RejectReason.SIGNATURE
    guard.add_key(KEY)
    admitted(guard.check(body()))
    admitted(guard.check(body(grant(private=OTHER_PRIVATE))))


@pytest.mark.parametrize(("mode", "reason"), [(SignatureMode.REPORT, Reason.NO_MATCH), (SignatureMode.OFF, Reason.OFF)])
def test_a_signature_may_be_reported_only(mode: SignatureMode, reason: Reason) -> None:
    forged = grant(private=OTHER_PRIVATE)
    found = admitted(WorkerGuard(KEY, signature=mode).check(body(forged)))
    assert (found.verdict.reason, found.reqnum) == (reason, None)
    forged["reqnum"] = "1"
    assert rejected(WorkerGuard(KEY, signature=mode).check(body(forged))).reason is RejectReason.FIELD


# --- whose, and in which order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [URL, "HTTPS://203.0.113.7:40123"])
def test_the_address_is_compared_as_an_address(url: str) -> None:
    admitted(WorkerGuard(KEY, url=url).check(body()))


@pytest.mark.parametrize(
    "url", ["https://203.0.113.8:40123", "http://203.0.113.7:40123", f"{URL}/path", "nonsense", "https://[::"]
)
def test_a_grant_for_another_worker_opens_this_one_only_where_nobody_looks(url: str) -> None:
    found = rejected(WorkerGuard(KEY, url=URL).check(body(grant(url=url))))
    assert (found.reason, found.status) == (RejectReason.OTHER_WORKER, 401)
    assert url not in repr(found)
    admitted(WorkerGuard(KEY).check(body(grant(url=url))))


def test_the_address_is_looked_at_however_it_is_written() -> None:
    guard = WorkerGuard(KEY, url=URL, like_official=True)
    assert rejected(guard.check(body(grant(url=5)))).reason is RejectReason.OTHER_WORKER


@given(numbers=st.permutations(range(40)).flatmap(lambda all_of: st.just(all_of[:12])), window=st.integers(40, 100))
def test_any_order_within_the_window_is_let_in_once(numbers: list[int], window: int) -> None:
    guard = WorkerGuard(KEY, forms=[SORTED], window=window)
    assert set(orders(guard, *numbers)) <= {ReqnumOrder.FRESH, ReqnumOrder.LATE}
    assert set(orders(guard, *numbers)) == {RejectReason.REPEATED}


@given(numbers=st.lists(st.integers(0, 40), max_size=30), window=st.integers(1, 30))
def test_the_window_is_that_of_a_plain_list(numbers: list[int], window: int) -> None:
    seen: list[int] = []
    wanted: list[Any] = []
    for number in numbers:
        late_by = max(seen, default=-1) - number
        if late_by >= window:
            wanted.append(RejectReason.OUTSIDE_WINDOW)
        elif number in seen:
            wanted.append(RejectReason.REPEATED)
        else:
            wanted.append(ReqnumOrder.FRESH if late_by < 0 else ReqnumOrder.LATE)
            seen.append(number)
    assert orders(WorkerGuard(KEY, forms=[SORTED], window=window), *numbers) == wanted


def test_beyond_the_window_a_signed_number_is_rejected() -> None:
    guard = WorkerGuard(KEY, forms=FORMS, window=10)
    assert orders(guard, 100, 91, 90, 91, 101, 91) == [
        ReqnumOrder.FRESH,
        ReqnumOrder.LATE,
        RejectReason.OUTSIDE_WINDOW,
        RejectReason.REPEATED,
        ReqnumOrder.FRESH,
        RejectReason.OUTSIDE_WINDOW,
    ]


def test_a_number_that_nobody_signed_locks_nobody_out() -> None:
    guard = WorkerGuard(KEY, forms=FORMS)
    assert orders(guard, 2**63 - 1, 5, 5, form=FORMS[0]) == [
        ReqnumOrder.FRESH,
        ReqnumOrder.OUTSIDE,
        ReqnumOrder.OUTSIDE,
    ]
    assert orders(guard, 5, 6) == [ReqnumOrder.FRESH, ReqnumOrder.FRESH]


def test_workers_have_an_order_each_where_the_guard_serves_several() -> None:
    guard = WorkerGuard(KEY, forms=[SORTED])
    there = [guard.check(body(grant(SORTED, url=f"https://203.0.113.{n}:1", reqnum=5))) for n in (1, 2)]
    assert [admitted(each).reqnum for each in there] == [ReqnumVerdict(order=ReqnumOrder.FRESH)] * 2


def test_a_session_has_one_grant_for_all_its_requests() -> None:
    guard = WorkerGuard(KEY, forms=[SORTED])
    envelope = guard.read(body(grant(SORTED), session_id="abc"))
    assert isinstance(envelope, Envelope)
    for _ in range(2):
        found = admitted(guard.admit(envelope))
        assert (found.session_id, found.reqnum) == ("abc", None)


@pytest.mark.parametrize("like_official", [False, True])
def test_where_there_are_no_sessions_none_is_a_way_round_the_window(like_official: bool) -> None:
    guard = WorkerGuard(KEY, forms=[SORTED], like_official=like_official)
    admitted(guard.check(body(grant(SORTED))))
    found = rejected(guard.check(body(grant(SORTED), session_id="made up")))
    assert (found.reason, found.status, found.body) == (RejectReason.SESSION, 410, b'{"error": "invalid session"}')


@pytest.mark.parametrize("session_id", ["", 5, [], False])
def test_a_session_has_a_name(session_id: Any) -> None:
    found = rejected(WorkerGuard(KEY).check(body(session_id=session_id)))
    assert (found.reason, json.loads(found.body)) == (
        RejectReason.ENVELOPE,
        {"session_id": "must be text or null"},
    )
    envelope = WorkerGuard(KEY, like_official=True).read(body(session_id=session_id))
    assert isinstance(envelope, Envelope)
    assert envelope.session_id == session_id


def test_without_a_window_nothing_is_remembered() -> None:
    assert orders(WorkerGuard(KEY, forms=FORMS, window=None), 5, 5) == [None, None]


def test_like_the_official_worker_any_number_will_do() -> None:
    found = admitted(WorkerGuard(KEY, like_official=True).check(body(grant(reqnum=-1.5))))
    assert found.reqnum is None


# --- the queue -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waiting", "is_in"), [(0, True), (30.0, True), (30.1, False), (float("inf"), False)])
def test_a_queue_that_is_too_long(waiting: float, is_in: bool) -> None:
    found = WorkerGuard(KEY).check(body(), waiting=waiting)
    assert isinstance(found, Admitted) is is_in
    if isinstance(found, Rejected):
        assert (found.reason, found.status, found.body) == (RejectReason.FULL, 429, b"")


def test_a_request_that_found_no_room_was_not_used() -> None:
    guard = WorkerGuard(KEY, forms=[SORTED], max_queue_time=0)
    sent = body(grant(SORTED))
    assert rejected(guard.check(sent, waiting=1)).reason is RejectReason.FULL
    admitted(guard.check(sent))


# --- misuse, and anything at all -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["{}", None, 5, [b"{}"]])
def test_a_body_is_bytes_or_a_mapping(sent: Any) -> None:
    with pytest.raises(InvalidValue, match="bytes or a mapping"):
        WorkerGuard(KEY).check(sent)


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "1", None])
def test_times_are_seconds(seconds: Any) -> None:
    with pytest.raises(InvalidValue, match="waiting must be seconds"):
        WorkerGuard(KEY).check(body(), waiting=seconds)
    with pytest.raises(InvalidValue, match="max_queue_time must be seconds"):
        WorkerGuard(KEY, max_queue_time=seconds)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"url": "x"}, {"forms": []}, {"signature": "require"}])
def test_arguments_that_cannot_be_used(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue):
        WorkerGuard(KEY, **wrong)


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
GRANTS = st.dictionaries(st.sampled_from(FIELDS), VALUES).map(lambda some: grant() | some) | VALUES
BODIES = st.binary(max_size=30) | st.fixed_dictionaries(
    {}, optional={"auth_data": GRANTS, "payload": VALUES, "session_id": VALUES}
)


@given(sent=BODIES, like_official=st.booleans(), as_mapping=st.booleans())
def test_no_body_makes_it_raise_and_no_refusal_repeats_one(sent: Any, like_official: bool, as_mapping: bool) -> None:
    guard = WorkerGuard(KEY, forms=FORMS, url=URL, like_official=like_official)
    given_body = sent if isinstance(sent, bytes) or as_mapping else json.dumps(sent).encode()
    found = guard.check(given_body)
    if isinstance(found, Rejected):
        assert found.status in {401, 410, 413, 422, 500}
        assert found.status != 500 or like_official
        assert json.loads(found.body or b"{}") is not None
        assert grant()["signature"] not in repr(found)
    else:
        assert isinstance(found.payload, Mapping)
        assert found.verdict.verified


@given(secret=st.text("abcdef0123456789", min_size=12, max_size=40), name=st.sampled_from([*FIELDS, "payload", "more"]))
def test_what_a_client_sent_is_in_no_refusal(secret: str, name: str) -> None:
    sent = body({**grant(), **({} if name == "payload" else {name: secret})}, payload={"prompt": secret})
    for guard in (WorkerGuard(KEY, url=URL), WorkerGuard(OTHER_KEY), WorkerGuard(KEY, max_queue_time=0)):
        found = guard.check(sent, waiting=1)
        assert isinstance(found, Admitted) or secret not in repr(attrs.asdict(found))
