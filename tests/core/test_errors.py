"""The error tree: as it is drawn, as it reads, and that nothing is lost when it is pickled."""

from __future__ import annotations

import copy
import pickle
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest

from vastroute import (
    Advice,
    CallFailed,
    Counts,
    EntryKind,
    FailureKind,
    InvalidValue,
    LocalProtocolError,
    NotReady,
    Outcome,
    Phase,
    Reason,
    Record,
    Refused,
    TunnelFailed,
    VastrouteError,
    Verdict,
)

ERRORS = sys.modules[VastrouteError.__module__]
CALL_FAILURES: list[type[CallFailed]] = [
    each for each in vars(ERRORS).values() if isinstance(each, type) and issubclass(each, CallFailed)
]
COPIES: list[Any] = [
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
    *(
        pytest.param(lambda error, n=n: pickle.loads(pickle.dumps(error, n)), id=f"pickle-{n}")
        for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
    ),
]


def drawn() -> dict[str, str | None]:
    """Each class in the drawing of the module's text, with the class it hangs on."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (ERRORS.__doc__ or "").splitlines():
        if match := re.match(r"    ((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)", line):
            depth = (match.end(1) - 4) // 4 + ("──" in line)
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else None
    return parents


def make(cls: type[CallFailed], /, **fields: Any) -> CallFailed:
    needed = {"phase": Phase.ROUTE, "outcome": Outcome.ANSWERED, "advice": Advice.ASK_AGAIN}
    return cls("it failed", **{**needed, **fields})


def full(kind: type[CallFailed]) -> CallFailed:
    """An error with something in every attribute."""
    error = make(
        kind,
        status=503,
        excerpt="busy",
        request_idx=7,
        request_id="5f1c",
        kind=FailureKind.RESET,
        limit="total",
        retry_after=2.5,
    )
    error.not_ready = NotReady(status="loading: 1", counts={"loading": 1}, request_idx=7)
    error.verdict = Verdict(reason=Reason.NO_KEY)
    error.body = b"paid for"
    error.counts = Counts(asks=3)
    error.record = Record([(EntryKind.ASKED, 1e6, Phase.ROUTE, 1, 7, None, "", None)])
    assert None not in vars(error).values()
    return error


class TestTree:
    def test_is_the_one_that_is_drawn(self) -> None:
        classes = {name: each for name, each in vars(ERRORS).items() if isinstance(each, type)}
        tree = {name: each.__bases__[0].__name__ for name, each in classes.items() if issubclass(each, VastrouteError)}
        assert drawn() == {**tree, "VastrouteError": None}

    @pytest.mark.parametrize("kind", [InvalidValue, LocalProtocolError, TunnelFailed, *CALL_FAILURES])
    def test_one_root_for_all(self, kind: type[Exception]) -> None:
        assert issubclass(kind, VastrouteError)
        assert issubclass(kind, ValueError) is (kind is InvalidValue)
        assert kind.__doc__

    def test_the_blame_is_in_the_class(self) -> None:
        assert not any(issubclass(kind, InvalidValue | LocalProtocolError) for kind in CALL_FAILURES)
        assert not issubclass(InvalidValue, CallFailed)
        assert not issubclass(LocalProtocolError, CallFailed)

    @pytest.mark.parametrize("missing", ["phase", "outcome", "advice"])
    def test_what_every_failure_must_say(self, missing: str) -> None:
        fields: Any = {"phase": Phase.ROUTE, "outcome": Outcome.NOT_SENT, "advice": Advice.NOTHING}
        del fields[missing]
        with pytest.raises(TypeError, match=missing):
            CallFailed("it failed", **fields)

    @pytest.mark.parametrize("words", [Phase, Outcome, Advice, FailureKind])
    def test_every_value_has_words_of_its_own(self, words: Any) -> None:
        texts = [each.value for each in words]
        assert len(set(texts)) == len(texts)
        assert all(isinstance(text, str) and text.strip() for text in texts)
        assert words(texts[0]) is next(iter(words))


class TestText:
    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({}, "route: it failed"),
            ({"phase": Phase.WORKER}, "worker: it failed"),
            ({"phase": Phase.LOOKUP}, "lookup: it failed"),
            ({"status": 503}, "route: HTTP 503: it failed"),
            ({"status": 0}, "route: HTTP 0: it failed"),
            ({"excerpt": "busy"}, "route: it failed (it said: busy)"),
            ({"status": 401, "excerpt": "no"}, "route: HTTP 401: it failed (it said: no)"),
            (
                {"request_idx": 7, "request_id": "5f1c", "kind": FailureKind.EOF, "limit": "total", "retry_after": 2.0},
                "route: it failed",
            ),
        ],
    )
    @pytest.mark.parametrize("kind", CALL_FAILURES)
    def test_of_a_failed_call(self, kind: type[CallFailed], fields: dict[str, Any], text: str) -> None:
        error = make(kind, **fields)
        assert str(error) == text
        assert repr(error) == f"{kind.__name__}('it failed')"
        assert error.args == ("it failed",)

    @pytest.mark.parametrize("kind", [InvalidValue, LocalProtocolError, TunnelFailed])
    def test_of_the_others(self, kind: type[Exception]) -> None:
        assert str(kind("why it cannot be")) == "why it cannot be"

    def test_what_is_not_known_is_absent(self) -> None:
        error = make(Refused)
        assert {name for name, value in vars(error).items() if value is None} == {
            "status",
            "request_idx",
            "request_id",
            "kind",
            "limit",
            "retry_after",
            "not_ready",
            "verdict",
            "body",
            "counts",
            "record",
        }
        assert error.excerpt == ""


class TestCopies:
    @pytest.mark.parametrize("duplicate", COPIES)
    @pytest.mark.parametrize("kind", CALL_FAILURES)
    def test_nothing_is_lost(self, duplicate: Callable[[CallFailed], CallFailed], kind: type[CallFailed]) -> None:
        error = full(kind)
        error.add_note("seen in row 5")
        again = duplicate(error)
        assert type(again) is kind
        assert vars(again) == vars(error)
        assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
        assert again.__notes__ == ["seen in row 5"]

    @pytest.mark.parametrize("duplicate", COPIES)
    def test_a_copy_is_another(self, duplicate: Callable[[CallFailed], CallFailed]) -> None:
        error = full(Refused)
        again = duplicate(error)
        again.request_idx = 8
        assert error.request_idx == 7

    @pytest.mark.parametrize("duplicate", COPIES)
    def test_the_others_too(self, duplicate: Callable[[Any], Any]) -> None:
        tunnel = duplicate(TunnelFailed("the proxy refuses", status=407))
        assert (type(tunnel), str(tunnel), tunnel.status) == (TunnelFailed, "the proxy refuses", 407)
        assert TunnelFailed("the proxy is silent").status is None
        for kind in (InvalidValue, LocalProtocolError):
            assert (type(duplicate(kind("why"))), str(duplicate(kind("why")))) == (kind, "why")

    @pytest.mark.parametrize("kind", CALL_FAILURES)
    def test_can_be_raised_again(self, kind: type[CallFailed]) -> None:
        again = pickle.loads(pickle.dumps(full(kind)))
        with pytest.raises(kind, match="it failed") as raised:
            raise again
        assert raised.value is again
