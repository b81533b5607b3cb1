"""Streamed answers: bytes in, events out. Server-sent events, JSON Lines, or the bytes as they come.

All decoders have one shape. `feed` takes the next piece of a body, cut anywhere, and gives the events that it
completes; `end` says that the body is over and gives what only the end completes. The events are the same however the
bytes are cut. Between two calls nothing is kept but the unfinished rest, which `StreamLimits` bounds; nothing runs
ahead of the caller, so whoever stops feeding has all the back-pressure there is.

No event is lost without a word. What is not JSON comes out as it is, and only its ``json()`` raises. Events before a
line that is too long are given first: the error then comes from the next call. A body that stops in the middle of an
event is `incomplete`; whether an event stream said itself that it was done is `finished`. Neither is an error here,
because only the caller knows whether its worker ends its streams with a word.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias, final

import attrs

from .decoders import Decoder, LineDecoder, StreamLimits
from .errors import (
    Advice,
    Outcome,
    Phase,
    UnexpectedAnswer,
)
from .reading import excerpt

DONE = "[DONE]"
"""The data of the event with which OpenAI-style servers end a stream."""

_MOST_DIGITS = 15


@attrs.frozen(kw_only=True)
class ServerSentEvent:
    """One event of an event stream."""

    data: str
    """The data lines, joined by line feeds."""
    event: str = "message"
    """The event's name; the default is the standard's for an event without one."""
    id: str = ""
    """The last id that the stream has given, in this event or before."""
    retry: int | None = None
    """Milliseconds, if the stream has set its reconnection time since the last event."""

    @property
    def done(self) -> bool:
        """Whether this is the word with which OpenAI-style servers end a stream: it carries nothing else."""
        return self.data == DONE

    def json(self) -> Any:
        """The data as a JSON value. Raises `UnexpectedAnswer`, which has all of it as ``body``, if it is none."""
        return _value(self.data)


@attrs.frozen(kw_only=True)
class JsonLine:
    """One line that is not empty, of a body in JSON Lines."""

    text: str
    """The line as it came, without its end. Nobody has looked yet whether it is JSON."""

    def json(self) -> Any:
        """The line as a JSON value. Raises `UnexpectedAnswer`, which has all of it as ``body``, if it is none."""
        return _value(self.text)


@final
class EventStream(LineDecoder[ServerSentEvent]):
    """Server-sent events, by the WHATWG's HTML standard, section 9.2.6.

    Lines end with CR, LF or CRLF, mixed as they like. Invalid UTF-8 becomes replacement characters. A block without
    data is no event, and comments are none. An event whose blank line never came is dropped at the end, as the
    standard wants it, and `incomplete` tells. An event is given as soon as the line end behind it is here, be it the
    CR of a CRLF.
    """

    __slots__ = ("_after_cr", "_data", "_event", "_id", "_in_event", "_retry", "_safe")

    def __init__(self, limits: StreamLimits = StreamLimits()) -> None:
        super().__init__(limits)
        self._safe = min(limits.max_line, limits.max_event)
        self._after_cr = self._in_event = False
        self._data = bytearray()
        self._event = self._id = ""
        self._retry: int | None = None

    def _lines(self, data: bytes) -> list[ServerSentEvent]:
        # From here on every line ends with LF. The LF of a CRLF may come with the next piece.
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return super()._lines(data)

    def end(self) -> list[ServerSentEvent]:
        self._close()
        self._incomplete = bool(self._tail) or self._in_event
        return []

    @property
    def rest(self) -> bytes:
        """What has come of the event that is not finished: its data so far, and the line that was begun."""
        return bytes(self._data + self._tail)

    def _read(self, lines: bytes, events: list[ServerSentEvent]) -> None:
        blocks = lines.split(b"\n\n")
        last = blocks.pop()
        # Most blocks are one data line. They go the short way if none can be too large, none can be the last word, and
        # nothing is left from before.
        plain = b"[DONE]" not in lines and (len(lines) <= self._safe or max(map(len, blocks), default=0) <= self._safe)
        short = plain and not self._in_event and self._retry is None
        last_id, add = self._id, events.append
        for block in blocks:
            if short and block.startswith(b"data:") and b"\n" not in block:
                value = block[6:] if block.startswith(b"data: ") else block[5:]
                add(ServerSentEvent(data=value.decode("utf-8", "replace"), id=last_id))
                continue
            for line in block.split(b"\n"):
                self._line(line, events)
            self._dispatch(events)
            short, last_id = plain and self._retry is None, self._id
        if last:
            for line in last[:-1].split(b"\n"):
                self._line(line, events)

    def _line(self, line: bytes, events: list[ServerSentEvent]) -> None:
        """Take one line, as the standard interprets it."""
        if not line:
            self._dispatch(events)
            return
        if len(line) > self._max_line:
            raise self._too_large("max_line", line)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if len(self._data) + len(value) > self._limits.max_event:
                raise self._too_large("max_event", self._data + value)
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry":
            if value.isdigit() and len(value) <= _MOST_DIGITS:
                self._retry = int(value)
        else:
            return  # a comment, or a field that is not known
        self._in_event = True

    def _dispatch(self, events: list[ServerSentEvent]) -> None:
        """A blank line: the event, if there is data for one."""
        if self._data:
            data = self._data[:-1].decode("utf-8", "replace")
            events.append(ServerSentEvent(data=data, event=self._event or "message", id=self._id, retry=self._retry))
            self._finished = self._finished or data == DONE
            self._data.clear()
            self._retry = None
        self._event = ""
        self._in_event = False


@final
class JsonLines(LineDecoder[JsonLine]):
    """JSON Lines, also called newline-delimited JSON: one value on each line.

    Lines end with LF or CRLF; empty ones are skipped; invalid UTF-8 becomes replacement characters. A last line without
    an end counts, since many servers leave it out. `incomplete` then tells whether it is no JSON value; a number that
    was cut is still a number, so only the connection's own end can vouch for that.
    """

    __slots__ = ()

    def end(self) -> list[JsonLine]:
        self._close()
        events: list[JsonLine] = []
        if self._tail:
            self._read(bytes(self._tail) + b"\n", events)
        for event in events:
            try:
                event.json()
            except UnexpectedAnswer:
                self._incomplete = True
        return events

    @property
    def rest(self) -> bytes:
        """What has come of the last line."""
        return bytes(self._tail)

    def _read(self, lines: bytes, events: list[JsonLine]) -> None:
        small = len(lines) <= self._max_line
        for line in lines.split(b"\n"):
            if not small and len(line) > self._max_line:
                raise self._too_large("max_line", line)
            if line.strip():
                events.append(JsonLine(text=line.removesuffix(b"\r").decode("utf-8", "replace")))


@final
class RawChunks(Decoder[bytes]):
    """The body in the pieces in which it came, for every format that is not known here."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[bytes]:
        if self._ended:
            self._refuse()
        return [data] if data else []

    def end(self) -> list[bytes]:
        if self._ended:
            self._refuse()
        self._ended = True
        return []


StreamDecoder: TypeAlias = EventStream | JsonLines | RawChunks
"""Any of the decoders."""
StreamEvent: TypeAlias = ServerSentEvent | JsonLine | bytes
"""What a decoder gives."""

CONTENT_TYPES: Mapping[str, type[EventStream | JsonLines]] = {
    "text/event-stream": EventStream,
    "application/x-ndjson": JsonLines,
    "application/ndjson": JsonLines,
    "application/jsonl": JsonLines,
    "application/x-jsonlines": JsonLines,
    "application/json-lines": JsonLines,
}
"""The content types of streams. JSON Lines has no registered one; these are in use."""


def stream_decoder(content_type: str | None, limits: StreamLimits = StreamLimits()) -> StreamDecoder:
    """The decoder for a body with this ``Content-Type``, parameters and all: `RawChunks` if it is none of the known."""
    name = (content_type or "").partition(";")[0].strip().lower()
    return CONTENT_TYPES.get(name, RawChunks)(limits)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        error = UnexpectedAnswer(
            "a piece of the stream is not JSON",
            phase=Phase.WORKER,
            outcome=Outcome.ANSWERED,
            advice=Advice.CHECK_ANSWER,
            excerpt=excerpt(text),
        )
        error.body = text.encode("utf-8", "replace")
        raise error from None
