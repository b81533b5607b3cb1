"""What all decoders of streams share: their life, their limits, and lines cut out of bytes. See `vastroute.streams`."""

from __future__ import annotations

from typing import Any, Generic, NoReturn, TypeVar

import attrs

from .errors import (
    Advice,
    CallFailed,
    FailureKind,
    InvalidValue,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
)
from .reading import excerpt

_BOM = b"\xef\xbb\xbf"


def _bytes(_instance: object, attribute: Any, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidValue(f"{attribute.name} must be a whole number of bytes, at least 1")


@attrs.frozen(kw_only=True)
class StreamLimits:
    """The most that one stream can make us hold, in bytes. A stream as a whole has no limit."""

    max_line: int = attrs.field(default=1024 * 1024, validator=_bytes)
    """One line without its end, a JSON line included."""
    max_event: int = attrs.field(default=4 * 1024 * 1024, validator=_bytes)
    """The data of one server-sent event, all its lines together."""


E = TypeVar("E")


class Decoder(Generic[E]):
    """What all decoders share: their life, and nothing about bytes."""

    __slots__ = ("_ended", "_error", "_finished", "_incomplete", "_limits")

    def __init__(self, limits: StreamLimits = StreamLimits()) -> None:
        self._limits = limits
        self._ended = self._finished = self._incomplete = False
        self._error: CallFailed | None = None

    def feed(self, data: bytes) -> list[E]:
        """The events that `data`, the next bytes of the body, completes: often one, often none.

        Raises `LimitReached` for a line or an event beyond the limits, once the events before it are given, and the
        same error at every call after that; `LocalProtocolError` after `end`.
        """
        raise NotImplementedError

    def end(self) -> list[E]:
        """The body is over: the events that only its end completes. Raises as `feed` does."""
        raise NotImplementedError

    @property
    def ended(self) -> bool:
        """Whether `end` was called, and with it whether `incomplete` means something yet."""
        return self._ended

    @property
    def finished(self) -> bool:
        """Whether the stream has said itself that it is done: an event `DONE` came. Other formats have no such word."""
        return self._finished

    @property
    def incomplete(self) -> bool:
        """Whether the body ended in the middle of an event: it was cut, and `rest` is what there is of that event."""
        return self._incomplete

    @property
    def rest(self) -> bytes:
        """What has come of the event that is not finished, for a look at a body that was cut."""
        return b""

    def _refuse(self) -> NoReturn:
        """Say why nothing more can be taken."""
        if self._error is not None:
            raise self._error
        raise LocalProtocolError("the stream is over: it takes no more bytes and no second end")


class LineDecoder(Decoder[E]):
    """What the two formats made of lines share: whole lines are cut off and read, the beginning of one is kept.

    A line ends with LF here. Every byte is looked at and copied a fixed number of times, however small the pieces.
    """

    __slots__ = ("_closed", "_max_line", "_started", "_tail")

    def __init__(self, limits: StreamLimits = StreamLimits()) -> None:
        super().__init__(limits)
        self._max_line = limits.max_line
        self._tail = bytearray()
        self._started = self._closed = False

    def feed(self, data: bytes) -> list[E]:
        if self._closed:
            self._refuse()
        if not self._started:
            data = self._start(data)
        return self._lines(data)

    def _start(self, data: bytes) -> bytes:
        """`data` without the byte order mark that may stand at the very beginning; nothing while that is open."""
        head = bytes(self._tail) + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._tail[:] = head
            return b""
        self._tail.clear()
        self._started = True
        return head.removeprefix(_BOM)

    def _lines(self, data: bytes) -> list[E]:
        """The events that `data` completes; what is behind its last line end is kept."""
        events: list[E] = []
        cut = data.rfind(b"\n") + 1
        tail = self._tail
        try:
            if cut:
                lines = data[:cut]
                if tail:
                    lines = bytes(tail) + lines
                    tail.clear()
                self._read(lines, events)
                data = data[cut:]
            tail += data
            if len(tail) > self._max_line:
                raise self._too_large("max_line", tail)
        except LimitReached as error:
            self._error = error
            self._closed = True
            tail.clear()
            if not events:
                raise
        return events

    def _read(self, lines: bytes, events: list[E]) -> None:
        """Add to `events` what `lines`, one or more whole lines, complete. Raises `LimitReached`."""
        raise NotImplementedError

    def _close(self) -> None:
        if self._closed:
            self._refuse()
        self._closed = self._ended = True

    def _too_large(self, limit: str, piece: bytes | bytearray) -> LimitReached:
        what = "a line" if limit == "max_line" else "an event"
        return LimitReached(
            f"{what} of the stream is longer than the {getattr(self._limits, limit)} bytes allowed",
            phase=Phase.WORKER,
            outcome=Outcome.ANSWERED,
            advice=Advice.RAISE_LIMIT,
            excerpt=excerpt(bytes(piece[: 16 * 1024])),
            kind=FailureKind.TOO_LARGE,
            limit=limit,
        )
