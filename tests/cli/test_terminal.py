"""What is different on a terminal: colour, lines that live, and no bytes that it would obey."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from vastroute import Entry, EntryKind, Phase
from vastroute_cli.exits import Exit
from vastroute_cli.output import visible
from vastroute_cli.progress import Progress, breakdown

from .shell import ALLOW, Shell


@pytest.fixture
def terminal(shell: Shell) -> Shell:
    shell.is_terminal = True
    return shell


def test_json_is_pretty_and_coloured(terminal: Shell) -> None:
    done = terminal("call", "warm", "/echo", "--payload", '{"a": 1}', *ALLOW)
    assert done.out.startswith("\x1b[1m{\x1b[0m\n  ")
    assert "request_idx 1001" in done.err


def test_json_is_shown_without_what_a_terminal_obeys(terminal: Shell) -> None:
    done = terminal("call", "warm", "/echo", "--payload", r'{"a": "\u00f6\u009b2J\u001b"}', *ALLOW)
    assert '"\xf6\ufffd2J\\u001b"' in done.out


def test_no_color(terminal: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    done = terminal("route", "nonsense")
    assert "\x1b[3" not in done.err
    assert "error: route: HTTP 200" in done.err


def test_media_is_kept_in_a_file(terminal: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = terminal("call", "warm", "/media", "--payload", "{}", *ALLOW)
    (path,) = tmp_path.glob("vastroute-*.png")
    assert (done.code, done.raw) == (Exit.DONE, b"")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert str(path) in done.err.replace("\n", "")


def test_a_stream_is_shown_without_what_a_terminal_obeys(terminal: Shell) -> None:
    payload = '{"prompt": "a\\u001b[2Jb", "stream": true}'
    done = terminal("call", "warm", "/v1/completions", "--payload", payload, "--stream", *ALLOW)
    assert done.out == "You said: a\ufffd[2Jb\n"


def test_what_is_visible() -> None:
    assert visible("a\tb\nc\x1b\x07\x9b\x7f\xe9") == "a\tb\nc\ufffd\ufffd\ufffd\ufffd\xe9"


def _entry(kind: EntryKind, at: float, detail: str = "", index: int | None = 7, status: int | None = None) -> Entry:
    return Entry(kind=kind, at=at, phase=Phase.ROUTE, attempt=1, request_idx=index, detail=detail, status=status)


COLD = (
    _entry(EntryKind.ASKED, 10.0, index=None),
    _entry(EntryKind.NOT_READY, 10.2, "2 created"),
    _entry(EntryKind.WAITING, 10.2, "poll"),
    _entry(EntryKind.ASKED, 15.0),
    _entry(EntryKind.NOT_READY, 15.2, "2 created"),
    _entry(EntryKind.WAITING, 15.2, "poll"),
    _entry(EntryKind.NOT_READY, 45.2, '{"ready": 0, "loading": 1, "created": 1, "total": 2}'),
    _entry(EntryKind.WAITING, 45.2, "poll"),
    _entry(EntryKind.TROUBLE, 50.0, "the engine is busy", status=503),
    _entry(EntryKind.WAITING, 50.0, "retry"),
    _entry(EntryKind.TROUBLE, 51.0, "the engine is busy", status=503),
    _entry(EntryKind.INDEX_CHANGED, 52.0, "from 7 to 8", index=8),
    _entry(EntryKind.GRANTED, 70.0, "https://192.0.2.1", index=8),
    _entry(EntryKind.SENT, 70.0, "https://192.0.2.1", index=8),
    _entry(EntryKind.ANSWERED, 71.0, index=8),
)


def test_progress_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        for entry in COLD:
            progress(entry)
    assert progress.request_idx == 8
    assert capsys.readouterr().err.splitlines() == [
        "waiting for a worker: 2 created (0 s)",
        "waiting for a worker: 1 loading, 1 created (35 s)",
        "HTTP 503: the engine is busy; asking again (40 s)",
        "the engine changed the request_idx from 7 to 8 (42 s)",
        "worker https://192.0.2.1 is ready (60 s)",
    ]


def test_progress_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress() as progress:
        for entry in COLD:
            progress(entry)
    said = capsys.readouterr()
    assert said.out == ""
    assert "waiting for a worker: 2 created (0 s)" in said.err
    assert said.err.count("is ready") == 1
    assert said.err.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # the cursor is back, and the line that lived is gone


def test_progress_that_is_interrupted(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        with Progress() as progress:
            progress(COLD[1])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err == "interrupted; --request-idx 7 goes on with this request\n"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("1 loading, 2 created", "1 loading, 2 created"),
        ('{"ready": 0, "loading": 1, "total": 1}', "1 loading"),
        ('{"ready": 0, "total": 0}', "none"),
        ("{nonsense", "{nonsense"),
    ],
)
def test_breakdown(status: str, words: str) -> None:
    assert breakdown(status) == words
