"""The exceptions that mean "the exchange failed", and how: one table for all transports. Every other exception flies."""

from __future__ import annotations

import errno
import socket
import ssl

from vastroute import FailureKind, WireError


FAILURES = (OSError, WireError)
"""What ends an exchange over any kind of socket; `ssl.SSLError`, time-outs and look-ups are among the OSErrors."""

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


def kind_of(error: BaseException) -> FailureKind:
    """How the exchange failed, from the exception that ended it."""
    if isinstance(error, WireError):
        return error.kind
    if isinstance(error, TimeoutError):
        return FailureKind.TIMEOUT
    if isinstance(error, socket.gaierror):
        return FailureKind.NAME
    if isinstance(error, ssl.SSLEOFError):
        return FailureKind.EOF
    if isinstance(error, ssl.SSLError):
        return FailureKind.TLS
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    # Libraries wrap the real reason, or several of them when every address of a host refused.
    causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__,)
    for cause in causes:
        if cause is not None:
            return kind_of(cause)
    return FailureKind.OTHER
