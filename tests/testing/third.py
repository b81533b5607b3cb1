"""A transport of a third party: blocking, a hundred lines, and with as many mistakes as a test wants it to have.

It is made of what the core and the test doubles offer to everybody: `vastroute_testing.conformance` has to say that it
does what it must, and, for each of its mistakes, that it does not.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import attrs

from vastroute import (
    ConnectionFailed,
    End,
    FailureKind,
    Headers,
    Http1Connection,
    HttpRequest,
    Origin,
    Phase,
    Receive,
    ResponseHead,
    Send,
    WaitUntil,
)
from vastroute_testing.conformance.embedding import EmbeddedClient, embedded


class Mistake(Enum):
    """One thing that somebody got wrong."""

    STALE_IS_FAILURE = auto()
    """A failure on a kept connection is reported without saying that it was kept."""
    KEEPS_ALL = auto()
    """A connection is used again, whatever the peer said of it."""
    NEVER_LOOKS = auto()
    """A kept connection is used without a look whether its peer has spoken or gone."""
    NEVER_FRESH = auto()
    """A kept connection carries what wants a fresh one."""
    KEY_FOR_WORKERS = auto()
    """The key is a header of every request, as in a client with default headers."""
    SWALLOWS_TIMEOUT = auto()
    """A time-out is no failure: it goes on reading."""
    IGNORES_CONNECT_BY = auto()
    """A connection may take as long as the whole exchange."""
    IGNORES_RECEIVE = auto()
    """The time for the whole answer is that for its head."""
    FOLLOWS_REDIRECTS = auto()
    """A redirect is followed, as HTTP libraries do by default."""
    DROPS_FIRST_PIECE = auto()
    """The first piece of a body is lost."""
    ALWAYS_SENT = auto()
    """A failure to connect is reported as if the request had left."""
    NEVER_SENT = auto()
    """A failure after sending is reported as if nothing had left."""
    LEAKS_FAILED = auto()
    """A connection that failed is not closed."""
    LEAKS_LEFT = auto()
    """A stream that is left keeps its connection open."""
    LEAKS_IDLE = auto()
    """Closing the client closes nothing."""
    NEVER_CLOSED = auto()
    """A client that is closed goes on keeping connections."""
    RETRIES = auto()
    """What failed is sent again at once, as HTTP libraries do for what they think is safe."""
    JOINS_TEXT = auto()
    """What is read is decoded as text, and what does not fit is replaced."""
    READS_TO_THE_END = auto()
    """An answer is given whole, when it has come whole."""
    GUESSES_KIND = auto()
    """Every failure is "other"."""


@attrs.define
class Driver:
    """Drives machines over blocking streams, with a few kept connections."""

    connect: Callable[[Origin, float], Any]
    clock: Any
    mistakes: frozenset[Mistake]
    key: str
    idle: dict[tuple[Origin, bool], Any] = attrs.field(factory=dict)
    closed: bool = False

    def has(self, mistake: Mistake) -> bool:
        return mistake in self.mistakes

    def drive(self, machine: Any) -> Iterator[Any]:
        """A generator of a stream's events; for other machines it gives none."""
        link: Any = None
        try:
            while True:
                match machine.next_action(now=self.clock()):
                    case WaitUntil(at=at):
                        self.clock.sleep_until(at)
                    case Send() as send:
                        link = self.exchange(machine, send)
                    case Receive(deadline=deadline):
                        self.read(machine, link, deadline)
                    case _:
                        break
                if link is not None and not machine.reading:
                    self.put_back(link)
                    link = None
                while hasattr(machine, "next_event") and (event := machine.next_event(now=self.clock())) is not None:
                    yield event
        finally:
            if link is not None and not self.has(Mistake.LEAKS_LEFT):
                link.stream.close()

    def exchange(self, machine: Any, send: Send) -> Any:
        place = (send.request.origin, send.phase is Phase.WORKER)
        link = None if send.fresh and not self.has(Mistake.NEVER_FRESH) else self.idle.pop(place, None)
        looks = not self.has(Mistake.NEVER_LOOKS) and not self.has(Mistake.KEEPS_ALL)
        if link is not None and looks and not link.stream.is_quiet():
            link.stream.close()
            link = None
        used = link is not None
        sent = self.has(Mistake.ALWAYS_SENT)
        request = send.request
        if self.has(Mistake.KEY_FOR_WORKERS):
            authorization = ("authorization", f"Bearer {self.key}")
            others = [pair for pair in request.headers if pair[0] != "authorization"]
            request = attrs.evolve(request, headers=Headers((*others, authorization)))
        try:
            if link is None:
                by = send.deadline if self.has(Mistake.IGNORES_CONNECT_BY) else send.connect_by
                link = Link(place, self.connect(send.request.origin, by), Http1Connection())
            sent = not self.has(Mistake.NEVER_SENT)
            link.used, link.request, link.has_begun = used, request, False
            link.stream.send_all(link.http.send(request, limit_body=False), deadline=send.deadline)
        except (OSError, ConnectionFailed) as error:
            self.fail(machine, link, error, sent=sent)
            return link
        self.read(machine, link, send.deadline)
        return link

    def read(self, machine: Any, link: Any, deadline: float) -> None:
        until: float | None = deadline
        try:
            while until is not None:
                events = self.followed(link, link.http.receive(self.receive(link, until)), until)
                until = machine.feed(self.spoilt(link, events), now=self.clock(), reused=self.reused(link))
                if until is not None and self.has(Mistake.IGNORES_RECEIVE):
                    until = deadline
        except OSError as error:
            self.fail(machine, link, error, sent=not self.has(Mistake.NEVER_SENT))

    def receive(self, link: Any, until: float) -> bytes:
        try:
            data: bytes = link.stream.receive_some(65536, deadline=until)
        except TimeoutError:
            if not self.has(Mistake.SWALLOWS_TIMEOUT):
                raise
            data = link.stream.receive_some(65536, deadline=until + 1e6)
        except ConnectionError:
            if not self.has(Mistake.RETRIES) or link.has_begun:
                raise
            data = b""
        if self.has(Mistake.RETRIES) and not data and not link.has_begun:
            self.ask_anew(link, link.request, until)
            data = link.stream.receive_some(65536, deadline=until)
        link.has_begun = True
        if self.has(Mistake.JOINS_TEXT):
            data = data.decode("ascii", "replace").encode("ascii", "replace")
        return data

    def ask_anew(self, link: Any, request: HttpRequest, until: float) -> None:
        link.stream.close()
        link.stream, link.http = self.connect(request.origin, until), Http1Connection()
        link.stream.send_all(link.http.send(request, limit_body=False), deadline=until)
        link.has_begun = True

    def followed(self, link: Any, events: list[Any], until: float) -> list[Any]:
        """What came; of where it leads, if it is a redirect, and these are followed."""
        head = next((event for event in events if isinstance(event, ResponseHead)), None)
        location = None if head is None else head.headers.get("location")
        if location is None or not self.has(Mistake.FOLLOWS_REDIRECTS):
            return events
        url = urlsplit(location)
        origin = Origin.parse(f"{url.scheme}://{url.netloc}")
        self.ask_anew(link, attrs.evolve(link.request, origin=origin, target=url.path), until)
        return self.followed(link, link.http.receive(self.receive(link, until)), until)

    def spoilt(self, link: Any, events: list[Any]) -> list[Any]:
        """What came, as somebody with these mistakes hands it on."""
        if self.has(Mistake.DROPS_FIRST_PIECE):
            for event in events:
                if isinstance(event, bytes) and not link.has_dropped:
                    link.has_dropped = True
                    return [each for each in events if each is not event]
        if self.has(Mistake.READS_TO_THE_END):
            link.held += events
            if not events or not (isinstance(events[-1], End) or not isinstance(events[-1], bytes | ResponseHead)):
                return []
            events, link.held = link.held, []
        return events

    def reused(self, link: Any) -> bool:
        return link is not None and link.used and not self.has(Mistake.STALE_IS_FAILURE)

    def fail(self, machine: Any, link: Any, error: Exception, *, sent: bool) -> None:
        kind = FailureKind.OTHER
        if not self.has(Mistake.GUESSES_KIND):
            kinds: dict[type[Exception], FailureKind] = {
                TimeoutError: FailureKind.TIMEOUT,
                ConnectionRefusedError: FailureKind.REFUSED,
                ConnectionResetError: FailureKind.RESET,
            }
            kind = kinds.get(type(error), FailureKind.OTHER)
        machine.failed(error, kind=kind, sent=sent, reused=self.reused(link), now=self.clock())

    def put_back(self, link: Any) -> None:
        keeps = link.http.reusable or self.has(Mistake.KEEPS_ALL)
        if keeps and link.place not in self.idle and (not self.closed or self.has(Mistake.NEVER_CLOSED)):
            if not link.http.reusable:
                link.http = Http1Connection()
            self.idle[link.place] = link
        elif not self.has(Mistake.LEAKS_FAILED):
            link.stream.close()

    def close(self) -> None:
        for link in self.idle.values():
            if not self.has(Mistake.LEAKS_IDLE):
                link.stream.close()
        self.idle.clear()
        self.closed = True


@attrs.define
class Link:
    """One connection."""

    place: tuple[Origin, bool]
    stream: Any
    http: Http1Connection
    used: bool = False
    request: Any = None
    has_begun: bool = False
    has_dropped: bool = False
    held: list[Any] = attrs.field(factory=list)


class Client:
    """What is checked."""

    def __init__(self, *mistakes: Mistake, **options: Any) -> None:
        connect, clock = options.pop("connect"), options.pop("clock")
        self._driver = Driver(connect, clock, frozenset(mistakes), options["key"])
        self._client: EmbeddedClient = embedded(self._drive, now=clock)(**options)
        self.route = self._client.route
        self.call = self._client.call
        self.stream = self._client.stream

    def _drive(self, machine: Any) -> Iterator[Any]:
        return self._driver.drive(machine)

    def close(self) -> None:
        self._driver.close()


def maker(*mistakes: Mistake) -> Callable[..., Client]:
    """For `check_transport`."""
    return partial(Client, *mistakes)


class _Socket:
    """A stream over a socket, for `over_sockets`."""

    def __init__(self, origin: Origin, deadline: float) -> None:
        self._socket = socket.create_connection((origin.host, origin.port), timeout=deadline - time.monotonic())

    def _until(self, deadline: float) -> socket.socket:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has come")
        self._socket.settimeout(left)
        return self._socket

    def send_all(self, data: bytes, *, deadline: float) -> None:
        self._until(deadline).sendall(data)

    def receive_some(self, most: int, *, deadline: float) -> bytes:
        return self._until(deadline).recv(most)

    def close(self) -> None:
        self._socket.close()


class _Time:
    """The system's clock."""

    def __call__(self) -> float:
        return time.monotonic()

    def sleep_until(self, at: float) -> None:
        threading.Event().wait(max(0.0, at - time.monotonic()))


def over_sockets(machine: Any) -> Iterator[Any]:
    """An embedding: it drives one machine over connections of its own, and asks the guard before each."""

    def connect(origin: Origin, deadline: float) -> _Socket:
        for *_, address in socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM):
            send = machine.next_action(now=time.monotonic())
            if send.guard is not None and (refusal := send.guard.check_address(address[0], origin)):
                raise refusal.as_error()
        return _Socket(origin, deadline)

    driver = Driver(connect, _Time(), frozenset(), "")
    driver.closed = True
    yield from driver.drive(machine)
