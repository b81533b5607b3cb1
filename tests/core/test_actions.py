"""The actions: frozen values, equal where they say the same, and without the key that a request carries."""

from __future__ import annotations

import inspect
from typing import Any

import attrs
import pytest

from vastroute import (
    Advice,
    AskMachine,
    Call,
    Cancelled,
    ConnectionFailed,
    Done,
    FailureKind,
    GiveUp,
    Guard,
    Machine,
    Origin,
    Outcome,
    Phase,
    Receive,
    RouteCall,
    RouteRequest,
    Send,
    WaitUntil,
    Why,
    encode_route,
)

KEY = "0f9e8d7c6b5a-the-key"
REQUEST = encode_route(RouteRequest(endpoint="demo"), key=KEY, key_in_body=True)
ERROR = Cancelled("cancelled", phase=Phase.ROUTE, outcome=Outcome.NOT_SENT, advice=Advice.NOTHING)
ACTIONS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (
        Send,
        {"request": REQUEST, "connect_by": 1e6 + 1, "deadline": 1e6 + 2, "attempt": 1},
        {"phase": Phase.ROUTE, "fresh": False, "guard": None},
    ),
    (Receive, {"deadline": 1e6 + 2, "attempt": 1}, {"phase": Phase.ROUTE}),
    (WaitUntil, {"at": 1e6, "why": Why.POLL}, {}),
    (Done, {"result": ("anything", 1)}, {}),
    (GiveUp, {"error": ERROR}, {}),
]
every_action = pytest.mark.parametrize(
    ("kind", "needed", "defaults"), [pytest.param(*row, id=row[0].__name__) for row in ACTIONS]
)


class TestActions:
    @every_action
    def test_is_a_value(self, kind: Any, needed: dict[str, Any], defaults: dict[str, Any]) -> None:
        action = kind(**needed)
        assert action == kind(**needed, **defaults)
        assert hash(action) == hash(kind(**needed))
        for name in needed:
            assert attrs.evolve(action, **{name: object()}) != action
            with pytest.raises(attrs.exceptions.FrozenInstanceError):
                setattr(action, name, None)
            with pytest.raises(TypeError, match=name):
                kind(**{key: value for key, value in needed.items() if key != name})

    @every_action
    def test_has_names_for_all_it_says(self, kind: Any, needed: dict[str, Any], defaults: dict[str, Any]) -> None:
        assert {field.name for field in attrs.fields(kind)} == {*needed, *defaults}
        with pytest.raises(TypeError):
            kind(*needed.values())

    @every_action
    def test_shows_no_key(self, kind: Any, needed: dict[str, Any], defaults: dict[str, Any]) -> None:
        shown = repr(kind(**needed))
        assert shown.startswith(f"{kind.__name__}(")
        assert KEY not in shown

    def test_no_two_kinds_are_equal(self) -> None:
        made = [kind(**needed) for kind, needed, _ in ACTIONS]
        assert all(one is two or one != two for one in made for two in made)

    def test_every_pause_has_a_reason_in_words(self) -> None:
        assert [why.value for why in Why] == ["start", "poll", "retry", "re-route", "resume"]


class TestSend:
    def test_says_its_limits_as_http_libraries_take_them(self) -> None:
        send = Send(request=REQUEST, connect_by=1010.0, deadline=1600.0, attempt=1)
        assert send.timeouts(now=1000.0) == (10.0, 600.0)
        assert send.timeouts(now=1010.0) == (0.001, 590.0)
        assert send.timeouts(now=9999.0) == (0.001, 0.001)

    @pytest.mark.parametrize(
        ("url", "guard", "switch"),
        [
            ("https://worker.example", Guard(), "allow_proxied_names"),
            ("https://worker.example", Guard(allow_proxied_names=True), None),
            ("https://worker.example", None, None),
            ("https://8.8.8.8:40001", Guard(), None),
            ("https://[2606:4700::1]:40001", Guard(), None),
            ("https://127.0.0.1:40001", Guard(), "allow_private_address"),
        ],
    )
    def test_a_host_that_the_library_resolves_has_to_be_an_address(
        self, url: str, guard: Guard | None, switch: str | None
    ) -> None:
        request = attrs.evolve(REQUEST, origin=Origin.parse(url))
        send = Send(request=request, connect_by=1.0, deadline=2.0, attempt=1, phase=Phase.WORKER, guard=guard)
        if switch is None:
            send.check_host()
            return
        with pytest.raises(ConnectionFailed, match=switch) as caught:
            send.check_host()
        error = caught.value
        assert (error.kind, error.outcome, error.phase) == (FailureKind.GUARD, Outcome.NOT_SENT, Phase.WORKER)


class TestMachine:
    @pytest.mark.parametrize("machine", [AskMachine, RouteCall, Call])
    def test_has_what_a_driver_calls(self, machine: type) -> None:
        wanted = {name: each for name, each in vars(Machine).items() if not name.startswith("_")}
        assert {
            "next_event",
            "read_limit",
            "next_action",
            "receive",
            "head",
            "chunk",
            "end",
            "feed",
            "failed",
            "cancelled",
            "result",
        } <= {*wanted}
        for name, method in wanted.items():
            has = inspect.getattr_static(machine, name)
            assert isinstance(has, property) is isinstance(method, property)
            if callable(method):
                assert list(inspect.signature(has).parameters) == list(inspect.signature(method).parameters)
