"""What holds for every test: nobody dials out, nobody sleeps, nothing hangs, and hypothesis has no deadline of its own.

The guards stand before any test module is imported. They see this process only: what a test starts as a program of its
own is on its honour.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Any

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
    """A test dialled out or slept."""


def pytest_configure(config: pytest.Config) -> None:
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in ("connect", "connect_ex", "sendto"):
        patch.setattr(socket.socket, name, _guarded_address(name, getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        patch.setattr(socket, name, _guarded_name(name, getattr(socket, name)))
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


def _refuse(what: str) -> None:
    _forbidden.append(what)
    raise ForbiddenInTests(what)


def _is_loopback(host: object) -> bool:
    try:
        address = ip_address(host if isinstance(host, str) else "")
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _needs_no_look_up(host: object) -> bool:
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else host
    try:
        ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return text in (None, "", "localhost")
    return True


def _guarded_address(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, *args: Any) -> Any:
        address = args[-1]
        if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_loopback(address[0]):
            _refuse(f"a test may reach loopback only: socket.{name} to {address}")
        return original(self, *args)

    return guarded


def _guarded_name(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: Any, *args: Any, **named: Any) -> Any:
        if not _needs_no_look_up(host):
            _refuse(f"a test may look up no name: socket.{name} of {host!r}")
        return original(host, *args, **named)

    return guarded


def _guarded_sleep(original: Callable[[float], None]) -> Callable[[float], None]:
    def guarded(seconds: float) -> None:
        # The standard library may: `subprocess` sleeps between two looks at a program that is about to end.
        caller = sys._getframe(1).f_globals.get("__name__", "").partition(".")[0]
        if seconds > 0 and caller not in sys.stdlib_module_names:
            _refuse(f"a test may not sleep: time.sleep({seconds}) in {caller}")
        original(seconds)

    return guarded
