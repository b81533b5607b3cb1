"""Rigs: what a test needs to run code of one kind against the simulated engine.

This module imports no transport: each rig imports its own when it is made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, TypeVarTuple, final

from vastroute import Guard, LocalProtocolError, Origin
from vastroute_testing import BEGIN, TEST_KEY, ManualClock, SimulatedEngine

from .world import World

if TYPE_CHECKING:
    import vastroute_io.asyncio
    import vastroute_io.blocking
    import vastroute_io.trio
    from vastroute_testing import LoopbackThread

C = TypeVar("C")
T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")


def half() -> float:
    """In place of a random draw, so that every run waits alike."""
    return 0.5


class MemoryRig(ABC, Generic[C]):
    """Clients of one kind over memory streams, in virtual time."""

    name: ClassVar[str]
    """The fixture's."""

    def __init__(self, world: World, engine: SimulatedEngine, clock: ManualClock) -> None:
        self.engine = engine
        """What they reach, whatever address they name."""
        self.clock = clock
        """The time: `run` begins at it, and leaves it at its end."""
        self._world = world
        self._clients: list[C] = []
        self._opened: list[tuple[Origin, Any]] = []
        self._connect = self._connector()

    @property
    def options(self) -> dict[str, Any]:
        """The arguments for a ``Client`` of this kind that your own code makes. It has to close it, too."""
        return {
            "key": TEST_KEY,
            "connect": self._connect,
            "guard": Guard(allow_private_address=True),  # simulated workers have reserved addresses
            "observer": self._world.log(self.name),
            "rng": half,
        }

    def client(self, **options: Any) -> C:
        """A new client; `options` are those of its class. It need not be closed."""
        client = self._make(self.options | options)
        self._clients.append(client)
        return client

    def left(self) -> list[str]:
        """Where the connections lead that are open and should not be: all but the idle ones of our own clients."""
        idle = {id(getattr(link.stream, "inner", link.stream)) for client in self._clients for link in _idle(client)}
        return [str(origin) for origin, stream in self._opened if not stream.closed and id(stream) not in idle]

    @abstractmethod
    def _make(self, options: Mapping[str, Any]) -> C:
        """A client."""

    @abstractmethod
    def _connector(self) -> Callable[..., Any]:
        """What opens streams, notes them in `_opened`, and refuses in real time."""


@final
class BlockingRig(MemoryRig["vastroute_io.blocking.Client"]):
    """For blocking code. Its clients share the clock, which is passed on as they wait."""

    name = "vast_blocking"

    @property
    def options(self) -> dict[str, Any]:
        """The arguments for a ``vastroute_io.blocking.Client`` that your own code makes. It has to close it, too."""
        return super().options | {"clock": self.clock}

    def _make(self, options: Mapping[str, Any]) -> vastroute_io.blocking.Client:
        from vastroute_io.blocking import Client

        return Client(**options)

    def _connector(self) -> Callable[..., Any]:
        from vastroute_testing import blocking_connector

        open_stream = blocking_connector(self.engine, self.clock)

        def connect(origin: Origin, deadline: float) -> Any:
            stream = open_stream(origin, deadline)
            self._opened.append((origin, stream))
            return stream

        return connect


@final
class TrioRig(MemoryRig["vastroute_io.trio.Client"]):
    """For trio code: `run` it, or write the test as a coroutine function."""

    name = "vast_trio"

    def run(self, main: Callable[[*Arguments], Awaitable[T]], *args: *Arguments) -> T:
        """What ``await main(*args)`` gives, in virtual time, which stands still while a thread is at work."""
        import trio

        from vastroute_testing import virtual_clock

        from .trio_time import StandStill

        clock = virtual_clock()
        clock.jump(self.clock() - BEGIN)
        try:
            return trio.run(main, *args, clock=clock, instruments=[StandStill(clock)])
        finally:
            self.clock.sleep_until(clock.current_time())

    def _make(self, options: Mapping[str, Any]) -> vastroute_io.trio.Client:
        from vastroute_io.trio import Client

        return Client(**options)

    def _connector(self) -> Callable[..., Any]:
        import trio
        from trio.testing import MockClock

        from vastroute_testing import connector

        open_stream = connector(self.engine)

        async def connect(origin: Origin) -> Any:
            if not isinstance(trio.lowlevel.current_clock(), MockClock):
                raise _in_real_time("vast_trio", "in pytest-trio with its autojump_clock")
            stream = await open_stream(origin)
            self._opened.append((origin, stream))
            return stream

        return connect


@final
class AsyncioRig(MemoryRig["vastroute_io.asyncio.Client"]):
    """For asyncio code: `run` it, or write the test as a coroutine function."""

    name = "vast_asyncio"

    def run(self, main: Callable[[*Arguments], Awaitable[T]], *args: *Arguments) -> T:
        """What ``await main(*args)`` gives, in virtual time, which stands still while a thread is at work."""
        import asyncio

        from vastroute_testing import VirtualLoop

        async def whole() -> T:
            return await main(*args)

        loop = VirtualLoop()
        loop.pass_time(self.clock() - BEGIN)
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                return runner.run(whole())
        finally:
            self.clock.sleep_until(loop.time())

    def _make(self, options: Mapping[str, Any]) -> vastroute_io.asyncio.Client:
        from vastroute_io.asyncio import Client

        return Client(**options)

    def _connector(self) -> Callable[..., Any]:
        import asyncio

        from vastroute_testing import VirtualLoop, asyncio_connector

        open_stream = asyncio_connector(self.engine)

        async def connect(origin: Origin) -> Any:
            if not isinstance(asyncio.get_running_loop(), VirtualLoop):
                raise _in_real_time("vast_asyncio", "in a vastroute_testing.VirtualLoop")
            stream = await open_stream(origin)
            self._opened.append((origin, stream))
            return stream

        return connect


@final
class LoopbackRig:
    """The engine and its workers on sockets of this machine, in real time: for TLS, other libraries, other programs."""

    name: ClassVar[str] = "vast_loopback"

    def __init__(self, world: World, engine: SimulatedEngine, thread: LoopbackThread) -> None:
        self.engine = engine
        """What listens there."""
        self.thread = thread
        """The thread that it listens in."""
        self._world = world

    @property
    def url(self) -> str:
        """The engine's address."""
        return self.thread.url

    @property
    def options(self) -> dict[str, Any]:
        """The arguments for a ``Client`` of any kind. Whoever makes it has to close it, too."""
        return {
            "key": TEST_KEY,
            "engine": self.url,
            "console": self.url,
            "proxy": None,
            "guard": Guard(allow_private_address=True, allow_plain_http=True),
            "observer": self._world.log(self.name),
            "rng": half,
        }

    def left(self) -> list[str]:
        """The engine's address for each connection that is open a moment later: we hear late of its end."""
        with suppress(TimeoutError):
            self.thread.wait_idle(1.0)
        return [self.url] * self.thread.open


def _idle(client: Any) -> Iterator[Any]:
    for holding in client.pool.inspect().values():
        yield from holding.idle


def _in_real_time(name: str, otherwise: str) -> LocalProtocolError:
    return LocalProtocolError(
        f"this client lives in virtual time: run its code with {name}.run, or {otherwise}; in real time a cold start "
        "would take as long as it says"
    )
