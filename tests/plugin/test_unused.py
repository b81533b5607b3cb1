"""Who uses none of it notices nothing; and who uses all of it, the example project, passes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from .inner import PLUGIN

ROOT = Path(__file__).parents[2]
NOBODY = """
import json, sys
def test():
    with open("modules.json", "w") as file:
        json.dump(sorted(sys.modules), file)
"""


def _pytest(folder: Path, *args: str) -> str:
    """What pytest prints, run by itself in `folder`, where every test passes."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    here = os.pathsep.join(os.path.abspath(path) for path in paths if path)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def _unused(folder: Path, *args: str) -> tuple[list[str], set[str]]:
    """What a run prints, times and names of plugins aside, and what modules it loads."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_nobody.py").write_text(NOBODY)
    printed = _pytest(folder, *args).splitlines()
    lines = [line for line in printed if not line.startswith(("=", "plugins:"))]
    return lines, set(json.loads((folder / "modules.json").read_text("utf-8")))


def test_nothing_is_printed_and_nothing_loaded(tmp_path: Path) -> None:
    said, modules = _unused(tmp_path, "-p", PLUGIN, "-p", PLUGIN)  # twice, which is no mistake
    said_without, modules_without = _unused(tmp_path, "-p", f"no:{PLUGIN}")
    assert said == said_without
    assert modules - modules_without == {"vastroute_testing", PLUGIN}


def test_the_entry_point_is_named_as_the_module() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {PLUGIN: PLUGIN}


def test_the_example_project_passes() -> None:
    assert " passed in " in _pytest(ROOT / "docs" / "example", "-p", PLUGIN)
