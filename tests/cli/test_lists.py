"""``vastroute endpoints``, ``workers`` and ``verify``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vastroute import FORMS
from vastroute_cli.exits import Exit
from vastroute_testing import OTHER_TEST_PUBLIC_KEY, TEST_PUBLIC_KEY, sign

from .shell import ACCOUNT_KEY, Shell

GRANT = {"url": "https://192.0.2.1:8000", "endpoint": "e", "cost": 100.0, "reqnum": 1, "request_idx": 7}


@pytest.fixture
def account(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("VAST_API_KEY", ACCOUNT_KEY)
    return shell


def test_endpoints(account: Shell) -> None:
    done = account("endpoints", "--console-url", account.url)
    head, first, *_, last = done.out.splitlines()
    assert done.code == Exit.DONE
    assert head.split() == ["id", "endpoint", "state", "own", "key", "created", "(UTC)"]
    assert first.split() == ["1", "warm", "active", "yes", "2023-11-14", "22:13"]
    assert last.split()[:3] == ["10", "stopped", "stopped"]


def test_endpoints_as_json(account: Shell) -> None:
    lines = account("endpoints", "--console-url", account.url, "--raw").lines
    assert len(lines) == 10
    assert (lines[0]["kind"], lines[0]["name"], lines[0]["has_key"]) == ("endpoint", "warm", True)
    assert "api_key" not in lines[0]["fields"]


def test_workers(account: Shell) -> None:
    done = account("workers", "full", "--console-url", account.url)
    head, *rows = done.out.splitlines()
    assert head.split()[:4] == ["id", "status", "cur_load", "perf"]
    assert [row.split()[:2] for row in rows] == [["1", "created"], ["2", "created"]]
    lines = account("workers", "full", "--console-url", account.url, "--json").lines
    assert [(line["kind"], line["id"], line["status"]) for line in lines] == [
        ("worker", 1, "created"),
        ("worker", 2, "created"),
    ]


def test_workers_of_nobody(account: Shell) -> None:
    done = account("workers", "nonsense", "--console-url", account.url, "--json")
    assert done.code == Exit.KEY_REFUSED
    assert done.last["message"] == "the key is an account's, and this account has no endpoint 'nonsense'"


def _grant(form: str) -> bytes:
    (chosen,) = [each for each in FORMS if each.name == form]
    return json.dumps(GRANT | {"signature": sign(GRANT, chosen)}).encode()


@pytest.fixture
def key(tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_text(TEST_PUBLIC_KEY)
    return str(path)


def test_verified(shell: Shell, key: str) -> None:
    done = shell("verify", "--public-key", key, stdin=_grant("2026-url"))
    said = [line.split(maxsplit=1) for line in done.out.splitlines()]
    assert done.code == Exit.DONE
    assert said[:2] == [["verified", "form 2026-url, in use from 2025-12-18 to now"], ["covers", "url"]]
    assert "covers not  endpoint, cost, reqnum, request_idx\n" in done.out


def test_verified_in_a_form_that_covers_all(shell: Shell, key: str, tmp_path: Path) -> None:
    path = tmp_path / "grant.json"
    path.write_bytes(_grant("2025-10-sorted"))
    (line,) = shell("verify", str(path), "--public-key", key, "--json").lines
    assert (line["kind"], line["verified"], line["form"]) == ("verdict", True, "2025-10-sorted")
    assert (line["covers"], line["covers_not"]) == (["cost", "endpoint", "reqnum", "request_idx", "url"], [])


def test_a_line_of_route_is_a_grant_too(shell: Shell, key: str) -> None:
    line = shell("route", "warm", "--json").raw
    assert shell("verify", "-", "--public-key", key, stdin=line).code == Exit.DONE


def test_not_verified(shell: Shell, key: str, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_text(OTHER_TEST_PUBLIC_KEY)
    done = shell("verify", "--public-key", str(other), stdin=_grant("2026-url"))
    assert done.code == Exit.NOT_VERIFIED
    assert done.out.startswith("not verified  the signature was not made with a known key\n")
    (line,) = shell("verify", "--public-key", key, "--json", stdin=b'{"url": "u"}').lines
    assert (line["verified"], line["reason"], line["covers_not"]) == (False, "malformed", [])


@pytest.mark.parametrize("text", [b"", b"nonsense", b"[]", b'"grant"', b"[" * 100_000])
def test_what_is_no_grant(shell: Shell, key: str, text: bytes) -> None:
    done = shell("verify", "--public-key", key, stdin=text)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.err.startswith("error: the grant ")


@pytest.mark.parametrize("option", ["--engine-url", "--console-url"])
@pytest.mark.parametrize("command", [("route", "demo"), ("endpoints",), ("workers", "demo")])
def test_the_key_is_not_shown_to_everybody_on_the_way(shell: Shell, command: tuple[str, ...], option: str) -> None:
    urls = {"--engine-url": "https://203.0.113.9", "--console-url": "https://203.0.113.9", option: "http://203.0.113.9"}
    done = shell(*command, *(token for pair in urls.items() for token in pair))
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "http://203.0.113.9 has no TLS, so that whoever is on the way would read the key" in done.err
