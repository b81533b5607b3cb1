"""The help of every command, and the command where its extra is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vastroute_cli.app import _COMMANDS

from .shell import Shell

NAMES = tuple(command.__name__.replace("_", "-") for command in _COMMANDS)


def test_the_help_names_every_command(shell: Shell) -> None:
    done = shell("--help")
    assert done.code == 0
    assert [line.split()[1] for line in done.out.splitlines() if line[2:3].isalpha() and line[0] == "\u2502"] == [
        *NAMES
    ]
    assert shell().out == done.out


@pytest.mark.parametrize("name", NAMES)
def test_help(shell: Shell, name: str) -> None:
    done = shell(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: vastroute {name}")
    assert max(map(len, done.out.splitlines())) <= 100
    assert "--json" in done.out
    # Keys come from the environment and from files; only the simulated engine's test key is an argument.
    assert ("--api-key" in done.out) == (name == "engine")


def test_the_version(shell: Shell) -> None:
    assert shell("--version").code == 0


@pytest.mark.parametrize("module", ["cyclopts", "rich"])
@pytest.mark.parametrize("how", ["import vastroute_cli", "from vastroute_cli import __main__ as vastroute_cli"])
def test_without_the_extra(module: str, how: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None; {how}; sys.exit(vastroute_cli.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"the command vastroute needs {module}: pip install 'vastroute[cli]'\n"
