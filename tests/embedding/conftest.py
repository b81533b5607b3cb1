"""The embeddings of ``docs/embedding`` with the real libraries. They are installed for these tests alone, in an
environment of their own; where one of them is missing, nothing is collected here::

    python -m venv .venv-embed && .venv-embed/bin/pip install -e '.[test,embed]'
    .venv-embed/bin/python -m pytest tests/embedding

niquests is asked for by itself, since its urllib3-future takes the place of urllib3, under requests too. Without it
its tests are skipped; with it all are run on urllib3-future.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding.libraries import LIBRARIES, Library
from embedding.worlds import PROXIES, World

collect_ignore_glob = [] if all(each.is_here for each in LIBRARIES if each.name != "niquests") else ["test_*.py"]


@pytest.fixture(
    params=[
        pytest.param(
            each,
            id=each.file.removeprefix("with_").removesuffix(".py"),
            marks=() if each.is_here else pytest.mark.skip(f"{each.name} is not installed"),
        )
        for each in LIBRARIES
    ]
)
def library(request: pytest.FixtureRequest) -> Library:
    found: Library = request.param
    return found


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxies and no netrc of the machine that this runs on."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.fixture
def world(library: Library, tmp_path: Path) -> Iterator[World]:
    gc.freeze()  # what was there before is not looked at, which would take longer than most of these tests
    yield World(library, tmp_path)
    gc.collect()  # what was left open is said when it is collected: that has to be in the test that left it
    gc.unfreeze()
