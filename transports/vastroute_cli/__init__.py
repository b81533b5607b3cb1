"""The command ``vastroute``. It is for shells and people; programs import `vastroute` and `vastroute_io`."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"cyclopts", "rich"})


def main() -> int:
    """Run the command with the process's arguments; the exit code. Needs the extra ``cli`` and says so without it."""
    try:
        from .app import start
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _EXTRA:
            raise
        sys.stderr.write(f"the command vastroute needs {name}: pip install 'vastroute[cli]'\n")
        return 2
    return start(sys.argv[1:])
