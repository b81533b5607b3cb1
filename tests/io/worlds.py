"""One scenario on every transport: what differs between them stands here, and nothing else.

A test is a coroutine that gets a `World`: a harness of `vastroute_testing.conformance`, with streams of a test's own
and with sockets. What the conformance scripts tell is not told again here.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any, ClassVar, Protocol, TypeVar, Unpack, final

import trio

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import Entry, Guard, Origin, Record
from vastroute_testing import (
    TEST_KEY,
    TEST_PUBLIC_KEY,
    AsyncioMemoryStream,
    BlockingMemoryStream,
    CutSizes,
    LoopbackOptions,
    LoopbackThread,
    MemoryStream,
    NamedServers,
    Road,
    Roads,
    Servers,
    SimulatedEndpoint,
    SimulatedEngine,
    open_loopback,
)
from vastroute_testing.conformance import Asyncio, Blocking, Harness, Job, Opened, Trio
from vastroute_testing.conformance.harness import at_once
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.conformance.world import check_pool

T = TypeVar("T")
ALLOWED = Guard(allow_private_address=True)
"""For simulated workers, which have addresses that are reserved for documentation."""
LOOPBACK = Guard(allow_private_address=True, allow_plain_http=True)
"""For workers on loopback sockets."""


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


class Streaming(Protocol):
    """A stream of a test's own: what it waits for with `World.sleep_until` ends at the exchange's deadline."""

    async def send(self, data: bytes) -> None: ...
    async def receive(self, most: int) -> bytes: ...
    async def close(self) -> None: ...


class World(ABC):
    """A transport, and the time that it lives in: virtual over memory streams, real over sockets."""

    name: ClassVar[str]

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.virtual = harness.virtual
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

    def client(
        self, servers: Servers | None = None, *, cut: CutSizes = None, roads: Roads = Road(), **options: Any
    ) -> AnyClient:
        """A client with a test's defaults: no randomness, no key from outside. Over memory streams if it is virtual."""
        if self.virtual and "connect" not in options:
            assert servers is not None
            options["connect"] = self.connector(servers, cut=cut, roads=roads)
        defaults = {
            "key": TEST_KEY,
            "public_key": TEST_PUBLIC_KEY,
            "rng": lambda: 0.5,
            "guard": ALLOWED if self.virtual else LOOPBACK,
            "proxy": None,
        }
        client = AnyClient(self._client(defaults | options))
        self.clients.append(client)
        return client

    def check(self) -> None:
        """Nothing is left: no slot of any pool, no stream."""
        for client in self.clients:
            assert_tidy(client)
            assert not idle(client)
        assert self.open == 0

    def now(self) -> float:
        """Monotonic seconds."""
        return self.harness.now()

    async def apart(self, work: Callable[[], T]) -> T:
        """Do what blocks, without holding up anybody else."""
        return await self.harness.apart(work)

    async def cancelled_at(self, step: int, work: Job) -> bool:
        """Run `work`, and cancel it as it waits for the `step`-th time. False if it was over before that."""
        return await self.harness.cancelled_at(step, work)

    async def together(self, *works: Job) -> None:
        """Run them all at once."""
        await self.harness.together(*works)

    async def sleep(self, seconds: float) -> None:
        """Let time pass, between calls."""
        await self.harness.sleep(seconds)

    def run(self, test: Job) -> None:
        """Run `test` to its end."""
        self.harness.run(test)

    def connector(self, servers: Servers, *, cut: CutSizes = None, roads: Roads = Road()) -> Any:
        """What opens memory streams."""
        made = self.harness.connector(servers, cut=cut, roads=roads)
        self.connectors.append(made)
        return made

    @abstractmethod
    async def sleep_until(self, at: float) -> None:
        """Let time pass in the midst of an exchange, whose deadline ends it."""

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
    def _client(self, options: dict[str, Any]) -> Any: ...


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

    def __init__(self, *, virtual: bool) -> None:
        super().__init__(Trio(virtual=virtual))

    async def sleep_until(self, at: float) -> None:
        await trio.sleep_until(at)

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        async def connect(origin: Origin) -> trio.abc.Stream:
            return _TrioStream(await opens(origin))

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _TrioMemory(await self.ready(servers, origin))

    async def ready(self, servers: Servers, origin: Origin) -> MemoryStream:
        stream: MemoryStream = await self.connector(servers)(origin)
        return stream

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        async with open_loopback(servers, **options) as loopback:
            yield loopback
            with trio.fail_after(5):
                await loopback.wait_idle()

    def _client(self, options: dict[str, Any]) -> vastroute_io.trio.Client:
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
        harness = Blocking(virtual=virtual)
        super().__init__(harness)
        self.clock = harness.clock
        self.deadline = inf
        """That of the exchange which is under way over a stream of `connect`."""

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

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        def connect(origin: Origin, deadline: float) -> _BlockingStream:
            return _BlockingStream(self.until(deadline, opens(origin)), self)

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _BlockingMemory(await self.ready(servers, origin), self)

    async def ready(self, servers: Servers, origin: Origin) -> BlockingMemoryStream:
        stream: BlockingMemoryStream = self.connector(servers)(origin, self.deadline)
        return stream

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        with LoopbackThread(servers, **options) as loopback:
            yield loopback
            loopback.wait_idle()

    def _client(self, options: dict[str, Any]) -> vastroute_io.blocking.Client:
        if self.virtual:
            options["clock"] = self.clock
        return vastroute_io.blocking.Client(**options)


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

    def __init__(self, *, virtual: bool) -> None:
        super().__init__(Asyncio(virtual=virtual))

    async def sleep_until(self, at: float) -> None:
        if at == inf:
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(max(0.0, at - self.now()))

    def connect(self, opens: Callable[[Origin], Coroutine[Any, Any, Streaming]]) -> Any:
        async def connect(origin: Origin) -> _AsyncioStream:
            return _AsyncioStream(await opens(origin))

        return connect

    async def stream(self, servers: Servers, origin: Origin) -> Streaming:
        return _AsyncioMemory(await self.ready(servers, origin))

    async def ready(self, servers: Servers, origin: Origin) -> AsyncioMemoryStream:
        stream: AsyncioMemoryStream = await self.connector(servers)(origin)
        return stream

    @asynccontextmanager
    async def listen(self, servers: NamedServers, **options: Unpack[LoopbackOptions]) -> AsyncIterator[Listening]:
        with LoopbackThread(servers, **options) as loopback:
            yield loopback
            await asyncio.to_thread(loopback.wait_idle)

    def _client(self, options: dict[str, Any]) -> vastroute_io.asyncio.Client:
        return vastroute_io.asyncio.Client(**options)


ASYNCHRONOUS: Sequence[type[TrioWorld | AsyncioWorld]] = (TrioWorld, AsyncioWorld)
WORLDS: Sequence[type[TrioWorld | AsyncioWorld | BlockingWorld]] = (*ASYNCHRONOUS, BlockingWorld)


# --- what tests say of them ------------------------------------------------------------------------------------------


def assert_tidy(client: AnyClient) -> None:
    """No connection is in use, none is being opened, and nobody waits for one."""
    check_pool(client.client)


def idle(client: AnyClient) -> int:
    """How many connections the client keeps."""
    return sum(len(holding.idle) for holding in client.pool.inspect().values())


def rows(record: Record | None) -> list[Entry]:
    """The entries of a record that must be there."""
    assert record is not None
    return list(record)


def engine_of(**options: Any) -> SimulatedEngine:
    """An engine with one endpoint, ``demo``."""
    return SimulatedEngine(SimulatedEndpoint("demo", **options))
