"""Where words go: results to stdout, everything else to stderr. No colour without a terminal, or with ``NO_COLOR``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.json import JSON
from rich.table import Table
from rich.text import Text

_WIDE = 10_000
# What a terminal obeys stays on this side of it: all control characters but tab and line end.
_VISIBLE = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


class _Console(Console):
    """Leaves it to `vastroute_cli.app.run` what is done when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """See there."""
        raise BrokenPipeError


def console() -> Console:
    """For stdout as it is now."""
    return _console(stderr=False)


def error_console() -> Console:
    """For stderr as it is now."""
    return _console(stderr=True)


def help_console(*, stderr: bool) -> Console:
    """The same for help, which is wrapped wherever it goes."""
    return _Console(stderr=stderr)


def _console(*, stderr: bool) -> Console:
    made = _Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = _WIDE  # nobody's columns: what is piped is never cut or wrapped
    return made


def visible(text: str) -> str:
    """`text` without what a terminal would obey instead of showing it."""
    return text.translate(_VISIBLE)


def say(text: str, style: str = "") -> None:
    """A line for the person at the terminal, on stderr."""
    error_console().print(Text(visible(text), style=style))


def write_line(text: str = "", style: str = "") -> None:
    """A line of a result."""
    console().print(Text(visible(text), style=style), soft_wrap=True)


def write_json(value: Mapping[str, Any], **texts: str) -> None:
    """One JSON object on one line, at once: whoever reads it may be waiting for it. `texts` are JSON already."""
    line = json.dumps(value)
    for name, text in texts.items():
        line = f"{line[:-1]}, {json.dumps(name)}: {text}}}"
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def write_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """A name and what it stands for on each line, aligned."""
    shown = [(name, visible(text)) for name, text in pairs]
    width = max(len(name) for name, _ in shown) + 2
    for name, text in shown:
        console().print(Text.assemble((name.ljust(width), "dim"), text), soft_wrap=True)


def write_value(value: Any) -> None:
    """A JSON value for people: indented, and coloured where colours are."""
    shown = JSON(json.dumps(value), ensure_ascii=False).text
    shown.plain = visible(shown.plain)
    console().print(shown, soft_wrap=True)


def write_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[str] = ()) -> None:
    """A table; the columns in `right` hold numbers."""
    shown = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in heads:
        shown.add_column(head, justify="right" if head in right else "left", no_wrap=True)
    for row in rows:
        shown.add_row(*(Text(visible(cell)) for cell in row))
    console().print(shown)


def plural(number: int, one: str, many: str = "") -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number} {one}" if number == 1 else f"{number} {many or one + 's'}"


def duration(seconds: float) -> str:
    """``0.02 s``, ``3.5 s``."""
    return f"{seconds:.{1 if seconds >= 1 else 2}f} s"
