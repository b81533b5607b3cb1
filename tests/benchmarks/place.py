"""Where the benchmark's servers are, what they answer, and how they are started and stopped. All on loopback."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

FOLDER = Path(__file__).resolve().parent
SERVER_CORE, CLIENT_CORE = 0, 1
"""Servers on one core, the client on another, so that neither pays for the other."""
KEY = "benchmark-endpoint-key"
ENDPOINT = "benchmark"
WORK = "/v1/work"
STREAM = "/v1/stream"
PAYLOAD = {"model": "a-model", "prompt": "What is the answer to life, the universe and everything?", "max_tokens": 256}
EVENT = {
    "id": "chatcmpl-0123456789abcdef",
    "object": "chat.completion.chunk",
    "created": 1765432100,
    "model": "a-model",
    "choices": [{"index": 0, "delta": {"content": " token"}, "logprobs": None, "finish_reason": None}],
}
MEBIBYTE = 1024 * 1024
PATIENCE = 20.0
"""Seconds until a server must be up."""


class Place(NamedTuple):
    """One server that plays the engine and a worker."""

    port: int
    control: int = 0
    """Where the one that holds answers back is told to; 0 for nginx."""

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


def grant(port: int) -> bytes:
    """What ``/route/`` answers: a grant with a good signature, whose worker is the same server."""
    from vastroute_testing.keys import sign  # not at the top: a peer's process is to hold nothing of ours

    fields: dict[str, object] = {
        "endpoint": ENDPOINT,
        "cost": 100.0,
        "request_idx": 4711,
        "reqnum": 42,
        "url": f"http://127.0.0.1:{port}",
    }
    return json.dumps(fields | {"signature": sign(fields), "__request_id": "0123456789abcdef"}).encode()


def answer() -> bytes:
    """What a worker answers: one KiB of JSON, much like a completion."""
    text = "Forty-two. " * 64
    value = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": text}], "usage": {}}
    return json.dumps(value).encode().ljust(1024)


def events(size: int) -> tuple[bytes, int]:
    """Server-sent events of `size` bytes in all, one HTTP chunk for each, as a model's server sends its tokens."""
    event = b"data: " + json.dumps(EVENT).encode() + b"\n\n"
    count = size // len(event)
    chunk = b"%x\r\n%b\r\n" % (len(event), event)
    done = b"data: [DONE]\n\n"
    return chunk * count + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done), count


def raise_file_limit() -> int:
    """Raise the number of files a process may have open as far as it goes; the number."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


@contextmanager
def open_nginx() -> Iterator[Place]:
    """nginx on a free port, with the configuration beside this file."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("nginx is not installed: on Debian, apt-get install nginx-light")
    from vastroute_testing.keys import TEST_PUBLIC_KEY

    most = raise_file_limit()
    with TemporaryDirectory() as folder:
        port = _free_port()
        text = (FOLDER / "nginx.conf").read_text("utf-8")
        values = {
            "port": str(port),
            "folder": folder,
            "files": str(most),
            "connections": str(min(most - 100, 16384)),
            "grant": grant(port).decode(),
            "answer": answer().decode(),
            "key": TEST_PUBLIC_KEY,
        }
        for name, value in values.items():
            text = text.replace(f"@{name}@", value)
        path = Path(folder, "nginx.conf")
        path.write_text(text, "utf-8")
        with _running([binary, "-e", "stderr", "-p", folder, "-c", str(path)], port):
            yield Place(port=port)


@contextmanager
def open_holding() -> Iterator[Place]:
    """The server that holds its answers back until it is told to give them, and streams: see holding.py."""
    port, control = _free_port(), _free_port()
    with _running([sys.executable, str(FOLDER / "holding.py"), str(port), str(control)], control):
        yield Place(port=port, control=control)


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command)
    try:
        until = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)  # a server of another program says by nothing else that it listens
        else:
            raise SystemExit(f"the server did not start: {command[0]}")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
