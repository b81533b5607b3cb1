"""Simulated servers on real sockets, on this machine only, in real time: for real TLS, and for other languages.

Code that waits in virtual time must not meet these: a virtual clock beside a real socket fires its time-outs at once.
"""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from ipaddress import ip_address
from types import MappingProxyType, TracebackType
from typing import Self, TypeAlias, TypedDict, TypeVar, Unpack, final

import trio
from trio.testing import MockClock

from vastroute import HttpRequest, InvalidValue, LocalProtocolError, Origin

from .engine import SimulatedEngine
from .schedule import Schedule, shifted
from .server import Serve, Server, ServerConnection, serve_of
from .streams import CutSizes
from .trio_streams import MemoryStream

NamedServers: TypeAlias = Server | Serve | Mapping[str, Server | Serve]
"""One server, or several by names of your choice; each gets a socket of its own.

With a simulated engine as the one server its workers get sockets too, and their `url` is set to where they listen.
"""
T = TypeVar("T")
_BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError)
_GOODBYE = 1.0
"""Seconds that a proper close may take: over TLS it sends a last message."""


class LoopbackOptions(TypedDict, total=False):
    """The arguments of `open_loopback` and `LoopbackThread` beside the servers. All are optional and by name."""

    host: str
    """The IP address to listen at; 127.0.0.1 by default."""
    port: int
    """The port; 0, the default, takes a free one. Only for one server; an engine's workers take free ones."""
    ssl_context: ssl.SSLContext | None
    """Speaks TLS with it: see `vastroute_testing.TestAuthority`."""
    allow_any_host: bool
    """Listen at an address that others can reach. What is simulated checks nothing, so be sure that you want it."""
    cut: CutSizes
    """In pieces of how many bytes the servers write; what arrives together is not in our hands."""


@final
class Loopback:
    """Where the servers listen, and how many connections they have."""

    def __init__(self, origins: Mapping[str, Origin], scope: trio.CancelScope, *, main: str | None = None) -> None:
        self.origins: Mapping[str, Origin] = MappingProxyType(dict(origins))
        """Each server's origin, by its name. An engine's is "engine", its workers' are "worker 1" and so on."""
        self.opened: int = 0
        """How many connections were accepted so far."""
        self.open: int = 0
        """How many of them are open now."""
        self.failure: Exception | None = None
        """The first mistake of a server's, which ends it all."""
        self.quiet: threading.Event = threading.Event()
        """Set while no connection is open: for other threads."""
        self.quiet.set()
        self._main = main
        self._scope = scope
        self._idle = trio.Event()

    @property
    def origin(self) -> Origin:
        """The origin of the one server, or of the engine. Raises `LocalProtocolError` if there are several by names."""
        if self._main is None:
            raise LocalProtocolError("there are several servers: see origins")
        return self.origins[self._main]

    @property
    def url(self) -> str:
        """The same as text."""
        return str(self.origin)

    async def wait_idle(self) -> None:
        """Return when no connection is open: a client that is closed and leaks nothing makes this return."""
        while self.open:
            await self._idle.wait()

    async def serve(self, serve: Serve, scheme: str, cut: CutSizes, stream: trio.abc.Stream) -> None:
        """One accepted connection, to its end."""
        if not self.open:
            self._idle = trio.Event()
            self.quiet.clear()
        self.open += 1
        self.opened += 1
        memory = MemoryStream(ServerConnection(_in_monotonic_time(serve), scheme=scheme), cut=cut)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._take, stream, memory, nursery.cancel_scope)
                await _give(memory, stream)
                nursery.cancel_scope.cancel()
            # TLS ends properly only while nobody is receiving.
            with trio.move_on_after(_GOODBYE), suppress(*_BROKEN):
                await stream.aclose()
        finally:
            try:
                await trio.aclose_forcefully(stream)
            finally:
                self.open -= 1
                if not self.open:
                    self._idle.set()
                    self.quiet.set()

    async def _take(self, stream: trio.abc.Stream, memory: MemoryStream, scope: trio.CancelScope) -> None:
        """A socket is a memory stream with a wire before it: what comes in over the wire goes on to the server."""
        try:
            while data := await stream.receive_some():
                await memory.send_all(data)
        except _BROKEN:
            pass  # it broke, or TLS could not be agreed on
        except Exception as error:
            self.failure = self.failure or error
            self._scope.cancel()
        scope.cancel()


@asynccontextmanager
async def open_loopback(servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Loopback]:
    """Listen for as long as the block lasts: ``async with open_loopback(server) as loopback``. See `LoopbackOptions`.

    Servers are given ``time.monotonic()`` as ``now``, so that all of this process agree on the time. One that raises,
    or makes a schedule that cannot be sent, cancels the block, and what it raised comes out of it. Raises
    `InvalidValue` for an address that is not loopback, OSError for one that cannot be had, and `LocalProtocolError`
    under a virtual clock.
    """
    if isinstance(trio.lowlevel.current_clock(), MockClock):
        raise LocalProtocolError("sockets and virtual time do not mix: use vastroute_testing.connector instead")
    named, main = _named(servers)
    context, cut = options.get("ssl_context"), options.get("cut")
    scheme = "http" if context is None else "https"
    address, port = _address(options, single=main is not None)
    failure: Exception | None = None
    async with AsyncExitStack() as stack:
        listeners: dict[str, trio.SocketListener] = {}
        origins: dict[str, Origin] = {}
        for name in named:
            (opened,) = await trio.open_tcp_listeners(port if name == main else 0, host=address)
            listeners[name] = await stack.enter_async_context(opened)
            origins[name] = Origin(scheme=scheme, host=address, port=opened.socket.getsockname()[1])
        if isinstance(servers, SimulatedEngine):
            for worker, origin in zip(servers.workers, list(origins.values())[1:], strict=True):
                worker.url = str(origin)
        nursery = await stack.enter_async_context(trio.open_nursery())
        loopback = Loopback(origins, nursery.cancel_scope, main=main)
        for name, server in named.items():
            handler = partial(loopback.serve, serve_of(server), scheme, cut)
            listener: trio.abc.Listener[trio.abc.Stream] = listeners[name]
            if context is not None:
                listener = trio.SSLListener(listeners[name], context)
            nursery.start_soon(trio.serve_listeners, handler, [listener])
        try:
            yield loopback
        except Exception as error:
            failure = error  # raised outside the nursery, which would wrap it in a group
        finally:
            nursery.cancel_scope.cancel()
    if loopback.failure is not None:
        raise loopback.failure from failure
    if failure is not None:
        raise failure


@final
class LoopbackThread:
    """The same in a thread of its own, for code that is not trio's: ``with LoopbackThread(server) as loopback``.

    What a server raises ends it all: it is printed at once, since whoever waits for an answer may wait for long, and
    raised by `wait_idle` and at the end of the block.
    """

    def __init__(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> None:
        self._servers = servers
        self._options = options
        self._thread = threading.Thread(target=self._main, name="vastroute loopback", daemon=True)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loopback: Loopback | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None

    @property
    def origins(self) -> Mapping[str, Origin]:
        """Each server's origin, by its name."""
        return self._running.origins

    @property
    def origin(self) -> Origin:
        """The origin of the one server, or of the engine. Raises `LocalProtocolError` if there are several by names."""
        return self._running.origin

    @property
    def url(self) -> str:
        """The same as text."""
        return self._running.url

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return self._running.open

    @property
    def opened(self) -> int:
        """How many connections were accepted so far."""
        return self._running.opened

    def wait_idle(self, timeout: float = 5.0) -> None:
        """Return when no connection is open. Raises `TimeoutError` after `timeout` seconds.

        It blocks its thread, whatever loop that runs.
        """
        is_quiet = self._running.quiet.wait(timeout)
        if self._running.failure is not None:
            raise self._running.failure
        if not is_quiet:
            raise TimeoutError(f"{self._running.open} connections are still open")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._loopback is None:
            self._end()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._token is not None
        assert self._stop is not None
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._stop.set)
        self._end()

    def _end(self) -> None:
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @property
    def _running(self) -> Loopback:
        if self._loopback is None:
            raise LocalProtocolError("it does not run yet: use it as `with LoopbackThread(server) as loopback`")
        return self._loopback

    def _main(self) -> None:
        try:
            trio.run(self._listen)
        except BaseException as error:
            self._failure = error
            if self._loopback is not None:
                traceback.print_exception(error)
        finally:
            self._ready.set()

    async def _listen(self) -> None:
        self._stop = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with open_loopback(self._servers, **self._options) as self._loopback:
            self._ready.set()
            await self._stop.wait()


async def _give(memory: MemoryStream, stream: trio.abc.Stream) -> None:
    """What the server sends goes out over the wire, until it closes or resets the connection."""
    try:
        while data := await memory.receive_some():
            await stream.send_all(data)
    except _BROKEN:
        _reset(stream)


def _reset(stream: trio.abc.Stream) -> None:
    """Make the kernel send a reset when the socket is closed, in place of an orderly end."""
    below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
    assert isinstance(below, trio.SocketStream)
    below.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    below.socket.close()


def _named(servers: NamedServers) -> tuple[dict[str, Server | Serve], str | None]:
    """The servers by their names, and the name of the one that was meant, if it was one."""
    if isinstance(servers, SimulatedEngine):
        workers = {f"worker {number}": worker for number, worker in enumerate(servers.workers, 1)}
        return {"engine": servers, **workers}, "engine"
    named = dict(servers) if isinstance(servers, Mapping) else {"server": servers}
    return named, next(iter(named)) if len(named) == 1 else None


def _in_monotonic_time(serve: Serve) -> Serve:
    """`serve` on the system's clock in place of trio's, which begins at a random instant in each loop."""

    def served(request: HttpRequest, now: float) -> Schedule:
        instant = time.monotonic()
        return shifted(serve(request, instant), now - instant)

    return served


def _address(options: LoopbackOptions, *, single: bool) -> tuple[str, int]:
    host, port = options.get("host", "127.0.0.1"), options.get("port", 0)
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        raise InvalidValue("host must be an IP address to listen at, such as 127.0.0.1 or ::1") from None
    if not is_loopback and not options.get("allow_any_host", False):
        raise InvalidValue(f"{host} is not loopback: others could reach it; allow_any_host would allow it")
    if port and not single:
        raise InvalidValue("several servers cannot share one port: leave port out")
    return host, port
