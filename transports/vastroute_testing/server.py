"""A simulated server: anything that answers a request with a schedule, and one connection of it over bytes. No I/O.

A server never sees bytes, and a schedule knows no connection: `ServerConnection` is what stands between, with h11's
server role on the wire side. Memory streams and loopback sockets both play what it says, so that the same schedule
means the same everywhere.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Final, Protocol, TypeAlias, final

import attrs
import h11

from vastroute import FailureKind, Headers, HttpRequest, InvalidValue, Origin

from .schedule import Chunk, Cut, End, Garbage, Head, Schedule


class Server(Protocol):
    """What answers requests.

    Two more methods are used where a server has them: ``worker_at(origin)`` gives the server that listens at `origin`
    in its place, or None (a simulated engine knows its workers), and ``refuses(origin, *, now)`` says whether a
    connection to `origin` is refused now, before there is a request; it may raise a `vastroute.ConnectionFailed` to say
    that it fails in another way.
    """

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        """What happens with `request`, which is whole since `now` (monotonic seconds)."""


Serve: TypeAlias = Callable[[HttpRequest, float], Schedule]
"""A server as a plain function of the request and ``now``; it may look at ``request.origin``."""
Servers: TypeAlias = Server | Serve | Mapping[Origin, Server | Serve] | Mapping[str, Server | Serve]
"""One server for every origin, or one for each; nobody listens at an origin that is not named."""

_CUTS: Final = frozenset({FailureKind.EOF, FailureKind.RESET, FailureKind.REFUSED})
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding"})
_REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}


def find_server(servers: Servers, origin: Origin, *, now: float) -> Serve:
    """The server that listens at `origin`. Raises `ConnectionRefusedError` if none does, or if it takes no connection.

    Raises `InvalidValue` if a mapping's key is no origin.
    """
    server: Server | Serve | None
    if isinstance(servers, Mapping):
        known = {Origin.parse(key) if isinstance(key, str) else key: server for key, server in servers.items()}
        server = known.get(origin)
    else:
        server = servers
    worker_at = getattr(server, "worker_at", None)
    if worker_at is not None:
        server = worker_at(origin) or server
    refuses = getattr(server, "refuses", None)
    if server is None or (refuses is not None and refuses(origin, now=now)):
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens at {origin}")
    return serve_of(server)


def serve_of(server: Server | Serve) -> Serve:
    """`server` as a plain function."""
    method = getattr(server, "serve", None)
    if method is None:
        assert callable(server)
        return server

    def serve(request: HttpRequest, now: float) -> Schedule:
        schedule: Schedule = method(request, now=now)
        return schedule

    return serve


def check_schedule(schedule: Schedule) -> Schedule:
    """`schedule` itself. Raises `InvalidValue` if its steps are in an order that no connection can bring forth.

    That is: heads with a status below 200, one other head, chunks, an end, each of which may be missing from some step
    on; and a `Cut` or a `Garbage` as the last of all.
    """
    started = ended = closed = False
    for number, step in enumerate(schedule, 1):
        wrong = closed
        if isinstance(step, Head):
            wrong |= started
            started = step.status >= 200
        elif isinstance(step, Chunk | End):
            wrong |= not started or ended
            ended = isinstance(step, End)
        else:
            closed = True
            if isinstance(step, Cut):
                wrong |= step.kind not in _CUTS or (step.kind is FailureKind.REFUSED and len(schedule) > 1)
        if wrong:
            raise InvalidValue(f"step {number} of the schedule cannot stand there: {step!r}")
    return schedule


@attrs.frozen(kw_only=True)
class Write:
    """These bytes leave the server at `at` (monotonic seconds)."""

    at: float
    data: bytes


@attrs.frozen(kw_only=True)
class Close:
    """The server ends the connection at `at` (monotonic seconds); what it was going to send after that never leaves."""

    at: float
    reset: bool = False
    """By force: the client gets an error and not an end."""


@final
class ServerConnection:
    """One connection of a simulated server: bytes in, timed bytes out. Pure, like `vastroute.Http1Connection`.

    Requests are answered in their order, and the connection is kept as HTTP says. A body that breaks the promise of its
    head (more or less than ``content-length``) is sent as it is, and the connection closed at its end. What is no
    HTTP gets a 400, a body of more than `max_body` bytes a 413. A schedule that refuses the connection resets it: over
    bytes a request is known only when it is too late to refuse.
    """

    __slots__ = ("_body", "_closes_at", "_head", "_last", "_max_body", "_over", "_said", "_scheme", "_serve", "_wire")

    def __init__(self, server: Server | Serve, *, scheme: str = "http", max_body: int = 64 * 1024 * 1024) -> None:
        self._serve = serve_of(server)
        self._scheme = scheme
        self._max_body = max_body
        # One h11 connection for each exchange: a schedule may break the rules in ways after which h11 would not go on.
        self._wire = h11.Connection(h11.SERVER)
        self._head: h11.Request | None = None
        self._body = bytearray()
        self._said: list[Write | Close] = []
        self._last = float("-inf")
        self._closes_at = float("inf")
        self._over = False

    def receive(self, data: bytes, *, now: float) -> tuple[Write | Close, ...]:
        """What comes of `data`, which is here since `now`; ``b""`` means that the client closed.

        The writes are in the order of time, also to those of earlier calls. Bytes after the end mean nothing. Raises
        `InvalidValue` if the server's schedule cannot be sent: that is a mistake in the test, and no fault.
        """
        if self._over or now >= self._closes_at:
            return ()
        self._said = []
        if data:
            self._wire.receive_data(data)
            while self._read(now) and not self._over:
                pass
        else:
            self._close(now)
        return tuple(self._said)

    def _read(self, now: float) -> bool:
        """Look at the next event of the request; False once more bytes are needed."""
        try:
            event = self._wire.next_event()
        except h11.RemoteProtocolError as error:
            self._refuse(error.error_status_hint, now)
            return False
        if isinstance(event, h11.Request):
            self._head = event
            if event.method == b"CONNECT":
                self._refuse(501, now)
            elif self._wire.they_are_waiting_for_100_continue:
                self._write(now, self._wire.send(h11.InformationalResponse(status_code=100, headers=[])))
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > self._max_body:
                self._refuse(413, now)
        elif isinstance(event, h11.EndOfMessage):
            self._answer(now)
        return event is not h11.NEED_DATA

    def _answer(self, now: float) -> None:
        assert self._head is not None
        try:
            request = _request(self._head, bytes(self._body), self._scheme)
        except InvalidValue:
            self._refuse(400, now)
            return
        ended = False
        for step in check_schedule(self._serve(request, now)):
            at = max(step.at, now, self._last)
            if isinstance(step, Head):
                self._write(at, self._say_head(step))
            elif isinstance(step, Chunk):
                self._write(at, b"" if request.method == "HEAD" else self._say(h11.Data(data=step.data), step.data))
            elif isinstance(step, End):
                self._write(at, self._say(h11.EndOfMessage(), b""))
                ended = True
                if self._wire.their_state is not h11.DONE:  # either side wants it closed
                    self._close(at)
                    return
            else:
                self._end(step, at)
        self._over = not ended
        self._next()

    def _end(self, step: Cut | Garbage, at: float) -> None:
        """The connection ends. A complete answer is in the client's hands, who may go on until it does."""
        if isinstance(step, Garbage):
            self._said.append(Write(at=at, data=step.data))
        self._said.append(Close(at=at, reset=isinstance(step, Cut) and step.kind is not FailureKind.EOF))
        self._closes_at = min(at, self._closes_at)

    def _next(self) -> None:
        rest, _ = self._wire.trailing_data
        self._wire = h11.Connection(h11.SERVER)
        self._head = None
        self._body.clear()
        if rest:
            self._wire.receive_data(rest)

    def _say_head(self, step: Head) -> bytes:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in step.headers]
        reason = _REASONS.get(step.status, b"")
        head: h11.InformationalResponse | h11.Response
        try:
            if step.status < 200:
                head = h11.InformationalResponse(status_code=step.status, headers=headers, reason=reason)
            else:
                head = h11.Response(status_code=step.status, headers=headers, reason=reason)
            return self._wire.send(head)
        except h11.LocalProtocolError as error:
            raise InvalidValue(f"this head is not HTTP ({error}): use Garbage to send what is not") from None

    def _say(self, event: h11.Data | h11.EndOfMessage, otherwise: bytes) -> bytes:
        """The bytes of a piece of the answer, in its head's framing; `otherwise` where that does not allow it."""
        try:
            return self._wire.send(event)
        except h11.LocalProtocolError:
            return otherwise

    def _write(self, at: float, data: bytes) -> None:
        self._last = at
        if data:
            self._said.append(Write(at=at, data=data))

    def _refuse(self, status: int, now: float) -> None:
        at = max(now, self._last)
        body = _REASONS[status] + b"\n"
        headers = [("content-length", str(len(body))), ("content-type", "text/plain"), ("connection", "close")]
        data = self._wire.send(h11.Response(status_code=status, headers=headers, reason=_REASONS[status]))
        self._write(at, data + self._wire.send(h11.Data(data=body)))
        self._close(at)

    def _close(self, now: float) -> None:
        self._said.append(Close(at=max(now, self._last)))
        self._over = True


def _request(head: h11.Request, body: bytes, scheme: str) -> HttpRequest:
    """The request as a client's machine made it. Raises `InvalidValue` if it names no usable host."""
    headers = Headers(head.headers)
    return HttpRequest(
        method=head.method.decode("ascii"),
        origin=Origin.parse(f"{scheme}://{headers.get('host') or ''}"),
        target=head.target.decode("ascii"),
        headers=Headers([(name, value) for name, value in headers if name not in _FRAMING]),
        body=body,
    )
