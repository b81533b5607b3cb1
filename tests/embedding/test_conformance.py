"""What an embedding has to do: the scripts for transports, where they apply."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from embedding.libraries import Library
from embedding.worlds import AUTHORITIES
from vastroute_testing import check_embedding
from vastroute_testing.conformance import Asyncio, Blocking, Feature

FIXED = {Feature.PIECES: "its time-out for a read is fixed when the request is sent"}
FINAL = {Feature.INTERIM: "http.client takes every status but 100 for the last one"}
LACKS: Mapping[str, Mapping[Feature, str]] = {
    "with_aiohttp.py": {
        Feature.CUTS: "what came shortly before the connection broke may be dropped",
        Feature.SURPLUS: "it takes bytes after an answer for a bad answer",
    },
    "with_httpx.py": FIXED,
    "with_httpx2.py": FIXED,
    "with_httpx_async.py": {},
    "with_niquests.py": FIXED,
    "with_requests.py": FIXED | FINAL,
    "with_urllib3.py": FIXED | FINAL,
}
"""What these libraries cannot do, and why."""


def test_does_what_a_transport_must(library: Library, tmp_path: Path) -> None:
    module, roots = library.load(), library.roots(AUTHORITIES, tmp_path)
    harness = Asyncio(virtual=False) if library.is_async else Blocking(virtual=False)

    report = check_embedding(
        lambda machine: module.drive(machine, roots), harness, name=library.name, lacks=LACKS[library.file]
    )

    report.raise_for_failures()
    assert len(report) - len(report.not_applicable) >= 70
