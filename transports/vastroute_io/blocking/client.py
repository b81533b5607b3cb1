"""`Client`: the verbs, each of which makes a machine and drives it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Mapping
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack, final

from vastroute import (
    Answer,
    CallFailed,
    EndpointInfo,
    KeyRefused,
    Machine,
    PublicKey,
    RouteResult,
    Secret,
    SessionHandle,
    WorkerInfo,
    WorkerRequest,
)

from ..options import CallOptions, ClientOptions, RouteOptions, SessionOptions, check_options
from ..settings import Settings
from ..tls import keep_root, kept_root, worker_context
from .clocks import Clock, RealClock
from .drive import Drive
from .links import Connect, Links, PoolView
from .session import Session
from .stream import Stream
from .streams import ByteStream

T = TypeVar("T")


@final
class Client:
    """Calls to Vast.ai's serverless workers. Use it as ``with Client() as client``; any number of threads may share it.

    Beside the options of `vastroute_io.options.ClientOptions` it takes `connect`, which opens every stream in place of
    ours (or is one ready stream, which serves until it ends); `ssl_context`, which replaces the context for the engine:
    the system's roots, strict; `worker_ssl_context`, which replaces the one for workers; and `clock`, which replaces
    the system's.
    """

    def __init__(
        self,
        *,
        connect: Connect | ByteStream | None = None,
        ssl_context: ssl.SSLContext | None = None,
        worker_ssl_context: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._settings = Settings(**options)
        self._clock = RealClock() if clock is None else clock
        self._links = Links(self._settings, self._clock, connect, ssl_context, self._worker_tls)
        self._worker_context = worker_ssl_context
        self._key_lock = threading.Lock()
        self._root_lock = threading.Lock()
        self._find_lock = threading.Lock()
        self._dials = connect is None

    @property
    def pool(self) -> PoolView:
        """The connections that are kept; its ``inspect`` shows them, as `vastroute.Pool.inspect` does."""
        return self._links.view

    def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        check_options(options, RouteOptions)
        deadline = self._settings.deadline(options, now=self._clock())
        make = self._settings.routing(endpoint, options, deadline=deadline)
        self._prepare(deadline, for_work=False)
        return self.with_key_for(endpoint, lambda: self.run(make()), deadline=deadline)

    def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work: post `payload`, a JSON object, to its `route`; the whole answer.

        See `vastroute_io.options.CallOptions`. Raises an error under `vastroute.CallFailed` if there is no answer of
        the 2xx kind in the end, and `vastroute.InvalidValue` for an argument that cannot be used.
        """
        check_options(options, CallOptions)
        return self._work(endpoint, self._settings.work(route, payload, options), options)

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Stream:
        """The same for an answer that is wanted piece by piece: ``with client.stream(...) as events``."""
        check_options(options, CallOptions)
        work = self._settings.work(route, payload, options, stream=True)

        def begin(stream: Stream) -> None:
            now = self._clock()
            deadline = self._settings.deadline(options, now=now)
            make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
            self._prepare(deadline, for_work=True)
            self.with_key_for(endpoint, lambda: stream.start(make()), deadline=deadline)

        return Stream(self._links, self._settings, begin)

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> Session:
        """A lease on one worker for several requests: ``with client.session(...) as session``.

        It is made on entering the block and ended on leaving it. See `vastroute_io.options.SessionOptions`.
        """
        check_options(options, SessionOptions)
        work = self._settings.session_work(options)
        lifetime = options.get("lifetime")
        return Session(
            self._links, self._settings, create=lambda: self._work(endpoint, work, options), lifetime=lifetime
        )

    def resume_session(self, handle: SessionHandle) -> Session:
        """Go on with a session that was made before, perhaps in another process: see `vastroute.SessionHandle.load`."""
        return Session(self._links, self._settings, handle=handle)

    def endpoints(self, *, timeout: float | None = None) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on.

        `timeout` is in seconds; without it the policy's ``total`` holds, as for every look-up.
        """
        return self._look_up_endpoints(self._settings.within(timeout, now=self._clock()))

    def workers(self, endpoint: str, *, timeout: float | None = None) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key.

        `timeout` is in seconds, over both look-ups.
        """
        deadline = self._settings.within(timeout, now=self._clock())
        self._look_up_endpoints(deadline)
        found = self._settings.endpoint(endpoint)
        return self.run(self._settings.workers_lookup(found, now=self._clock(), deadline=deadline))

    def fetch_public_key(self, *, timeout: float | None = None) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it.

        `timeout` is in seconds.
        """
        return self._fetch_public_key(self._settings.within(timeout, now=self._clock()))

    def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        return Drive(self._links, self._settings, machine).run()

    def with_key_for(self, endpoint: str, attempt: Callable[[], T], *, deadline: float = inf) -> T:
        """What `attempt` gives; if the key is refused, once more with the endpoint's own, if the console knows it.

        The console is asked until `deadline` at the latest (monotonic seconds).
        """
        used = self._settings.key_for(endpoint)
        try:
            return attempt()
        except KeyRefused as error:
            # A number that is held would be lost with its machine, and its load be counted again.
            if error.request_idx is not None or not self._settings.can_find_key():
                raise
            self._find_key(endpoint, used, error, deadline)
        return attempt()

    def _find_key(self, endpoint: str, used: Secret, refused: KeyRefused, deadline: float) -> None:
        """Have the endpoint's own key ready, asked of the console unless another call has just asked."""
        held = self._find_lock.acquire(timeout=self._left(deadline))
        try:
            if self._settings.key_for(endpoint) == used:
                try:
                    self._look_up_endpoints(deadline)
                except CallFailed as error:
                    raise refused from error
            self._settings.endpoint(endpoint, refused=refused)
        finally:
            if held:
                self._find_lock.release()

    def close(self) -> None:
        """Close every idle connection; those in use follow when their calls end."""
        self._links.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, endpoint: str, work: WorkerRequest, options: CallOptions) -> Answer:
        now = self._clock()
        deadline = self._settings.deadline(options, now=now)
        make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
        self._prepare(deadline, for_work=True)
        return self.with_key_for(endpoint, lambda: self.run(make()), deadline=deadline)

    def _prepare(self, deadline: float, *, for_work: bool) -> None:
        """Fetch what a call needs before it asks for a worker, so that none is granted for nothing."""
        if self._settings.needs_public_key:
            self._fetch_public_key(deadline)
        if for_work and self._dials and self._settings.needs_worker_root:
            self._worker_tls(deadline)

    def _fetch_public_key(self, deadline: float) -> PublicKey:
        # Without the lock, since the deadline came first, the look-up says so.
        held = self._key_lock.acquire(timeout=self._left(deadline))
        try:
            if self._settings.public_key is None:
                lookup = self._settings.public_key_lookup(now=self._clock(), deadline=deadline)
                self._settings.public_key = self.run(lookup)
            return self._settings.public_key
        finally:
            if held:
                self._key_lock.release()

    def _look_up_endpoints(self, deadline: float) -> tuple[EndpointInfo, ...]:
        lookup = self._settings.endpoints_lookup(now=self._clock(), deadline=deadline)
        found = self.run(lookup)
        self._settings.learn(found)
        return found

    def _left(self, deadline: float) -> float:
        """Seconds until `deadline`, as a lock takes them."""
        return min(max(0.0, deadline - self._clock()), threading.TIMEOUT_MAX)

    def _worker_tls(self, deadline: float = inf) -> ssl.SSLContext:
        """The context for workers; their root is fetched if it has to be, until `deadline` at the latest."""
        if self._worker_context is not None:
            return self._worker_context
        held = self._root_lock.acquire(timeout=self._left(deadline))
        try:
            if self._worker_context is None:
                root = self._settings.worker_root or kept_root()
                if root is None:
                    lookup = self._settings.worker_root_lookup(now=self._clock(), deadline=deadline)
                    root = self.run(lookup)
                    keep_root(root)
                self._worker_context = worker_context(root, strict=self._settings.strict_worker_tls)
            return self._worker_context
        finally:
            if held:
                self._root_lock.release()
