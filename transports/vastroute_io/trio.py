"""The trio transport: `Client` drives the core's machines over trio streams, many at once in one process.

A call's work ends with the call: nothing runs in the background. Cancel it as anything in trio; the connection that it
used is closed by force and nothing is left behind.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

import trio

from vastroute import (
    AskMachine,
    ConnectTunnel,
    FailureKind,
    Http1Connection,
    Open,
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
from .proxies import Proxy
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
    """Calls to Vast.ai's serverless engine. Use it as ``async with Client() as client``; one serves any number of calls.

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

    async def run(self, machine: AskMachine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        watch = None if self._settings.observer is None else Watch(machine, self._settings.observer)
        try:
            while True:
                action = machine.next_action(now=trio.current_time())
                if watch:
                    watch.tell()
                if type(action) is Send:
                    await self._exchange(machine, action)
                elif type(action) is WaitUntil:
                    await trio.sleep_until(action.at)
                else:
                    return machine.result()
        except BaseException:
            machine.abandoned(now=trio.current_time())
            raise
        finally:
            if watch:
                watch.tell()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        await _close(self._pool.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _exchange(self, machine: AskMachine[Any], send: Send) -> None:
        """One request and its answer over one connection; whatever comes of it is reported to the machine."""
        link: Link | None = None
        sent = reused = False
        failure: BaseException | FailureKind = FailureKind.TIMEOUT
        with trio.CancelScope(deadline=send.connect_by) as scope:
            try:
                link = await self._link(send)
                reused = link.used
                data = link.http.send(send.request, max_body=send.max_body)
                sent = True
                await link.stream.send_all(data)
                scope.deadline = send.deadline
                while machine.feed(
                    link.http.receive(await link.stream.receive_some(_MOST)), now=trio.current_time()
                ):
                    action = machine.next_action(now=trio.current_time())
                    if type(action) is not Receive:
                        break
                    scope.deadline = action.deadline
                return
            except _BROKEN as error:
                failure = error
            finally:
                if link is not None:
                    await self._release(link)
        machine.failed_by(failure, kind_of(failure), sent=sent, reused=reused, now=trio.current_time())
