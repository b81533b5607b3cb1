"""Tests that are coroutines run in each world that they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import iscoroutinefunction

import pytest

from .worlds import ASYNCHRONOUS, WORLDS, BlockingWorld, World


@pytest.fixture(params=WORLDS, ids=lambda kind: kind.name)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A transport over memory streams, in virtual time."""
    made: World = request.param(virtual=True)
    yield made
    made.check()


@pytest.fixture
def one_world() -> Iterator[World]:
    """One of them, for what all of them leave to the core."""
    made = BlockingWorld(virtual=True)
    yield made
    made.check()


@pytest.fixture(params=ASYNCHRONOUS, ids=lambda kind: kind.name)
def tasks(request: pytest.FixtureRequest) -> Iterator[World]:
    """The same, where calls can be cancelled."""
    made: World = request.param(virtual=True)
    yield made
    made.check()


@pytest.fixture(params=ASYNCHRONOUS, ids=lambda kind: kind.name)
def socket_tasks(request: pytest.FixtureRequest) -> Iterator[World]:
    """A transport whose calls can be cancelled, over loopback sockets, in real time."""
    made: World = request.param(virtual=False)
    yield made
    made.check()


@pytest.fixture(params=WORLDS, ids=lambda kind: kind.name)
def sockets(request: pytest.FixtureRequest) -> Iterator[World]:
    """A transport over loopback sockets, in real time."""
    made: World = request.param(virtual=False)
    yield made
    made.check()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """A coroutine is run by its world, to its end."""
    if not iscoroutinefunction(pyfuncitem.obj):
        return None
    named = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    world = next(value for value in named.values() if isinstance(value, World))
    world.run(lambda: pyfuncitem.obj(**named))
    return True
