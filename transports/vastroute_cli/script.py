"""What the demo does: its requests, how each of them must end, and the simulated world that they meet."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import attrs

from vastroute_testing import CutStreamAt, SimulatedEndpoint, SimulatedEngine, Status, WorkerPlan

COMPLETIONS = "/v1/completions"
"""The route that all of the demo's work goes to."""
COLD_START = 2.8
"""Seconds from the first ask until the workers of the cold endpoint are ready."""
_CUT_AFTER = 4


class What(Enum):
    """What is asked for."""

    ROUTE = "route"
    """A worker, and no work for it."""
    ANSWER = "answer"
    """Work, and its whole answer."""
    STREAM = "stream"
    """Work, and its answer token by token."""


class End(Enum):
    """How a request ends."""

    GRANTED = "granted"
    ANSWERED = "answered"
    PERHAPS_STARTED = "perhaps started"
    """It failed when the work had perhaps started, and was not sent again."""
    FAILED = "failed"
    """In any other way. No script says so."""


@attrs.frozen(kw_only=True)
class Scripted:
    """One request, and how it must end."""

    number: int
    endpoint: str
    what: What
    end: End
    cost: int
    safe_to_repeat: bool = False
    is_cold: bool = False
    """No worker is ready when it comes, so it has to poll."""
    retries: int = 0
    re_routes: int = 0
    cut_after: int | None = None
    """The tokens after which its stream is cut."""

    @property
    def payload(self) -> dict[str, Any]:
        """What is posted to the worker."""
        prompt = f"request {self.number} of the demo would like to hear its own words again"
        return {"prompt": prompt, "stream": self.what is What.STREAM}

    @property
    def text(self) -> str:
        """What comes back, as far as it comes: the model says the prompt again."""
        words = f"You said: {self.payload['prompt']}".split(" ")
        return " ".join(words[: self.cut_after])


_ROWS: tuple[tuple[int, dict[str, Any]], ...] = (
    (6, {"endpoint": "warm", "what": What.ROUTE, "end": End.GRANTED}),
    (8, {"endpoint": "warm", "what": What.ANSWER, "end": End.ANSWERED}),
    (6, {"endpoint": "warm", "what": What.STREAM, "end": End.ANSWERED}),
    (2, {"endpoint": "cold", "what": What.ROUTE, "end": End.GRANTED, "is_cold": True}),
    (3, {"endpoint": "cold", "what": What.ANSWER, "end": End.ANSWERED, "is_cold": True}),
    (3, {"endpoint": "cold", "what": What.STREAM, "end": End.ANSWERED, "is_cold": True}),
    (1, {"endpoint": "busy", "what": What.ROUTE, "end": End.GRANTED, "retries": 1}),
    (1, {"endpoint": "gone", "what": What.ANSWER, "end": End.ANSWERED, "re_routes": 1}),
    (1, {"endpoint": "full", "what": What.ANSWER, "end": End.ANSWERED, "re_routes": 1}),
    (1, {"endpoint": "dies", "what": What.ANSWER, "end": End.ANSWERED, "re_routes": 1, "safe_to_repeat": True}),
    (1, {"endpoint": "lost", "what": What.ANSWER, "end": End.PERHAPS_STARTED}),
    (1, {"endpoint": "cut", "what": What.STREAM, "end": End.PERHAPS_STARTED, "cut_after": _CUT_AFTER}),
)
"""How many requests of each kind."""

ENDPOINTS: dict[str, str] = {
    "warm": "four workers are ready",
    "cold": f"its workers need {COLD_START:g} s to be ready",
    "busy": "the engine answers 503 the first time",
    "gone": "the first worker refuses connections",
    "full": "the first worker is full",
    "dies": "the first worker dies at work; the work is safe to repeat",
    "lost": "the first worker dies at work; the work may run only once",
    "cut": f"the connection ends after {_CUT_AFTER} tokens",
}
"""What the requests meet at each endpoint."""


def script() -> tuple[Scripted, ...]:
    """All of the requests. They are made at once."""
    kinds = [more for count, more in _ROWS for _ in range(count)]
    return tuple(Scripted(number=number, cost=10 * number, **more) for number, more in enumerate(kinds, 1))


def world(seed: int) -> SimulatedEngine:
    """The engine, and the workers behind it."""
    good = WorkerPlan(perf=600, pace=0.06)
    full = attrs.evolve(good, faults={(COMPLETIONS, 1): Status(429)})
    dying = attrs.evolve(good, dies_on=1)
    cutting = attrs.evolve(good, faults={(COMPLETIONS, 1): CutStreamAt(_CUT_AFTER)})
    cold = tuple(
        attrs.evolve(good, loading_after=COLD_START * (0.2 + 0.3 * number), ready_after=COLD_START)
        for number in range(3)
    )
    plans = {
        "gone": (good, good),  # first, so that `nobody_there` finds it
        "warm": (good,) * 4,
        "cold": cold,
        "busy": (good,),
        "full": (full, good),
        "dies": (dying, good),
        "lost": (dying, good),
        "cut": (cutting, good),
    }
    endpoints = [SimulatedEndpoint(name, workers=workers) for name, workers in plans.items()]
    return SimulatedEngine(endpoints, seed=seed, faults={("busy", 1): Status(503)})


@contextmanager
def nobody_there(engine: SimulatedEngine) -> Iterator[None]:
    """Give the first worker of ``gone`` an address at which nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        engine.workers[0].url = f"http://127.0.0.1:{held.getsockname()[1]}"
        yield
