"""The libraries, and how the tests drive a machine with each: what its page shows, loaded from its file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing, closing
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from vastroute import Phase
from vastroute_testing import TestAuthority

FOLDER = Path(__file__).parents[2] / "docs" / "embedding"
LONGEST_WAIT = 0.5
"""Seconds: no pause in these tests is longer."""


def load(file: str) -> ModuleType:
    """The module that the page shows, afresh."""
    spec = spec_from_file_location(file.removesuffix(".py"), FOLDER / file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@attrs.frozen
class Library:
    """How one library is used, and what it cannot do."""

    name: str
    file: str
    """What its page shows."""
    is_async: bool = False
    takes_files: bool = False
    """Whether it takes roots as files, not as an SSL context."""

    @property
    def is_here(self) -> bool:
        """Whether it is installed."""
        return find_spec(self.name) is not None

    def load(self) -> ModuleType:
        """The page's module, afresh."""
        module = load(self.file)
        if not self.is_async:
            vars(module)["sleep"] = _pause  # a test may not sleep: it may wait a moment
        return module

    def roots(self, authorities: Mapping[Phase, TestAuthority], folder: Path) -> dict[Phase, Any]:
        """Whom to trust in each phase, as the library takes it."""
        if not self.takes_files:
            return {phase: authority.client_context() for phase, authority in authorities.items()}
        files = {phase: folder / f"{phase.value}.pem" for phase in authorities}
        for phase, file in files.items():
            file.write_bytes(authorities[phase].pem)
        return {phase: str(file) for phase, file in files.items()}

    def drive(
        self, machine: Any, roots: Mapping[Phase, Any], *, settled: Callable[[], object], most: int | None = None
    ) -> list[Any]:
        """The events that came, at most so many; raises what ended the call. `settled` returns when all is closed."""
        module = self.load()
        if self.is_async:
            return asyncio.run(_take_async(module.drive(machine, roots), most, settled))
        events = []
        with closing(module.drive(machine, roots)) as stream:
            for event in stream:
                events.append(event)
                if len(events) == most:
                    break
        return events


async def _take_async(stream: Any, most: int | None, settled: Callable[[], object]) -> list[Any]:
    events = []
    try:
        async with aclosing(stream):
            async for event in stream:
                events.append(event)
                if len(events) == most:
                    break
    finally:
        # aiohttp closes TLS in the background, so a loop that ends at once would leave sockets open.
        await asyncio.to_thread(settled)
        for _ in range(3):
            await asyncio.sleep(0)
    return events


def _pause(seconds: float) -> None:
    assert seconds <= LONGEST_WAIT
    threading.Event().wait(seconds)


LIBRARIES = (
    Library("requests", "with_requests.py", takes_files=True),
    Library("urllib3", "with_urllib3.py"),
    Library("httpx", "with_httpx.py"),
    Library("httpx", "with_httpx_async.py", is_async=True),
    Library("httpx2", "with_httpx2.py"),
    Library("aiohttp", "with_aiohttp.py", is_async=True),
    Library("niquests", "with_niquests.py", takes_files=True),
)
