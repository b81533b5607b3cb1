"""What only the trio transport has: its own stream over a socket."""

from __future__ import annotations

import socket
import ssl
import sys
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import check_two_way_stream

from vastroute_io.trio import Client
from vastroute_io.trio.library import Trio
from vastroute_io.trio.pollers import Poller, new_poller
from vastroute_io.trio.streams import SocketStream, connected
from vastroute_testing import (
    TEST_KEY,
    TEST_PUBLIC_KEY,
    SimulatedEndpoint,
    SimulatedEngine,
    TestAuthority,
    connector,
)

AUTHORITY = TestAuthority()
Pair = tuple[trio.abc.Stream, trio.abc.Stream]
MUCH = b"much" * (1 << 18)


class WithTurns(trio.abc.Stream):
    """The stream under test; its sends give the others a turn, which trio's check wants of every one."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture(params=[Poller, new_poller], autouse=True)
def each_poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that every system allows, and the best that this one does."""
    monkeypatch.setattr(sys.modules[__name__], "new_poller", request.param)


def stream_of(connected: socket.socket) -> SocketStream:
    return SocketStream(connected, Trio().alarms, new_poller())


async def plain_pair() -> Pair:
    here, there = socket.socketpair()
    return WithTurns(stream_of(here)), WithTurns(stream_of(there))


async def tls_pair() -> Pair:
    here, there = socket.socketpair()
    ours = stream_of(here)
    theirs = trio.SSLStream(stream_of(there), AUTHORITY.server_context(), server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(theirs.do_handshake)
        await ours.start_tls(AUTHORITY.client_context(), "localhost")
    return ours, theirs


async def clogged_pair() -> Pair:
    here, there = await plain_pair()
    for stream in (here, there):
        clogged = False
        while not clogged:
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.send_all, MUCH)
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
            clogged = scope.cancelled_caught
    return here, there


def test_it_is_what_trio_takes_for_a_stream() -> None:
    trio.run(check_two_way_stream, plain_pair, clogged_pair)


@pytest.mark.parametrize("open_pair", [plain_pair, tls_pair], ids=lambda each: each.__name__)
def test_much_is_sent_and_received(open_pair: Callable[[], Awaitable[Pair]]) -> None:
    async def send(stream: trio.abc.Stream) -> None:
        await stream.send_all(MUCH)

    async def receive(stream: trio.abc.Stream) -> None:
        came = 0
        while came < len(MUCH):
            came += len(await stream.receive_some(50_000))
        assert came == len(MUCH)

    async def main() -> None:
        for turned in (False, True):
            pair = await open_pair()
            here, there = reversed(pair) if turned else pair
            async with here, there, trio.open_nursery() as nursery:
                nursery.start_soon(send, here)
                nursery.start_soon(receive, there)

    trio.run(main)


def test_what_tls_has_read_ahead_is_not_waited_for() -> None:
    async def main() -> None:
        here, there = await tls_pair()
        async with here, there:
            await there.send_all(b"hello")
            assert await here.receive_some(1) == b"h"
            with trio.fail_after(5):
                assert await here.receive_some(None) == b"ello"
            with trio.CancelScope() as scope:
                await there.send_all(b"again")
                assert await here.receive_some(1) == b"a"
                scope.cancel()
                await here.receive_some(4)
            assert scope.cancelled_caught
            assert await here.receive_some(4) == b"gain", "nothing was lost"

    trio.run(main)


def test_the_end_of_tls() -> None:
    async def main() -> None:
        here, there = await tls_pair()
        async with here:
            await there.aclose()
            assert await here.receive_some() == b"", "HTTPS is used to ends without a good-bye"
        for verb in (here.receive_some, lambda: here.send_all(b"x"), here.wait_send_all_might_not_block):
            with pytest.raises(trio.ClosedResourceError):
                await verb()

    trio.run(main)


def test_a_peer_that_speaks_no_tls() -> None:
    async def main() -> None:
        here, there = socket.socketpair()
        stream = stream_of(here)
        with there:
            there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            async with stream:
                with pytest.raises(ssl.SSLError):
                    await stream.start_tls(AUTHORITY.client_context(), "localhost")

    trio.run(main)


def test_a_call_that_is_cancelled_already_sends_nothing_and_keeps_its_connection() -> None:
    async def main() -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        connect = connector(engine)
        async with Client(key=TEST_KEY, public_key=TEST_PUBLIC_KEY, connect=connect, proxy=None) as client:
            await client.route("demo")
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.route("demo")
            assert scope.cancelled_caught
            assert engine.asks == 1
            await client.route("demo")
        assert (engine.asks, len(connect.streams)) == (2, 1)

    trio.run(main)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_where_nobody_listens(address: str) -> None:
    async def main() -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as bound:
            try:
                bound.bind((address, 0))
            except OSError:
                pytest.skip("this machine has no such address")
            with pytest.raises(ConnectionRefusedError):
                await connected(address, bound.getsockname()[1])

    trio.run(main)
