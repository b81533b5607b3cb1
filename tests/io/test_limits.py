"""The time limits of streams: who waits longer gets a TimeoutError, and nobody else is disturbed."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from math import inf
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

import vastroute_io.asyncio
import vastroute_io.asyncio.library
import vastroute_io.asyncio.streams
import vastroute_io.trio
import vastroute_io.trio.library
import vastroute_io.trio.streams
from vastroute import Guard, PoolLimits, RetryPolicy, WorkPolicy
from vastroute_io.asynchronous.alarms import Alarms, WatchedStream
from vastroute_io.asynchronous.library import Library
from vastroute_io.trio.pollers import new_poller
from vastroute_testing import TEST_KEY

Main: TypeAlias = Callable[[], Awaitable[None]]
Opened: TypeAlias = Callable[[Library], AbstractAsyncContextManager[tuple[WatchedStream, socket.socket]]]
FOR_EVER = 600.0
MUCH = bytes(10_000_000)


@asynccontextmanager
async def on_trio(library: Library) -> AsyncIterator[tuple[WatchedStream, socket.socket]]:
    here, there = socket.socketpair()
    stream = vastroute_io.trio.streams.SocketStream(here, library.alarms, new_poller())
    with there:
        async with stream:
            yield stream, there


@asynccontextmanager
async def on_asyncio(library: Library) -> AsyncIterator[tuple[WatchedStream, socket.socket]]:
    here, there = socket.socketpair()
    loop = asyncio.get_running_loop()
    stream = vastroute_io.asyncio.streams.SocketStream(loop, library.alarms)
    await loop.create_connection(lambda: stream, sock=here)
    with there:
        try:
            yield stream, there
        finally:
            stream.abort()
            await asyncio.sleep(0)


KINDS = pytest.mark.parametrize(
    ("library_of", "opened", "run"),
    [
        pytest.param(vastroute_io.trio.library.Trio, on_trio, trio.run, id="trio"),
        pytest.param(
            vastroute_io.asyncio.library.Asyncio,
            on_asyncio,
            lambda main: asyncio.run(main()),
            id="asyncio",
        ),
    ],
)
Kind: TypeAlias = Callable[[], Library]
Run: TypeAlias = Callable[[Main], None]


@KINDS
@pytest.mark.parametrize("limits", [[-1], [-1, -2], [FOR_EVER, -1], [inf, -1], [-1, FOR_EVER, -1]])
@pytest.mark.parametrize("verb", ["receive", "send"])
def test_who_waits_too_long_gets_a_timeout(
    library_of: Kind, opened: Opened, run: Run, limits: list[float], verb: str
) -> None:
    async def main() -> None:
        library = library_of()
        async with opened(library) as (stream, _):
            for seconds in limits:
                stream.limit(library.now() + seconds)
            with pytest.raises(TimeoutError):
                await (stream.receive_some(100) if verb == "receive" else stream.send_all(MUCH))
            for use in (stream.receive_some(100), stream.send_all(b"x")):
                with pytest.raises(TimeoutError):
                    await use
            assert not stream.is_quiet(), "and it is of no more use"

    run(main)


@KINDS
@pytest.mark.parametrize("then", [FOR_EVER, inf])
def test_a_limit_that_was_moved_to_later_disturbs_nobody(
    library_of: Kind, opened: Opened, run: Run, then: float
) -> None:
    async def main() -> None:
        library = library_of()
        async with opened(library) as (stream, there), opened(library) as (other, _):
            for each in (stream, other):
                each.limit(library.now() - 1)
            if then == inf:
                stream.until = inf  # it was put away
            else:
                stream.limit(library.now() + then)
            with pytest.raises(TimeoutError):
                await other.receive_some(100)
            assert stream.is_quiet()
            await stream.send_all(b"question")
            assert there.recv(100) == b"question"
            there.send(b"answer")
            assert await stream.receive_some(100) == b"answer"
            stream.limit(library.now() - 1)
            with pytest.raises(TimeoutError):
                await stream.receive_some(100)

    run(main)


@KINDS
def test_an_answer_that_is_there_when_the_time_is_up_counts(library_of: Kind, opened: Opened, run: Run) -> None:
    """As after a while in which the whole process stood still."""

    async def main() -> None:
        library = library_of()
        async with opened(library) as (stream, there):
            there.send(b"answer")
            stream.limit(library.now() - 1)
            assert await stream.receive_some(100) == b"answer"

    run(main)


def test_who_is_woken_by_an_answer_goes_before_the_alarm() -> None:
    async def main() -> None:
        library = vastroute_io.trio.library.Trio()
        for _ in range(20):  # trio wakes tasks in a random order
            async with on_trio(library) as (stream, there), trio.open_nursery() as nursery:
                came: list[bytes] = []

                async def receive(stream: WatchedStream = stream, came: list[bytes] = came) -> None:
                    came.append(await stream.receive_some(100))

                stream.limit(library.now() + FOR_EVER)
                nursery.start_soon(receive)
                await trio.testing.wait_all_tasks_blocked()
                there.send(b"answer")
                stream.limit(library.now() - 1)
                await trio.testing.wait_all_tasks_blocked()
                assert came == [b"answer"]

    trio.run(main)


def test_limits_hold_in_the_next_run_of_trio_too() -> None:
    library = vastroute_io.trio.library.Trio()

    async def wait(stream: WatchedStream) -> None:
        stream.limit(library.now() - 1)
        with trio.fail_after(5), pytest.raises(TimeoutError):
            await stream.receive_some(100)

    async def main(use: Callable[[WatchedStream], Awaitable[None]]) -> None:
        async with on_trio(library) as (stream, _):
            stream.limit(library.now() + FOR_EVER)
            await use(stream)

    async def leave(stream: WatchedStream) -> None:
        await trio.testing.wait_all_tasks_blocked()

    for use in (leave, wait, leave, wait):
        trio.run(main, use)


# --- in a client -----------------------------------------------------------------------------------------------------


class Skipping(asyncio.SelectorEventLoop):
    """A loop on real sockets whose time can be put forward."""

    ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


async def skip_on_asyncio(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Skipping)
    loop.ahead += seconds
    for _ in range(5):
        await asyncio.sleep(0)


def run_on_asyncio(main: Callable[[Callable[[float], Awaitable[None]]], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=Skipping) as runner:
        runner.run(main(skip_on_asyncio))


def run_on_trio(main: Callable[[Callable[[float], Awaitable[None]]], Awaitable[None]]) -> None:
    clock = trio.testing.MockClock()

    async def skip(seconds: float) -> None:
        clock.jump(seconds)
        for _ in range(5):
            await trio.lowlevel.checkpoint()

    trio.run(main, skip, clock=clock)


class Peer:
    """An engine and its worker on one port, which gives events when it is told to; it counts its connections."""

    def __init__(self) -> None:
        self.connections = 0
        self._go_on = threading.Semaphore(0)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def go_on(self) -> None:
        self._go_on.release()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connected, _ = self._listening.accept()
            except OSError:
                return
            self.connections += 1
            self._threads.append(threading.Thread(target=self._serve, args=(connected,)))
            self._threads[-1].start()

    def _serve(self, connected: socket.socket) -> None:
        with connected:
            while asked := connected.recv(65536):
                if asked.startswith(b"POST /route/ "):
                    fields = {"url": self.url, "endpoint": "demo", "cost": 100.0, "reqnum": 1, "request_idx": 7}
                    body = json.dumps(fields | {"signature": "none"}).encode()
                    connected.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
                    continue
                head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                connected.sendall(head)
                for event in (b"data: 1\n\n", b"data: 2\n\n"):
                    self._go_on.acquire()
                    connected.sendall(b"%x\r\n%b\r\n" % (len(event), event))
                connected.sendall(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("client_of", "run"),
    [
        pytest.param(vastroute_io.trio.Client, run_on_trio, id="trio"),
        pytest.param(vastroute_io.asyncio.Client, run_on_asyncio, id="asyncio"),
    ],
)
def test_only_waiting_is_limited(client_of: Any, run: Any) -> None:
    """Neither is who takes his time over an event, nor a connection that nobody uses."""
    peer = Peer()
    options = {
        "key": TEST_KEY,
        "engine": peer.url,
        "guard": Guard(allow_plain_http=True, allow_private_address=True),
        "policy": RetryPolicy(ask_limit=10.0),
        "work_policy": WorkPolicy(silence=20.0),
        "pool": PoolLimits(idle_seconds=1000.0),
        "proxy": None,
    }

    async def main(skip: Callable[[float], Awaitable[None]]) -> None:
        async with client_of(**options) as client:
            async with client.stream("demo", "/work", {}) as events:
                peer.go_on()
                assert (await anext(events)).data == "1"
                await skip(100.0)
                peer.go_on()
                assert [event.data async for event in events] == ["2"]
            await skip(100.0)
            await client.route("demo")
            assert peer.connections == 2

    try:
        run(main)
    finally:
        peer.go_on()
        peer.go_on()
        peer.close()


# --- the bookkeeping -------------------------------------------------------------------------------------------------


class Fake(WatchedStream):
    """A stream that only notes that it has expired."""

    expired = False

    def expire(self) -> None:
        self.expired = True
        self.abort()

    def abort(self) -> None:
        self._unwatch()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        raise NotImplementedError

    async def send_all(self, data: bytes, /) -> None:
        raise NotImplementedError

    async def receive_some(self, most: int, /) -> bytes:
        raise NotImplementedError

    def is_quiet(self) -> bool:
        raise NotImplementedError


class Bell(Alarms):
    """Rings when it was asked to, in a time of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._at = inf

    def _set(self, at: float) -> None:
        assert at < self._at, "it is asked only for an earlier time"
        self._at = at

    def _unset(self) -> None:
        assert self._at < inf
        self._at = inf

    def pass_time(self, until: float) -> None:
        while self._at <= until:
            self.now = max(self.now, self._at)
            self._at = inf
            self._at = self.ring(self.now)
            assert self._at > self.now
        self.now = until

    @property
    def rests(self) -> bool:
        """Whether it will not ring any more."""
        return self._at == inf


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("limit"), st.integers(0, 3), st.integers(-2, 12)),
        st.tuples(st.just("put away"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("close"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(0, 5)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_a_stream_expires_at_its_limit_and_not_otherwise(steps: list[tuple[str, int, int]]) -> None:
    bell = Bell()
    streams = [Fake(bell) for _ in range(4)]
    limits: dict[int, Any] = {}
    for step, number, value in steps:
        if step == "limit" and not streams[number].expired:
            limits[number] = bell.now + value
            streams[number].limit(limits[number])
        elif step == "put away":
            limits.pop(number, None)
            streams[number].until = inf
        elif step == "close":
            limits.pop(number, None)
            streams[number].abort()
        else:
            bell.pass_time(bell.now + value)
            for each, stream in enumerate(streams):
                if each in limits:
                    assert stream.expired == (limits[each] <= bell.now)
                    if stream.expired:
                        del limits[each]
                        streams[each] = Fake(bell)
                else:
                    assert not stream.expired
    for stream in streams:
        stream.abort()
    assert bell.rests


def test_a_stream_that_was_closed_is_not_kept_until_its_limit() -> None:
    bell, living = Bell(), weakref.WeakSet[Fake]()
    kept = Fake(bell)
    kept.limit(FOR_EVER)
    for _ in range(20_000):
        stream = Fake(bell)
        stream.limit(FOR_EVER)
        stream.abort()
        living.add(stream)
    del stream
    gc.collect()
    assert len(living) < 3000
    bell.pass_time(FOR_EVER)
    assert kept.expired


def test_a_stream_whose_limit_goes_up_and_down_is_not_kept_more_and_more_often() -> None:
    bell = Bell()
    stream = Fake(bell)
    for _ in range(20_000):
        stream.limit(bell.now + FOR_EVER)
        stream.limit(bell.now + 0.01)
        bell.pass_time(bell.now + 0.009)
        stream.limit(bell.now + FOR_EVER)
        bell.pass_time(bell.now + 0.002)
    assert not stream.expired
    assert len([each for each in gc.get_referrers(stream) if isinstance(each, tuple)]) < 3000
