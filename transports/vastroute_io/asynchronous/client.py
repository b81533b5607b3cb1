"""The verbs of an asynchronous client, each of which makes a machine and has it driven: once for every library."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from vastroute import (
    Answer,
    CallFailed,
    EndpointInfo,
    KeyRefused,
    Machine,
    Pool,
    PublicKey,
    RouteResult,
    Secret,
    SessionHandle,
    WorkerInfo,
    WorkerRequest,
)

from ..links import Place
from ..options import CallOptions, RouteOptions, SessionOptions, check_options
from ..tls import keep_root, kept_root, worker_context
from .drive import Drive
from .library import Lock
from .links import AsyncLink, AsyncLinks
from .session import AsyncSession
from .stream import AsyncStream

T = TypeVar("T")


class AsyncClient:
    """The verbs of an asynchronous ``Client``; a transport adds how its connections are made."""

    def __init__(self, links: AsyncLinks, worker_tls: ssl.SSLContext | None, *, dials: bool) -> None:
        self._links = links
        self._settings = links.settings
        self._library = library = links.library
        self._worker_context = worker_tls
        self._key_lock = library.lock()
        self._root_lock = library.lock()
        self._find_lock = library.lock()
        self._dials = dials

    @property
    def pool(self) -> Pool[Place, AsyncLink]:
        """The connections that are kept; `vastroute.Pool.inspect` shows them."""
        return self._links.pool

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        check_options(options, RouteOptions)
        settings, clock = self._settings, self._library.clock()
        deadline = settings.deadline(options, now=clock())
        if settings.needs_public_key:
            await self._fetch_public_key(deadline)
        key = settings.key_for(endpoint)
        call = settings.route_call(endpoint, options, deadline=deadline)
        try:
            await Drive(self._links, call, clock).go_on()
            return call.result()
        except KeyRefused as refused:
            await self._find_key(endpoint, key, refused, deadline)
        call = settings.route_call(endpoint, options, deadline=deadline)
        await Drive(self._links, call, clock).go_on()
        return call.result()

    async def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work: post `payload`, a JSON object, to its `route`; the whole answer.

        See `vastroute_io.options.CallOptions`. Raises an error under `vastroute.CallFailed` if there is no answer of
        the 2xx kind in the end, and `vastroute.InvalidValue` for an argument that cannot be used.
        """
        check_options(options, CallOptions)
        return await self._work(endpoint, self._settings.work(route, payload, options), options)

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> AsyncStream:
        """The same for an answer that is wanted piece by piece: ``async with client.stream(...) as events``."""
        check_options(options, CallOptions)
        work = self._settings.work(route, payload, options, stream=True)

        async def begin(stream: AsyncStream) -> None:
            now = self._library.now()
            deadline = self._settings.deadline(options, now=now)
            make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
            await self._prepare(deadline)
            key = self._settings.key_for(endpoint)
            try:
                await stream.start(make())
            except KeyRefused as refused:
                await self._find_key(endpoint, key, refused, deadline)
                await stream.start(make())

        return AsyncStream(self._links, begin)

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> AsyncSession:
        """A lease on one worker for several requests: ``async with client.session(...) as session``.

        It is made on entering the block and ended on leaving it. See `vastroute_io.options.SessionOptions`.
        """
        check_options(options, SessionOptions)
        work = self._settings.session_work(options)
        lifetime = options.get("lifetime")
        return AsyncSession(
            self._links,
            create=lambda: self._work(endpoint, work, options),
            lifetime=lifetime,
        )

    def resume_session(self, handle: SessionHandle) -> AsyncSession:
        """Go on with a session that was made before, perhaps in another process: see `vastroute.SessionHandle.load`."""
        return AsyncSession(self._links, handle=handle)

    async def endpoints(self, *, timeout: float | None = None) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on.

        `timeout` is in seconds; without it the policy's ``total`` holds, as for every look-up.
        """
        return await self._look_up_endpoints(self._settings.within(timeout, now=self._library.now()))

    async def workers(self, endpoint: str, *, timeout: float | None = None) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key.

        `timeout` is in seconds, over both look-ups.
        """
        deadline = self._settings.within(timeout, now=self._library.now())
        await self._look_up_endpoints(deadline)
        found = self._settings.endpoint(endpoint)
        return await self.run(self._settings.workers_lookup(found, now=self._library.now(), deadline=deadline))

    async def fetch_public_key(self, *, timeout: float | None = None) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it.

        `timeout` is in seconds.
        """
        return await self._fetch_public_key(self._settings.within(timeout, now=self._library.now()))

    async def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        await Drive(self._links, machine).go_on()
        return machine.result()

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
        clock = self._library.clock()
        now = clock()
        deadline = self._settings.deadline(options, now=now)
        make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
        await self._prepare(deadline)
        key = self._settings.key_for(endpoint)
        call = make()
        try:
            await Drive(self._links, call, clock).go_on()
            return call.result()
        except KeyRefused as refused:
            await self._find_key(endpoint, key, refused, deadline)
        call = make()
        await Drive(self._links, call, clock).go_on()
        return call.result()

    async def _prepare(self, deadline: float) -> None:
        """Fetch what a call needs before it asks for a worker, so that none is granted for nothing."""
        if self._settings.needs_public_key:
            await self._fetch_public_key(deadline)
        if self._dials and self._settings.needs_worker_root:
            await self._worker_tls(deadline)

    async def _find_key(self, endpoint: str, used: Secret, refused: KeyRefused, deadline: float) -> None:
        """Have the endpoint's own key ready, asked of the console unless another call has just asked.

        Raises `refused` if that is of no use.
        """
        # A number that is held would be lost with its machine, and its load be counted again.
        if refused.request_idx is not None or not self._settings.can_find_key():
            raise refused
        held = await self._held(self._find_lock, deadline)
        try:
            if self._settings.key_for(endpoint) == used:
                try:
                    await self._look_up_endpoints(deadline)
                except CallFailed as error:
                    raise refused from error
            self._settings.endpoint(endpoint, refused=refused)
        finally:
            if held:
                self._find_lock.release()

    async def _held(self, lock: Lock, deadline: float) -> bool:
        """Whether `lock` was to be had by `deadline`. If not, what comes next has no time left, and says so."""
        with suppress(TimeoutError):
            async with self._library.limit(deadline):
                await lock.acquire()
                return True
        return False

    async def _fetch_public_key(self, deadline: float) -> PublicKey:
        held = await self._held(self._key_lock, deadline)
        try:
            if self._settings.public_key is None:
                lookup = self._settings.public_key_lookup(now=self._library.now(), deadline=deadline)
                self._settings.public_key = await self.run(lookup)
            return self._settings.public_key
        finally:
            if held:
                self._key_lock.release()

    async def _look_up_endpoints(self, deadline: float) -> tuple[EndpointInfo, ...]:
        lookup = self._settings.endpoints_lookup(now=self._library.now(), deadline=deadline)
        found = await self.run(lookup)
        self._settings.learn(found)
        return found

    async def _worker_tls(self, deadline: float = inf) -> ssl.SSLContext:
        """The context for workers; their root is fetched if it has to be, until `deadline` at the latest."""
        if self._worker_context is not None:
            return self._worker_context
        held = await self._held(self._root_lock, deadline)
        try:
            if self._worker_context is None:
                root = self._settings.worker_root or kept_root()
                if root is None:
                    lookup = self._settings.worker_root_lookup(now=self._library.now(), deadline=deadline)
                    root = await self.run(lookup)
                    keep_root(root)
                self._worker_context = worker_context(root, strict=self._settings.strict_worker_tls)
            return self._worker_context
        finally:
            if held:
                self._root_lock.release()
