"""What an embedding has to do: the scripts for transports, where they apply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embedding.libraries import Library
from embedding.worlds import AUTHORITIES
from vastroute_testing import check_embedding
from vastroute_testing.conformance import Asyncio, Blocking, Feature

FIXED = "its time-out for a read is fixed when the request is sent"
LACKS: Mapping[str, Mapping[Feature, str]] = {
    "with_aiohttp.py": {Feature.SURPLUS: "it takes bytes after an answer for a bad answer"},
    "with_httpx_async.py": {},
    **{f"with_{name}.py": {Feature.PIECES: FIXED} for name in ("httpx", "httpx2", "niquests", "requests", "urllib3")},
}
"""What these libraries cannot do, and why."""


def test_does_what_a_transport_must(library: Library, tmp_path: Path) -> None:
    module, roots = library.load(), library.roots(AUTHORITIES, tmp_path)
    harness = Asyncio(virtual=False) if library.is_async else Blocking(virtual=False)

    report = check_embedding(
        lambda machine: module.drive(machine, roots), harness, name=library.name, lacks=LACKS[library.file]
    )

    report.raise_for_failures()
    assert len(report) - len(report.not_applicable) > 70
