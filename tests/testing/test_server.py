"""One connection of a simulated server: requests out of bytes, timed bytes out of schedules, and every kind of fault.

The client's end is `vastroute.Http1Connection` wherever a client would be.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import vastroute_testing
from vastroute import (
    Broken,
    Event,
    FailureKind,
    Headers,
    Http1Connection,
    HttpRequest,
    InvalidValue,
    Limits,
    Origin,
    ResponseHead,
)
from vastroute import End as WholeAnswer
from vastroute_testing import (
    Chunk,
    Close,
    Cut,
    End,
    Garbage,
    Head,
    Schedule,
    ServerConnection,
    Step,
    Write,
    answer,
    check_schedule,
    find_server,
    stream_answer,
)
from vastroute_testing.streams import Inbox

NOW = 1000.0
ORIGIN = Origin.parse("http://engine.example:8080")
LENGTH = Headers([("content-length", "5")])


def request(
    method: str = "GET",
    target: str = "/route/",
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes = b"",
    origin: Origin = ORIGIN,
) -> HttpRequest:
    return HttpRequest(method=method, origin=origin, target=target, headers=Headers(headers), body=body)


def always(schedule: Schedule) -> Callable[[HttpRequest, float], Schedule]:
    return lambda _request, _now: schedule


def wire(each: HttpRequest) -> bytes:
    return Http1Connection().send(each)


def said(schedule: Schedule, data: bytes = wire(request()), *, now: float = NOW) -> tuple[Write | Close, ...]:
    return ServerConnection(always(schedule)).receive(data, now=now)


def client_reads(steps: Sequence[Write | Close], method: str = "GET") -> list[Event | str]:
    """What a client makes of it: its events, neighbouring pieces of the body as one, and ``"reset"`` for a reset."""
    client = Http1Connection()
    client.send(request(method))
    events: list[Event | str] = []
    for step in steps:
        if isinstance(step, Close) and step.reset:
            events.append("reset")
        elif events and isinstance(events[-1], WholeAnswer | Broken):
            break
        else:
            events += client.receive(step.data if isinstance(step, Write) else b"")
    return merged(events)


def merged(events: Iterable[Event | str]) -> list[Event | str]:
    result: list[Event | str] = []
    for event in events:
        if isinstance(event, bytes) and result and isinstance(last := result[-1], bytes):
            result[-1] = last + event
        else:
            result.append(event)
    return result


def status_of(steps: Sequence[Write | Close]) -> int:
    head = client_reads(steps)[0]
    assert isinstance(head, ResponseHead)
    return head.status


class TestRequests:
    @given(
        method=st.sampled_from(["GET", "HEAD", "POST", "DELETE"]),
        body=st.binary(max_size=200),
        headers=st.lists(st.sampled_from([("x", "1"), ("X-Two", "b  c"), ("accept", "*/*"), ("x", "")]), max_size=4),
        url=st.sampled_from(["http://a.example", "http://a.example:81", "http://[::1]:80", "http://127.0.0.1:443"]),
        size=st.integers(1, 80),
    )
    def test_a_server_sees_the_request_that_the_machine_made_however_it_is_cut(
        self, method: str, body: bytes, headers: list[tuple[str, str]], url: str, size: int
    ) -> None:
        sent = request(method, "/route/?x=1", headers=headers, body=body, origin=Origin.parse(url))
        seen: list[tuple[HttpRequest, float]] = []

        def serve(each: HttpRequest, now: float) -> Schedule:
            seen.append((each, now))
            return answer(204, at=now)

        connection = ServerConnection(serve)
        data = wire(sent)
        for start in range(0, len(data), size):
            connection.receive(data[start : start + size], now=NOW + start)
        assert seen == [(sent, NOW + (len(data) - 1) // size * size)]

    def test_the_scheme_is_the_connections(self) -> None:
        seen: list[Origin] = []

        def serve(each: HttpRequest, now: float) -> Schedule:
            seen.append(each.origin)
            return ()

        sent = request(origin=Origin.parse("https://a.example"))
        ServerConnection(serve, scheme="https").receive(wire(sent), now=NOW)
        assert seen == [sent.origin]

    def test_a_server_is_an_object_or_a_function(self) -> None:
        class Server:
            def serve(self, request: HttpRequest, *, now: float) -> Schedule:
                return answer(200, request.body, at=now)

        steps = ServerConnection(Server()).receive(wire(request("POST", body=b"hello")), now=NOW)
        assert client_reads(steps) == [ResponseHead(status=200, headers=LENGTH), b"hello", WholeAnswer()]

    @pytest.mark.parametrize(
        ("raw", "status"),
        [
            (b"hello?\r\n\r\n", 400),
            (b"\x16\x03\x01", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"GET / HTTP/1.0\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n", 400),
            (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nx\r\n", 400),
            (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n", 501),
            (b"CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n", 501),
            (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 20_000, 431),
            (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2000\r\n\r\n" + b"x" * 1001, 413),
        ],
    )
    def test_what_it_cannot_take_is_refused_and_the_connection_closed(self, raw: bytes, status: int) -> None:
        seen: list[HttpRequest] = []

        def serve(each: HttpRequest, now: float) -> Schedule:
            seen.append(each)
            return answer(200, at=now)

        connection = ServerConnection(serve, max_body=1000)
        steps = connection.receive(raw, now=NOW)
        assert status_of(steps) == status
        assert steps[-1] == Close(at=NOW)
        assert connection.receive(wire(request()), now=NOW) == ()
        assert seen == []

    def test_who_waits_to_be_told_to_go_on_is_told(self) -> None:
        connection = ServerConnection(lambda each, now: answer(200, each.body, at=now))
        head = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n"
        (write,) = connection.receive(head, now=NOW)
        assert isinstance(write, Write)
        assert write.data.startswith(b"HTTP/1.1 100 ")
        assert status_of(connection.receive(b"ok", now=NOW)) == 200

    def test_requests_for_an_upgrade_are_answered_as_if_it_were_not_asked_for(self) -> None:
        head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        connection = ServerConnection(always(answer(200, at=NOW)))
        for _ in range(2):
            assert status_of(connection.receive(head, now=NOW)) == 200


class TestAnswers:
    @pytest.mark.parametrize(
        "schedule",
        [
            answer(200, b"hello", at=NOW),
            (
                Head(at=NOW, status=200, headers=LENGTH),
                Chunk(at=NOW, data=b"he"),
                Chunk(at=NOW, data=b"llo"),
                End(at=NOW),
            ),
        ],
    )
    def test_an_answer_with_its_length(self, schedule: Schedule) -> None:
        assert client_reads(said(schedule)) == [ResponseHead(status=200, headers=LENGTH), b"hello", WholeAnswer()]

    def test_without_a_length_it_is_chunked(self) -> None:
        steps = said(stream_answer([b"he", b"", b"llo"], at=NOW, every=0.0))
        assert client_reads(steps) == [
            ResponseHead(status=200, headers=[("transfer-encoding", "chunked")]),
            b"hello",
            WholeAnswer(),
        ]

    def test_to_an_older_client_it_ends_with_the_connection(self) -> None:
        raw = b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"
        *writes, last = said(stream_answer([b"hello"], at=NOW, every=0.0), raw)
        data = b"".join(write.data for write in writes if isinstance(write, Write))
        assert data.endswith(b"\r\n\r\nhello")
        assert b"transfer-encoding" not in data.lower()
        assert last == Close(at=NOW)

    @pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
    def test_some_answers_have_no_body(self, method: str, status: int) -> None:
        schedule = answer(status, b"" if status != 200 else b"hello", at=NOW)
        connection = ServerConnection(always(schedule))
        steps = connection.receive(wire(request(method)), now=NOW)
        (head, end) = client_reads(steps, method)
        assert isinstance(head, ResponseHead)
        assert head.status == status
        assert end == WholeAnswer()
        assert connection.receive(wire(request(method)), now=NOW) == steps

    def test_heads_below_200_come_before_the_real_one(self) -> None:
        schedule = (Head(at=NOW, status=103), Head(at=NOW, status=102), *answer(200, b"hello", at=NOW))
        assert client_reads(said(schedule)) == [ResponseHead(status=200, headers=LENGTH), b"hello", WholeAnswer()]

    @pytest.mark.parametrize(("status", "line"), [(200, b"200 OK"), (429, b"429 Too Many Requests"), (799, b"799 ")])
    def test_the_status_line_names_the_reason(self, status: int, line: bytes) -> None:
        (write,) = said(answer(status, at=NOW))
        assert isinstance(write, Write)
        assert write.data.startswith(b"HTTP/1.1 " + line + b"\r\n")

    def test_header_values_are_latin_1(self) -> None:
        schedule = (Head(at=NOW, status=200, headers=Headers([("x", "\xe4"), *LENGTH])),)
        (head,) = client_reads(said(schedule))
        assert isinstance(head, ResponseHead)
        assert head.headers.get("x") == "\xe4"

    @pytest.mark.parametrize(
        "headers", [[("x", "a\nb")], [("content-length", "1"), ("content-length", "2")], [("", "a")]]
    )
    def test_a_head_that_is_not_http_is_a_mistake_of_the_test(self, headers: list[tuple[str, str]]) -> None:
        with pytest.raises(InvalidValue, match="Garbage"):
            said((Head(at=NOW, status=200, headers=Headers(headers)),))

    def test_each_step_leaves_at_its_time(self) -> None:
        steps = said((Head(at=NOW + 1, status=200, headers=LENGTH), Chunk(at=NOW + 3, data=b"hello"), End(at=NOW + 9)))
        assert [step.at for step in steps] == [NOW + 1, NOW + 3]
        chunked = said(stream_answer([b"a", b"b"], at=NOW + 1, every=2.0))
        assert [step.at for step in chunked] == [NOW + 1, NOW + 1, NOW + 3, NOW + 3]

    def test_what_is_past_leaves_at_once_and_nothing_overtakes(self) -> None:
        steps = said(
            (Head(at=0.0, status=200, headers=LENGTH), Chunk(at=NOW + 3, data=b"he"), Chunk(at=0.0, data=b"llo"))
        )
        assert [step.at for step in steps] == [NOW, NOW + 3, NOW + 3]


class TestKeepingTheConnection:
    def test_many_requests_over_one_connection(self) -> None:
        server = ServerConnection(lambda each, now: answer(200, each.body, at=now))
        client = Http1Connection()
        for number in range(1, 6):
            body = b"x" * number
            (head, data) = server.receive(client.send(request("POST", body=body)), now=NOW)
            assert isinstance(head, Write)
            assert isinstance(data, Write)
            assert client.receive(head.data + data.data)[-2:] == [body, WholeAnswer()]
            assert client.reusable

    def test_requests_that_come_together_are_answered_in_their_order(self) -> None:
        delays = iter([5.0, 1.0, 2.0])
        connection = ServerConnection(lambda each, now: answer(200, each.body, at=now + next(delays)))
        data = b"".join(wire(request("POST", body=body)) for body in (b"one", b"two", b"three"))
        steps = connection.receive(data[:-1], now=NOW)
        steps += connection.receive(data[-1:], now=NOW + 1)
        bodies = [step for step in steps if isinstance(step, Write) and not step.data.startswith(b"HTTP")]
        assert bodies == [
            Write(at=NOW + 5, data=b"one"),
            Write(at=NOW + 5, data=b"two"),
            Write(at=NOW + 5, data=b"three"),
        ]

    @pytest.mark.parametrize(
        "raw",
        [b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"GET / HTTP/1.0\r\nhost: a\r\n\r\n"],
    )
    def test_a_client_that_wants_it_closed_gets_it_closed(self, raw: bytes) -> None:
        connection = ServerConnection(always(answer(200, b"hello", at=NOW + 2)))
        assert connection.receive(raw + wire(request()), now=NOW)[-1] == Close(at=NOW + 2)
        assert connection.receive(wire(request()), now=NOW + 1) == ()

    def test_a_server_that_wants_it_closed_says_so_in_its_head(self) -> None:
        steps = said(answer(200, b"hello", at=NOW, headers={"connection": "close"}))
        assert steps[-1] == Close(at=NOW)

    def test_a_client_that_closes_gets_what_is_under_way(self) -> None:
        connection = ServerConnection(always(answer(200, b"hello", at=NOW + 2)))
        connection.receive(wire(request()), now=NOW)
        assert connection.receive(b"", now=NOW + 1) == (Close(at=NOW + 2),)
        assert connection.receive(b"", now=NOW + 1) == ()

    def test_a_client_that_closes_in_the_middle_of_its_request(self) -> None:
        connection = ServerConnection(always(answer(200, at=NOW)))
        connection.receive(wire(request())[:-1], now=NOW)
        assert connection.receive(b"", now=NOW) == (Close(at=NOW),)

    @pytest.mark.parametrize("step", [Cut(at=NOW + 5), Cut(at=NOW + 5, kind=FailureKind.RESET), Garbage(at=NOW + 5)])
    def test_a_connection_that_ends_later_serves_until_then(self, step: Step) -> None:
        schedules = iter([(*answer(200, b"hello", at=NOW), step), answer(200, b"again", at=NOW), ()])
        connection = ServerConnection(lambda _request, _now: next(schedules))
        first = connection.receive(wire(request()), now=NOW)
        assert client_reads(first)[1:3] == [b"hello", WholeAnswer()]
        assert first[-1] == Close(at=NOW + 5, reset=step == Cut(at=NOW + 5, kind=FailureKind.RESET))
        assert client_reads(connection.receive(wire(request()), now=NOW + 4))[1:] == [b"again", WholeAnswer()]
        assert connection.receive(wire(request()), now=NOW + 5) == ()

    def test_after_an_answer_without_an_end_nothing_is_answered(self) -> None:
        connection = ServerConnection(always(stream_answer([b"hello"], at=NOW, every=0.0)[:2]))
        assert client_reads(connection.receive(wire(request()), now=NOW))[-1] == b"hello"
        assert connection.receive(wire(request()), now=NOW) == ()


class TestFaults:
    @pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET])
    @pytest.mark.parametrize("framing", [LENGTH, Headers()])
    def test_a_cut_in_the_middle_of_the_body(self, kind: FailureKind, framing: Headers) -> None:
        steps = said((Head(at=NOW, status=200, headers=framing), Chunk(at=NOW, data=b"he"), Cut(at=NOW + 1, kind=kind)))
        _, data, end = client_reads(steps)
        assert data == b"he"
        if kind is FailureKind.RESET:
            assert end == "reset"
        else:
            assert isinstance(end, Broken)
            assert end.kind is FailureKind.EOF
        assert steps[-1] == Close(at=NOW + 1, reset=kind is FailureKind.RESET)

    @pytest.mark.parametrize("kind", [FailureKind.EOF, FailureKind.RESET, FailureKind.REFUSED])
    def test_a_cut_before_the_head(self, kind: FailureKind) -> None:
        assert said((Cut(at=NOW + 1, kind=kind),)) == (Close(at=NOW + 1, reset=kind is not FailureKind.EOF),)

    @pytest.mark.parametrize("before", [0, 1, 2])
    def test_garbage_anywhere(self, before: int) -> None:
        schedule = (*stream_answer([b"hello"], at=NOW, every=0.0)[:before], Garbage(at=NOW))
        steps = said(schedule)
        assert steps[-2:] == (Write(at=NOW, data=Garbage(at=NOW).data), Close(at=NOW))
        end = client_reads(steps)[-1]
        assert isinstance(end, Broken)
        assert end.kind is FailureKind.GARBAGE

    def test_a_body_that_is_too_short_for_its_head_closes_the_connection(self) -> None:
        steps = said((Head(at=NOW, status=200, headers=LENGTH), Chunk(at=NOW, data=b"he"), End(at=NOW + 1)))
        assert steps[-1] == Close(at=NOW + 1)
        assert client_reads(steps)[1:] == [
            b"he",
            Broken(kind=FailureKind.EOF, detail="closed before the end of the answer"),
        ]

    def test_a_body_that_is_too_long_for_its_head_is_sent_all_the_same(self) -> None:
        head, *rest = said((Head(at=NOW, status=200, headers=LENGTH), Chunk(at=NOW, data=b"hello!"), End(at=NOW)))
        assert rest == [Write(at=NOW, data=b"hello!"), Close(at=NOW)]
        client = Http1Connection()
        client.send(request())
        assert isinstance(head, Write)
        assert client.receive(head.data + b"hello!")[1:] == [b"hello", WholeAnswer()]
        assert not client.reusable

    def test_silence_is_no_bytes_at_all(self) -> None:
        assert said(()) == ()
        assert said((Cut(at=inf),)) == (Close(at=inf),)


HEAD, CHUNK, END, CUT = Head(at=NOW, status=200), Chunk(at=NOW, data=b"x"), End(at=NOW), Cut(at=NOW)


class TestSchedules:
    @pytest.mark.parametrize(
        "schedule",
        [
            (),
            (HEAD,),
            (HEAD, CHUNK),
            (HEAD, CHUNK, END),
            (HEAD, END, CUT),
            (HEAD, CUT),
            (CUT,),
            (Garbage(at=NOW),),
            (HEAD, END, Garbage(at=NOW)),
            (Head(at=NOW, status=103), HEAD, END),
            (Head(at=NOW, status=103), CUT),
            (Cut(at=NOW, kind=FailureKind.REFUSED),),
        ],
    )
    def test_what_can_happen(self, schedule: Schedule) -> None:
        assert check_schedule(schedule) is schedule

    @pytest.mark.parametrize(
        ("schedule", "number"),
        [
            ((CHUNK,), 1),
            ((END,), 1),
            ((Head(at=NOW, status=103), CHUNK), 2),
            ((HEAD, HEAD), 2),
            ((HEAD, Head(at=NOW, status=103)), 2),
            ((HEAD, END, CHUNK), 3),
            ((HEAD, END, END), 3),
            ((CUT, CUT), 2),
            ((CUT, HEAD), 2),
            ((Garbage(at=NOW), END), 2),
            ((HEAD, Cut(at=NOW, kind=FailureKind.REFUSED)), 2),
            ((Cut(at=NOW, kind=FailureKind.TLS),), 1),
        ],
    )
    def test_what_cannot(self, schedule: Schedule, number: int) -> None:
        for look in (check_schedule, said):
            with pytest.raises(InvalidValue, match=f"step {number} "):
                look(schedule)


class TestFindingServers:
    other = Origin.parse("http://other.example")

    def status(self, servers: Any, origin: Origin) -> int:
        head = find_server(servers, origin, now=NOW)(request(origin=origin), NOW)[0]
        assert isinstance(head, Head)
        return head.status

    def test_one_server_is_everywhere(self) -> None:
        for origin in (ORIGIN, self.other):
            assert self.status(always(answer(200, at=NOW)), origin) == 200

    @pytest.mark.parametrize("key", [str, lambda origin: origin])
    def test_a_mapping_says_who_is_where(self, key: Callable[[Origin], Any]) -> None:
        servers: Mapping[Any, Any] = {
            key(ORIGIN): always(answer(200, at=NOW)),
            key(self.other): always(answer(404, at=NOW)),
        }
        assert self.status(servers, ORIGIN) == 200
        assert self.status(servers, self.other) == 404
        with pytest.raises(ConnectionRefusedError, match=r"third\.example"):
            find_server(servers, Origin.parse("http://third.example"), now=NOW)

    def test_a_key_that_is_no_origin_is_a_mistake(self) -> None:
        with pytest.raises(InvalidValue):
            find_server({"engine": always(())}, ORIGIN, now=NOW)

    def test_a_server_may_refuse_connections(self) -> None:
        class Opening:
            def serve(self, request: HttpRequest, *, now: float) -> Schedule:
                return answer(200, at=now)

            def refuses(self, origin: Origin, *, now: float) -> bool:
                return origin == ORIGIN and now < NOW

        with pytest.raises(ConnectionRefusedError):
            find_server(Opening(), ORIGIN, now=NOW - 1)
        assert self.status(Opening(), ORIGIN) == 200
        find_server(Opening(), self.other, now=NOW - 1)

    def test_a_server_may_know_others(self) -> None:
        class Engine:
            def serve(self, request: HttpRequest, *, now: float) -> Schedule:
                return answer(200, at=now)

            def worker_at(self, origin: Origin) -> Any:
                return always(answer(404, at=NOW)) if origin == TestFindingServers.other else None

        assert self.status(Engine(), ORIGIN) == 200
        assert self.status(Engine(), self.other) == 404


# However the bytes are cut

AT = st.floats(0.0, 30.0).map(lambda seconds: NOW + seconds)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Whole answers, and such as break at any point."""
    body = draw(st.lists(st.binary(max_size=40), max_size=5))
    length = draw(st.sampled_from([None, 0, 0, 0, -1, 1]))
    headers = [] if length is None else [("content-length", str(max(0, sum(map(len, body)) + length)))]
    times = sorted(draw(st.lists(AT, min_size=len(body) + 3, max_size=len(body) + 3)))
    steps: list[Step] = [Head(at=times[0], status=draw(st.sampled_from([200, 404, 503])), headers=Headers(headers))]
    steps += [Chunk(at=at, data=data) for at, data in zip(times[1:], body, strict=False)]
    steps.append(End(at=times[-2]))
    steps = steps[: draw(st.integers(0, len(steps)) | st.just(len(steps)))]
    last: Sequence[Any] = [
        None,
        None,
        Cut(at=times[-1]),
        Cut(at=times[-1], kind=FailureKind.RESET),
        Garbage(at=times[-1]),
    ]
    end = draw(st.sampled_from(last))
    return tuple(steps) if end is None else (*steps, end)


def played(schedule: Schedule, cut: int | list[int] | None) -> tuple[list[Event | str], float]:
    """What a client reads of it, piece by piece, and when the last of it came."""
    inbox = Inbox(ServerConnection(always(schedule)), cut=cut)
    client = Http1Connection(Limits())
    inbox.tell(client.send(request()), now=NOW)
    events: list[Event | str] = []
    now = NOW
    while inbox.due < inf and not (events and isinstance(events[-1], WholeAnswer | Broken)):
        now = max(now, inbox.due)
        try:
            events += client.receive(inbox.take(65536, now=now))
        except ConnectionResetError:
            events.append("reset")
            break
    return merged(events), now


@given(schedule=schedules(), sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5))
@example(schedule=answer(200, b"hello", at=NOW), sizes=[1])
def test_the_same_schedule_gives_the_same_events_however_its_bytes_are_cut(
    schedule: Schedule, sizes: list[int]
) -> None:
    whole = played(schedule, None)
    assert played(schedule, 1) == whole
    assert played(schedule, 7) == whole
    assert played(schedule, sizes) == whole


@given(schedule=schedules())
def test_a_client_reads_what_the_schedule_says(schedule: Schedule) -> None:
    events, _ = played(schedule, None)
    heads = [step for step in schedule if isinstance(step, Head)]
    assert [each.status for each in events if isinstance(each, ResponseHead)] == [head.status for head in heads]
    body = b"".join(step.data for step in schedule if isinstance(step, Chunk))
    read = b"".join(each for each in events if isinstance(each, bytes))
    declared = heads[0].headers.get("content-length") if heads else None
    whole = declared is None or int(declared) == len(body)
    if whole and not any(isinstance(step, Garbage) for step in schedule):
        assert read == body
        if any(isinstance(step, End) for step in schedule):
            assert events[-1] == WholeAnswer()
    assert body.startswith(read) or any(isinstance(step, Garbage) for step in schedule)


class TestThePackage:
    def test_importing_it_imports_no_transport(self) -> None:
        code = (
            "import sys, vastroute_testing, vastroute_testing.memory, vastroute_testing.streams\n"
            "found = {'trio', 'ssl', 'pytest'} & set(sys.modules)\n"
            "assert not found, found\n"
        )
        subprocess.run([sys.executable, "-c", code], check=True)

    def test_every_public_name_is_there(self) -> None:
        for name in vastroute_testing.__all__:
            assert getattr(vastroute_testing, name) is not None
        assert dir(vastroute_testing) == sorted(vastroute_testing.__all__)
        with pytest.raises(AttributeError, match="nothing"):
            _ = vastroute_testing.nothing  # type: ignore[attr-defined]
