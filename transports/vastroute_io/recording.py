"""Conversations written to a file with what is private left out, to be replayed in tests.

A recorder stands between a driver and its machine, where all transports meet: it sees requests, answers and failures as
the machine does, and its times are the machine's. `vastroute_testing.replay` plays a file to any client.

The file is JSON Lines: one line for each call that is over, written at once, so that a crash costs one line
at most. The format, version 1, is described under "Recording and replaying" in the documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

from vastroute import ENGINE, InvalidValue, Machine, Origin, Verifier

T = TypeVar("T")
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
        from .recording_file import RecordingFile  # here, since every client imports this and few record

        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidValue("most must be a whole number of bytes, at least 1")
        self.path: Path = Path(path)
        """The file."""
        self.keep_payloads: bool = keep_payloads
        """Whether payloads are written down."""
        self.keep_answers: bool = keep_answers
        """Whether the bodies of workers' answers are written down."""
        self.most: int = most
        """Bytes of memory for one call, about."""
        try:
            self._file = RecordingFile(self.path)
        except OSError as error:
            raise InvalidValue(f"the recording cannot be written: {error.strerror or type(error).__name__}") from None

    @property
    def trouble(self) -> OSError | None:
        """Why nothing is written any more, if so."""
        return self._file.trouble

    def record(
        self,
        machine: Machine[T],
        *,
        engine: Origin = ENGINE,
        verifier: Verifier | None = None,
    ) -> Machine[T]:
        """A machine that does what `machine` does, and is written down when it is over. Drive it in its place.

        `verifier` finds out in which form grants are signed, so that a replay signs in the same.
        """
        from .recorded import Recorded

        return Recorded(
            machine,
            self._file,
            engine=engine,
            verifier=verifier,
            keep_payloads=self.keep_payloads,
            keep_answers=self.keep_answers,
            most=self.most,
        )

    def draws(self, rng: Callable[[], float]) -> Callable[[], float]:
        """`rng`, with its draws written down for the machine that draws: a replay with the same ones pauses as long."""
        return partial(self._file.draw, rng)
