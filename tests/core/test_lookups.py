"""The neighbouring calls: each request byte for byte, each answer by a table, and a `Lookup` driven to its end."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    CONSOLE,
    ENGINE,
    WORKER_ROOT_PINS,
    Advice,
    CallFailed,
    Done,
    EndpointInfo,
    FailureKind,
    GiveUp,
    Guard,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    KeyRefused,
    LimitReached,
    Limits,
    Lookup,
    Origin,
    Outcome,
    Phase,
    PublicKey,
    Refused,
    RetryPolicy,
    Secret,
    Send,
    SessionGone,
    UnexpectedAnswer,
    WaitUntil,
    WorkerInfo,
    decode_endpoints,
    decode_public_key,
    decode_worker_root,
    decode_workers,
    encode_endpoints,
    encode_public_key,
    encode_worker_root,
    encode_workers,
    read_worker_root,
)
from vastroute.messages import USER_AGENT

NOW = 1000.0
KEY = Secret("canary-key-c41d")
PEM: str = json.loads((Path(__file__).parents[1] / "vectors" / "signing.json").read_text())["pubkey"]
ELSEWHERE = Origin(scheme="http", host="localhost", port=8080)
PLAIN = [("accept-encoding", "identity"), ("user-agent", USER_AGENT)]
WITH_KEY = [
    ("authorization", f"Bearer {KEY.reveal()}"),
    ("content-type", "application/json"),
    ("accept-encoding", "identity"),
    ("user-agent", USER_AGENT),
]
Decode = Callable[[HttpResponse], Any]


def message(fields: object = None, *, status: int = 200) -> HttpResponse:
    body = fields if isinstance(fields, bytes) else b"" if fields is None else json.dumps(fields).encode()
    return HttpResponse(status=status, body=body)


def endpoints(response: HttpResponse) -> tuple[EndpointInfo, ...]:
    return decode_endpoints(response, key=KEY)


def workers(response: HttpResponse) -> tuple[WorkerInfo, ...]:
    return decode_workers(response, key=KEY)


# --- requests -----------------------------------------------------------------------------------------------------


class TestRequests:
    @pytest.mark.parametrize(
        ("request_", "method", "url", "headers", "body"),
        [
            (encode_public_key(), "GET", "https://run.vast.ai/pubkey/", PLAIN, b""),
            (encode_public_key(engine=ELSEWHERE), "GET", "http://localhost:8080/pubkey/", PLAIN, b""),
            (encode_worker_root(), "GET", "https://console.vast.ai/static/jvastai_root.cer", PLAIN, b""),
            (encode_worker_root(console=ELSEWHERE), "GET", "http://localhost:8080/static/jvastai_root.cer", PLAIN, b""),
            (
                encode_endpoints(key=KEY),
                "GET",
                "https://console.vast.ai/api/v0/endptjobs/?client_id=me",
                WITH_KEY,
                b"",
            ),
            (
                encode_endpoints(key=KEY.reveal(), console=ELSEWHERE),
                "GET",
                "http://localhost:8080/api/v0/endptjobs/?client_id=me",
                WITH_KEY,
                b"",
            ),
            (
                encode_workers(5, key=KEY),
                "POST",
                "https://run.vast.ai/get_endpoint_workers/",
                WITH_KEY,
                b'{"id": 5, "api_key": "canary-key-c41d"}',
            ),
            (
                encode_workers(5, key=KEY.reveal(), engine=ELSEWHERE),
                "POST",
                "http://localhost:8080/get_endpoint_workers/",
                WITH_KEY,
                b'{"id": 5, "api_key": "canary-key-c41d"}',
            ),
        ],
    )
    def test_each(
        self, request_: HttpRequest, method: str, url: str, headers: list[tuple[str, str]], body: bytes
    ) -> None:
        assert (request_.method, request_.url, list(request_.headers), request_.body) == (method, url, headers, body)
        assert KEY.reveal() not in repr(request_)
        assert KEY.reveal() not in request_.url

    def test_the_console_is_not_the_engine(self) -> None:
        assert (CONSOLE.host, ENGINE.host) == ("console.vast.ai", "run.vast.ai")


# --- answers ------------------------------------------------------------------------------------------------------

FIELDS: dict[str, Any] = {"id": 7, "endpoint_name": "demo", "user_id": 3, "endpoint_state": "active"}
WORKER: dict[str, Any] = {"id": 4, "status": "ready", "cur_load": 1.5, "perf": 200}


class TestEndpoints:
    @pytest.mark.parametrize(
        ("answer", "found"),
        [
            ({"success": True, "results": []}, []),
            ({"results": [FIELDS | {"api_key": "ep-key"}]}, [(7, "demo", Secret("ep-key"), "active")]),
            (
                {"results": [FIELDS, {"id": 8, "endpoint_name": "b"}]},
                [(7, "demo", None, "active"), (8, "b", None, None)],
            ),
            ({"results": [FIELDS | {"api_key": 5, "endpoint_state": 1}]}, [(7, "demo", None, None)]),
            ({"results": [FIELDS | {"api_key": "two words"}]}, [(7, "demo", None, "active")]),
            # What is no endpoint is left out.
            ({"results": [None, 5, {}, {"id": True, "endpoint_name": "b"}, {"id": 8}, {"id": "8"}]}, []),
        ],
    )
    def test_found(self, answer: object, found: list[tuple[object, ...]]) -> None:
        infos = endpoints(message(answer))
        assert [(info.id, info.name, info.key, info.state) for info in infos] == found
        assert not any("api_key" in info.fields for info in infos)

    def test_everything_else_that_was_said_is_kept(self) -> None:
        (info,) = endpoints(message({"results": [FIELDS | {"api_key": "ep-key"}]}))
        assert info.fields == FIELDS
        assert "ep-key" not in f"{info!r} {info}"

    def test_an_account_without_any(self) -> None:
        assert endpoints(message({"msg": "No endpoints for user 3 found."}, status=400)) == ()
        assert decode_endpoints(message({"results": []})) == ()


class TestWorkers:
    @pytest.mark.parametrize("wrap", [lambda found: found, lambda found: {"workers": found}])
    def test_found(self, wrap: Callable[[object], object]) -> None:
        found = workers(message(wrap([WORKER, {"id": 5, "status": 2}, {"id": 6}, {"status": "x"}, {"id": "7"}, 8])))
        assert [(worker.id, worker.status) for worker in found] == [(4, "ready"), (5, None), (6, None)]
        assert found[0].fields == WORKER

    @pytest.mark.parametrize("fields", [{"error": ""}, {"error_msg": "", "error": None}, {"error_msg": 0}])
    def test_an_empty_error_is_none(self, fields: dict[str, Any]) -> None:
        assert len(workers(message({"workers": [WORKER]} | fields))) == 1

    @pytest.mark.parametrize("name", ["error", "error_msg"])
    def test_an_error_in_a_200_is_a_refusal(self, name: str) -> None:
        with pytest.raises(Refused, match=r"the engine refuses \(it said: no, \[key\]") as raised:
            workers(message({name: f"no, {KEY.reveal()}", "__request_id": "d0aa"}))
        error = raised.value
        assert (error.advice, error.request_id, error.phase) == (Advice.CHECK_ENDPOINT, "d0aa", Phase.LOOKUP)
        assert (error.status, error.outcome) == (200, Outcome.ANSWERED)


class TestPublicKey:
    @pytest.mark.parametrize("body", [PEM, f"\n{PEM}\n ", PEM.replace("\n", "\r\n")])
    def test_found(self, body: str) -> None:
        assert decode_public_key(message(body.encode())) == PublicKey.load(PEM)

    def test_a_small_one_only_where_that_is_said(self) -> None:
        with pytest.raises(UnexpectedAnswer, match="this is no public key: "):
            decode_public_key(message(PEM.encode()), min_bits=4096)
        assert decode_public_key(message(PEM.encode()), min_bits=1024) == PublicKey.load(PEM)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"\xff\xfe", PEM[:99].encode()])
    def test_none(self, body: bytes) -> None:
        with pytest.raises(UnexpectedAnswer, match="this is no public key: ") as raised:
            decode_public_key(message(body))
        assert raised.value.advice is Advice.CHECK_ANSWER


DER = b"\x30\x82\x01\x02not really a certificate"
PIN = frozenset({sha256(DER).hexdigest()})


def pem(der: bytes, *, width: int = 64, end: str = "\n") -> bytes:
    text = base64.b64encode(der).decode()
    lines = [text[n : n + width] for n in range(0, len(text), width)]
    return end.join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()


class TestWorkerRoot:
    @pytest.mark.parametrize(
        "data",
        [
            DER,
            pem(DER),
            pem(DER, width=10, end="\r\n"),
            b"root:\n" + pem(DER) + b"end",
            pem(DER) + b"-----END CERTIFICATE-----\n",
        ],
    )
    def test_the_pin_is_of_the_certificate_not_of_the_file(self, data: bytes) -> None:
        assert read_worker_root(data, pins=PIN) == DER
        assert read_worker_root(data, pins=None) == DER
        assert decode_worker_root(message(data), pins=PIN) == DER

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "neither PEM nor DER"),
            (b"<html>", "neither PEM nor DER"),
            (pem(b"not DER"), "neither PEM nor DER"),
            (pem(DER) * 2, "more than one certificate"),
            (pem(DER).replace(b"M", b"*"), "PEM is damaged"),
            (pem(DER).replace(b"-----END", b"=-----END"), "PEM is damaged"),
            (DER + b"!", f"not one that is pinned .its SHA-256 is {sha256(DER + b'!').hexdigest()}"),
        ],
    )
    def test_anything_else_is_refused(self, data: bytes, words: str) -> None:
        with pytest.raises(InvalidValue, match=words):
            read_worker_root(data, pins=PIN)
        with pytest.raises(UnexpectedAnswer, match=words) as raised:
            decode_worker_root(message(data), pins=PIN)
        assert raised.value.advice is Advice.CHECK_ANSWER

    def test_by_default_only_vasts_own(self) -> None:
        (only,) = WORKER_ROOT_PINS
        assert only.upper().startswith("A1A78F9E1A806C74DAD08B8F01F5F08C")
        with pytest.raises(InvalidValue, match="not one that is pinned"):
            read_worker_root(DER)
        with pytest.raises(UnexpectedAnswer, match="not one that is pinned"):
            decode_worker_root(message(DER))


DECODERS: dict[str, Decode] = {
    "public key": decode_public_key,
    "root": decode_worker_root,
    "endpoints": endpoints,
    "workers": workers,
}
every_decoder = pytest.mark.parametrize("decode", DECODERS.values(), ids=DECODERS)


class TestEveryAnswer:
    @every_decoder
    @pytest.mark.parametrize(
        ("status", "kind", "advice"),
        [
            (199, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (300, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (302, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (400, Refused, Advice.CHECK_INPUT),
            (401, KeyRefused, Advice.CHECK_KEY),
            (403, KeyRefused, Advice.CHECK_KEY),
            (404, UnexpectedAnswer, Advice.CHECK_ANSWER),
            (429, Refused, Advice.ASK_AGAIN),
            (500, Refused, Advice.ASK_AGAIN),
            (600, UnexpectedAnswer, Advice.CHECK_ANSWER),
        ],
    )
    def test_a_refusal(self, decode: Decode, status: int, kind: type[CallFailed], advice: Advice) -> None:
        with pytest.raises(kind) as raised:
            decode(message({"error": "because"}, status=status))
        error = raised.value
        assert (type(error), error.status, error.advice) == (kind, status, advice)
        assert (error.phase, error.outcome) == (Phase.LOOKUP, Outcome.ANSWERED)

    @pytest.mark.parametrize("decode", [endpoints, workers])
    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "the answer is empty"),
            (b"<html>", "it is HTML"),
            (b'{"a": 1, "a": 2}', "names a field twice"),
            (b"[" * 100, "nested too deeply"),
            (b" " * 70_000, "more than the 65536 allowed"),
            (b"{}", "lists no"),
            (b"5", "lists no"),
            (b'{"results": {}, "workers": {}}', "lists no"),
            (b'{"error": {"code": 1}}', "lists no"),
        ],
    )
    def test_what_lists_nothing(self, decode: Decode, body: bytes, words: str) -> None:
        with pytest.raises(UnexpectedAnswer, match=words) as raised:
            decode(message(body))
        assert raised.value.status == 200
        assert raised.value.excerpt[:1] == body.strip()[:1].decode()

    @pytest.mark.parametrize("decode", [endpoints, workers])
    @pytest.mark.parametrize("status", [200, 400, 500])
    @pytest.mark.parametrize(
        "body",
        [
            f"<{KEY.reveal()}>",
            f'{{"error": "{KEY.reveal()}"}}',
            f'["{KEY.reveal()}"]',
            f'{{"workers": "{KEY.reveal()}", "results": null}}',
        ],
    )
    def test_the_key_is_masked(self, decode: Decode, status: int, body: str) -> None:
        try:
            found: object = decode(message(body.encode(), status=status))
        except CallFailed as error:
            found = (str(error), repr(error), vars(error))
        assert KEY.reveal() not in f"{found!r} {found}"

    @every_decoder
    @given(body=st.binary(max_size=60) | st.text(max_size=60).map(str.encode), status=st.sampled_from([200, 400, 503]))
    def test_no_answer_raises_anything_else(self, decode: Decode, body: bytes, status: int) -> None:
        with suppress(CallFailed):
            decode(message(body, status=status))

    def test_limits_are_the_callers(self) -> None:
        narrow = Limits(max_body=3, max_depth=1)
        with pytest.raises(UnexpectedAnswer, match="more than the 3 allowed"):
            decode_workers(message([WORKER]), limits=narrow)
        with pytest.raises(UnexpectedAnswer, match="more than the 3 allowed"):
            decode_endpoints(message({"results": []}), limits=narrow)


# --- driven -------------------------------------------------------------------------------------------------------


def lookup(request: HttpRequest, decode: Callable[[HttpResponse], Any], **others: Any) -> Lookup[Any]:
    return Lookup(request, decode, rng=lambda: 0.5, deadline=NOW + 60, **others)


def sent(call: Lookup[Any], now: float = NOW) -> Send:
    action = call.next_action(now=now)
    assert isinstance(action, Send)
    return action


class TestLookup:
    def test_asks_until_there_is_an_answer(self) -> None:
        call = lookup(encode_endpoints(key=KEY), endpoints, key=KEY)
        send = sent(call)
        assert (send.request, send.phase, send.guard) == (encode_endpoints(key=KEY), Phase.LOOKUP, None)
        call.receive(message(status=503), now=NOW)
        wait = call.next_action(now=NOW)
        assert isinstance(wait, WaitUntil)
        assert sent(call, wait.at).attempt == 2
        call.receive(message({"results": [FIELDS]}), now=wait.at)
        assert call.next_action(now=wait.at) == Done(result=call.result())
        assert [info.name for info in call.result()] == ["demo"]

    @pytest.mark.parametrize(
        ("response", "kind"),
        [
            (message(status=401), KeyRefused),
            (message(b"<html>"), UnexpectedAnswer),
            (message({"results": None}), UnexpectedAnswer),
        ],
    )
    def test_a_final_answer_ends_it_at_once(self, response: HttpResponse, kind: type[CallFailed]) -> None:
        call = lookup(encode_endpoints(key=KEY), endpoints, key=KEY)
        sent(call)
        call.receive(response, now=NOW)
        action = call.next_action(now=NOW)
        assert isinstance(action, GiveUp)
        assert type(action.error) is kind
        assert action.error.counts == call.counts
        assert action.error.request_idx is None

    def test_its_policy_and_its_limits_hold(self) -> None:
        call = lookup(
            encode_workers(5, key=KEY),
            workers,
            policy=RetryPolicy(max_retries=1, ask_limit=2.0),
            limits=Limits(max_body=10),
            key=KEY,
        )
        assert sent(call).deadline == NOW + 2
        call.failed(f"{KEY.reveal()} broke", sent=True, now=NOW)
        sent(call, NOW + 1)
        call.failed(FailureKind.TIMEOUT, sent=True, now=NOW + 1)
        with pytest.raises(LimitReached) as raised:
            call.result()
        assert raised.value.limit == "max_retries"
        assert KEY.reveal() not in "".join(f"{each!r}" for each in call.record)
        call = lookup(encode_workers(5, key=KEY), workers, limits=Limits(max_body=10))
        sent(call)
        call.receive(message([WORKER]), now=NOW)
        with pytest.raises(UnexpectedAnswer, match="larger than the 10 bytes allowed"):
            call.result()

    def test_what_is_asked_of_a_worker_is_guarded(self) -> None:
        guard = Guard(allow_plain_http=True)
        origin = Origin(scheme="http", host="worker.example", port=8080)
        request = HttpRequest(method="GET", origin=origin, target="/", headers=KEY.headers)
        send = sent(lookup(request, workers, phase=Phase.WORKER, guard=guard))
        assert (send.phase, send.guard) == (Phase.WORKER, guard)


def test_a_session_that_is_gone_is_asked_about_once() -> None:
    def decode(_response: HttpResponse) -> bool:
        raise SessionGone("gone", phase=Phase.WORKER, outcome=Outcome.ANSWERED, advice=Advice.ASK_AGAIN)

    request = encode_public_key()
    lookup = Lookup(request, decode, rng=lambda: 0.5, deadline=NOW + 100)
    assert isinstance(lookup.next_action(now=NOW), Send)
    lookup.receive(HttpResponse(status=410), now=NOW + 1)
    assert isinstance(lookup.next_action(now=NOW + 1), GiveUp)
    assert [entry.at for entry in lookup.record] == [NOW, NOW + 1]
    with pytest.raises(SessionGone):
        lookup.result()
