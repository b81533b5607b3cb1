"""What does not depend on the machine's mood: ``python tests/benchmarks/counts.py``.

It counts, of one route and one whole call: calls of Python functions in the core; system calls of each transport, if
strace is there; instructions of the core, if valgrind is there. The first have ceilings in ``ceilings.json``, which
``tests/house/test_counts.py`` holds the core to; ``--record`` writes today's counts there.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.core import Core
from benchmarks.place import open_nginx

FOLDER = Path(__file__).resolve().parent
CEILINGS = FOLDER / "ceilings.json"


def counted() -> dict[str, int]:
    """Calls of the core's own functions in one route and one whole call."""
    core = Core()
    return {"route": sum(function_calls(core.route).values()), "call": sum(function_calls(core.call).values())}


def function_calls(once: Callable[[], Any]) -> Counter[str]:
    """How often each of the core's functions is called by `once`, when everything has been loaded and remembered.

    The functions that attrs writes for the core's classes count; comprehensions and generators do not, because newer
    versions of Python run them in place. So the numbers are the same on every Python.
    """
    found: Counter[str] = Counter()

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and _is_ours(frame.f_code):
            found[frame.f_code.co_qualname] += 1

    once()
    once()
    before = sys.getprofile()
    sys.setprofile(look)
    try:
        once()
    finally:
        sys.setprofile(before)
    return found


def _is_ours(code: CodeType) -> bool:
    name, path = code.co_name, code.co_filename
    if name.startswith("<") and name != "<lambda>":
        return False
    return path.startswith("<attrs generated") or Path(path).parent.name == "vastroute"


def system_calls(client: str, verb: str) -> float | None:
    """System calls of one call of `client`, one at a time, over a kept connection; None without strace."""
    strace = shutil.which("strace")
    if strace is None:
        return None
    totals = []
    few, many = 100, 600
    with open_nginx() as place:
        for calls in (few, many):
            spec = {"client": client, "mode": "rate", "verb": verb, "in_flight": 1, "calls": calls, "place": place}
            command = [strace, "-f", "-c", "-U", "calls", sys.executable, str(FOLDER / "measure.py"), json.dumps(spec)]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            totals.append(int(re.findall(r"^\s*([0-9]+)(?:\s+total)?$", ended.stderr, re.MULTILINE)[-1]))
    return (totals[1] - totals[0]) / (many - few)


def instructions(what: str) -> int | None:
    """Instructions of one route or one whole call in the core; None where valgrind is not there or does not run."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        return None
    totals = []
    few, many = 50, 250
    for count in (few, many):
        options = ["--tool=callgrind", "--callgrind-out-file=/dev/null"]
        command = [valgrind, *options, sys.executable, str(FOLDER / "core.py"), what, str(count)]
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        found = re.search(r"Collected : ([0-9]+)", ended.stderr)
        if found is None:
            return None
        totals.append(int(found[1]))
    return (totals[1] - totals[0]) // (many - few)


def main() -> None:
    """Count, and say it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="write the counts of function calls as the new ceilings")
    parser.add_argument("--functions", action="store_true", help="list the functions too")
    options = parser.parse_args()
    found = counted()
    ceilings = json.loads(CEILINGS.read_text("utf-8")) if CEILINGS.exists() else {}
    for what, count in found.items():
        sys.stdout.write(f"{what}: {count} calls of the core's functions (ceiling {ceilings.get(what, 'none')})\n")
    if options.record:
        CEILINGS.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    if options.functions:
        core = Core()
        for name, count in function_calls(core.call).most_common():
            sys.stdout.write(f"  {count:3} {name}\n")
    for what in ("route", "call"):
        sys.stdout.write(f"{what}: {instructions(what) or 'no valgrind:':,} instructions of the core\n")
        for client in ("vastroute, trio", "vastroute, asyncio", "vastroute, blocking"):
            number = system_calls(client, what)
            sys.stdout.write(f"{what}, {client}: {'no strace' if number is None else f'{number:.1f} system calls'}\n")


if __name__ == "__main__":
    main()
