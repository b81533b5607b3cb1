"""The files in ``tests/vectors``: each row expects what the library says, and no row, file or name is left out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import attrs
import pytest

from vastroute import (
    Advice,
    EntryKind,
    FailureKind,
    GuardReason,
    Outcome,
    Phase,
    Reason,
    SessionState,
    Then,
    Why,
)
from vastroute.guard import IPV4_CLASSES, IPV6_CLASSES, IPV6_EMBEDDINGS, Guard
from vastroute.outcomes import STATUS_CLASSES, STATUSES
from vectors.files import FOLDER, Row, load, written
from vectors.plain import ERRORS
from vectors.readers import READERS, read

RECORDED = "official-worker-answers.jsonl"
SOURCES = {"observed", "code", "docs", "history", "told", "standard", "ours"}
PAGE = Path(__file__).parents[2] / "docs" / "vectors.md"
FILES = {name: load(name) for name in READERS}


def rows() -> Iterator[Any]:
    for name, file in FILES.items():
        for row in file["rows"]:
            yield pytest.param(name, row, id=f"{name.removesuffix('.json')}: {row['id']}")


def rows_of(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = FILES[name]["rows"]
    return found


@pytest.mark.parametrize(("name", "values"), list(rows()))
def test_the_library_says_what_the_row_expects(name: str, values: dict[str, Any]) -> None:
    row = Row(values)
    assert read(name, row) == values["expect"]
    assert row.unread == set(), "no reader knows these inputs"


def test_every_file_has_its_reader() -> None:
    assert {path.name for path in FOLDER.glob("*.json*")} == {*READERS, RECORDED}


@pytest.mark.parametrize("name", list(READERS))
def test_every_file_says_what_it_is_and_names_its_rows(name: str) -> None:
    file = FILES[name]
    assert set(file["header"]) == {"about", "source", "version"}
    ids = [row["id"] for row in file["rows"]]
    assert len(set(ids)) == len(ids) > 0
    assert all(re.fullmatch(r"[a-z0-9.:%-]+", each) for each in ids)
    assert {row["from"] for row in file["rows"]} <= SOURCES


@pytest.mark.parametrize("name", list(READERS))
def test_every_file_is_written_in_the_one_way(name: str) -> None:
    assert (FOLDER / name).read_text("utf-8") == written(FILES[name]) + "\n"


def test_every_recorded_answer_is_in_a_row() -> None:
    used = {row["answer"]["recorded"]["line"] for row in rows_of("worker-answers.json") if "recorded" in row["answer"]}
    lines = (FOLDER / RECORDED).read_text("utf-8").splitlines()
    assert used == set(range(1, len(lines) + 1))


# --- nothing that the library knows is left out --------------------------------------------------------------------


def test_every_row_of_the_table_of_outcomes_has_a_vector() -> None:
    table = rows_of("outcomes.json")
    assert {(row["failure"], row["sent"]) for row in table if "failure" in row} == {
        (kind.name.lower(), sent) for kind in FailureKind for sent in (False, True, None)
    }
    statuses = {row["status"] for row in table if "status" in row}
    assert set(STATUSES) <= statuses
    assert set(STATUS_CLASSES) <= {status // 100 for status in statuses - set(STATUSES)}


def test_every_class_of_addresses_has_a_vector() -> None:
    given = [
        ip_address(row["address"]) for row in rows_of("guard.json") if re.match(r"[0-9a-f:.]+$", row.get("address", ""))
    ]
    classes = (*IPV4_CLASSES, *IPV6_CLASSES)
    first = {next(network for network, *_ in classes if address in ip_network(network)) for address in given}
    assert first == {network for network, *_ in classes}
    for network, *_ in IPV6_EMBEDDINGS:
        assert any(address in ip_network(network) for address in given), network


def said(value: Any, name: str) -> Iterator[Any]:
    """Every value called `name`, however deep."""
    if isinstance(value, dict):
        for each, inner in value.items():
            if each == name:
                yield inner
            yield from said(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from said(inner, name)


EXPECTED = [row["expect"] for file in FILES.values() for row in file["rows"]]
NAMED: list[tuple[str, set[str]]] = [
    ("outcome", {member.name for member in Outcome}),
    ("advice", {member.name for member in Advice}),
    ("then", {member.name for member in Then}),
    ("phase", {member.name for member in Phase}),
    ("why", {member.name for member in Why} - {Why.START.name, Why.RESUME.name}),
]


@pytest.mark.parametrize(("key", "names"), NAMED, ids=[key for key, _ in NAMED])
def test_every_name_is_expected_somewhere(key: str, names: set[str]) -> None:
    assert {each.upper() for each in said(EXPECTED, key) if isinstance(each, str)} == names


def test_every_error_is_expected_somewhere() -> None:
    errors = [each for key in ("error", "give_up") for each in said(EXPECTED, key) if isinstance(each, dict)]
    assert {error["name"] for error in errors} == set(ERRORS.values())
    assert {error["kind"] for error in errors if "kind" in error} <= {kind.name.lower() for kind in FailureKind}


def test_every_state_of_a_session_has_a_vector() -> None:
    accounts = [account for row in rows_of("sessions.json") for account in row["expect"]["accounts"]]
    assert {account["state"] for account in accounts} == {state.name.lower() for state in SessionState}


def test_every_kind_of_entry_is_in_a_conversation() -> None:
    entries = [entry for row in rows_of("conversations.json") for entry in row["expect"]["record"]]
    assert {entry["kind"] for entry in entries} == {kind.name.lower() for kind in EntryKind}


def test_every_refusal_of_the_guard_has_a_vector() -> None:
    refusals = list(said([row["expect"] for row in rows_of("guard.json")], "refused"))
    assert {each["reason"] for each in refusals} == {reason.name.lower() for reason in GuardReason}
    assert {each["switch"] for each in refusals} == {field.name for field in attrs.fields(Guard)}


@pytest.mark.parametrize("kind", [Outcome, Advice, Then, Phase, FailureKind, Why, EntryKind, GuardReason, Reason])
def test_the_page_names_every_member(kind: type[Enum]) -> None:
    page = PAGE.read_text("utf-8")
    assert [member.name for member in kind if f"`{member.name.lower()}`" not in page] == []


def test_the_page_names_every_file_error_and_source() -> None:
    page = PAGE.read_text("utf-8")
    names = {*READERS, RECORDED, *ERRORS.values(), *SOURCES}
    assert {name for name in names if f"`{name}`" not in page} == set()
