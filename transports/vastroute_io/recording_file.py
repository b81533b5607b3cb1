"""The file of a recorder, and what the machines that are written down in it share: names, a clock, what was drawn."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, final

from .bodies import Form
from .redaction import Names

T = TypeVar("T")
VERSION: Final = 1
"""The version of the format."""
STOPPED: Final = " (its writer was stopped)"
"""What is put to the end of half a line, when the next recorder comes: no whole line ends with it."""


@final
class RecordingFile:
    """JSON Lines, a line for each call that is over. Threads may share one. Raises OSError if it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.trouble: OSError | None = None
        """Why nothing is written any more, if so."""
        self._path = path
        self._names = Names()
        self._lock = threading.Lock()
        self._drawing = threading.local()
        self._epoch: float | None = None
        self._append(b"" if self._is_whole() else f"{STOPPED}\n".encode())

    def draw(self, rng: Callable[[], float]) -> float:
        """What `rng` draws, noted for the machine that draws in this thread."""
        drawn = rng()
        into: list[float] | None = getattr(self._drawing, "into", None)
        if into is not None:
            into.append(drawn)
        return drawn

    @contextmanager
    def drawing_into(self, into: list[float]) -> Iterator[None]:
        """What is drawn in this block, in this thread, is noted in `into`."""
        self._drawing.into = into
        try:
            yield
        finally:
            self._drawing.into = None

    def began(self, now: float) -> float:
        """When a call began, on the clock of this file, which began with its first call."""
        with self._lock:
            if self._epoch is None:
                self._epoch = now
            return now - self._epoch

    def locked(self, describe: Callable[[Names], T]) -> T:
        """What `describe` gives: one at a time, since names are given out there."""
        with self._lock:
            return describe(self._names)

    def write(self, described: Form) -> None:
        """One line for a call that is over. A failure does not disturb the call: it is kept in `trouble`."""
        line = json.dumps({"vastroute": "recording", "version": VERSION} | described)
        with self._lock:
            if self.trouble is None:
                try:
                    self._append(f"{line}\n".encode())
                except OSError as error:
                    self.trouble = error

    def _append(self, data: bytes) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def _is_whole(self) -> bool:
        """Whether the file is new, or ends with a line: a process that was killed while it wrote may have left half of
        one."""
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                return file.read(1) in {b"", b"\n"}
        except FileNotFoundError:
            return True
