"""The exceptions that mean "the exchange failed", and how: one table for all transports. Every other one flies."""

from __future__ import annotations

import errno
import socket
import ssl

from vastroute import ConnectionFailed, FailureKind, TunnelFailed

FAILURES = (OSError, TunnelFailed, ConnectionFailed)
"""What ends an exchange over any kind of socket; `ssl.SSLError`, time-outs and look-ups are among the OSErrors, and a
guard's refusal is a `vastroute.ConnectionFailed`."""

_BY_CLASS: tuple[tuple[type[BaseException], FailureKind], ...] = (
    (TunnelFailed, FailureKind.PROXY),
    (TimeoutError, FailureKind.TIMEOUT),
    (socket.gaierror, FailureKind.NAME),
    (ssl.SSLEOFError, FailureKind.EOF),
    (ssl.SSLError, FailureKind.TLS),
    (ConnectionRefusedError, FailureKind.REFUSED),
    (ConnectionError, FailureKind.RESET),
)
"""The first row that fits decides."""

_BEYOND_THE_PROXY = frozenset({502, 503, 504})
"""What a proxy answers where it is the host behind it that cannot be reached."""

_BY_ERRNO = {
    errno.ECONNREFUSED: FailureKind.REFUSED,
    errno.EHOSTUNREACH: FailureKind.UNREACHABLE,
    errno.ENETUNREACH: FailureKind.UNREACHABLE,
    errno.EHOSTDOWN: FailureKind.UNREACHABLE,
    errno.ENETDOWN: FailureKind.UNREACHABLE,
    errno.ECONNRESET: FailureKind.RESET,
    errno.EPIPE: FailureKind.RESET,
    errno.ECONNABORTED: FailureKind.RESET,
    errno.ETIMEDOUT: FailureKind.TIMEOUT,
}


def kind_of(error: BaseException | FailureKind) -> FailureKind:
    """How the exchange failed, from the exception that ended it; a kind is itself."""
    if isinstance(error, FailureKind):
        return error
    if isinstance(error, ConnectionFailed):
        return error.kind or FailureKind.OTHER
    if isinstance(error, TunnelFailed) and error.status in _BEYOND_THE_PROXY:
        return FailureKind.UNREACHABLE
    for cls, kind in _BY_CLASS:
        if isinstance(error, cls):
            return kind
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    # Libraries wrap the real reason, or several of them when every address of a host refused.
    causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__,)
    kinds = [kind_of(cause) for cause in causes if cause is not None]
    return next((kind for kind in kinds if kind is not FailureKind.OTHER), FailureKind.OTHER)
