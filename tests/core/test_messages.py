"""Values at the core's border: what they take, what they refuse, and that no key shows or leaves in them."""

from __future__ import annotations

import copy
import http.client
import pickle
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from http import HTTPStatus
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    ENGINE,
    Grant,
    Headers,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    LocalProtocolError,
    NotReady,
    Origin,
    ResponseHead,
    RouteRequest,
    Secret,
    encode_route,
)

KEY = "0f9e8d7c6b5a-the-key"
VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)

TO_COPY: list[tuple[str, Callable[[object], object]]] = [
    ("copy", copy.copy),
    ("deepcopy", copy.deepcopy),
    *((f"pickle-{n}", lambda value, n=n: pickle.dumps(value, n)) for n in range(pickle.HIGHEST_PROTOCOL + 1)),
]
every_copy = pytest.mark.parametrize("duplicate", [pytest.param(function, id=name) for name, function in TO_COPY])


class Loud(str):
    """A text that shows itself wherever it can."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self) * 2


class Number(IntEnum):
    FIVE = 5


class TestSecret:
    @pytest.mark.parametrize("value", ["k", KEY, "a" * 4096, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", Loud(KEY)])
    def test_takes_visible_ascii(self, value: str) -> None:
        assert Secret(value).reveal() == value

    @pytest.mark.parametrize(
        "value",
        [
            "",
            " ",
            f"{KEY} ",
            f" {KEY}",
            f"{KEY}\n",
            f"{KEY}\r\nX-Injected: 1",
            f"{KEY}\x00",
            f"{KEY}\t",
            f"{KEY}\x7f",
            f"{KEY}\xa0",
            f"{KEY}é",
            f"{KEY}\u200b",
            f"{KEY}\ud800",
            f"{KEY}٣",
            KEY.encode(),
            None,
            12345,
            [KEY],
        ],
    )
    @pytest.mark.parametrize("make", [Secret, Secret.of])
    def test_refuses_what_no_header_can_carry_and_never_repeats_it(self, make: Any, value: Any) -> None:
        with pytest.raises(InvalidValue) as refused:
            make(value)
        assert KEY not in str(refused.value)
        assert KEY not in repr(refused.value)

    @given(st.text(VISIBLE, min_size=4).map("~key~".__add__))
    def test_does_not_show(self, value: str) -> None:
        secret = Secret(value)
        shown = f"{secret} {secret!r} {secret!s} {[secret]} {secret.headers} {secret.headers!r}"
        assert repr(secret) == "Secret(...)"
        assert value not in shown
        assert not hasattr(secret, "__dict__")

    @every_copy
    @pytest.mark.parametrize("part", [Secret(KEY), Secret(KEY).headers, {"deep": [Secret(KEY)]}])
    def test_is_never_pickled_or_copied(self, duplicate: Callable[[object], object], part: object) -> None:
        if isinstance(part, dict) and duplicate is copy.copy:
            duplicate = copy.deepcopy
        with pytest.raises(LocalProtocolError) as refused:
            duplicate(part)
        assert KEY not in str(refused.value)

    def test_equality_is_of_secrets_only(self) -> None:
        assert Secret(KEY) == Secret(KEY)
        assert hash(Secret(KEY)) == hash(Secret(KEY))
        assert Secret(KEY) != Secret(KEY + "x")
        assert Secret(KEY) != KEY
        assert Secret(KEY) != None  # noqa: E711  # the operator is what is tested

    def test_of_keeps_a_secret(self) -> None:
        secret = Secret(KEY)
        assert Secret.of(secret) is secret
        assert Secret.of(KEY) == secret

    def test_headers_of_a_request(self) -> None:
        secret = Secret(KEY)
        assert list(secret.headers) == [
            ("authorization", f"Bearer {KEY}"),
            ("content-type", "application/json"),
            ("accept-encoding", "identity"),
            ("user-agent", "vastroute"),
        ]
        assert secret.headers is secret.headers


def message(*pairs: tuple[str, str]) -> Any:
    """Headers as the standard library gives them: no Mapping, repeated names kept."""
    made = http.client.HTTPMessage()
    for name, value in pairs:
        made[name] = value
    return made


class TestHeaders:
    @pytest.mark.parametrize(
        "given",
        [
            {"Retry-After": "5", "X": "ä"},
            [("Retry-After", "5"), ("X", "ä")],
            [(b"RETRY-AFTER", b"5"), (b"x", b"\xe4")],
            [("retry-after", b"5"), (b"X", "ä")],
            (("Retry-After", "5"), ("X", "ä")),
            iter([("Retry-After", "5"), ("X", "ä")]),
            Headers({"Retry-After": "5", "X": "ä"}),
            message(("Retry-After", "5"), ("X", "ä")),
        ],
        ids=["mapping", "pairs", "bytes", "mixed", "tuple", "iterator", "headers", "standard library"],
    )
    def test_every_library_s_form(self, given: Any) -> None:
        assert list(Headers(given)) == [("retry-after", "5"), ("x", "ä")]

    def test_repeated_names_are_kept_in_order(self) -> None:
        headers = Headers([("Server", "a"), ("X", "b"), ("server", "c")])
        assert headers.get("server") == "a"
        assert headers.get_all("server") == ("a", "c")
        assert len(headers) == 3
        assert headers == Headers(message(("Server", "a"), ("X", "b"), ("server", "c")))

    def test_what_is_absent(self) -> None:
        assert Headers({"X": "1"}).get("y") is None
        assert Headers().get_all("y") == ()
        assert len(Headers()) == 0

    def test_equality(self) -> None:
        assert Headers({"A": "1"}) == Headers([(b"a", b"1")])
        assert hash(Headers({"A": "1"})) == hash(Headers({"a": "1"}))
        assert Headers({"A": "1"}) != Headers({"A": "2"})
        assert Headers() != ()

    @pytest.mark.parametrize(
        "wrong", [None, 5, "text", b"bytes", ["ab", "cde"], [("a",)], {"a": 5}, {"a": None}, {5: "a"}, [("a", ["b"])]]
    )
    def test_anything_else_is_the_caller_s_mistake(self, wrong: Any) -> None:
        with pytest.raises(InvalidValue, match="headers must be"):
            HttpResponse(status=200, headers=wrong)

    @pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie"])
    def test_repr_hides_credentials(self, name: str) -> None:
        shown = repr(Headers({name: KEY, "X": "seen"}))
        assert shown == f"Headers([({name.lower()!r}, '...'), ('x', 'seen')])"

    @every_copy
    def test_without_a_key_they_are_plain_values(self, duplicate: Callable[[object], Any]) -> None:
        headers = Headers({"Set-Cookie": "a=b", "X": "ä"})
        made = duplicate(headers)
        assert (pickle.loads(made) if isinstance(made, bytes) else made) == headers

    @every_copy
    @pytest.mark.parametrize("name", ["AUTHORIZATION", "proxy-authorization"])
    def test_with_one_they_stay_where_they_are(self, duplicate: Callable[[object], object], name: str) -> None:
        with pytest.raises(LocalProtocolError, match="never pickled or copied"):
            duplicate(Headers({"X": "1", name: KEY}))


class TestHttpRequest:
    REQUEST = encode_route(RouteRequest(endpoint="demo"), key=KEY, key_in_body=True)

    @pytest.mark.parametrize(
        ("origin", "url"),
        [
            (ENGINE, "https://run.vast.ai/route/"),
            (Origin.parse("http://localhost:8080"), "http://localhost:8080/route/"),
            (Origin.parse("https://[2606:4700::1]:8443"), "https://[2606:4700::1]:8443/route/"),
        ],
    )
    def test_url(self, origin: Origin, url: str) -> None:
        assert attrs.evolve(self.REQUEST, origin=origin).url == url

    def test_repr_hides_key_and_body(self) -> None:
        assert KEY not in repr(self.REQUEST)
        assert f"body=<{len(self.REQUEST.body)} bytes>" in repr(self.REQUEST)

    @every_copy
    def test_is_never_pickled_or_copied(self, duplicate: Callable[[object], object]) -> None:
        with pytest.raises(LocalProtocolError, match="build it again") as refused:
            duplicate(self.REQUEST)
        assert KEY not in str(refused.value)

    def test_is_a_value(self) -> None:
        again = encode_route(RouteRequest(endpoint="demo"), key=KEY, key_in_body=True)
        assert again == self.REQUEST
        assert hash(again) == hash(self.REQUEST)
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            again.method = "GET"  # type: ignore[misc]  # what is tested


class TestAnswers:
    @pytest.mark.parametrize("kind", [ResponseHead, HttpResponse])
    def test_headers_are_converted(self, kind: Any) -> None:
        answer = kind(status=HTTPStatus.OK, headers={"Date": "now"})
        assert answer == kind(status=200, headers=Headers([(b"date", b"now")]))
        assert kind(status=204).headers == Headers()

    @pytest.mark.parametrize("body", [b"{}", bytearray(b"{}"), memoryview(b"{}")])
    def test_bodies_become_bytes(self, body: Any) -> None:
        answer = HttpResponse(status=200, body=body)
        assert type(answer.body) is bytes
        assert answer.body == b"{}"
        assert "<2 bytes>" in repr(answer)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            ({"body": "{}"}, "body must be the answer's bytes"),
            ({"body": None}, "body must be the answer's bytes"),
            ({"body": 5}, "body must be the answer's bytes"),
            ({"status": "200"}, "status must be"),
            ({"status": None}, "status must be"),
            ({"status": 200.0}, "status must be"),
            ({"status": True}, "status must be"),
        ],
    )
    def test_misuse_is_said_at_once(self, wrong: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidValue, match=words):
            HttpResponse(**{"status": 200, **wrong})


class Pairs(Mapping[str, Any]):
    """A mapping that is no dict."""

    def __getitem__(self, name: str) -> Any:
        return {"guid": 1}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["guid"])

    def __len__(self) -> int:
        return 1


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class TestRouteRequest:
    def test_defaults(self) -> None:
        request = RouteRequest(endpoint="demo")
        assert (request.cost, request.request_idx, request.replay_timeout) == (100.0, None, None)
        assert request.extra == {}

    @pytest.mark.parametrize(
        "fields",
        [
            {"endpoint": "a name with spaces"},
            {"endpoint": "日本\ud800"},
            {"cost": 0},
            {"cost": 0.0},
            {"cost": 1e308},
            {"cost": 2**64},
            {"cost": Number.FIVE},
            {"request_idx": 1},
            {"request_idx": 2**63 - 1},
            {"replay_timeout": 1},
            {"replay_timeout": 0.001},
            {"extra": {"endpoint_id": 7, "latency": 1.5, "guid": None, "deep": {"a": [True]}}},
            {"extra": Pairs()},
        ],
    )
    def test_takes(self, fields: dict[str, Any]) -> None:
        request = RouteRequest(**{"endpoint": "demo", **fields})
        assert all(getattr(request, name) == value or name == "extra" for name, value in fields.items())
        assert request == RouteRequest(**{"endpoint": "demo", **fields})
        assert hash(request) == hash(attrs.evolve(request, extra={"guid": 9}))

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            *(({"endpoint": each}, "endpoint must be") for each in ("", " ", "\n\t", None, 5, b"demo", ["demo"])),
            *(
                ({"cost": each}, "cost must be")
                for each in (-1, -0.5, float("nan"), float("inf"), -float("inf"), 10**400, True, "1", None, 1j)
            ),
            *(
                ({"request_idx": each}, "leave it out for a new request")
                for each in (0, -1, True, False, 1.0, "1", 2**63, 10**5000)
            ),
            *(
                ({"replay_timeout": each}, "replay_timeout must be seconds")
                for each in (0, -1, float("nan"), float("inf"), 10**400, True, "60")
            ),
            *(
                ({"extra": each}, "extra must be a mapping that JSON can hold")
                for each in (
                    None,
                    5,
                    "text",
                    {"a": float("nan")},
                    {"a": float("inf")},
                    {"a": object()},
                    {"a": b"x"},
                    {"a": 10**5000},
                    {(1, 2): 3},
                    {"a": nested(100_000)},
                )
            ),
            *(
                ({"extra": {name: 1}}, f"extra must not repeat .*: {name}$")
                for name in ("endpoint", "api_key", "cost", "request_idx", "replay_timeout")
            ),
            ({"extra": [("api_key", KEY)]}, "extra must not repeat"),
            ({"extra": iter([("api_key", KEY), ("cost", 1)])}, "extra must not repeat .*: api_key, cost$"),
        ],
    )
    def test_refuses(self, fields: dict[str, Any], words: str) -> None:
        with pytest.raises(InvalidValue, match=words) as refused:
            RouteRequest(**{"endpoint": "demo", **fields})
        assert KEY not in str(refused.value)
        assert isinstance(refused.value, ValueError)

    def test_an_int_stays_an_int(self) -> None:
        assert type(RouteRequest(endpoint="demo", cost=100).cost) is int
        assert type(RouteRequest(endpoint="demo", cost=100.0).cost) is float

    def test_extra_is_a_copy(self) -> None:
        inner = [1]
        given = {"guid": inner}
        request = RouteRequest(endpoint="demo", extra=given)
        inner.append(2)
        given["more"] = []
        assert request.extra == {"guid": [1]}


GRANT = Grant(
    raw=b'{"url": "https://203.0.113.7:1", "signature": "AbCdEf=="}',
    fields={"signature": "AbCdEf=="},
    url="https://203.0.113.7:1",
    origin=Origin(scheme="https", host="203.0.113.7", port=1),
    path="",
    endpoint="demo",
    cost=100,
    reqnum=3,
    signature="AbCdEf==",
    request_idx=7,
    request_id="5f1c",
)


class TestGrantAndNotReady:
    def test_a_grant_hides_what_opens_the_worker(self) -> None:
        assert repr(GRANT) == (
            f"Grant(raw=<{len(GRANT.raw)} bytes>, url='https://203.0.113.7:1', endpoint='demo', cost=100, reqnum=3, "
            "request_idx=7, request_id='5f1c')"
        )
        assert str(GRANT) == repr(GRANT)

    def test_the_exact_text_makes_a_grant_another(self) -> None:
        assert attrs.evolve(GRANT, fields={}) == GRANT
        assert hash(attrs.evolve(GRANT, fields={})) == hash(GRANT)
        assert attrs.evolve(GRANT, raw=GRANT.raw + b" ") != GRANT

    def test_not_ready_is_a_value(self) -> None:
        answer = NotReady(status="loading: 1", counts={"loading": 1}, request_idx=7)
        assert answer == NotReady(status="loading: 1", counts={"loading": 1}, request_idx=7)
        assert hash(answer) == hash(attrs.evolve(answer, counts={}))
        assert NotReady(status=None).counts == {}
        assert pickle.loads(pickle.dumps(answer)) == answer


@pytest.mark.parametrize("kind", [HttpRequest, ResponseHead, HttpResponse, RouteRequest, Grant, NotReady, Origin])
def test_values_are_frozen_and_take_names_only(kind: type[attrs.AttrsInstance]) -> None:
    assert all(field.kw_only for field in attrs.fields(kind))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        kind.__setattr__(kind.__new__(kind), attrs.fields(kind)[0].name, None)


def test_a_header_is_found_in_any_case() -> None:
    headers = Headers([("Content-Type", "text/plain"), ("X-Two", "1"), ("x-two", "2")])
    assert headers.get("Content-Type") == headers.get("content-type") == "text/plain"
    assert headers.get_all("X-TWO") == ("1", "2")
    assert "CONTENT-TYPE" in headers
    assert "accept" not in headers
    assert 7 not in headers
