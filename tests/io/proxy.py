"""A small HTTP proxy on loopback that knows CONNECT, and remembers every byte that it could read."""

from __future__ import annotations

import socket
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import final

from .worlds import World


@asynccontextmanager
async def open_proxy(
    world: World, routes: Mapping[str, int] | None = None, *, answer: bytes | None = None, wanted: str | None = None
) -> AsyncIterator[Proxy]:
    """A `Proxy` for as long as the block lasts. At its end the client must have closed every connection."""
    proxy = Proxy(routes, answer=answer, wanted=wanted)
    try:
        yield proxy
    finally:
        await world.apart(proxy.close)


@final
class Proxy:
    """Connects to what `routes` says in place of what it is asked for, whatever the name; else answers 502.

    With `answer` it answers everything with these bytes instead. With `wanted` it answers 407 to whoever does not send
    this value of ``Proxy-Authorization``.
    """

    def __init__(
        self, routes: Mapping[str, int] | None = None, *, answer: bytes | None = None, wanted: str | None = None
    ) -> None:
        self.heads: list[bytes] = []
        """What it was asked."""
        self.carried = bytearray()
        """What went through it from its clients."""
        self._routes = dict(routes or {})
        self._answer = answer
        self._wanted = wanted
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._spawn(self._accept)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """The same as an address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        """Where it was asked to connect to."""
        return [head.split(b" ")[1].decode() for head in self.heads]

    def close(self) -> None:
        """Accept no more, and wait until every client has closed its connection."""
        with self._listener:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes whoever accepts
            for thread in self._threads:
                thread.join(timeout=5)
        assert not any(thread.is_alive() for thread in self._threads), "a connection through the proxy is still open"

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._spawn(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(65536)
                if not data:
                    return
                head += data
            self.heads.append(head)
            if self._answer is not None:
                client.sendall(self._answer)
                return
            if self._wanted is not None and f"proxy-authorization: {self._wanted}".encode() not in head.lower():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                return
            port = self._routes.get(head.split(b" ")[1].decode())
            if port is None:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
                return
            with socket.create_connection(("127.0.0.1", port)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=(server, client, bytearray()), daemon=True)
                back.start()
                _pump(client, server, self.carried)
                back.join()


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            seen += data
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
