"""One measurement, in a process of its own on a core of its own: ``python measure.py JSON`` prints JSON.

The connections are opened and used before the clock starts. CPU is the process's own, user and system, threads
included, so that what the kernel does for it on loopback counts too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.kinds import AsyncClient, Setup, Verbs
from benchmarks.place import CLIENT_CORE, MEBIBYTE, Place, events, raise_file_limit

CLIENTS = {
    "vastroute, trio": ("trio", "ours", "on_trio"),
    "vastroute, asyncio": ("asyncio", "ours", "on_asyncio"),
    "vastroute, blocking": ("blocking", "ours", "blocking"),
    "official vastai": ("asyncio", "peers", "official"),
    "aiohttp": ("asyncio", "peers", "aiohttp_by_hand"),
    "httpx, asyncio": ("asyncio", "peers", "httpx_async"),
    "httpx, trio": ("trio", "peers", "httpx_async"),
    "httpx, blocking": ("blocking", "peers", "httpx_blocking"),
    "niquests, asyncio": ("asyncio", "peers", "niquests_async"),
    "niquests, blocking": ("blocking", "peers", "niquests_session"),
    "pyreqwest, async": ("asyncio", "peers", "pyreqwest_async"),
    "pyreqwest, blocking": ("blocking", "peers", "pyreqwest_blocking"),
    "requests.Session": ("blocking", "peers", "requests_session"),
    "urllib3": ("blocking", "peers", "urllib3_pool"),
    "http.client": ("blocking", "peers", "http_client"),
    "bare h11, trio": ("trio", "floors", "h11_on_trio"),
    "floor: trio": ("trio", "floors", "raw_trio"),
    "floor: asyncio": ("asyncio", "floors", "raw_asyncio"),
    "floor: blocking": ("blocking", "floors", "raw_socket"),
}
"""What runs it, the module, the function."""


class Loop(Protocol):
    """Trio or asyncio, as far as a measurement needs it."""

    def event(self) -> Any:
        """What tasks wait for."""

    def together(self, tasks: list[Callable[[], Awaitable[None]]]) -> AbstractAsyncContextManager[None]:
        """Run `tasks`; leaving the block waits for them."""

    async def sleep(self, seconds: float) -> None:
        """Let the others run."""


class _Trio:
    def __init__(self) -> None:
        self._trio = importlib.import_module("trio")
        self.event, self.sleep = self._trio.Event, self._trio.sleep

    def together(self, tasks: list[Callable[[], Awaitable[None]]]) -> Any:
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def scope() -> Any:
            async with self._trio.open_nursery() as nursery:
                for task in tasks:
                    nursery.start_soon(task)
                yield

        return scope()


class _Asyncio:
    def __init__(self) -> None:
        import asyncio

        self.event, self.sleep = asyncio.Event, asyncio.sleep

    def together(self, tasks: list[Callable[[], Awaitable[None]]]) -> Any:
        import asyncio
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def scope() -> Any:
            async with asyncio.TaskGroup() as group:
                for task in tasks:
                    group.create_task(task())  # type: ignore[arg-type]
                yield

        return scope()


def rss() -> int:
    """Bytes of memory that the process holds now."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * resource.getpagesize()


def cpu() -> float:
    """Seconds of CPU that the process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """From its making: CPU and time a call."""

    def __init__(self) -> None:
        gc.collect()
        self._usage, self._wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()

    def read(self, calls: int) -> dict[str, float]:
        """What `calls` calls took since."""
        wall, usage, begun = time.perf_counter() - self._wall, resource.getrusage(resource.RUSAGE_SELF), self._usage
        user, system = usage.ru_utime - begun.ru_utime, usage.ru_stime - begun.ru_stime
        return {
            "calls": calls,
            "cpu_us": (user + system) / calls * 1e6,
            "system_us": system / calls * 1e6,
            "per_second": calls / wall,
            "busy": (user + system) / wall,
        }


async def rate(loop: Loop, verb: Callable[[], Awaitable[None]], spec: Any) -> dict[str, float]:
    """CPU a call, with so many in flight all the time."""
    count, each = spec["in_flight"], max(1, spec["calls"] // spec["in_flight"])
    ready, go = [0], loop.event()

    async def task() -> None:
        await verb()
        await verb()
        ready[0] += 1
        await go.wait()
        for _ in range(each):
            await verb()

    async with loop.together([task] * count):
        while ready[0] < count:
            await loop.sleep(0.02)
        meter = Meter()
        go.set()
    return meter.read(count * each)


class Control:
    """The holding server's control port."""

    def __init__(self, place: Place) -> None:
        self._socket = socket.create_connection(("127.0.0.1", place.control))
        self._lines = self._socket.makefile("r")

    def say(self, command: str) -> int:
        """Have it do `command`; how many requests it holds then."""
        self._socket.sendall(command.encode() + b"\n")
        return int(self._lines.readline())


async def memory(loop: Loop, verb: Callable[[], Awaitable[None]], spec: Any) -> dict[str, float]:
    """Memory a call, while so many wait for a server that does not answer yet."""
    count, control = spec["in_flight"], Control(Place(*spec["place"]))
    await verb()
    control.say("hold")
    done = [0]

    async def task() -> None:
        await verb()
        done[0] += 1

    gc.collect()
    before, begun, wall = rss(), cpu(), time.perf_counter()
    async with loop.together([task] * count):
        while control.say("count") < count:
            await loop.sleep(0.05)
        held = rss()
        control.say("release")
    return {
        "calls": done[0],
        "kib": (held - before) / 1024 / count,
        "base_mib": before / MEBIBYTE,
        "cpu_us": (cpu() - begun) / count * 1e6,
        "seconds": time.perf_counter() - wall,
    }


async def batch(loop: Loop, verb: Callable[[], Awaitable[None]], spec: Any) -> dict[str, Any]:
    """A long batch: CPU a call and memory, thousand by thousand."""
    count, calls = spec["in_flight"], spec["calls"]
    points: list[tuple[float, int]] = []
    left = [calls]
    await verb()
    gc.collect()

    async def task() -> None:
        while left[0]:
            if left[0] % 1000 == 0:
                points.append((cpu(), rss()))
            left[0] -= 1
            await verb()

    meter = Meter()
    async with loop.together([task] * count):
        pass
    points.append((cpu(), rss()))
    return meter.read(calls) | {
        "cpu_us_by_thousand": [(after[0] - at[0]) * 1000 for at, after in pairwise(points)],
        "mib_by_thousand": [each[1] / MEBIBYTE for each in points],
    }


async def stream(loop: Loop, verb: Callable[[int], Awaitable[int]], spec: Any) -> dict[str, float]:
    """Events of a stream of one MiB, and what memory one of eight takes beyond that."""
    expected = events(MEBIBYTE)[1]
    if (came := await verb(1)) != expected:
        raise SystemExit(f"{came} events came, not {expected}")
    meter = Meter()
    for _ in range(spec["calls"]):
        await verb(1)
    result = meter.read(spec["calls"] * expected)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await verb(8)
    return result | {"growth_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}


MODES: dict[str, Any] = {"rate": rate, "memory": memory, "batch": batch, "stream": stream}


def _blocking(verbs: Verbs, spec: Any) -> dict[str, float]:
    verb = verbs[spec["verb"]]
    for _ in range(5):
        verb()
    meter = Meter()
    for _ in range(spec["calls"]):
        verb()
    return meter.read(spec["calls"])


def main(spec: Any) -> Any:
    """Measure what `spec` says."""
    os.sched_setaffinity(0, {CLIENT_CORE})
    files = raise_file_limit()
    kind, module, name = CLIENTS[spec["client"]]
    make = getattr(importlib.import_module(f"benchmarks.{module}"), name)
    setup = Setup(place=Place(*spec["place"]), most=spec["in_flight"])
    if kind == "blocking":
        with make(setup) as verbs:
            return _blocking(verbs, spec)

    async def run() -> Any:
        client: AsyncClient = make
        async with client(setup) as verbs:
            loop = _Trio() if kind == "trio" else _Asyncio()
            return await MODES[spec["mode"]](loop, verbs[spec["verb"]], spec)

    if kind == "trio":
        result = importlib.import_module("trio").run(run)
    else:
        import asyncio

        result = asyncio.run(run())
    return {**result, "files": files}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))), flush=True)  # noqa: T201
    os._exit(0)  # pyreqwest has been seen to abort the interpreter at its exit
