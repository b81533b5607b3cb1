"""One HTTP/1.1 connection over bytes: requests in, bytes out; bytes in, heads, pieces and ends out.

The only module that imports h11, which is the judge of what HTTP is. What stands here is what h11 leaves to its user:
limits that do not depend on how the bytes are cut, one request after another, whether the connection may be used
again, and what a peer's breach of the protocol is called. Nothing a peer does raises: it is an event.

One seam is for speed. The answer that nearly every server gives, a plain head with one length or plain chunks, is read
here by a few lines (`_Known`, `_Plain`), because h11 takes most of a call's time. They accept less than h11 does, and
nothing that h11 would read otherwise; whatever they do not know goes to h11, from its first byte. A request's head is
written by h11 once, and kept while only the length of the body changes. Tests compare both ways over every cutting.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias, final

import attrs
import h11

from .errors import FailureKind, InvalidValue, LocalProtocolError, TunnelFailed
from .messages import Headers, HttpRequest, ResponseHead
from .policy import Limits
from .urls import Origin


@attrs.frozen(kw_only=True)
class End:
    """The answer is complete."""


@attrs.frozen(kw_only=True)
class Broken:
    """The exchange is broken, and the connection with it."""

    kind: FailureKind
    """`FailureKind.EOF`, `FailureKind.GARBAGE` or `FailureKind.TOO_LARGE`."""
    detail: str
    """The same for people."""


Event: TypeAlias = ResponseHead | bytes | End | Broken
"""What an answer consists of: one head, pieces of its body, and an end, or a breach in place of what is missing."""

_END: Final = End()
_END_OF_REQUEST: Final = h11.EndOfMessage()
_NOT_TO_SAY: Final = frozenset({"host", "content-length", "transfer-encoding", "upgrade"})
"""What says how long a request is, where it goes, or that the bytes after it are no HTTP: ours alone to say."""
_Parts: TypeAlias = tuple[Headers, str, str, Origin]

_HEAD: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*\r\n((?:[A-Za-z][A-Za-z0-9-]*:[ \t]*(?:[!-~](?:[ -~]*[!-~])?)?\r\n)*)\r\n"
)
"""A head that has one reading only; h11's own grammar is wider."""
_LENGTH: Final = re.compile(r"[0-9]{1,15}")
_FRAME: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_FRAME_BEGUN: Final = re.compile(rb"[0-9A-Fa-f]{1,8}\r?")
_BODILESS: Final = frozenset({204, 304})
_CLOSED: Final = "closed before the end of the answer"
_BAD_HEAD: Final = "the head is not HTTP"
_BAD_FRAMING: Final = "the framing of the body is not HTTP"


@final
class Http1Connection:
    """One keep-alive connection, from its first byte to its last; one exchange at a time.

    Write what `send` returns, then give what you read to `receive` until an `End` or a `Broken` comes. Then use it
    again if it is `reusable`, else close it.
    """

    __slots__ = (
        "_awaiting",
        "_known",
        "_limit_body",
        "_limits",
        "_made",
        "_may_be_plain",
        "_prefix",
        "_reader",
        "_request",
        "_reusable",
    )

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        self._reusable = True
        self._awaiting = False
        self._limit_body = True
        self._request: HttpRequest
        self._reader: _Plain | _H11 | None = None
        self._made: _Parts | None = None
        self._prefix = b""
        self._may_be_plain = False
        self._known = _Known()

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last exchange is complete, and the peer keeps the connection."""
        return self._reusable and not self._awaiting

    def send(self, request: HttpRequest, *, limit_body: bool = True) -> bytes:
        """The bytes of `request`, with ``Host`` and ``Content-Length`` added.

        Without `limit_body` the answer's body may have any length: whoever gets its pieces counts them, as the machines
        do. Raises `LocalProtocolError` if the connection cannot take a request now, and `InvalidValue` if the request
        holds what HTTP cannot carry; nothing changes.
        """
        if not self.reusable:
            raise LocalProtocolError("the connection takes no request: an exchange is under way, or it is to be closed")
        parts = (request.headers, request.method, request.target, request.origin)
        if parts != self._made:
            self._prefix = _prefix_of(request)
            self._may_be_plain = request.method != "HEAD" and request.headers.get("connection") is None
            self._made = parts
        self._request = request
        self._limit_body = limit_body
        self._awaiting = True
        self._reader = None
        if not _has_length(request):
            return self._prefix
        return b"%b%d\r\n\r\n%b" % (self._prefix, len(request.body), request.body)

    def receive(self, data: bytes) -> list[Event]:
        """What `data` says; ``b""`` means that the peer closed. The events are the same however the bytes are cut.

        Raises `LocalProtocolError` if no answer is awaited.
        """
        if not self._awaiting:
            raise LocalProtocolError("no answer is awaited on this connection")
        events: list[Event] = []
        reader = self._reader
        if reader is None:
            reader, data = self._begin(data, events)
        if type(reader) is _Plain and (unread := reader.take(data, events)) is not None:
            # From here on it is not plain: h11 begins anew with the head, and goes on with what was not read.
            reader = self._judge(reader.left)
            reader.take(self._known.data, [])
            data = unread
        if type(reader) is _H11:
            reader.take(data, events)
        self._reader = reader
        if reader.over:
            self._awaiting = False
            self._reusable = reader.clean
            self._reader = None
        return events

    def _begin(self, data: bytes, events: list[Event]) -> tuple[_Plain | _H11, bytes]:
        """A reader for the answer that begins with `data`, and what of it is to be read."""
        left = self._limits.max_body if self._limit_body else None
        end = data.find(b"\r\n\r\n") + 4
        if 3 < end <= self._limits.max_head and self._may_be_plain:
            head = self._known.read(data[:end], self._limits)
            if head is not None:
                events.append(head)
                return _Plain(self._known, left), data[end:]
        return self._judge(left), data

    def _judge(self, left: int | None) -> _H11:
        return _H11(self._request, self._limits, left)


def _has_length(request: HttpRequest) -> bool:
    return bool(request.body) or request.method not in {"GET", "HEAD"}


def _prefix_of(request: HttpRequest) -> bytes:
    """The head of `request` as h11 writes it, up to the value of its ``Content-Length``; whole if it has none."""
    data = _start(h11.Connection(h11.CLIENT), request, 0)
    return data.removesuffix(b"0\r\n\r\n") if _has_length(request) else data


def _start(wire: h11.Connection, request: HttpRequest, size: int) -> bytes:
    """Have `wire` write the head of `request`, whose body has `size` bytes. Raises `InvalidValue`."""
    if request.method == "CONNECT" or not _NOT_TO_SAY.isdisjoint(name for name, _ in request.headers):
        raise InvalidValue(f"a request is no CONNECT and has no header of these: {', '.join(sorted(_NOT_TO_SAY))}")
    headers = [("host", request.origin.authority), *request.headers]
    if _has_length(request):
        headers.append(("content-length", str(size)))
    try:
        data = wire.send(h11.Request(method=request.method, target=request.target, headers=headers))
    except (h11.LocalProtocolError, UnicodeEncodeError) as error:
        raise InvalidValue(f"the request cannot be written as HTTP: {type(error).__name__}") from None
    assert data is not None
    return data


class _Reader:
    """One answer on its way: what the two readers share."""

    __slots__ = ("clean", "left", "over")

    def __init__(self, left: int | None) -> None:
        self.left = left
        """How many bytes of body may still come; None for any number."""
        self.over = False
        self.clean = False
        """Whether the connection may be used again, once it is over."""

    def _give(self, data: bytes, events: list[Event]) -> None:
        if self.left is not None:
            data, excess = data[: self.left], len(data) > self.left
            self.left -= len(data)
            if data:
                events.append(data)
            if excess:
                self._break(FailureKind.TOO_LARGE, "the body is larger than allowed", events)
        else:
            events.append(data)

    def _break(self, kind: FailureKind, detail: str, events: list[Event]) -> None:
        self.over = True
        self.clean = False
        events.append(Broken(kind=kind, detail=detail))

    def _end(self, events: list[Event], *, clean: bool) -> None:
        self.over = True
        # Bytes that nobody asked for: what they would be taken for is not ours to guess.
        self.clean = clean
        events.append(_END)


class _Known:
    """The last plain head that a connection has read: a server repeats itself, at least for a second."""

    __slots__ = ("chunked", "data", "head", "keeps", "length")

    def __init__(self) -> None:
        self.data = b""
        self.head: ResponseHead | None = None
        self.keeps = True
        self.length: int | None = None

    def read(self, data: bytes, limits: Limits) -> ResponseHead | None:
        """The head that `data` is, to its last byte; None if it is not plain."""
        if data == self.data:
            return self.head
        match = _HEAD.fullmatch(data)
        if match is None:
            return None
        status = int(match[1])
        lines = match[2].split(b"\r\n")
        pairs = []
        for line in lines[:-1]:
            name, _, value = line.partition(b":")
            pairs.append((name, value.strip(b" \t")))
        head = ResponseHead(status=status, headers=Headers(pairs))
        lengths, codings = head.headers.get_all("content-length"), head.headers.get_all("transfer-encoding")
        connection = head.headers.get_all("connection")
        if (
            len(pairs) > limits.max_headers
            or status in _BODILESS
            or len(lengths) + len(codings) != 1
            or not (codings == ("chunked",) or (lengths and _LENGTH.fullmatch(lengths[0])))
            or connection not in {(), ("keep-alive",), ("close",)}
        ):
            return None
        self.data = data
        self.head = head
        self.keeps = connection != ("close",)
        self.length = int(lengths[0]) if lengths else None
        return head


@final
class _Plain(_Reader):
    """Reads the body that nearly every server sends, and knows no other."""

    __slots__ = ("_begun", "_body", "_frame", "_in_chunk", "_keeps")

    def __init__(self, known: _Known, left: int | None) -> None:
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
            self._break(FailureKind.EOF, _CLOSED, events)
        elif self._body is None:
            return self._take_chunks(self._frame + data if self._frame else data, events)
        else:
            size = len(data)
            if size:
                self._give(data if size <= self._body else data[: self._body], events)
            if not self.over:
                self._body -= size
                if self._body <= 0:
                    self._end(events, clean=self._keeps and not self._body)
        return None

    def _take_chunks(self, data: bytes, events: list[Event]) -> bytes | None:
        at, size = 0, len(data)
        self._frame = b""
        while at < size and not self.over:
            if self._in_chunk > 2:
                piece = data[at : at + self._in_chunk - 2]
                at += len(piece)
                self._in_chunk -= len(piece)
                self._give(piece, events)
            elif self._in_chunk:
                line_end = data[at : at + self._in_chunk]
                if not b"\r\n"[-self._in_chunk :].startswith(line_end):
                    self._break(FailureKind.GARBAGE, _BAD_FRAMING, events)
                at += len(line_end)
                self._in_chunk -= len(line_end)
            elif (frame := _FRAME.match(data, at)) is None:
                if _FRAME_BEGUN.fullmatch(data, at) is None:
                    return data[at:]
                self._frame = data[at:]
                break
            elif chunk := int(frame[1], 16):
                at = frame.end()
                self._in_chunk = chunk + 2
            elif data.startswith(b"\r\n", frame.end()):
                self._end(events, clean=self._keeps and size == frame.end() + 2)
            elif size - frame.end() < 2 and b"\r\n".startswith(data[frame.end() :]):
                self._frame = data[at:]
                break
            else:
                return data[at:]
        return None


@final
class _H11(_Reader):
    """Reads every answer there is, with h11."""

    __slots__ = ("_chunked", "_framed_twice", "_in_head", "_informational", "_limits", "_wire")

    def __init__(self, request: HttpRequest, limits: Limits, left: int | None) -> None:
        super().__init__(left)
        self._limits = limits
        # h11 objects when this much of a head or of a chunk's frame has come without an end, so one byte less than is
        # allowed; `_room` sees to it that it never looks later than that.
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.max_head - 1)
        _start(self._wire, request, len(request.body))
        if request.body:
            self._wire.send(h11.Data(data=request.body))
        self._wire.send(_END_OF_REQUEST)
        self._in_head = True
        self._chunked = self._framed_twice = False
        self._informational = 0

    def take(self, data: bytes, events: list[Event]) -> None:
        """Read `data`; ``b""`` means that the peer closed."""
        if not data:
            self._read(b"", events)
            self.clean = False  # an answer that names no length ends with its connection
            return
        start = 0
        while start < len(data):
            if self.over:
                self.clean = False
                return
            room = self._room(len(data))
            piece = data if start == 0 and room >= len(data) else data[start : start + room]
            start += len(piece)
            self._read(piece, events)

    def _room(self, most: int) -> int:
        """How many bytes h11 may see before it is asked again, so that it objects to the same byte every time."""
        if self._in_head or self._chunked:
            return self._limits.max_head - len(self._wire.trailing_data[0])
        return most

    def _read(self, piece: bytes, events: list[Event]) -> None:
        wire = self._wire
        try:
            wire.receive_data(piece)
            while not self.over:
                event = wire.next_event()
                kind = type(event)
                if kind is h11.Data:
                    self._give(bytes(event.data), events)  # type: ignore[union-attr]
                elif kind is h11.Response:
                    self._take_head(event, events)  # type: ignore[arg-type]
                elif kind is h11.EndOfMessage:
                    keeps = wire.our_state is h11.DONE and wire.their_state is h11.DONE
                    self._end(events, clean=keeps and not self._framed_twice and not wire.trailing_data[0])
                elif kind is h11.InformationalResponse:
                    self._informational += 1
                    if self._informational > self._limits.max_informational:
                        self._break(FailureKind.TOO_LARGE, "too many 1xx answers before the real one", events)
                else:
                    return
        except h11.RemoteProtocolError as error:
            if not piece:
                self._break(FailureKind.EOF, _CLOSED, events)
            elif error.error_status_hint == 431:
                limit = self._limits.max_head
                self._break(FailureKind.TOO_LARGE, f"a head or a chunk's frame of more than {limit} bytes", events)
            else:
                # h11's own words depend on how the bytes were cut, and quote them.
                self._break(FailureKind.GARBAGE, _BAD_HEAD if self._in_head else _BAD_FRAMING, events)

    def _take_head(self, event: h11.Response, events: list[Event]) -> None:
        self._in_head = False
        if len(event.headers) > self._limits.max_headers:
            self._break(FailureKind.TOO_LARGE, f"more than {self._limits.max_headers} headers", events)
            return
        head = ResponseHead(status=event.status_code, headers=Headers(event.headers))
        self._chunked = head.headers.get("transfer-encoding") is not None
        # Chunks win, but it may be an attempt to split answers (RFC 9112, section 6.3): the next one is not trusted.
        self._framed_twice = self._chunked and head.headers.get("content-length") is not None
        events.append(head)


@final
class ConnectTunnel:
    """Asks an HTTP proxy to connect us to `origin`: write `send`'s bytes, give what you read to `receive`.

    `authorization` is the value of ``Proxy-Authorization``. Source: RFC 9110, section 9.3.6.
    """

    __slots__ = ("_authorization", "_h11", "_left", "_origin")

    def __init__(self, origin: Origin, *, authorization: str | None = None, limits: Limits = Limits()) -> None:
        self._origin = origin
        self._authorization = authorization
        self._left = limits.max_head
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.max_head)

    def send(self) -> bytes:
        """The bytes of the CONNECT request."""
        host = f"[{self._origin.host}]" if ":" in self._origin.host else self._origin.host
        target = f"{host}:{self._origin.port}"
        headers = [("host", target)]
        if self._authorization is not None:
            headers.append(("proxy-authorization", self._authorization))
        data = self._h11.send(h11.Request(method="CONNECT", target=target, headers=headers))
        assert data is not None
        return data + (self._h11.send(_END_OF_REQUEST) or b"")

    def receive(self, data: bytes) -> bool:
        """True once the tunnel is open: from then on the bytes are the origin's. ``b""`` means that the proxy closed.

        Raises `TunnelFailed` if the proxy refuses, breaks HTTP or says more than it should.
        """
        if not data:
            raise TunnelFailed("the proxy closed the connection")
        # Not more than it may be, so that a refusal is read as one, however much of its page comes with it.
        room = self._left
        self._left -= len(data)
        try:
            self._h11.receive_data(data[:room])
            event = self._h11.next_event()
            while isinstance(event, h11.InformationalResponse):
                event = self._h11.next_event()
        except h11.RemoteProtocolError:
            raise TunnelFailed("the proxy does not speak HTTP") from None
        if isinstance(event, h11.Response):
            if not 200 <= event.status_code < 300:
                raise TunnelFailed(f"the proxy answered {event.status_code}", status=event.status_code)
            if self._h11.trailing_data[0] or self._left < 0:
                raise TunnelFailed("the proxy sent bytes of its own into the tunnel")
            return True
        if self._left <= 0:
            raise TunnelFailed("the proxy's answer is too long")
        return False
