"""What the tests beside the official programs stand on: an engine and a model on loopback, and official workers.

The official programs are processes of their own in real time, so what waits for them waits in real time, and never
without a bound.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self, TypeAlias, final

import attrs
import trustme

from vastroute import FailureKind, Guard, HttpRequest
from vastroute_io.blocking import Client as BlockingClient
from vastroute_io.options import ClientOptions
from vastroute_testing import (
    EVERY,
    MODELS,
    BadSignature,
    Cut,
    LoopbackThread,
    ModelFailed,
    Schedule,
    SetField,
    SimulatedEndpoint,
    SimulatedEngine,
    Work,
    answer,
)

from .official_worker import FORBIDDEN, LOADED

KEY = "our-test-endpoint-key"
"""The key of the endpoints for our clients: no worker may ever see it."""
OFFICIAL_KEY = "official-test-endpoint-key"
"""The key of the one endpoint for the official client, which shows it to everybody."""
PATIENCE = 20.0
"""Seconds that anything here may take, far more than it does: what is waited for longer has failed."""
Tls: TypeAlias = tuple[Path, Path]
"""The files of a certificate and of its key."""


@final
class ModelServer:
    """What stands behind official workers: the models that simulated workers have too."""

    def __init__(self) -> None:
        self._served: list[tuple[str, Any]] = []
        self._changed = threading.Condition()

    def __call__(self, request: HttpRequest, now: float) -> Schedule:
        if request.target == "/health":
            return answer(200, at=now)
        payload = json.loads(request.body)
        with self._changed:
            self._served.append((request.target, payload))
            self._changed.notify_all()
        other = MODELS["/slow" if "seconds" in payload else "/echo"]
        work = Work(payload=payload, at=now, pace=payload.get("pace", 0.02), number=1, created=0.0)
        try:
            return MODELS.get(request.target, other)(work)
        except ModelFailed:
            return (Cut(at=now, kind=FailureKind.RESET),)

    def payloads(self, route: str) -> list[Any]:
        """What came under `route`, in order."""
        return [payload for path, payload in self._served if path == route]

    def count(self, tag: str) -> int:
        """How often a payload with this `tag` came."""
        return sum(payload.get("tag") == tag for _, payload in self._served)

    def wait_for(self, tag: str) -> None:
        """Return when a payload with this `tag` has come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.count(tag), PATIENCE), tag


@final
class Program:
    """A Python program of its own, with an environment of its own, and what it says."""

    def __init__(self, *command: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.lines: list[str] = []
        """What it has said so far."""
        self._changed = threading.Condition()
        self._over = False
        self._process = subprocess.Popen(
            [sys.executable, "-u", *command],
            cwd=folder,
            env={"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONWARNINGS": "ignore", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="reader of a program", daemon=True)
        self._reader.start()

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Return when a line with `text` has come, and how many lines there were up to it; `after` skips lines."""

        def found() -> int | None:
            numbers = range(after, len(self.lines))
            return next((number + 1 for number in numbers if text in self.lines[number]), None)

        with self._changed:
            self._changed.wait_for(lambda: found() or self._over, PATIENCE)
            line = found()
        assert line is not None, "\n".join([f"it did not say {text!r}:", *self.lines[-40:]])
        return line

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self.kill()
        self._reader.join(PATIENCE)
        outside = [line for line in self.lines if FORBIDDEN in line]
        assert not outside, outside

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as said:
            for line in said:
                with self._changed:
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()


@final
class Port:
    """A port of loopback's, kept for a program: bound here and never listened at, so that nobody else gets it."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@contextmanager
def official_worker(
    folder: Path, *, port: Port, http_port: Port, engine: str, model: int, tls: Tls | None = None
) -> Iterator[Program]:
    """An official PyWorker that is ready: its key is fetched, its model healthy, and signatures are checked."""
    folder.mkdir()
    (folder / "model.log").write_text(f"{LOADED}\n")
    (folder / ".has_benchmark").write_text("100.0\n")  # the units of work that it does in a second, by its benchmark
    environment = {
        "CONTAINER_ID": "7",
        "REPORT_ADDR": engine,
        "PUBLIC_IPADDR": "127.0.0.1",
        "WORKER_PORT": str(port.number),
        f"VAST_TCP_PORT_{port.number}": str(port.number),
        "WORKER_HTTP_PORT": str(http_port.number),
        "UNSECURED": "false",
        "USE_SSL": "false" if tls is None else "true",
    }
    files = None if tls is None else [str(file) for file in tls]
    script = Path(__file__).parent / "official_worker.py"
    settings = json.dumps({"model": model, "tls": files})
    with Program(str(script), settings, folder=folder, environment=environment) as program:
        program.wait_for("Successfully fetched pubkey")
        program.wait_for("marking model as loaded")
        yield program


@final
@attrs.frozen(kw_only=True)
class Stage:
    """An engine, a model, and two official workers in front of it: one in the open, one over TLS."""

    folder: Path
    engine: SimulatedEngine
    engine_url: str
    model: ModelServer
    model_loopback: LoopbackThread
    worker: Program
    worker_url: str
    tls_worker: Program
    tls_worker_url: str
    root: bytes
    """The root certificate, in PEM, of the worker over TLS."""
    spare: Port
    """Nobody listens here until `spare_worker`."""

    @property
    def options(self) -> ClientOptions:
        """What one of our clients needs in order to work here."""
        return ClientOptions(
            key=KEY,
            engine=self.engine_url,
            guard=Guard(allow_plain_http=True, allow_private_address=True),
            worker_root=self.root,
            fetch_public_key=True,
            proxy=None,
        )

    def grants(self, request_idx: int | None) -> tuple[str, ...]:
        """The workers that were granted for this request, in order."""
        assert request_idx is not None
        return self.engine.lifetimes[request_idx].grants

    def end_of(self, request_idx: int | None) -> Mapping[str, Any]:
        """What a worker tells the engine of the end of this request, once it does."""
        tick, until = threading.Event(), time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for request in tuple(self.engine.requests):  # at once: the engine's thread adds to it
                if request.target == "/delete_requests/":
                    for row in json.loads(request.body)["requests"]:
                        if row["request_idx"] == request_idx:
                            return dict(row)
            tick.wait(0.05)
        raise AssertionError(request_idx)

    def check_model_is_left(self) -> None:
        """Return when nobody is connected to the model, as a worker has to leave it when its client is gone."""
        self.model_loopback.wait_idle(PATIENCE)

    @contextmanager
    def spare_worker(self, name: str) -> Iterator[Program]:
        """One more worker, at the spare port, which the caller may kill."""
        with (
            Port() as http_port,
            official_worker(
                self.folder / name,
                port=self.spare,
                http_port=http_port,
                engine=self.engine_url,
                model=self.model_loopback.origin.port,
            ) as worker,
        ):
            yield worker

    @contextmanager
    def occupied(self, tag: str, *, seconds: float) -> Iterator[None]:
        """The plain worker has work for `seconds`, a second's worth of it by its own account."""

        def occupy() -> None:
            with BlockingClient(**self.options) as client:
                client.call("plain", "/slow", {"tag": tag, "seconds": seconds})

        thread = threading.Thread(target=occupy, name="occupant")
        thread.start()
        try:
            self.model.wait_for(tag)
            yield
        finally:
            thread.join(PATIENCE)


@contextmanager
def open_stage(folder: Path) -> Iterator[Stage]:
    """Everything above, for as long as the block lasts."""
    authority = trustme.CA()
    leaf = authority.issue_cert("127.0.0.1")
    files = folder / "instance.crt", folder / "instance.key"
    leaf.cert_chain_pems[0].write_to_path(files[0])
    leaf.private_key_pem.write_to_path(files[1])
    with ExitStack() as stack:
        plain, tls, spare, *others = (stack.enter_context(Port()) for _ in range(5))
        urls = [f"http://127.0.0.1:{plain.number}", f"https://127.0.0.1:{tls.number}"]
        engine = SimulatedEngine(endpoints(*urls, spare=f"http://127.0.0.1:{spare.number}"))
        model = ModelServer()
        engine_url = stack.enter_context(LoopbackThread(engine)).url
        model_loopback = stack.enter_context(LoopbackThread(model))
        workers = [
            stack.enter_context(
                official_worker(
                    folder / name,
                    port=port,
                    http_port=http_port,
                    engine=engine_url,
                    model=model_loopback.origin.port,
                    tls=with_tls,
                )
            )
            for name, port, http_port, with_tls in (
                ("plain", plain, others[0], None),
                ("tls", tls, others[1], files),
            )
        ]
        yield Stage(
            folder=folder,
            engine=engine,
            engine_url=engine_url,
            model=model,
            model_loopback=model_loopback,
            worker=workers[0],
            worker_url=urls[0],
            tls_worker=workers[1],
            tls_worker_url=urls[1],
            root=authority.cert_pem.bytes(),
            spare=spare,
        )


def endpoints(plain: str, tls: str, *, spare: str) -> tuple[SimulatedEndpoint, ...]:
    """The same workers under several names, some of which go wrong in a way of their own."""
    always, at_first = (
        {("forged", EVERY): BadSignature()},
        {("forged once", each): BadSignature() for each in (1, 3, 5)},
    )
    moved = {("moved", EVERY): SetField("url", f"{plain}/")}
    return (
        SimulatedEndpoint("plain", key=KEY, worker_urls=(plain,)),
        SimulatedEndpoint("tls", key=KEY, worker_urls=(tls,)),
        SimulatedEndpoint("both", key=KEY, worker_urls=(plain, tls)),
        SimulatedEndpoint("gone", key=KEY, worker_urls=(spare, plain)),
        SimulatedEndpoint("mortal", key=KEY, worker_urls=(spare, plain)),
        SimulatedEndpoint("mortal, safe to repeat", key=KEY, worker_urls=(spare, plain)),
        SimulatedEndpoint("forged", key=KEY, worker_urls=(plain,), faults=always),
        SimulatedEndpoint("forged once", key=KEY, worker_urls=(plain,), faults=at_first),
        SimulatedEndpoint("moved", key=KEY, worker_urls=(plain,), faults=moved),
        SimulatedEndpoint("official", key=OFFICIAL_KEY, worker_urls=(plain,)),
    )
