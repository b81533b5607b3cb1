"""The simulated engine: who gets what answer, what is counted, and how a cold start goes by."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vastroute import (
    ENGINE,
    FORMS,
    Call,
    FailureKind,
    Grant,
    Guard,
    Headers,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    KeyRefused,
    Machine,
    NotReady,
    Origin,
    Refused,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Send,
    SigningForm,
    Verifier,
    WaitUntil,
    WorkerRequest,
    decode_endpoints,
    decode_public_key,
    decode_route,
    decode_workers,
    encode_endpoints,
    encode_public_key,
    encode_route,
    encode_workers,
    verify,
)
from vastroute_testing import (
    OTHER_TEST_PRIVATE_KEY,
    OTHER_TEST_PUBLIC_KEY,
    TEST_PUBLIC_KEY,
    BadSignature,
    CloseBeforeHead,
    Cut,
    Delay,
    DropIndex,
    Faults,
    Html,
    ManualClock,
    OtherIndex,
    Refuse,
    Schedule,
    SetField,
    SimulatedEndpoint,
    SimulatedEngine,
    SimulatedWorker,
    Status,
    StatusForm,
    WorkerPlan,
)
from vastroute_testing.schedule import whole

KEY = "test-endpoint-key"
ACCOUNT_KEY = "test-account-key"
T0 = 1000.25


def request(
    target: str, body: Any = None, *, method: str = "POST", key: str | None = KEY, headers: Mapping[str, str] = {}
) -> HttpRequest:
    given = {"authorization": f"Bearer {key}", **headers} if key is not None else headers
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    return HttpRequest(method=method, origin=ENGINE, target=target, headers=Headers(given), body=data)


def response_of(schedule: Schedule) -> HttpResponse:
    response = whole(schedule)
    assert response is not None
    return response


def ask(engine: SimulatedEngine, *, now: float = T0, endpoint: str = "demo", **fields: Any) -> dict[str, Any]:
    response = response_of(engine.serve(request("/route/", {"endpoint": endpoint, **fields}), now=now))
    assert response.status == 200
    value: dict[str, Any] = json.loads(response.body)
    return value


def decoded(
    engine: SimulatedEngine, route: RouteRequest, *, now: float = T0, index: int | None = None
) -> Grant | NotReady:
    """The same through the library's own codec."""
    sent = encode_route(route, key=KEY, request_idx=index)
    return decode_route(response_of(engine.serve(sent, now=now)))


# --- grants ------------------------------------------------------------------------------------------------------


def test_a_grant_has_every_field_and_verifies() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    grant = ask(engine, cost=5)
    assert set(grant) == {
        "endpoint",
        "url",
        "cost",
        "reqnum",
        "signature",
        "request_idx",
        "__request_id",
    }
    assert grant["url"] == engine.workers[0].url
    assert grant["reqnum"] == 1
    verdict = verify(grant, decode_public_key(response_of(engine.serve(encode_public_key(), now=T0))))
    assert (verdict.verified, verdict.form) == (True, FORMS[0].name)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: str(form.name))
def test_every_signing_form_can_be_used(form: SigningForm) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("d\u00e9mo"), form=form)
    grant = ask(engine, endpoint="d\u00e9mo", cost=2.5)
    assert verify(grant, TEST_PUBLIC_KEY, forms=(form,)).verified
    assert not verify(grant, OTHER_TEST_PUBLIC_KEY, forms=(form,)).verified


def test_another_key_can_be_used() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), private_key=OTHER_TEST_PRIVATE_KEY)
    assert engine.public_key == OTHER_TEST_PUBLIC_KEY
    assert verify(ask(engine), OTHER_TEST_PUBLIC_KEY).verified


@pytest.mark.parametrize("cost", [100, 100.0, 0, 0.5, 3])
def test_the_cost_comes_back_as_it_was_asked(cost: float) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    answer = ask(engine, cost=cost)["cost"]
    assert (answer, type(answer)) == (cost, type(cost))


def test_without_a_cost_it_is_the_documented_one() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    assert ask(engine)["cost"] == 100
    assert engine.load("demo") == 100


def test_reqnums_run_for_each_worker_and_indices_for_each_request() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2))
    grants = [ask(engine) for _ in range(6)]
    for worker in engine.workers:
        assert [grant["reqnum"] for grant in grants if grant["url"] == worker.url] == [1, 2, 3]
    assert len({grant["request_idx"] for grant in grants}) == 6
    assert len({grant["__request_id"] for grant in grants}) == 6


def test_given_addresses_are_granted_but_not_simulated() -> None:
    urls = ("http://127.0.0.1:8001", "http://127.0.0.1:8002")
    engine = SimulatedEngine(SimulatedEndpoint("demo", worker_urls=urls))
    assert {ask(engine)["url"] for _ in range(4)} == set(urls)
    assert engine.workers == ()
    with pytest.raises(InvalidValue):
        SimulatedEngine(SimulatedEndpoint("demo", workers=(WorkerPlan(),), worker_urls=urls))


def test_a_worker_can_move_to_where_it_listens() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    engine.workers[0].url = "http://127.0.0.1:9999"
    assert ask(engine)["url"] == "http://127.0.0.1:9999"
    origin = Origin.parse("http://127.0.0.1:9999")
    assert engine.worker_at(origin) is engine.workers[0]
    assert engine.worker_at(ENGINE) is None


def test_the_same_questions_have_the_same_answers() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=3), seed=seed)
        return [ask(engine, now=T0 + number) for number in range(5)]

    assert run(1) == run(1)
    assert run(1) != run(2)


# --- lifetimes ---------------------------------------------------------------------------------------------------


def test_polls_keep_their_lifetime_and_its_load() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=10))
    index = ask(engine, cost=7, request_idx=0)["request_idx"]
    for seconds in (3, 6, 9):
        assert ask(engine, now=T0 + seconds, cost=7, request_idx=index)["request_idx"] == index
    grant = ask(engine, now=T0 + 10, cost=7, request_idx=index)
    assert grant["request_idx"] == index
    lifetime = engine.lifetimes[index]
    assert (lifetime.asks, lifetime.polls, lifetime.grants) == (5, 4, (grant["url"],))
    assert (lifetime.endpoint, lifetime.cost, lifetime.first_at) == ("demo", 7, T0)
    assert engine.load("demo") == 7
    assert (engine.asks, engine.grants) == (5, 1)


@pytest.mark.parametrize("index", [None, 0])
def test_no_index_begins_a_lifetime(index: int | None) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    answers = [ask(engine, request_idx=index, cost=3) for _ in range(2)]
    assert list(engine.lifetimes) == [answer["request_idx"] for answer in answers]
    assert engine.load("demo") == 6


def test_an_unknown_index_begins_a_lifetime_under_a_new_number() -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other")])
    first = ask(engine)["request_idx"]
    assert ask(engine, request_idx=99_999)["request_idx"] not in {99_999, first}
    assert ask(engine, endpoint="other", request_idx=first)["request_idx"] != first
    assert len(engine.lifetimes) == 3


def test_after_a_grant_another_worker_is_granted_if_there_is_one() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2))
    index = ask(engine)["request_idx"]
    for _ in range(2):
        ask(engine, request_idx=index)
    first, second, third = engine.lifetimes[index].grants
    assert first != second
    assert third in {first, second}
    assert (engine.lifetimes[index].asks, engine.lifetimes[index].polls) == (3, 0)


def test_old_lifetimes_are_forgotten_but_not_their_load() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), keep=3)
    for _ in range(5):
        ask(engine, cost=1)
    assert len(engine.lifetimes) == 3
    assert len(engine.requests) == 3
    assert engine.load("demo") == 5
    assert engine.asks == 5


@given(
    asks=st.lists(
        st.tuples(
            st.floats(0, 30),
            st.sampled_from(["demo", "cold"]),
            st.sampled_from([None, 0, 1001, 1002, 1003, 77]),
            st.integers(0, 9) | st.floats(0, 9),
        ),
        max_size=30,
    )
)
@settings(max_examples=50)
def test_the_books_balance(asks: list[tuple[float, str, int | None, float]]) -> None:
    endpoints = [SimulatedEndpoint("demo", workers=2), SimulatedEndpoint("cold", workers=2, ready_after=60)]
    engine = SimulatedEngine(endpoints)
    now = T0
    reqnums: dict[str, list[int]] = {}
    for pause, endpoint, index, cost in asks:
        now += pause
        answer = ask(engine, now=now, endpoint=endpoint, request_idx=index, cost=cost)
        assert answer["request_idx"] in engine.lifetimes
        if "url" in answer:
            reqnums.setdefault(answer["url"], []).append(answer["reqnum"])
    for endpoint in ("demo", "cold"):
        begun = [each.cost for each in engine.lifetimes.values() if each.endpoint == endpoint]
        assert engine.load(endpoint) == pytest.approx(sum(begun))
    assert engine.asks == len(asks) == sum(each.asks for each in engine.lifetimes.values())
    assert engine.grants == sum(len(each.grants) for each in engine.lifetimes.values())
    assert all(numbers == list(range(1, len(numbers) + 1)) for numbers in reqnums.values())
    assert all(each.polls < each.asks for each in engine.lifetimes.values())


# --- cold starts and what is said of them ------------------------------------------------------------------------


def test_the_cold_start_begins_with_the_first_ask() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=3, ready_after=40))
    seen = [ask(engine, now=T0 + seconds).get("status") for seconds in (0, 10, 20, 30, 39.9, 40)]
    assert seen == ["3 created", "1 loading, 2 created", "2 loading, 1 created", "3 loading", "3 loading", None]


def test_workers_can_have_plans_of_their_own() -> None:
    plans = (
        WorkerPlan(ready_after=10, fails_after=20),
        WorkerPlan(ready_after=30, dies_after=40, noticed_after=5),
        WorkerPlan(loading_after=50, ready_after=60),
    )
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=plans))
    urls = [worker.url for worker in engine.workers]
    seen = []
    for seconds in (0, 10, 20, 30, 44, 45, 50, 60):
        answer = ask(engine, now=T0 + seconds)
        seen.append(urls.index(answer["url"]) if "url" in answer else answer["status"])
    # At 44 s the second worker is dead, and the engine does not know it yet.
    assert seen == [
        "2 loading, 1 created",
        0,
        "1 loading, 1 created, 1 failed",
        1,
        1,
        "1 created, 1 failed, 1 dead",
        "1 loading, 1 failed, 1 dead",
        2,
    ]


def test_the_library_reads_the_breakdown() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=3, ready_after=40))
    decoded(engine, RouteRequest(endpoint="demo"))
    answer = decoded(engine, RouteRequest(endpoint="demo"), now=T0 + 10)
    assert isinstance(answer, NotReady)
    assert answer.counts == {"loading": 1, "created": 2}


@pytest.mark.parametrize(
    ("form", "status"),
    [
        (StatusForm.TEXT, "2 created"),
        (StatusForm.OBJECT, {"ready": 0, "created": 2, "total": 2}),
        (StatusForm.ABSENT, None),
    ],
)
def test_the_breakdown_has_three_forms(form: StatusForm, status: Any) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2, ready_after=40, status_form=form))
    answer = ask(engine)
    assert "url" not in answer
    assert answer.get("status") == status
    assert ("status" in answer) == (status is not None)


def test_an_endpoint_without_workers_never_has_one() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=0))
    assert ask(engine, now=T0 + 1e6)["status"] == "no workers"


def test_a_stopped_endpoint() -> None:
    engine = SimulatedEngine(
        [
            SimulatedEndpoint("demo", stopped=True),
            SimulatedEndpoint("later", stops_after=5),
        ]
    )
    assert ask(engine)["status"] == "Stopped"
    assert "url" in ask(engine, endpoint="later", now=T0)
    assert "url" in ask(engine, endpoint="later", now=T0 + 4.9)
    assert ask(engine, endpoint="later", now=T0 + 5)["status"] == "Stopped"


def test_a_full_worker_is_not_granted_until_its_queue_is_short() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=(WorkerPlan(perf=10, max_queue_time=5),)))
    worker = engine.workers[0]
    grant = ask(engine, cost=100)
    envelope = {"auth_data": grant, "payload": {}}
    assert response_of(worker.serve(request("/echo", envelope, key=None), now=T0)).status == 200
    assert ask(engine, now=T0 + 4.5)["status"] == "1 full"
    assert "url" in ask(engine, now=T0 + 5)


# --- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "headers", "body"),
    [
        ("wrong", {}, {}),
        (ACCOUNT_KEY, {}, {}),
        (None, {}, {}),
        (None, {"authorization": KEY}, {}),
        (None, {"authorization": "Basic " + KEY}, {}),
        (None, {}, {"api_key": "wrong"}),
        (None, {}, {"api_key": 5}),
        ("wrong", {}, {"api_key": KEY}),
    ],
)
def test_other_keys_are_refused(key: str | None, headers: dict[str, str], body: dict[str, Any]) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    sent = request("/route/", {"endpoint": "demo", **body}, key=key, headers=headers)
    response = response_of(engine.serve(sent, now=T0))
    assert response.status == 401
    assert json.loads(response.body) == {"error": "Authentication failed"}
    with pytest.raises(KeyRefused):
        decode_route(response)
    assert engine.lifetimes == {}


def test_the_key_may_stand_in_the_body() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    sent = request("/route/", {"endpoint": "demo", "api_key": KEY}, key=None)
    assert isinstance(decode_route(response_of(engine.serve(sent, now=T0))), Grant)


@pytest.mark.parametrize("fields", [{"endpoint": "nobody"}, {"endpoint": "other"}, {"endpoint_id": 9}])
def test_an_unknown_endpoint_is_a_refusal_in_a_200(fields: dict[str, Any]) -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other", key="other-key")])
    response = response_of(engine.serve(request("/route/", fields), now=T0))
    assert response.status == 200
    assert json.loads(response.body) == {"error_msg": "endpoint 0 not found or unauthorized"}
    with pytest.raises(Refused):
        decode_route(response)


def test_an_endpoint_can_be_named_by_its_id() -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other")])
    response = response_of(engine.serve(request("/route/", {"endpoint_id": 2}), now=T0))
    assert json.loads(response.body)["endpoint"] == "other"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        {"endpoint": ""},
        {"endpoint": 5},
        {"endpoint": "demo", "cost": -1},
        {"endpoint": "demo", "cost": "1"},
        {"endpoint": "demo", "cost": True},
        {"endpoint": "demo", "cost": float("nan")},
        {"endpoint": "demo", "cost": 10**400},
        {"endpoint": "demo", "request_idx": "7"},
        {"endpoint": "demo", "request_idx": -7},
        {"endpoint": "demo", "request_idx": 7.0},
        {"endpoint": "demo", "replay_timeout": None},
    ],
)
def test_bad_input_is_refused(body: Any) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    response = response_of(engine.serve(request("/route/", body), now=T0))
    assert response.status == 400
    assert list(json.loads(response.body)) == ["error"]
    assert engine.load("demo") == 0


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/route/", 405),
        ("POST", "/pubkey/", 405),
        ("GET", "/get_endpoint_workers/", 405),
        ("GET", "/pubkey", 404),
        ("POST", "/route", 404),
        ("GET", "/", 404),
    ],
)
def test_other_places_and_methods(method: str, target: str, status: int) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    assert response_of(engine.serve(request(target, {}, method=method), now=T0)).status == status
    assert engine.asks == 0


@given(
    body=st.binary(max_size=40)
    | st.dictionaries(
        st.sampled_from(["endpoint", "endpoint_id", "cost", "request_idx", "replay_timeout", "guid", "id", "api_key"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["demo", KEY]) | st.just([{}]),
    ),
    target=st.sampled_from(["/route/", "/route/?x=1", "/pubkey/", "/get_endpoint_workers/", "/api/v0/endptjobs/1/"]),
    method=st.sampled_from(["GET", "POST"]),
)
def test_every_request_has_an_answer(body: Any, target: str, method: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    response = response_of(engine.serve(request(target, body, method=method), now=T0))
    assert response.status in {200, 400, 401, 404, 405}


def test_two_endpoints_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidValue):
        SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("demo")])
    with pytest.raises(InvalidValue):
        SimulatedEngine(SimulatedEndpoint("demo")).load("other")


@pytest.mark.parametrize(
    "make",
    [
        lambda: SimulatedEndpoint("demo", workers=-1),
        lambda: SimulatedEndpoint("demo", ready_after=-1),
        lambda: SimulatedEndpoint("demo", worker_urls="https://203.0.113.1"),
        lambda: WorkerPlan(perf=0),
        lambda: WorkerPlan(dies_after="soon"),  # type: ignore[arg-type]
    ],
)
def test_a_script_that_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        make()


# --- faults ------------------------------------------------------------------------------------------------------


def test_faults_go_by_endpoint_and_attempt() -> None:
    faults = {("demo", 1): Status(503, retry_after=2), ("other", 2): Status(500)}
    engine = SimulatedEngine([SimulatedEndpoint("demo", faults=faults), SimulatedEndpoint("other")])

    def status(endpoint: str) -> int:
        return response_of(engine.serve(request("/route/", {"endpoint": endpoint}), now=T0)).status

    assert [status("demo"), status("demo"), status("other"), status("other")] == [503, 200, 200, 500]
    # What a gateway refuses never reaches the engine.
    assert engine.load("demo") == engine.load("other") == 100
    assert engine.asks == 4


@pytest.mark.parametrize("guid", [7, "seven"])
def test_a_guid_is_a_label_of_its_own(guid: int | str) -> None:
    faults = {(str(guid), 1): Status(500), ("demo", 1): Status(503)}
    engine = SimulatedEngine(SimulatedEndpoint("demo"), faults=faults)
    sent: list[dict[str, Any]] = [{"guid": guid}, {"guid": "another"}, {}, {"guid": guid}]
    statuses = [
        response_of(engine.serve(request("/route/", {"endpoint": "demo", **more}), now=T0)).status for more in sent
    ]
    assert statuses == [500, 200, 503, 200]


def test_other_requests_are_labelled_by_their_path() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), faults={("/pubkey/", 1): Html()})
    assert b"html" in response_of(engine.serve(encode_public_key(), now=T0)).body
    assert response_of(engine.serve(encode_public_key(), now=T0)).body == TEST_PUBLIC_KEY.encode()


def test_a_lost_answer_has_counted() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), faults={("demo", 1): CloseBeforeHead(), ("demo", 2): Refuse()})
    ends = [engine.serve(request("/route/", {"endpoint": "demo"}), now=T0) for _ in range(2)]
    assert ends == [(Cut(at=T0, kind=FailureKind.EOF),), (Cut(at=T0, kind=FailureKind.REFUSED),)]
    assert len(engine.lifetimes) == 1
    assert ask(engine)["reqnum"] == 2


def test_grants_can_be_spoiled() -> None:
    faults: Faults = {
        ("demo", 1): BadSignature(),
        ("demo", 2): DropIndex(),
        ("demo", 3): OtherIndex(5),
        ("demo", 4): SetField("url", "http://169.254.169.254"),
        ("demo", 5): (BadSignature(""), Delay(3)),
    }
    engine = SimulatedEngine(SimulatedEndpoint("demo", faults=faults))
    assert not verify(ask(engine), TEST_PUBLIC_KEY).verified
    assert "request_idx" not in ask(engine)
    assert ask(engine)["request_idx"] == 5
    assert ask(engine)["url"] == "http://169.254.169.254"
    late = engine.serve(request("/route/", {"endpoint": "demo"}), now=T0)
    assert [step.at for step in late] == [T0 + 3] * 3


def test_latency_and_date() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), latency=0.25, epoch=1_700_000_000.0)
    schedule = engine.serve(encode_public_key(), now=0.75)
    assert {step.at for step in schedule} == {1.0}
    assert response_of(schedule).headers.get("date") == "Tue, 14 Nov 2023 22:13:21 GMT"


# --- look-ups ----------------------------------------------------------------------------------------------------


def test_the_account_key_finds_the_endpoints_and_their_keys() -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other", key="other-key", stopped=True)])
    found = decode_endpoints(response_of(engine.serve(encode_endpoints(key=ACCOUNT_KEY), now=T0)))
    assert [(each.id, each.name, each.key.reveal() if each.key else None, each.state) for each in found] == [
        (1, "demo", KEY, "active"),
        (2, "other", "other-key", "stopped"),
    ]


def test_one_endpoint_by_its_id() -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other")])

    def get(number: int) -> Any:
        sent = request(f"/api/v0/endptjobs/{number}/", method="GET", key=ACCOUNT_KEY)
        return json.loads(response_of(engine.serve(sent, now=T0)).body)

    assert get(2)["result"]["endpoint_name"] == "other"
    assert get(3)["success"] is False


def test_the_account_key_may_stand_in_the_query_of_the_look_up() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    target = f"/api/v0/endptjobs/?client_id=me&api_key={ACCOUNT_KEY}"
    assert response_of(engine.serve(request(target, method="GET", key=None), now=T0)).status == 200


def test_an_endpoint_key_finds_no_endpoints() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    assert response_of(engine.serve(encode_endpoints(key=KEY), now=T0)).status == 401


def test_an_account_without_endpoints() -> None:
    response = response_of(SimulatedEngine([]).serve(encode_endpoints(key=ACCOUNT_KEY), now=T0))
    assert response.status == 400
    assert decode_endpoints(response) == ()


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("key", [KEY, ACCOUNT_KEY])
def test_the_workers_of_an_endpoint(bare: bool, key: str) -> None:
    plans = (WorkerPlan(ready_after=5, perf=50), WorkerPlan(ready_after=50))
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=plans), bare_worker_list=bare)

    def statuses(now: float) -> list[str | None]:
        return [each.status for each in decode_workers(response_of(engine.serve(encode_workers(1, key=key), now=now)))]

    assert statuses(T0) == ["created", "created"]
    ask(engine, now=T0)
    assert statuses(T0 + 10) == ["ready", "loading"]


def test_a_worker_that_has_not_begun_says_so_in_numbers() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=5))
    (worker,) = decode_workers(response_of(engine.serve(encode_workers(1, key=KEY), now=T0)))
    assert [worker.fields[name] for name in ("started_at", "loaded_at")] == [0.0, 0.0]


@pytest.mark.parametrize("route", ["/worker_status/", "/delete_requests/"])
def test_what_workers_report_is_taken_and_kept(route: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    origin = Origin.parse("https://run.example")
    report = HttpRequest(method="POST", origin=origin, target=route, headers=Headers(), body=b"{}")
    response = response_of(engine.serve(report, now=T0))
    assert (response.status, response.body) == (200, b"")
    assert list(engine.requests) == [report]


def test_the_list_of_workers_has_the_documented_fields() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    ask(engine)
    (worker,) = decode_workers(response_of(engine.serve(encode_workers(1, key=KEY), now=T0)))
    names = "id status cur_load new_load cur_load_rolling_avg cur_perf perf measured_perf dlperf reliability"
    assert set(worker.fields) == {*names.split(), "reqs_working", "disk_usage", "loaded_at", "started_at"}


@pytest.mark.parametrize(("number", "key", "status"), [(1, "wrong", 401), (2, KEY, 200), (9, KEY, 200)])
def test_the_workers_of_others(number: int, key: str, status: int) -> None:
    engine = SimulatedEngine([SimulatedEndpoint("demo"), SimulatedEndpoint("other", key="other-key")])
    response = response_of(engine.serve(encode_workers(number, key=key), now=T0))
    assert response.status == status
    with pytest.raises(Refused):
        decode_workers(response)


# --- with the library's own machine ------------------------------------------------------------------------------


T = TypeVar("T")


def run(machine: Machine[T], engine: SimulatedEngine, clock: ManualClock) -> T:
    """Drive a machine over whole messages: the engine answers for every address that is none of its workers'."""
    while not machine.over:
        action = machine.next_action(now=clock())
        if isinstance(action, WaitUntil):
            clock.sleep_until(action.at)
        elif isinstance(action, Send):
            server = engine.worker_at(action.request.origin) or engine
            schedule = server.serve(action.request, now=clock())
            clock.sleep_until(schedule[-1].at)
            response = whole(schedule)
            if response is not None:
                machine.receive(response, now=clock())
            else:
                assert isinstance(schedule[-1], Cut)
                kind = schedule[-1].kind
                machine.failed(kind.value, kind=kind, sent=kind is not FailureKind.REFUSED, now=clock())
    return machine.result()


@pytest.mark.parametrize("seed", range(5))
def test_a_call_waits_for_seven_cold_minutes_and_counts_once(seed: int) -> None:
    faults: Faults = {("demo", 2): Status(503, retry_after=4), ("demo", 4): CloseBeforeHead(), ("demo", 6): Html()}
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2, ready_after=420, faults=faults), latency=0.1)
    clock = ManualClock()
    began = clock()
    call = RouteCall(
        RouteRequest(endpoint="demo", cost=250),
        key=KEY,
        rng=Random(seed).random,
        deadline=began + 900,
        verifier=Verifier(TEST_PUBLIC_KEY),
    )
    result = run(call, engine, clock)
    assert 420 <= clock() - began < 430
    assert result.verdict.verified
    (lifetime,) = engine.lifetimes.values()
    assert result.grant.request_idx == lifetime.request_idx
    assert engine.load("demo") == 250
    assert result.counts.asks == engine.asks
    assert lifetime.asks == engine.asks - 2  # two of the faults stand in front of the engine


def test_a_lost_first_answer_is_the_one_way_to_double_load() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 1): CloseBeforeHead()}))
    clock = ManualClock()
    policy = RetryPolicy()
    call = RouteCall(RouteRequest(endpoint="demo"), key=KEY, rng=Random(1).random, deadline=clock() + 60, policy=policy)
    run(call, engine, clock)
    assert len(engine.lifetimes) == 2
    assert engine.load("demo") == 200


@pytest.mark.parametrize(("plan", "safe_to_repeat"), [(WorkerPlan(dies_after=0), False), (WorkerPlan(dies_on=1), True)])
def test_a_call_goes_on_to_another_worker_when_the_first_dies(plan: WorkerPlan, safe_to_repeat: bool) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=(plan, WorkerPlan())))
    clock = ManualClock()
    route = RouteCall(RouteRequest(endpoint="demo"), key=KEY, rng=Random(1).random, deadline=clock() + 60)
    work = WorkerRequest(route="/echo", payload={"a": 1}, safe_to_repeat=safe_to_repeat)
    answer = run(Call(route, work, guard=Guard(allow_private_address=True)), engine, clock)
    assert answer.data == {"echo": {"a": 1}}
    (lifetime,) = engine.lifetimes.values()
    assert lifetime.grants == tuple(worker.url for worker in engine.workers)
    assert engine.load("demo") == 100
    assert [worker.served for worker in engine.workers] == [int(safe_to_repeat), 1]


def test_no_key_reaches_a_worker() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    grant = ask(engine)
    worker = engine.workers[0]
    assert isinstance(worker, SimulatedWorker)
    worker.serve(request("/echo", {"auth_data": grant, "payload": {}}, key=None), now=T0)
    (seen,) = worker.requests
    assert KEY not in str(list(seen.headers)) + seen.url + seen.body.decode()
    assert any(KEY in str(list(each.headers)) for each in engine.requests)
