"""One HTTP/1.1 connection over bytes: requests in, bytes out; bytes in, heads, pieces and ends out.

The only module that imports h11, which does all the reading and writing of HTTP. What stands here is what h11 leaves
to its user: limits that do not depend on how the bytes are cut, one request after another, whether the connection may
be used again, and what a peer's breach of the protocol is called. Nothing a peer does raises: it is an event.
"""

from __future__ import annotations

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
_Cached: TypeAlias = tuple[Headers, str, str, Origin, int]


@final
class Http1Connection:
    """One keep-alive connection, from its first byte to its last; one exchange at a time.

    Write what `send` returns, then give what you read to `receive` until an `End` or a `Broken` comes. Then use it
    again if it is `reusable`, else close it.
    """

    __slots__ = ("_broken", "_chunked", "_clean", "_h11", "_in_head", "_informational", "_left", "_limits", "_made")

    def __init__(self, limits: Limits = Limits()) -> None:
        self._limits = limits
        # h11 objects when this much of a head or of a chunk's frame has come without an end, so one byte less than is
        # allowed; `_room` sees to it that it never looks later than that.
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.max_head - 1)
        self._broken = False
        self._clean = True
        self._in_head = False
        self._chunked = False
        self._informational = 0
        self._left: int | None = 0
        self._made: tuple[_Cached, h11.Request] | None = None

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent: the last exchange is complete, and the peer keeps the connection."""
        return (
            self._clean
            and not self._broken
            and self._h11.our_state in (h11.IDLE, h11.DONE)
            and self._h11.their_state in (h11.IDLE, h11.DONE)
        )

    def send(self, request: HttpRequest, *, limit_body: bool = True) -> bytes:
        """The bytes of `request`, with ``Host`` and ``Content-Length`` added.

        Without `limit_body` the answer's body may have any length: whoever gets its pieces counts them, as the machines
        do. Raises `LocalProtocolError` if the connection cannot take a request now, and `InvalidValue` if the request
        holds what HTTP cannot carry; nothing changes.
        """
        if not self.reusable:
            raise LocalProtocolError("the connection takes no request: an exchange is under way, or it is to be closed")
        head = self._head_of(request)
        wire = self._h11
        if wire.our_state is h11.DONE:
            wire.start_next_cycle()
        data = wire.send(head)
        assert data is not None
        if request.body:
            data += wire.send(h11.Data(data=request.body)) or b""
        data += wire.send(_END_OF_REQUEST) or b""
        self._in_head = True
        self._chunked = False
        self._informational = 0
        self._left = self._limits.max_body if limit_body else None
        return data

    def receive(self, data: bytes) -> list[Event]:
        """What `data` says; ``b""`` means that the peer closed. The events are the same however the bytes are cut.

        Raises `LocalProtocolError` if no answer is awaited.
        """
        if self._broken or self._h11.their_state not in (h11.SEND_RESPONSE, h11.SEND_BODY):
            raise LocalProtocolError("no answer is awaited on this connection")
        events: list[Event] = []
        if not data:
            self._read(b"", events)
            self._clean = False  # an answer that names no length ends with its connection
            return events
        start = 0
        while start < len(data):
            if self._broken or self._h11.their_state not in (h11.SEND_RESPONSE, h11.SEND_BODY):
                self._clean = False  # bytes that nobody asked for: what they would be taken for is not ours to guess
                break
            room = self._room(len(data))
            piece = data if start == 0 and room >= len(data) else data[start : start + room]
            start += len(piece)
            self._read(piece, events)
        return events

    def _head_of(self, request: HttpRequest) -> h11.Request:
        """The head for h11, kept from the last request where that was the same: making one is what costs."""
        key = (request.headers, request.method, request.target, request.origin, len(request.body))
        if self._made is not None and self._made[0] == key:
            return self._made[1]
        if request.method == "CONNECT" or not _NOT_TO_SAY.isdisjoint(name for name, _ in request.headers):
            raise InvalidValue(f"a request is no CONNECT and has no header of these: {', '.join(sorted(_NOT_TO_SAY))}")
        headers = [("host", request.origin.authority), *request.headers]
        if request.body or request.method not in {"GET", "HEAD"}:
            headers.append(("content-length", str(len(request.body))))
        try:
            head = h11.Request(method=request.method, target=request.target, headers=headers)
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise InvalidValue(f"the request cannot be written as HTTP: {type(error).__name__}") from None
        self._made = (key, head)
        return head

    def _room(self, most: int) -> int:
        """How many bytes h11 may see before it is asked again, so that it objects to the same byte every time."""
        if self._in_head or self._chunked:
            return self._limits.max_head - len(self._h11.trailing_data[0])
        return most

    def _read(self, piece: bytes, events: list[Event]) -> None:
        wire = self._h11
        try:
            wire.receive_data(piece)
            while True:
                event = wire.next_event()
                kind = type(event)
                if kind is h11.Data:
                    self._take(bytes(event.data), events)  # type: ignore[union-attr]
                elif kind is h11.Response:
                    self._take_head(event, events)  # type: ignore[arg-type]
                elif kind is h11.EndOfMessage:
                    events.append(_END)
                    self._clean = not wire.trailing_data[0]
                    return
                elif kind is h11.InformationalResponse:
                    self._informational += 1
                    if self._informational > self._limits.max_informational:
                        self._break(FailureKind.TOO_LARGE, "too many 1xx answers before the real one", events)
                else:
                    return
                if self._broken:
                    return
        except h11.RemoteProtocolError as error:
            if not piece:
                self._break(FailureKind.EOF, "closed before the end of the answer", events)
            elif error.error_status_hint == 431:
                limit = self._limits.max_head
                self._break(FailureKind.TOO_LARGE, f"a head or a chunk's frame of more than {limit} bytes", events)
            else:
                # h11's own words depend on how the bytes were cut, and quote them.
                where = "the head" if self._in_head else "the framing of the body"
                self._break(FailureKind.GARBAGE, f"{where} is not HTTP", events)

    def _take_head(self, event: h11.Response, events: list[Event]) -> None:
        self._in_head = False
        if len(event.headers) > self._limits.max_headers:
            self._break(FailureKind.TOO_LARGE, f"more than {self._limits.max_headers} headers", events)
            return
        head = ResponseHead(status=event.status_code, headers=Headers(event.headers))
        self._chunked = head.headers.get("transfer-encoding") is not None
        events.append(head)

    def _take(self, data: bytes, events: list[Event]) -> None:
        if self._left is not None:
            data, excess = data[: self._left], len(data) > self._left
            self._left -= len(data)
            if data:
                events.append(data)
            if excess:
                self._break(FailureKind.TOO_LARGE, "the body is larger than allowed", events)
            return
        events.append(data)

    def _break(self, kind: FailureKind, detail: str, events: list[Event]) -> None:
        self._broken = True
        events.append(Broken(kind=kind, detail=detail))


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
