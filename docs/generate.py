"""Writes what stands in ``docs/generated``: tables and pictures of the machines, made from the code's own tables.

Run it as ``python docs/generate.py`` with the package installed; ``tests/docs/test_generated.py`` fails where the files
differ from what is made here. No file is written by hand, and none is made while the documentation is built.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from html import escape
from itertools import pairwise
from math import hypot
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from attrs import NOTHING, fields

from vastroute import (
    ASK_TABLE,
    CALL_TABLE,
    FORMS,
    SESSION_TABLE,
    FailureKind,
    Limits,
    OutcomeRow,
    Pause,
    PoolLimits,
    RetryPolicy,
    SigningForm,
    StreamLimits,
    WorkPolicy,
    guard,
    outcomes,
)
from vastroute_cli.exits import MEANINGS
from vastroute_testing import MODELS, conformance, faults

FOLDER = Path(__file__).parent / "generated"
NOTE = "% Made by docs/generate.py from the code: change that, not this.\n\n"
Machine: TypeAlias = Mapping[Enum, Mapping[Enum, Enum]]


# --- tables --------------------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def meanings(cls: type) -> dict[str, str]:
    """What stands below each field of a class, or each member of an enumeration, in its source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in pairwise(tree.body):
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if target is not None and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = inspect.cleandoc(str(following.value.value)).replace("\n", " ")
            found[ast.unparse(target)] = text.replace("``", "`").replace("`vastroute.", "`").strip()
    return found


TITLES = {"ask": "a question to the engine", "call": "a call of both hops", "session": "a session"}


def machine_page(name: str, machine: Machine) -> str:
    """A picture, the states, and the table of one machine."""
    kind = type(next(iter(machine)))
    inputs = type(next(iter(next(iter(machine.values())))))
    said = meanings(kind)
    live = [state for state in machine if machine[state]]
    rows = ((f"`{given.name}`", given.value, *(_cell(machine[state].get(given)) for state in live)) for given in inputs)
    states = ((f"`{state.name}`", said.get(state.name, "" if machine[state] else "An end.")) for state in machine)
    return (
        NOTE
        + f"![The states of {TITLES[name]}, and what leads to which: the same as the table below.]({name}.svg)\n\n"
        + table(("state", "meaning"), states)
        + "\n"
        + table(("input", "meaning", *(f"in `{state.name}`" for state in live)), rows)
    )


def _cell(state: Enum | None) -> str:
    return "" if state is None else f"`{state.name}`"


def outcomes_page() -> str:
    """Every way in which an exchange with a worker can end."""
    head = ("reason", "outcome", "may have run", "then", "advice")

    def row(found: OutcomeRow) -> tuple[str, ...]:
        may_have_run = "yes" if found.may_have_run else ""
        return found.reason, found.outcome.value, may_have_run, found.then.value, f"`{found.advice.name}`"

    def failures(rows: Mapping[FailureKind, OutcomeRow]) -> str:
        return table(("kind", *head), ((f"`{kind.name}`", *row(found)) for kind, found in rows.items()))

    statuses = [(str(status), *row(found)) for status, found in outcomes.STATUSES.items()]
    classes = [
        (f"{'any' if digit == 2 else 'any other'} {digit}xx", *row(found))
        for digit, found in outcomes.STATUS_CLASSES.items()
    ]
    return (
        NOTE
        + "**The worker answered with this status**\n\n"
        + table(("status", *head), [*classes[:1], *statuses, *classes[1:]])
        + "\n**The exchange broke before a byte of the request left**\n\n"
        + failures(outcomes.NOT_SENT)
        + "\n**The exchange broke later, or nobody can say when**\n\n"
        + failures(outcomes.PERHAPS_STARTED)
    )


def limits_page() -> str:
    """Every limit and its default."""
    text = NOTE
    for cls in (RetryPolicy, WorkPolicy, StreamLimits, Limits, PoolLimits):
        said = meanings(cls)
        rows = ((f"`{field.name}`", f"`{_default(field.default)}`", said.get(field.name, "")) for field in fields(cls))
        text += f"**`{cls.__name__}`**\n\n" + table(("limit", "default", "meaning"), rows) + "\n"
    return text


def _default(value: Any) -> str:
    if isinstance(value, Pause):
        return f"Pause({', '.join(f'{field.name}={getattr(value, field.name):g}' for field in fields(Pause))})"
    if isinstance(value, tuple):
        return repr(set(value)) if len(value) < 2 else "{" + ", ".join(map(repr, value)) + "}"
    if isinstance(value, int) and value >= 1024 and not value % 1024:
        unit = 1024 * 1024 if not value % (1024 * 1024) else 1024
        return f"{value // unit} {'MiB' if unit > 1024 else 'KiB'}"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def forms_page() -> str:
    """The signing forms."""

    def row(form: SigningForm) -> tuple[str, ...]:
        names = (label if label == field else f"{label} (the grant's {field})" for label, field in form.fields)
        used = "never seen" if not form.seen else f"{form.since} to {form.until or 'now'}"
        return f"`{form.name}`", ", ".join(names), used, form.source

    return NOTE + table(("form", "signed fields, in order", "in use", "source"), map(row, FORMS))


def guard_page() -> str:
    """The classes of addresses."""

    def rows(classes: Iterable[tuple[str, str, str | None]]) -> Iterator[tuple[str, ...]]:
        for network, name, switch in classes:
            yield f"`{network}`", name, "allowed" if switch is None else f"`{switch}`"

    head = ("network", "what it is", "allowed by")
    embedded = ((f"`{network}`", name) for network, name, _ in guard.IPV6_EMBEDDINGS)
    return (
        NOTE
        + "**IPv4** (the first row that holds an address decides)\n\n"
        + table(head, rows(guard.IPV4_CLASSES))
        + "\n**IPv6**\n\n"
        + table(head, rows(guard.IPV6_CLASSES))
        + "\n**IPv6 addresses that stand for an IPv4 address**, and lead where that one leads\n\n"
        + table(("network", "form"), embedded)
    )


def faults_page() -> str:
    """What can go wrong in the simulation."""
    kinds = [each for each in vars(faults).values() if isinstance(each, type) and issubclass(each, faults.Fault)]
    rows = ((f"`{_call_of(kind)}`", _first_line(kind)) for kind in kinds if kind is not faults.Fault)
    return NOTE + table(("fault", "what happens"), rows)


def _call_of(fault: type[faults.Fault]) -> str:
    parts = []
    for field in fields(fault):
        value = field.default.name if isinstance(field.default, Enum) else repr(field.default)
        if field.name != "served":
            parts.append(field.name if field.default is NOTHING else f"{field.name}={value}")
    return f"{fault.__name__}({', '.join(parts)})"


def models_page() -> str:
    """What simulated workers answer."""
    rows = ((f"`{route}`", _first_line(model).partition(": ")[2]) for route, model in MODELS.items())
    return NOTE + table(("route", "answer"), rows)


def _first_line(value: object) -> str:
    return inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0].replace("\n", " ").replace("``", "`")


def conformance_page() -> str:
    """The scripts that transports are checked with, and which of them do not apply to ours."""
    text = NOTE
    for law in conformance.Law:
        scripts = [script for script in conformance.SCRIPTS if script.law is law]
        rows = ((f"`{each.name}`", each.requirement, _needs(each)) for each in scripts)
        text += f"**{law.value.capitalize()}**\n\n" + table(("script", "the transport", "needs"), rows) + "\n"
    features = ((f"`{each.name}`", each.value) for each in conformance.Feature)
    text += "**What some scripts need**\n\n" + table(("feature", "meaning"), features) + "\n"
    text += "**What does not apply to the transports of this package, and why**\n\n"
    rows = map(_played, conformance.our_transports().items())
    return text + table(("transport", "played", "not played, because"), rows)


def _needs(script: conformance.Script) -> str:
    return ", ".join(f"`{feature.name}`" for feature in conformance.Feature if feature in script.needs)


def _played(named: tuple[str, tuple[Any, conformance.Harness]]) -> tuple[str, str, str]:
    name, (_, harness) = named
    missing = conformance.what_is_missing(harness)
    reasons = Counter(conformance.why_not(script, missing) for script in conformance.SCRIPTS)
    played = reasons.pop(None)
    return name, str(played), "; ".join(f"{count}: {reason}" for reason, count in reasons.items())


def exits_page() -> str:
    """The command's exit codes."""
    return NOTE + table(("code", "meaning"), ((str(code.value), meaning) for code, meaning in MEANINGS.items()))


# --- pictures ------------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 118, 40
STEP_X, STEP_Y = 214, 128
MARGIN = 22
STYLE = """\
text { font: 13px sans-serif; fill: #1f2430; text-anchor: middle; dominant-baseline: central }
.input { font-size: 11.5px; fill: #3c4a63 }
.halo { stroke: #fbfbfd; stroke-width: 5px; stroke-linejoin: round }
.line { fill: none; stroke: #5b6b88; stroke-width: 1.4 }
.tip { fill: #5b6b88 }
.state { fill: #e4ecfb; stroke: #5b6b88; stroke-width: 1.4 }
.over { fill: #eceef1 }"""


class Picture(NamedTuple):
    """Where the states of a machine stand, in columns and rows, and how far lines bow that would cross others."""

    rows: float
    places: Mapping[str, tuple[float, float]]
    bows: Mapping[tuple[str, str], float] = {}
    below: frozenset[str] = frozenset()
    """States whose line to themselves is below them."""


ASK = Picture(
    2.3,
    {
        "CANCELLED": (0, 0.35), "FAILED": (1, 0.35),
        "WAITING": (0, 1.4), "ASKING": (1, 1.4), "READING": (2, 1.4), "ANSWERED": (3, 1.4),
    },
    {("READING", "WAITING"): 54, ("ANSWERED", "WAITING"): 92},
)  # fmt: skip
CALL = Picture(
    3.15,
    {
        "ROUTING": (0, 1.25), "SENDING": (1, 1.25), "READING": (2, 0.75), "STREAMING": (2, 1.75), "ANSWERED": (3, 1.25),
        "CANCELLED": (0, 2.8), "FAILED": (1, 2.8),
    },
    {("READING", "ROUTING"): -66, ("READING", "FAILED"): 14},
    frozenset({"STREAMING"}),
)  # fmt: skip
SESSION = Picture(2.0, {"OPEN": (0.25, 0.5), "ENDED": (2.25, 0.5), "LOST": (1.25, 1.4)}, below=frozenset({"LOST"}))


def picture(machine: Machine, drawn: Picture) -> str:
    """An SVG of a machine. What leads to one end from every state that is not over stands at that end, as text."""
    if {state.name for state in machine} != set(drawn.places):
        raise ValueError("give every state a place, and no other")
    live = [state for state in machine if machine[state]]
    edges: dict[tuple[Enum, Enum], list[str]] = {}
    common: dict[Enum, list[str]] = {}
    for state, row in machine.items():
        for given, following in row.items():
            if not machine[following] and all(machine[each].get(given) is following for each in live):
                if state is live[0]:
                    common.setdefault(following, []).append(given.name)
            else:
                edges.setdefault((state, following), []).append(given.name)
    centres = {
        state: (MARGIN + WIDTH / 2 + x * STEP_X, MARGIN + y * STEP_Y)
        for state in machine
        for x, y in [drawn.places[state.name]]
    }
    lines, labels = [], []
    for (start, end), names in edges.items():
        text = ", ".join(name.lower().replace("_", " ") for name in names)
        if start is end:
            line, label = _loop(centres[start], text, below=start.name in drawn.below)
        else:
            bow = drawn.bows.get((start.name, end.name), 24.0 if (end, start) in edges else 0.0)
            line, label = _edge(centres[start], centres[end], bow, text)
        lines.append(line)
        labels.append(label)
    boxes = [_box(state, centres[state], common.get(state, []), over=not machine[state]) for state in machine]
    width = max(x for x, _ in centres.values()) + min(x for x, _ in centres.values())
    height = drawn.rows * STEP_Y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}">\n<style>\n{STYLE}\n</style>\n'
        f'<rect width="100%" height="100%" rx="8" fill="#fbfbfd"/>\n'
        + "\n".join([*lines, *boxes, *labels])
        + "\n</svg>\n"
    )


def _box(state: Enum, centre: tuple[float, float], common: list[str], *, over: bool) -> str:
    x, y = centre
    box = (
        f'<rect class="{"state over" if over else "state"}" x="{x - WIDTH / 2:.0f}" y="{y - HEIGHT / 2:.0f}" '
        f'width="{WIDTH}" height="{HEIGHT}" rx="9"/>\n<text x="{x:.0f}" y="{y:.0f}">{escape(str(state.value))}</text>'
    )
    if not common:
        return box
    names = ", ".join(name.lower() for name in common)
    at = y + (HEIGHT / 2 + 13) * (-1 if y < STEP_Y else 1)
    return f'{box}\n<text class="input" x="{x:.0f}" y="{at:.0f}">{names} (from any state)</text>'


def _edge(start: tuple[float, float], end: tuple[float, float], bow: float, text: str) -> tuple[str, str]:
    """A line that bows to its left, from border to border, and its label."""
    (ax, ay), (bx, by) = start, end
    length = hypot(bx - ax, by - ay)
    left = ((by - ay) / length, (ax - bx) / length)
    middle = ((ax + bx) / 2 + left[0] * bow * 2, (ay + by) / 2 + left[1] * bow * 2)
    (ax, ay), (bx, by) = _border(start, middle), _border(end, middle)
    x, y = (ax + 2 * middle[0] + bx) / 4, (ay + 2 * middle[1] + by) / 4
    line = f'<path class="line" d="M{ax:.1f} {ay:.1f} Q{middle[0]:.1f} {middle[1]:.1f} {bx:.1f} {by:.1f}"/>'
    return f"{line}\n{_tip(middle, (bx, by))}", _label(x, y, text)


def _loop(centre: tuple[float, float], text: str, *, below: bool) -> tuple[str, str]:
    x, y = centre
    side = 1 if below else -1
    edge, far = y + side * HEIGHT / 2, y + side * (HEIGHT / 2 + 46)
    bend = f"C{x - 34:.1f} {far:.1f} {x + 34:.1f} {far:.1f} {x + 20:.1f} {edge:.1f}"
    line = f'<path class="line" d="M{x - 20:.1f} {edge:.1f} {bend}"/>'
    return f"{line}\n{_tip((x + 34, far), (x + 20, edge))}", _label(x, y + side * (HEIGHT / 2 + 36), text)


def _border(centre: tuple[float, float], towards: tuple[float, float]) -> tuple[float, float]:
    """Where the line from a box's centre leaves the box."""
    x, y = towards[0] - centre[0], towards[1] - centre[1]
    part = min(WIDTH / 2 / abs(x) if x else 1e9, HEIGHT / 2 / abs(y) if y else 1e9)
    return centre[0] + x * part, centre[1] + y * part


def _tip(before: tuple[float, float], at: tuple[float, float]) -> str:
    length = hypot(at[0] - before[0], at[1] - before[1])
    x, y = (at[0] - before[0]) / length, (at[1] - before[1]) / length
    corners = ((0.0, 0.0), (-9.0, 4.0), (-9.0, -4.0))
    points = " ".join(f"{at[0] + a * x - b * y:.1f},{at[1] + a * y + b * x:.1f}" for a, b in corners)
    return f'<polygon class="tip" points="{points}"/>'


def _label(x: float, y: float, text: str) -> str:
    halo, plain = (f'<text class="input{more}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>' for more in (" halo", ""))
    return f"{halo}\n{plain}"


# --- all of it -----------------------------------------------------------------------------------------------------


def pages() -> dict[str, str]:
    """The text of every generated file, by its name."""
    machines: dict[str, tuple[Machine, Picture]] = {
        "ask": (ASK_TABLE, ASK),  # type: ignore[dict-item]  # a mapping's keys are not covariant, though read only
        "call": (CALL_TABLE, CALL),  # type: ignore[dict-item]
        "session": (SESSION_TABLE, SESSION),  # type: ignore[dict-item]
    }
    found = {f"{name}.md": machine_page(name, machine) for name, (machine, _) in machines.items()}
    found |= {f"{name}.svg": picture(machine, drawn) for name, (machine, drawn) in machines.items()}
    made = {
        "outcomes": outcomes_page,
        "limits": limits_page,
        "forms": forms_page,
        "guard": guard_page,
        "faults": faults_page,
        "models": models_page,
        "exits": exits_page,
        "conformance": conformance_page,
    }
    return found | {f"{name}.md": make() for name, make in made.items()}


def main() -> None:
    """Write every file."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, "utf-8")
        print(FOLDER / name)


if __name__ == "__main__":
    main()
