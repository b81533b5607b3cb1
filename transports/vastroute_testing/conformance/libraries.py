"""The harnesses for the libraries that have a transport here."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType
from typing import Any, TypeVar, final

import trio

from vastroute_io.blocking import RealClock

from ..asyncio_streams import asyncio_connector
from ..clock import ManualClock, virtual_clock
from ..server import Servers
from ..streams import CutSizes, Roads, blocking_connector
from ..trio_streams import connector
from ..virtual_loop import VirtualLoop
from .features import Feature
from .harness import SPEED, Harness, Job, Opened, Steps, at_once

T = TypeVar("T")
_ENDLESS = 1e7
"""Virtual seconds after which a script hangs: far more than any has."""
_LONGEST = 60.0
"""Real seconds after which a script hangs."""
_HANGS = "it waits for what is not going to happen"


@final
class Trio(Harness):
    """Trio."""

    name = "trio"

    def run(self, script: Job) -> None:
        """See `Harness`."""

        async def main() -> None:
            with trio.move_on_after(_ENDLESS if self.virtual else _LONGEST) as scope:
                await script()
            if scope.cancelled_caught:
                raise TimeoutError(_HANGS)

        trio.run(main, clock=virtual_clock() if self.virtual else None)

    def now(self) -> float:
        """See `Harness`."""
        return trio.current_time()

    async def sleep(self, seconds: float) -> None:
        """See `Harness`."""
        await trio.sleep(seconds)

    async def together(self, *works: Job) -> None:
        """See `Harness`."""
        async with trio.open_nursery() as nursery:
            for work in works:
                nursery.start_soon(work)

    async def cancelled_at(self, step: int, work: Job) -> bool:
        """See `Harness`."""
        with trio.CancelScope() as scope:
            steps = Steps(work(), step, scope.cancel)
            await steps
        return steps.has_cancelled

    async def apart(self, work: Callable[[], T]) -> T:
        """See `Harness`."""
        return await trio.to_thread.run_sync(work)

    def at_work(self) -> int:
        """See `Harness`."""
        return trio.lowlevel.current_statistics().tasks_living

    def connector(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> Opened:
        """See `Harness`."""
        return connector(servers, cut=cut, roads=roads)


@final
class Asyncio(Harness):
    """Asyncio."""

    name = "asyncio"

    def run(self, script: Job) -> None:
        """See `Harness`."""

        async def main() -> None:
            async with asyncio.timeout(None if self.virtual else _LONGEST):  # a virtual loop knows when it hangs
                await script()

        with asyncio.Runner(loop_factory=VirtualLoop if self.virtual else None) as runner:
            runner.run(main())

    def now(self) -> float:
        """See `Harness`."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """See `Harness`."""
        await asyncio.sleep(seconds)

    async def together(self, *works: Job) -> None:
        """See `Harness`."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work()) for work in works]
        assert all(task.done() for task in tasks)

    async def cancelled_at(self, step: int, work: Job) -> bool:
        """See `Harness`."""
        task = asyncio.current_task()
        assert task is not None
        steps = Steps(work(), step, task.cancel)
        with suppress(asyncio.CancelledError):
            await steps
        if steps.has_cancelled:
            task.uncancel()
        return steps.has_cancelled

    async def apart(self, work: Callable[[], T]) -> T:
        """See `Harness`."""
        return await asyncio.to_thread(work)

    def at_work(self) -> int:
        """See `Harness`."""
        return len(asyncio.all_tasks())

    def connector(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> Opened:
        """See `Harness`."""
        return asyncio_connector(servers, cut=cut, roads=roads)


class Blocking(Harness):
    """Blocking code. In virtual time a client is given `clock` too."""

    name = "blocking"

    def __init__(self, *, virtual: bool = True, speed: float = SPEED) -> None:
        super().__init__(virtual=virtual, speed=speed)
        self.clock: ManualClock = ManualClock()
        """The time, where it is virtual."""
        self.lacks: dict[Feature, str] = {Feature.CANCELLATION: "a blocking call is not cancelled from outside"}
        if virtual:
            self.lacks[Feature.CONCURRENCY] = "in virtual time blocking calls come one after the other"
        self._real = RealClock()

    def run(self, script: Job) -> None:
        """See `Harness`."""
        at_once(script())

    def now(self) -> float:
        """See `Harness`."""
        return self.clock() if self.virtual else self._real()

    async def sleep(self, seconds: float) -> None:
        """See `Harness`."""
        if self.virtual:
            self.clock.advance(seconds)
        else:
            threading.Event().wait(seconds)

    async def together(self, *works: Job) -> None:
        """See `Harness`."""
        with ThreadPoolExecutor(len(works)) as threads:
            for done in [threads.submit(at_once, work()) for work in works]:
                done.result()

    async def cancelled_at(self, step: int, work: Job) -> bool:
        """See `Harness`."""
        raise NotImplementedError(self.lacks[Feature.CANCELLATION])

    def at_work(self) -> int:
        """See `Harness`."""
        # Those of the servers on loopback wait some seconds for more to do.
        return sum(not thread.name.startswith("Trio") for thread in threading.enumerate())

    def connector(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> Opened:
        """See `Harness`."""
        return blocking_connector(servers, self.clock, cut=cut, roads=roads)

    def options(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> tuple[Mapping[str, Any], Opened]:
        """See `Harness`."""
        options, opened = super().options(servers, cut=cut, roads=roads)
        return {**options, "clock": self.clock}, opened


class _Nothing:
    """What a client that makes no connections opens."""

    open = 0
    streams: tuple[Any, ...] = ()


@final
class Messages(Blocking):
    """Blocking code without bytes: a client is given ``server`` and ``clock``, as `vastroute_testing.memory.Client`."""

    name = "messages"

    def __init__(self) -> None:
        super().__init__()
        bytes_only = "there are only messages: no connection, no bytes"
        bytes_too = (Feature.BYTES, Feature.ROADS, Feature.KEPT, Feature.LOOKS, Feature.POOL, Feature.HEAD_LIMITS)
        self.lacks.update(dict.fromkeys(bytes_too, bytes_only))

    def options(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> tuple[Mapping[str, Any], Opened]:
        """See `Harness`."""
        return MappingProxyType({"server": servers, "clock": self.clock}), _Nothing()
