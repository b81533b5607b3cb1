"""Our clients in one shape, so that each test is written once: the blocking one gets a coat of coroutines."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar, Unpack, final

import trio

import vastroute_io.asyncio
import vastroute_io.trio
from vastroute import Answer, SessionEnded, SessionHandle, SessionInfo, SessionLife, StreamEvent
from vastroute_io import blocking
from vastroute_io.options import CallOptions, ClientOptions, SessionOptions, WorkOptions

T = TypeVar("T")
Payload: TypeAlias = Mapping[str, Any]


@final
class PatientClock:
    """The real one. Only tests are forbidden to sleep; a client that pauses before it asks again has to."""

    def __call__(self) -> float:
        """Monotonic seconds."""
        return time.monotonic()

    def sleep_until(self, at: float) -> None:
        """Return when it is `at`."""
        threading.Event().wait(max(0.0, at - time.monotonic()))


@final
class CoatedStream:
    """A blocking stream."""

    def __init__(self, stream: blocking.Stream) -> None:
        self._stream = stream

    @property
    def finished(self) -> bool:
        """See `vastroute_io.blocking.Stream`."""
        return self._stream.finished

    @property
    def request_idx(self) -> int | None:
        """See `vastroute_io.blocking.Stream`."""
        return self._stream.request_idx

    def result(self) -> Answer:
        """See `vastroute_io.blocking.Stream`."""
        return self._stream.result()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        try:
            return next(self._stream)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Self:
        self._stream.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, value, traceback)


@final
class CoatedSession:
    """A blocking session."""

    def __init__(self, session: blocking.Session) -> None:
        self._session = session

    @property
    def life(self) -> SessionLife:
        """See `vastroute_io.blocking.Session`."""
        return self._session.life

    @property
    def handle(self) -> SessionHandle:
        """See `vastroute_io.blocking.Session`."""
        return self._session.handle

    async def call(self, route: str, payload: Payload, **options: Unpack[WorkOptions]) -> Answer:
        """See `vastroute_io.blocking.Session`."""
        return self._session.call(route, payload, **options)

    def stream(self, route: str, payload: Payload, **options: Unpack[WorkOptions]) -> CoatedStream:
        """See `vastroute_io.blocking.Session`."""
        return CoatedStream(self._session.stream(route, payload, **options))

    async def health(self) -> bool:
        """See `vastroute_io.blocking.Session`."""
        return self._session.health()

    async def info(self) -> SessionInfo:
        """See `vastroute_io.blocking.Session`."""
        return self._session.info()

    async def end(self) -> SessionEnded:
        """See `vastroute_io.blocking.Session`."""
        return self._session.end()

    async def __aenter__(self) -> Self:
        self._session.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._session.__exit__(kind, value, traceback)


@final
class CoatedClient:
    """A blocking client."""

    def __init__(self, **options: Unpack[ClientOptions]) -> None:
        self._client = blocking.Client(clock=PatientClock(), **options)

    async def call(self, endpoint: str, route: str, payload: Payload, **options: Unpack[CallOptions]) -> Answer:
        """See `vastroute_io.blocking.Client`."""
        return self._client.call(endpoint, route, payload, **options)

    def stream(self, endpoint: str, route: str, payload: Payload, **options: Unpack[CallOptions]) -> CoatedStream:
        """See `vastroute_io.blocking.Client`."""
        return CoatedStream(self._client.stream(endpoint, route, payload, **options))

    def session(self, endpoint: str, **options: Unpack[SessionOptions]) -> CoatedSession:
        """See `vastroute_io.blocking.Client`."""
        return CoatedSession(self._client.session(endpoint, **options))

    def resume_session(self, handle: SessionHandle) -> CoatedSession:
        """See `vastroute_io.blocking.Client`."""
        return CoatedSession(self._client.resume_session(handle))

    async def __aenter__(self) -> Self:
        self._client.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, value, traceback)


Client: TypeAlias = vastroute_io.trio.Client | vastroute_io.asyncio.Client | CoatedClient
"""Any of them; a test that is cancelled takes trio's."""
CLIENTS: Mapping[str, type[Client]] = {
    "trio": vastroute_io.trio.Client,
    "asyncio": vastroute_io.asyncio.Client,
    "blocking": CoatedClient,
}
LONGEST = 30.0
"""Seconds that a story may take."""


def tell(name: str, options: ClientOptions, story: Callable[[Client], Awaitable[None]]) -> None:
    """Run a story with a client of the kind that `name` says."""

    async def main() -> None:
        async with CLIENTS[name](**options) as client:
            await story(client)

    async def within_trio() -> None:
        with trio.fail_after(LONGEST):
            await main()

    async def within_asyncio() -> None:
        async with asyncio.timeout(LONGEST):
            await main()

    if name == "asyncio":
        asyncio.run(within_asyncio())
    else:
        trio.run(within_trio)


async def apart(work: Callable[[], T]) -> T:
    """Do what blocks in a thread, so that the loop goes on, and with it what the client closes."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return await trio.to_thread.run_sync(work)
    return await asyncio.to_thread(work)
