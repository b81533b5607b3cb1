"""Our own streams know whether their peer has spoken or closed while nothing was asked of it."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import vastroute_io.asyncio.streams
import vastroute_io.blocking
import vastroute_io.trio.streams
from vastroute_io.asyncio.library import Asyncio
from vastroute_io.trio.library import Trio
from vastroute_io.trio.pollers import new_poller
from vastroute_testing import ManualClock, TestAuthority

AUTHORITY = TestAuthority()
SERVED = AUTHORITY.server_context()
KINDS = pytest.mark.parametrize(
    "stream_of",
    [
        lambda here: vastroute_io.trio.streams.SocketStream(here, Trio().alarms, new_poller()),
        lambda here: vastroute_io.blocking.SocketStream(here, ManualClock()),
    ],
    ids=["trio", "blocking"],
)
TLS = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
SPOILING = pytest.mark.parametrize(
    "spoil",
    [lambda there: there.sendall(b"HTTP/1.1 408 Late\r\n"), lambda there: there.close()],
    ids=["spoken", "closed"],
)
Quiet = vastroute_io.trio.streams.SocketStream | vastroute_io.blocking.SocketStream


@contextmanager
def a_pair(*, tls: bool) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection. With TLS the tickets for its sessions have come and were not read."""
    here, there = socket.socketpair()
    if tls:
        with ThreadPoolExecutor(1) as thread:
            wrapped = thread.submit(SERVED.wrap_socket, there, server_side=True)
            here = AUTHORITY.client_context().wrap_socket(here, server_hostname="localhost")
            there = wrapped.result()
    with here, there:
        yield here, there


@KINDS
@TLS
@SPOILING
def test_a_socket(
    stream_of: Callable[[socket.socket], Quiet], spoil: Callable[[socket.socket], object], tls: bool
) -> None:
    with a_pair(tls=tls) as (here, there):
        stream = stream_of(here)
        came = bool(select.select([here], [], [], 0)[0])
        assert came is tls
        assert stream.is_quiet()
        assert stream.is_quiet()
        spoil(there)
        assert not stream.is_quiet()


@KINDS
@TLS
def test_a_socket_that_goes_on_after_it_was_asked(stream_of: Callable[[socket.socket], Quiet], tls: bool) -> None:
    with a_pair(tls=tls) as (here, there):
        stream = stream_of(here)
        for number in range(3):
            assert stream.is_quiet()
            here.setblocking(True)
            here.sendall(b"%d" % number)
            assert there.recv(9) == b"%d" % number
            there.sendall(b"answer")
            assert here.recv(9) == b"answer"
            here.setblocking(False)


@KINDS
@TLS
def test_a_socket_that_we_have_closed(stream_of: Callable[[socket.socket], Quiet], tls: bool) -> None:
    with a_pair(tls=tls) as (here, _):
        stream = stream_of(here)
        here.close()
        assert not stream.is_quiet()


def test_a_blocking_socket_where_there_is_no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vastroute_io.blocking.streams, "_CAN_POLL", False)
    with a_pair(tls=False) as (here, there):
        stream = vastroute_io.blocking.SocketStream(here, ManualClock())
        assert stream.is_quiet()
        there.sendall(b"x")
        assert not stream.is_quiet()


@TLS
@SPOILING
def test_asyncio(spoil: Callable[[socket.socket], object], tls: bool) -> None:
    def serve(listening: socket.socket) -> socket.socket:
        there, _ = listening.accept()
        return SERVED.wrap_socket(there, server_side=True) if tls else there

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as thread:
            served = thread.submit(serve, listening)
            address, port = listening.getsockname()
            loop = asyncio.get_running_loop()
            stream = vastroute_io.asyncio.streams.SocketStream(loop, Asyncio().alarms)
            await loop.create_connection(lambda: stream, address, port)
            if tls:
                await stream.start_tls(AUTHORITY.client_context(), "localhost")
            with served.result() as there:
                there.sendall(b"answer")
                assert await stream.receive_some(100) == b"answer"
                assert stream.is_quiet()
                spoil(there)
                async with asyncio.timeout(5):
                    while stream.is_quiet():  # noqa: ASYNC110  nothing else tells when it has come
                        await asyncio.sleep(0)
                stream.abort()
                await asyncio.sleep(0)  # the loop closes what was aborted in its next round

    asyncio.run(main())
