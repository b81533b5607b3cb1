"""The servers of a script: a simulated engine and its workers, with answers that a script edits, all of it noted."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from math import inf
from typing import TypeAlias, final

import attrs

from vastroute import FailureKind, HttpRequest, Origin

from ..engine import SimulatedEngine
from ..life import route_of
from ..schedule import Chunk, Cut, End, Garbage, Head, Schedule, body_of
from ..server import Serve
from ..workers import SimulatedWorker

Edit: TypeAlias = Callable[[Schedule], Schedule]
"""What becomes of an honest answer."""
PATIENCE = 5.0
"""Real seconds after which a server that says nothing closes the connection, so that over sockets nothing hangs."""
_SECRET = re.compile(r"(?:test|c4n4ry)-(?:endpoint-|account-)?key|[A-Za-z0-9+/]{60,}={0,2}")


def as_it_is(schedule: Schedule) -> Schedule:
    """The honest answer."""
    return schedule


def clean(text: str) -> str:
    """`text` without keys and signatures."""
    return _SECRET.sub("...", text)


@final
class Stage:
    """An engine and its workers as one server, in a script's seconds: see `vastroute_testing.Servers`.

    `engine_edit` and `worker_edit` change their answers; with `one_address` the engine is where its one worker is.
    `speed` is how many of the script's seconds are one of those in which the servers are asked. Every request is noted,
    without what was in it.
    """

    def __init__(
        self,
        engine: SimulatedEngine,
        *,
        engine_edit: Edit = as_it_is,
        worker_edit: Edit = as_it_is,
        one_address: bool = False,
        speed: float = 1.0,
    ) -> None:
        self.engine = engine
        self.notes: list[tuple[float, str]] = []
        """What was asked and answered: the instant in the script's seconds, and words."""
        self._speed = speed
        self._one_address = one_address
        self._engine = self._player("engine", engine, engine_edit)
        self._workers = {
            number: self._player(f"worker {number}", worker, worker_edit)
            for number, worker in enumerate(engine.workers, 1)
        }

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        """What the engine does."""
        is_work = self._one_address and request.target != "/route/"
        return (self._workers[1] if is_work else self._engine)(request, now)

    def worker_at(self, origin: Origin) -> _Listener | None:
        """The worker that listens at `origin`, or None."""
        for number, worker in enumerate(() if self._one_address else self.engine.workers, 1):
            if Origin.parse(worker.url) == origin:
                return _Listener(worker, self._workers[number], self._speed)
        return None

    def named(self) -> dict[str, Serve]:
        """The servers that get sockets. A worker that is dead from the beginning gets an address where nobody is."""
        found = {"engine": self._engine}
        for number, worker in enumerate(self.engine.workers, 1):
            if worker.life.plan.dies_after == 0:
                worker.url = f"http://127.0.0.1:{_free_port()}"
            else:
                found[f"worker {number}"] = self._workers[number]
        return found

    def settle(self, name: str, origin: Origin) -> None:
        """The server of this name listens there."""
        if name != "engine":
            self.engine.workers[int(name.removeprefix("worker ")) - 1].url = str(origin)

    def _player(self, name: str, server: SimulatedEngine | SimulatedWorker, edit: Edit) -> Serve:
        def play(request: HttpRequest, now: float) -> Schedule:
            at = now * self._speed
            schedule = edit(server.serve(request, now=at))
            size = f", {len(request.body)} bytes" if request.body else ""
            self.notes.append((at, f"{name}: {request.method} {route_of(request)}{size}: {_outline(schedule, at)}"))
            if self._speed == 1.0:
                return schedule
            return _ended(tuple(attrs.evolve(step, at=step.at / self._speed) for step in schedule), now)

        return play


@final
class _Listener:
    """One worker in memory, which may refuse connections."""

    def __init__(self, worker: SimulatedWorker, play: Serve, speed: float) -> None:
        self._worker = worker
        self._play = play
        self._speed = speed

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        return self._play(request, now)

    def refuses(self, origin: Origin, *, now: float) -> bool:
        return self._worker.refuses(origin, now=now * self._speed)


def _ended(schedule: Schedule, now: float) -> Schedule:
    """The same with an end in any case."""
    if schedule and isinstance(schedule[-1], End | Cut | Garbage):
        return schedule
    return (*schedule, Cut(at=max([now, *(step.at for step in schedule)]) + PATIENCE))


def _outline(schedule: Schedule, at: float) -> str:
    """An answer in words."""
    head = next((step for step in schedule if isinstance(step, Head) and step.status >= 200), None)
    words = "" if head is None else f"HTTP {head.status}, {len(body_of(schedule))} bytes"
    last = schedule[-1] if schedule else None
    if isinstance(last, Cut):
        words += f"{words and ', then '}{_CUTS[last.kind]}"
    elif isinstance(last, Garbage):
        words += f"{words and ', then '}{len(last.data)} bytes as they are, closed"
    elif isinstance(last, Chunk | Head) or last is None:
        words += f"{words and ', then '}silence"
    took = (last.at if last is not None else at) - at
    return words if took in (0, inf) else f"{words}, over {took:g} s"


_CUTS = {FailureKind.EOF: "closed", FailureKind.RESET: "reset", FailureKind.REFUSED: "refused"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
