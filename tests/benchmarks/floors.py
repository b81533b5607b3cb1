"""The floors: what a call costs at the least, on trio, on asyncio and on a blocking socket; and bare h11 on trio.

The bytes of the request are made before, of the answer only its length is looked at, and what came is parsed as JSON.
There is no deadline, no check, no error that is understood: they are limits, not clients.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from typing import Any, TypeAlias, final

from .kinds import AsyncVerbs, Setup, Verbs
from .peers import ASK, HEADERS, _job
from .place import WORK

Exchange: TypeAlias = Callable[[Any, bytes], Awaitable[bytes]]


def _request(target: str, value: Any) -> bytes:
    body = json.dumps(value).encode()
    lines = {"Host": "127.0.0.1", **HEADERS, "Content-Type": "application/json", "Content-Length": str(len(body))}
    head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode() + body


def _body(data: bytes) -> bytes | None:
    """The body, if all of it is there."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return body if len(body) >= length else None


def _verbs(free: list[Any], open_one: Callable[[], Awaitable[Any]], exchange: Exchange) -> AsyncVerbs:
    """Verbs over kept connections; the one that came back last is used first."""
    asked = _request("/route/", ASK)

    async def ask(data: bytes) -> Any:
        connection = free.pop() if free else await open_one()
        value = json.loads(await exchange(connection, data))
        free.append(connection)
        return value

    async def route() -> None:
        await ask(asked)

    async def call() -> None:
        await ask(_request(WORK, _job(await ask(asked))))

    return {"route": route, "call": call}


@asynccontextmanager
async def raw_trio(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """A non-blocking socket that trio waits for."""
    trio = import_module("trio")
    free: list[socket.socket] = []

    async def open_one() -> socket.socket:
        stream = await trio.open_tcp_stream("127.0.0.1", setup.place.port)
        connected = socket.socket(fileno=stream.socket.detach())
        connected.setblocking(False)
        return connected

    async def exchange(connected: socket.socket, data: bytes) -> bytes:
        connected.send(data)
        await trio.lowlevel.wait_readable(connected)
        came = connected.recv(65536)
        while (body := _body(came)) is None:
            await trio.lowlevel.wait_readable(connected)
            came += connected.recv(65536)
        return body

    yield _verbs(free, open_one, exchange)
    for each in free:
        each.close()


@asynccontextmanager
async def raw_asyncio(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """An asyncio protocol."""
    free: list[_Wire] = []
    loop = asyncio.get_running_loop()

    async def open_one() -> _Wire:
        _, wire = await loop.create_connection(_Wire, "127.0.0.1", setup.place.port)
        return wire

    async def exchange(wire: _Wire, data: bytes) -> bytes:
        return await wire.exchange(data)

    yield _verbs(free, open_one, exchange)
    for each in free:
        each.close()


@final
class _Wire(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._came += data
        if (body := _body(self._came)) is not None:
            self._answer.set_result(body)

    def exchange(self, data: bytes) -> asyncio.Future[bytes]:
        self._came = b""
        self._answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return self._answer

    def close(self) -> None:
        self._transport.abort()


@contextmanager
def raw_socket(setup: Setup) -> Iterator[Verbs]:
    """A blocking socket."""
    asked = _request("/route/", ASK)
    with socket.create_connection(("127.0.0.1", setup.place.port)) as connected:

        def route() -> None:
            connected.send(asked)
            came = connected.recv(65536)
            while (body := _body(came)) is None:
                came += connected.recv(65536)
            json.loads(body)

        yield {"route": route}


@asynccontextmanager
async def h11_on_trio(setup: Setup) -> AsyncIterator[AsyncVerbs]:
    """h11 as its documentation shows it, over trio's own streams: the common way to write a client like ours."""
    h11, trio = import_module("h11"), import_module("trio")
    free: list[tuple[Any, Any]] = []

    async def post(target: str, value: Any) -> Any:
        if free:
            stream, wire = free.pop()
        else:
            stream = await trio.open_tcp_stream("127.0.0.1", setup.place.port)
            wire = h11.Connection(our_role=h11.CLIENT)
        body = json.dumps(value).encode()
        headers = [("Host", "127.0.0.1"), *HEADERS.items(), ("Content-Type", "application/json")]
        request = h11.Request(method="POST", target=target, headers=[*headers, ("Content-Length", str(len(body)))])
        sent = [wire.send(request), wire.send(h11.Data(data=body)), wire.send(h11.EndOfMessage())]
        await stream.send_all(b"".join(sent))
        came = b""
        while type(event := wire.next_event()) is not h11.EndOfMessage:
            if event is h11.NEED_DATA:
                wire.receive_data(await stream.receive_some(65536))
            elif type(event) is h11.Data:
                came += event.data
        wire.start_next_cycle()
        free.append((stream, wire))
        return json.loads(came)

    async def route() -> None:
        await post("/route/", ASK)

    async def call() -> None:
        await post(WORK, _job(await post("/route/", ASK)))

    yield {"route": route, "call": call}
    for stream, _ in free:
        await trio.aclose_forcefully(stream)
