"""What a call is doing, told on stderr while it lasts: a line that lives on a terminal, plain lines without one."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import Self, final

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from vastroute import Entry, EntryKind, Phase, Why

from .output import error_console, say, visible

_OVER = frozenset({EntryKind.STREAMING, EntryKind.ANSWERED, EntryKind.GAVE_UP, EntryKind.CANCELLED})


def breakdown(status: str) -> str:
    """The engine's account of its workers in words, whichever way it gave it: ``1 loading, 2 created``."""
    if status.startswith("{"):
        try:
            counts = json.loads(status)
        except ValueError:
            return status
        return ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "total") or "none"
    return status


@final
class Progress:
    """Watches one call: the client's ``observer``. Use it as ``with Progress() as progress``."""

    def __init__(self) -> None:
        self.request_idx: int | None = None
        """The request's number at the engine, as far as it was given."""
        self._console = error_console()
        self._live: Live | None = None
        self._spinner = Spinner("dots")
        self._offset = 0.0
        self._began_at = 0.0
        self._started = False
        self._waited = False
        self._doing = self._told = self._workers = ""

    def __call__(self, entry: Entry) -> None:
        """Take note of what happened."""
        if entry.phase is Phase.LOOKUP:
            return
        self.request_idx = entry.request_idx or self.request_idx
        if not self._started:
            self._started, self._began_at = True, entry.at
        if entry.kind is EntryKind.NOT_READY:
            self._workers = f": {breakdown(entry.detail)}" if entry.detail else ""
        elif entry.kind is EntryKind.WAITING and entry.detail == Why.POLL.value:
            self._waited = True
            self._doing_now(f"waiting for a worker{self._workers}", entry.at)
        elif entry.kind is EntryKind.TROUBLE:
            self._tell(f"{_status(entry)}{entry.detail}; asking again", entry.at)
        elif entry.kind is EntryKind.WORKER_LOST:
            self._tell(f"{_status(entry)}{entry.detail}; asking for another with the same request_idx", entry.at)
        elif entry.kind is EntryKind.INDEX_CHANGED:
            self._tell(f"the engine changed the request_idx {entry.detail}", entry.at)
        elif entry.kind is EntryKind.GRANTED:
            if self._waited:
                self._tell(f"worker {entry.detail} is ready", entry.at)
        elif entry.kind is EntryKind.SENT:
            self._doing_now("the worker is at work", entry.at, quiet=True)
        elif entry.kind in _OVER:
            self.stop()

    def stop(self) -> None:
        """Leave the terminal to others."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if kind is KeyboardInterrupt:
            going_on = f"; --request-idx {self.request_idx} goes on with this request" if self.request_idx else ""
            say(f"interrupted{going_on}")

    def _tell(self, text: str, at: float) -> None:
        if text == self._told:
            return
        self._told = text
        # By the console of the living line, which makes room for it.
        self._console.print(Text(visible(f"{text} ({at - self._began_at:.0f} s)"), style="dim"))

    def _doing_now(self, text: str, at: float, *, quiet: bool = False) -> None:
        """Show what goes on; without a terminal only if it is news and not `quiet`."""
        changed = text != self._doing
        self._doing = text
        if not self._console.is_terminal or self._console.is_dumb_terminal:
            if changed and not quiet:
                self._tell(text, at)
        elif self._live is None:
            # The call's clock, as it stands when this is drawn.
            self._offset = time.monotonic() - at
            self._live = Live(
                console=self._console,
                get_renderable=self._draw,
                refresh_per_second=8,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def _draw(self) -> Spinner:
        seconds = time.monotonic() - self._offset - self._began_at
        self._spinner.update(text=Text(f"{visible(self._doing)} ({seconds:.0f} s)", style="dim"))
        return self._spinner


def _status(entry: Entry) -> str:
    return "" if entry.status is None else f"HTTP {entry.status}: "
