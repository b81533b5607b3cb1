"""Every call of the command that the documentation shows is one that the command takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vastroute_cli.app import make_app

ROOT = Path(__file__).parents[2]


def _commands() -> Iterator[str]:
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        for block in re.findall(r"^```console\n(.*?)^```$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL):
            for part in re.split(r"\n| && ", block):
                if part.startswith("vastroute "):
                    yield part


COMMANDS = sorted(set(_commands()))


def test_the_documentation_shows_commands() -> None:
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_is_shown_exists(command: str) -> None:
    make_app().parse_args(shlex.split(command)[1:], print_error=False, exit_on_error=False)
