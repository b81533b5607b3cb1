"""Every Python block of the README and of the documentation is run, as it is shown.

What a reader would have is a key and a network; a test has neither. So for each block there is a `World`: a simulated
engine, to which every address leads, and a clock that is passed at once. Nothing else is replaced: a block imports and
calls what its reader would. A block with ``await`` in it is run by trio; a function whose name begins with ``test_`` is
called; a block marked ``output`` has to be what the Python block before it printed.
"""

from __future__ import annotations

import ast
import asyncio
import http.client
import inspect
import io
import random
import re
import selectors
import threading
import time
from collections.abc import Coroutine
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from textwrap import dedent
from types import CodeType
from typing import Any, cast

import pytest
import trio
from sybil import Document, Example
from sybil.evaluators.python import pad
from sybil.parsers.markdown import CodeBlockParser
from trio.testing import MockClock

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import Origin
from vastroute_testing import (
    TEST_KEY,
    BlockingConnector,
    BlockingMemoryStream,
    ManualClock,
    SimulatedEndpoint,
    SimulatedEngine,
    blocking_connector,
    connector,
)

ROOT = Path(__file__).parents[2]
FILES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
EXAMPLES = {
    "README.md": 4,
    "docs/asyncio.md": 1,
    "docs/blocking.md": 2,
    "docs/calls.md": 4,
    "docs/conformance.md": 2,
    "docs/embedding/index.md": 4,
    "docs/errors.md": 2,
    "docs/recording.md": 2,
    "docs/security.md": 1,
    "docs/sessions.md": 3,
    "docs/signatures.md": 2,
    "docs/streams.md": 3,
    "docs/testing.md": 8,
    "docs/trio.md": 4,
    "docs/workers.md": 1,
}
"""How many Python blocks each file has. A file without one is not named."""


class World:
    """What a block finds in place of Vast.ai: one endpoint, cold for seven minutes, with two workers."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = SimulatedEngine(SimulatedEndpoint("my-endpoint", workers=2, ready_after=420.0))
        for number, worker in enumerate(self.engine.workers):
            worker.url = f"https://93.184.215.{14 + number}:40001"  # public, so that the guard is the one users have

    def connect(self, origin: Origin) -> MemorySocket:
        """A socket to `origin`, for blocks that own their sockets."""
        return MemorySocket(blocking_connector(self.engine, self.clock), origin, self.clock)

    def sleep(self, seconds: float) -> None:
        """In place of `time.sleep`."""
        self.clock.advance(seconds)


class MemorySocket(io.RawIOBase):
    """As much of a socket as `http.client` and a simple loop use, over a memory stream."""

    def __init__(self, connect: BlockingConnector, origin: Origin, clock: ManualClock) -> None:
        self._stream: BlockingMemoryStream = connect(origin, float("inf"))
        self._clock = clock
        self._seconds = 60.0

    def settimeout(self, seconds: float) -> None:
        self._seconds = seconds

    def sendall(self, data: bytes) -> None:
        self._stream.send_all(bytes(data), deadline=self._clock() + self._seconds)

    def recv(self, most: int) -> bytes:
        return self._stream.receive_some(most, deadline=self._clock() + self._seconds)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class AsyncMemoryStream:
    """The same for asyncio."""

    def __init__(self, socket: MemorySocket) -> None:
        self._socket = socket

    async def send_all(self, data: bytes) -> None:
        self._socket.sendall(data)

    async def receive_some(self, most: int) -> bytes:
        return self._socket.recv(most)

    def abort(self) -> None:
        self._socket.close()


class VirtualSelector(selectors.SelectSelector):
    """Passes the time in place of waiting."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "the loop would wait for ever"
        self._clock.advance(max(0.0, timeout))
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in a manual clock's time."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(VirtualSelector(clock))
        self._manual = clock

    def time(self) -> float:
        return self._manual()


class Examples:
    """The blocks of one file, each in a world of its own, all in one namespace."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World()
        self.run = 0
        self.printed = ""
        real_run, monotonic = trio.run, time.monotonic
        trio_client, asyncio_client = vastroute_io.trio.Client, vastroute_io.asyncio.Client
        blocking_client = vastroute_io.blocking.Client

        def run(*args: Any, **named: Any) -> Any:
            if (
                threading.current_thread() is threading.main_thread()
            ):  # what listens on sockets has its own, in real time
                named.setdefault("clock", MockClock(autojump_threshold=0))
            return real_run(*args, **named)

        def make_trio_client(**options: Any) -> vastroute_io.trio.Client:
            return trio_client(**{"connect": connector(self.world.engine), **options})

        def make_blocking_client(**options: Any) -> vastroute_io.blocking.Client:
            clock = self.world.clock
            return blocking_client(
                **{"connect": blocking_connector(self.world.engine, clock), "clock": clock, **options}
            )

        async def connect_asyncio(origin: Origin) -> AsyncMemoryStream:
            return AsyncMemoryStream(self.world.connect(origin))

        def make_asyncio_client(**options: Any) -> vastroute_io.asyncio.Client:
            return asyncio_client(**{"connect": connect_asyncio, **options})

        def run_asyncio(main: Coroutine[Any, Any, Any]) -> Any:
            with asyncio.Runner(loop_factory=partial(VirtualLoop, self.world.clock)) as runner:
                return runner.run(main)

        def connect(connection: http.client.HTTPSConnection) -> None:
            origin = Origin(scheme="https", host=connection.host, port=connection.port or 443)
            connection.sock = cast("Any", self.world.connect(origin))
            if connection.timeout is not None:
                connection.sock.settimeout(connection.timeout)

        def read_clock() -> float:
            return self.world.clock() if threading.current_thread() is threading.main_thread() else monotonic()

        def sleep(seconds: float) -> None:
            self.world.clock.advance(seconds)

        monkeypatch.setattr(trio, "run", run)
        monkeypatch.setattr(vastroute_io.trio, "Client", make_trio_client)
        monkeypatch.setattr(vastroute_io.blocking, "Client", make_blocking_client)
        monkeypatch.setattr(vastroute_io.asyncio, "Client", make_asyncio_client)
        monkeypatch.setattr(asyncio, "run", run_asyncio)
        monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
        monkeypatch.setattr(time, "monotonic", read_clock)
        monkeypatch.setattr(time, "sleep", sleep)

    def python(self, example: Example) -> None:
        """Run one block."""
        self.run += 1
        self.world = World()
        random.seed(1)
        namespace = example.namespace
        namespace.setdefault("__name__", "example")
        namespace["connect"] = self.world.connect
        before = dict(namespace)
        printed = io.StringIO()
        with redirect_stdout(printed):
            _execute(_compile(example), namespace)
            for name, test in list(namespace.items()):
                if name.startswith("test_") and test is not before.get(name):
                    test()
        self.printed = printed.getvalue()

    def output(self, example: Example) -> str | None:
        """Compare what the last block printed with what the page says; spaces that no reader sees do not count."""
        printed = dedent("".join(f"{line.rstrip()}\n" for line in self.printed.splitlines()))
        return None if printed == dedent(str(example.parsed)) else f"it printed:\n{printed}"


def _compile(example: Example) -> CodeType:
    source = pad(str(example.parsed), example.line + example.parsed.line_offset)
    code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    assert isinstance(code, CodeType)
    return code


def _execute(code: CodeType, namespace: dict[str, Any]) -> None:
    if not code.co_flags & inspect.CO_COROUTINE:
        exec(code, namespace)
        return

    async def main() -> None:
        await cast("Any", eval(code, namespace))

    trio.run(main)


def _count(path: Path) -> int:
    return len(re.findall(r"^ *(?:```|~~~)+ *\{?[a-z-]*\}? *python", path.read_text("utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_do_what_their_page_says(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setenv("VAST_API_KEY", TEST_KEY)
    monkeypatch.chdir(tmp_path)
    examples = Examples(monkeypatch)
    python = CodeBlockParser(language="python", evaluator=examples.python)
    output = CodeBlockParser(language="output", evaluator=examples.output)
    for example in Document.parse(str(ROOT / name), python, output).examples():
        example.evaluate()
    assert examples.run == EXAMPLES[name]


def test_no_example_is_forgotten() -> None:
    found = {str(path.relative_to(ROOT)): _count(path) for path in FILES}
    assert {name: count for name, count in found.items() if count} == EXAMPLES
