"""A server that holds its answers back until it is told to give them; it also streams. It is told its two ports.

On the control port a line is a command: ``hold`` (from now on no request is answered), ``count`` (how many are held),
``release`` (answer them, and hold no more).
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import final

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.place import MEBIBYTE, STREAM, WORK, answer, events, grant, raise_file_limit


@final
class Held:
    """What is held."""

    def __init__(self, port: int) -> None:
        self.holding = False
        self.waiting: list[tuple[asyncio.WriteTransport, bytes]] = []
        self.routed, self.worked = _plain(grant(port)), _plain(answer())
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self.streams = {f"{STREAM}{size}".encode(): head + events(size * MEBIBYTE)[0] for size in (1, 8)}

    def command(self, line: str) -> str:
        """Do what `line` says."""
        if line == "hold":
            self.holding = True
        elif line == "release":
            self.holding = False
            for transport, reply in self.waiting:
                transport.write(reply)
            self.waiting.clear()
        return f"{len(self.waiting)}\n"


@final
class Connection(asyncio.Protocol):
    """One client's connection."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end:
            return
        size = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < size:
            return
        self._data = b""
        held, target = self._held, head.split(b" ", 2)[1].partition(b"?")[0]
        if (stream := held.streams.get(target)) is not None:
            self._transport.write(stream)
            return
        reply = held.worked if target == WORK.encode() else held.routed
        if held.holding:
            held.waiting.append((self._transport, reply))
        else:
            self._transport.write(reply)


async def _control(held: Held, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while line := await reader.readline():
        writer.write(held.command(line.decode().strip()).encode())
    writer.close()


def _plain(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def _serve(port: int, control: int) -> None:
    held = Held(port)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(held), "127.0.0.1", port, backlog=65535)
    async with server, await asyncio.start_server(partial(_control, held), "127.0.0.1", control):
        await server.serve_forever()


if __name__ == "__main__":
    raise_file_limit()
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
