"""Every exit code has its test here; and whatever fails, nobody sees a traceback or a key."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vastroute
from vastroute import Advice, CallFailed, HttpRequest, Outcome, Phase
from vastroute_cli.app import run
from vastroute_cli.exits import MEANINGS, Exit, exit_of
from vastroute_testing import LoopbackThread
from vastroute_testing.schedule import Schedule

from .shell import ACCOUNT_KEY, ALLOW, ENDPOINT_KEY, Shell

KEYS = "--public-key"


def _fails_with(shell: Shell, code: Exit, *tokens: str, stdin: bytes = b"") -> str:
    done = shell(*tokens, stdin=stdin)
    assert (done.code, done.out) == (code, "")
    assert "Traceback" not in done.err
    assert done.err.splitlines()[0].startswith(("error: ", "\u256d\u2500 Error"))
    return done.err


def test_done(shell: Shell) -> None:
    assert shell("route", "warm").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_the_machine(shell: Shell) -> None:
    tokens = ("call", "warm", "/echo", "--payload", "{}", *ALLOW, "--output", "/dev/full")
    assert "No space left on device" in _fails_with(shell, Exit.MACHINE, *tokens)


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (("nonsense",), "Unknown command"),
        (("route",), "requires an argument"),
        (("route", "warm", "--nonsense"), "Unknown option"),
        (("route", "warm", "--timeout", "soon"), "--timeout"),
        (("route", "warm", "--signature", "perhaps"), "perhaps"),
        (("route", "warm", "--cost", "much"), "--cost"),
        (("route", "warm", "--cost", "-1"), "cost must be a finite number of at least 0"),
        (("route", ""), "endpoint must be the endpoint's name"),
        (("route", "warm", "--request-idx", "0"), "request_idx must be a whole number from 1"),
        (("route", "warm", "--engine-url", "ftp://x"), "its scheme is neither http nor https"),
        (("route", "warm", "--key-file", "/no/such/file"), "--key-file /no/such/file: No such file or directory"),
        (("route", "warm", KEYS, "/no/such/file"), "--public-key /no/such/file: No such file or directory"),
        (("route", "warm", KEYS, "/dev/null"), "no public key can be read"),
        (("endpoints",), "name it with --console-url"),
        (("engine", "--signing", "nonsense"), "--signing must be one of 2026-url"),
        (("engine", "--port", "65536"), "--port must be from 0 to 65535"),
        (("engine", "--endpoint", ""), "endpoint must be the endpoint's name"),
        (("engine", "--api-key", "two words"), "the key holds a character"),
        (("engine", "--ready-after", "-1"), "ready_after must be a number of at least 0"),
        (("engine", "--host", "0.0.0.0"), "0.0.0.0 is not loopback"),
    ],
)
def test_usage(shell: Shell, tokens: tuple[str, ...], words: str) -> None:
    assert words in _fails_with(shell, Exit.USAGE, *tokens)
    assert shell.engine.asks == 0


def test_no_key(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAST_API_KEY")
    said = _fails_with(shell, Exit.USAGE, "route", "warm")
    assert "there is no key: set VAST_API_KEY" in said
    assert "--key-file to the command" in said


@pytest.mark.parametrize("command", [("route", "warm"), ("endpoints",), ("workers", "warm")])
def test_an_engine_without_tls(shell: Shell, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    monkeypatch.setenv("VAST_API_KEY", ACCOUNT_KEY)
    console = ("--console-url", shell.url)
    said = _fails_with(shell, Exit.USAGE, *command, *console, "--engine-url", "http://192.0.2.1")
    assert "allow_plain_http would allow it" in said
    assert shell(*command, *console, "--allow-plain-http").code == 0


def test_a_port_that_is_taken(shell: Shell) -> None:
    port = shell.url.rpartition(":")[2]
    words = f"cannot listen at 127.0.0.1 port {port}: Address already in use"
    assert words in _fails_with(shell, Exit.USAGE, "engine", "--port", port)


def test_not_ready(shell: Shell) -> None:
    assert shell("route", "never", "--no-wait").code == 3


def test_not_verified(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(shell.engine.public_key)
    assert shell("verify", KEYS, str(path), stdin=b'{"url": "https://192.0.2.1", "signature": "bm8="}').code == 4


def test_key_refused(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", "another-canary")
    said = _fails_with(shell, Exit.KEY_REFUSED, "route", "warm")
    assert said.endswith("  check the key: VAST_API_KEY or --key-file\n")
    said = _fails_with(shell, Exit.KEY_REFUSED, "endpoints", "--console-url", shell.url)
    assert said.endswith("  check the key: this wants the account's own\n")


def test_refused(shell: Shell) -> None:
    said = _fails_with(shell, Exit.REFUSED, "route", "stopped")
    assert "the endpoint is not running" in said
    assert "--request-idx 1001 goes on with this request" in said
    said = _fails_with(shell, Exit.REFUSED, "route", "nonsense")
    assert "`vastroute endpoints` lists those of the account's key" in said


def test_unexpected_answer(shell: Shell) -> None:
    said = _fails_with(shell, Exit.UNEXPECTED_ANSWER, "route", "moved")
    assert said.endswith("  look at the answer: it is not of this protocol\n")


def test_connection_failed(shell: Shell) -> None:
    tokens = ("call", "reset", "/echo", "--payload", "{}", *ALLOW)
    assert "the worker reset the connection" in _fails_with(shell, Exit.CONNECTION_FAILED, *tokens)


def test_limit_reached(shell: Shell) -> None:
    said = _fails_with(shell, Exit.LIMIT_REACHED, "route", "never", "--timeout", "0.4")
    assert "  raise the limit with --timeout" in said


def test_signature_refused(shell: Shell) -> None:
    _fails_with(shell, Exit.SIGNATURE_REFUSED, "route", "forged", "--signature", "require")


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def serve(_request: HttpRequest, _now: float) -> Schedule:
        os.kill(os.getpid(), signal.SIGINT)  # Ctrl-C, while the answer is awaited
        return ()

    monkeypatch.setenv("VAST_API_KEY", ENDPOINT_KEY)
    # Whoever started the tests in the background may have had the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with LoopbackThread(serve) as loopback:
            code = run(["route", "warm", "--engine-url", loopback.url])
            loopback.wait_idle()
    finally:
        signal.signal(signal.SIGINT, before)
    assert code == 130
    assert capsys.readouterr() == ("", "interrupted\n")


def test_output_closed() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "vastroute_cli", "exit-codes"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def _all(cls: type[CallFailed]) -> set[type[CallFailed]]:
    return {cls}.union(*(_all(each) for each in cls.__subclasses__()))


def test_every_error_has_a_code() -> None:
    assert vastroute.SessionGone in _all(CallFailed)
    for cls in _all(CallFailed) - {CallFailed}:
        error = cls("", phase=Phase.ROUTE, outcome=Outcome.ANSWERED, advice=Advice.NOTHING)
        assert exit_of(error) not in {Exit.DONE, Exit.MACHINE, Exit.USAGE}


def test_the_table_is_whole_and_printed(shell: Shell) -> None:
    assert set(MEANINGS) == set(Exit)
    done = shell("exit-codes")
    assert [int(line.split()[0]) for line in done.out.splitlines()] == [code.value for code in Exit]
    assert [line["code"] for line in shell("exit-codes", "--json").lines] == [code.value for code in Exit]
    for meaning in MEANINGS.values():
        assert meaning in done.out
        assert meaning in shell("--help").out


def test_a_key_file_that_others_can_read(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VAST_API_KEY")
    path = tmp_path / "home" / ".config" / "vastai" / "vast_api_key"
    path.parent.mkdir(parents=True)
    path.write_text(f"{ENDPOINT_KEY}\n")
    path.chmod(0o644)
    done = shell("route", "warm")
    assert done.code == Exit.DONE
    assert done.err.startswith("warning: others can read the key file")
    path.chmod(0o600)
    assert shell("route", "warm").err == ""


def test_a_key_from_a_file(shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("VAST_API_KEY")
    path = tmp_path / "key"
    path.write_text(f"{ENDPOINT_KEY}\n")
    assert shell("route", "warm", "--key-file", str(path)).code == Exit.DONE
    path.write_bytes(b"\xffcanary")
    assert shell("route", "warm", "--key-file", str(path)).code == Exit.USAGE
    path.write_text("two canary words")
    assert shell("route", "warm", "--key-file", str(path)).code == Exit.USAGE
