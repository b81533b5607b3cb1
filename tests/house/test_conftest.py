"""The guards of ``conftest.py`` stop what they are for, and let pass what tests need."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HEAD = "import signal, subprocess, sys, time\nimport pytest\nfrom time import sleep\n"
FORBIDDEN = """
def test_sleeps(): time.sleep(0.001)
def test_sleeps_by_a_name_of_its_own(): sleep(0.001)
def test_hides_it():
    with pytest.raises(AssertionError):
        time.sleep(1)
def test_hangs():
    signal.setitimer(signal.ITIMER_REAL, 0.01)  # the limit, sooner
    while True:
        try: time.sleep(0)
        except Exception: pass
"""
ALLOWED = """
def test_yields(): time.sleep(0)
def test_waits_for_a_program(): subprocess.run([sys.executable, "-c", ""], timeout=60, check=True)
"""


@pytest.mark.parametrize(("tests", "word"), [(FORBIDDEN, "failed"), (ALLOWED, "passed")], ids=["forbidden", "allowed"])
def test_the_guards(tests: str, word: str, tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parent.parent / "conftest.py", tmp_path)
    (tmp_path / "test_guarded.py").write_text(HEAD + tests)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", ".", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    closing = done.stdout.splitlines()[-1]
    other = "passed" if word == "failed" else "failed"
    assert f"{tests.count('def test_')} {word}" in closing, done.stdout
    assert other not in closing, done.stdout
