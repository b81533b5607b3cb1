"""A socket as a trio stream, with or without TLS: what an exchange needs, and no more. And anybody's, with a limit."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from operator import index
from typing import final

import trio
from trio.lowlevel import (
    cancel_shielded_checkpoint,
    checkpoint,
    checkpoint_if_cancelled,
    enable_ki_protection,
    notify_closing,
    wait_readable,
    wait_writable,
)

from ..asynchronous.alarms import Alarms, LimitedStream
from ..links import MOST
from .pollers import PolledStream, Poller

_WISHES = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""What a socket that does not block raises where it has to be waited for."""


async def connected(address: str, port: int) -> socket.socket:
    """A socket that is connected to an IP address, and does not block."""
    connecting = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        connecting.setblocking(False)
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with suppress(BlockingIOError):
            connecting.connect((address, port))
        await wait_writable(connecting)
        if code := connecting.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))  # made of its number, it is of the class that goes with it
        return connecting
    except BaseException:
        connecting.close()
        raise


@final
class SocketStream(PolledStream, trio.abc.Stream):
    """A connected socket as a `trio.abc.Stream`; an `ssl.SSLSocket` once TLS has begun.

    `send_all` is no checkpoint where the socket takes everything at once: the driver has one before it, and the receive
    that follows is one. A receive waits for the socket before it tries, since an answer is hardly ever there when it is
    asked for. If its limit is over, both raise TimeoutError.
    """

    __slots__ = ("_is_late", "_is_sending", "_pending", "_socket")

    def __init__(self, open_socket: socket.socket, alarms: Alarms, poller: Poller) -> None:
        super().__init__(alarms, poller)
        open_socket.setblocking(False)
        self._socket = open_socket
        self._is_late = False
        self._is_sending = False
        self._pending: Callable[[], int] | None = None
        """How many bytes TLS has read ahead, of which the socket says nothing."""
        try:
            poller.add(self)
        except OSError:
            open_socket.close()
            raise

    def fileno(self) -> int:
        """See `PolledStream`."""
        return self._socket.fileno()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """See `WatchedStream`."""
        secured = context.wrap_socket(self._socket, server_hostname=host, do_handshake_on_connect=False)
        self._socket, self._pending = secured, secured.pending
        self.asks_anew: bool = True
        while True:
            try:
                return secured.do_handshake()
            except _WISHES as wish:
                await self._wait(wish, wait_readable)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """See `trio.abc.SendStream`, and above."""
        self._begin_to_send()
        try:
            while data:
                try:
                    sent = self._socket.send(data)
                except _WISHES as wish:
                    await self._wait(wish, wait_writable)
                else:
                    data = memoryview(data)[sent:]
        except (OSError, trio.ClosedResourceError) as error:
            raise self._failure(error) from error
        finally:
            self._is_sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        self._begin_to_send()
        try:
            await wait_writable(self._socket)
        except (OSError, trio.ClosedResourceError) as error:
            raise self._failure(error) from error
        finally:
            self._is_sending = False

    @enable_ki_protection  # an interrupt waits until nobody else would be forgotten for it
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `trio.abc.ReceiveStream`, and above."""
        most = MOST if max_bytes is None else max_bytes
        if index(most) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._socket.fileno() < 0:
            raise self._failure()
        if self.heard:
            await checkpoint_if_cancelled()
        has_waited = False
        try:
            while True:
                if not self.heard:
                    if self.is_reading:
                        raise trio.BusyResourceError("another task is receiving on this stream")
                    has_waited = self.is_reading = True
                    try:
                        while not self.heard:
                            await self.poller.hear(self)
                    except trio.ClosedResourceError:
                        self.heard: bool = True  # it was woken: the socket says what for
                    finally:
                        self.poller.leave(self)
                try:
                    data = self._socket.recv(most)
                    break
                except _WISHES as wish:
                    if self._is_late:
                        self.abort()
                    elif isinstance(wish, ssl.SSLWantWriteError):
                        await wait_writable(self._socket)
                    else:
                        self.heard = False
        except (OSError, trio.ClosedResourceError) as error:
            raise self._failure(error) from error
        self._is_late = False
        # With less than was wanted, the socket is at its end for now; TLS alone may hold more, which it has read ahead.
        self.heard = not 0 < len(data) < most or (self._pending is not None and self._pending() > 0)
        if not has_waited:
            await cancel_shielded_checkpoint()
        return data

    def is_quiet(self) -> bool:
        """Whether the peer has neither spoken nor closed while nothing was asked of it: one system call.

        What TLS says on its own behalf, such as a ticket for its sessions, does not count. If the answer is no, the
        stream is of no more use.
        """
        try:
            self._socket.recv(1)
        except _WISHES:
            self.heard = False
            return True
        except OSError:
            pass
        return False

    def expire(self) -> None:
        """See `WatchedStream`. Whoever waits for more tries once again: what has come by now is not too late."""
        self._is_late = True
        if not self.poller.wake(self):
            self.abort()

    @enable_ki_protection
    def abort(self) -> None:
        """Close it by force, at once: whoever waits for it gets a `trio.ClosedResourceError`. May be called twice."""
        self._unwatch()
        if self._socket.fileno() >= 0:
            self.poller.drop(self)
            notify_closing(self._socket)
            self._socket.close()

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`; TLS is not said good-bye to, as is usual for HTTPS."""
        self.abort()
        await checkpoint()

    def _begin_to_send(self) -> None:
        if self._socket.fileno() < 0:
            raise self._failure()
        if self._is_sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._is_sending = True

    async def _wait(self, wish: OSError, usual: Callable[[socket.socket], Awaitable[None]]) -> None:
        """Wait for what TLS wishes for, which may be the other direction; without TLS, for the `usual` one."""
        if isinstance(wish, ssl.SSLWantReadError):
            await wait_readable(self._socket)
        elif isinstance(wish, ssl.SSLWantWriteError):
            await wait_writable(self._socket)
        else:
            await usual(self._socket)

    def _failure(self, error: OSError | trio.ClosedResourceError | None = None) -> Exception:
        """What to raise in place of a socket's `error`: what trio's streams do, or TimeoutError if the time was up."""
        if self._is_late:
            return TimeoutError("it took too long")
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("the stream is closed")
        return trio.BrokenResourceError(f"the connection is broken: {error}")


@final
class BoundedStream(LimitedStream):
    """Anybody's `trio.abc.Stream`. A cancel scope round each wait keeps the limit, whatever the stream is like."""

    __slots__ = ("inner",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__()
        self.inner: trio.abc.Stream = stream
        """What it was made of."""

    async def send_all(self, data: bytes, /) -> None:
        """See `LimitedStream`."""
        with trio.CancelScope(deadline=self.until):
            await self.inner.send_all(data)
            return
        raise TimeoutError("it took too long")

    async def receive_some(self, most: int, /) -> bytes:
        """See `LimitedStream`."""
        with trio.CancelScope(deadline=self.until):
            return bytes(await self.inner.receive_some(most))
        raise TimeoutError("it took too long")

    def is_quiet(self) -> bool:
        """See `LimitedStream`. One that cannot say passes for quiet: if it is closed, the next exchange finds out."""
        look: Callable[[], bool] | None = getattr(self.inner, "is_quiet", None)
        return look is None or look()

    async def shut(self) -> None:
        """See `LimitedStream`."""
        with trio.CancelScope(shield=True):  # cancelled half-way, it would leave others open
            await trio.aclose_forcefully(self.inner)
