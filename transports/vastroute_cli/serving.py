"""A simulated engine and its workers on sockets of this machine, each worker on one of its own."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from vastroute_testing import SimulatedEngine, open_loopback


@asynccontextmanager
async def serving(
    engine: SimulatedEngine, *, host: str = "127.0.0.1", port: int = 0, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Serve until the block ends; the engine's address. From now on its workers have theirs, and grants name them."""
    workers = {f"worker {number}": worker for number, worker in enumerate(engine.workers, 1)}
    async with open_loopback(workers, host=host, ssl_context=ssl_context) as there:
        for name, worker in workers.items():
            worker.url = str(there.origins[name])
        async with open_loopback(engine, host=host, port=port, ssl_context=ssl_context) as here:
            yield here.url
