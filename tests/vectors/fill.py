"""Write down what the library says of the rows that expect nothing yet: ``python -m vectors.fill``, run in ``tests``.

What it writes is a proposal. Hold it against the facts and the rules (``docs/wire.md``, ``docs/vectors.md``) before it
becomes a vector; what a row expects already is never changed. All files come out in one form of writing.
"""

from __future__ import annotations

from .files import FOLDER, Row, load, written
from .readers import READERS, read


def main() -> None:
    """Fill every file."""
    for name in READERS:
        file = load(name)
        for row in file["rows"]:
            if "expect" not in row:
                row["expect"] = read(name, Row(row))
        (FOLDER / name).write_text(written(file) + "\n", "utf-8")


if __name__ == "__main__":
    main()
