"""What holds for every test: nobody sleeps, nothing hangs, and hypothesis has no deadline of its own.

Nobody dials out either: that is guarded by our own pytest plugin, with ``vast_no_network`` in ``pyproject.toml``. The
guards stand before any test module is imported. They see this process only: what a test starts as a program of its own
is on its honour.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import settings

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, print_blob=True, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "local")

LONGEST = 60.0
"""Seconds that a test may take by the wall's clock: many times what the slowest needs."""

_forbidden: list[str] = []
"""What the running test did that no test may: it fails, even where the error was swallowed on its way."""


class ForbiddenInTests(AssertionError):
    """A test slept."""


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    patch.setattr(time, "sleep", _guarded_sleep(time.sleep))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    _forbidden.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    with _time_limit():
        yield
    if _forbidden:
        pytest.fail("; ".join(_forbidden), pytrace=False)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Ends a test that takes too long where it stands, on systems that have the signal for it."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_number: int, _frame: object) -> None:
        pytest.fail(f"a test may not take longer than {LONGEST:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _guarded_sleep(original: Callable[[float], None]) -> Callable[[float], None]:
    def guarded(seconds: float) -> None:
        # The standard library may: `subprocess` sleeps between two looks at a program that is about to end.
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if seconds > 0 and caller not in sys.stdlib_module_names:
            what = f"a test may not sleep: time.sleep({seconds}) in {caller}"
            _forbidden.append(what)
            raise ForbiddenInTests(what)
        original(seconds)

    return guarded
