"""The connections of one client: kept, opened, waited for and closed, as the core's pool says; and what they are."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol, TypeAlias, final

from vastroute import ConnectTunnel, Guard, Http1Connection, Open, Origin, Pool, Send, Ticket, Use, Wait

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied
from ..links import MOST, Link, Place, place_of
from ..settings import Settings
from ..tls import engine_context


class Clock(Protocol):
    """Where a client's time comes from; `vastroute_testing.ManualClock` is one for tests."""

    def __call__(self) -> float:
        """Monotonic seconds."""

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""


class ByteStream(Protocol):
    """A connected byte stream. What it raises for a broken connection is an OSError, at a deadline a TimeoutError."""

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """Send all of `data` by `deadline` (the client clock's seconds)."""

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """At least one and at most `most` bytes by `deadline`; ``b""`` once the peer has closed."""

    def close(self) -> None:
        """Close it by force. May be called twice."""


Connect = Callable[[Origin, float], ByteStream]
"""Opens a stream to an origin by a deadline, TLS included if its scheme is https."""
BlockingLink: TypeAlias = Link[ByteStream]


@final
class RealClock:
    """The system's monotonic clock."""

    __slots__ = ()

    def __call__(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""
        time.sleep(max(0.0, at - time.monotonic()))


@final
class SocketStream:
    """A `ByteStream` over a connected socket, with or without TLS."""

    __slots__ = ("_clock", "_socket")

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        self._socket = connected
        self._clock = clock

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """See `ByteStream`."""
        self._socket.settimeout(left(deadline, self._clock))
        self._socket.sendall(data)

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """See `ByteStream`."""
        self._socket.settimeout(left(deadline, self._clock))
        return self._socket.recv(most)

    def close(self) -> None:
        """See `ByteStream`."""
        self._socket.close()


@final
class Links:
    """All connections of one client, for any number of threads."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        connect: Connect | ByteStream | None,
        engine_tls: ssl.SSLContext | None,
        worker_tls: Callable[[float], ssl.SSLContext],
    ) -> None:
        self.pool: Pool[Place, BlockingLink] = Pool(settings.pool)
        self.clock = clock
        self._settings = settings
        self._connect = None if connect is None else _connector(connect)
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self.judging: threading.Lock = threading.Lock()
        """Held while an answer is judged: calls share a verifier and a tracker, which are for one thread at a time."""
        self._changed = threading.Condition()
        """Guards the pool; told whenever a ticket of the pool's was served."""

    def acquire(self, send: Send) -> BlockingLink:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        place = place_of(send)
        with self._changed:
            decision = self.pool.acquire(place, now=self.clock(), fresh=send.fresh)
            if isinstance(decision, Wait):
                decision = self._wait(decision.ticket, send.connect_by)
        if isinstance(decision, Use):
            return decision.connection
        try:
            stream = self._open(place, send.guard, send.connect_by)
        except BaseException:
            with self._changed:
                self._wake(self.pool.failed(place))
            raise
        link = Link(stream, Http1Connection(self._settings.limits))
        with self._changed:
            self.pool.opened(place, link)
        return link

    def release(self, link: BlockingLink) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        link.used = True
        with self._changed:
            now = self.clock()
            self._wake(self.pool.release(link, now=now, reusable=link.http.reusable))
            closing = self.pool.to_close(now=now)
        _close(closing)

    def close(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        with self._changed:
            idle = self.pool.close()
        _close(idle)

    def _wait(self, ticket: Ticket[Place, BlockingLink], deadline: float) -> Use[BlockingLink] | Open:
        try:
            if not self._changed.wait_for(lambda: ticket.served, deadline - self.clock()):
                raise TimeoutError("no connection came free: max_connections are in use")
            return self.pool.take(ticket)
        finally:
            self._wake(self.pool.give_up(ticket, now=self.clock()))

    def _wake(self, ticket: Ticket[Place, BlockingLink] | None) -> None:
        if ticket is not None:
            self._changed.notify_all()

    def _open(self, place: Place, guard: Guard | None, deadline: float) -> ByteStream:
        origin, is_worker = place
        if self._connect is not None:
            return self._connect(origin, deadline)
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = self._tls(deadline, is_worker=is_worker) if origin.scheme == "https" else None
        opened = self._dial(origin if proxy is None else proxy.origin, None if proxy is not None else guard, deadline)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = SocketStream(opened, self.clock)
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                stream.send_all(tunnel.send(), deadline=deadline)
                while not tunnel.receive(stream.receive_some(MOST, deadline=deadline)):
                    pass
            if context is not None:
                # The handshake apart, so that the socket is closed whatever interrupts it.
                secured = context.wrap_socket(opened, server_hostname=origin.host, do_handshake_on_connect=False)
                opened = secured
                opened.settimeout(left(deadline, self.clock))
                secured.do_handshake()
                stream = SocketStream(opened, self.clock)
        except BaseException:
            opened.close()
            raise
        return stream

    def _dial(self, origin: Origin, guard: Guard | None, deadline: float) -> socket.socket:
        """Connect to the first address of `origin` that is allowed and answers."""
        resolved = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        *others, last = allowed(resolved, origin, guard)
        for address in others:
            seconds = min(ADDRESS_SECONDS, left(deadline, self.clock))
            with suppress(OSError):
                return socket.create_connection((address, origin.port), timeout=seconds)
        return socket.create_connection((last, origin.port), timeout=left(deadline, self.clock))

    def _tls(self, deadline: float, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return self._worker_tls(deadline)
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


def left(deadline: float, clock: Clock) -> float:
    """Seconds until `deadline`. Raises TimeoutError when there are none."""
    seconds = deadline - clock()
    if seconds <= 0:
        raise TimeoutError("the deadline has come")
    return seconds


def _connector(connect: Connect | ByteStream) -> Connect:
    """`connect` itself, or one that gives the ready stream once."""
    if callable(connect):
        return connect
    streams = [connect]

    def give(_origin: Origin, _deadline: float) -> ByteStream:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give


def _close(links: Iterable[BlockingLink]) -> None:
    for link in links:
        link.stream.close()
