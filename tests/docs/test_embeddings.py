"""The embeddings are as short as their page says, and it shows them all. What they do, ``tests/embedding`` shows."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "docs" / "embedding"
EMBEDDINGS = sorted(FOLDER.glob("with_*.py"))
MOST = 25
"""Lines of code, imports among them."""
_NO_CODE = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)


def code_lines(source: str) -> int:
    """Lines that hold code: all but empty ones, comments and docstrings."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            lines -= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return len(lines)


def test_lines_are_counted_as_people_would() -> None:
    assert code_lines('"""Text."""\n\n# why\nimport time\n\n\ndef now():\n    """What.\n\n    Why.\n    """\n') == 2
    assert code_lines("x = f(\n    1,  # one\n\n    # two\n    2,\n)\n") == 4
    assert code_lines('x = """a\nb"""\n') == 2


@pytest.mark.parametrize("path", EMBEDDINGS, ids=lambda path: str(path.stem))
def test_an_embedding_is_short(path: Path) -> None:
    assert code_lines(path.read_text("utf-8")) <= MOST


def test_the_page_shows_every_embedding_once() -> None:
    page = (FOLDER / "libraries.md").read_text("utf-8")
    shown = re.findall(r"^```\{literalinclude\} (\S+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(path.name for path in FOLDER.glob("*.py"))
    assert len(EMBEDDINGS) >= 7
