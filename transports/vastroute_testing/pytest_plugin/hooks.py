"""The hooks that a test of ours needs. They are registered when the first comes, so that nobody else's tests pay."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Generator
from typing import final

import pytest

from .world import WORLD

MARKS = frozenset({"vast_endpoint", "vast_faults"})
"""The marks that `vast_engine` heeds."""
_OTHERS = ("anyio", "asyncio", "trio")
"""Marks by which other plugins take a coroutine function as theirs."""


@final
class Hooks:
    """A plugin of pytest's."""

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        world = item.stash.get(WORLD, None)
        applied = frozenset() if world is None else world.applied
        for mark in item.own_markers:
            if mark.name in MARKS - applied:
                pytest.fail(f"the mark {mark.name} has no effect: the test does not use our vast_engine", pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> bool | None:
        world = pyfuncitem.stash.get(WORLD, None)
        if world is None or not world.runners or not inspect.iscoroutinefunction(pyfuncitem.obj):
            return None
        if any(pyfuncitem.get_closest_marker(name) for name in _OTHERS):
            return None
        if len(world.runners) > 1:
            pytest.fail("a coroutine function cannot use both of vast_trio and vast_asyncio", pytrace=False)
        names = inspect.signature(pyfuncitem.obj).parameters
        arguments = {name: value for name, value in pyfuncitem.funcargs.items() if name in names}
        world.runners[0](functools.partial(pyfuncitem.obj, **arguments))
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        world = item.stash.get(WORLD, None)
        if world is not None and report.failed:
            world.failed = True
            if text := world.conversation():
                report.sections.append(("vastroute conversation", text))
        return report
