"""`Client`: the verbs over trio."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, Unpack, final

import trio

from vastroute import Machine, Pool

from ..asynchronous.client import AsyncClient
from ..links import Place
from ..options import ClientOptions
from ..settings import Settings
from .drive import Drive
from .links import Connect, Links, TrioLink

T = TypeVar("T")


@final
class Client(AsyncClient):
    """Calls to Vast.ai's serverless workers. Use it as ``async with Client() as client``; one serves many calls.

    Beside the options of `vastroute_io.options.ClientOptions` it takes `connect`, which opens every stream in place of
    ours (or is one ready stream, which serves until it ends); `ssl_context`, which replaces the context for the engine:
    the system's roots, strict; and `worker_ssl_context`, which replaces the one for workers.
    """

    def __init__(
        self,
        *,
        connect: Connect | trio.abc.Stream | None = None,
        ssl_context: ssl.SSLContext | None = None,
        worker_ssl_context: ssl.SSLContext | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        settings = Settings(**options)
        self._links = Links(settings, connect, ssl_context, self._worker_tls)
        super().__init__(settings, _Trio(settings, self._links), worker_ssl_context, dials=connect is None)

    @property
    def pool(self) -> Pool[Place, TrioLink]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._links.pool


@final
class _Trio:
    """Trio, as the verbs see it."""

    def __init__(self, settings: Settings, links: Links) -> None:
        self._settings = settings
        self._links = links

    def now(self) -> float:
        return trio.current_time()

    def lock(self) -> trio.Lock:
        return trio.Lock()

    def drive(self, machine: Machine[T]) -> Drive[T]:
        return Drive(self._links, self._settings, machine)

    async def within(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(seconds, shield=True):
            await work()

    async def by(self, deadline: float, wait: Callable[[], Awaitable[Any]]) -> bool:
        with trio.move_on_at(deadline) as scope:
            await wait()
        return not scope.cancelled_caught

    async def aclose(self) -> None:
        await self._links.aclose()
