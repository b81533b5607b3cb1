"""What the verbs need of an asynchronous library: time, locks, a bounded wait, and a driver of machines."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from vastroute import Machine

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Drive(Protocol[T_co]):
    """One machine on its way."""

    async def run(self) -> T_co:
        """To the end: the result, or its error raised."""

    async def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""

    async def end(self) -> None:
        """Nothing more will be done, whether it is over or not."""


class Lock(AbstractAsyncContextManager[Any], Protocol):
    """A lock for the tasks of one event loop."""

    async def acquire(self) -> Any:
        """Wait for it."""

    def release(self) -> None:
        """Give it back."""


class Library(Protocol):
    """Trio or asyncio, with the connections of one client."""

    def now(self) -> float:
        """Monotonic seconds."""

    def lock(self) -> Lock:
        """A lock for the tasks of one event loop."""

    def drive(self, machine: Machine[T]) -> Drive[T]:
        """What drives `machine` over the client's connections."""

    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` for at most that many seconds, as far as possible also where the caller is cancelled already."""

    async def by(self, deadline: float, wait: Callable[[], Awaitable[Any]]) -> bool:
        """Do `wait` until `deadline` at the latest (monotonic seconds): whether it was done."""

    async def aclose(self) -> None:
        """Close every idle connection."""
