"""What an exception says about an exchange: one table for every driver."""

from __future__ import annotations

import errno
import socket
import ssl
from typing import Any

import pytest

from vastroute import (
    Advice,
    CallFailed,
    ConnectionFailed,
    FailureKind,
    Outcome,
    Phase,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Send,
    TunnelFailed,
)

NOW = 1e6


class Wrapped(Exception):
    """As HTTP libraries wrap what they meet."""


def failed(kind: FailureKind | None, outcome: Outcome = Outcome.NOT_SENT) -> ConnectionFailed:
    return ConnectionFailed(
        "no", phase=Phase.WORKER, outcome=outcome, advice=Advice.ALLOW, kind=kind, limit="allow_any_port"
    )


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def reported(error: BaseException | FailureKind | str, **said: Any) -> CallFailed:
    """The error of a call whose one ask ended so."""
    call = RouteCall(
        RouteRequest(endpoint="demo"),
        key="the-key",
        rng=lambda: 0.5,
        deadline=NOW + 900,
        policy=RetryPolicy(max_retries=0),
    )
    assert isinstance(call.next_action(now=NOW), Send)
    call.failed(error, **{"sent": None, **said}, now=NOW)
    with pytest.raises(CallFailed) as caught:
        call.result()
    return caught.value


CASES: list[tuple[BaseException | FailureKind | str, FailureKind]] = [
    (FailureKind.TIMEOUT, FailureKind.TIMEOUT),
    (failed(FailureKind.GUARD), FailureKind.GUARD),
    (failed(None), FailureKind.OTHER),
    (TunnelFailed("no"), FailureKind.PROXY),
    (TunnelFailed("no", status=407), FailureKind.PROXY),
    (TimeoutError(), FailureKind.TIMEOUT),
    (TimeoutError(errno.ETIMEDOUT, "slow"), FailureKind.TIMEOUT),
    (socket.gaierror(socket.EAI_NONAME, "no such name"), FailureKind.NAME),
    (ssl.SSLCertVerificationError(1, "not trusted"), FailureKind.TLS),
    (ssl.SSLError(1, "broken"), FailureKind.TLS),
    (ssl.SSLEOFError(8, "cut"), FailureKind.EOF),
    # With a number and without: custom streams raise them bare.
    (ConnectionRefusedError(errno.ECONNREFUSED, "no"), FailureKind.REFUSED),
    (ConnectionRefusedError("no"), FailureKind.REFUSED),
    (ConnectionResetError(errno.ECONNRESET, "no"), FailureKind.RESET),
    (ConnectionResetError(), FailureKind.RESET),
    (ConnectionAbortedError(), FailureKind.RESET),
    (BrokenPipeError(), FailureKind.RESET),
    (OSError(errno.EHOSTUNREACH, "no"), FailureKind.UNREACHABLE),
    (OSError(errno.ENETUNREACH, "no"), FailureKind.UNREACHABLE),
    (OSError(errno.EHOSTDOWN, "no"), FailureKind.UNREACHABLE),
    (OSError(errno.ENETDOWN, "no"), FailureKind.UNREACHABLE),
    (OSError(errno.EMFILE, "no"), FailureKind.OTHER),
    (OSError("no"), FailureKind.OTHER),
    (ValueError("no"), FailureKind.OTHER),
    ("no", FailureKind.OTHER),
    # Wrapped ones.
    (caused(Wrapped(), ConnectionResetError()), FailureKind.RESET),
    (caused(Wrapped(), ssl.SSLCertVerificationError(1, "no")), FailureKind.TLS),
    (Wrapped(), FailureKind.OTHER),
    (Wrapped("closed"), FailureKind.OTHER),
    (caused(OSError("all attempts failed"), ConnectionRefusedError()), FailureKind.REFUSED),
    (
        caused(OSError("all attempts failed"), ExceptionGroup("", [OSError("no"), OSError(errno.ENETUNREACH, "no")])),
        FailureKind.UNREACHABLE,
    ),
    (caused(OSError("all attempts failed"), ExceptionGroup("", [OSError("no")])), FailureKind.OTHER),
]


every_case = pytest.mark.parametrize(("error", "kind"), CASES, ids=repr)


@every_case
def test_the_kind_of_a_failure(error: BaseException | FailureKind | str, kind: FailureKind) -> None:
    assert reported(error).kind is kind


@every_case
@pytest.mark.parametrize("way", ["as causes", "among arguments"])
def test_the_kind_does_not_depend_on_the_depth(
    error: BaseException | FailureKind | str, kind: FailureKind, way: str
) -> None:
    if isinstance(error, BaseException):
        wrapped = caused(Wrapped(), caused(OSError("no"), error))
        if way == "among arguments":
            wrapped = Wrapped("the library's words", Wrapped(error))
        assert reported(wrapped).kind is kind


def test_what_a_driver_says_itself_counts() -> None:
    assert reported(ConnectionRefusedError(), kind=FailureKind.PROXY).kind is FailureKind.PROXY
    assert reported("no", kind=FailureKind.TLS).kind is FailureKind.TLS
    assert reported(ConnectionRefusedError(), sent=True).outcome is Outcome.PERHAPS_STARTED
    assert reported(TimeoutError(), sent=False).outcome is Outcome.NOT_SENT


@pytest.mark.parametrize(
    ("error", "is_unsent"),
    [
        (ConnectionRefusedError(), True),
        (OSError(errno.ECONNREFUSED, "no"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), True),
        (ssl.SSLCertVerificationError(1, "not trusted"), True),
        (TunnelFailed("no", status=407), True),
        (TunnelFailed("no", status=502), True),
        (failed(FailureKind.GUARD), True),
        (failed(FailureKind.TIMEOUT, Outcome.PERHAPS_STARTED), False),
        (ExceptionGroup("", [ConnectionRefusedError(), ConnectionRefusedError()]), True),
        (ExceptionGroup("", [ConnectionRefusedError(), TimeoutError()]), False),
        (ExceptionGroup("", [ConnectionRefusedError(), ValueError()]), False),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
        (OSError(errno.ENETUNREACH, "no"), False),
        (ssl.SSLError(1, "broken"), False),
        (ssl.SSLEOFError(8, "cut"), False),
        (ValueError("no"), False),
        (FailureKind.REFUSED, False),  # said without a proof
        ("refused", False),
    ],
    ids=repr,
)
def test_what_can_only_come_before_a_request_leaves_says_that_it_did_not(
    error: BaseException | FailureKind | str, is_unsent: bool
) -> None:
    outcome = Outcome.NOT_SENT if is_unsent else Outcome.PERHAPS_STARTED
    assert reported(error).outcome is outcome
    if isinstance(error, BaseException):
        assert reported(caused(Wrapped(), error)).outcome is outcome
        assert reported(Wrapped(error)).outcome is outcome


def test_an_exception_that_was_being_handled_is_not_what_broke_the_exchange() -> None:
    broke = Wrapped()
    broke.__context__ = ConnectionRefusedError()
    error = reported(broke)
    assert error.kind is FailureKind.OTHER
    assert error.outcome is Outcome.PERHAPS_STARTED


@pytest.mark.parametrize(("depth", "kind"), [(16, FailureKind.REFUSED), (17, FailureKind.OTHER)])
def test_how_deep_a_cause_is_found(depth: int, kind: FailureKind) -> None:
    error: BaseException = ConnectionRefusedError()
    for _ in range(depth):
        error = caused(Wrapped(), error)
    assert reported(error).kind is kind


def test_causes_may_go_in_a_circle() -> None:
    one, other = Wrapped("one"), Wrapped("other")
    one.__cause__, other.__cause__ = other, one
    error = reported(one)
    assert error.kind is FailureKind.OTHER
    assert error.outcome is Outcome.PERHAPS_STARTED


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (502, FailureKind.UNREACHABLE),
        (503, FailureKind.UNREACHABLE),
        (504, FailureKind.UNREACHABLE),
        (407, FailureKind.PROXY),
        (403, FailureKind.PROXY),
        (None, FailureKind.PROXY),
    ],
)
def test_a_proxy_says_whose_fault_it_is(status: int | None, kind: FailureKind) -> None:
    assert reported(TunnelFailed("no", status=status)).kind is kind
