"""A lease on one worker: once for every asynchronous library."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack, final

from vastroute import (
    Answer,
    Call,
    CallFailed,
    SessionEnded,
    SessionGone,
    SessionHandle,
    SessionInfo,
    SessionLife,
)

from ..options import WorkOptions, check_options
from ..sessions import END_SECONDS, handle_of, report
from ..views import SessionView
from .drive import Drive
from .links import AsyncLinks
from .stream import AsyncStream


@final
class AsyncSession(SessionView):
    """Several requests to one worker. Made by ``Client.session`` and ``Client.resume_session``.

    Every request adds one whole lifetime to the session, used or not: `life` keeps account. Leaving the block ends the
    session at the worker, also when the block is cancelled: that is the one thing that is waited for then, for at most
    five seconds. A session that the worker no longer knows ends requests with `vastroute.SessionGone`.
    """

    def __init__(
        self,
        links: AsyncLinks,
        *,
        create: Callable[[], Awaitable[Answer]] | None = None,
        handle: SessionHandle | None = None,
        lifetime: float | None = None,
    ) -> None:
        self._links = links
        self._settings = links.settings
        self._library = links.library
        self._create = create
        self._saved = handle
        self._lifetime = lifetime

    async def call(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Answer:
        """Post `payload` to the worker's `route`: the whole answer. Nothing is ever sent to another worker.

        Raises an error under `vastroute.CallFailed`: `vastroute.SessionGone` if the worker knows the session no more.
        """
        call = self._begin(route, payload, options, stream=False)
        number = self.life.request_sent()
        try:
            await Drive(self._links, call).go_on()
            return call.result()
        finally:
            report(self.life, number, call, now=self._library.now())

    def stream(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> AsyncStream:
        """The same for an answer that is wanted piece by piece: ``async with session.stream(...) as events``."""

        async def begin(stream: AsyncStream) -> None:
            call = self._begin(route, payload, options, stream=True)
            number = self.life.request_sent()
            try:
                await stream.start(call)
            finally:
                report(self.life, number, call, now=self._library.now())

        return AsyncStream(self._links, begin)

    async def health(self, *, timeout: float | None = None) -> bool:
        """Whether the worker says that the session is alive. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds.
        """
        now = self._library.now()
        deadline = self._settings.within(timeout, now=now)
        lookup = self._settings.session_health(self.handle, now=now, deadline=deadline)
        await Drive(self._links, lookup).go_on()
        alive = lookup.result()
        if not alive:
            self.life.gone(now=self._library.now())
        return alive

    async def info(self, *, timeout: float | None = None) -> SessionInfo:
        """What the worker knows of the session; `life` goes by it from then on. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds. Raises an error under `vastroute.CallFailed`:
        `vastroute.SessionGone` if the worker knows the session no more.
        """
        now = self._library.now()
        deadline = self._settings.within(timeout, now=now)
        lookup = self._settings.session_get(self.handle, now=now, utc=time.time(), deadline=deadline)
        try:
            await Drive(self._links, lookup).go_on()
            info = lookup.result()
        except SessionGone:
            self.life.gone(now=self._library.now())
            raise
        self.life.told(info, now=self._library.now(), utc=time.time())
        return info

    async def end(self) -> SessionEnded:
        """End the session now. The worker closes the connections of its requests in flight."""
        lookup = self._settings.session_end(self.handle, now=self._library.now(), seconds=END_SECONDS)
        await Drive(self._links, lookup).go_on()
        answer = lookup.result()
        self.life.ended(answer, now=self._library.now())
        return answer

    async def __aenter__(self) -> Self:
        self._check_new()
        handle = self._saved
        if handle is None:
            assert self._create is not None
            handle = handle_of(await self._create(), utc=time.time(), lifetime=self._lifetime)
        self._life = SessionLife(handle, now=self._library.now(), utc=time.time())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._is_ours_to_end:
            return
        # The lease is paid for until it ends, so its end is worth a bounded wait even under cancellation.
        await self._library.within(END_SECONDS, self._end_quietly)

    async def _end_quietly(self) -> None:
        with suppress(CallFailed):  # it ends by itself when its lifetime is over
            await self.end()

    def _begin(self, route: str, payload: Mapping[str, Any] | bytes, options: WorkOptions, *, stream: bool) -> Call:
        check_options(options, WorkOptions)
        work = self._settings.work(route, payload, options, stream=stream)
        return self._settings.call(self.handle, work, options, now=self._library.now())
