"""The pages lead where they say, and leave out no public name."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md")))
PUBLIC = ("vastroute", "vastroute_io.asyncio", "vastroute_io.blocking", "vastroute_io.trio", "vastroute_testing")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_DIRECTIVE = re.compile(r"^\.\. auto[a-z]+:: (\S+)$", re.MULTILINE)


def _prose(path: Path) -> str:
    return re.sub(r"^```.*?^```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", _prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(path)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("module", PUBLIC)
def test_the_reference_holds_every_public_name_once(module: str) -> None:
    described = [
        name.removeprefix(f"{module}.")
        for path in (ROOT / "docs" / "api").glob("*.md")
        for name in _DIRECTIVE.findall(path.read_text("utf-8"))
        if name.rpartition(".")[0] == module
    ]
    here = import_module(module)
    public = [name for name in here.__all__ if not inspect.ismodule(getattr(here, name))]
    assert sorted(described) == sorted(public)


def test_the_readme_holds_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert "python -m pip install -e '.[cli]' && vastroute demo\n" in text
    assert "python -m pip install -e '.[test]' && python -m pytest\n" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_are_about_the_project_and_no_machine(path: Path) -> None:
    text = path.read_text("utf-8")
    assert re.findall(r"/(?:work|home|root|tmp|opt|usr)/\S*|\bpypi\.org\S*|\t|\r", text) == []
