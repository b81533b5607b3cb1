"""A shell for each test, with an engine of its own and an environment without anything of the developer's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .shell import ENDPOINT_KEY, Shell, loopback, make_engine


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no proxy, no terminal, no home but an empty one."""
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith(("VAST", "XDG_", "FORCE_COLOR", "NO_COLOR", "TTY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]) -> Iterator[Shell]:
    """A shell that has the endpoint's key, and knows the engine's address."""
    engine = make_engine()
    with loopback(engine) as running:
        for number, worker in enumerate(engine.workers):
            worker.url = str(running.origins[f"{number}"])
        url = str(running.origins["engine"])
        monkeypatch.setenv("VAST_API_KEY", ENDPOINT_KEY)
        monkeypatch.setenv("VAST_ROUTE_URL", url)
        yield Shell(engine, url, capsysbinary)
        running.wait_idle()
