"""The trio transport: `Client` drives the core's machines over trio streams, many at once in one process.

A call's work ends with the call: nothing runs in the background. Cancel it as anything in trio; the connection that it
used is closed by force and nothing is left behind.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, Unpack, final

import trio

from vastroute import (
    ConnectTunnel,
    FailureKind,
    Http1Connection,
    Machine,
    Origin,
    Pool,
    PublicKey,
    Receive,
    RouteResult,
    Send,
    Ticket,
    Use,
    Wait,
    WaitUntil,
)

from .failures import FAILURES, kind_of
from .settings import ClientOptions, RouteOptions, Settings, Watch
from .tls import engine_context

T = TypeVar("T")
Connect = Callable[[Origin], Awaitable[trio.abc.Stream]]
"""Opens a stream to an origin, TLS included if its scheme is https."""

_BROKEN = (*FAILURES, trio.BrokenResourceError, trio.ClosedResourceError)
_MOST = 65536


@final
class Link:
    """One connection: a stream, and the HTTP/1.1 on it."""

    __slots__ = ("http", "stream", "used")

    def __init__(self, stream: trio.abc.Stream, http: Http1Connection) -> None:
        self.stream = stream
        self.http = http
        self.used = False


@final
class Client:
    """Calls to Vast.ai's serverless engine. Use it as ``async with Client() as client``; one serves many calls.

    Beside the options of `vastroute_io.settings.ClientOptions` it takes `connect`, which opens a stream in place of
    ours (or is one ready stream, which serves until it ends), and `ssl_context`, which replaces the context for the
    engine: the system's roots, strict.
    """

    def __init__(
        self,
        *,
        connect: Connect | trio.abc.Stream | None = None,
        ssl_context: ssl.SSLContext | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._settings = Settings(**options)
        self._connect = self._open_stream if connect is None else _connector(connect)
        self._ssl_context = ssl_context
        self._pool: Pool[Origin, Link] = Pool(self._settings.pool)
        self._waiting: dict[Ticket[Origin, Link], trio.Event] = {}
        self._key_lock = trio.Lock()

    @property
    def pool(self) -> Pool[Origin, Link]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._pool

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.settings.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        if self._settings.needs_public_key:
            await self.fetch_public_key()
        return await self.run(self._settings.route_call(endpoint, options, now=trio.current_time()))

    async def fetch_public_key(self) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it."""
        async with self._key_lock:
            if self._settings.public_key is None:
                call = self._settings.public_key_call(now=trio.current_time())
                self._settings.public_key = await self.run(call)
            return self._settings.public_key

    async def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        drive = _Drive(self, machine)
        try:
            while await drive.step():
                pass
        finally:
            await drive.end()
        return machine.result()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        await _close(self._pool.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _link(self, send: Send) -> Link:
        """A connection for one exchange: a kept one, or a new one, perhaps after waiting for a place."""
        origin = send.request.origin
        decision = self._pool.acquire(origin, now=trio.current_time(), fresh=send.fresh)
        if type(decision) is Wait:
            decision = await self._wait(decision.ticket)
        if type(decision) is Use:
            return decision.connection
        try:
            stream = await self._connect(origin)
        except BaseException:
            self._wake(self._pool.failed(origin))
            raise
        link = Link(stream, Http1Connection(self._settings.limits))
        self._pool.opened(origin, link)
        return link

    async def _wait(self, ticket: Ticket[Origin, Link]) -> Any:
        event = self._waiting[ticket] = trio.Event()
        try:
            await event.wait()
            return self._pool.take(ticket)
        finally:
            del self._waiting[ticket]
            self._wake(self._pool.give_up(ticket, now=trio.current_time()))

    def _wake(self, ticket: Ticket[Origin, Link] | None) -> None:
        if ticket is not None:
            self._waiting[ticket].set()

    async def _release(self, link: Link) -> None:
        """The exchange is over, well or badly: the connection goes back, or is closed by force."""
        now = trio.current_time()
        link.used = True
        self._wake(self._pool.release(link, now=now, reusable=link.http.reusable))
        if closing := self._pool.to_close(now=now):
            await _close(closing)

    async def _open_stream(self, origin: Origin) -> trio.abc.Stream:
        proxy = self._settings.proxy_for(origin)
        through = origin if proxy is None else proxy.origin
        stream: trio.abc.Stream = await trio.open_tcp_stream(through.host, through.port)
        try:
            if proxy is not None:
                tunnel = ConnectTunnel(origin, authorization=proxy.authorization, limits=self._settings.limits)
                await stream.send_all(tunnel.send())
                while not tunnel.receive(bytes(await stream.receive_some(_MOST))):
                    pass
            if origin.scheme == "https":
                if self._ssl_context is None:
                    self._ssl_context = engine_context()
                stream = trio.SSLStream(stream, self._ssl_context, server_hostname=origin.host, https_compatible=True)
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


@final
class _Drive(Generic[T]):
    """One machine on its way: the connection that it has in use, and what its observer has been told."""

    __slots__ = ("_client", "_link", "_machine", "_watch")

    def __init__(self, client: Client, machine: Machine[T]) -> None:
        self._client = client
        self._machine = machine
        self._link: Link | None = None
        self._watch = Watch.of(client._settings, machine)

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._machine.next_action(now=trio.current_time())
        if self._watch is not None:
            self._watch.tell()
        if type(action) is WaitUntil:
            await trio.sleep_until(action.at)
        elif type(action) is Send or type(action) is Receive:
            await self._exchange(action)
        else:
            return False
        return True

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""
        if not self._machine.over:
            self._machine.cancelled(now=trio.current_time())
        if self._watch is not None:
            self._watch.tell()
        await self._put_back()

    async def _exchange(self, action: Send | Receive) -> None:
        """One request and its answer, or more of an answer; whatever comes of it is reported to the machine."""
        machine, link = self._machine, self._link
        failure: BaseException | FailureKind | None = FailureKind.TIMEOUT
        with trio.CancelScope(deadline=action.connect_by if type(action) is Send else action.deadline) as scope:
            try:
                if type(action) is Send:
                    link = self._link = await self._client._link(action)
                    await link.stream.send_all(link.http.send(action.request, limit_body=False))
                    scope.deadline = action.deadline
                assert link is not None
                while self._more(link, await link.stream.receive_some(_MOST)):
                    following = machine.next_action(now=trio.current_time())
                    if type(following) is not Receive:
                        break
                    scope.deadline = following.deadline
                failure = None
            except _BROKEN as error:
                failure = error
        now = trio.current_time()
        if failure is not None:
            reused = link is not None and link.used
            machine.failed(failure, kind=kind_of(failure), sent=link is not None, reused=reused, now=now)
        if type(machine.next_action(now=now)) is not Receive:
            await self._put_back()

    def _more(self, link: Link, data: bytes | bytearray) -> bool:
        return self._machine.feed(link.http.receive(bytes(data)), now=trio.current_time(), reused=link.used)

    async def _put_back(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await self._client._release(link)


def _connector(connect: Connect | trio.abc.Stream) -> Connect:
    """`connect` itself, or one that gives the ready stream once."""
    if not isinstance(connect, trio.abc.Stream):
        return connect
    streams = [connect]

    async def give(_origin: Origin) -> trio.abc.Stream:
        if not streams:
            raise ConnectionRefusedError("the one stream that was given has ended")
        return streams.pop()

    return give


async def _close(links: Iterable[Link]) -> None:
    # Closing by force waits for nothing, and one that is cancelled half-way would leave the rest open.
    with trio.CancelScope(shield=True):
        for link in links:
            await trio.aclose_forcefully(link.stream)
