"""Both of our clients in one shape, so that each test is written once: the blocking one gets a coat of coroutines."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias, Unpack, final

from vastroute import Answer, SessionEnded, SessionHandle, SessionInfo, SessionLife, StreamEvent
from vastroute_io import blocking, trio
from vastroute_io.options import CallOptions, ClientOptions, SessionOptions, WorkOptions

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


Client: TypeAlias = trio.Client | CoatedClient
"""Either of them; a test that is cancelled needs trio's, since only that one can be."""
CLIENTS: tuple[type[Client], ...] = (trio.Client, CoatedClient)
