"""`Client`: the verbs, each of which makes a machine and drives it."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

import trio

from vastroute import (
    Answer,
    EndpointInfo,
    KeyRefused,
    Machine,
    Pool,
    PublicKey,
    RouteResult,
    SessionHandle,
    WorkerInfo,
    WorkerRequest,
)

from ..options import CallOptions, ClientOptions, RouteOptions, SessionOptions
from ..settings import Settings
from ..tls import keep_root, kept_root, worker_context
from .drive import Drive
from .links import Connect, Link, Links, Place
from .session import Session
from .stream import Stream

T = TypeVar("T")


@final
class Client:
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
        self._settings = Settings(**options)
        self._links = Links(self._settings, connect, ssl_context, self._worker_tls)
        self._worker_context = worker_ssl_context
        self._key_lock = trio.Lock()
        self._root_lock = trio.Lock()

    @property
    def pool(self) -> Pool[Place, Link]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._links.pool

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        await self._prepare()
        make = self._settings.routing(endpoint, options, now=trio.current_time())
        return await self.with_key_for(endpoint, lambda: self.run(make()))

    async def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work: post `payload`, a JSON object, to its `route`; the whole answer.

        See `vastroute_io.options.CallOptions`. Raises an error under `vastroute.CallFailed` if there is no answer of
        the 2xx kind in the end, and `vastroute.InvalidValue` for an argument that cannot be used.
        """
        return await self._work(endpoint, self._settings.work(route, payload, options), options)

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Stream:
        """The same for an answer that is wanted piece by piece: ``async with client.stream(...) as events``."""
        work = self._settings.work(route, payload, options, stream=True)

        async def begin(stream: Stream) -> None:
            await self._prepare()
            make = self._settings.calls(endpoint, work, options, now=trio.current_time())
            await self.with_key_for(endpoint, lambda: stream.start(make()))

        return Stream(self._links, self._settings, begin)

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> Session:
        """A lease on one worker for several requests: ``async with client.session(...) as session``.

        It is made on entering the block and ended on leaving it. See `vastroute_io.options.SessionOptions`.
        """
        work = self._settings.session_work(options)
        lifetime = options.get("lifetime")
        return Session(
            self._links, self._settings, create=lambda: self._work(endpoint, work, options), lifetime=lifetime
        )

    def resume_session(self, handle: SessionHandle) -> Session:
        """Go on with a session that was made before, perhaps in another process: see `vastroute.SessionHandle.load`."""
        return Session(self._links, self._settings, handle=handle)

    async def endpoints(self) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on."""
        found = await self.run(self._settings.endpoints_lookup(now=trio.current_time()))
        self._settings.learn(found)
        return found

    async def workers(self, endpoint: str) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key."""
        await self.endpoints()
        found = self._settings.endpoint(endpoint)
        return await self.run(self._settings.workers_lookup(found, now=trio.current_time()))

    async def fetch_public_key(self) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it."""
        async with self._key_lock:
            if self._settings.public_key is None:
                lookup = self._settings.public_key_lookup(now=trio.current_time())
                self._settings.public_key = await self.run(lookup)
            return self._settings.public_key

    async def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        return await Drive(self._links, self._settings, machine).run()

    async def with_key_for(self, endpoint: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives; if the key is refused, once more with the endpoint's own, if the console knows it."""
        try:
            return await attempt()
        except KeyRefused as error:
            if not self._settings.can_find_key():
                raise
            await self.endpoints()
            self._settings.endpoint(endpoint, refused=error)
        return await attempt()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        await self._links.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _work(self, endpoint: str, work: WorkerRequest, options: CallOptions) -> Answer:
        await self._prepare()
        make = self._settings.calls(endpoint, work, options, now=trio.current_time())
        return await self.with_key_for(endpoint, lambda: self.run(make()))

    async def _prepare(self) -> None:
        if self._settings.needs_public_key:
            await self.fetch_public_key()

    async def _worker_tls(self) -> ssl.SSLContext:
        """The context for workers, made when the first of them is reached over TLS."""
        async with self._root_lock:
            if self._worker_context is None:
                root = self._settings.worker_root or kept_root()
                if root is None:
                    root = await self.run(self._settings.worker_root_lookup(now=trio.current_time()))
                    keep_root(root)
                self._worker_context = worker_context(root, strict=self._settings.strict_worker_tls)
            return self._worker_context
