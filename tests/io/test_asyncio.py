"""What only the asyncio transport has: its own stream over a transport, and event loops."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from vastroute import LocalProtocolError
from vastroute_io.asyncio import Client
from vastroute_io.asyncio.library import Asyncio
from vastroute_io.asyncio.streams import SocketStream
from vastroute_testing import TEST_KEY, TestAuthority

from .worlds import AsyncioWorld, engine_of

AUTHORITY = TestAuthority()
MUCH = b"much" * (1 << 23)
"""More than sockets hold on their way."""
Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Pair = Callable[[], AbstractAsyncContextManager[tuple[SocketStream, Peer]]]


@asynccontextmanager
async def a_pair(context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[SocketStream, Peer]]:
    """A stream and its peer."""
    peers: asyncio.Queue[Peer] = asyncio.Queue()
    server = await asyncio.start_server(lambda *peer: peers.put_nowait(peer), "127.0.0.1", 0, ssl=context)
    async with server:
        address, port = server.sockets[0].getsockname()
        loop = asyncio.get_running_loop()
        _, stream = await loop.create_connection(lambda: SocketStream(loop, Asyncio().alarms), address, port)
        try:
            if context is not None:
                await stream.start_tls(AUTHORITY.client_context(), "localhost")
            peer = await peers.get()
            try:
                yield stream, peer
            finally:
                peer[1].transport.abort()
        finally:
            stream.abort()
            await asyncio.sleep(0)  # the loop closes what was aborted in its next round


@asynccontextmanager
async def tls_pair() -> AsyncIterator[tuple[SocketStream, Peer]]:
    async with a_pair(AUTHORITY.server_context()) as pair:
        yield pair


PAIRS = pytest.mark.parametrize("pair", [a_pair, tls_pair], ids=["plain", "tls"])


@PAIRS
def test_a_sender_waits_for_its_peer(pair: Pair) -> None:
    async def main() -> None:
        async with pair() as (stream, (reader, _)):
            sending = asyncio.create_task(stream.send_all(MUCH))
            for _ in range(10):
                await asyncio.sleep(0)
            assert sending.done() is (pair is tls_pair), "asyncio's TLS takes any amount at once"
            assert await reader.readexactly(len(MUCH)) == MUCH
            await sending

    asyncio.run(main())


@PAIRS
def test_a_receiver_takes_as_much_as_it_likes(pair: Pair) -> None:
    async def main() -> None:
        async with pair() as (stream, (_, writer)):
            writer.write(MUCH)
            came = bytearray()
            while len(came) < len(MUCH):
                piece = await stream.receive_some(1000 + len(came) % 99_999)
                assert 0 < len(piece) <= 1000 + len(came) % 99_999
                came += piece
                if len(came) % 5 == 0:
                    await asyncio.sleep(0)  # more comes meanwhile
            assert came == MUCH

    asyncio.run(main())


def test_what_nobody_takes_is_not_received_for_ever() -> None:
    async def main() -> None:
        async with a_pair() as (stream, (_, writer)):
            writer.write(MUCH)
            for _ in range(1000):
                await asyncio.sleep(0)
            assert writer.transport.get_write_buffer_size() > 0
            came = 0
            while came < len(MUCH):
                came += len(await stream.receive_some(1 << 20))
            assert came == len(MUCH)

    asyncio.run(main())


@PAIRS
def test_the_end(pair: Pair) -> None:
    async def main() -> None:
        async with pair() as (stream, (_, writer)):
            writer.write(b"bye")
            writer.close()
            assert await stream.receive_some(100) == b"bye"
            assert await stream.receive_some(100) == b""
            assert await stream.receive_some(100) == b""

    asyncio.run(main())


@PAIRS
def test_what_came_before_the_end_is_not_lost(pair: Pair) -> None:
    """A worker that closes after a large answer: asyncio's TLS gives a buffer of ours once, and drops the rest."""
    size = 150_000

    async def main() -> None:
        async with pair() as (stream, (_, writer)):
            writer.write(bytes(size))
            for _ in range(20):
                await asyncio.sleep(0)
            writer.get_extra_info("socket").shutdown(socket.SHUT_WR)  # as most do: without a word of TLS
            for _ in range(20):
                await asyncio.sleep(0)
            came = 0
            while piece := await stream.receive_some(65536):
                came += len(piece)
            assert came == size

    asyncio.run(main())


def test_a_peer_that_speaks_before_tls_is_refused() -> None:
    """Else anybody between the two could put an answer in front of the handshake, and it would pass for the peer's."""

    async def main() -> None:
        async with a_pair() as (stream, (_, writer)):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            for _ in range(20):
                await asyncio.sleep(0)
            with pytest.raises(ConnectionResetError, match="before TLS"):
                await stream.start_tls(AUTHORITY.client_context(), "localhost")

    asyncio.run(main())


def test_a_peer_that_sends_no_more_may_still_receive() -> None:
    async def main() -> None:
        async with a_pair() as (stream, (reader, writer)):
            writer.write_eof()
            assert await stream.receive_some(100) == b""
            await stream.send_all(b"late")
            assert await reader.readexactly(4) == b"late"

    asyncio.run(main())


@PAIRS
def test_a_connection_that_is_reset(pair: Pair) -> None:
    async def main() -> None:
        async with pair() as (stream, (_, writer)):
            receiving = asyncio.create_task(stream.receive_some(100))
            await asyncio.sleep(0)
            connected: socket.socket = writer.get_extra_info("socket")
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            with pytest.raises(ConnectionResetError):
                await receiving
            with pytest.raises(ConnectionResetError):
                await stream.send_all(b"x")

    asyncio.run(main())


def test_a_sender_learns_of_a_lost_connection() -> None:
    async def main() -> None:
        async with a_pair() as (stream, (_, writer)):
            sending = asyncio.create_task(stream.send_all(MUCH))
            for _ in range(10):
                await asyncio.sleep(0)
            writer.transport.abort()
            with pytest.raises(ConnectionError):
                await sending

    asyncio.run(main())


@PAIRS
def test_whoever_is_cancelled_loses_nothing(pair: Pair) -> None:
    async def main() -> None:
        async with pair() as (stream, (_, writer)):
            receiving = asyncio.create_task(stream.receive_some(100))
            await asyncio.sleep(0)
            writer.write(b"hello")
            while not receiving.done():
                receiving.cancel()
                await asyncio.sleep(0)
            assert await stream.receive_some(100) == b"hello"

    asyncio.run(main())


# --- loops -----------------------------------------------------------------------------------------------------------


def test_a_client_belongs_to_one_loop() -> None:
    world = AsyncioWorld(virtual=False)
    client = Client(key=TEST_KEY, connect=AsyncioWorld(virtual=True).connector(engine_of()))

    async def route() -> None:
        await client.route("demo")

    async def close() -> None:
        await client.aclose()

    async def stream() -> None:
        async with client.stream("demo", "/stream", {}):
            raise AssertionError("it is not entered")

    with asyncio.Runner() as first, asyncio.Runner() as second:
        first.run(route())
        for verb in (route, stream, close):
            with pytest.raises(LocalProtocolError, match="one in each"):
                second.run(verb())
        first.run(route())
        first.run(close())
    world.check()
