"""A client without bytes, sockets or waiting: the transports' verbs, driven over messages in a manual clock's time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, final

from vastroute import (
    Answer,
    Call,
    CallFailed,
    EndpointInfo,
    Guard,
    KeyRefused,
    Machine,
    PublicKey,
    RouteResult,
    Secret,
    SessionEnded,
    SessionGone,
    SessionHandle,
    SessionInfo,
    SessionLife,
    StreamEvent,
    WorkerInfo,
    WorkerRequest,
)
from vastroute_io.options import CallOptions, ClientOptions, RouteOptions, SessionOptions, WorkOptions, check_options
from vastroute_io.sessions import END_SECONDS, handle_of, report
from vastroute_io.settings import Settings
from vastroute_io.views import SessionView, StreamView

from .clock import ManualClock
from .drive import Drive, Transcript
from .server import Servers

T = TypeVar("T")
TEST_KEY: Final = "test-endpoint-key"
"""The key of a `Client` that is given none: that of a `vastroute_testing.SimulatedEndpoint` that is given none."""


@final
class Stream(StreamView):
    """The events of a streamed answer. Made by ``Client.stream`` and ``Session.stream``.

    It is to `vastroute_io.blocking.Stream` as the client is to that one's.
    """

    def __init__(self, client: Client, begin: Callable[[Stream], None]) -> None:
        self._client = client
        self._begin = begin
        self._drive: Drive[Answer] | None = None

    def start(self, call: Call) -> None:
        """Drive `call` until the head of its stream is here. For clients."""
        self._call = call
        self._drive = self._client._drive(call)
        try:
            while call.stream_head is None and self._drive.step():
                pass
            if call.stream_head is None:
                call.result()
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        call, drive = self._begun, self._drive
        if drive is None:  # it was left
            call.result()
            raise StopIteration
        while (event := call.next_event(now=self._client.clock())) is None:
            if not drive.step():
                call.result()
                raise StopIteration
        return event

    def close(self) -> None:
        """Take no more of it: what is not over is cancelled."""
        drive, self._drive = self._drive, None
        if drive is not None:
            drive.end()
            self._client._note(drive)

    def __enter__(self) -> Self:
        self._check_new()
        self._begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@final
class Session(SessionView):
    """Several requests to one worker. Made by ``Client.session`` and ``Client.resume_session``.

    It is to `vastroute_io.blocking.Session` as the client is to that one's.
    """

    def __init__(
        self,
        client: Client,
        *,
        create: Callable[[], Answer] | None = None,
        handle: SessionHandle | None = None,
        lifetime: float | None = None,
    ) -> None:
        self._client = client
        self._settings = client._settings
        self._clock = client.clock
        self._create = create
        self._saved = handle
        self._lifetime = lifetime

    def call(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Answer:
        """Post `payload` to the worker's `route`: the whole answer. Nothing is ever sent to another worker."""
        call = self._begin(route, payload, options, stream=False)
        number = self.life.request_sent()
        try:
            return self._client.run(call)
        finally:
            report(self.life, number, call, now=self._clock())

    def stream(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Stream:
        """The same for an answer that is wanted piece by piece: ``with session.stream(...) as events``."""

        def begin(stream: Stream) -> None:
            call = self._begin(route, payload, options, stream=True)
            number = self.life.request_sent()
            try:
                stream.start(call)
            finally:
                report(self.life, number, call, now=self._clock())

        return Stream(self._client, begin)

    def health(self, *, timeout: float | None = None) -> bool:
        """Whether the worker says that the session is alive. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds.
        """
        now = self._clock()
        deadline = self._settings.within(timeout, now=now)
        alive = self._client.run(self._settings.session_health(self.handle, now=now, deadline=deadline))
        if not alive:
            self.life.gone(now=self._clock())
        return alive

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """What the worker knows of the session; `life` goes by it from then on. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds.
        """
        now = self._clock()
        deadline = self._settings.within(timeout, now=now)
        lookup = self._settings.session_get(self.handle, now=now, utc=time.time(), deadline=deadline)
        try:
            info = self._client.run(lookup)
        except SessionGone:
            self.life.gone(now=self._clock())
            raise
        self.life.told(info, now=self._clock(), utc=time.time())
        return info

    def end(self) -> SessionEnded:
        """End the session now."""
        lookup = self._settings.session_end(self.handle, now=self._clock(), seconds=END_SECONDS)
        ended = self._client.run(lookup)
        self.life.ended(ended, now=self._clock())
        return ended

    def __enter__(self) -> Self:
        self._check_new()
        handle = self._saved
        if handle is None:
            assert self._create is not None
            handle = handle_of(self._create(), utc=time.time(), lifetime=self._lifetime)
        self._life = SessionLife(handle, now=self._clock(), utc=time.time())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_ours_to_end:
            return
        try:
            self.end()
        except CallFailed:
            return  # it ends by itself when its lifetime is over

    def _begin(self, route: str, payload: Mapping[str, Any] | bytes, options: WorkOptions, *, stream: bool) -> Call:
        check_options(options, WorkOptions)
        work = self._settings.work(route, payload, options, stream=stream)
        return self._settings.call(self.handle, work, options, now=self._clock())


@final
class Client:
    """The verbs of the transports' clients over messages: blocking calls that take no time and need no account.

    `server` is what answers: see `vastroute_testing.Servers`. `clock` is the time, which goes on as calls wait. The
    options are those of every client, with three defaults of their own, so that a test depends on nothing around it:
    the `key` is `TEST_KEY` and looked for nowhere, `rng` always draws 0.5, and `guard` allows the reserved addresses
    at which simulated workers are.
    """

    def __init__(self, *, server: Servers, clock: ManualClock | None = None, **options: Unpack[ClientOptions]) -> None:
        options.setdefault("key", TEST_KEY)
        options.setdefault("rng", _half)
        options.setdefault("guard", Guard(allow_private_address=True))
        self.clock: ManualClock = ManualClock() if clock is None else clock
        """The client's time."""
        self._settings = Settings(**options)
        self.transcripts: list[Transcript[Any]] = []
        """One for each machine that was driven, in the order in which they ended; also for those that gave up."""
        self._servers = server

    def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        check_options(options, RouteOptions)
        deadline = self._settings.deadline(options, now=self.clock())
        make = self._settings.routing(endpoint, options, deadline=deadline)
        self._prepare(deadline)
        return self._with_key_for(endpoint, lambda: self.run(make()), deadline)

    def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work: post `payload`, a JSON object, to its `route`; the whole answer.

        Raises as `route` does, and an error under `vastroute.CallFailed` if the worker gives no answer.
        """
        check_options(options, CallOptions)
        return self._work(endpoint, self._settings.work(route, payload, options), options)

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Stream:
        """The same for an answer that is wanted piece by piece: ``with client.stream(...) as events``.

        Each event is there at the instant at which the worker sends it.
        """
        check_options(options, CallOptions)
        work = self._settings.work(route, payload, options, stream=True)

        def begin(stream: Stream) -> None:
            now = self.clock()
            deadline = self._settings.deadline(options, now=now)
            make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
            self._prepare(deadline)
            self._with_key_for(endpoint, lambda: stream.start(make()), deadline)

        return Stream(self, begin)

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> Session:
        """A lease on one worker for several requests: ``with client.session(...) as session``."""
        check_options(options, SessionOptions)
        work = self._settings.session_work(options)
        return Session(self, create=lambda: self._work(endpoint, work, options), lifetime=options.get("lifetime"))

    def resume_session(self, handle: SessionHandle) -> Session:
        """Go on with a session that was made before: see `vastroute.SessionHandle.load`."""
        return Session(self, handle=handle)

    def endpoints(self, *, timeout: float | None = None) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on.

        `timeout` is in seconds; without it the policy's ``total`` holds, as for every look-up.
        """
        return self._look_up_endpoints(self._settings.within(timeout, now=self.clock()))

    def workers(self, endpoint: str, *, timeout: float | None = None) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key.

        `timeout` is in seconds, over both look-ups.
        """
        deadline = self._settings.within(timeout, now=self.clock())
        self._look_up_endpoints(deadline)
        found = self._settings.endpoint(endpoint)
        return self.run(self._settings.workers_lookup(found, now=self.clock(), deadline=deadline))

    def fetch_public_key(self, *, timeout: float | None = None) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it.

        `timeout` is in seconds.
        """
        return self._fetch_public_key(self._settings.within(timeout, now=self.clock()))

    def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        drive = self._drive(machine)
        drive.run()
        self._note(drive)
        return machine.result()

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _work(self, endpoint: str, work: WorkerRequest, options: CallOptions) -> Answer:
        now = self.clock()
        deadline = self._settings.deadline(options, now=now)
        make = self._settings.calls(endpoint, work, options, now=now, deadline=deadline)
        self._prepare(deadline)
        return self._with_key_for(endpoint, lambda: self.run(make()), deadline)

    def _drive(self, machine: Machine[T]) -> Drive[T]:
        return Drive(self._settings.recorded(machine), self._servers, self.clock, observer=self._settings.observer)

    def _note(self, drive: Drive[Any]) -> None:
        self.transcripts.append(drive.transcript())

    def _prepare(self, deadline: float) -> None:
        if self._settings.needs_public_key:
            self._fetch_public_key(deadline)

    def _fetch_public_key(self, deadline: float) -> PublicKey:
        if self._settings.public_key is None:
            lookup = self._settings.public_key_lookup(now=self.clock(), deadline=deadline)
            self._settings.public_key = self.run(lookup)
        return self._settings.public_key

    def _look_up_endpoints(self, deadline: float) -> tuple[EndpointInfo, ...]:
        lookup = self._settings.endpoints_lookup(now=self.clock(), deadline=deadline)
        found = self.run(lookup)
        self._settings.learn(found)
        return found

    def _with_key_for(self, endpoint: str, attempt: Callable[[], T], deadline: float) -> T:
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
        if self._settings.key_for(endpoint) == used:
            try:
                self._look_up_endpoints(deadline)
            except CallFailed as error:
                raise refused from error
        self._settings.endpoint(endpoint, refused=refused)


def _half() -> float:
    return 0.5
