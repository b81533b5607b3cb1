"""What one test has of ours: what was said in it, what must be over at its end, and in whose time it runs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from itertools import groupby
from typing import ClassVar, Protocol, TypeVar, final, runtime_checkable

import pytest

from vastroute import Entry
from vastroute_testing import SimulatedEngine
from vastroute_testing.life import route_of

_MOST = 10_000
"""Entries of one client's that are kept: the last."""
_SHOWN = 50
"""Lines of one client's that are shown from the begin, and from the end."""


@final
class Log:
    """What one client told its observer."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._entries: deque[Entry] = deque(maxlen=_MOST)

    def __call__(self, entry: Entry) -> None:
        """Take note: this is an observer."""
        self._entries.append(entry)

    def lines(self) -> list[str]:
        """The title and a line for each entry, times counted from the first; nothing if there was none.

        Polls that were answered as the one before are counted only: a cold start has hundreds.
        """
        lines: list[str] = []
        before: list[str] = []
        alike = 0
        for exchange in self._exchanges():
            said = [_said(entry) for entry in exchange]
            if said == before:
                alike += 1
                continue
            lines += _alike(alike)
            alike = 0
            before = said
            lines += [self._line(entry) for entry in exchange]
        lines += _alike(alike)
        if len(lines) > 2 * _SHOWN:
            lines[_SHOWN:-_SHOWN] = [f"{'':12}  ... {len(lines) - 2 * _SHOWN} more lines"]
        return [self.title, *lines] if lines else []

    def _exchanges(self) -> Iterator[list[Entry]]:
        """The entries by the exchange that they belong to; calls at the same time take turns."""
        for _, entries in groupby(self._entries, key=lambda entry: (entry.phase, entry.attempt)):
            yield list(entries)

    def _line(self, entry: Entry) -> str:
        index = "" if entry.request_idx is None else f" ({entry.request_idx})"
        return f"{entry.at - self._entries[0].at:10.3f} s  {entry.phase.value} {entry.attempt}{index}: {_said(entry)}"


def _said(entry: Entry) -> str:
    status = "" if entry.status is None else f"HTTP {entry.status}"
    return ", ".join(part for part in (entry.kind.value, status, entry.detail) if part)


def _alike(count: int) -> list[str]:
    return [f"{'':12}  ... {count} more like this"] if count else []


class Rig(Protocol):
    """What a rig is to its test."""

    name: ClassVar[str]
    engine: SimulatedEngine

    def left(self) -> list[str]:
        """Where the connections lead that are open and should not be."""


@runtime_checkable
class Runs(Protocol):
    """A rig that runs coroutine functions."""

    def run(self, main: Callable[[], Awaitable[object]]) -> object:
        """Run one."""


R = TypeVar("R", bound=Rig)


@final
class World:
    """One test's."""

    def __init__(self) -> None:
        self.engine: SimulatedEngine | None = None
        self.runners: list[Callable[..., object]] = []
        """What runs the test if it is a coroutine function."""
        self.applied: set[str] = set()
        """The marks that were heeded."""
        self.failed = False
        self._logs: list[Log] = []
        self._time: str | None = None

    def log(self, title: str) -> Log:
        """A log for one client more."""
        number = 1 + sum(log.title.startswith(title) for log in self._logs)
        self._logs.append(Log(f"{title}, client {number}"))
        return self._logs[-1]

    def claim(self, time: str) -> None:
        """The test runs in `time`: it fails if it runs in another too."""
        if self._time not in (None, time):
            pytest.fail(
                "vast_loopback is in real time and cannot be mixed with vast_clock, vast_client, vast_blocking, "
                "vast_trio or vast_asyncio: beside a virtual clock the time-outs of real sockets fire at once",
                pytrace=False,
            )
        self._time = time

    def use(self, rig: R) -> Iterator[R]:
        """For a fixture: `rig`, and at the end of a test that passed its connections have to be closed."""
        self.engine = rig.engine
        if isinstance(rig, Runs):
            self.runners.append(rig.run)
        yield rig
        if not self.failed and (left := rig.left()):
            pytest.fail(
                f"{rig.name}: connections are still open at the end of the test, to {', '.join(left)}. Leave the block "
                "of every stream and session, and close every client that was made with options",
                pytrace=False,
            )

    def conversation(self) -> str:
        """All that was said, for people: no key, signature or body is in it."""
        lines = [line for log in self._logs for line in log.lines()]
        if self.engine is not None:
            lines += _seen(self.engine)
        return "\n".join(lines)


WORLD: pytest.StashKey[World] = pytest.StashKey()
"""Where a test's item keeps its own."""


def _seen(engine: SimulatedEngine) -> Iterator[str]:
    yield f"the engine (asks: {engine.asks}, grants: {engine.grants})"
    for index, life in list(engine.lifetimes.items())[-_SHOWN:]:
        granted = ", ".join(life.grants) or "nothing"
        counts = f"asks: {life.asks}, polls: {life.polls}"
        yield f"    request_idx {index} of {life.endpoint}, cost {life.cost:g} ({counts}): granted {granted}"
    for worker in engine.workers:
        yield f"the worker {worker.url} (requests: {worker.served})"
        routes = Counter(route_of(request) for request in worker.requests)
        for route, count in routes.items():
            yield f"    {route}: {count}"
