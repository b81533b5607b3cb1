"""A socket as a byte stream for asyncio, with or without TLS: what an exchange needs, and no more. And anybody's,
with a limit."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from math import inf
from typing import Protocol, final

from ..asynchronous.alarms import Alarms, LimitedStream, WatchedStream
from ..links import MOST


class ByteStream(Protocol):
    """A connected byte stream. What it raises for a broken connection is an OSError."""

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""

    async def receive_some(self, most: int) -> bytes:
        """At least one and at most `most` bytes; ``b""`` once the peer has closed."""

    def abort(self) -> None:
        """Close it by force, at once. May be called twice."""


@final
class SocketStream(WatchedStream, asyncio.Protocol):
    """A `ByteStream` over one of asyncio's transports. One task may send and one may receive at a time."""

    __slots__ = (
        "_came",
        "_error",
        "_is_at_end",
        "_is_full",
        "_is_paused",
        "_is_tls",
        "_loop",
        "_receiver",
        "_sender",
        "_transport",
    )
    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, alarms: Alarms) -> None:
        super().__init__(alarms)
        self._loop = loop
        self._came = b""
        self._is_tls = False
        self._is_paused = False
        """Whether the loop receives nothing more for now, since nobody takes what came."""
        self._is_full = False
        """Whether the loop has more to send than it likes."""
        self._is_at_end = False
        """Whether nothing more comes."""
        self._error: Exception | None = None
        """Why there is no connection any more."""
        self._receiver: asyncio.Future[None] | None = None
        self._sender: asyncio.Future[None] | None = None

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """See `WatchedStream`."""
        if self._came or self._is_at_end:
            # What came before TLS has nobody's word for it: read later, it would pass for the peer's.
            raise ConnectionResetError("the peer spoke or closed before TLS began")
        self._is_tls = True
        secured = await self._loop.start_tls(self._transport, self, context, server_hostname=host)
        assert secured is not None
        self._transport = secured

    async def send_all(self, data: bytes, /) -> None:
        """See `LimitedStream`."""
        self._check()
        self._transport.write(data)
        while self._is_full:
            self._sender = self._loop.create_future()
            await self._sender
            self._check()

    async def receive_some(self, most: int, /) -> bytes:
        """See `LimitedStream`."""
        while not self._came:
            if self._is_at_end:
                return b""
            self._check()
            self._receiver = self._loop.create_future()
            await self._receiver
        data, self._came = self._came[:most], self._came[most:]
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def is_quiet(self) -> bool:
        """Whether the peer has neither spoken nor closed while nothing was asked of it, as far as the loop has seen."""
        return not (self._came or self._is_at_end) and self._error is None

    def expire(self) -> None:
        """See `WatchedStream`."""
        self._error = TimeoutError("it took too long")
        self.abort()
        _wake(self._receiver)
        _wake(self._sender)

    def abort(self) -> None:
        """See `WatchedStream`."""
        self._unwatch()
        self._transport.abort()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """There is a connection."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are no asyncio.Transport

    def data_received(self, data: bytes) -> None:
        """These bytes came."""
        self._came += data
        if len(self._came) >= MOST:
            self._is_paused = True
            self._transport.pause_reading()
        _wake(self._receiver)

    def eof_received(self) -> bool:
        """The peer sends no more; without TLS it may still receive."""
        self._is_at_end = True
        _wake(self._receiver)
        return not self._is_tls

    def connection_lost(self, exc: Exception | None) -> None:
        """There is no connection any more."""
        self._error = self._error or exc or ConnectionResetError("the connection is closed")
        _wake(self._receiver)
        _wake(self._sender)

    def pause_writing(self) -> None:
        """The peer takes less than is sent."""
        self._is_full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._is_full = False
        _wake(self._sender)


def _wake(waiting: asyncio.Future[None] | None) -> None:
    """Let whoever waits look again; a cancelled one is gone already."""
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


@final
class BoundedStream(LimitedStream):
    """Anybody's `ByteStream`. A timer for each wait keeps the limit, whatever the stream is like."""

    __slots__ = ("inner",)

    def __init__(self, stream: ByteStream) -> None:
        super().__init__()
        self.inner: ByteStream = stream
        """What it was made of."""

    async def send_all(self, data: bytes, /) -> None:
        """See `LimitedStream`."""
        async with self._timeout():
            await self.inner.send_all(data)

    async def receive_some(self, most: int, /) -> bytes:
        """See `LimitedStream`."""
        async with self._timeout():
            return await self.inner.receive_some(most)

    def is_quiet(self) -> bool:
        """See `LimitedStream`. One that cannot say passes for quiet: if it is closed, the next exchange finds out."""
        look: Callable[[], bool] | None = getattr(self.inner, "is_quiet", None)
        return look is None or look()

    async def shut(self) -> None:
        """See `LimitedStream`."""
        self.inner.abort()

    def _timeout(self) -> asyncio.Timeout:
        return asyncio.timeout_at(None if self.until == inf else self.until)
