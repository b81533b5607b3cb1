"""The blocking transport: `Client` drives the core's machines over plain sockets, from any number of threads.

A call occupies its thread until it ends. To end one from outside, use a ``timeout``.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar, Unpack, final

from vastroute import (
    ConnectTunnel,
    FailureKind,
    Http1Connection,
    Machine,
    Open,
    Origin,
    Pool,
    PublicKey,
    Receive,
    RouteResult,
    Send,
    Use,
    Wait,
    WaitUntil,
)

from .failures import FAILURES, kind_of
from .settings import ClientOptions, RouteOptions, Settings, Watch
from .tls import engine_context

T = TypeVar("T")
_MOST = 65536


class Clock(Protocol):
    """Where a client's time comes from; `vastroute_testing.ManualClock` is one for tests."""

    def __call__(self) -> float:
        """Monotonic seconds."""

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""


class Stream(Protocol):
    """A connected byte stream. What it raises for a broken connection is an OSError, at a deadline a TimeoutError."""

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """Send all of `data` by `deadline` (the client clock's seconds)."""

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """At least one and at most `most` bytes by `deadline`; ``b""`` once the peer has closed."""

    def close(self) -> None:
        """Close it by force. May be called twice."""


Connect = Callable[[Origin, float], Stream]
"""Opens a stream to an origin by a deadline, TLS included if its scheme is https."""


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
    """A `Stream` over a connected socket, with or without TLS."""

    __slots__ = ("_clock", "_socket")

    def __init__(self, connected: socket.socket, clock: Clock) -> None:
        self._socket = connected
        self._clock = clock

    def send_all(self, data: bytes, *, deadline: float) -> None:
        """See `Stream`."""
        self._socket.settimeout(_left(deadline, self._clock))
        self._socket.sendall(data)

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        """See `Stream`."""
        self._socket.settimeout(_left(deadline, self._clock))
        return self._socket.recv(most)

    def close(self) -> None:
        """See `Stream`."""
        self._socket.close()


@final
class Link:
    """One connection: a stream, and the HTTP/1.1 on it."""

    __slots__ = ("http", "stream", "used")

    def __init__(self, stream: Stream, http: Http1Connection) -> None:
        self.stream = stream
        self.http = http
        self.used = False


@final
class Client:
    """Calls to Vast.ai's serverless engine. Use it as ``with Client() as client``; any number of threads may share it.

    Beside the options of `vastroute_io.settings.ClientOptions` it takes `connect`, which opens a stream in place of
    ours (or is one ready stream, which serves until it ends), `ssl_context`, which replaces the context for the
    engine: the system's roots, strict; and `clock`, which replaces the system's.
    """

    def __init__(
        self,
        *,
        connect: Connect | Stream | None = None,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._settings = Settings(**options)
        self._connect = self._open_stream if connect is None else _connector(connect)
        self._ssl_context = ssl_context
        self._clock = RealClock() if clock is None else clock
        self._pool: Pool[Origin, Link] = Pool(self._settings.pool)
        self._changed = threading.Condition()
        """Guards the pool; told whenever a ticket of the pool's was served."""
        self._key_lock = threading.Lock()

    @property
    def pool(self) -> Pool[Origin, Link]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._pool

    def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.settings.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        if self._settings.needs_public_key:
            self.fetch_public_key()
        return self.run(self._settings.route_call(endpoint, options, now=self._clock()))

    def fetch_public_key(self) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it."""
        with self._key_lock:
            if self._settings.public_key is None:
                self._settings.public_key = self.run(self._settings.public_key_call(now=self._clock()))
            return self._settings.public_key

    def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        drive = _Drive(self, machine)
        try:
            while drive.step():
                pass
        finally:
            drive.end()
        return machine.result()

    def close(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        with self._changed:
            idle = self._pool.close()
        _close(idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _link(self, send: Send) -> Link:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        origin = send.request.origin
        with self._changed:
            decision = self._pool.acquire(origin, now=self._clock(), fresh=send.fresh)
            if isinstance(decision, Wait):
                decision = self._wait(decision, send.connect_by)
        if isinstance(decision, Use):
            return decision.connection
        try:
            stream = self._connect(origin, send.connect_by)
        except BaseException:
            with self._changed:
                self._wake(self._pool.failed(origin))
            raise
        link = Link(stream, Http1Connection(self._settings.limits))
        with self._changed:
            self._pool.opened(origin, link)
        return link

    def _wait(self, wait: Wait[Origin, Link], deadline: float) -> Use[Link] | Open:
        ticket = wait.ticket
        try:
            if not self._changed.wait_for(lambda: ticket.served, deadline - self._clock()):
                raise TimeoutError("no connection came free: max_connections are in use")
            return self._pool.take(ticket)
        finally:
            self._wake(self._pool.give_up(ticket, now=self._clock()))

    def _wake(self, ticket: object) -> None:
        if ticket is not None:
            self._changed.notify_all()

    def _release(self, link: Link) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        link.used = True
        with self._changed:
            now = self._clock()
            self._wake(self._pool.release(link, now=now, reusable=link.http.reusable))
            closing = self._pool.to_close(now=now)
        _close(closing)

    def _open_stream(self, origin: Origin, deadline: float) -> Stream:
        proxy = self._settings.proxy_for(origin)
        through = origin if proxy is None else proxy.origin
        opened = socket.create_connection((through.host, through.port), timeout=_left(deadline, self._clock))
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = SocketStream(opened, self._clock)
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                stream.send_all(tunnel.send(), deadline=deadline)
                while not tunnel.receive(stream.receive_some(_MOST, deadline=deadline)):
                    pass
            if origin.scheme == "https":
                if self._ssl_context is None:
                    self._ssl_context = engine_context()
                opened.settimeout(_left(deadline, self._clock))
                opened = self._ssl_context.wrap_socket(opened, server_hostname=origin.host)
                stream = SocketStream(opened, self._clock)
        except BaseException:
            opened.close()
            raise
        return stream


@final
class _Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_client", "_clock", "_link", "_machine", "_watch")

    def __init__(self, client: Client, machine: Machine[T]) -> None:
        self._client = client
        self._clock = client._clock
        self._machine = machine
        self._link: Link | None = None
        self._watch = Watch.of(client._settings, machine)

    def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._machine.next_action(now=self._clock())
        if self._watch is not None:
            self._watch.tell()
        if type(action) is WaitUntil:
            self._clock.sleep_until(action.at)
        elif type(action) is Send or type(action) is Receive:
            self._exchange(action)
        else:
            return False
        return True

    def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=self._clock())
        if self._watch is not None:
            self._watch.tell()
        self._put_back()

    def _exchange(self, action: Send | Receive) -> None:
        """One request and its answer, or more of an answer; whatever comes of it is reported to the machine."""
        machine, link = self._machine, self._link
        failure: BaseException | FailureKind | None = None
        try:
            if type(action) is Send:
                link = self._link = self._client._link(action)
                data = link.http.send(action.request, limit_body=False)
                link.stream.send_all(data, deadline=action.connect_by)
            assert link is not None
            deadline = action.deadline
            while self._more(link, link.stream.receive_some(_MOST, deadline=deadline)):
                following = machine.next_action(now=self._clock())
                if type(following) is not Receive:
                    break
                deadline = following.deadline
        except FAILURES as error:
            failure = error
        now = self._clock()
        if failure is not None:
            reused = link is not None and link.used
            machine.failed(failure, kind=kind_of(failure), sent=link is not None, reused=reused, now=now)
        if type(machine.next_action(now=now)) is not Receive:
            self._put_back()

    def _more(self, link: Link, data: bytes) -> bool:
        return self._machine.feed(link.http.receive(data), now=self._clock(), reused=link.used)

    def _put_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            self._client._release(link)


def _left(deadline: float, clock: Clock) -> float:
    """Seconds until `deadline`. Raises TimeoutError when there are none."""
    left = deadline - clock()
    if left <= 0:
        raise TimeoutError("the deadline has come")
    return left


def _connector(connect: Connect | Stream) -> Connect:
    """`connect` itself, or one that gives the ready stream once."""
    if callable(connect):
        return connect
    streams = [connect]

    def give(_origin: Origin, _deadline: float) -> Stream:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give


def _close(links: Iterable[Link]) -> None:
    for link in links:
        link.stream.close()
