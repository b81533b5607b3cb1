"""The commands by name, and what holds for all of them: how they begin, and how they end."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TextIO

from cyclopts import App, CycloptsError

from vastroute import CallFailed, InvalidValue

from .call import call
from .demo import demo
from .engine import engine
from .exits import MEANINGS, Exit, exit_of, table
from .failures import say_error
from .lists import endpoints, workers
from .options import Json
from .output import help_console, say, write_json, write_line
from .route import route
from .verify import verify

_HELP = """Call Vast.ai's serverless GPU workers.

The key comes from VAST_API_KEY, or from the files where vastai keeps it; never from an argument. Results go to stdout,
everything else to stderr. To see all of it at work without an account: vastroute demo
"""


def exit_codes(*, json: Json = False) -> Exit:
    """Print every exit code and its meaning."""
    for code, meaning in MEANINGS.items():
        if json:
            write_json({"kind": "exit code", "code": code.value, "name": code.name.lower(), "meaning": meaning})
        else:
            write_line(f"{code.value:>3}  {meaning}")
    return Exit.DONE


_COMMANDS: tuple[Callable[..., Exit], ...] = (route, call, endpoints, workers, verify, engine, demo, exit_codes)


def start(tokens: Sequence[str]) -> int:
    """The whole process: `run`, with outputs that can take any text."""
    for stream in (sys.stdout, sys.stderr):
        if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
            reconfigure(errors="replace")
    return run(tokens)


def run(tokens: Sequence[str]) -> int:
    """Do what `tokens` say; the exit code."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = _say_warning
        try:
            done = make_app()(list(tokens))
            sys.stdout.flush()
        except CycloptsError:
            done = Exit.USAGE  # it has said why
        except CallFailed as error:
            say_error(error)
            done = exit_of(error)
        except InvalidValue as error:
            say_error(str(error))
            done = Exit.USAGE
        except KeyboardInterrupt:
            done = Exit.INTERRUPTED
        except BrokenPipeError:
            _close_stdout()
            done = Exit.OUTPUT_CLOSED
        except OSError as error:
            say_error(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
            done = Exit.MACHINE
    return Exit.DONE if done is None else int(done)


def make_app() -> App:
    """The parser. It is cheap to make: the commands import what is costly when they are run."""
    app = App(
        name="vastroute",
        help=_paragraphs(_HELP),
        help_format="plaintext",
        help_epilogue=f"Exit codes\n{table()}",
        version=_version,
        console=help_console(stderr=False),
        error_console=help_console(stderr=True),
        result_action="return_value",
        exit_on_error=False,
        suppress_keyboard_interrupt=False,
    )
    for number, command in enumerate(_COMMANDS):
        app.command(command, help=_paragraphs(command.__doc__ or ""), help_epilogue="", sort_key=number)
    return app


def _paragraphs(text: str) -> str:
    """A docstring with each paragraph on one line, for terminals of any width."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("vastroute")
    except PackageNotFoundError:
        return "unknown: it is not installed"


def _say_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    say(f"warning: {message}", "yellow")


def _close_stdout() -> None:
    """Nobody reads any more. Python flushes at its end, and must not fail over it."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return  # not a file of the system's
