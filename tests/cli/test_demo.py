"""``vastroute demo``: the whole of it as a program of its own, and small worlds for what it does when things differ."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import attrs
import pytest

from vastroute_cli import script
from vastroute_cli.board import table
from vastroute_cli.exits import Exit
from vastroute_cli.rows import Row
from vastroute_cli.script import End, Scripted, What

from .shell import Shell


@pytest.fixture(scope="module")
def lines() -> list[dict[str, Any]]:
    """What the whole demo says as JSON."""
    command = [sys.executable, "-W", "error", "-m", "vastroute_cli", "demo", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_sum_of_it(lines: list[dict[str, Any]]) -> None:
    summary = lines[-1]
    polls = summary.pop("polls")
    seconds = summary.pop("seconds")
    following = summary.pop("next")
    assert summary == {
        "kind": "summary",
        "asked": 34,
        "granted": 34,
        "answered": 23,
        "perhaps_started": 2,
        "failed": 0,
        "retries": 1,
        "re_routes": 3,
        "load_asked": 5950,
        "load_counted": 5950,
        "verified": 34,
        "unexpected": [],
    }
    assert polls >= 8
    assert 2.8 < seconds < 15
    assert following[0] == "export VAST_API_KEY=..."


def test_each_request(lines: list[dict[str, Any]]) -> None:
    requests = sorted(lines[:-1], key=lambda line: int(line["number"]))
    assert [line["number"] for line in requests] == list(range(1, 35))
    assert all(line["kind"] == "request" and line["as_scripted"] for line in requests)
    assert len({line["request_idx"] for line in requests}) == 34
    by_endpoint = {line["endpoint"]: line for line in requests}
    assert by_endpoint["busy"]["retries"] == 1
    for name in ("gone", "full", "dies"):
        assert (by_endpoint[name]["re_routes"], by_endpoint[name]["end"]) == (1, "answered")
    assert by_endpoint["dies"]["safe_to_repeat"]
    assert "the work may have run, so it is not sent again" in by_endpoint["lost"]["error"]
    assert (by_endpoint["cut"]["tokens"], by_endpoint["cut"]["end"]) == (4, "perhaps started")
    assert all(line["polls"] > 0 for line in requests if line["endpoint"] == "cold")


def _only(monkeypatch: pytest.MonkeyPatch, *rows: Scripted) -> None:
    monkeypatch.setattr(script, "script", lambda: rows)


ROUTE = Scripted(number=1, endpoint="warm", what=What.ROUTE, end=End.GRANTED, cost=5)
CUT = Scripted(number=2, endpoint="cut", what=What.STREAM, end=End.PERHAPS_STARTED, cost=6, cut_after=4)
LOST = Scripted(number=3, endpoint="lost", what=What.ANSWER, end=End.PERHAPS_STARTED, cost=7)
WRONG = Scripted(number=4, endpoint="warm", what=What.ANSWER, end=End.PERHAPS_STARTED, cost=8)


def test_plain_lines(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, ROUTE, LOST)
    done = shell("demo")
    assert (done.code, done.err) == (Exit.DONE, "")
    phases = [
        line.split(maxsplit=5)[-1] for line in done.out.splitlines() if line.split()[1:4] == ["1", "warm", "route"]
    ]
    assert phases == ["asking", "granted"]
    assert "load        12 asked, 12 counted by the engine: once for each request_idx" in done.out
    assert "Every request ended as its script says. Next, with a key of your own:" in done.out


def test_what_differs_is_listed_and_fails(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    _only(monkeypatch, ROUTE, WRONG)
    done = shell("demo")
    assert done.code == Exit.DEMO_DIFFERS
    assert "error: #4 warm answer: end: 'answered', not 'perhaps started'" in done.err
    assert "Every request" not in done.out
    done = shell("demo", "--json")
    assert done.code == Exit.DEMO_DIFFERS
    assert done.last["unexpected"][0] == "#4 warm answer: end: 'answered', not 'perhaps started'"


@pytest.mark.parametrize("height", ["40", "4"])
def test_the_table_that_lives(shell: Shell, monkeypatch: pytest.MonkeyPatch, height: str) -> None:
    _only(monkeypatch, ROUTE, CUT, LOST, attrs.evolve(ROUTE, number=5))
    shell.is_terminal = True
    monkeypatch.setenv("LINES", height)
    done = shell("demo")
    assert done.code == Exit.DONE
    assert "cut stream" in done.out
    assert "perhaps started" in done.out
    assert done.out.count("\x1b[?25l") == done.out.count("\x1b[?25h") == 1


@pytest.mark.parametrize(("width", "columns"), [(100, 9), (99, 9), (98, 8), (88, 7), (81, 6), (20, 6)])
def test_a_narrow_terminal_does_without_some_columns(width: int, columns: int) -> None:
    made = table([Row(ROUTE, seed=0, changed=lambda row: None)], width)
    assert len(made.columns) == columns
    assert sum((column.width or 0) + 1 for column in made.columns) - 1 <= max(width, 75)


def test_the_script_says_what_its_world_is() -> None:
    assert {row.endpoint for row in script.script()} == set(script.ENDPOINTS)
    assert {row.end for row in script.script()} == {End.GRANTED, End.ANSWERED, End.PERHAPS_STARTED}
