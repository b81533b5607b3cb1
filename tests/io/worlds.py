"""One scenario on every transport: what differs between them stands here, and nothing else.

A test is a coroutine that gets a `World`. Trio and asyncio run it as it is. The blocking client's verbs are wrapped in
coroutines that never wait, so that one step takes the test to its end.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from math import inf
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, TypeAlias, TypeVar, Unpack, final

import trio

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import (
    Answer,
    CallFailed,
    EndpointInfo,
    Entry,
    Guard,
    Origin,
    PublicKey,
    Record,
    RouteResult,
    SessionEnded,
    SessionHandle,
    SessionInfo,
    StreamEvent,
    WorkerInfo,
)
from vastroute_io.options import CallOptions, RouteOptions, SessionOptions, WorkOptions
from vastroute_testing import (
    TEST_KEY,
    TEST_PUBLIC_KEY,
    AsyncioConnector,
    AsyncioMemoryStream,
    BlockingConnector,
    BlockingMemoryStream,
    Connector,
    CutSizes,
    LoopbackOptions,
    LoopbackThread,
    ManualClock,
    MemoryStream,
    NamedServers,
    Servers,
    SimulatedEndpoint,
    SimulatedEngine,
    VirtualLoop,
    asyncio_connector,
    blocking_connector,
    connector,
    open_loopback,
    virtual_clock,
)

T = TypeVar("T")
ALLOWED = Guard(allow_private_address=True)
"""For simulated workers, which have addresses that are reserved for documentation."""
LOOPBACK = Guard(allow_private_address=True, allow_plain_http=True)
"""For workers on loopback sockets."""


# --- the blocking client, as if it were asynchronous -----------------------------------------------------------------


@final
class WrappedStream:
    """A blocking stream."""

    def __init__(self, stream: vastroute_io.blocking.Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            return next(self._stream)
        except StopIteration:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        self._stream.close()

    async def __aenter__(self) -> Self:
        self._stream.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, value, traceback)


@final
class WrappedSession:
    """A blocking session."""

    def __init__(self, session: vastroute_io.blocking.Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def call(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Answer:
        return self._session.call(route, payload, **options)

    def stream(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> WrappedStream:
        return WrappedStream(self._session.stream(route, payload, **options))

    async def health(self) -> bool:
        return self._session.health()

    async def info(self) -> SessionInfo:
        return self._session.info()

    async def end(self) -> SessionEnded:
        return self._session.end()

    async def __aenter__(self) -> Self:
        self._session.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, value, traceback)


@final
class WrappedClient:
    """A blocking client."""

    def __init__(self, client: vastroute_io.blocking.Client) -> None:
        self._client = client

    @property
    def pool(self) -> Any:
        return self._client.pool

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        return self._client.route(endpoint, **options)

    async def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        return self._client.call(endpoint, route, payload, **options)

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> WrappedStream:
        return WrappedStream(self._client.stream(endpoint, route, payload, **options))

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> WrappedSession:
        return WrappedSession(self._client.session(endpoint, **options))

    def resume_session(self, handle: SessionHandle) -> WrappedSession:
        return WrappedSession(self._client.resume_session(handle))

    async def endpoints(self) -> tuple[EndpointInfo, ...]:
        return self._client.endpoints()

    async def workers(self, endpoint: str) -> tuple[WorkerInfo, ...]:
        return self._client.workers(endpoint)

    async def fetch_public_key(self) -> PublicKey:
        return self._client.fetch_public_key()

    async def run(self, machine: Any) -> Any:
        return self._client.run(machine)

    async def aclose(self) -> None:
        self._client.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, value, traceback)


AnyClient: TypeAlias = vastroute_io.trio.Client | vastroute_io.asyncio.Client | WrappedClient
AnyStream: TypeAlias = vastroute_io.trio.Stream | WrappedStream


# --- worlds ----------------------------------------------------------------------------------------------------------


class Listening(Protocol):
    """Servers on loopback sockets."""

    @property
    def origins(self) -> Mapping[str, Origin]: ...
    @property
    def origin(self) -> Origin: ...
    @property
    def url(self) -> str: ...
    @property
    def opened(self) -> int: ...
    @property
    def open(self) -> int: ...


class Opened(Protocol):
    """A ``connect`` argument that opens memory streams."""

    @property
    def open(self) -> int:
        """How many the client has not closed."""

    @property
    def streams(self) -> Sequence[Any]:
        """All that were opened."""


class Streaming(Protocol):
    """A stream of a test's own: what it waits for with `World.sleep_until` ends at the exchange's deadline."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self, most: int) -> bytes: ...
    async def close(self) -> None: ...


class World(ABC):
    """A transport, and the time that it lives in: virtual over memory streams, real over sockets."""

    name: ClassVar[str]

    def __init__(self, *, virtual: bool) -> None:
        self.virtual = virtual
        self.clients: list[AnyClient] = []
        self.connectors: list[Opened] = []

    @property
    def opened(self) -> int:
        """How many memory streams were opened."""
        return sum(len(each.streams) for each in self.connectors)

    @property
    def open(self) -> int:
        """How many of them are still open."""
        return sum(each.open for each in self.connectors)

    def client(self, servers: Servers | None = None, *, cut: CutSizes = None, **options: Any) -> AnyClient:
        """A client with a test's defaults: no randomness, no key from outside. Over memory streams if it is virtual."""
        if self.virtual and "connect" not in options:
            assert servers is not None
            options["connect"] = self.connector(servers, cut=cut)
        defaults = {
            "key": TEST_KEY,
            "public_key": TEST_PUBLIC_KEY,
            "rng": lambda: 0.5,
            "guard": ALLOWED if self.virtual else LOOPBACK,
            "proxy": None,
        }
        client = self._client(defaults | options)
        self.clients.append(client)
        return client

    def check(self) -> None:
        """Nothing is left: no slot of any pool, no stream."""
        for client in self.clients:
            assert_tidy(client)
            assert not idle(client)
        assert self.open == 0

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds."""

    @abstractmethod
    async def apart(self, work: Callable[[], T]) -> T:
        """Do what blocks, without holding up anybody else."""

    @abstractmethod
    async def cancelled_at(self, step: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        """Run `work`, and cancel it as it waits for the `step`-th time. False if it was over before that."""

    @abstractmethod
    async def together(self, *works: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run them all at once."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let time pass, between calls."""

    @abstractmethod
    async def sleep_until(self, at: float) -> None:
        """Let time pass in the midst of an exchange, whose deadline ends it."""

    @abstractmethod
    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `test` to its end."""

    @abstractmethod
    def connector(self, servers: Servers, *, cut: CutSizes = None) -> Opened:
        """What opens memory streams."""

    @abstractmethod
    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        """The ``connect`` argument that gives what `opens` gives."""

    @abstractmethod
    async def ready(self, servers: Servers, origin: Origin) -> Any:
        """A memory stream of the transport's own kind, for a client that is given one."""

    @abstractmethod
    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        """A memory stream, to be wrapped and given to `connect`."""

    @abstractmethod
    def listen(
        self, servers: NamedServers, **options: Unpack[LoopbackOptions]
    ) -> AbstractAsyncContextManager[Listening]:
        """Servers on loopback sockets. At the block's end the client must have closed every connection."""

    @abstractmethod
    def _client(self, options: dict[str, Any]) -> AnyClient: ...


@final
class _TrioStream(trio.abc.Stream):
    def __init__(self, inner: Streaming) -> None:
        self._inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await self._inner.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        return await self._inner.receive(max_bytes or 65536)

    async def aclose(self) -> None:
        await self._inner.close()


@final
class _TrioMemory:
    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, most: int) -> bytes:
        return await self._stream.receive_some(most)

    async def close(self) -> None:
        await self._stream.aclose()


@final
class TrioWorld(World):
    name = "trio"

    def now(self) -> float:
        return trio.current_time()

    async def apart(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work)

    async def cancelled_at(self, step: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        with trio.CancelScope() as scope:
            steps = _Steps(work(), step, scope.cancel)
            await steps
        return steps.has_cancelled

    async def together(self, *works: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        async with trio.open_nursery() as nursery:
            for work in works:
                nursery.start_soon(work)

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    async def sleep_until(self, at: float) -> None:
        await trio.sleep_until(at)

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        trio.run(test, clock=virtual_clock() if self.virtual else None)

    def connector(self, servers: Servers, *, cut: CutSizes = None) -> Connector:
        made = connector(servers, cut=cut)
        self.connectors.append(made)
        return made

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        async def connect(origin: Origin) -> trio.abc.Stream:
            return _TrioStream(await opens(origin))

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _TrioMemory(await self.ready(servers, origin))

    async def ready(self, servers: Servers, origin: Origin) -> MemoryStream:
        return await self.connector(servers)(origin)

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        async with open_loopback(servers, **options) as loopback:
            yield loopback
            with trio.fail_after(5):
                await loopback.wait_idle()

    def _client(self, options: dict[str, Any]) -> AnyClient:
        return vastroute_io.trio.Client(**options)


@final
class _BlockingStream:
    def __init__(self, inner: Streaming, world: BlockingWorld) -> None:
        self._inner = inner
        self._world = world

    def send_all(self, data: bytes, *, deadline: float) -> None:
        self._world.until(deadline, self._inner.send(data))

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        return self._world.until(deadline, self._inner.receive(most))

    def close(self) -> None:
        at_once(self._inner.close())


@final
class _BlockingMemory:
    def __init__(self, stream: BlockingMemoryStream, world: BlockingWorld) -> None:
        self._stream = stream
        self._world = world

    async def send(self, data: bytes) -> None:
        self._stream.send_all(data, deadline=self._world.deadline)

    async def receive(self, most: int) -> bytes:
        return self._stream.receive_some(most, deadline=self._world.deadline)

    async def close(self) -> None:
        self._stream.close()


@final
class BlockingWorld(World):
    name = "blocking"

    def __init__(self, *, virtual: bool) -> None:
        super().__init__(virtual=virtual)
        self.clock = ManualClock()
        self.deadline = inf
        """That of the exchange which is under way over a stream of `connect`."""
        self._real = vastroute_io.blocking.RealClock()

    def now(self) -> float:
        return self.clock() if self.virtual else self._real()

    async def apart(self, work: Callable[[], T]) -> T:
        return work()

    async def cancelled_at(self, step: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        raise NotImplementedError("a blocking call is not cancelled")

    async def together(self, *works: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        with ThreadPoolExecutor(len(works)) as threads:
            for done in [threads.submit(at_once, work()) for work in works]:
                done.result()

    async def sleep(self, seconds: float) -> None:
        assert self.virtual
        self.clock.advance(seconds)

    async def sleep_until(self, at: float) -> None:
        # What a scope of trio's does from outside.
        self.clock.sleep_until(min(at, self.deadline))
        if at >= self.deadline:
            raise TimeoutError("the deadline has come")

    def until(self, deadline: float, verb: Coroutine[Any, Any, T]) -> T:
        self.deadline = deadline
        try:
            return at_once(verb)
        finally:
            self.deadline = inf

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        at_once(test())

    def connector(self, servers: Servers, *, cut: CutSizes = None) -> BlockingConnector:
        made = blocking_connector(servers, self.clock, cut=cut)
        self.connectors.append(made)
        return made

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        def connect(origin: Origin, deadline: float) -> _BlockingStream:
            return _BlockingStream(self.until(deadline, opens(origin)), self)

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _BlockingMemory(await self.ready(servers, origin), self)

    async def ready(self, servers: Servers, origin: Origin) -> BlockingMemoryStream:
        return self.connector(servers)(origin, self.deadline)

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        with LoopbackThread(servers, **options) as loopback:
            yield loopback
            loopback.wait_idle()

    def _client(self, options: dict[str, Any]) -> AnyClient:
        if self.virtual:
            options["clock"] = self.clock
        return WrappedClient(vastroute_io.blocking.Client(**options))


@final
class _AsyncioMemory:
    def __init__(self, stream: AsyncioMemoryStream) -> None:
        self._stream = stream

    async def send(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive(self, most: int) -> bytes:
        return await self._stream.receive_some(most)

    async def close(self) -> None:
        self._stream.abort()


@final
class _AsyncioStream:
    def __init__(self, inner: Streaming) -> None:
        self._inner = inner

    async def send_all(self, data: bytes) -> None:
        await self._inner.send(data)

    async def receive_some(self, most: int) -> bytes:
        return await self._inner.receive(most)

    def abort(self) -> None:
        at_once(self._inner.close())


@final
class AsyncioWorld(World):
    name = "asyncio"

    def now(self) -> float:
        return _loop_time()

    async def apart(self, work: Callable[[], T]) -> T:
        return await asyncio.to_thread(work)

    async def cancelled_at(self, step: int, work: Callable[[], Coroutine[Any, Any, Any]]) -> bool:
        task = asyncio.current_task()
        assert task is not None
        steps = _Steps(work(), step, task.cancel)
        with suppress(asyncio.CancelledError):
            await steps
        if steps.has_cancelled:
            task.uncancel()
        return steps.has_cancelled

    async def together(self, *works: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in works]
        assert all(task.done() for task in tasks)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def sleep_until(self, at: float) -> None:
        await _asyncio_sleep_until(at)

    def run(self, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop if self.virtual else None) as runner:
            runner.run(test())

    def connector(self, servers: Servers, *, cut: CutSizes = None) -> AsyncioConnector:
        made = asyncio_connector(servers, cut=cut)
        self.connectors.append(made)
        return made

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        async def connect(origin: Origin) -> _AsyncioStream:
            return _AsyncioStream(await opens(origin))

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _AsyncioMemory(await self.ready(servers, origin))

    async def ready(self, servers: Servers, origin: Origin) -> AsyncioMemoryStream:
        return await self.connector(servers)(origin)

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        with LoopbackThread(servers, **options) as loopback:
            yield loopback
            await asyncio.to_thread(loopback.wait_idle)

    def _client(self, options: dict[str, Any]) -> AnyClient:
        return vastroute_io.asyncio.Client(**options)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


async def _asyncio_sleep_until(at: float) -> None:
    if at == inf:
        await asyncio.get_running_loop().create_future()
    await asyncio.sleep(max(0.0, at - _loop_time()))


ASYNCHRONOUS: Sequence[type[TrioWorld | AsyncioWorld]] = (TrioWorld, AsyncioWorld)
WORLDS: Sequence[type[TrioWorld | AsyncioWorld | BlockingWorld]] = (*ASYNCHRONOUS, BlockingWorld)


@final
class _Steps:
    """Awaits a coroutine, and calls `cancel` when it waits for the `step`-th time."""

    def __init__(self, work: Coroutine[Any, Any, Any], step: int, cancel: Callable[[], object]) -> None:
        self.has_cancelled = False
        self._work = work
        self._step = step
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, Any]:
        go_on: Callable[[Any], Any] = self._work.send
        given: Any = None
        for count in itertools.count(1):
            try:
                wish = go_on(given)
            except StopIteration as end:
                return end.value
            if count == self._step:
                self.has_cancelled = True
                self._cancel()
            try:
                given = yield wish
                go_on = self._work.send
            except BaseException as error:
                given, go_on = error, self._work.throw


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a coroutine of the blocking world waits for something")


# --- what tests say of them ------------------------------------------------------------------------------------------


def assert_tidy(client: AnyClient) -> None:
    """No connection is in use, none is being opened, and nobody waits for one."""
    for place, holding in client.pool.inspect().items():
        assert not holding.in_use, place
        assert (holding.opening, holding.served, holding.waiting) == (0, 0, 0), place


def idle(client: AnyClient) -> int:
    """How many connections the client keeps."""
    return sum(len(holding.idle) for holding in client.pool.inspect().values())


def facts(error: CallFailed) -> dict[str, Any]:
    """What programs read from an error: everything but the words."""
    names = ("phase", "outcome", "advice", "status", "request_idx", "kind", "limit", "retry_after", "counts")
    return {"class": type(error), **{name: getattr(error, name) for name in names}}


def rows(record: Record | None) -> list[Entry]:
    """The entries of a record that must be there."""
    assert record is not None
    return list(record)


def engine_of(**options: Any) -> SimulatedEngine:
    """An engine with one endpoint, ``demo``."""
    return SimulatedEngine(SimulatedEndpoint("demo", **options))
