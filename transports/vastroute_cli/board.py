"""The demo's requests on the way: a table that lives on a terminal, plain lines without one, or lines of JSON."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, final

from rich.live import Live
from rich.table import Table
from rich.text import Text

from .output import console, visible, write_json, write_line
from .rows import Row
from .script import ENDPOINTS, End

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_COLUMNS = (
    ("request", "left", 11),
    ("phase", "left", 29),
    ("request_idx", "right", 11),
    ("polls", "right", 5),
    ("retries", "right", 7),
    ("worker", "right", 6),
    ("reqnum", "right", 6),
    ("signature", "left", 9),
    ("seconds", "right", 7),
)
"""Name, side and width of each column; 99 in all."""
_LEFT_OUT = ("signature", "reqnum", "worker")
"""What a narrow terminal does without, in this order."""
_STYLES = {End.GRANTED: "green", End.ANSWERED: "green", End.PERHAPS_STARTED: "yellow", End.FAILED: "red"}


class Board(Protocol):
    """What shows the requests while they last."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def show(self, rows: Sequence[Row]) -> None:
        """These are the requests; they begin now."""

    def changed(self, row: Row) -> None:
        """A request is in another phase, or over."""


def board(*, json: bool) -> Board:
    """The one for this output."""
    if json:
        return JsonBoard()
    here = console()
    return LiveBoard(here) if here.is_terminal and not here.is_dumb_terminal else PlainBoard()


class _Quiet:
    """A board that leaves nothing open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return

    def show(self, rows: Sequence[Row]) -> None:
        """Nothing has happened yet."""


@final
class JsonBoard(_Quiet):
    """One JSON object for each request, when it is over."""

    def changed(self, row: Row) -> None:
        """See `Board`."""
        if row.end is not None:
            write_json(row.as_json())


@final
class PlainBoard(_Quiet):
    """One line for each phase."""

    def __init__(self) -> None:
        self._last: dict[Row, str] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """See `Board`."""
        for name, meaning in ENDPOINTS.items():
            write_line(f"{name:<5} {meaning}")
        write_line()
        write_line("seconds    #  endpoint  what    request_idx  phase")

    def changed(self, row: Row) -> None:
        """See `Board`."""
        if self._last.get(row) == row.phase:
            return
        self._last[row] = row.phase
        scripted, index = row.scripted, row.request_idx or ""
        place = f" at {row.place}" if row.phase == "working" else ""
        write_line(
            f"{row.seconds:7.2f}  {scripted.number:3}  {scripted.endpoint:<8}  {scripted.what.value:<6}"
            f"  {index:>11}  {row.phase}{place}"
        )


@final
class LiveBoard:
    """The table, drawn anew all the time; what does not fit on the terminal is counted. At the end it stays, whole."""

    def __init__(self, here: Console) -> None:
        self._console = here
        self._rows: Sequence[Row] = ()
        self._live = Live(console=here, get_renderable=self._draw, refresh_per_second=12, transient=True)

    def show(self, rows: Sequence[Row]) -> None:
        """See `Board`."""
        self._rows = rows

    def changed(self, row: Row) -> None:
        """See `Board`: it is drawn when it is time to."""

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()
        self._console.print(table(self._rows, self._console.width))

    def _draw(self) -> RenderableType:
        # Two lines for the heads and for what does not fit, one to spare.
        room = max(3, self._console.height - 3)
        if len(self._rows) <= room:
            return table(self._rows, self._console.width)
        waiting = [row for row in self._rows if row.end is None]
        over = [row for row in self._rows if row.end is not None]
        shown = (waiting + over[::-1])[:room]
        drawn = table([row for row in self._rows if row in shown], self._console.width)
        drawn.caption = f"and {len(self._rows) - len(shown)} more, {len(over)} of all {len(self._rows)} over"
        return drawn


def table(rows: Sequence[Row], width: int) -> Table:
    """The requests, one on each line, on a terminal of so many columns."""
    columns = [(name, justify, size) for name, justify, size in _COLUMNS]
    for name in _LEFT_OUT:
        if sum(size + 1 for _, _, size in columns) - 1 > width:
            columns = [column for column in columns if column[0] != name]
    made = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", caption_justify="left")
    for name, justify, size in columns:
        right = justify == "right"
        made.add_column(name, justify="right" if right else "left", no_wrap=True, width=size, overflow="ellipsis")
    for row in rows:
        cells = _cells(row)
        made.add_row(*(cells[name] for name, _, _ in columns))
    return made


def _cells(row: Row) -> dict[str, Text]:
    verdict = row.verdict
    phase, style = row.phase, "" if row.end is None else _STYLES[row.end]
    if row.end is None and row.tokens:
        phase, style = f"{phase}: {row.tokens} tokens", "cyan"
    elif row.end is not None and row.differences():
        style = "red"
    values = {
        "request": (f"{row.scripted.endpoint} {row.scripted.what.value}", ""),
        "phase": (phase, style),
        "request_idx": (f"{row.request_idx or ''}", ""),
        "polls": (f"{row.polls or ''}", ""),
        "retries": (f"{row.retries or ''}", ""),
        "worker": (row.place, ""),
        "reqnum": (f"{row.reqnum or ''}", ""),
        "signature": ("", "") if verdict is None else (verdict.reason.value, "green" if verdict.verified else "yellow"),
        "seconds": (f"{row.seconds:.2f}", "dim" if row.end is None else ""),
    }
    return {name: Text(visible(value), style=style) for name, (value, style) in values.items()}
