"""What goes to the engine, byte for byte, and every shape of what comes back: a value or a typed error."""

from __future__ import annotations

import json
import pickle
import traceback
from enum import IntEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastroute import (
    ENGINE,
    Advice,
    CallFailed,
    Grant,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    KeyRefused,
    Limits,
    NotReady,
    Origin,
    Outcome,
    Phase,
    Refused,
    RouteRequest,
    Secret,
    UnexpectedAnswer,
    decode_route,
    encode_route,
)
from vastroute.codec import refusal_of
from vastroute.reading import EXCERPT, excerpt, parse_object, request_id, request_index, retry_after

KEY = "0f9e8d7c6b5a4321-the-key"
SECRET = Secret(KEY)
SIGNATURE = "BEbz1zEwiAbqemINPD/6CZLf8cXU+Ap72sLpURcn4YU="
FIELDS: dict[str, Any] = {
    "__request_id": "4fce364c-0ba8-4445-b1cc-65b63d2a394c",
    "cost": 100.0,
    "endpoint": "demo",
    "reqnum": 12,
    "request_idx": 1001,
    "signature": SIGNATURE,
    "url": "https://203.0.113.7:40123",
}
GRANT = json.dumps(FIELDS)


def reply(body: object, status: int = 200, **headers: str) -> HttpResponse:
    """An answer; `body` may be given as bytes, as text or as the fields of an object."""
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    pairs = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return HttpResponse(status=status, headers=pairs, body=text.encode() if isinstance(text, str) else text)


def grant_of(response: HttpResponse) -> Grant:
    answer = decode_route(response, key=SECRET)
    assert isinstance(answer, Grant)
    return answer


def not_ready_of(response: HttpResponse) -> NotReady:
    answer = decode_route(response, key=SECRET)
    assert isinstance(answer, NotReady)
    return answer


def failure_of(response: HttpResponse, **options: Any) -> CallFailed:
    with pytest.raises(CallFailed) as raised:
        decode_route(response, **{"key": SECRET, **options})
    error = raised.value
    check(error, response)
    return error


def everything(error: BaseException) -> str:
    """All the text that an error can show or carry away."""
    parts = [str(error), repr(error), repr(vars(error)), "".join(traceback.format_exception(error))]
    return "\n".join([*parts, pickle.dumps(error).decode("latin-1")])


def check(error: CallFailed, response: HttpResponse) -> None:
    """What holds for every error that an answer can become."""
    assert type(error) in {Refused, KeyRefused, UnexpectedAnswer}
    assert error.phase is Phase.ROUTE
    assert error.outcome is Outcome.ANSWERED
    assert error.status == response.status
    assert error.advice in {
        Advice.ASK_AGAIN,
        Advice.CHECK_KEY,
        Advice.CHECK_INPUT,
        Advice.CHECK_ENDPOINT,
        Advice.CHECK_ANSWER,
    }
    assert len(error.excerpt) <= EXCERPT
    assert error.excerpt.isprintable()
    assert str(error).isprintable()
    assert len(str(error)) < 1000
    assert error.request_idx is None or error.request_idx > 0
    assert error.request_id is None or error.request_id.isprintable()
    assert error.retry_after is None or error.retry_after >= 0
    assert KEY not in everything(error)


class Odd(IntEnum):
    """An int whose repr is no number."""

    FIVE = 5


class Float64(float):
    """A float with a repr of its own, as NumPy's has."""

    def __repr__(self) -> str:
        return f"np.float64({float(self)})"


class TestEncode:
    @pytest.mark.parametrize(
        ("fields", "body"),
        [
            ({"cost": 1e22}, b'{"endpoint": "demo", "cost": 1e+22}'),
            ({"cost": 2**80}, b'{"endpoint": "demo", "cost": 1208925819614629174706176}'),
            ({"cost": Odd.FIVE}, b'{"endpoint": "demo", "cost": 5}'),
            ({"cost": Float64(5)}, b'{"endpoint": "demo", "cost": 5.0}'),
            ({"replay_timeout": Odd.FIVE}, b'{"endpoint": "demo", "cost": 100.0, "replay_timeout": 5}'),
            ({"endpoint": '"é\n\ud800'}, b'{"endpoint": "\\"\\u00e9\\n\\ud800", "cost": 100.0}'),
            ({"extra": {"\ud800": "\ud800"}}, b'{"endpoint": "demo", "cost": 100.0, "\\ud800": "\\ud800"}'),
        ],
    )
    def test_the_exact_bytes_where_python_has_ways_of_its_own(self, fields: dict[str, Any], body: bytes) -> None:
        request = RouteRequest(**{"endpoint": "demo", **fields})
        made = [encode_route(request, key=key) for key in (KEY, SECRET, KEY)]
        assert [each.body for each in made] == [body] * 3
        assert made[0] == made[1] == made[2]

    @pytest.mark.parametrize("engine", [ENGINE, Origin.parse("http://localhost:8080")])
    def test_the_request(self, engine: Origin) -> None:
        request = encode_route(RouteRequest(endpoint="demo"), key=KEY, engine=engine)
        assert isinstance(request, HttpRequest)
        assert (request.method, request.url) == ("POST", f"{engine}/route/")
        assert request.headers.get("authorization") == f"Bearer {KEY}"
        assert request.headers.get("accept-encoding") == "identity"
        assert request.headers.get("content-type") == "application/json"
        assert not {"host", "content-length"} & {name for name, _ in request.headers}
        assert KEY not in request.url

    def test_the_key_is_in_the_header_alone_unless_asked_for(self) -> None:
        request = RouteRequest(endpoint="demo", extra={"guid": 1})
        assert KEY.encode() not in encode_route(request, key=KEY).body
        fields = json.loads(encode_route(request, key=KEY, key_in_body=True).body)
        assert fields == {"endpoint": "demo", "api_key": KEY, "cost": 100.0, "guid": 1}

    @pytest.mark.parametrize("index", [0, -1, True, False, 1.0, "7", '1, "cost": 0', 2**63, 10**4000])
    def test_an_index_that_the_engine_never_gave_is_never_sent(self, index: Any) -> None:
        with pytest.raises(InvalidValue, match="request_idx must be"):
            encode_route(RouteRequest(endpoint="demo"), key=KEY, request_idx=index)

    @pytest.mark.parametrize("key", ["", "two words", "line\n", None, b"bytes"])
    def test_a_key_that_is_none(self, key: Any) -> None:
        with pytest.raises(InvalidValue):
            encode_route(RouteRequest(endpoint="demo"), key=key)

    @given(
        st.text(st.characters(exclude_categories=()), min_size=1).filter(lambda text: not text.isspace()),
        st.integers(0, 2**70) | st.floats(0, allow_nan=False, allow_infinity=False),
        st.none() | st.integers(1, 2**63 - 1),
        st.none() | st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False),
    )
    def test_says_what_was_asked_for(
        self, endpoint: str, cost: float, index: int | None, replay_timeout: float | None
    ) -> None:
        request = RouteRequest(endpoint=endpoint, cost=cost, request_idx=index, replay_timeout=replay_timeout)
        body = encode_route(request, key=KEY).body
        assert body.isascii()
        fields = json.loads(body)
        assert fields["endpoint"] == endpoint
        assert (type(fields["cost"]), fields["cost"]) == (type(cost), cost)
        assert fields.get("request_idx") == index
        assert fields.get("replay_timeout") == replay_timeout
        assert fields.keys() <= {"endpoint", "cost", "request_idx", "replay_timeout"}


class TestGrant:
    def test_the_typed_view(self) -> None:
        grant = grant_of(reply(GRANT))
        assert grant.raw == GRANT.encode()
        assert grant.fields == FIELDS
        assert (grant.url, str(grant.origin), grant.path) == (FIELDS["url"], FIELDS["url"], "")
        assert (grant.endpoint, grant.cost, grant.reqnum, grant.request_idx) == ("demo", 100.0, 12, 1001)
        assert (grant.signature, grant.request_id) == (SIGNATURE, FIELDS["__request_id"])
        assert SIGNATURE not in repr(grant)

    @pytest.mark.parametrize("cost", ["100", "100.0", "1e2", "1E+2", "100.00", "0", "-0.0", "1.10", "5e-324", "-3"])
    @pytest.mark.parametrize("status", [200, 201, 299])
    def test_every_number_keeps_its_spelling(self, cost: str, status: int) -> None:
        text = GRANT.replace("100.0", cost).replace("12", "012"[1:])
        grant = grant_of(reply(text, status, content_type="text/html"))
        assert grant.raw == text.encode()
        assert grant.cost == float(cost)
        assert type(grant.cost) is (int if cost.lstrip("-").isdigit() else float)

    @pytest.mark.parametrize(
        "more",
        [
            '"unknown": {"a": [1, 2.50, null]}',
            '"unknown": "\\ud800"',
            '"\\ud800": 1',
            '"unknown": 1e400',
            '"unknown": -1E-400',
            '"status": "ready"',
            '"error_msg": ""',
            '"error_msg": "a warning beside a worker"',
            '"error": null',
            '"unknown": "é\u2028"',
            '"unknown": "\\u00e9\\/"',
            f'"unknown": {"9" * 1000}',
        ],
    )
    def test_unknown_fields_are_kept(self, more: str) -> None:
        text = GRANT.replace("{", "{" + more + ",\n\t", 1)
        grant = grant_of(reply(text))
        assert grant.raw == text.encode()
        assert grant.fields == json.loads(text)

    @pytest.mark.parametrize("around", ["", " ", "\r\n", "\t\n ", "\ufeff", "\ufeff\r\n"])
    def test_only_what_surrounds_the_object_is_dropped(self, around: str) -> None:
        assert grant_of(reply(f"{around}{GRANT}\r\n ")).raw == GRANT.encode()

    @pytest.mark.parametrize("index", [0, -1, None, "7", "", 7.0, True, [], {}, 2**63, 10**100])
    def test_an_index_that_is_none(self, index: object) -> None:
        grant = grant_of(reply({**FIELDS, "request_idx": index}))
        assert grant.request_idx is None
        assert grant.fields["request_idx"] == index

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("request_idx", ...),
            ("__request_id", ...),
            ("__request_id", 5),
            ("__request_id", None),
            ("__request_id", "x" * 201),
            ("__request_id", "a\nb"),
            ("__request_id", "\ud800"),
        ],
    )
    def test_what_a_grant_can_do_without(self, name: str, value: object) -> None:
        fields = {**FIELDS, name: value}
        if value is ...:
            del fields[name]
        grant = grant_of(reply(fields))
        assert (grant.request_idx, grant.request_id)[name == "__request_id"] is None

    @pytest.mark.parametrize("number", [0, 1, 2**63 - 1])
    def test_every_whole_number(self, number: int) -> None:
        grant = grant_of(reply({**FIELDS, "reqnum": number, "cost": number}))
        assert (grant.reqnum, grant.cost) == (number, number)

    @pytest.mark.parametrize("name", ["endpoint", "signature"])
    def test_texts_may_be_anything(self, name: str) -> None:
        for text in ("", "\ud800", "\x00", "日本"):
            assert getattr(grant_of(reply({**FIELDS, name: text})), name) == text

    @pytest.mark.parametrize(
        ("name", "words", "wrong"),
        [
            ("url", "text", [None, 5, ["https://h"], {"a": 1}, True]),
            ("endpoint", "text", [..., None, 5, ["demo"]]),
            ("signature", "text", [..., None, 5, ["AbC"]]),
            ("cost", "a finite number", [..., None, "100", True, [], 2**63, -(2**63) - 1, 10**999]),
            ("reqnum", "a whole number of at least 0", [..., None, "12", 12.0, True, -1, 2**63]),
        ],
    )
    def test_what_a_worker_would_refuse(self, name: str, words: str, wrong: list[object]) -> None:
        for value in wrong:
            error = failure_of(reply({key: each for key, each in {**FIELDS, name: value}.items() if each is not ...}))
            assert type(error) is UnexpectedAnswer
            assert error.message == f"the grant cannot be used: its {name} is not {words}"
            assert error.advice is Advice.ASK_AGAIN
            assert (error.request_idx, error.request_id) == (1001, FIELDS["__request_id"])
            assert SIGNATURE not in everything(error)

    @pytest.mark.parametrize("cost", ["1e400", "-1e400", "9" * 500 + ".0"])
    def test_a_number_beyond_all_floats(self, cost: str) -> None:
        error = failure_of(reply(GRANT.replace("100.0", cost)))
        assert error.message == "the grant cannot be used: its cost is not a finite number"

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "it is empty"),
            ("/worker", "it is relative"),
            ("//203.0.113.7", "it is relative"),
            ("203.0.113.7:40123", "it is relative"),
            ("file:///etc/passwd", "its scheme is neither http nor https"),
            (f"https://user:{KEY}@203.0.113.7", "it holds credentials"),
            (f"https://203.0.113.7/#{KEY}", "it has a query or a fragment"),
            (f"https://203.0.113.7/?api_key={KEY}", "it has a query or a fragment"),
            ("https://203.0.113.7\r\nX: 1", "it holds a space or a control character"),
            ("https://203.0.113.7/\x00", "it holds a space or a control character"),
            ("https://203.0.113.7:0", "port 0 is not between 1 and 65535"),
            ("https://203.0.113.7:65536", "port 65536 is not between 1 and 65535"),
            ("https://203.0.113.7:123456", "its host, port or path is malformed"),
            ("https://203.0.113.7:-1", "its host, port or path is malformed"),
            ("https://203.0.113.7:\u0664", "its host, port or path is malformed"),
            ("https://\ud800", "its host, port or path is malformed"),
            ("https://[::g]", "its host, port or path is malformed"),
            ("https://[:::]", "the host in brackets is not an IPv6 address"),
            ("https://203.0.113.7/../x", "the path climbs"),
        ],
    )
    def test_an_address_that_leads_nowhere(self, url: str, why: str) -> None:
        error = failure_of(reply({**FIELDS, "url": url}))
        assert type(error) is UnexpectedAnswer
        assert error.message.startswith("the grant cannot be used: its url is ")
        assert why in error.message
        assert error.advice is Advice.ASK_AGAIN
        assert SIGNATURE not in everything(error)


class TestGrantThatRepeatsTheKey:
    """It would take the key to a worker, byte for byte."""

    @pytest.mark.parametrize("name", ["endpoint", "__request_id", "note"])
    def test_is_refused(self, name: str) -> None:
        error = failure_of(reply({**FIELDS, name: f"for {KEY}"}))
        assert "repeats the key" in error.message

    def test_a_short_text_may_be_there_by_chance(self) -> None:
        answer = decode_route(reply(FIELDS), key=Secret("demo"))
        assert isinstance(answer, Grant)
        longer = reply({**FIELDS, "note": "k" * 16})
        assert isinstance(decode_route(longer, key=Secret("k" * 15)), Grant)
        with pytest.raises(UnexpectedAnswer, match="repeats the key"):
            decode_route(longer, key=Secret("k" * 16))


class TestNotReady:
    def test_all_of_it(self) -> None:
        assert not_ready_of(
            reply({"__request_id": "5f1c", "endpoint": "demo", "request_idx": 7, "status": "loading: 1"})
        ) == NotReady(status="loading: 1", counts={"loading": 1}, request_idx=7, request_id="5f1c", endpoint="demo")

    @pytest.mark.parametrize(
        ("status", "text", "counts"),
        [
            (..., None, {}),
            (None, None, {}),
            ("", "", {}),
            ("Stopped", "Stopped", {}),
            ("endpoint stopped", "endpoint stopped", {}),
            ("no workers", "no workers", {}),
            ("loading: 1", "loading: 1", {"loading": 1}),
            ("Loading:1, Ready=0", "Loading:1, Ready=0", {"loading": 1, "ready": 0}),
            (
                "total workers: 12 (loading: 3, idle : 9)",
                "total workers: 12 (loading: 3, idle : 9)",
                {"total workers": 12, "loading": 3, "idle": 9},
            ),
            ("3 ready, 2 model_loading", "3 ready, 2 model_loading", {"ready": 3, "model_loading": 2}),
            ("load: 0.75", "load: 0.75", {}),
            ("ready: 1234567890", "ready: 1234567890", {}),
            ("ready: \u0663", "ready: \u0663", {}),
            ("\ud800 ready: 1\x00", "\ud800 ready: 1\x00", {"ready": 1}),
            ({"ready": 0, "total": 3}, '{"ready": 0, "total": 3}', {"ready": 0, "total": 3}),
            (
                {"ready": True, "load": 0.5, "deep": {"a": 1}, "owed": -1},
                '{"ready": true, "load": 0.5, "deep": {"a": 1}, "owed": -1}',
                {"owed": -1},
            ),
            (
                {"far": 2**63 - 1, "further": 2**63},
                '{"far": 9223372036854775807, "further": 9223372036854775808}',
                {"far": 2**63 - 1},
            ),
            ({"\ud800": 1}, '{"\\ud800": 1}', {"\ud800": 1}),
            ({}, "{}", {}),
            ([1, "a"], '[1, "a"]', {}),
            (0, "0", {}),
            (12.5, "12.5", {}),
            (True, "true", {}),
        ],
    )
    def test_a_status_of_any_shape(self, status: object, text: str | None, counts: dict[str, int]) -> None:
        answer = not_ready_of(reply({"endpoint": "demo"} if status is ... else {"status": status}))
        assert answer.status == text
        assert answer.counts == counts

    @pytest.mark.parametrize("body", ['{"status": 1e400}', '{"status": {"ready": 1e400}}'])
    def test_a_number_beyond_all_floats(self, body: str) -> None:
        answer = not_ready_of(reply(body))
        assert "Infinity" in (answer.status or "")
        assert answer.counts == {}

    @pytest.mark.parametrize("url", [None, "", 0, False, [], {}])
    def test_an_address_that_is_none(self, url: object) -> None:
        assert not_ready_of(reply({"status": "loading", "url": url})).status == "loading"

    @pytest.mark.parametrize("index", [0, -1, None, "7", 7.0, True, [], 2**63])
    def test_an_index_that_is_none(self, index: object) -> None:
        assert not_ready_of(reply({"request_idx": index})).request_idx is None

    @pytest.mark.parametrize("endpoint", [None, 5, ["demo"], {}])
    def test_an_endpoint_that_is_none(self, endpoint: object) -> None:
        assert not_ready_of(reply({"endpoint": endpoint})).endpoint is None

    @pytest.mark.parametrize("name", ["error", "error_msg"])
    @pytest.mark.parametrize("nothing", [None, "", 0, False, [], {}])
    def test_an_error_that_is_none(self, name: str, nothing: object) -> None:
        assert not_ready_of(reply({name: nothing, "status": "loading"})).status == "loading"

    @pytest.mark.parametrize(
        "fields",
        [
            {"status": f"asked by {KEY}"},
            {"status": f"{KEY}: 1"},
            {"status": {KEY: 1, "deep": [KEY]}},
            {"status": [KEY]},
            {"endpoint": KEY},
            {"__request_id": KEY},
        ],
    )
    def test_a_key_that_comes_back_is_masked(self, fields: dict[str, Any]) -> None:
        answer = not_ready_of(reply(fields))
        assert KEY not in repr(answer)
        assert "[key]" in repr(answer)
        assert KEY.encode() not in pickle.dumps(answer)

    @pytest.mark.parametrize("text", ["a" * 40 + " " * 20_000, ("a" * 40 + " " * 500) * 40, "1" * 9 + " " * 20_000])
    def test_a_long_status_is_read_in_one_go(self, text: str) -> None:
        assert not_ready_of(reply({"status": text})).counts == {}


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "quote"),
        [
            ({"error_msg": "endpoint 0 not found or unauthorized"}, "endpoint 0 not found or unauthorized"),
            ({"error": "Authentication failed"}, "Authentication failed"),
            ({"error_msg": "first", "error": "second"}, "first"),
            ({"error_msg": None, "error": "second"}, "second"),
            ({"error": {"code": 7}}, '{"code": 7}'),
            ({"error": True}, "true"),
            ({"error": ["a", "b"]}, '["a", "b"]'),
            ({"error": "\ud800\x00\n a \u202e"}, "a"),
            ({"error": "x" * 10_000}, "x" * 197 + "..."),
            ({"error": f"no such key: {KEY}"}, "no such key: [key]"),
            ({"error_msg": "no", "url": None, "signature": None}, "no"),
        ],
    )
    def test_inside_a_200(self, fields: dict[str, Any], quote: str) -> None:
        error = failure_of(reply({**fields, "request_idx": 7, "__request_id": "5f1c"}, retry_after="3"))
        assert type(error) is Refused
        assert error.advice is Advice.CHECK_ENDPOINT
        assert error.excerpt == quote
        assert (error.request_idx, error.request_id, error.retry_after) == (7, "5f1c", 3.0)

    @pytest.mark.parametrize(
        ("status", "kind", "advice"),
        [
            (400, Refused, Advice.CHECK_INPUT),
            (401, KeyRefused, Advice.CHECK_KEY),
            (402, Refused, Advice.CHECK_INPUT),
            (403, KeyRefused, Advice.CHECK_KEY),
            (404, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (405, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (408, Refused, Advice.ASK_AGAIN),
            (409, Refused, Advice.CHECK_INPUT),
            (413, Refused, Advice.CHECK_INPUT),
            (422, Refused, Advice.CHECK_INPUT),
            (425, Refused, Advice.ASK_AGAIN),
            (429, Refused, Advice.ASK_AGAIN),
            (499, Refused, Advice.CHECK_INPUT),
            (500, Refused, Advice.ASK_AGAIN),
            (502, Refused, Advice.ASK_AGAIN),
            (503, Refused, Advice.ASK_AGAIN),
            (529, Refused, Advice.ASK_AGAIN),
            (599, Refused, Advice.ASK_AGAIN),
            (300, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (304, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (399, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (-1, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (0, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (100, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (199, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (600, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (10**30, UnexpectedAnswer, Advice.CHECK_ANSWER),
        ],
    )
    @pytest.mark.parametrize(
        ("body", "quote"),
        [
            (b'{"error": "not now", "request_idx": 7, "__request_id": "5f1c"}', "not now"),
            (b'{"error_msg": "not now"}', "not now"),
            (GRANT.encode(), '"signature": [masked]'),
            (b"<html><h1>not now</h1></html>", "<html><h1>not now</h1></html>"),
            (b"\xff not now", "\\xff not now"),
            (b"", ""),
        ],
    )
    def test_by_its_status(self, status: int, kind: type[CallFailed], advice: Advice, body: bytes, quote: str) -> None:
        error = failure_of(reply(body, status, retry_after="3"))
        assert type(error) is kind
        assert error.advice is advice
        assert quote in error.excerpt
        assert error.retry_after == 3.0
        assert ("redirect" in error.message) is (300 <= status < 400)
        assert SIGNATURE not in everything(error)
        if kind is not UnexpectedAnswer and b"5f1c" in body:
            assert (error.request_idx, error.request_id) == (7, "5f1c")

    def test_a_refusal_may_be_longer_than_an_answer(self) -> None:
        error = failure_of(reply(b'{"error": "' + b"x" * 10_000 + b'"}', 503), limits=Limits(max_body=100))
        assert error.excerpt == '{"error": "' + "x" * 186 + "..."

    def test_of_another_phase(self) -> None:
        assert refusal_of(reply("", 503), Limits(), None, Phase.LOOKUP).phase is Phase.LOOKUP

    @pytest.mark.parametrize(
        ("location", "where"),
        [
            (None, "nowhere"),
            ("https://evil.example/path?api_key=x", "evil.example"),
            ("https://user:word@evil.example:8443/", "evil.example:8443"),
            ("HTTP://EVIL.example", "EVIL.example"),
            ("//evil.example/x", "evil.example"),
            ("https://[::1]:8/x", "[::1]:8"),
            ("ftp://evil.example#x", "evil.example"),
            ("/login?next=/route/", "another path of the same host"),
            ("/", "another path of the same host"),
            ("//e%76il.example/", "an unreadable place"),
            ("/\\evil.example", "an unreadable place"),
            ("login", "an unreadable place"),
            ("", "an unreadable place"),
            ("https://evil.example\\@x", "an unreadable place"),
            (f"https://{'a' * 300}/", "an unreadable place"),
            (f"https://{KEY}.example/", "[key].example"),
            (f"https://{KEY}@evil.example/{KEY}", "evil.example"),
        ],
    )
    def test_a_redirect_is_never_followed(self, location: str | None, where: str) -> None:
        response = reply("", 307) if location is None else reply("", 307, location=location)
        error = failure_of(response)
        assert error.message == f"a redirect to {where}, never followed"
        assert error.advice is Advice.CHECK_ANSWER


class TestNotThisProtocol:
    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"", "the answer is empty"),
            (b" \r\n\t", "the answer is empty"),
            (b"\xef\xbb\xbf", "the answer is empty"),
            (b"<!doctype html><h1>502", "the answer is not JSON: it is HTML"),
            (b"  <html>", "the answer is not JSON: it is HTML"),
            (b"upstream connect error", "the answer is not JSON"),
            (b"{", "the answer is not JSON"),
            (GRANT.encode()[:-1], "the answer is not JSON"),
            (b"{'url': 'x'}", "the answer is not JSON"),
            (b'{"a": 1,}', "the answer is not JSON"),
            (b'{"a": 01}', "the answer is not JSON"),
            (b'{"a": .5}', "the answer is not JSON"),
            (b'{"a": "\n"}', "the answer is not JSON"),
            (b'{"a": "\\x"}', "the answer is not JSON"),
            (b"{} {}", "the answer is not JSON"),
            (b"{}\x00", "the answer is not JSON"),
            (b"\xc2\xa0{}", "the answer is not JSON"),
            (b"null", "the answer is JSON, but not an object"),
            (b"true", "the answer is JSON, but not an object"),
            (b"12", "the answer is JSON, but not an object"),
            (b'"text"', "the answer is JSON, but not an object"),
            (b"[]", "the answer is JSON, but not an object"),
            (b"[{}]", "the answer is JSON, but not an object"),
            ('{"a": 1}'.encode("utf-16"), "the answer is not UTF-8"),
            (b'{"a": "\xe9"}', "the answer is not UTF-8"),
            (b'{"a": "\xed\xa0\x80"}', "the answer is not UTF-8"),
            (b'{"a": "\xc0\x80"}', "the answer is not UTF-8"),
            (b"\x1f\x8b\x08\x00", "the answer is not UTF-8"),
            (b'{"a": NaN}', "the answer holds NaN, which is not JSON"),
            (b'{"a": Infinity}', "the answer holds Infinity, which is not JSON"),
            (b'{"a": [-Infinity]}', "the answer holds -Infinity, which is not JSON"),
            (b'{"url": "a", "url": "b"}', "the answer names a field twice"),
            (b'{"url": 1, "\\u0075rl": 2}', "the answer names a field twice"),
            (b'{"a": {"b": 1, "b": 1}}', "the answer names a field twice"),
            (b'{"a": ' + b"9" * 1001 + b"}", "the answer holds a number of more than 1000 digits"),
            (b'{"a": -' + b"9" * 60_000 + b"}", "the answer holds a number of more than 1000 digits"),
            (b"[" * 65, "the answer is nested too deeply"),
            (b'{"a":' * 60_000, "the answer has 300000 bytes, more than the 65536 allowed"),
            (b"[" * 60_000, "the answer is nested too deeply"),
            (b'{"a":' * 64 + b"[]" + b"}" * 64, "the answer is nested too deeply"),
            (b'{"a": [' + b"[], " * 100 + b"[" * 63 + b"]" * 63 + b"]}", "the answer is nested too deeply"),
            (b"{" + b" " * 65_536, "the answer has 65537 bytes, more than the 65536 allowed"),
        ],
        ids=lambda value: repr(value)[:40],
    )
    @pytest.mark.parametrize("limits", [Limits()])
    def test_says_what_it_is_instead(self, body: bytes, message: str, limits: Limits) -> None:
        error = failure_of(reply(body), limits=limits)
        assert type(error) is UnexpectedAnswer
        assert error.message == message
        assert error.advice is Advice.ASK_AGAIN
        with pytest.raises(ValueError, match=f"^{message}$".replace("(", r"\(")):
            parse_object(body, limits)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"a":' * 63 + b"[]" + b"}" * 63,
            b'{"a": "' + b"[" * 1000 + b'"}',
            b'{"a": "\\"' + b"[{" * 1000 + b'\\\\"}',
            b'{"a": [' + b"[]," * 1000 + b"1]}",
            b'{"a": {"b": 1}, "b": {"b": 1}}',
            b'{"a":' * 62 + b"[[], []]" + b"}" * 62,
            b'{"a": "' + b"x" * 65_527 + b'"}',
            b'{"a": ' + b"9" * 1000 + b"}",
        ],
        ids=lambda value: repr(value)[:30],
    )
    def test_what_is_still_within_the_limits(self, body: bytes) -> None:
        assert parse_object(body, Limits()) == (body, json.loads(body))
        assert not_ready_of(reply(body)) == NotReady(status=None)

    @pytest.mark.parametrize("body", [b"[" * 200_000, b'{"a":' * 100_000])
    def test_a_limit_on_nesting_beyond_python_s_own(self, body: bytes) -> None:
        error = failure_of(reply(body), limits=Limits(max_depth=10**6, max_body=10**6))
        assert error.message == "the answer is nested too deeply"

    @pytest.mark.parametrize("closers", [b"]", b"}", b"]}" * 50])
    def test_closing_what_was_never_opened_hides_no_depth(self, closers: bytes) -> None:
        error = failure_of(reply(closers * 100 + b"[" * 150))
        assert error.message == "the answer is not JSON"


class TestFields:
    @pytest.mark.parametrize(("value", "index"), [(1, 1), (2**63 - 1, 2**63 - 1), (0, None), (2**63, None)])
    def test_request_idx(self, value: object, index: int | None) -> None:
        assert request_index({"request_idx": value}) == index
        assert request_index({}) is None

    @pytest.mark.parametrize(
        ("value", "name"), [("5f1c", "5f1c"), ("", ""), ("a" * 200,) * 2, (5, None), (KEY, "[key]")]
    )
    def test_request_id(self, value: object, name: str | None) -> None:
        assert request_id({"__request_id": value}, SECRET) == name
        assert request_id({}) is None


class TestExcerpt:
    @pytest.mark.parametrize(
        ("data", "shown"),
        [
            ("", ""),
            (b"", ""),
            (b" \x00 a\r\n\t b \x1b[31m ", "a b [31m"),
            ("a\u202eb\ud800c\u200bd\xa0e", "a b c d e"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("日本", "日本"),
            ("x" * 200, "x" * 200),
            ("x" * 201, "x" * 197 + "..."),
            (b"x" * 100_000, "x" * 197 + "..."),
            (f"a {KEY} b", "a [key] b"),
            (f"{KEY}{KEY}", "[key][key]"),
            (b" " * 5000 + KEY.encode(), ""),
            ('{"signature": "AbC=", "x": 1}', '{"signature": [masked], "x": 1}'),
            ("{'signature':'AbC=','x': 1}", "{'signature':[masked],'x': 1}"),
            ('{"signature": "A\\"b, c}\\\\", "x": 1}', '{"signature": [masked], "x": 1}'),
            ('{"SIGNATURE" : "AbC="}', '{"SIGNATURE" : [masked]}'),
            ('{"api_key":"other","x":1}', '{"api_key":[masked],"x":1}'),
            ('{"signature": 12.5, "x": 1}', '{"signature": [masked], "x": 1}'),
            ('{"signature": ["a", "b"], "x": 1}', '{"signature": [masked]'),
            ('{"signature": {"a": "b"}}', '{"signature": [masked]'),
            ('{"signature": "cut off in the mid', '{"signature": [masked]'),
            (
                '{"d": "{\\"signature\\": \\"AbC+/=\\", \\"x\\": 1}"}',
                '{"d": "{\\"signature\\": \\"[masked]\\", \\"x\\": 1}"}',
            ),
            ("&quot;signature&quot;: &quot;AbC=&quot;,", "&quot;signature&quot;: &quot;[masked]&quot;,"),
            ("&#34;api_key&#34;: &#34;AbC=&#34;,", "&#34;api_key&#34;: &#34;[masked]&#34;,"),
            ("GET /route/?api_key=other&x=1 HTTP/1.1", "GET /route/?api_key=[masked]&x=1 HTTP/1.1"),
            ("url='https://h/?api_key=other'", "url='https://h/?api_key=[masked]'"),
            ("Authorization: Bearer other, x", "Authorization: Bearer [masked], x"),
            ("<b>bearer   other</b>", "<b>bearer [masked]</b>"),
            ("the signature is wrong", "the signature is wrong"),
        ],
    )
    def test_what_it_shows(self, data: bytes | str, shown: str) -> None:
        assert excerpt(data, SECRET) == shown

    @pytest.mark.parametrize("key", ['a"quoted"\\key/with+odd=signs', KEY, "/" * 30, "C:\\the\\key"])
    @pytest.mark.parametrize("escape", ["plain", "json", "php"])
    def test_a_key_as_json_spells_it(self, key: str, escape: str) -> None:
        text = {"plain": key, "json": json.dumps(key)[1:-1], "php": json.dumps(key)[1:-1].replace("/", "\\/")}[escape]
        assert excerpt(f'{{"detail": "{text}."}}'.encode(), Secret(key)) == '{"detail": "[key]."}'

    @given(st.integers(0, 60), st.sampled_from([" ", "\n", "é", "-"]), st.booleans())
    def test_no_part_of_a_key_is_left_where_the_body_is_cut(self, before: int, filler: str, more: bool) -> None:
        size = 16 * EXCERPT // len(filler.encode()) - before
        shown = excerpt((filler * size + KEY + "." * 60 * more).encode(), SECRET)
        assert KEY[:4] not in shown

    @pytest.mark.parametrize("before", range(1, 40))
    def test_nor_of_one_that_json_spells_longer(self, before: int) -> None:
        key = 'a"b\\' * 5
        body = b" " * (16 * EXCERPT - before) + json.dumps(key).encode()
        assert set(excerpt(body, Secret(key))) <= {'"', "[", "k", "e", "y", "]"}

    def test_a_key_longer_than_what_is_read(self) -> None:
        key = "k1" * 5000
        assert excerpt(f"{key} and more".encode(), Secret(key)) == ""

    @pytest.mark.parametrize(
        "data",
        [
            "signature" + " " * 60_000,
            ("signature" + " " * 100) * 500,
            "signature" + "\\" * 60_000,
            "signature&" + "a" * 60_000,
            'signature="' + "\\a" * 30_000,
            "Bearer" + " " * 60_000,
        ],
        ids=lambda value: value[:11],
    )
    def test_long_texts_are_read_in_one_go(self, data: str) -> None:
        assert len(excerpt(data)) <= EXCERPT

    @given(st.binary(max_size=400) | st.text(st.characters(exclude_categories=()), max_size=400))
    def test_is_short_and_printable(self, data: bytes | str) -> None:
        shown = excerpt(data, SECRET)
        assert len(shown) <= EXCERPT
        assert shown.isprintable()
        assert shown == shown.strip()


class TestRetryAfter:
    NOW = "Wed, 21 Oct 2015 07:28:00 GMT"

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0.0),
            ("5", 5.0),
            ("5.25", 5.25),
            ("007", 7.0),
            ("999999999", 999999999.0),
            ("9999999999", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("inf", None),
            ("nan", None),
            ("", None),
            ("5 seconds", None),
            ("5,6", None),
            ("\u0665", None),
            ("1_0", None),
            ("Wed, 21 Oct 2015 07:29:30 GMT", 90.0),
            ("Thu, 22 Oct 2015 07:28:00 GMT", 86400.0),
            ("Wed, 21 Oct 2015 07:27:59 GMT", 0.0),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
            ("Mon, 01 Jan 0001 00:00:00 GMT", 0.0),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 251956888319.0),
            ("Wed, 21 Oct 0000 07:28:00 GMT", None),
            ("Wed, 31 Feb 2015 07:28:00 GMT", None),
            ("Wed, 21 Oct 2015 24:00:00 GMT", None),
            ("Wed, 21 Oct 2015 07:28:60 GMT", None),
            ("Wed, 21 Okt 2015 07:28:00 GMT", None),
            ("Wed, 21 Oct 2015 07:28:00 CET", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT\n", None),
            ("Wednesday, 21-Oct-15 07:28:00 GMT", None),
            ("2015-10-21T07:28:00Z", None),
        ],
    )
    def test_seconds_or_a_date(self, value: str, seconds: float | None) -> None:
        assert retry_after(reply("", 503, retry_after=value, date=self.NOW)) == seconds

    @pytest.mark.parametrize("headers", [{}, {"date": ""}, {"date": "5"}, {"date": "soon"}])
    def test_a_date_counts_from_the_answer_s_own(self, headers: dict[str, str]) -> None:
        assert retry_after(reply("", 503, retry_after=self.NOW, **headers)) is None

    def test_none(self) -> None:
        assert retry_after(reply("", 503, date=self.NOW)) is None

    @given(st.text(max_size=40))
    def test_never_fails(self, value: str) -> None:
        seconds = retry_after(reply("", 503, retry_after=value, date=self.NOW))
        assert seconds is None or seconds >= 0


NAMES = st.sampled_from(
    ["url", "endpoint", "cost", "reqnum", "signature", "request_idx", "__request_id", "status", "error", "error_msg"]
)
TOKENS = st.sampled_from(
    [
        *("null", "true", "false", "0", "-0", "1", "-1", "1.0", "1e2", "1e400", "-1e400", "9" * 19, "9" * 1001, "NaN"),
        *('""', '"0"', '"\\ud800"', '"\\u0000"', "[]", "{}", "[[]]", '{"a": 1, "a": 2}', '"\\ud83d\\ude00"', "{", '"'),
        *('"https://203.0.113.7:1"', '"http://h"', '"https://h:99999"', '"//h"', '"https://a:b@h"', '"stopped"'),
        *(f'"{KEY}"', f'"https://{KEY}@h"', f'"https://h/#{KEY}"', f'{{"{KEY}": "{KEY}"}}', f'"{SIGNATURE}"'),
    ]
)
TEXTS = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.tuples(NAMES | TEXTS, TOKENS | VALUES.map(json.dumps)), max_size=9).map(
    lambda pairs: ("{" + ", ".join(f"{json.dumps(name)}: {token}" for name, token in pairs) + "}").encode()
)
CHANGED = st.dictionaries(NAMES, TOKENS, min_size=1, max_size=2).map(
    lambda changes: (
        "{" + ", ".join(f'"{name}": {changes.get(name, json.dumps(value))}' for name, value in FIELDS.items()) + "}"
    ).encode()
)

# Bodies that were recorded between the official programs on loopback, and the documented refusals.
NOT_READY = (
    b'{"__request_id": "6ff81e43-a55b-4ecf-8095-62bd5b7042f3", "endpoint": "demo-endpoint", "request_idx": 1001, '
    b'"status": "no workers"}'
)
ASSIGNED = (
    b'{"__request_id": "4fce364c-0ba8-4445-b1cc-65b63d2a394c", "cost": 100.0, "endpoint": "demo-endpoint", '
    b'"reqnum": 1, "request_idx": 1001, "signature": "BEbz1zEwiAbqemINPD/6CZLf8cXU/Ap72sLpURcn4YUMgZUN/JBv1rPjSapquf9+'
    b"f2CGhuUzUP8FWpGT9Tl3YvYA1Zhdoi7A6stqghEaVAZO3xXub4Q38OGFKiQ4DWHA5dUMt80MRBxmw01kC5ahdpmSqrl+x5a/wRl4kTiayp0GU/WaPz"
    b"2+ZfLrjEsq8Wk1ml2ikl+CiXzm7Cg1iRLFxWYeMkYWNR39nlp/5bmgK5kV4H7zyGuNVzNlKqgGCFqkaPy+iu30yJhH2kQTd9ZyCsoxi2Ud92MM2/cD"
    b'RGfdfWWNr8P2z70KTEQYqukILMHF8SRJJOT9v/gk8q5M5lvcUw==", "url": "http://127.0.0.1:44177"}'
)
RECORDED = [
    NOT_READY,
    ASSIGNED,
    b'{"error": "Authentication failed"}',
    b'{"error_msg": "endpoint 0 not found or unauthorized"}',
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A recorded body with a few pieces cut out, doubled, overwritten or put in."""
    body = draw(st.sampled_from(RECORDED))
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(0, len(body)))
        end = draw(st.integers(begin, min(len(body), begin + 20)))
        piece = draw(st.binary(max_size=4) | st.sampled_from([body[begin:end] * 2, b'"', b"\\", b"{", KEY.encode()]))
        body = body[:begin] + piece + body[end:]
    return body


STATUSES = st.sampled_from([200, 201, 302, 400, 401, 404, 429, 503, 700])


def judge(body: bytes, status: int) -> None:
    response = reply(body, status, location=f"https://{KEY}.example/", retry_after="1")
    try:
        answer = decode_route(response, key=KEY)
    except CallFailed as error:
        check(error, response)
        return
    assert 200 <= status < 300
    assert answer.request_idx is None or answer.request_idx > 0
    if isinstance(answer, NotReady):
        assert KEY not in repr(answer)
        assert all(type(count) is int for count in answer.counts.values())
        return
    assert answer.raw in body
    fields = json.loads(answer.raw)
    assert (answer.url, answer.cost, answer.reqnum) == (fields["url"], fields["cost"], fields["reqnum"])
    assert Origin.parse(str(answer.origin)) == answer.origin
    assert answer.signature == fields["signature"]


class TestAnyAnswerIsAValueOrATypedError:
    @given(st.binary(max_size=200), STATUSES)
    def test_random_bytes(self, body: bytes, status: int) -> None:
        judge(body, status)

    @settings(max_examples=200)
    @given(OBJECTS, STATUSES)
    def test_objects_with_our_own_names(self, body: bytes, status: int) -> None:
        judge(body, status)

    @given(CHANGED)
    def test_grants_with_a_field_that_is_odd(self, body: bytes) -> None:
        judge(body, 200)

    @settings(max_examples=200)
    @given(mutated(), STATUSES)
    def test_recorded_answers_mutated(self, body: bytes, status: int) -> None:
        judge(body, status)

    @given(st.text(max_size=30), st.text(max_size=30), st.sampled_from(["error", "error_msg", "detail"]), STATUSES)
    def test_the_key_goes_nowhere(self, before: str, after: str, name: str, status: int) -> None:
        judge(f"{before}{KEY}{after}".encode(), status)
        judge(json.dumps({name: before + KEY + after, "status": KEY, "__request_id": KEY}).encode(), status)

    @given(st.text(min_size=1, max_size=30).map(lambda text: SIGNATURE + text + SIGNATURE), st.booleans())
    def test_the_signature_goes_into_no_error(self, signature: str, ascii_only: bool) -> None:
        fields = {"endpoint": "demo", "signature": signature, "url": "nowhere"}
        error = failure_of(reply(json.dumps(fields, ensure_ascii=ascii_only)))
        assert SIGNATURE not in everything(error)
