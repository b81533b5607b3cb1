"""What only the blocking transport has: threads, interrupts, sockets with deadlines, and the real clock."""

from __future__ import annotations

import itertools
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import attrs
import pytest

from vastroute import ENGINE, CallFailed, Entry, EntryKind, LimitReached, Origin, Phase, PoolLimits, RetryPolicy
from vastroute_io.blocking import ByteStream, Client, RealClock, SocketStream
from vastroute_io.blocking.clocks import left
from vastroute_testing import (
    TEST_KEY,
    BlockingConnector,
    Hang,
    LoopbackThread,
    ManualClock,
    SimulatedEndpoint,
    SimulatedEngine,
    Status,
    TestAuthority,
    WorkerPlan,
    blocking_connector,
)
from vastroute_testing.fault_table import EVERY

from .worlds import ALLOWED, LOOPBACK

AUTHORITY = TestAuthority()
SERVED = AUTHORITY.server_context()
SERVED.num_tickets = 0  # what the client never reads would be answered with a reset when it closes
ONE_TRY = RetryPolicy(max_retries=0)


class Interrupt(BaseException):
    """What comes from outside, like KeyboardInterrupt."""


# --- interrupts ------------------------------------------------------------------------------------------------------


@attrs.define
class Fuse:
    """Burns at its `at`-th step."""

    at: int
    steps: int = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Interrupt


@attrs.define
class FusedStream:
    """Interrupted before and after everything that it does."""

    inner: ByteStream
    fuse: Fuse

    def send_all(self, data: bytes, *, deadline: float) -> None:
        self.fuse.step()
        self.inner.send_all(data, deadline=deadline)
        self.fuse.step()

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        self.fuse.step()
        data = self.inner.receive_some(most, deadline=deadline)
        self.fuse.step()
        return data

    def close(self) -> None:
        self.inner.close()


@attrs.define
class FusedClock:
    """Interrupted before and after it sleeps."""

    inner: ManualClock
    fuse: Fuse

    def __call__(self) -> float:
        return self.inner()

    def sleep_until(self, at: float) -> None:
        self.fuse.step()
        self.inner.sleep_until(at)
        self.fuse.step()


def call(client: Client) -> None:
    client.call("demo", "/echo", {}, safe_to_repeat=True)


def route(client: Client) -> None:
    client.route("demo")


def stream(client: Client) -> None:
    with client.stream("demo", "/stream", {"count": 3}) as events:
        for _ in events:
            pass


WHERE = [""]
"""Where in its session the last run was."""


def session(client: Client) -> None:
    WHERE[:] = ["entering"]
    with client.session("demo", lifetime=3600) as lease:
        WHERE[:] = ["inside"]
        lease.call("/echo", {})
        lease.health()
        lease.info()
        with lease.stream("/stream", {"count": 2}) as events:
            list(events)
        WHERE[:] = ["leaving"]
    WHERE[:] = ["left"]


@pytest.mark.parametrize("verb", [route, call, stream, session], ids=lambda verb: verb.__name__)
def test_an_interrupt_leaves_nothing_behind(verb: Callable[[Client], None]) -> None:
    for at in itertools.count(1):
        fuse = Fuse(at=at)
        plans = [WorkerPlan(ready_after=2, pace=0.1)]
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=plans, faults={("demo", 1): Status(503)}))
        clock = ManualClock()
        opens = blocking_connector(engine, clock)

        def connect(origin: Origin, deadline: float, opens: BlockingConnector = opens, fuse: Fuse = fuse) -> ByteStream:
            fuse.step()
            return FusedStream(opens(origin, deadline), fuse)

        def observe(_entry: Entry, fuse: Fuse = fuse) -> None:
            fuse.step()

        options: dict[str, Any] = {"key": TEST_KEY, "guard": ALLOWED, "rng": lambda: 0.5, "observer": observe}
        with Client(connect=connect, clock=FusedClock(clock, fuse), **options) as client:
            ended = at_its_end(verb, client)
            assert ended is not (fuse.steps >= at)
            fuse.at = 0
            for holding in client.pool.inspect().values():
                assert not holding.in_use
                assert (holding.opening, holding.served, holding.waiting) == (0, 0, 0)
            assert opens.open == sum(len(holding.idle) for holding in client.pool.inspect().values())
            if WHERE[0] in {"inside", "left"}:
                requests = [request.target for request in engine.workers[0].requests]
                assert requests.count("/session/end") == 1
                assert not engine.workers[0].sessions(now=clock())
            WHERE[:] = [""]
            verb(client)
            WHERE[:] = [""]
        assert opens.open == 0
        if ended:
            assert at > 10
            break


def at_its_end(verb: Callable[[Client], None], client: Client) -> bool:
    """Whether `verb` comes to its end."""
    try:
        verb(client)
    except Interrupt:
        return False
    return True


def test_an_interrupt_anywhere_on_the_way_to_a_connection_leaves_no_slot_counted() -> None:
    waits = PoolLimits(max_connections=1)
    for at in itertools.count(1):
        clock = ManualClock()
        opens = blocking_connector(SimulatedEngine(SimulatedEndpoint("demo")), clock)
        with Client(connect=opens, clock=clock, key=TEST_KEY, pool=waits) as client:
            fuse = Fuse(at=at)
            with interrupted_in("acquire", fuse):
                ended = at_its_end(route, client)
            for holding in client.pool.inspect().values():
                assert (holding.in_use, holding.opening, holding.served, holding.waiting) == ((), 0, 0, 0), at
            assert opens.open == sum(len(holding.idle) for holding in client.pool.inspect().values())
            route(client)
        assert opens.open == 0
        if ended:
            assert at > 3
            break


@contextmanager
def interrupted_in(name: str, fuse: Fuse) -> Iterator[None]:
    """The fuse burns as any function of the transport's, or of the locks' module, begins below one called `name`.

    That is where Python looks for signals. What the core and a test's connector leave half done is not looked at here.
    """

    def look(frame: FrameType, event: str, _argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and ("vastroute_io" in path.parts or path.name == "threading.py") and is_below(frame):
            fuse.step()

    def is_below(frame: FrameType | None) -> bool:
        while frame is not None and frame.f_code.co_name != name:
            frame = frame.f_back
        return frame is not None

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield
    finally:
        sys.setprofile(before)


class InterruptedSocket(ssl.SSLSocket):
    """Interrupted in its handshake."""

    made: ClassVar[list[InterruptedSocket]] = []

    def do_handshake(self, block: bool = False) -> None:
        self.made.append(self)
        raise Interrupt


@pytest.mark.parametrize("hop", ["engine", "worker"])
def test_an_interrupted_handshake_closes_its_socket(hop: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    good, bad = AUTHORITY.client_context(), AUTHORITY.client_context()
    bad.sslsocket_class = InterruptedSocket
    InterruptedSocket.made.clear()
    contexts = {"ssl_context": good, "worker_ssl_context": good} | (
        {"ssl_context": bad} if hop == "engine" else {"worker_ssl_context": bad}
    )
    with LoopbackThread(engine, ssl_context=SERVED) as at:
        options: dict[str, Any] = {"key": TEST_KEY, "guard": LOOPBACK, "engine": at.url, **contexts}
        with Client(**options) as client:
            with pytest.raises(Interrupt):
                client.call("demo", "/echo", {})
            (made,) = InterruptedSocket.made
            assert made.fileno() == -1
            assert all(not holding.opening for holding in client.pool.inspect().values())
        at.wait_idle()


# --- sockets ---------------------------------------------------------------------------------------------------------


@contextmanager
def a_pair(*, tls: bool) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection."""
    here, there = socket.socketpair()
    if tls:
        with ThreadPoolExecutor(1) as thread:
            wrapped = thread.submit(SERVED.wrap_socket, there, server_side=True)
            here = AUTHORITY.client_context().wrap_socket(here, server_hostname="localhost")
            there = wrapped.result()
    with here, there:
        yield here, there


def drain(end: socket.socket) -> int:
    size = 0
    while data := end.recv(1 << 20):
        size += len(data)
    return size


@pytest.mark.parametrize("tls", [False, True])
def test_all_of_it_is_sent_in_time(tls: bool) -> None:
    with ThreadPoolExecutor(1) as thread, a_pair(tls=tls) as (here, there):
        size = thread.submit(drain, there)
        stream = SocketStream(here, ManualClock(1000.0))
        stream.send_all(b"x" * (4 << 20), deadline=1030)
        stream.close()
        assert size.result() == 4 << 20


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_takes_nothing(tls: bool) -> None:
    with a_pair(tls=tls) as (here, _):
        stream = SocketStream(here, RealClock())
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            stream.send_all(b"x" * (16 << 20), deadline=began + 0.03)
        assert time.monotonic() - began < 2


@pytest.mark.parametrize("tls", [False, True])
def test_a_peer_that_says_nothing(tls: bool) -> None:
    with a_pair(tls=tls) as (here, there):
        stream = SocketStream(here, RealClock())
        with pytest.raises(TimeoutError):
            stream.receive_some(10, deadline=time.monotonic() + 0.02)
        there.sendall(b"hello")
        assert stream.receive_some(3, deadline=time.monotonic() + 5) == b"hel"
        assert stream.receive_some(10, deadline=time.monotonic() + 5) == b"lo"
        there.close()
        assert stream.receive_some(10, deadline=time.monotonic() + 5) == b""


def test_no_time_is_left() -> None:
    clock = ManualClock(1000.0)
    assert left(1000.5, clock) == 0.5
    for deadline in (1000.0, 999.0):
        with pytest.raises(TimeoutError):
            left(deadline, clock)
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"x")
        stream = SocketStream(here, clock)
        with pytest.raises(TimeoutError):
            stream.receive_some(1, deadline=1000.0)
        with pytest.raises(TimeoutError):
            stream.send_all(b"x", deadline=1000.0)


def test_the_real_clock() -> None:
    clock = RealClock()
    before = time.monotonic()
    assert before <= clock() <= time.monotonic()
    clock.sleep_until(before - 1)
    clock.sleep_until(before)


# --- threads ---------------------------------------------------------------------------------------------------------


def test_waiting_for_a_connection_ends_at_its_limit() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", faults={("demo", 1): Hang()}))
    options: dict[str, Any] = {"key": TEST_KEY, "policy": ONE_TRY, "pool": PoolLimits(max_connections=1)}
    with ThreadPoolExecutor(1) as thread:
        with LoopbackThread({"engine": engine}) as at:
            client = Client(engine=str(at.origins["engine"]), **options)
            first = thread.submit(client.route, "demo", timeout=30)
            wait_until(lambda: engine.asks > 0)
            with pytest.raises(LimitReached) as caught:
                client.route("demo", timeout=0.03)
            assert caught.value.limit == "total"
            assert caught.value.counts is not None
            assert caught.value.counts.possible_double_loads == 0, "nothing was sent"
            assert not first.done()
        assert isinstance(first.exception(), CallFailed), "the server is gone"
    for holding in client.pool.inspect().values():
        assert (holding.opening, holding.served, holding.waiting) == (0, 0, 0)
        assert not holding.idle
    assert engine.asks == 1


def test_any_thread_may_look_at_the_pool() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", workers=[WorkerPlan(pace=0) for _ in range(4)]))
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with LoopbackThread(engine) as at, ThreadPoolExecutor(8) as threads:
            with Client(engine=at.url, key=TEST_KEY, guard=LOOPBACK, pool=PoolLimits(max_idle=1)) as client:
                calls = [threads.submit(client.call, "demo", "/echo", {}) for _ in range(100)]
                while not all(done.done() for done in calls):
                    for holding in client.pool.inspect().values():
                        assert len(holding.in_use) + holding.opening + holding.served <= 8
                assert all(done.result().status == 200 for done in calls)
            at.wait_idle()
    finally:
        sys.setswitchinterval(interval)


def wait_until(has_come: Callable[[], bool]) -> None:
    """Wait for another thread, without holding it up."""
    while not has_come():
        threading.Event().wait(0.001)


def test_threads_that_are_all_refused_look_for_the_key_once() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    together = threading.Barrier(8)

    def observe(entry: Entry) -> None:
        # All of them ask with the account's key before the first of them is told that it will not do.
        if entry.kind is EntryKind.ASKED and entry.phase is Phase.ROUTE and not together.broken:
            together.wait(5)

    with LoopbackThread({"engine": engine}) as at:
        url = str(at.origins["engine"])
        options: dict[str, Any] = {"key": "test-account-key", "engine": url, "console": url, "observer": observe}
        with Client(**options) as client, ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda _: client.route("demo"), range(8)))
        at.wait_idle()
    targets = Counter(request.target.partition("?")[0] for request in engine.requests)
    assert targets == {"/route/": 16, "/api/v0/endptjobs/": 1}


@pytest.mark.parametrize("what", ["/pubkey/", "/api/v0/endptjobs/"])
def test_a_thread_that_waits_for_anothers_look_up_keeps_its_own_deadline(what: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"), faults={(what, EVERY): Hang()})
    options: dict[str, Any] = {"key": "test-account-key", "policy": ONE_TRY, "fetch_public_key": what == "/pubkey/"}
    with ThreadPoolExecutor(1) as thread:
        with LoopbackThread({"engine": engine}) as at:
            url = str(at.origins["engine"])
            client = Client(engine=url, console=url, **options)
            first = thread.submit(client.route, "demo", timeout=30)
            wait_until(lambda: len(engine.requests) == (1 if what == "/pubkey/" else 2))
            with pytest.raises(CallFailed):
                client.route("demo", timeout=0.03)
            assert not first.done()
        assert isinstance(first.exception(), CallFailed), "the server is gone"
    client.close()
    assert sum(request.target.startswith(what) for request in engine.requests) == 1


def test_threads_pass_one_connection_on() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    with LoopbackThread({"engine": engine}) as at:
        options: dict[str, Any] = {"key": TEST_KEY, "pool": PoolLimits(max_connections=1)}
        with Client(engine=str(at.origins["engine"]), **options) as client, ThreadPoolExecutor(16) as threads:
            grants = list(threads.map(lambda _: client.route("demo").grant.reqnum, range(64)))
        assert sorted(grants) == list(range(1, 65))
        assert at.opened == 1
        at.wait_idle()


def test_a_thread_that_is_refused_passes_its_turn_on() -> None:
    clock = ManualClock()
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    opens = blocking_connector(engine, clock)
    gate = threading.Event()
    refusals = [ConnectionRefusedError("no")] * 3

    def connect(origin: Origin, deadline: float) -> ByteStream:
        gate.wait(5)
        if refusals:
            raise refusals.pop()
        return opens(origin, deadline)

    options: dict[str, Any] = {"key": TEST_KEY, "pool": PoolLimits(max_connections=1), "clock": clock}
    once = RetryPolicy(max_retries=0)
    with Client(connect=connect, **options) as client, ThreadPoolExecutor(4) as threads:
        results = [threads.submit(client.route, "demo", policy=once) for _ in range(4)]
        wait_until(lambda: sum(holding.waiting for holding in client.pool.inspect().values()) == 3)
        gate.set()
        errors = [done.exception() for done in results]
        assert sum(error is None for error in errors) == 1
    assert opens.open == 0


def test_a_ready_stream() -> None:
    clock = ManualClock()
    opens = blocking_connector(SimulatedEngine(SimulatedEndpoint("demo")), clock)
    with Client(connect=opens(ENGINE, 0.0), clock=clock, key=TEST_KEY) as client:
        client.route("demo")
        client.route("demo")
    assert opens.open == 0
