"""The short way through an answer: the plain head and body that nearly every server sends, read by a few lines.

h11 takes most of a call's time, so it is not asked about what has one reading only. What stands here accepts less than
h11 does, and nothing that h11 would read otherwise; whatever it does not know goes to h11, from its first byte. Tests
compare both ways over every cutting.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import Final, NamedTuple, TypeAlias, final

import attrs

from .errors import FailureKind, InvalidValue
from .exchange import BAD_FRAMING, CLOSED, Event, Reader
from .messages import Headers, ResponseHead
from .urls import Origin

_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*\r\n((?:[A-Za-z][A-Za-z0-9-]*:[ \t]*(?:[!-~](?:[ -~]*[!-~])?)?\r\n)*)\r\n"
)
"""A head that has one reading only; h11's own grammar is wider."""
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_FRAME: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_FRAME_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")
_BODILESS: Final = frozenset({204, 304})


class PlainHead(NamedTuple):
    """A plain head as it was read."""

    data: bytes
    head: ResponseHead
    length: int | None
    """How many bytes of body follow; None for chunks."""
    keeps: bool
    """Whether the server keeps the connection."""


def read_head(data: bytes) -> PlainHead | None:
    """The head that `data` is, to its last byte; None if it is not plain."""
    match = _HEAD.fullmatch(data)
    if match is None:
        return None
    status = int(match[1])
    pairs = []
    for line in match[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        pairs.append((name, value.strip(b" \t")))
    headers = Headers(pairs)
    lengths, codings = headers.get_all("content-length"), headers.get_all("transfer-encoding")
    connection = headers.get_all("connection")
    if (
        status in _BODILESS
        or len(lengths) + len(codings) != 1
        or not (codings == ("chunked",) or (lengths and _LENGTH.fullmatch(lengths[0])))
        or connection not in {(), ("keep-alive",), ("close",)}
    ):
        return None
    length = int(lengths[0]) if lengths else None
    return PlainHead(data, ResponseHead(status=status, headers=headers), length, connection != ("close",))


RequestParts: TypeAlias = tuple[Headers, str, str, Origin, bool]
"""All of a request that its head depends on: headers, method, target, origin, and whether it names a body's length,
but not which."""


@attrs.frozen(repr=False)  # a key is in it
class WrittenHead:
    """A request's head as h11 wrote it."""

    parts: RequestParts
    prefix: bytes
    """Up to the value of ``Content-Length``; all of it if it has none."""
    is_plain: bool
    """Whether a plain answer to it may be read here."""


_LONGEST = 4096
"""Bytes of an answer's head that is worth remembering; a peer could fill the memory with longer ones."""


@final
class HeadMemory:
    """What the connections of one client know of heads, so that a new one need not write and read them all anew.

    Servers and clients repeat themselves, at least for a second. It holds `most` heads of requests, keys among them,
    and as many of answers of at most 4 KiB; then the oldest go. Give it to each `Http1Connection` of a client, and
    use those from one thread at a time. Raises `InvalidValue` if `most` is below 1.
    """

    __slots__ = ("_most", "_read", "_written")

    def __init__(self, *, most: int = 128) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidValue("most must be a whole number of at least 1")
        self._most = most
        self._read: OrderedDict[bytes, PlainHead] = OrderedDict()
        self._written: OrderedDict[RequestParts, WrittenHead] = OrderedDict()

    def read(self, data: bytes) -> PlainHead | None:
        """As `read_head`."""
        known = self._read.get(data)
        if known is None:
            known = read_head(data)
            if known is not None and len(data) <= _LONGEST:
                self._read[data] = known
                if len(self._read) > self._most:
                    self._read.popitem(last=False)
        return known

    def written(self, parts: RequestParts) -> WrittenHead | None:
        """What `keep` was given, if it is still known."""
        return self._written.get(parts)

    def keep(self, head: WrittenHead) -> None:
        """Remember what was written."""
        self._written[head.parts] = head
        if len(self._written) > self._most:
            self._written.popitem(last=False)


@final
class PlainReader(Reader):
    """Reads the body that nearly every server sends, and knows no other."""

    __slots__ = ("_begun", "_body", "_frame", "_in_chunk", "_keeps")

    def __init__(self, known: PlainHead, left: int | None) -> None:
        super().__init__(left)
        self._keeps = known.keeps
        self._body = known.length
        """How many bytes of the body are to come; None for chunks."""
        self._in_chunk = 0
        """How many bytes of a chunk are to come, the line end behind it counted."""
        self._frame = b""
        """The beginning of a chunk's frame."""
        self._begun = False

    def take(self, data: bytes, events: list[Event]) -> bytes | None:
        """Read `data`; ``b""`` means that the peer closed, unless it is all there was behind the head.

        If it is not plain after all, the bytes that h11 has to go on with; else None.
        """
        begun, self._begun = self._begun, True
        if not data and begun:
            self._break(FailureKind.EOF, CLOSED, events)
        elif self._body is None:
            return self._take_chunks(self._frame + data if self._frame else data, events)
        else:
            size = len(data)
            self._give(data if size <= self._body else data[: self._body], events)
            if not self.over:
                self._body -= size
                if self._body <= 0:
                    self._end(events, clean=self._keeps and not self._body)
        return None

    def _take_chunks(self, data: bytes, events: list[Event]) -> bytes | None:
        """Give what the chunks in `data` hold, as one piece."""
        pieces: list[bytes] = []
        at, size = 0, len(data)
        is_broken = is_last = is_clean = False
        unread = None
        self._frame = b""
        while at < size:
            if self._in_chunk > 2:
                piece = data[at : at + self._in_chunk - 2]
                at += len(piece)
                self._in_chunk -= len(piece)
                pieces.append(piece)
            elif self._in_chunk:
                line_end = data[at : at + self._in_chunk]
                if not b"\r\n"[-self._in_chunk :].startswith(line_end):
                    is_broken = True
                    break
                at += len(line_end)
                self._in_chunk -= len(line_end)
            elif (frame := _FRAME.match(data, at)) is None:
                if _FRAME_BEGUN.fullmatch(data, at) is None:
                    unread = data[at:]
                else:
                    self._frame = data[at:]
                break
            elif chunk := int(frame[1], 16):
                at = frame.end()
                stop = at + chunk
                if data.startswith(b"\r\n", stop):  # all of it is here, as nearly always
                    pieces.append(data[at:stop])
                    at = stop + 2
                else:
                    self._in_chunk = chunk + 2
            elif data.startswith(b"\r\n", frame.end()):
                is_last, is_clean = True, self._keeps and size == frame.end() + 2
                break
            else:
                if b"\r\n".startswith(data[frame.end() :]):
                    self._frame = data[at:]
                else:
                    unread = data[at:]
                break
        self._give(b"".join(pieces), events)
        if self.over:  # it was too much
            return None
        if is_broken:
            self._break(FailureKind.GARBAGE, BAD_FRAMING, events)
        elif is_last:
            self._end(events, clean=is_clean)
        return unread
