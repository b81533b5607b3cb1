"""One library before the simulated engine, over sockets."""

from __future__ import annotations

import random
import socket
import time
from pathlib import Path
from typing import Any

from embedding.libraries import Library
from vastroute import (
    Call,
    Guard,
    Pause,
    Phase,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    WorkerRequest,
    WorkPolicy,
)
from vastroute_testing import (
    TEST_KEY,
    LoopbackThread,
    SimulatedEndpoint,
    SimulatedEngine,
    TestAuthority,
    WorkerPlan,
)

PAUSE = Pause(first=0.02, factor=1.0, cap=0.02, floor=0.02)
POLICY = RetryPolicy(poll_pause=PAUSE, retry_pause=PAUSE)
HERE = Guard(allow_plain_http=True, allow_private_address=True)
AUTHORITIES = {phase: TestAuthority() for phase in Phase}
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class World:
    """One library, and an engine with its workers over sockets."""

    def __init__(self, library: Library, folder: Path) -> None:
        self.library = library
        self.roots = library.roots(AUTHORITIES, folder)
        self.listening: list[LoopbackThread] = []

    def route(self, loopback: LoopbackThread, *, seconds: float = 20.0, **options: Any) -> RouteCall:
        self.listening.append(loopback)
        return RouteCall(
            RouteRequest(endpoint="my-endpoint", cost=256),
            key=TEST_KEY,
            rng=random.random,
            deadline=time.monotonic() + seconds,
            **{"policy": POLICY, "engine": loopback.origin, **options},
        )

    def call(
        self,
        loopback: LoopbackThread,
        route: str = "/echo",
        payload: Any = None,
        *,
        work_policy: WorkPolicy = WorkPolicy(),
        guard: Guard = HERE,
        stream: bool = False,
        safe_to_repeat: bool = False,
        **options: Any,
    ) -> Call:
        work = WorkerRequest(
            route=route, payload={"n": 1} if payload is None else payload, stream=stream, safe_to_repeat=safe_to_repeat
        )
        return Call(self.route(loopback, **options), work, guard=guard, policy=work_policy)

    def drive(self, machine: Any, *, most: int | None = None) -> list[Any]:
        return self.library.drive(machine, self.roots, most=most, settled=self.settle)

    def settle(self) -> None:
        """Return when no connection is open."""
        for loopback in self.listening:
            loopback.wait_idle()


def engine_of(*plans: WorkerPlan, **options: Any) -> SimulatedEngine:
    workers: Any = plans or 1
    return SimulatedEngine(SimulatedEndpoint("my-endpoint", workers=workers, **options))


def free_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        number: int = sock.getsockname()[1]
        return number
