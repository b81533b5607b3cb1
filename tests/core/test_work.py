"""What is sent to a worker, byte for byte, and what an answer is."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    Advice,
    Answer,
    Counts,
    Grant,
    Headers,
    HttpResponse,
    InvalidValue,
    Outcome,
    Phase,
    Reason,
    Record,
    UnexpectedAnswer,
    Verdict,
    WorkerRequest,
    auth_data,
    decode_body,
    decode_route,
    encode_worker,
)
from vastroute.messages import USER_AGENT

SIGNATURE = "c2lnbmVk/+canary=="
# Odd on purpose: spaces, a number's spelling, an unknown field, and an order that no writer would repeat.
RAW = (
    b'{ "url":"https://203.0.113.7:40123/base/", "cost":100.0,  "reqnum": 4,"endpoint": "demo",\n'
    b' "signature": "' + SIGNATURE.encode() + b'", "request_idx": 1004, "extra": [1.0, "\xc3\xa9"]}'
)
BARE = RAW.replace(b' "request_idx": 1004,', b"")
OWN = [("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT)]


def grant(raw: bytes = RAW) -> Grant:
    parsed = decode_route(HttpResponse(status=200, body=raw))
    assert isinstance(parsed, Grant)
    return parsed


def work(**others: Any) -> WorkerRequest:
    values: dict[str, Any] = {"route": "/echo", "payload": {"prompt": "p"}}
    return WorkerRequest(**(values | others))


def answer(body: bytes = b"", content_type: str | None = None) -> Answer:
    return Answer(
        status=200,
        headers=Headers() if content_type is None else Headers({"Content-Type": content_type}),
        body=body,
        data=None,
        grant=grant(),
        verdict=Verdict(reason=Reason.NO_KEY),
        reqnum=None,
        request_idx=1004,
        request_idx_added=False,
        differences=(),
        counts=Counts(),
        record=Record(),
    )


# --- the work -----------------------------------------------------------------------------------------------------


class TestWorkerRequest:
    @pytest.mark.parametrize(
        ("payload", "sent"),
        [
            ({}, b"{}"),
            ({"a": [1, 1.0, None, True, "\u00e9\ud800"]}, b'{"a": [1, 1.0, null, true, "\\u00e9\\ud800"]}'),
            (b'{"a":1}', b'{"a":1}'),
            (b' {"a": "\xc3\xa9", "a": 0.10}\n', b' {"a": "\xc3\xa9", "a": 0.10}\n'),
            ({1: 2}, b'{"1": 2}'),
        ],
    )
    def test_a_payload_is_kept_as_the_text_that_is_sent(self, payload: Any, sent: bytes) -> None:
        assert work(payload=payload).payload == sent

    @pytest.mark.parametrize(
        ("payload", "words"),
        [
            (b"", "is not JSON"),
            (b"{", "is not JSON"),
            (b"\xff{}", "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b"[1]", "must be a JSON object, not list"),
            (b"null", "must be a JSON object, not NoneType"),
            (None, "must be a JSON object, not NoneType"),
            ("{}", "must be a JSON object, not str"),
            ([("a", 1)], "must be a JSON object, not list"),
            (b'{"a": NaN}', "is not JSON"),
            ({"a": float("inf")}, "what JSON can hold"),
            ({"a": {1, 2}}, "what JSON can hold"),
            ({(1, 2): 3}, "what JSON can hold"),
        ],
    )
    def test_what_is_no_payload(self, payload: Any, words: str) -> None:
        with pytest.raises(InvalidValue, match=words):
            work(payload=payload)

    def test_a_payload_that_holds_itself(self) -> None:
        payload: dict[str, Any] = {}
        payload["a"] = payload
        with pytest.raises(InvalidValue, match="what JSON can hold"):
            work(payload=payload)

    @pytest.mark.parametrize("route", ["/echo", "echo", "/v1/x?y=1", "", "/"])
    def test_a_route_is_a_path(self, route: str) -> None:
        assert work(route=route).route == route

    @pytest.mark.parametrize(
        "route", ["//other.example/x", "https://other.example/", "/a b", "/../x", "/x#y", "/\u00e9"]
    )
    def test_what_is_no_route(self, route: str) -> None:
        with pytest.raises(InvalidValue, match="route"):
            work(route=route)

    @pytest.mark.parametrize(
        ("headers", "sent"),
        [
            ({}, OWN),
            ({"X-Trace": "1"}, [*OWN, ("x-trace", "1")]),
            ([("X-Trace", "1"), (b"x-trace", b"2")], [*OWN, ("x-trace", "1"), ("x-trace", "2")]),
            (Headers({"Authorization": "Bearer worker's"}), [*OWN, ("authorization", "Bearer worker's")]),
            (
                {"User-Agent": "mine/1", "content-type": "application/json; charset=utf-8"},
                [OWN[1], ("user-agent", "mine/1"), ("content-type", "application/json; charset=utf-8")],
            ),
        ],
    )
    def test_headers_of_the_callers_own(self, headers: Any, sent: list[tuple[str, str]]) -> None:
        request = encode_worker(grant(), work(headers=headers))
        assert list(request.headers) == sent

    @pytest.mark.parametrize(
        "name", ["Host", "Content-Length", "transfer-encoding", "Connection", "Accept-Encoding", "TE", "Upgrade"]
    )
    def test_what_frames_a_request_is_not_the_callers(self, name: str) -> None:
        with pytest.raises(InvalidValue, match=f"what frames the request: {name.lower()}"):
            work(headers={name: "x", "X-Trace": "1"})

    @pytest.mark.parametrize("headers", [5, None, ["x"], {"X": 1}])
    def test_what_are_no_headers(self, headers: Any) -> None:
        with pytest.raises(InvalidValue, match="headers must be"):
            work(headers=headers)

    def test_is_a_value_whose_text_keeps_the_payload_to_itself(self) -> None:
        assert work() == work(payload=b'{"prompt": "p"}')
        assert attrs.evolve(work(headers={"a": "b"}), stream=True) == work(headers={"a": "b"}, stream=True) != work()
        assert "prompt" not in repr(work())
        assert (work().stream, work().safe_to_repeat) == (False, False)


# --- the request ----------------------------------------------------------------------------------------------------


class TestEncode:
    def test_the_request(self) -> None:
        request = encode_worker(grant(), work())
        assert (request.method, request.url) == ("POST", "https://203.0.113.7:40123/base/echo")
        assert list(request.headers) == OWN
        assert request.body == b'{"auth_data": ' + RAW + b', "session_id": null, "payload": {"prompt": "p"}}'
        assert SIGNATURE not in repr(request)

    def test_in_a_session(self) -> None:
        body = encode_worker(grant(), work(), session_id='a"b\u00e9').body
        assert b', "session_id": "a\\"b\\u00e9", ' in body

    @pytest.mark.parametrize(
        ("raw", "held", "sent"),
        [
            (RAW, None, RAW),
            (RAW, 7, RAW),
            (RAW, 1004, RAW),
            (BARE, None, BARE),
            (BARE, 1, BARE[:-1] + b', "request_idx": 1}'),
            (BARE, 7, BARE[:-1] + b', "request_idx": 7}'),
            *[
                (RAW.replace(b"1004", value), held, RAW.replace(b"1004", value if held is None else b"7"))
                for value in (b"null", b"0", b"-4", b"1.0", b'"1004"', b'"\\"}"', b"true", b"[ 1, {}]", b"9" * 30)
                for held in (None, 7)
            ],
        ],
    )
    def test_only_what_a_grant_lacks_is_added(self, raw: bytes, held: int | None, sent: bytes) -> None:
        assert auth_data(grant(raw), held) == sent
        body = encode_worker(grant(raw), work(), request_idx=held).body
        assert body.startswith(b'{"auth_data": ' + sent + b', "session_id"')

    @pytest.mark.parametrize("held", [0, -1, True, 1.0, "7"])
    @pytest.mark.parametrize("raw", [RAW, BARE])
    def test_a_held_number_is_a_number(self, raw: bytes, held: Any) -> None:
        with pytest.raises(InvalidValue, match="request_idx must be a whole number from 1"):
            auth_data(grant(raw), held)

    def test_the_number_is_put_where_it_belongs_and_nowhere_else(self) -> None:
        raw = RAW.replace(b"1004", b" 0\n").replace(b"[1.0,", b'[{"request_idx": 0}, "\\"request_idx\\": 0",')
        raw = raw.replace(b'"request_idx":  0', b'"re\\u0071uest_idx"\t:  0')
        assert auth_data(grant(raw), 7) == raw.replace(b":  0\n", b":  7\n")

    def test_a_grant_that_somebody_made_up(self) -> None:
        made = attrs.evolve(grant(BARE), fields={**grant(BARE).fields, "request_idx": 0})
        with pytest.raises(InvalidValue, match="no request_idx in the grant's text"):
            auth_data(made, 7)

    @given(
        st.dictionaries(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4),
        st.sampled_from(["100.0", "100", "1e2", "100.00", "0.1e3"]),
        st.sampled_from([None, 0, 1, 2]),
        st.booleans(),
        st.none() | st.integers(1, 2**63 - 1),
        st.sampled_from([{}, {"request_idx": None}, {"request_idx": 0}, {"request_idx": "request_idx"}]),
    )
    def test_the_grant_stands_in_it_byte_for_byte(
        self,
        extra: dict[str, Any],
        cost: str,
        indent: int | None,
        ascii_only: bool,
        held: int | None,
        index: dict[str, Any],
    ) -> None:
        fields = (
            index | extra | {"url": "http://203.0.113.7:1", "endpoint": "d", "signature": "s", "reqnum": 0, "cost": "@"}
        )
        text = json.dumps(fields, indent=indent, ensure_ascii=ascii_only).replace('"cost": "@"', f'"cost": {cost}')
        try:
            raw = text.encode()
        except UnicodeEncodeError:  # half a character: no engine can say it but escaped
            return
        granted = grant(b" \n" + raw + b"\t")
        body = encode_worker(granted, work(), request_idx=held).body
        assert raw[:-1] in body or "request_idx" in fields
        assert raw in body or held is not None
        parsed = json.loads(body)
        added = {"request_idx": held} if held is not None and granted.request_idx is None else {}
        assert parsed["auth_data"] == fields | added | {"cost": 100}
        assert parsed["payload"] == {"prompt": "p"}


# --- the answer -----------------------------------------------------------------------------------------------------

BODIES: list[tuple[str | None, bytes, Any]] = [
    ("application/json", b"", None),
    (None, b"", None),
    ("application/json", b' {"a": [1, 2]}\n', {"a": [1, 2]}),
    ("APPLICATION/JSON ; charset=utf-8", b"5", 5),
    ("application/problem+json", b'"x"', "x"),
    ("application/json", b"null", None),
    ("text/plain", b"{}", "{}"),
    ("text/plain", b"\xc3\xa9\xff", "\u00e9\ufffd"),
    ("text/html; charset=latin-1", b"\xe9", "\u00e9"),
    ('text/plain; a="b"; Charset = "ISO-8859-1"', b"\xe9", "\u00e9"),
    ("text/plain; charset=latin-1; a=b", b"\xe9", "\u00e9"),
    ("text/plain; charset=utf-16-le", b"h\0i", "h\ufffd"),
    ("text/plain; charset=no-such", b"\xc3\xa9", "\u00e9"),
    ("text/plain; charset=", b"\xc3\xa9", "\u00e9"),
    ("text/plain; charset=idna", b"\xc3\xa9", "\u00e9"),
    ("text/plain; charset=\0", b"\xc3\xa9", "\u00e9"),
    ("text/plain; charset", b"a", "a"),
    ("image/png", b"\x89PNG", b"\x89PNG"),
    ("application/octet-stream", b"{}", b"{}"),
    ("nonsense", b"{}", b"{}"),
    (None, b"{}", b"{}"),
]


class TestDecode:
    @pytest.mark.parametrize(("content_type", "body", "data"), BODIES)
    def test_the_content_type_says_what_it_is(self, content_type: str | None, body: bytes, data: Any) -> None:
        headers = {} if content_type is None else {"Content-Type": content_type}
        assert decode_body(HttpResponse(status=200, headers=headers, body=body)) == data

    @pytest.mark.parametrize(
        ("body", "quoted"),
        [(b"{", "{"), (b"<html>", "<html>"), (b"\xff", "\\xff"), (b"[" * 100_000, "[" * 197 + "...")],
    )
    def test_broken_json_keeps_its_bytes(self, body: bytes, quoted: str) -> None:
        response = HttpResponse(status=201, headers={"content-type": "application/json"}, body=body)
        with pytest.raises(UnexpectedAnswer, match="says that it is JSON, but is not") as raised:
            decode_body(response)
        error = raised.value
        assert (error.body, error.excerpt, error.status, error.phase) == (body, quoted, 201, Phase.WORKER)
        assert (error.outcome, error.advice) == (Outcome.ANSWERED, Advice.CHECK_ANSWER)


class TestAnswer:
    @pytest.mark.parametrize(
        ("given_type", "content_type"),
        [(None, ""), ("", ""), ("Text/HTML", "text/html"), (" a/b ; c=d", "a/b")],
    )
    def test_its_content_type(self, given_type: str | None, content_type: str) -> None:
        assert answer(b"x", given_type).content_type == content_type

    def test_its_body_in_another_way(self) -> None:
        assert answer(b'{"a": 1}').json() == {"a": 1}
        assert answer(b"\xc3\xa9").text() == "\u00e9"
        assert answer(b"\xe9", "x/y; charset=latin-1").text() == "\u00e9"

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
    def test_what_is_no_json(self, body: bytes) -> None:
        with pytest.raises(ValueError, match=r".") as raised:
            answer(body).json()
        assert not isinstance(raised.value, InvalidValue)

    def test_its_text_shows_neither_body_nor_grant(self) -> None:
        shown = repr(attrs.evolve(answer(b"canary"), data="canary"))
        assert "canary" not in shown
        assert "<6 bytes>" in shown


@pytest.mark.parametrize(
    "headers", [{"x": "b\nc"}, {"x": "\u20ac"}, {"x y": "1"}, {"": "1"}, {"x": " padded"}, {"x\r\n": "1"}], ids=repr
)
def test_headers_that_http_cannot_carry_are_refused_before_a_worker_is_asked_for(headers: dict[str, str]) -> None:
    with pytest.raises(InvalidValue, match="headers must be what HTTP can carry"):
        work(headers=headers)


@pytest.mark.parametrize("name", ["safe_to_repeat", "stream"])
@pytest.mark.parametrize("value", ["no", 1, None])
def test_a_switch_is_true_or_false(name: str, value: object) -> None:
    with pytest.raises(InvalidValue, match=f"{name} must be True or False"):
        work(**{name: value})
