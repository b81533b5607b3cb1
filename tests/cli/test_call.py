"""``vastroute call``: every kind of answer on its way to stdout or a file, and what is told when there is none."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from vastroute import Guard
from vastroute_cli.deliver import token_of
from vastroute_cli.exits import Exit
from vastroute_testing import replay
from vastroute_testing.memory import Client

from .shell import ALLOW, Shell

PROMPT = '{"prompt": "a b"}'
STREAMED = '{"prompt": "a b", "stream": true}'


def call(shell: Shell, endpoint: str, route: str, payload: str, *more: str, **named: Any) -> Any:
    return shell("call", endpoint, route, "--payload", payload, *ALLOW, *more, **named)


def test_json_comes_as_it_came(shell: Shell) -> None:
    done = call(shell, "warm", "/echo", '{"a": 1.0}', "--cost", "3")
    assert (done.code, done.out, done.err) == (Exit.DONE, '{"echo": {"a": 1.0}}\n', "")
    assert shell.engine.load("warm") == 3


def test_the_same_as_json(shell: Shell) -> None:
    (line,) = call(shell, "warm", "/echo", '{"a": 1}', "--json").lines
    assert (line["kind"], line["status"], line["data"]) == ("answer", 200, {"echo": {"a": 1}})
    assert (line["worker"], line["reqnum"], line["request_idx"]) == (shell.engine.workers[0].url, 1, 1001)
    assert line["counts"]["work_attempts"] == 1


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/chat/completions"])
def test_tokens(shell: Shell, route: str) -> None:
    payload = {"prompt": "a b", "messages": [{"role": "user", "content": "a b"}], "stream": True}
    done = call(shell, "warm", route, json.dumps(payload), "--stream")
    assert (done.code, done.out, done.err) == (Exit.DONE, "You said: a b\n", "")


def test_other_events(shell: Shell) -> None:
    done = call(shell, "warm", "/stream", '{"count": 2}', "--stream")
    assert done.out == '{"n": 0, "text": "t\u00f6k\u00ebn 0"}\n{"n": 1, "text": "t\u00f6k\u00ebn 1"}\n'


def test_events_as_json(shell: Shell) -> None:
    *events, last, answer = call(shell, "warm", "/stream", '{"count": 2}', "--stream", "--json").lines
    assert [event["data"]["n"] for event in events] == [0, 1]
    assert last == {"kind": "event", "event": "message", "data": "[DONE]"}
    assert (answer["kind"], answer["events"]) == ("answer", 3)


def test_a_stream_of_bytes_that_are_no_events(shell: Shell) -> None:
    whole = call(shell, "warm", "/media", "{}")
    assert call(shell, "warm", "/media", "{}", "--stream").raw == whole.raw
    *pieces, _ = call(shell, "warm", "/media", "{}", "--stream", "--json").lines
    assert b"".join(base64.b64decode(piece["data_base64"]) for piece in pieces) == whole.raw


def test_media(shell: Shell, tmp_path: Path) -> None:
    piped = call(shell, "warm", "/media", "{}")
    assert piped.raw.startswith(b"\x89PNG")
    path = tmp_path / "picture.png"
    assert call(shell, "warm", "/media", "{}", "--output", str(path)).raw == b""
    assert path.read_bytes() == piped.raw
    line = call(shell, "warm", "/media", "{}", "--json").last
    assert base64.b64decode(line["data_base64"]) == piped.raw
    line = call(shell, "warm", "/media", "{}", "--json", "--output", str(path)).last
    assert line["output"] == str(path)
    assert "data_base64" not in line


def test_a_file_gets_the_answer_and_nothing_else(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "answer"
    assert call(shell, "warm", "/echo", "{}", "--output", str(path)).out == ""
    assert path.read_bytes() == b'{"echo": {}}'
    assert call(shell, "warm", "/v1/completions", STREAMED, "--stream", "--output", str(path)).out == ""
    assert path.read_bytes() == b"You said: a b"


def test_a_file_stays_as_it_was_without_an_answer(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_text("before")
    assert call(shell, "warm", "/status", '{"status": 422}', "--output", str(path)).code == Exit.REFUSED
    assert path.read_text() == "before"
    assert call(shell, "warm", "/echo", "{}", "--output", str(tmp_path)).code == Exit.USAGE
    assert call(shell, "warm", "/echo", "{}", "--output", str(tmp_path / "no" / "where")).code == Exit.USAGE
    assert shell.engine.asks == 1


def test_an_empty_answer(shell: Shell) -> None:
    done = call(shell, "warm", "/status", '{"status": 204}')
    assert (done.code, done.out, done.err) == (Exit.DONE, "", "the answer is empty (HTTP 204)\n")


def test_a_cut_stream_prints_what_came(shell: Shell) -> None:
    done = call(shell, "cut", "/v1/completions", STREAMED, "--stream")
    assert (done.code, done.out) == (Exit.CONNECTION_FAILED, "You said:\n")
    error, advice = done.err.splitlines()
    assert error.startswith("error: worker: the worker closed the connection")
    check = "the work may have run; check that before you repeat it, or say --safe-to-repeat"
    assert advice == f"  {check}; --request-idx 1001 goes on with this request"


def test_a_cut_stream_as_json(shell: Shell) -> None:
    *events, error = call(shell, "cut", "/v1/completions", STREAMED, "--stream", "--json").lines
    assert len(events) == 2
    assert (error["kind"], error["error"], error["exit_code"]) == ("error", "ConnectionFailed", 8)
    assert (error["outcome"], error["request_idx"]) == ("perhaps started", 1001)


def test_what_is_paid_for_is_printed_even_if_it_is_broken(shell: Shell) -> None:
    done = call(shell, "broken", "/echo", "{}")
    assert (done.code, done.out) == (Exit.UNEXPECTED_ANSWER, '{"echo": {}')
    assert "error: worker: HTTP 200: the worker's answer says that it is JSON, but is not" in done.err


def test_the_same_broken_answer_as_json(shell: Shell) -> None:
    body, error = call(shell, "broken", "/echo", "{}", "--json").lines
    assert base64.b64decode(body["data_base64"]) == b'{"echo": {}'
    assert error["error"] == "UnexpectedAnswer"


def test_a_full_worker_is_replaced(shell: Shell) -> None:
    done = call(shell, "full", "/echo", "{}")
    assert (done.code, done.out) == (Exit.DONE, '{"echo": {}}\n')
    assert done.err == "HTTP 429: the worker is full; asking for another with the same request_idx (0 s)\n"
    assert len(shell.engine.lifetimes[1001].grants) == 2


def test_work_is_repeated_only_if_that_is_safe(shell: Shell) -> None:
    done = call(shell, "reset", "/echo", "{}")
    assert done.code == Exit.CONNECTION_FAILED
    assert "the work may have run" in done.err


def test_work_that_is_safe_to_repeat(shell: Shell) -> None:
    done = call(shell, "reset", "/echo", "{}", "--safe-to-repeat")
    assert (done.code, done.out) == (Exit.DONE, '{"echo": {}}\n')
    assert list(shell.engine.lifetimes) == [1001]


@pytest.mark.parametrize("streamed", [False, True])
def test_in_a_session_which_is_ended(shell: Shell, streamed: bool) -> None:
    more = ("--session-lifetime", "30", "--timeout", "20", *(("--stream",) if streamed else ()))
    done = call(shell, "warm", "/v1/completions", STREAMED if streamed else PROMPT, *more)
    assert done.code == Exit.DONE
    assert "You said: a b" in done.out
    routes = [request.target for request in shell.engine.workers[0].requests]
    assert routes == ["/session/create", "/v1/completions", "/session/end"]


def test_payloads_from_files_and_stdin(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "payload.json"
    path.write_text('{"from": "a file"}')
    assert call(shell, "warm", "/echo", f"@{path}").out == '{"echo": {"from": "a file"}}\n'
    assert call(shell, "warm", "/echo", "-", stdin=b'{"from": "stdin"}').out == '{"echo": {"from": "stdin"}}\n'


def test_headers(shell: Shell) -> None:
    assert call(shell, "warm", "/echo", "{}", "--header", "X-One: 1: 2", "--header", "x-two:2").code == Exit.DONE
    headers = shell.engine.workers[0].requests[-1].headers
    assert (headers.get("x-one"), headers.get("x-two"), headers.get("authorization")) == ("1: 2", "2", None)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--payload", "nonsense"), "payload is not JSON"),
        (("--payload", "[1]"), "payload must be a JSON object"),
        (("--payload", "@/no/such/file"), "--payload /no/such/file: No such file or directory"),
        (("--payload", "{}", "--header", "canary"), "--header wants the form 'Name: value'"),
        (("--payload", "{}", "--header", "a: canary", "--header", "A: canary"), "--header names A twice"),
        (("--payload", "{}", "--worker-ca", "/no/such/file"), "--worker-ca /no/such/file: No such file"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_asked(shell: Shell, more: tuple[str, ...], words: str) -> None:
    done = shell("call", "warm", "/echo", *more)
    assert done.code == Exit.USAGE
    assert words in done.err
    assert shell.engine.asks == 0


def test_each_switch_of_the_guard_is_named(shell: Shell) -> None:
    done = shell("call", "warm", "/echo", "--payload", "{}")
    assert done.code == Exit.CONNECTION_FAILED
    assert "  --allow-plain-http allows it; --request-idx 1001 goes on" in done.err
    done = shell("call", "warm", "/echo", "--payload", "{}", "--allow-plain-http", "--request-idx", "1001")
    assert "  --allow-private-address allows it; --request-idx 1001 goes on" in done.err
    assert shell.engine.workers[0].served == 0


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ({"choices": [{"delta": {"content": "a"}}]}, "a"),
        ({"choices": [{"text": "a"}]}, "a"),
        ({"choices": [{"text": ""}]}, ""),
        ({"choices": [{"delta": {"role": "assistant", "content": None}}]}, ""),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, ""),
        ({"choices": [], "usage": {}}, ""),
        ({"choices": [{"delta": {"tool_calls": [1]}}]}, None),
        ({"choices": [{"message": {}}]}, None),
        ({"choices": [1]}, None),
        ({"choices": None}, None),
        ({"error": {}, "choices": []}, None),
        ([], None),
        ("a", None),
    ],
)
def test_what_a_token_is(value: Any, token: str | None) -> None:
    assert token_of(value) == token


def test_a_call_is_recorded_for_a_replay(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    for _ in range(2):
        assert call(shell, "busy", "/echo", '{"a": "private"}', "--record", str(path)).code == Exit.DONE
    assert "private" not in path.read_text()
    client = Client(server=replay(path), guard=Guard(allow_private_address=True, allow_plain_http=True))
    assert [client.call("busy", "/echo", {"a": "another"}).counts.retries for _ in range(2)] == [1, 0]
