"""From measurements to tables. Every ratio is taken within a round; what is shown is their median and their range."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any, TypeAlias, final

from .plan import (
    FLOOR_ASYNCIO,
    FLOOR_TRIO,
    OFFICIAL,
    OURS_ASYNCIO,
    OURS_BLOCKING,
    OURS_TRIO,
    RUST,
)

BEGIN, END = "<!-- the tables of the last run -->", "<!-- the end of the tables -->"
APART = 2.5
"""Rounds whose highest ratio is more than this many times their lowest disagree: no ratio is given then."""
Results: TypeAlias = list[dict[str, Any]]


@final
class Figures:
    """The measurements, by what was measured and by whom."""

    def __init__(self, rows: Results) -> None:
        self._rows = [row for row in rows if "failed" not in row]

    def rounds(self, name: str, client: str, in_flight: int, value: str, verb: str | None = None) -> dict[int, float]:
        """One value by round."""
        return {
            row["round"]: row[value]
            for row in self._rows
            if (row["name"], row["client"], row["in_flight"]) == (name, client, in_flight)
            and value in row
            and (verb is None or row["verb"] == verb)
        }

    def clients(self, name: str, in_flight: int | None = None) -> list[str]:
        """Who was measured, in the order of the plan's rows."""
        seen = {row["client"]: None for row in self._rows if row["name"] == name}
        if in_flight is not None:
            seen = {client: None for client in seen if self.rounds(name, client, in_flight, "client")}
        return sorted(seen, key=_rank)

    def first(self, name: str, client: str, in_flight: int) -> dict[str, Any] | None:
        """The first measurement of its kind."""
        wanted = (name, client, in_flight)
        return next((row for row in self._rows if (row["name"], row["client"], row["in_flight"]) == wanted), None)


def _rank(client: str) -> tuple[int, str]:
    return (0 if client.startswith("vastroute") else 1 if client == OFFICIAL else 3 if "floor" in client else 2), client


class Ratio:
    """A ratio by rounds."""

    def __init__(self, above: dict[int, float], below: dict[int, float]) -> None:
        self.values = [above[each] / below[each] for each in sorted(above.keys() & below.keys()) if below[each]]

    @property
    def median(self) -> float | None:
        """None if there is none, or if the rounds disagree."""
        if not self.values or max(self.values) > APART * min(self.values):
            return None
        return median(self.values)

    def __str__(self) -> str:
        if not self.values:
            return "-"
        low, high = min(self.values), max(self.values)
        if self.median is None:
            return f"rounds disagree ({low:.2f} to {high:.2f})"
        return f"{self.median:.2f}" if len(self.values) == 1 else f"{self.median:.2f} ({low:.2f} to {high:.2f})"


def tables(results: dict[str, Any]) -> str:
    """All tables, as Markdown."""
    figures = Figures(results["rows"])
    parts = (_about(results["about"]), _goals(figures), _one(figures), _many(figures), _calls(figures))
    return "\n".join((*parts, _memory(figures), _batch(figures), _streams(figures), _imports(figures)))


def _table(title: str, head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    rows = [list(line) for line in lines]
    if not rows:
        return ""
    names = list(head)
    rule = ["---"] + ["---:"] * (len(names) - 1)
    text = "\n".join("| " + " | ".join(cells) + " |" for cells in (names, rule, *rows))
    return f"### {title}\n\n{text}\n"


def _about(about: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    load = "/".join(str(each) for each in about["load"])
    return (
        f"Measured on {about['date']}: CPython {about['python']}, Linux {about['kernel']}, {about['cpu']}; "
        f"{about['rounds']} rounds; load when it began {load}; "
        f"{about['files']:,} open files for each process. Versions: {versions}.\n"
    )


def _middle(values: dict[int, float], digits: int = 0) -> str:
    return f"{median(values.values()):,.{digits}f}" if values else "-"


def _goals(figures: Figures) -> str:
    def cpu(client: str, in_flight: int, name: str = "route") -> dict[int, float]:
        return figures.rounds(name, client, in_flight, "cpu_us")

    def kib(client: str) -> dict[int, float]:
        return figures.rounds("memory", client, 500, "kib", "route")

    def rate(client: str) -> dict[int, float]:
        return {number: 1 / value for number, value in figures.rounds("stream", client, 1, "cpu_us").items()}

    def imports(module: str) -> dict[int, float]:
        return figures.rounds("import", module, 0, "cpu_ms")

    calls = cpu(OURS_TRIO, 100, "call"), cpu(OFFICIAL, 100, "call")
    most: tuple[tuple[str, dict[int, float], dict[int, float], float], ...] = (
        ("route, trio, 100 in flight ÷ official", cpu(OURS_TRIO, 100), cpu(OFFICIAL, 100), 0.50),
        ("route, trio, 100 in flight ÷ pyreqwest", cpu(OURS_TRIO, 100), cpu(RUST, 100), 1.25),
        ("route, trio, 1 in flight ÷ official", cpu(OURS_TRIO, 1), cpu(OFFICIAL, 1), 0.50),
        ("route, blocking ÷ requests.Session", cpu(OURS_BLOCKING, 1), cpu("requests.Session", 1), 0.20),
        ("route, blocking ÷ http.client", cpu(OURS_BLOCKING, 1), cpu("http.client", 1), 1.0),
        ("whole call, trio, 100 in flight ÷ official", *calls, 0.5),
        ("route, trio, 5,000 in flight ÷ 100 in flight", cpu(OURS_TRIO, 5000), cpu(OURS_TRIO, 100), 1.25),
        ("memory a call in flight, trio ÷ its floor", kib(OURS_TRIO), kib(FLOOR_TRIO), 1.3),
        ("memory a call in flight, asyncio ÷ its floor", kib(OURS_ASYNCIO), kib(FLOOR_ASYNCIO), 1.5),
        ("import vastroute ÷ import vastai", imports("vastroute"), imports("vastai"), 0.06),
    )
    least = (
        ("events of a stream per CPU second, trio ÷ official", rate(OURS_TRIO), rate(OFFICIAL), 2.0),
        ("events of a stream per CPU second, trio ÷ httpx-sse", rate(OURS_TRIO), rate("httpx, asyncio"), 2.0),
    )
    lines = []
    for what, above, below, goal in (*most, *least):
        ratio, is_most = Ratio(above, below), (what, above, below, goal) in most
        found = ratio.median
        reached = "-" if found is None else "yes" if (found <= goal if is_most else found >= goal) else "no"
        lines.append((what, f"{'≤' if is_most else '≥'} {goal:.2f}", str(ratio), reached))
    return _table("Goals", ("ratio", "goal", "measured", "reached"), lines)


def _rates(figures: Figures, name: str, in_flight: int) -> list[list[str]]:
    official = figures.rounds(name, OFFICIAL, in_flight, "cpu_us")
    floor = figures.rounds(name, FLOOR_TRIO, in_flight, "cpu_us")
    lines = []
    for client in figures.clients(name, in_flight):
        cpu = figures.rounds(name, client, in_flight, "cpu_us")
        per_second = figures.rounds(name, client, in_flight, "per_second")
        ratios = [str(Ratio(cpu, official)), str(Ratio(cpu, floor))]
        lines.append([client, _middle(cpu), _middle(per_second), *ratios])
    return lines


HEAD = ("client", "CPU µs a call", "calls/s", "CPU ÷ official", "CPU ÷ floor on trio")


def _one(figures: Figures) -> str:
    return _table("Route, one call at a time", HEAD, _rates(figures, "route", 1))


def _many(figures: Figures) -> str:
    return "\n".join(
        _table(f"Route, {count:,} calls in flight", HEAD, _rates(figures, "route", count)) for count in (100, 500, 5000)
    )


def _calls(figures: Figures) -> str:
    lines = _rates(figures, "call", 100)
    official = figures.rounds("call", OFFICIAL, 100, "cpu_us")
    floor = figures.rounds("call", FLOOR_TRIO, 100, "cpu_us")
    fresh = "call, a new connection for the work"
    for client in figures.clients(fresh):
        cpu = figures.rounds(fresh, client, 100, "cpu_us")
        per_second = _middle(figures.rounds(fresh, client, 100, "per_second"))
        ratios = [str(Ratio(cpu, official)), str(Ratio(cpu, floor))]
        lines.append([f"{client}; {fresh[6:]}", _middle(cpu), per_second, *ratios])
    return _table("The whole call (route and worker), 100 in flight", HEAD, lines)


def _memory(figures: Figures) -> str:
    lines = []
    for client in figures.clients("memory"):
        values = [figures.rounds("memory", client, count, "kib", "route") for count in (100, 500, 3000, 10000)]
        official, floor = (figures.rounds("memory", each, 500, "kib", "route") for each in (OFFICIAL, FLOOR_TRIO))
        ratios = [str(Ratio(values[1], each)) for each in (official, floor)]
        whole = figures.rounds("memory", client, 500, "kib", "call")
        lines.append([client, *(_middle(each, 1) for each in values), *ratios, _middle(whole, 1)])
    head = ("client", "100", "500", "3,000", "10,000", "500 ÷ official", "500 ÷ floor on trio", "500, whole call")
    return _table("Memory, KiB for each call in flight", head, lines)


def _batch(figures: Figures) -> str:
    lines = []
    for client in figures.clients("batch"):
        row = figures.first("batch", client, 100)
        assert row is not None
        cpu, memory = row["cpu_us_by_thousand"], row["mib_by_thousand"]
        first, last, middle = cpu[0], cpu[-1], median(cpu)
        growth = memory[-1] - memory[1]
        costs = [f"{each:.0f}" for each in (first, middle, last)]
        lines.append([client, f"{row['calls']:,}", *costs, f"{memory[1]:.1f}", f"{growth:+.2f}"])
    head = ("client", "calls", "CPU µs: first 1,000", "median", "last 1,000", "MiB after 1,000", "growth from then on")
    return _table("A batch of short calls, 100 in flight", head, lines)


def _streams(figures: Figures) -> str:
    lines = []
    for name in ("stream", "stream, parsed"):
        official = figures.rounds(name, OFFICIAL, 1, "cpu_us")
        for client in figures.clients(name):
            cpu = figures.rounds(name, client, 1, "cpu_us")
            growth = figures.rounds(name, client, 1, "growth_kib")
            who = "httpx-sse on asyncio" if client.startswith("httpx") else client
            parsed = "yes" if name != "stream" or client == OFFICIAL else "no"
            rates = {number: 1e6 / value for number, value in cpu.items()}
            times = str(Ratio(official, cpu))
            lines.append([who, parsed, _middle(cpu, 2), _middle(rates), times, _middle(growth)])
    head = (
        "client",
        "parsed",
        "CPU µs an event",
        "events per CPU second",
        "÷ official's",
        "KiB more for 8 MiB than for 1",
    )
    return _table("A stream of one MiB", head, lines)


def _imports(figures: Figures) -> str:
    official = figures.rounds("import", "vastai", 0, "cpu_ms")
    lines = []
    for module in figures.clients("import"):
        cpu = figures.rounds("import", module, 0, "cpu_ms")
        row = figures.first("import", module, 0)
        assert row is not None
        heavy = ", ".join(row["heavy"]) or "-"
        lines.append([module, _middle(cpu, 1), str(Ratio(cpu, official)), str(row["modules"]), heavy])
    return _table("Imports", ("module", "CPU ms", "÷ vastai", "modules loaded", "of these"), lines)
