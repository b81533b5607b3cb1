"""A socket as a blocking byte stream with deadlines, with or without TLS."""

from __future__ import annotations

import select
import socket
import ssl
from typing import Protocol, Self, final

from .clocks import Clock, left

_CAN_POLL = hasattr(select, "poll")


class ByteStream(Protocol):
    """A connected byte stream. What it raises for a broken connection is an OSError, at a deadline a TimeoutError."""

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """Send all of `data` by `deadline` (the client clock's seconds)."""

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """At least one and at most `most` bytes by `deadline`; ``b""`` once the peer has closed."""

    def close(self) -> None:
        """Close it by force. May be called twice."""


@final
class SocketStream:
    """A `ByteStream` over a connected socket, with or without TLS."""

    __slots__ = ("_clock", "_socket")

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        self._socket = connected
        self._clock = clock

    @classmethod
    def connect(cls, address: str, port: int, clock: Clock, *, deadline: float) -> Self:
        """A stream to an IP address by `deadline`."""
        connecting = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connecting.settimeout(left(deadline, clock))
            connecting.connect((address, port))
            return cls(connecting, clock)
        except BaseException:
            connecting.close()
            raise

    def start_tls(self, context: ssl.SSLContext, host: str, *, deadline: float) -> None:
        """Go on over TLS by `deadline`, with a peer that proves to be `host`."""
        # The handshake apart, so that the socket is closed whatever interrupts it.
        secured = context.wrap_socket(self._socket, server_hostname=host, do_handshake_on_connect=False)
        self._socket = secured
        secured.settimeout(left(deadline, self._clock))
        secured.do_handshake()

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """See `ByteStream`."""
        self._socket.settimeout(left(deadline, self._clock))
        self._socket.sendall(data)

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """See `ByteStream`."""
        self._socket.settimeout(left(deadline, self._clock))
        return self._socket.recv(most)

    def is_quiet(self) -> bool:
        """Whether the peer has neither spoken nor closed while nothing was asked of it: one system call if so.

        What TLS says on its own behalf, such as a ticket for its sessions, does not count. If the answer is no, the
        stream is of no more use.
        """
        try:
            if _CAN_POLL:
                looking = select.poll()
                looking.register(self._socket, select.POLLIN)
                if not looking.poll(0):
                    return True
            self._socket.settimeout(0)
            self._socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return True
        except (OSError, ValueError):  # a ValueError if it is closed
            pass
        return False

    def close(self) -> None:
        """See `ByteStream`."""
        self._socket.close()
