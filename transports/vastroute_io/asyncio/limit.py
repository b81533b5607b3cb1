"""A time limit for what one task does, which can be moved."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self, final


@final
class Limit:
    """As `asyncio.timeout_at`, but a block that takes too long ends without an error, and `expired` says so.

    Moving it to a later instant costs nothing: its timer looks again when it goes off.
    """

    __slots__ = ("_cancelling", "_loop", "_task", "_timer", "at", "expired")

    def __init__(self, at: float, loop: asyncio.AbstractEventLoop) -> None:
        self.at: float = at
        """When it expires, in the loop's seconds; `move` changes it."""
        self.expired: bool = False
        self._loop = loop

    def move(self, at: float) -> None:
        """Expire `at` that instant instead. Raises TimeoutError if it has expired, which a stream may have hidden."""
        if self.expired:
            raise TimeoutError
        earlier, self.at = at < self.at, at
        if earlier:
            self._timer.cancel()
            self._set()

    def _set(self) -> None:
        self._timer: asyncio.TimerHandle = self._loop.call_at(self.at, self._look)

    def _look(self) -> None:
        if self._loop.time() < self.at:
            self._set()
        else:
            self.expired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        task = asyncio.current_task(self._loop)
        assert task is not None
        self._task: asyncio.Task[object] = task
        self._cancelling = task.cancelling()
        self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self._timer.cancel()
        # If others have cancelled the task as well, it stays cancelled.
        return self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
