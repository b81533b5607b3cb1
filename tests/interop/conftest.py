"""Tests beside Vast.ai's own programs, as the package ``vastai`` has them. It pins its dependencies, so they run in an
environment of their own, and where it is not installed nothing is collected here::

    python -m venv .venv-interop && .venv-interop/bin/pip install -e '.[test]' -r tests/interop/requirements.txt
    .venv-interop/bin/python -m pytest tests/interop
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from interop.stage import Stage, open_stage

collect_ignore_glob = [] if find_spec("vastai") else ["test_*.py"]


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Two official workers behind our engine, in front of our models."""
    with open_stage(tmp_path_factory.mktemp("stage")) as ready:
        yield ready
