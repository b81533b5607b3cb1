"""The library that a transport is made for, as scripts see it: how one is run, how time passes, what is at work."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Generator, Mapping
from types import MappingProxyType
from typing import Any, Protocol, TypeVar, final

from vastroute import InvalidValue

from ..server import Servers
from ..streams import CutSizes, Road, Roads
from .features import Feature

T = TypeVar("T")
Job = Callable[[], Coroutine[Any, Any, Any]]
"""What makes a coroutine to be run."""
SPEED = 20.0
"""Seconds of a script that pass in one real second, over sockets."""


class Opened(Protocol):
    """What opens streams in memory, and knows of all that it opened."""

    @property
    def open(self) -> int:
        """How many the client has not closed."""

    @property
    def streams(self) -> Any:
        """All that were opened."""


class Harness(ABC):
    """One library, in virtual time over streams in memory, or with ``virtual=False`` in real time over sockets.

    Derive from it for a library that has none here. The scripts are coroutines. For a blocking transport nothing in
    them ever waits; for others they wait for what your client's verbs wait for, and for the methods here.

    Over sockets a script's seconds pass `speed` times as fast as real ones: its limits and pauses are given to the
    client shortened, and the servers answer as much sooner.
    """

    name: str = "a library"
    """For the report."""
    lacks: Mapping[Feature, str] = MappingProxyType({})
    """What no client of this library has, and why."""

    def __init__(self, *, virtual: bool = True, speed: float = SPEED) -> None:
        if not speed > 0:
            raise InvalidValue("speed must be above 0: how many seconds of a script pass in a real one")
        self.virtual: bool = virtual
        self.speed: float = 1.0 if virtual else speed

    @abstractmethod
    def run(self, script: Job) -> None:
        """Run `script` to its end. What waits for what can never happen should raise, and not hang."""

    @abstractmethod
    def now(self) -> float:
        """Monotonic seconds, as the client under test counts them."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let time pass."""

    @abstractmethod
    async def together(self, *works: Job) -> None:
        """Run them all at once, to their ends. What one raises ends the others and is raised."""

    @abstractmethod
    async def cancelled_at(self, step: int, work: Job) -> bool:
        """Run `work`, cancelled as it waits for the `step`-th time; False if it was over before. `Steps` counts."""

    async def apart(self, work: Callable[[], T]) -> T:
        """Do what blocks; where others must go on meanwhile, in a thread."""
        return work()

    @abstractmethod
    def at_work(self) -> int:
        """How many tasks, or threads, there are."""

    def connector(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> Opened:
        """What opens streams in memory to `servers`, for the option ``connect``. Only where time is virtual."""
        raise NotImplementedError

    def options(self, servers: Servers, *, cut: CutSizes, roads: Roads) -> tuple[Mapping[str, Any], Opened]:
        """The options by which a client reaches `servers` in memory, and what it opens. Only where time is virtual."""
        opened = self.connector(servers, cut=cut, roads=roads)
        return {"connect": opened}, opened


@final
class Steps:
    """Awaits a coroutine, and calls `cancel` when it waits for the `step`-th time."""

    def __init__(self, work: Coroutine[Any, Any, Any], step: int, cancel: Callable[[], object]) -> None:
        self.has_cancelled: bool = False
        """Whether it came so far."""
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
    coroutine.close()
    raise AssertionError("what is said to be blocking waits for something: is the client an asynchronous one?")


NO_ROAD = Road()
"""The way to every server takes no time."""
