"""One HTTP/1.1 connection over bytes: requests in, bytes out; bytes in, heads, pieces and ends out.

The only module that imports h11, which is the judge of what HTTP is. What stands here is what h11 leaves to its user:
limits that do not depend on how the bytes are cut, one request after another, whether the connection may be used
again, and what a peer's breach of the protocol is called. Nothing a peer does raises: it is an event.

Two things are for speed. The answer that nearly every server gives is read by `vastroute.plain`, and only what that
does not know by h11. A request's head is written by h11 once, and kept while only the length of the body changes.
"""

from __future__ import annotations

from typing import Final, final

import h11

from .errors import FailureKind, InvalidValue, LocalProtocolError, TunnelFailed
from .exchange import BAD_FRAMING, CLOSED, END, Event, Reader
from .messages import Headers, HttpRequest, ResponseHead
from .plain import HeadMemory, PlainHead, PlainReader, RequestParts, WrittenHead, read_head
from .policy import Limits
from .urls import Origin

_END_OF_REQUEST: Final = h11.EndOfMessage()
_NOT_TO_SAY: Final = frozenset({"host", "content-length", "transfer-encoding", "upgrade"})
"""What says how long a request is, where it goes, or that the bytes after it are no HTTP: ours alone to say."""
_BAD_HEAD: Final = "the head is not HTTP"


@final
class Http1Connection:
    """One keep-alive connection, from its first byte to its last; one exchange at a time.

    Write what `send` returns, then give what you read to `receive` until an `End` or a `Broken` comes. Then use it
    again if it is `reusable`, else close it. `heads` is what a client's connections share to be quicker.
    """

    __slots__ = (
        "_awaiting",
        "_heads",
        "_known",
        "_limit_body",
        "_limits",
        "_reader",
        "_request",
        "_reusable",
        "_written",
    )

    def __init__(self, limits: Limits = Limits(), *, heads: HeadMemory | None = None) -> None:
        self._limits = limits
        self._heads = heads
        self._reusable = True
        self._awaiting = False
        self._limit_body = True
        self._request: HttpRequest
        self._reader: PlainReader | _H11 | None = None
        self._written: WrittenHead | None = None
        self._known: PlainHead | None = None
        """The last plain head that came: a server repeats itself, at least for a second."""

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
        if self._awaiting or not self._reusable:
            raise LocalProtocolError("the connection takes no request: an exchange is under way, or it is to be closed")
        has_length = _has_length(request)
        parts = (request.headers, request.method, request.target, request.origin, has_length)
        written = self._written
        if written is None or parts != written.parts:
            written = self._written = self._write(request, parts)
        self._request = request
        self._limit_body = limit_body
        self._awaiting = True
        self._reader = None
        if not has_length:
            return written.prefix
        return b"%b%d\r\n\r\n%b" % (written.prefix, len(request.body), request.body)

    def _write(self, request: HttpRequest, parts: RequestParts) -> WrittenHead:
        written = None if self._heads is None else self._heads.written(parts)
        if written is None:
            is_plain = request.method != "HEAD" and request.headers.get("connection") is None
            written = WrittenHead(parts=parts, prefix=_prefix_of(request), is_plain=is_plain)
            if self._heads is not None:
                self._heads.keep(written)
        return written

    def receive(self, data: bytes) -> list[Event]:
        """What `data` says; ``b""`` means that the peer closed. The events are the same however the bytes are cut.

        Raises `LocalProtocolError` if no answer is awaited.
        """
        if not self._awaiting:
            raise LocalProtocolError("no answer is awaited on this connection")
        events: list[Event] = []
        reader = self._reader
        if reader is None:
            left = self._limits.max_body if self._limit_body else None
            known = self._plain_head(data)
            if known is None:
                reader = self._judge(left)
            else:
                data = data[len(known.data) :]
                if data and len(data) == known.length and (left is None or known.length <= left):
                    # The whole answer at once, as nearly always.
                    self._awaiting = False
                    self._reusable = known.keeps
                    return [known.head, data, END]
                events.append(known.head)
                reader = PlainReader(known, left)
        if type(reader) is PlainReader and (unread := reader.take(data, events)) is not None:
            # From here on it is not plain: h11 begins anew with the head, and goes on with what was not read.
            assert self._known is not None
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

    def _plain_head(self, data: bytes) -> PlainHead | None:
        """The head that `data` begins with, if all of it is here and it is plain."""
        assert self._written is not None
        if not self._written.is_plain:
            return None
        known = self._known
        if known is None or not data.startswith(known.data):
            end = data.find(b"\r\n\r\n") + 4
            if not 3 < end <= self._limits.max_head:
                return None
            known = (read_head if self._heads is None else self._heads.read)(data[:end])
            if known is None or len(known.head.headers) > self._limits.max_headers:
                return None
            self._known = known
        return known

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


@final
class _H11(Reader):
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
                self._break(FailureKind.EOF, CLOSED, events)
            elif error.error_status_hint == 431:
                limit = self._limits.max_head
                self._break(FailureKind.TOO_LARGE, f"a head or a chunk's frame of more than {limit} bytes", events)
            else:
                # h11's own words depend on how the bytes were cut, and quote them.
                self._break(FailureKind.GARBAGE, _BAD_HEAD if self._in_head else BAD_FRAMING, events)

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
