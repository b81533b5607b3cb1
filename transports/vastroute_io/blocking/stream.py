"""An answer piece by piece."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self, final

from vastroute import Answer, Call, StreamEvent

from ..settings import Settings
from ..views import StreamView
from .drive import Drive
from .links import Links


@final
class Stream(StreamView):
    """The events of a streamed answer, as they come. Made by ``Client.stream`` and ``Session.stream``.

    Entering the block asks for a worker, sends the work and waits for the head of the answer; failures until then are
    raised there. In the block it is an iterator of `vastroute.ServerSentEvent`, `vastroute.JsonLine` or
    bytes, by the answer's content type. Nothing is read ahead of you. The iteration ends where the stream says that it
    ends; a stream that was cut raises a `vastroute.CallFailed` instead, after its last event. Leaving the block early
    closes the connection. The official worker takes note at once, but lets its model finish a stream.
    """

    def __init__(self, links: Links, settings: Settings, begin: Callable[[Stream], None]) -> None:
        self._links = links
        self._clock = links.clock
        self._settings = settings
        self._begin = begin
        self._drive: Drive[Answer] | None = None

    def start(self, call: Call) -> None:
        """Drive `call` until the head of its stream is here. For clients."""
        self._call = call
        self._drive = Drive(self._links, self._settings, call)
        try:
            while call.stream_head is None and self._drive.step():
                pass
            if call.stream_head is None:
                call.result()
        except BaseException:
            self._drive.end()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEvent:
        call, drive = self._begun, self._drive
        assert drive is not None
        while (event := call.next_event(now=self._clock())) is None:
            if not drive.step():
                call.result()
                raise StopIteration
        return event

    def close(self) -> None:
        """Take no more of it: the connection is closed unless the answer was complete."""
        if self._drive is not None:
            self._drive.end()

    def __enter__(self) -> Self:
        self._check_new()
        self._begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
