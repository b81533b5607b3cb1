"""The connections of one client: kept, opened, waited for and closed, as the core's pool says; and what they are."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeAlias, final

from vastroute import ConnectTunnel, Guard, Holding, Open, Origin, Pool, Send, Ticket, Use, Wait

from ..addresses import ADDRESS_SECONDS, allowed, check_proxied, written
from ..links import MOST, Link, Place, place_of
from ..settings import Settings
from ..tls import engine_context
from .clocks import Clock
from .streams import ByteStream, SocketStream

Connect = Callable[[Origin, float], ByteStream]
"""Opens a stream to an origin by a deadline, TLS included if its scheme is https."""
BlockingLink: TypeAlias = Link[ByteStream]


@final
class PoolView:
    """The connections that a client holds, for any thread to look at."""

    __slots__ = ("_lock", "_pool")

    def __init__(self, pool: Pool[Place, BlockingLink], lock: threading.Lock) -> None:
        self._pool = pool
        self._lock = lock

    def inspect(self) -> dict[Place, Holding[BlockingLink]]:
        """All that is held, by where it leads: see `vastroute.Pool.inspect`."""
        with self._lock:
            return self._pool.inspect()


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
        self._pool: Pool[Place, BlockingLink] = Pool(settings.pool)
        self._lock = threading.Lock()
        """Guards the pool."""
        self._served = threading.Condition(self._lock)
        """Told whenever a ticket of the pool's was served."""
        self.view: PoolView = PoolView(self._pool, self._lock)
        self.clock = clock
        self._settings = settings
        self._connect = None if connect is None else _connector(connect)
        self._engine_tls = engine_tls
        self._worker_tls = worker_tls
        self.judging: threading.Lock = threading.Lock()
        """Held while bytes are written or read and an answer is judged: calls share what is known of heads, addresses,
        signatures and reqnums, which is for one thread at a time."""

    def acquire(self, send: Send) -> BlockingLink:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        place = place_of(send)
        given: Use[BlockingLink] | Open | Wait[Place, BlockingLink] | BlockingLink | None = None
        stream: ByteStream | None = None
        try:  # around all of it, since an interrupt may come between any two steps
            with self._lock:
                given = self._pool.acquire(place, now=self.clock(), fresh=send.fresh)
                if type(given) is Wait:
                    given = self._wait(given.ticket, send.connect_by)
            while type(given) is Use:
                if given.connection.is_quiet():
                    return given.connection
                with self._lock:
                    given = self._pool.replace(given.connection, now=self.clock())
            stream = self._open(place, send.guard, send.connect_by)
            link = Link(stream, self._settings.http())
            with self._lock:
                self._pool.opened(place, link)
                given = link
            return link
        except BaseException:
            if type(given) is Use:
                self.release(given.connection)
            elif isinstance(given, Link):
                self.release(given)
            elif type(given) is Open:
                if stream is not None:
                    stream.close()
                with self._lock:
                    self._wake(self._pool.failed(place))
            raise

    def release(self, link: BlockingLink) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        link.used = True
        with self._lock:
            now = self.clock()
            self._wake(self._pool.release(link, now=now, reusable=link.http.reusable))
            closing = self._pool.to_close(now=now)
        _close(closing)

    def close(self) -> None:
        """Close every idle connection; those in use follow as they are released."""
        with self._lock:
            idle = self._pool.close()
        _close(idle)

    def _wait(self, ticket: Ticket[Place, BlockingLink], deadline: float) -> Use[BlockingLink] | Open:
        try:
            if not self._served.wait_for(lambda: ticket.served, deadline - self.clock()):
                raise TimeoutError("no connection came free: max_connections are in use")
            return self._pool.take(ticket)
        except BaseException:
            self._wake(self._pool.give_up(ticket, now=self.clock()))
            raise

    def _wake(self, ticket: Ticket[Place, BlockingLink] | None) -> None:
        if ticket is not None:
            self._served.notify_all()

    def _open(self, place: Place, guard: Guard | None, deadline: float) -> ByteStream:
        origin, is_worker = place
        if self._connect is not None:
            return self._connect(origin, deadline)
        proxy = self._settings.proxy_for(origin)
        check_proxied(origin, guard, proxy)
        context = self._tls(deadline, is_worker=is_worker) if origin.scheme == "https" else None
        stream = self._dial(origin if proxy is None else proxy.origin, None if proxy is not None else guard, deadline)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                stream.send_all(tunnel.send(), deadline=deadline)
                while not tunnel.receive(stream.receive_some(MOST, deadline=deadline)):
                    pass
            if context is not None:
                stream.start_tls(context, origin.host, deadline=deadline)
        except BaseException:
            stream.close()
            raise
        return stream

    def _dial(self, origin: Origin, guard: Guard | None, deadline: float) -> SocketStream:
        """Connect to the first address of `origin` that is allowed and answers."""
        resolved = written(origin) or socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        *others, last = allowed(resolved, origin, guard)
        for address in others:
            by = min(deadline, self.clock() + ADDRESS_SECONDS)
            with suppress(OSError):
                return SocketStream.connect(address, origin.port, self.clock, deadline=by)
        return SocketStream.connect(last, origin.port, self.clock, deadline=deadline)

    def _tls(self, deadline: float, *, is_worker: bool) -> ssl.SSLContext:
        if is_worker:
            return self._worker_tls(deadline)
        if self._engine_tls is None:
            self._engine_tls = engine_context()
        return self._engine_tls


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
