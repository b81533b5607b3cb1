"""``vastroute route``: the grant in words and as JSON, and what stands in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vastroute_cli.exits import Exit

from .shell import ACCOUNT_KEY, Shell


@pytest.fixture
def key_file(shell: Shell, tmp_path: Path) -> str:
    path = tmp_path / "key.pem"
    path.write_text(shell.engine.public_key)
    return str(path)


def test_a_grant_in_words(shell: Shell, key_file: str) -> None:
    done = shell("route", "warm", "--cost", "7", "--public-key", key_file)
    said = dict(line.split(maxsplit=1) for line in done.out.splitlines())
    assert done.code == Exit.DONE
    assert done.err == ""
    assert said["worker"] == shell.engine.workers[0].url
    assert (said["endpoint"], said["cost"], said["reqnum"], said["request_idx"]) == ("warm", "7", "1", "1001")
    assert said["verdict"] == "verified: form 2026-url, which covers url"
    assert said["signature"].endswith("... (344 characters)")
    assert said["asked"].startswith("1 time, ")


def test_a_grant_as_json_is_the_engines_own_text(shell: Shell) -> None:
    done = shell("route", "warm", "--cost", "7.50", "--json")
    (line,) = done.lines
    assert (done.code, line["kind"], line["request_idx"]) == (Exit.DONE, "grant", 1001)
    assert line["verdict"]["reason"] == "no key"
    assert line["grant"]["url"] == shell.engine.workers[0].url
    assert '"cost": 7.5, "reqnum": 1' in done.out  # the simulated engine's own spelling and order


@pytest.mark.parametrize(("given", "sent"), [("7", b"7"), ("7.0", b"7.0"), ("1e3", b"1000.0")])
def test_an_int_stays_an_int(shell: Shell, given: str, sent: bytes) -> None:
    assert shell("route", "warm", "--cost", given).code == Exit.DONE
    assert b'"cost": %b}' % sent in shell.engine.requests[-1].body


def test_going_on_with_a_request(shell: Shell) -> None:
    first = shell("route", "never", "--no-wait", "--json")
    again = shell("route", "never", "--no-wait", "--json", "--request-idx", "1001")
    assert first.code == again.code == Exit.NOT_READY
    assert first.lines == again.lines
    assert first.last["request_idx"] == 1001
    assert shell.engine.lifetimes[1001].asks == 2


def test_not_ready(shell: Shell) -> None:
    done = shell("route", "never", "--no-wait")
    assert done.code == Exit.NOT_READY
    assert done.out == "not ready: 1 created\n"
    assert done.err == "  --request-idx 1001 goes on with this request\n"
    done = shell("route", "never", "--no-wait", "--json")
    assert done.last["workers"] == {"created": 1, "ready": 0, "total": 1}
    assert json.loads(done.last["status"])["created"] == 1


def test_an_account_key_finds_the_endpoints_own(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", ACCOUNT_KEY)
    done = shell("route", "warm", "--console-url", shell.url)
    assert done.code == Exit.DONE
    assert shell("route", "warm").code == Exit.KEY_REFUSED


def test_trouble_is_told(shell: Shell) -> None:
    done = shell("route", "busy")
    assert done.code == Exit.DONE
    assert done.err == "HTTP 503: the engine is busy or failing; asking again (0 s)\n"
    assert "2 times, 1 retry, " in done.out


def test_a_signature_that_does_not_verify(shell: Shell, key_file: str) -> None:
    done = shell("route", "forged", "--public-key", key_file)
    assert done.code == Exit.DONE
    assert "no match: the signature was not made with a known key" in done.out
    done = shell("route", "forged", "--signature", "require")
    assert done.code == Exit.SIGNATURE_REFUSED
    assert done.out == ""
    assert "error: route: the grant is not to be trusted: no match" in done.err
    done = shell("route", "warm", "--signature", "off", "--public-key", key_file)
    assert "verdict      off: signatures are not checked" in done.out
