"""One HTTP/1.1 connection: what it writes, what it reads however the bytes are cut, and when it may be used again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vastroute import (
    Broken,
    ConnectTunnel,
    End,
    Event,
    FailureKind,
    Headers,
    Http1Connection,
    HttpRequest,
    InvalidValue,
    Limits,
    LocalProtocolError,
    Origin,
    ResponseHead,
    TunnelFailed,
)

ORIGIN = Origin.parse("http://engine.example")
SMALL = Limits(max_head=120, max_headers=5, max_body=40, max_informational=2)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def request(
    method: str = "GET", *, headers: Iterable[tuple[str, str]] = (), body: bytes = b"", origin: Origin = ORIGIN
) -> HttpRequest:
    return HttpRequest(method=method, origin=origin, target="/route/", headers=Headers(headers), body=body)


def asked(limits: Limits = Limits(), method: str = "GET") -> Http1Connection:
    """A connection that awaits an answer."""
    connection = Http1Connection(limits)
    connection.send(request(method))
    return connection


def read_by_server(data: bytes) -> tuple[h11.Request, bytes]:
    """What a strict server reads: one whole request, and nothing after it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    head = server.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := server.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert server.trailing_data == (b"", False)
    return head, body


def head_of(size: int) -> bytes:
    """The head of an answer with two bytes of body, `size` bytes long."""
    begin, end = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: ", b"\r\n\r\n"
    return begin + b"a" * (size - len(begin) - len(end)) + end


class TestSending:
    def test_a_strict_server_reads_the_request(self) -> None:
        data = Http1Connection().send(request("POST", headers=[("content-type", "text/plain")], body=b"hello"))
        head, body = read_by_server(data)
        assert (head.method, head.target, body) == (b"POST", b"/route/", b"hello")
        assert head.headers == [
            (b"host", b"engine.example"),
            (b"content-type", b"text/plain"),
            (b"content-length", b"5"),
        ]

    @pytest.mark.parametrize(("method", "length"), [("GET", None), ("HEAD", None), ("POST", b"0"), ("DELETE", b"0")])
    def test_a_length_is_named_where_a_body_is_expected(self, method: str, length: bytes | None) -> None:
        head, body = read_by_server(Http1Connection().send(request(method)))
        assert body == b""
        assert dict(head.headers).get(b"content-length") == length

    @pytest.mark.parametrize(
        ("url", "host"),
        [
            ("https://a.example", b"a.example"),
            ("https://a.example:80", b"a.example:80"),
            ("http://[::1]:8080", b"[::1]:8080"),
        ],
    )
    def test_the_host_is_the_origins_authority(self, url: str, host: bytes) -> None:
        head, _ = read_by_server(Http1Connection().send(request(origin=Origin.parse(url))))
        assert dict(head.headers)[b"host"] == host

    def test_what_is_kept_from_the_last_request_is_never_used_for_another(self) -> None:
        connection = Http1Connection()
        kinds = [
            request("POST", body=b"abc"),
            request("POST", body=b"xyz"),
            request("POST", body=b"longer"),
            request("PUT", body=b"longer"),
            request("PUT", headers=[("x", "1")], body=b"longer"),
            request("PUT", headers=[("x", "1")], body=b"longer", origin=Origin.parse("http://other.example")),
        ]
        for each in kinds:
            data = connection.send(each)
            assert data == Http1Connection().send(each)
            connection.receive(OK)

    @pytest.mark.parametrize(
        "bad",
        [
            request("GET", headers=[("host", "other.example")]),
            request("GET", headers=[("content-length", "5")]),
            request("POST", headers=[("transfer-encoding", "chunked")], body=b"abc"),
            request("GET", headers=[("upgrade", "websocket"), ("connection", "upgrade")]),
            request("CONNECT"),
            request("GE T"),
            request(headers=[("x", "a\r\nevil: 1")]),
            request(headers=[("x", "a\nb")]),
            request(headers=[("na me", "a")]),
            request(headers=[("x", "\N{SNOWMAN}")]),
            HttpRequest(method="GET", origin=ORIGIN, target="/a b", headers=Headers()),
            HttpRequest(method="GET", origin=ORIGIN, target="/ä", headers=Headers()),
        ],
        ids=lambda bad: f"{bad.method} {bad.target} {list(bad.headers)}",
    )
    def test_what_http_cannot_carry_is_refused_and_changes_nothing(self, bad: HttpRequest) -> None:
        connection = Http1Connection()
        with pytest.raises(InvalidValue):
            connection.send(bad)
        assert connection.reusable
        assert connection.send(request()) == Http1Connection().send(request())
        assert connection.receive(OK)[-1] == End()

    def test_a_refusal_repeats_nothing_of_the_request(self) -> None:
        with pytest.raises(InvalidValue) as caught:
            Http1Connection().send(request(headers=[("authorization", "Bearer sesame\n")]))
        assert "sesame" not in str(caught.value)


class TestReading:
    @pytest.mark.parametrize(
        ("raw", "body"),
        [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
            (b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n", b""),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
            (
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=1\r\nhe\r\n3\r\nllo\r\n0\r\nt: 1\r\n\r\n",
                b"hello",
            ),
            (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
            (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b""),
            (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        ],
    )
    def test_an_answer_that_names_its_length(self, raw: bytes, body: bytes) -> None:
        connection = asked()
        head, *pieces, end = connection.receive(raw)
        assert isinstance(head, ResponseHead)
        assert b"".join(piece for piece in pieces if isinstance(piece, bytes)) == body
        assert end == End()
        assert connection.reusable

    def test_the_answer_to_head_has_no_body(self) -> None:
        connection = asked(method="HEAD")
        events = connection.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")
        assert events == [ResponseHead(status=200, headers=[("content-length", "5")]), End()]
        assert connection.reusable

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    def test_an_answer_without_a_length_ends_with_its_connection(self, version: bytes) -> None:
        connection = asked()
        assert connection.receive(b"HTTP/" + version + b" 200 OK\r\n\r\nabc") == [ResponseHead(status=200), b"abc"]
        assert connection.receive(b"def") == [b"def"]
        assert connection.receive(b"") == [End()]
        assert not connection.reusable

    def test_headers_keep_their_order_and_repetitions(self) -> None:
        (head,) = asked().receive(b"HTTP/1.1 200 OK\r\nA: 1\r\nb: \xff\r\nA: 2\r\ncontent-length: 1\r\n\r\n")
        assert head == ResponseHead(
            status=200, headers=[("a", "1"), ("b", "\xff"), ("a", "2"), ("content-length", "1")]
        )

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"HTTP/1.1 200 OK\r\ncont",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhell",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
            b"HTTP/1.1 100 Continue\r\n\r\n",
        ],
    )
    def test_a_close_before_the_end_is_told(self, raw: bytes) -> None:
        connection = asked()
        if raw:
            connection.receive(raw)
        assert connection.receive(b"") == [Broken(kind=FailureKind.EOF, detail="closed before the end of the answer")]
        assert not connection.reusable

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x15\x03\x01\x00\x02\x02\x50",
            b"\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/2 200\r\n\r\n",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n folded: first\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n",
        ],
    )
    def test_what_is_no_head_is_told(self, raw: bytes) -> None:
        connection = asked()
        assert connection.receive(raw) == [Broken(kind=FailureKind.GARBAGE, detail="the head is not HTTP")]
        assert not connection.reusable

    @pytest.mark.parametrize("frame", [b"x\r\n", b"-1\r\n", b"2\r\nabc", b"2\r\nab\n0\r\n", b"0\r\nno colon\r\n\r\n"])
    def test_what_is_no_chunk_is_told(self, frame: bytes) -> None:
        connection = asked()
        connection.receive(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        assert connection.receive(frame)[-1] == Broken(
            kind=FailureKind.GARBAGE, detail="the framing of the body is not HTTP"
        )
        assert not connection.reusable


class TestLimits:
    @pytest.mark.parametrize("short_by", [0, 1, 50])
    def test_a_head_may_have_exactly_its_limit(self, short_by: int) -> None:
        head = head_of(SMALL.max_head - short_by)
        assert merged(asked(SMALL).receive(head + b"ok"))[1:] == [b"ok", End()]

    def test_a_head_of_one_byte_more_is_too_large(self) -> None:
        (event,) = asked(SMALL).receive(head_of(SMALL.max_head + 1) + b"ok")
        assert isinstance(event, Broken)
        assert event.kind is FailureKind.TOO_LARGE

    def test_it_does_not_wait_for_the_end_of_an_endless_head(self) -> None:
        connection = asked(SMALL)
        assert connection.receive(b"a" * (SMALL.max_head - 1)) == []
        (event,) = connection.receive(b"a")
        assert isinstance(event, Broken)
        assert event.kind is FailureKind.TOO_LARGE

    @pytest.mark.parametrize("frame", [b"2;" + b"x" * 120, b"0\r\nt: " + b"x" * 120])
    def test_a_chunks_frame_is_limited_like_a_head(self, frame: bytes) -> None:
        connection = asked(SMALL)
        (_, event) = connection.receive(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + frame)
        assert isinstance(event, Broken)
        assert event.kind is FailureKind.TOO_LARGE

    def test_too_many_headers_are_too_large(self) -> None:
        raw = b"HTTP/1.1 200 OK\r\n" + b"a: 1\r\n" * 6 + b"\r\n"
        assert asked(SMALL).receive(raw) == [Broken(kind=FailureKind.TOO_LARGE, detail="more than 5 headers")]

    def test_a_flood_of_informational_answers_is_stopped(self) -> None:
        connection = asked(SMALL)
        assert connection.receive(b"HTTP/1.1 100 Continue\r\n\r\n" * 2) == []
        (event,) = connection.receive(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        assert isinstance(event, Broken)
        assert event.kind is FailureKind.TOO_LARGE
        assert not connection.reusable

    @pytest.mark.parametrize("framing", [b"content-length: 41\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n29\r\n"])
    def test_a_body_over_its_limit_is_cut_at_the_limit(self, framing: bytes) -> None:
        connection = asked(SMALL)
        _, data, event = connection.receive(b"HTTP/1.1 200 OK\r\n" + framing + b"x" * 41)
        assert data == b"x" * 40
        assert event == Broken(kind=FailureKind.TOO_LARGE, detail="the body is larger than allowed")
        assert not connection.reusable

    def test_a_body_of_its_limit_passes(self) -> None:
        raw = b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n" + b"x" * 40
        assert asked(SMALL).receive(raw)[1:] == [b"x" * 40, End()]

    def test_the_limit_counts_for_each_answer_alone(self) -> None:
        connection = Http1Connection(SMALL)
        for _ in range(3):
            connection.send(request())
            assert connection.receive(b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n" + b"x" * 40)[-1] == End()

    def test_whoever_counts_by_himself_gets_a_body_of_any_length(self) -> None:
        connection = Http1Connection(SMALL)
        connection.send(request(), limit_body=False)
        raw = b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n" + b"x" * 5000
        assert merged(connection.receive(raw))[1:] == [b"x" * 5000, End()]


class TestUsingItAgain:
    def test_many_exchanges_over_one_connection(self) -> None:
        connection, server = Http1Connection(), h11.Connection(h11.SERVER)
        for number in range(5):
            assert connection.reusable
            server.receive_data(connection.send(request("POST", body=b"x" * number)))
            while not isinstance(server.next_event(), h11.EndOfMessage):
                pass
            body = b"answer %d" % number
            data = server.send(h11.Response(status_code=200, headers=[]))
            data += server.send(h11.Data(data=body)) + server.send(h11.EndOfMessage())
            assert not connection.reusable
            assert merged(connection.receive(data))[1:] == [body, End()]
            server.start_next_cycle()

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
            b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
            # Whoever reads the length finds other bytes behind the answer: RFC 9112, section 6.3, calls it an attack.
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        ],
    )
    def test_not_if_the_peer_will_close_or_frames_twice(self, raw: bytes) -> None:
        connection = asked()
        assert connection.receive(raw)[-1] == End()
        assert not connection.reusable

    def test_not_if_we_said_that_we_will_close(self) -> None:
        connection = Http1Connection()
        connection.send(request(headers=[("connection", "close")]))
        assert connection.receive(OK)[-1] == End()
        assert not connection.reusable

    @pytest.mark.parametrize("filler", [0, 1, 200])
    def test_not_after_bytes_that_nobody_asked_for(self, filler: int) -> None:
        connection = asked(SMALL)
        raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + b"!" + OK * filler
        assert merged(connection.receive(raw))[1:] == [End()]
        assert not connection.reusable

    def test_not_after_a_breach(self) -> None:
        connection = asked()
        connection.receive(b"\x00")
        with pytest.raises(LocalProtocolError):
            connection.send(request())


class TestMisuse:
    def test_a_second_request_before_the_answer(self) -> None:
        connection = asked()
        for _ in range(2):
            with pytest.raises(LocalProtocolError):
                connection.send(request())
        assert connection.receive(OK)[-1] == End()
        assert connection.reusable

    def test_a_second_request_in_the_middle_of_the_answer(self) -> None:
        connection = asked()
        connection.receive(OK[:-1])
        with pytest.raises(LocalProtocolError):
            connection.send(request())
        assert connection.receive(OK[-1:]) == [b"k", End()]
        assert connection.reusable

    @pytest.mark.parametrize("data", [b"", b"x"])
    def test_bytes_before_any_request(self, data: bytes) -> None:
        connection = Http1Connection()
        with pytest.raises(LocalProtocolError):
            connection.receive(data)
        connection.send(request())
        assert connection.receive(OK)[-1] == End()

    @pytest.mark.parametrize("data", [b"", b"x"])
    def test_bytes_after_the_end(self, data: bytes) -> None:
        connection = asked()
        connection.receive(OK)
        with pytest.raises(LocalProtocolError):
            connection.receive(data)
        assert connection.reusable

    @pytest.mark.parametrize("data", [b"", b"x"])
    def test_bytes_after_a_breach(self, data: bytes) -> None:
        connection = asked()
        connection.receive(b"\x00")
        with pytest.raises(LocalProtocolError):
            connection.receive(data)


# However the bytes are cut

WHOLE = 10**9


def merged(events: Iterable[Event]) -> list[Event]:
    """Neighbouring pieces of a body as one: only where they are cut may differ."""
    result: list[Event] = []
    for event in events:
        if isinstance(event, bytes) and result and isinstance(last := result[-1], bytes):
            result[-1] = last + event
        else:
            result.append(event)
    return result


def pieces(data: bytes, sizes: Sequence[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        for size in sizes:
            if start < len(data):
                yield data[start : start + size]
            start += size


def read(data: bytes, sizes: Sequence[int], *, closed: bool, limits: Limits = SMALL) -> tuple[list[Event], bool]:
    """What is read of one answer that comes in pieces of these sizes, again and again, and whether all of it was."""
    connection = asked(limits)
    events: list[Event] = []
    seen = 0
    for piece in (*pieces(data, sizes), *([b""] if closed else [])):
        events += connection.receive(piece)
        seen += len(piece)
        if events and isinstance(events[-1], End | Broken):
            return merged(events), connection.reusable or seen < len(data)
    return merged(events), connection.reusable


CHUNK_HEADS = st.one_of(
    st.sampled_from([b"0\r\n", b"3\r\n", b"00003\r\n", b"3 \r\n", b"3;a=b\r\n", b"x\r\n", b"3\n", b"-3\r\n", b"\r\n"]),
    st.integers(90, 130).map(lambda size: b"3;" + b"e" * size + b"\r\n"),
    st.integers(0, 60).map(lambda size: b"%x\r\n" % size + b"d" * size + b"\r\n"),
)
HEADERS = st.one_of(
    st.sampled_from(
        [
            b"A: 1",
            b"B:  two  ",
            b"C:",
            b" folded",
            b"no colon",
            b"Connection: close",
            b"Content-Length: 3",
            b"Content-Length: 41",
            b"Content-Length: x",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: gzip",
            b"Bad\x00: 1",
        ]
    ),
    st.integers(0, 130).map(lambda size: b"X: " + b"v" * size),
)
STARTS = st.sampled_from(
    [
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 200",
        b"HTTP/1.0 200 OK",
        b"HTTP/1.1 204 No",
        b"HTTP/1.1 20",
        b"ICY 200 OK",
        b"\x16",
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Answers that are valid, and such as are broken, too long or too many somewhere."""
    data = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.sampled_from([0, 0, 0, 1, 2, 3]))
    data += draw(STARTS) + draw(ENDS)
    headers = draw(st.lists(HEADERS, max_size=6))
    data += b"".join(header + draw(ENDS) for header in headers) + draw(ENDS)
    if b"Transfer-Encoding: chunked" in headers:
        data += b"".join(draw(st.lists(CHUNK_HEADS, max_size=4)))
        data += draw(
            st.sampled_from([b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n", b"0\r\nbad\r\n\r\n", b"0\r\n" + b"T: " * 50, b""])
        )
    else:
        data += b"b" * draw(st.sampled_from([0, 2, 3, 4, 40, 41, 42]))
    data += draw(st.sampled_from([b"", b"", b"", b"!", OK]))
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from([b"", b"\r", b"\n", b"\x00", b":", b"9"])) + data[at + 1 :]
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


SIZES = st.lists(st.integers(1, 50), min_size=1, max_size=8)


@settings(max_examples=400, deadline=None)
@given(data=answers(), sizes=SIZES, closed=st.booleans())
@example(data=b"\r\n\r\n", sizes=[1], closed=False)
@example(data=b"\x16 hello\r\n\r\n", sizes=[1], closed=False)
@example(data=b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcXY", sizes=[1], closed=False)
@example(data=b"HTTP/1.1 200 OK\r\ncontent-length: 41\r\n\r\n" + b"x" * 41, sizes=[1], closed=False)
@example(data=b"HTTP/1.1 200 OK\r\n\r\nabc", sizes=[1], closed=True)
def test_the_events_are_the_same_however_the_bytes_are_cut(data: bytes, sizes: list[int], closed: bool) -> None:
    whole = read(data, [WHOLE], closed=closed)
    assert read(data, [1], closed=closed)[0] == whole[0]
    cut = read(data, sizes, closed=closed)
    assert cut[0] == whole[0]
    if whole[1]:
        assert cut[1]


@settings(max_examples=100, deadline=None)
@given(data=answers(), closed=st.booleans())
def test_an_answer_is_a_head_then_its_body_then_one_end(data: bytes, closed: bool) -> None:
    events, _ = read(data, [WHOLE], closed=closed)
    kinds = [type(event) for event in events]
    end = kinds.pop() if kinds and kinds[-1] in (End, Broken) else None
    assert kinds in ([], [ResponseHead], [ResponseHead, bytes])
    assert end is not End or kinds
    assert end is not None or not closed


class TestTunnel:
    target = Origin.parse("https://engine.example")

    def test_the_request_names_the_target_and_its_port(self) -> None:
        head, _ = read_by_server(ConnectTunnel(self.target).send())
        assert (head.method, head.target) == (b"CONNECT", b"engine.example:443")
        assert head.headers == [(b"host", b"engine.example:443")]

    def test_an_ipv6_target_stands_in_brackets(self) -> None:
        head, _ = read_by_server(ConnectTunnel(Origin.parse("https://[::1]:8443")).send())
        assert head.target == b"[::1]:8443"

    def test_credentials_go_to_the_proxy(self) -> None:
        head, _ = read_by_server(ConnectTunnel(self.target, authorization="Basic eDp5").send())
        assert (b"proxy-authorization", b"Basic eDp5") in list(head.headers)

    def opened(self, *data: bytes, limits: Limits = Limits()) -> bool:
        tunnel = ConnectTunnel(self.target, limits=limits)
        tunnel.send()
        return [tunnel.receive(piece) for piece in data][-1]

    @pytest.mark.parametrize("size", [1, 5, WHOLE])
    @pytest.mark.parametrize("before", [b"", b"HTTP/1.1 102 Processing\r\n\r\n"])
    def test_it_opens(self, size: int, before: bytes) -> None:
        assert self.opened(*pieces(before + b"HTTP/1.1 200 Connection established\r\n\r\n", [size]))

    def test_it_is_not_open_in_the_middle_of_the_answer(self) -> None:
        assert not self.opened(b"HTTP/1.1 200 Connection")
        assert not self.opened(b"HTTP/1.1 102 Processing\r\n\r\n")

    @pytest.mark.parametrize("page", [0, 10, 100_000])
    def test_a_refusal_is_told_with_its_status_however_long_its_page(self, page: int) -> None:
        answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: %d\r\n\r\n" % page + b"x" * page
        with pytest.raises(TunnelFailed, match="407") as caught:
            self.opened(answer)
        assert caught.value.status == 407

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ([b""], "closed"),
            ([b"HTTP/1.1 2", b""], "closed"),
            ([b"\x16\x03\x01"], "does not speak HTTP"),
            ([b"HTTP/1.1 101 Switching\r\nupgrade: x\r\n\r\n"], "does not speak HTTP"),
            ([b"a" * 120], "too long"),
            ([b"a" * 119, b"a"], "too long"),
            ([b"a" * 500], "too long"),
            ([b"HTTP/1.1 102 Processing\r\n\r\n"] * 10, "too long"),
            ([b"HTTP/1.1 200 OK\r\n\r\nSSH-2.0"], "bytes of its own"),
            ([head_of(SMALL.max_head) + b"!"], "bytes of its own"),
        ],
    )
    def test_everything_else_is_a_failure(self, data: list[bytes], words: str) -> None:
        with pytest.raises(TunnelFailed, match=words) as caught:
            self.opened(*data, limits=SMALL)
        assert caught.value.status is None

    def test_the_limit_is_not_h11s_own(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nx: " + b"a" * 40_000 + b"\r\n\r\n"
        assert self.opened(*pieces(head, [1000]), limits=Limits(max_head=50_000))
