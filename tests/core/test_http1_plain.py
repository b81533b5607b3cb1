"""The short way through an answer: whatever it reads, h11 reads the same, however the bytes are cut.

And what connections remember of heads changes nothing but the time.
"""

from __future__ import annotations

import pickle
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
    HeadMemory,
    Http1Connection,
    HttpRequest,
    InvalidValue,
    Limits,
    LocalProtocolError,
    Origin,
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


def ours(
    data: bytes, sizes: list[int], *, closed: bool, heads: HeadMemory | None = None, before: bytes = b""
) -> tuple[Plain, bool]:
    connection = Http1Connection(heads=heads)
    connection.send(REQUEST)
    if before:
        connection.receive(before)
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


@settings(max_examples=200)
@given(data=answers(), before=st.sampled_from((PLAIN, KEPT, EMPTY, CHUNKED, TRAILERS)), closed=st.booleans())
@example(data=CHUNKED, before=CHUNKED, closed=False)
@example(data=PLAIN + b"x", before=PLAIN, closed=False)
@example(data=PLAIN[:-1], before=PLAIN, closed=True)
def test_what_was_read_before_changes_nothing(data: bytes, before: bytes, closed: bool) -> None:
    expected = judged_by_h11(data, closed=closed)
    heads = HeadMemory(most=2)
    for _ in range(2):
        assert ours(data, [len(data)], closed=closed, before=before) == expected
        assert ours(data, [len(data)], closed=closed, heads=heads) == expected
        assert ours(data, [7, 60], closed=closed, heads=heads, before=before) == expected


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


@pytest.mark.parametrize("data", [PLAIN, CHUNKED])
@pytest.mark.parametrize("size", [1, 1000])
def test_without_a_limit_a_body_of_any_length_comes(data: bytes, size: int) -> None:
    connection = Http1Connection(Limits(max_body=0))
    connection.send(REQUEST, limit_body=False)
    head = data.index(b"\r\n\r\n") + 4
    events = connection.receive(data[:head])
    for at in range(head, len(data), size):
        events += connection.receive(data[at : at + size])
    assert as_values(events) == judged_by_h11(data, closed=False)[0]


class TestHeadMemory:
    def test_a_new_connection_writes_what_one_without_memory_writes(self) -> None:
        heads = HeadMemory(most=2)
        origins = [Origin.parse(f"https://worker-{number}.example") for number in (1, 2, 3, 1)]
        for origin in origins:
            for method, target in (("POST", "/a"), ("POST", "/b"), ("GET", "/a")):
                for body in (b"", b"work"):
                    each = HttpRequest(method=method, origin=origin, target=target, headers=REQUEST.headers, body=body)
                    for _ in range(2):
                        assert Http1Connection(heads=heads).send(each) == Http1Connection().send(each)

    @pytest.mark.parametrize("method", ["POST", "HEAD"])
    def test_how_an_answer_is_to_be_read_goes_with_the_request(self, method: str) -> None:
        heads = HeadMemory()
        each = HttpRequest(method=method, origin=ENGINE, target="/", headers=Headers())
        for _ in range(2):
            connection = Http1Connection(heads=heads)
            connection.send(each)
            events = connection.receive(PLAIN)
            assert [type(event) for event in events] == (
                [ResponseHead, End] if method == "HEAD" else [ResponseHead, bytes, End]
            )

    def test_each_connection_keeps_to_its_own_limits(self) -> None:
        heads = HeadMemory()
        for limits, expected in (
            (Limits(), End),
            (Limits(max_headers=2), Broken),
            (Limits(max_head=40), Broken),
            (Limits(max_body=4), Broken),
            (Limits(), End),
        ):
            connection = Http1Connection(limits, heads=heads)
            connection.send(REQUEST)
            assert type(connection.receive(PLAIN)[-1]) is expected

    def test_the_oldest_heads_go(self) -> None:
        heads = HeadMemory(most=2)
        for status in (200, 201, 202, 200):
            connection = Http1Connection(heads=heads)
            connection.send(REQUEST)
            head, *_ = connection.receive(PLAIN.replace(b"200", str(status).encode()))
            assert isinstance(head, ResponseHead)
            assert head.status == status

    @pytest.mark.parametrize(("length", "is_held"), [(4096, True), (4097, False)])
    def test_a_long_head_is_not_held(self, length: int, is_held: bool) -> None:
        heads, end = HeadMemory(), PLAIN.index(b"\r\n\r\n")
        answer = PLAIN[:end] + b"\r\nx-long: ".ljust(length - end - 4, b"x") + PLAIN[end:]
        given = []
        for _ in range(2):
            connection = Http1Connection(heads=heads)
            connection.send(REQUEST)
            given.append(connection.receive(answer)[0])
        assert given[0] == given[1]
        assert (given[0] is given[1]) is is_held

    def test_what_is_known_is_read_once_and_the_oldest_is_forgotten(self) -> None:
        heads = HeadMemory(most=2)

        def read(status: int) -> object:
            connection = Http1Connection(heads=heads)
            connection.send(REQUEST)
            return connection.receive(PLAIN.replace(b"200", str(status).encode()))[0]

        first, second, third = read(200), read(201), read(202)
        assert [read(202) is third, read(201) is second, read(200) is first] == [True, True, False]

    def test_no_key_shows(self) -> None:
        heads = HeadMemory()
        Http1Connection(heads=heads).send(REQUEST)
        assert "test-key" not in repr(heads)
        with pytest.raises(LocalProtocolError, match="never pickled"):
            pickle.dumps(heads)

    @pytest.mark.parametrize("most", [0, -1, True, 1.5, "64", None])
    def test_it_holds_at_least_one(self, most: object) -> None:
        with pytest.raises(InvalidValue, match="most must be a whole number of at least 1"):
            HeadMemory(most=most)  # type: ignore[arg-type]
