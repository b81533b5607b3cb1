"""The guard that keeps tests on this machine: what dials out, or looks up a name, fails its test."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Any, Self, final

import pytest


class DialledOut(AssertionError):
    """A test was about to leave this machine."""


@final
class NetworkGuard:
    """While it is entered, sockets lead to loopback only. It is a plugin too: it fails the test that tried otherwise,
    even where the error was swallowed on its way.

    It sees this process only, and what goes through Python's `socket`.
    """

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._entered = 0
        self._is_allowed = False
        self._refused: list[str] = []

    def __enter__(self) -> Self:
        self._entered += 1
        if self._entered == 1:
            for name in ("connect", "connect_ex", "sendto", "sendmsg"):
                self._patch.setattr(socket.socket, name, self._to_address(name, getattr(socket.socket, name)))
            for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
                self._patch.setattr(socket, name, self._of_name(name, getattr(socket, name)))
            for name in ("gethostbyaddr", "getnameinfo"):
                self._patch.setattr(socket, name, self._of_address(name, getattr(socket, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._entered -= 1
        if not self._entered:
            self._patch.undo()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        self._is_allowed = item.get_closest_marker("vast_network") is not None
        self._refused.clear()  # of what stood between the tests
        yield
        self._check()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if _is_refusal(error):
                self._refused.clear()  # it says so itself
            raise
        self._check()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Iterator[None]:
        yield
        self._is_allowed = False
        self._check()

    def _check(self) -> None:
        refused = "; ".join(self._refused)
        self._refused.clear()
        if refused:
            pytest.fail(refused, pytrace=False)

    def _refuse(self, what: str) -> None:
        message = f"{what}: give the client a connect from vastroute's fixtures, or mark the test vast_network"
        self._refused.append(message)
        raise DialledOut(message)

    def _to_address(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        at = 3 if name == "sendmsg" else -1

        def guarded(this: socket.socket, *args: Any) -> Any:
            address = args[at] if len(args) > at else None
            host = address[0] if isinstance(address, tuple) and address else None
            is_internet = this.family in (socket.AF_INET, socket.AF_INET6)
            if host is not None and is_internet and not self._is_allowed and not _is_loopback(host):
                self._refuse(f"a test may reach loopback only, not {host!r} (socket.{name})")
            return original(this, *args)

        return guarded

    def _of_name(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(host: Any, *args: Any, **named: Any) -> Any:
            if not self._is_allowed and not _needs_no_look_up(host):
                self._refuse(f"a test may look up no name, not {host!r} (socket.{name})")
            return original(host, *args, **named)

        return guarded

    def _of_address(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(address: Any, *args: Any) -> Any:
            host = address[0] if isinstance(address, tuple) and address else address
            is_number = name == "getnameinfo" and args and args[0] & socket.NI_NUMERICHOST
            # A server of the standard library asks for the name of this machine, to have one.
            if not self._is_allowed and not is_number and not _is_loopback(host) and host != socket.gethostname():
                self._refuse(f"a test may look up no name, not that of {host!r} (socket.{name})")
            return original(address, *args)

        return guarded


def _is_refusal(error: BaseException) -> bool:
    """Whether it is ours, be it in a group."""
    if isinstance(error, BaseExceptionGroup):
        return any(_is_refusal(each) for each in error.exceptions)
    return isinstance(error, DialledOut)


def _is_loopback(host: object) -> bool:
    text = _text(host)
    try:
        address = ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return text == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _needs_no_look_up(host: object) -> bool:
    text = _text(host)
    try:
        ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return text in (None, "", "localhost")
    return True


def _text(host: object) -> object:
    return host.decode("ascii", "replace") if isinstance(host, bytes | bytearray) else host
