"""The benchmark: ``python tests/benchmarks/run.py --rounds 5 --out DIR``, in an environment with the ``bench`` extra.

It measures this project's clients and their peers side by side, each in a fresh process, in rounds of shuffled order;
it starts and stops its servers itself, on free loopback ports. It writes ``results.json``, ``tables.md``, ``cpu.svg``
and ``memory.svg`` into DIR. With ``--quick`` it measures the little that tells most; with ``--from FILE`` it measures
nothing and writes the tables of an earlier run anew. ``--page FILE`` puts the tables between that page's markers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import plots, report
from benchmarks.place import FOLDER, SERVER_CORE, Place, open_holding, open_nginx, raise_file_limit
from benchmarks.plan import QUICK, ROWS, specs

PACKAGES = ("vastai", "aiohttp", "httpx", "httpx-sse", "niquests", "pyreqwest", "requests", "urllib3", "h11", "trio")
IMPORT = """
import json, resource, sys, time
before = len(sys.modules)
usage, begun = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
import {module}
wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF)
cpu = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
heavy = sorted({{"cryptography", "trio", "ssl", "asyncio", "h11", "socket"}} & set(sys.modules))
print(json.dumps({{"cpu_ms": cpu * 1e3, "ms": wall * 1e3, "modules": len(sys.modules) - before, "heavy": heavy}}))
"""


def main() -> None:
    """Measure, then write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how many; 3 are the least for a spread")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="the folder to write to")
    parser.add_argument("--quick", action="store_true", help="only what tells most, in 3 rounds")
    parser.add_argument("--only", default="", help="only rows whose name and client hold this text")
    parser.add_argument("--from", dest="earlier", type=Path, help="the results.json of an earlier run")
    parser.add_argument("--page", type=Path, help="a page whose tables between the markers are replaced")
    options = parser.parse_args()
    if options.earlier is not None:
        results = json.loads(options.earlier.read_text("utf-8"))
    else:
        rounds = 3 if options.quick else options.rounds
        results = {"about": about(rounds), "rows": measure(QUICK if options.quick else ROWS, rounds, options.only)}
    write(results, options.out, options.page)


def measure(rows: Any, rounds: int, only: str) -> list[dict[str, Any]]:
    """All rounds. A client that fails is named, and goes without that figure."""
    os.sched_setaffinity(0, {SERVER_CORE})  # the servers inherit it; each measurement moves to the other core
    raise_file_limit()
    found: list[dict[str, Any]] = []
    begun = time.monotonic()
    with TemporaryDirectory() as bytecode, open_nginx() as nginx, open_holding() as holding:
        for number in range(rounds):
            todo = [spec for spec in specs(rows, number) if only in f"{spec['name']} {spec['client']}"]
            random.shuffle(todo)
            for spec in todo:
                place = nginx if spec["mode"] in ("rate", "batch") else holding
                found.append({**spec, "round": number, **_one(spec, place, bytecode)})
            say(f"round {number + 1} of {rounds}: {len(todo)} measurements, {time.monotonic() - begun:.0f} s in all")
    return found


def _one(spec: dict[str, Any], place: Place, bytecode: str) -> dict[str, Any]:
    environment = dict(os.environ)
    if spec["mode"] == "import":
        command = [sys.executable, "-c", IMPORT.format(module=spec["client"])]
        # Nobody's import is to include compiling, wherever its bytecode may be kept.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        subprocess.run(command, capture_output=True, env=environment, check=False)
    else:
        command = [sys.executable, str(FOLDER / "measure.py"), json.dumps({**spec, "place": place})]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    try:
        result: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        why = (ended.stderr.strip().splitlines() or ["nothing was said"])[-1]
        say(f"no figure: {spec['name']}, {spec['client']}, {spec['in_flight']} in flight: {why}")
        return {"failed": why}
    return result


def about(rounds: int) -> dict[str, Any]:
    """On what it was measured."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    info = Path("/proc/cpuinfo")
    models = [line.partition(":")[2].strip() for line in info.read_text("utf-8").splitlines() if "model name" in line]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "kernel": platform.release().partition("-")[0],
        "cpu": f"{len(models)} cores, {models[0] if models else 'unknown'}",
        "load": [round(each, 1) for each in os.getloadavg()],
        "rounds": rounds,
        "files": raise_file_limit(),
        "versions": versions,
    }


def write(results: dict[str, Any], out: Path, page: Path | None) -> None:
    """The tables, the plots and the figures."""
    out.mkdir(parents=True, exist_ok=True)
    tables = report.tables(results)
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (out / "tables.md").write_text(tables, "utf-8")
    for name, svg in plots.draw(results["rows"]).items():
        (out / f"{name}.svg").write_text(svg, "utf-8")
    if page is not None:
        head, _, rest = page.read_text("utf-8").partition(report.BEGIN)
        _, end, tail = rest.partition(report.END)
        if not end:
            raise SystemExit(f"{page} has no markers: {report.BEGIN} and {report.END}")
        page.write_text(f"{head}{report.BEGIN}\n\n{tables}\n{report.END}{tail}", "utf-8")
    say(tables)


def say(text: str) -> None:
    """For whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
