"""`Client`: the verbs over trio."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Unpack, final

from ..asynchronous.client import AsyncClient
from ..options import ClientOptions
from ..settings import Settings
from .links import Connect, Links

if TYPE_CHECKING:
    import trio


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
        links = Links(Settings(**options), connect, ssl_context, self._worker_tls)
        super().__init__(links, worker_ssl_context, dials=connect is None)
