"""`Client`: the verbs over asyncio."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Any, TypeVar, Unpack, final

from vastroute import Machine, Pool

from ..asynchronous.client import AsyncClient
from ..links import Place
from ..options import ClientOptions
from ..settings import Settings
from .drive import Drive
from .links import AsyncioLink, Connect, Links
from .streams import ByteStream

T = TypeVar("T")


@final
class Client(AsyncClient):
    """Calls to Vast.ai's serverless workers. Use it as ``async with Client() as client``; one serves many calls.

    Beside the options of `vastroute_io.options.ClientOptions` it takes `connect`, which opens every stream in place of
    ours (or is one ready stream, which serves until it ends); `ssl_context`, which replaces the context for the engine:
    the system's roots, strict; and `worker_ssl_context`, which replaces the one for workers. One client belongs to one
    event loop.
    """

    def __init__(
        self,
        *,
        connect: Connect | ByteStream | None = None,
        ssl_context: ssl.SSLContext | None = None,
        worker_ssl_context: ssl.SSLContext | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(**options)
        self._links = Links(settings, connect, ssl_context, self._worker_tls)
        super().__init__(settings, _Asyncio(settings, self._links), worker_ssl_context, dials=connect is None)

    @property
    def pool(self) -> Pool[Place, AsyncioLink]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._links.pool


@final
class _Asyncio:
    """Asyncio, as the verbs see it."""

    def __init__(self, settings: Settings, links: Links) -> None:
        self._settings = settings
        self._links = links

    def now(self) -> float:
        return self._links.now()

    def lock(self) -> asyncio.Lock:
        return asyncio.Lock()

    def drive(self, machine: Machine[T]) -> Drive[T]:
        return Drive(self._links, self._settings, machine)

    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        async def bounded() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await work()

        # In a task of its own, so that it outlasts cancellations of this one, which are passed on when it is over.
        task = asyncio.create_task(bounded())
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                cancelled = error
        task.result()
        if cancelled is not None:
            raise cancelled

    async def by(self, deadline: float, wait: Callable[[], Awaitable[Any]]) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(None if deadline == inf else deadline):
                await wait()
                return True
        return False

    async def aclose(self) -> None:
        self._links.close()
