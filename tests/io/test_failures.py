"""What an exception says about an exchange: one table for every transport."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
import trio

from vastroute import Advice, ConnectionFailed, FailureKind, Outcome, Phase, TunnelFailed
from vastroute_io.failures import FAILURES, kind_of


def failed(kind: FailureKind | None) -> ConnectionFailed:
    return ConnectionFailed(
        "no", phase=Phase.WORKER, outcome=Outcome.NOT_SENT, advice=Advice.ALLOW, kind=kind, limit="allow_any_port"
    )


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


CASES: list[tuple[BaseException | FailureKind, FailureKind]] = [
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
    # Wrapped ones.
    (caused(trio.BrokenResourceError(), ConnectionResetError()), FailureKind.RESET),
    (caused(trio.BrokenResourceError(), ssl.SSLCertVerificationError(1, "no")), FailureKind.TLS),
    (trio.BrokenResourceError(), FailureKind.OTHER),
    (trio.ClosedResourceError(), FailureKind.OTHER),
    (caused(OSError("all attempts failed"), ConnectionRefusedError()), FailureKind.REFUSED),
    (
        caused(OSError("all attempts failed"), ExceptionGroup("", [OSError("no"), OSError(errno.ENETUNREACH, "no")])),
        FailureKind.UNREACHABLE,
    ),
    (caused(OSError("all attempts failed"), ExceptionGroup("", [OSError("no")])), FailureKind.OTHER),
]


@pytest.mark.parametrize(("error", "kind"), CASES, ids=repr)
def test_the_kind_of_a_failure(error: BaseException | FailureKind, kind: FailureKind) -> None:
    assert kind_of(error) is kind


@pytest.mark.parametrize(("error", "kind"), CASES, ids=repr)
def test_the_kind_does_not_depend_on_the_depth(error: BaseException | FailureKind, kind: FailureKind) -> None:
    if isinstance(error, BaseException):
        assert kind_of(caused(trio.BrokenResourceError(), caused(OSError("no"), error))) is kind


def test_what_ends_an_exchange() -> None:
    for error, _ in CASES:
        if isinstance(error, OSError | TunnelFailed | ConnectionFailed):
            assert isinstance(error, FAILURES)
    assert not issubclass(KeyboardInterrupt, FAILURES)
    assert not issubclass(ValueError, FAILURES)


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
    assert kind_of(TunnelFailed("no", status=status)) is kind
