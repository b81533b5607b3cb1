"""The short way through `http1`: whatever it reads, h11 reads the same, however the bytes are cut."""

from __future__ import annotations

from collections.abc import Iterable

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vastroute import (
    ENGINE,
    Broken,
    End,
    Event,
    FailureKind,
    Headers,
    Http1Connection,
    HttpRequest,
    ResponseHead,
    Secret,
)

REQUEST = HttpRequest(
    method="POST", origin=ENGINE, target="/route/", headers=Secret("test-key").headers, body=b'{"endpoint": "demo"}'
)
PLAIN = b"HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
KEPT = PLAIN.replace(b"Server: nginx", b"Connection: keep-alive")
CLOSING = PLAIN.replace(b"Server: nginx", b"Connection: close")
EMPTY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n"
)
TRAILERS = CHUNKED.replace(b"0\r\n\r\n", b"0\r\nX-Sum: 7\r\n\r\n")
EXTENDED = CHUNKED.replace(b"1A\r\n", b"1A;name=value\r\n")
BEGINNINGS = (PLAIN, KEPT, CLOSING, EMPTY, CHUNKED, TRAILERS, EXTENDED)

Plain = tuple[tuple[object, ...], ...]


def judged_by_h11(data: bytes, *, closed: bool) -> tuple[Plain, bool]:
    """What h11 by itself makes of an answer, as plain values, and whether it would send another request."""
    wire = h11.Connection(h11.CLIENT)
    headers = [("host", REQUEST.origin.authority), *REQUEST.headers, ("content-length", str(len(REQUEST.body)))]
    wire.send(h11.Request(method="POST", target=REQUEST.target, headers=headers))
    wire.send(h11.Data(data=REQUEST.body))
    wire.send(h11.EndOfMessage())
    seen: list[tuple[object, ...]] = []
    body = b""
    over = False
    for piece in [data, b""] if closed else [data]:
        if over:
            break
        try:
            wire.receive_data(piece)
            while not over:
                event = wire.next_event()
                if isinstance(event, h11.Response):
                    seen.append(("head", event.status_code, tuple(Headers(event.headers))))
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    over = True
                    seen += [("body", body), ("end",)] if body else [("end",)]
                elif not isinstance(event, h11.InformationalResponse):
                    break
            if not over and not piece:
                raise h11.RemoteProtocolError("closed")
        except h11.RemoteProtocolError:
            over = True
            kind = FailureKind.GARBAGE if piece else FailureKind.EOF
            seen += [("body", body), ("broken", kind)] if body else [("broken", kind)]
    if not over and body:
        seen.append(("body", body))
    unread, is_closed = wire.trailing_data
    kept = wire.our_state is h11.DONE and wire.their_state is h11.DONE and not unread and not is_closed
    return tuple(seen), over and kept


def as_values(events: Iterable[Event]) -> Plain:
    seen: list[tuple[object, ...]] = []
    body = b""
    for event in events:
        if isinstance(event, bytes):
            body += event
            continue
        if body:
            seen.append(("body", body))
            body = b""
        if isinstance(event, ResponseHead):
            seen.append(("head", event.status, tuple(event.headers)))
        else:
            seen.append(("broken", event.kind) if isinstance(event, Broken) else ("end",))
    return tuple([*seen, ("body", body)] if body else seen)


def ours(data: bytes, sizes: list[int], *, closed: bool) -> tuple[Plain, bool]:
    connection = Http1Connection()
    connection.send(REQUEST)
    events: list[Event] = []
    at = turn = 0
    while at < len(data) and not (events and isinstance(events[-1], End | Broken)):
        size = sizes[turn % len(sizes)]
        events += connection.receive(data[at : at + size])
        at += size
        turn += 1
    if events and isinstance(events[-1], End | Broken):
        # Bytes that come only later are not this answer's: h11 was given them all at once.
        return as_values(events), connection.reusable and at >= len(data)
    if closed:
        events += connection.receive(b"")
    return as_values(events), connection.reusable


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """An answer as servers give it, with a few bytes put in, taken out or changed; rarely two of them in a row."""
    data = bytearray(draw(st.sampled_from(BEGINNINGS)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        taken = draw(st.integers(0, 3))
        data[at : at + taken] = draw(
            st.sampled_from(
                (b"", b"\r", b"\n", b"\r\n", b" ", b":", b"0", b"5", b"a", b";", b"\x00", b"\xff", b"\t", b",")
            )
        )
    return bytes(data) + draw(st.sampled_from((b"", b"", b"", PLAIN, b"\r\n", b"x")))


@settings(max_examples=400)
@given(data=answers(), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6), closed=st.booleans())
@example(data=PLAIN, sizes=[1000], closed=True)
@example(data=CHUNKED, sizes=[1], closed=True)
@example(data=EXTENDED, sizes=[1000], closed=False)
@example(data=TRAILERS, sizes=[7], closed=False)
@example(data=CHUNKED.replace(b"hello\r\n", b"hello!!"), sizes=[1000], closed=False)
@example(data=PLAIN + b"x", sizes=[1000], closed=False)
def test_whatever_comes_is_read_as_h11_reads_it(data: bytes, sizes: list[int], closed: bool) -> None:
    assert ours(data, sizes, closed=closed) == judged_by_h11(data, closed=closed)
    assert ours(data, [len(data)], closed=closed) == judged_by_h11(data, closed=closed)


@pytest.mark.parametrize("data", BEGINNINGS)
def test_every_single_cut(data: bytes) -> None:
    expected = judged_by_h11(data, closed=False)
    for at in range(1, len(data)):
        assert ours(data, [at, len(data)], closed=False) == expected


@given(body=st.binary(max_size=300), length=st.integers(0, 3))
def test_a_request_is_written_as_h11_writes_it(body: bytes, length: int) -> None:
    connection = Http1Connection()
    for size in (len(body), length):
        request = HttpRequest(
            method="POST", origin=ENGINE, target="/a?b=c", headers=Headers({"x-one": "1"}), body=body[:size]
        )
        wire = h11.Connection(h11.CLIENT)
        headers = [("host", ENGINE.authority), ("x-one", "1"), ("content-length", str(len(request.body)))]
        expected = wire.send(h11.Request(method="POST", target="/a?b=c", headers=headers)) or b""
        expected += wire.send(h11.Data(data=request.body)) or b""
        assert connection.send(request) == expected
        connection.receive(PLAIN)


def test_the_head_of_one_answer_is_not_taken_for_the_next() -> None:
    connection = Http1Connection()
    for status in (200, 503, 200):
        connection.send(REQUEST)
        head, *rest = connection.receive(PLAIN.replace(b"200", str(status).encode()))
        assert isinstance(head, ResponseHead)
        assert head.status == status
        assert rest == [b"hello", End()]
