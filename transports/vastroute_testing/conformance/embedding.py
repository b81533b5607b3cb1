"""Embeddings: functions that drive machines over an HTTP library, checked with the scripts that apply to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType, TracebackType
from typing import Any, Final, Self, TypeVar, Unpack, final

from vastroute import Answer, Call, Machine, RouteResult, StreamEvent
from vastroute_io.options import CallOptions, ClientOptions, RouteOptions, check_options
from vastroute_io.settings import Settings
from vastroute_io.views import StreamView

from .checking import check_transport
from .features import Feature
from .harness import Harness
from .report import Report
from .verbs import settled
from .world import MakeClient

T = TypeVar("T")
Driving = Callable[[Any], Any]
"""Drives a machine to its end: a function, a coroutine function, or either kind of generator, of a stream's events."""
_LIBRARY = "that is its HTTP library's"
LEFT_OUT: Final[Mapping[Feature, str]] = MappingProxyType(
    {
        Feature.SESSIONS: "a session is machines again: it drives them as any other",
        Feature.LOOKUPS: "a look-up is a machine: it drives that as any other",
        Feature.OBSERVER: "whoever drives a machine can look at its record",
        Feature.KINDS: "its HTTP library's exceptions do not say it alike",
        Feature.HEAD_LIMITS: _LIBRARY,
        Feature.KEPT: _LIBRARY,
        Feature.LOOKS: _LIBRARY,
        Feature.POOL: _LIBRARY,
    }
)
"""What an embedding leaves to others, and why."""


def check_embedding(
    drive: Driving,
    harness: Harness,
    *,
    name: str | None = None,
    lacks: Mapping[Feature, str] | None = None,
    only: Collection[str] = (),
    now: Callable[[], float] = time.monotonic,
) -> Report:
    """Play the scripts that apply to a function that drives machines: see `check_transport` for the other arguments.

    ``drive(machine)`` drives a `vastroute.Call` or a `vastroute.RouteCall` to its end; what it returns or raises does
    not matter, since the machine knows. For streams it is a generator, or an asynchronous one, of the events; if it is
    neither, say so: ``lacks={Feature.STREAMS: "..."}``. Give a `harness` in real time, such as
    ``Blocking(virtual=False)``, for a library that opens its own sockets. `now` is the clock
    that it passes to machines.
    """
    made = embedded(drive, now=now)
    return check_transport(made, harness, name=name, lacks={**LEFT_OUT, **(lacks or {})}, only=only)


def embedded(drive: Driving, *, now: Callable[[], float] = time.monotonic) -> MakeClient:
    """What makes clients of an embedding, for `check_transport`."""

    def make_client(**options: Unpack[ClientOptions]) -> EmbeddedClient:
        return EmbeddedClient(drive, now, Settings(**options))

    return make_client


@final
class EmbeddedStream(StreamView):
    """The events that an embedding gives."""

    def __init__(self, drive: Driving, now: Callable[[], float], begin: Callable[[], Call]) -> None:
        self._drive = drive
        self._now = now
        self._begin = begin
        self._events: Any = None
        self._first: list[StreamEvent] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        call = self._begun
        if self._first:
            return self._first.pop()
        try:
            return await _next(self._events)
        except StopAsyncIteration:
            call.result()
            raise

    async def aclose(self) -> None:
        """Take no more of it."""
        if self._events is not None:
            close = getattr(self._events, "aclose", None) or self._events.close
            await settled(close())
            if not self._begun.over:
                self._begun.cancelled(now=self._now())

    async def __aenter__(self) -> Self:
        self._check_new()
        self._call = self._begin()
        self._events = self._drive(self._call)
        try:
            self._first.append(await _next(self._events))
        except StopAsyncIteration:
            self._call.result()
        except BaseException:
            if self._call.stream_head is None:
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


@final
class EmbeddedClient:
    """The verbs ``route``, ``call`` and ``stream``, of an embedding."""

    def __init__(self, drive: Driving, now: Callable[[], float], settings: Settings) -> None:
        self._drive = drive
        self._now = now
        self._settings = settings

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`."""
        check_options(options, RouteOptions)
        deadline = self._settings.deadline(options, now=self._now())
        return await self._run(self._settings.route_call(endpoint, options, deadline=deadline))

    async def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work."""
        return await self._run(self._call(endpoint, route, payload, options, stream=False))

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> EmbeddedStream:
        """The same for an answer that is wanted piece by piece."""
        return EmbeddedStream(
            self._drive, self._now, lambda: self._call(endpoint, route, payload, options, stream=True)
        )

    def close(self) -> None:
        """Nothing is kept here."""

    def _call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, options: CallOptions, *, stream: bool
    ) -> Call:
        check_options(options, CallOptions)
        work = self._settings.work(route, payload, options, stream=stream)
        now = self._now()
        deadline = self._settings.deadline(options, now=now)
        return self._settings.call(
            self._settings.route_call(endpoint, options, deadline=deadline), work, options, now=now
        )

    async def _run(self, machine: Machine[T]) -> T:
        driving = self._drive(machine)
        if hasattr(driving, "__next__") or hasattr(driving, "__anext__"):
            try:
                while True:
                    await _next(driving)
            except StopAsyncIteration:
                pass
        else:
            await settled(driving)
        return machine.result()


async def _next(events: Any) -> StreamEvent:
    """The next event of either kind of generator. Raises `StopAsyncIteration` at the end."""
    if hasattr(events, "__anext__"):
        event: StreamEvent = await events.__anext__()
        return event
    try:
        event = next(events)
    except StopIteration:
        raise StopAsyncIteration from None
    return event
