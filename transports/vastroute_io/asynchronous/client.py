"""The verbs of an asynchronous client, each of which makes a machine and has it driven: once for every library."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from vastroute import (
    Answer,
    EndpointInfo,
    KeyRefused,
    Machine,
    PublicKey,
    RouteResult,
    SessionHandle,
    WorkerInfo,
    WorkerRequest,
)

from ..options import CallOptions, RouteOptions, SessionOptions
from ..settings import Settings
from ..tls import keep_root, kept_root, worker_context
from .library import Library
from .session import AsyncSession
from .stream import AsyncStream

T = TypeVar("T")


class AsyncClient:
    """The verbs of an asynchronous ``Client``; a transport adds how its connections are made."""

    def __init__(self, settings: Settings, library: Library, worker_tls: ssl.SSLContext | None) -> None:
        self._settings = settings
        self._library = library
        self._worker_context = worker_tls
        self._key_lock = library.lock()
        self._root_lock = library.lock()

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        deadline = self._settings.deadline(options, now=self._library.now())
        make = self._settings.routing(endpoint, options, deadline=deadline)
        await self._prepare(deadline)
        return await self.with_key_for(endpoint, lambda: self.run(make()), deadline=deadline)

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
    ) -> AsyncStream:
        """The same for an answer that is wanted piece by piece: ``async with client.stream(...) as events``."""
        work = self._settings.work(route, payload, options, stream=True)

        async def begin(stream: AsyncStream) -> None:
            now = self._library.now()
            deadline = self._settings.deadline(options, now=now)
            make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
            await self._prepare(deadline)
            await self.with_key_for(endpoint, lambda: stream.start(make()), deadline=deadline)

        return AsyncStream(self._library, begin)

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> AsyncSession:
        """A lease on one worker for several requests: ``async with client.session(...) as session``.

        It is made on entering the block and ended on leaving it. See `vastroute_io.options.SessionOptions`.
        """
        work = self._settings.session_work(options)
        lifetime = options.get("lifetime")
        return AsyncSession(
            self._library,
            self._settings,
            create=lambda: self._work(endpoint, work, options),
            lifetime=lifetime,
        )

    def resume_session(self, handle: SessionHandle) -> AsyncSession:
        """Go on with a session that was made before, perhaps in another process: see `vastroute.SessionHandle.load`."""
        return AsyncSession(self._library, self._settings, handle=handle)

    async def endpoints(self) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on."""
        return await self._look_up_endpoints(inf)

    async def workers(self, endpoint: str) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key."""
        await self.endpoints()
        found = self._settings.endpoint(endpoint)
        return await self.run(self._settings.workers_lookup(found, now=self._library.now()))

    async def fetch_public_key(self) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it."""
        return await self._fetch_public_key(inf)

    async def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        return await self._library.drive(machine).run()

    async def with_key_for(self, endpoint: str, attempt: Callable[[], Awaitable[T]], *, deadline: float = inf) -> T:
        """What `attempt` gives; if the key is refused, once more with the endpoint's own, if the console knows it.

        The console is asked until `deadline` at the latest (monotonic seconds).
        """
        try:
            return await attempt()
        except KeyRefused as error:
            if not self._settings.can_find_key():
                raise
            await self._look_up_endpoints(deadline)
            self._settings.endpoint(endpoint, refused=error)
        return await attempt()

    async def aclose(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        await self._library.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _work(self, endpoint: str, work: WorkerRequest, options: CallOptions) -> Answer:
        now = self._library.now()
        deadline = self._settings.deadline(options, now=now)
        make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
        await self._prepare(deadline)
        return await self.with_key_for(endpoint, lambda: self.run(make()), deadline=deadline)

    async def _prepare(self, deadline: float) -> None:
        if self._settings.needs_public_key:
            await self._fetch_public_key(deadline)

    async def _fetch_public_key(self, deadline: float) -> PublicKey:
        # Without the lock, since the deadline came first, the look-up says so.
        held = await self._library.by(deadline, self._key_lock.acquire)
        try:
            if self._settings.public_key is None:
                lookup = self._settings.public_key_lookup(now=self._library.now())
                lookup.limit_to(deadline, "total")
                self._settings.public_key = await self.run(lookup)
            return self._settings.public_key
        finally:
            if held:
                self._key_lock.release()

    async def _look_up_endpoints(self, deadline: float) -> tuple[EndpointInfo, ...]:
        lookup = self._settings.endpoints_lookup(now=self._library.now())
        lookup.limit_to(deadline, "total")
        found = await self.run(lookup)
        self._settings.learn(found)
        return found

    async def _worker_tls(self) -> ssl.SSLContext:
        """The context for workers, made when the first of them is reached over TLS."""
        async with self._root_lock:
            if self._worker_context is None:
                root = self._settings.worker_root or kept_root()
                if root is None:
                    root = await self.run(self._settings.worker_root_lookup(now=self._library.now()))
                    keep_root(root)
                self._worker_context = worker_context(root, strict=self._settings.strict_worker_tls)
            return self._worker_context
