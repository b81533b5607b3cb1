"""The command as a user of a shell meets it: run in this process, against a simulated engine on loopback."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING, Any, final

import attrs

from vastroute_cli.app import run
from vastroute_testing import (
    BadJson,
    BadSignature,
    CutStreamAt,
    LoopbackThread,
    Redirect,
    ResetBeforeHead,
    SimulatedEndpoint,
    SimulatedEngine,
    Status,
    StatusForm,
    WorkerPlan,
)

if TYPE_CHECKING:
    import pytest

ENDPOINT_KEY = "canary-of-the-endpoint"
ACCOUNT_KEY = "canary-of-the-account"
CANARIES = ("canary", "Bearer")
"""What no output may hold."""
ALLOW = ("--allow-plain-http", "--allow-private-address")

QUICK = WorkerPlan(pace=0.0)
PLANS: dict[str, WorkerPlan] = {
    "warm": QUICK,
    "cut": attrs.evolve(QUICK, faults={("/v1/completions", 1): CutStreamAt(2)}),
    "broken": attrs.evolve(QUICK, faults={("/echo", 1): BadJson()}),
    "reset": attrs.evolve(QUICK, faults={("/echo", 1): ResetBeforeHead()}),
    "never": WorkerPlan(loading_after=9e6, ready_after=9e9),
}


@attrs.frozen
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str
    raw: bytes

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of stdout, each a JSON object."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        """The last of them."""
        return self.lines[-1]


def make_engine() -> SimulatedEngine:
    """An engine with one endpoint for each thing that can happen."""

    def endpoint(name: str, workers: tuple[WorkerPlan, ...] = (QUICK,), **more: Any) -> SimulatedEndpoint:
        return SimulatedEndpoint(name, key=ENDPOINT_KEY, workers=workers, **more)

    return SimulatedEngine(
        [
            *(endpoint(name, (plan,), status_form=StatusForm.OBJECT) for name, plan in PLANS.items()),
            endpoint("full", (attrs.evolve(QUICK, faults={("/echo", 1): Status(429)}), QUICK)),
            endpoint("busy", faults={("busy", 1): Status(503)}),
            endpoint("forged", faults={("forged", 0): BadSignature()}),
            endpoint("moved", faults={("moved", 0): Redirect("https://192.0.2.1/")}),
            endpoint("stopped", stopped=True),
        ],
        account_key=ACCOUNT_KEY,
    )


@final
class Shell:
    """Runs the command; no output of it may ever hold a key."""

    def __init__(self, engine: SimulatedEngine, url: str, capture: pytest.CaptureFixture[bytes]) -> None:
        self.engine = engine
        self.url = url
        self.is_terminal = False
        self._capture = capture

    def __call__(self, *tokens: str, stdin: bytes = b"") -> Done:
        """Run it with `tokens`."""
        self._capture.readouterr()
        for stream in (sys.stdout, sys.stderr):
            stream.isatty = lambda: self.is_terminal  # type: ignore[method-assign]
        before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
        try:
            code = run(tokens)
        finally:
            sys.stdin = before
        raw, err = self._capture.readouterr()
        done = Done(code, raw.decode("utf-8", "replace"), err.decode(), raw)
        for canary in CANARIES:
            assert canary not in done.out
            assert canary not in done.err
        return done


def loopback(engine: SimulatedEngine) -> LoopbackThread:
    """The engine and its workers on sockets of one thread, so that they have one clock."""
    return LoopbackThread({"engine": engine, **{f"{number}": each for number, each in enumerate(engine.workers)}})
