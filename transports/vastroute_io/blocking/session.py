"""A lease on one worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
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
from ..settings import Settings
from ..views import SessionView
from .drive import Drive
from .links import Links
from .stream import Stream


@final
class Session(SessionView):
    """Several requests to one worker. Made by ``Client.session`` and ``Client.resume_session``.

    Every request adds one whole lifetime to the session, used or not: `life` keeps account. Leaving the block ends the
    session at the worker, also when it is left by an error; that is waited for, for at most five seconds. A session
    that the worker no longer knows ends requests with `vastroute.SessionGone`.
    """

    def __init__(
        self,
        links: Links,
        settings: Settings,
        *,
        create: Callable[[], Answer] | None = None,
        handle: SessionHandle | None = None,
        lifetime: float | None = None,
    ) -> None:
        self._links = links
        self._clock = links.clock
        self._settings = settings
        self._create = create
        self._saved = handle
        self._lifetime = lifetime

    def call(self, route: str, payload: Mapping[str, Any] | bytes, **options: Unpack[WorkOptions]) -> Answer:
        """Post `payload` to the worker's `route`: the whole answer. Nothing is ever sent to another worker.

        Raises an error under `vastroute.CallFailed`: `vastroute.SessionGone` if the worker knows the session no more.
        """
        call = self._begin(route, payload, options, stream=False)
        number = self.life.request_sent()
        try:
            return Drive(self._links, self._settings, call).run()
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

        return Stream(self._links, self._settings, begin)

    def health(self, *, timeout: float | None = None) -> bool:
        """Whether the worker says that the session is alive. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds.
        """
        now = self._clock()
        deadline = self._settings.within(timeout, now=now)
        lookup = self._settings.session_health(self.handle, now=now, deadline=deadline)
        alive = Drive(self._links, self._settings, lookup).run()
        if not alive:
            self.life.gone(now=self._clock())
        return alive

    def info(self, *, timeout: float | None = None) -> SessionInfo:
        """What the worker knows of the session; `life` goes by it from then on. It adds nothing to its lifetime.

        `timeout` is in seconds; without it the policy's ``total`` holds. Raises an error under `vastroute.CallFailed`:
        `vastroute.SessionGone` if the worker knows the session no more.
        """
        now = self._clock()
        deadline = self._settings.within(timeout, now=now)
        lookup = self._settings.session_get(self.handle, now=now, utc=time.time(), deadline=deadline)
        try:
            info = Drive(self._links, self._settings, lookup).run()
        except SessionGone:
            self.life.gone(now=self._clock())
            raise
        self.life.told(info, now=self._clock(), utc=time.time())
        return info

    def end(self) -> SessionEnded:
        """End the session now. The worker closes the connections of its requests in flight."""
        lookup = self._settings.session_end(self.handle, now=self._clock(), seconds=END_SECONDS)
        answer = Drive(self._links, self._settings, lookup).run()
        self.life.ended(answer, now=self._clock())
        return answer

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
