"""``vastroute engine`` as a program of its own: what it says, whom it serves, how it ends."""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import vastroute_io.blocking
from vastroute import Guard

ALLOW = Guard(allow_plain_http=True, allow_private_address=True)


@contextmanager
def engine(*tokens: str, stop: signal.Signals = signal.SIGTERM) -> Iterator[tuple[dict[str, Any], list[str]]]:
    """What it says on stdout when it can be asked; and on stderr, once it has ended."""
    command = [sys.executable, "-m", "vastroute_cli", "engine", *tokens]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        errors: list[str] = []
        try:
            yield json.loads(process.stdout.readline()), errors
        finally:
            process.send_signal(stop)
            out, err = process.communicate(timeout=20)
            errors.append(err)
        assert (process.returncode, out) == (0, "")


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    with engine("--api-key", "k1", "--endpoint", "mine", "--workers", "3", stop=stop) as (said, errors):
        assert (said["endpoint"], said["api_key"], len(said["workers"])) == ("mine", "k1", 3)
        options: Any = {"engine": said["engine_url"], "guard": ALLOW, "public_key": said["public_key"], "proxy": None}
        with vastroute_io.blocking.Client(key="k1", **options) as client:
            answer = client.call("mine", "/echo", {"a": 1}, cost=5)
            assert (answer.data, answer.verdict.form) == ({"echo": {"a": 1}}, "2026-url")
            assert answer.grant.url in said["workers"]
        with vastroute_io.blocking.Client(key=said["account_key"], console=said["engine_url"], **options) as client:
            assert [each.name for each in client.endpoints()] == ["mine"]
            assert [each.status for each in client.workers("mine")] == ["ready"] * 3
    assert "vastroute call mine /v1/completions" in errors[0]


def test_it_speaks_tls_and_signs_in_other_forms() -> None:
    with engine("--tls", "--signing", "2025-10-sorted", "--json") as (said, errors):
        path = Path(said["ca_file"])
        assert path.read_text() == said["ca"]
        context = ssl.create_default_context(cadata=said["ca"])
        with vastroute_io.blocking.Client(
            key=said["api_key"],
            engine=said["engine_url"],
            guard=Guard(allow_private_address=True),
            worker_root=path,
            ssl_context=context,
            fetch_public_key=True,
            proxy=None,
        ) as client:
            answer = client.call("demo", "/echo", {"a": 1})
            assert answer.grant.url.startswith("https://127.0.0.1:")
            assert answer.verdict.form == "2025-10-sorted"
    assert errors == [""]
    assert not path.exists()


def test_it_hands_out_workers_of_yours() -> None:
    urls = ["https://192.0.2.1:4000", "https://192.0.2.2:4000"]
    tokens = [token for url in urls for token in ("--worker-url", url)]
    with engine(*tokens, "--json") as (said, _):
        assert said["workers"] == urls
        with vastroute_io.blocking.Client(key=said["api_key"], engine=said["engine_url"], proxy=None) as client:
            assert [client.route("demo").grant.url for _ in urls] == urls
