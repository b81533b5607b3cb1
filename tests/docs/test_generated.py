"""What the documentation shows of the code's tables is what the code has now."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR: dict[str, Any] = runpy.run_path(str(DOCS / "generate.py"))
PAGES: dict[str, str] = GENERATOR["pages"]()


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    path = DOCS / "generated" / name
    written = path.read_text("utf-8") if path.exists() else None
    assert written == PAGES[name], f"docs/generated/{name} is not what the code says: run python docs/generate.py"


def test_nothing_else_stands_among_them() -> None:
    assert {path.name for path in (DOCS / "generated").iterdir()} == set(PAGES)


def test_every_generated_page_is_shown_somewhere() -> None:
    shown = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    hidden = [name for name in PAGES if f"generated/{name}" not in shown and f"]({name})" not in shown]
    assert hidden == []
