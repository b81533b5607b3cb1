"""Asyncio in virtual time."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from math import inf
from typing import Any

import pytest

from vastroute import Guard, LocalProtocolError, Origin
from vastroute_io.asyncio import Client
from vastroute_testing import (
    BEGIN,
    TEST_KEY,
    SimulatedEndpoint,
    SimulatedEngine,
    VirtualLoop,
    asyncio_connector,
)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


def test_time_passes_where_nobody_has_anything_to_do() -> None:
    seen: list[tuple[str, float]] = []

    async def sleep(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, asyncio.get_running_loop().time() - BEGIN))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(sleep("year", 31_536_000))
            group.create_task(sleep("hour", 3_600))

    run(main)
    assert seen == [("hour", 3_600), ("year", pytest.approx(31_536_000, abs=1e-6))]


def test_no_time_passes_while_a_thread_is_at_work() -> None:
    go_on = threading.Event()

    async def main() -> None:
        waiting = asyncio.create_task(asyncio.to_thread(go_on.wait))
        soon = asyncio.create_task(asyncio.sleep(60))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(go_on.set)
        assert await waiting
        assert not soon.done()
        assert asyncio.get_running_loop().time() == BEGIN
        await soon
        assert asyncio.get_running_loop().time() == BEGIN + 60

    run(main)


def test_sockets_are_refused() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, pytest.raises(LocalProtocolError, match="virtual clock beside a real socket"):
            asyncio.get_running_loop().add_reader(ours, print)

    run(main)


@pytest.mark.parametrize("seconds", [None, inf])
def test_waiting_for_ever_is_refused(seconds: float | None) -> None:
    async def main() -> None:
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().create_future()

    loop = VirtualLoop()
    with pytest.raises(LocalProtocolError, match="would hang for ever"):
        loop.run_until_complete(main())
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(task)
    loop.close()


def test_a_cold_start_of_ten_minutes() -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=600))
    connect = asyncio_connector(engine)

    async def main() -> None:
        guard = Guard(allow_private_address=True)
        async with Client(connect=connect, key=TEST_KEY, guard=guard) as client:
            answer = await client.call("demo", "/echo", {"n": 1}, cost=256)
        assert answer.data == {"echo": {"n": 1}}
        assert asyncio.get_running_loop().time() - BEGIN >= 600

    run(main)
    assert connect.open == 0
    assert engine.load("demo") == 256


def test_a_stream_that_is_closed_while_somebody_receives() -> None:
    connect = asyncio_connector(SimulatedEngine(SimulatedEndpoint("demo")))

    async def main() -> None:
        stream = await connect(Origin.parse("https://run.vast.ai"))
        receiving = asyncio.create_task(stream.receive_some(10))
        for _ in range(3):
            await asyncio.sleep(0)
        with pytest.raises(LocalProtocolError, match="another task is receiving"):
            await stream.receive_some(10)
        stream.abort()
        with pytest.raises(OSError, match="closed"):
            await receiving
        with pytest.raises(OSError, match="closed"):
            await stream.send_all(b"more")

    run(main)
