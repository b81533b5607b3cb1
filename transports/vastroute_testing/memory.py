"""A client without bytes, sockets or waiting: the transports' verbs, driven over messages in a manual clock's time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, final

from vastroute import Answer, EndpointInfo, Guard, KeyRefused, Machine, PublicKey, RouteResult, WorkerInfo
from vastroute_io.options import CallOptions, ClientOptions, RouteOptions
from vastroute_io.settings import Settings

from .clock import ManualClock
from .drive import Transcript, run
from .server import Servers

T = TypeVar("T")
TEST_KEY: Final = "test-endpoint-key"
"""The key of a `Client` that is given none: that of a `vastroute_testing.SimulatedEndpoint` that is given none."""


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
        self._settings = Settings(**options)
        self._servers = server
        self.clock: ManualClock = ManualClock() if clock is None else clock
        """The client's time."""
        self.transcripts: list[Transcript[Any]] = []
        """One for each machine that was driven, in order; also for those that gave up."""

    def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`, waiting while none is ready; see `vastroute_io.options.RouteOptions`.

        Raises an error under `vastroute.CallFailed` if there is no worker in the end, and `vastroute.InvalidValue` for
        an argument that cannot be used.
        """
        self._prepare()
        deadline = self._settings.deadline(options, now=self.clock())

        def attempt() -> RouteResult:
            return self.run(self._settings.route_call(endpoint, options, deadline=deadline))

        return self._with_key_for(endpoint, attempt)

    def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work: post `payload`, a JSON object, to its `route`; the whole answer.

        Raises as `route` does, and an error under `vastroute.CallFailed` if the worker gives no answer.
        """
        work = self._settings.work(route, payload, options)
        self._prepare()
        now = self.clock()
        deadline = self._settings.deadline(options, now=now)

        def attempt() -> Answer:
            source = self._settings.route_call(endpoint, options, deadline=deadline)
            return self.run(self._settings.call(source, work, options, now=now))

        return self._with_key_for(endpoint, attempt)

    def endpoints(self) -> tuple[EndpointInfo, ...]:
        """The account's endpoints, asked of the console with the account's key; their own keys are used from now on."""
        found = self.run(self._settings.endpoints_lookup(now=self.clock()))
        self._settings.learn(found)
        return found

    def workers(self, endpoint: str) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint` and their states; the endpoint is looked up with the account's key."""
        self.endpoints()
        found = self._settings.endpoint(endpoint)
        return self.run(self._settings.workers_lookup(found, now=self.clock()))

    def fetch_public_key(self) -> PublicKey:
        """The engine's public key, fetched once; from then on the client's calls check signatures with it."""
        if self._settings.public_key is None:
            self._settings.public_key = self.run(self._settings.public_key_lookup(now=self.clock()))
        return self._settings.public_key

    def run(self, machine: Machine[T]) -> T:
        """Drive any machine of the core to its end: the result, or its error raised."""
        transcript = run(self._settings.recorded(machine), self._servers, self.clock, observer=self._settings.observer)
        self.transcripts.append(transcript)
        return transcript.result()

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _prepare(self) -> None:
        if self._settings.needs_public_key:
            self.fetch_public_key()

    def _with_key_for(self, endpoint: str, attempt: Callable[[], T]) -> T:
        try:
            return attempt()
        except KeyRefused as error:
            if not self._settings.can_find_key():
                raise
            self.endpoints()
            self._settings.endpoint(endpoint, refused=error)
        return attempt()


def _half() -> float:
    return 0.5
