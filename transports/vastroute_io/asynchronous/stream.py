"""An answer piece by piece: once for every asynchronous library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, final

from vastroute import Call, StreamEvent

from ..views import StreamView
from .drive import Drive
from .links import AsyncLinks


@final
class AsyncStream(StreamView):
    """The events of a streamed answer, as they come. Made by ``Client.stream`` and ``Session.stream``.

    Entering the block asks for a worker, sends the work and waits for the head of the answer; failures until then are
    raised there. In the block it is an asynchronous iterator of `vastroute.ServerSentEvent`, `vastroute.JsonLine` or
    bytes, by the answer's content type. Nothing is read ahead of you. The iteration ends where the stream says that it
    ends; a stream that was cut raises a `vastroute.CallFailed` instead, after its last event. Leaving the block early
    closes the connection. The official worker takes note at once, but lets its model finish a stream.
    """

    def __init__(self, links: AsyncLinks, begin: Callable[[AsyncStream], Awaitable[None]]) -> None:
        self._links = links
        self._begin = begin
        self._drive: Drive | None = None

    async def start(self, call: Call) -> None:
        """Drive `call` until the head of its stream is here. For clients."""
        self._call = call
        self._drive = Drive(self._links, call)
        try:
            while call.stream_head is None and await self._drive.go_on(once=True):
                pass
            if call.stream_head is None:
                call.result()
        except BaseException:
            await self._drive.end()
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        call, drive = self._begun, self._drive
        assert drive is not None
        while (event := call.next_event(now=self._links.library.now())) is None:
            if not await drive.go_on(once=True):
                call.result()
                raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """Take no more of it: the connection is closed unless the answer was complete."""
        if self._drive is not None:
            await self._drive.end()

    async def __aenter__(self) -> Self:
        self._check_new()
        await self._begin(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
