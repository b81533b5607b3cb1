"""Conversations written to a file with what is private left out, to be replayed in tests.

A recorder stands between a driver and its machine, where all transports meet: it sees requests, answers and failures as
the machine does, and its times are the machine's. `vastroute_testing.replay` plays a file to any client.

The file is JSON Lines: one line for each call that is over, written at once, so that a crash costs one line
at most. The format, version 1, is described under "Recording and replaying" in the documentation.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, final

from vastroute import CONSOLE, ENGINE, InvalidValue, Machine, Origin, Verifier

if TYPE_CHECKING:
    from .bodies import Form
    from .redaction import Names

T = TypeVar("T")
VERSION: Final = 1
"""The version of the format."""
STOPPED: Final = " (its writer was stopped)"
"""What is put to the end of half a line, when the next recorder comes: no whole line ends with it."""
_MOST: Final = 16 * 1024 * 1024


@final
class Recorder:
    """Writes the conversations of one or more clients to the file at `path`, a line for each call that is over.

    What is written is decided by lists of what is kept (`vastroute_io.redaction`): the protocol's own numbers and
    names, statuses, times, and the shapes of bodies. Keys, signatures, payloads and answers are not, workers get
    addresses reserved for documentation, and sessions and ids get numbers. `keep_payloads` and `keep_answers` write
    down what was sent to workers, and what they answered: look at the file before you show it to anybody. The names of
    endpoints, and the routes without their queries, are always kept.

    A call's conversation is held in memory until the call is over, in about `most` bytes; what is longer is marked as
    cut short, and cannot be replayed.

    Pass it as the `recorder` of a client, or hand `record` a machine that you drive yourself. Threads may share one.
    The file is created for its owner alone; one that is there already is added to, and stays as open as it is. Raises
    `InvalidValue` if it cannot be written. A failure later on does not disturb a call that is paid for: it is kept in
    `trouble`, and nothing more is written.
    """

    def __init__(
        self, path: str | Path, *, keep_payloads: bool = False, keep_answers: bool = False, most: int = _MOST
    ) -> None:
        from .redaction import Names  # here, since every client imports this and few record

        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidValue("most must be a whole number of bytes, at least 1")
        self.path: Path = Path(path)
        """The file."""
        self.trouble: OSError | None = None
        """Why nothing is written any more, if so."""
        self.keep_payloads: bool = keep_payloads
        """Whether payloads are written down."""
        self.keep_answers: bool = keep_answers
        """Whether the bodies of workers' answers are written down."""
        self.most: int = most
        """Bytes of memory for one call, about."""
        self._names = Names()
        self._lock = threading.Lock()
        self._drawing = threading.local()
        self._epoch: float | None = None
        try:
            self._append(b"" if self._is_whole() else f"{STOPPED}\n".encode())
        except OSError as error:
            raise InvalidValue(f"the recording cannot be written: {error.strerror or type(error).__name__}") from None

    def record(
        self,
        machine: Machine[T],
        *,
        engine: Origin = ENGINE,
        console: Origin | None = CONSOLE,
        verifier: Verifier | None = None,
    ) -> Machine[T]:
        """A machine that does what `machine` does, and is written down when it is over. Drive it in its place.

        `verifier` finds out in which form grants are signed, so that a replay signs in the same.
        """
        from .recorded import Recorded

        return Recorded(machine, self, engine=engine, console=console, verifier=verifier)

    def draws(self, rng: Callable[[], float]) -> Callable[[], float]:
        """`rng`, with its draws written down for the machine that draws: a replay with the same ones pauses as long."""

        def draw() -> float:
            drawn = rng()
            into: list[float] | None = getattr(self._drawing, "into", None)
            if into is not None:
                into.append(drawn)
            return drawn

        return draw

    # For machines that are recorded

    @contextmanager
    def _drawing_into(self, into: list[float]) -> Iterator[None]:
        """What is drawn in this block, in this thread, is noted in `into`."""
        self._drawing.into = into
        try:
            yield
        finally:
            self._drawing.into = None

    def _began(self, now: float) -> float:
        """When a call began, on this recorder's clock, which began with its first call."""
        with self._lock:
            if self._epoch is None:
                self._epoch = now
            return now - self._epoch

    def _locked(self, describe: Callable[[Names], T]) -> T:
        """What `describe` gives: one at a time, since names are given out there."""
        with self._lock:
            return describe(self._names)

    def _write(self, described: Form) -> None:
        """One line for a call that is over."""
        line = json.dumps({"vastroute": "recording", "version": VERSION} | described)
        with self._lock:
            if self.trouble is None:
                try:
                    self._append(f"{line}\n".encode())
                except OSError as error:
                    self.trouble = error

    def _append(self, data: bytes) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            if os.write(file, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(file)

    def _is_whole(self) -> bool:
        """Whether the file is new, or ends with a line: a process that was killed while it wrote may have left half of
        one."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                return file.read(1) in {b"", b"\n"}
        except FileNotFoundError:
            return True
