"""What the verbs need of an asynchronous library: time, locks, bounded waits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Protocol

from .alarms import Alarms


class Lock(AbstractAsyncContextManager[Any], Protocol):
    """A lock for the tasks of one event loop."""

    async def acquire(self) -> Any:
        """Wait for it."""

    def release(self) -> None:
        """Give it back."""


class Event(Protocol):
    """What a task waits for."""

    async def wait(self) -> Any:
        """Return once it is set."""

    def set(self) -> None:
        """Wake whoever waits."""


class Library(ABC):
    """Trio or asyncio, for one client."""

    failures: ClassVar[tuple[type[BaseException], ...]]
    """The exceptions that mean that an exchange failed; every other one flies."""

    @property
    @abstractmethod
    def alarms(self) -> Alarms:
        """The time limits of the client's streams."""

    @abstractmethod
    def clock(self) -> Callable[[], float]:
        """What reads the monotonic seconds, for as long as a call takes."""

    def now(self) -> float:
        """Monotonic seconds."""
        return self.clock()()

    @abstractmethod
    def lock(self) -> Lock:
        """A new lock."""

    @abstractmethod
    def event(self) -> Event:
        """A new event."""

    @abstractmethod
    def turn(self, *, alone: bool) -> Awaitable[None]:
        """Let every other task that can go on do so first, unless there is none. Raises if the caller is cancelled."""

    @abstractmethod
    async def sleep_until(self, at: float) -> None:
        """Wait until that instant (monotonic seconds)."""

    @abstractmethod
    def limit(self, deadline: float) -> AbstractAsyncContextManager[Any]:
        """A block that raises TimeoutError if it is not over by `deadline` (monotonic seconds)."""

    @abstractmethod
    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` for at most that many seconds, as far as possible also where the caller is cancelled already."""
