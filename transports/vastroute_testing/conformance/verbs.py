"""A client under test as scripts use it: asynchronous or blocking, with its own seconds or a script's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypedDict, TypeVar, Unpack, final

import attrs

from vastroute import (
    Answer,
    EndpointInfo,
    Pause,
    PoolLimits,
    PublicKey,
    RetryPolicy,
    RouteResult,
    SessionEnded,
    SessionHandle,
    SessionInfo,
    StreamEvent,
    WorkerInfo,
    WorkPolicy,
)
from vastroute_io.options import CallOptions, RouteOptions, SessionOptions, WorkOptions

if TYPE_CHECKING:
    from .network import Network

T = TypeVar("T")
_TIMES = {
    RetryPolicy: ("total", "ask_limit", "retry_after_cap"),
    WorkPolicy: ("waiting", "connecting", "first_byte", "silence", "working"),
    PoolLimits: ("idle_seconds",),
    Pause: ("first", "cap", "floor"),
}
"""The fields that are seconds, by the class of the limits."""


async def settled(value: Awaitable[T] | T) -> T:
    """What a verb gives, whether it has to be awaited or not."""
    if isawaitable(value):
        return await value
    return value


def shortened(limits: T, speed: float) -> T:
    """`limits` whose seconds are `speed` times as short."""
    changed: dict[str, Any] = {name: getattr(limits, name) / speed for name in _TIMES[type(limits)]}
    if isinstance(limits, RetryPolicy):
        changed |= {name: shortened(getattr(limits, name), speed) for name in ("poll_pause", "retry_pause")}
    evolved: T = attrs.evolve(limits, **changed)  # type: ignore[misc]  # one of those above
    return evolved


@final
class AnyStream:
    """A stream, asynchronous in any case."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        if hasattr(self._stream, "__anext__"):
            event: StreamEvent = await self._stream.__anext__()
            return event
        try:
            event = next(self._stream)
        except StopIteration:
            raise StopAsyncIteration from None
        return event

    async def aclose(self) -> None:
        """Take no more of it."""
        await settled(_of(self._stream, "aclose", "close")())

    async def __aenter__(self) -> Self:
        await settled(_of(self._stream, "__aenter__", "__enter__")())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await settled(_of(self._stream, "__aexit__", "__exit__")(kind, value, traceback))


class LookupOptions(TypedDict, total=False):
    """What the verbs that are no calls take."""

    timeout: float | None


@final
class AnySession:
    """A session, asynchronous in any case."""

    def __init__(self, session: Any, timed: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._session = session
        self._timed = timed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def call(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Answer:
        """Post `payload` to the worker's `route`."""
        answer: Answer = await settled(self._session.call(route, payload, **self._timed(options)))
        return answer

    def stream(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> AnyStream:
        """The same for an answer that is wanted piece by piece."""
        return AnyStream(self._session.stream(route, payload, **self._timed(options)))

    async def health(self, **options: Unpack[LookupOptions]) -> bool:
        """Whether the worker says that the session is alive."""
        alive: bool = await settled(self._session.health(**self._timed(options)))
        return alive

    async def info(self, **options: Unpack[LookupOptions]) -> SessionInfo:
        """What the worker knows of the session."""
        info: SessionInfo = await settled(self._session.info(**self._timed(options)))
        return info

    async def end(self) -> SessionEnded:
        """End the session now."""
        ended: SessionEnded = await settled(self._session.end())
        return ended

    async def __aenter__(self) -> Self:
        await settled(_of(self._session, "__aenter__", "__enter__")())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await settled(_of(self._session, "__aexit__", "__exit__")(kind, value, traceback))


@final
class AnyClient:
    """A client's verbs, asynchronous in any case.

    `speed` is how many of the caller's seconds are one of the client's.
    """

    def __init__(self, client: Any, network: Network | None = None, *, speed: float = 1.0) -> None:
        self.client = client
        """The client itself."""
        self._network = network
        self._speed = speed

    @property
    def network(self) -> Network:
        """The servers that it reaches."""
        assert self._network is not None
        return self._network

    @property
    def pool(self) -> Any:
        """The client's pool, if it has one."""
        return self.client.pool

    async def route(self, endpoint: str, **options: Unpack[RouteOptions]) -> RouteResult:
        """Ask for a worker of `endpoint`."""
        result: RouteResult = await settled(self.client.route(endpoint, **self.timed(options)))
        return result

    async def call(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> Answer:
        """Have a worker of `endpoint` do the work."""
        answer: Answer = await settled(self.client.call(endpoint, route, payload, **self.timed(options)))
        return answer

    def stream(
        self, endpoint: str, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[CallOptions]
    ) -> AnyStream:
        """The same for an answer that is wanted piece by piece."""
        return AnyStream(self.client.stream(endpoint, route, payload, **self.timed(options)))

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> AnySession:
        """A lease on one worker for several requests."""
        return AnySession(self.client.session(endpoint, **self.timed(options)), self.timed)

    def resume_session(self, handle: SessionHandle) -> AnySession:
        """Go on with a session that was made before."""
        return AnySession(self.client.resume_session(handle), self.timed)

    async def endpoints(self, **options: Unpack[LookupOptions]) -> tuple[EndpointInfo, ...]:
        """The account's endpoints."""
        found: tuple[EndpointInfo, ...] = await settled(self.client.endpoints(**self.timed(options)))
        return found

    async def workers(self, endpoint: str, **options: Unpack[LookupOptions]) -> tuple[WorkerInfo, ...]:
        """The workers of `endpoint`."""
        found: tuple[WorkerInfo, ...] = await settled(self.client.workers(endpoint, **self.timed(options)))
        return found

    async def fetch_public_key(self, **options: Unpack[LookupOptions]) -> PublicKey:
        """The engine's public key."""
        key: PublicKey = await settled(self.client.fetch_public_key(**self.timed(options)))
        return key

    async def run(self, machine: Any) -> Any:
        """Drive any machine of the core to its end."""
        return await settled(self.client.run(machine))

    async def aclose(self) -> None:
        """Close what is idle."""
        await settled(_of(self.client, "aclose", "close")())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def timed(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """A verb's options in the client's seconds."""
        given = dict(options)
        if self._speed != 1.0:
            if given.get("timeout") is not None:
                given["timeout"] /= self._speed
            for name in ("policy", "work_policy"):
                if given.get(name) is not None:
                    given[name] = shortened(given[name], self._speed)
        return given


def _of(thing: Any, *names: str) -> Any:
    """The first of these methods that it has."""
    return next(getattr(thing, name) for name in names if hasattr(thing, name))
