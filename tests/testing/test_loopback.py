"""Simulated servers on real sockets: the same schedules, real TLS, and no connection left behind."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any, TypeVar

import pytest
import trio

import vastroute_io.blocking
import vastroute_io.trio
from vastroute import (
    Broken,
    ConnectionFailed,
    End,
    Event,
    FailureKind,
    Guard,
    Headers,
    Http1Connection,
    HttpRequest,
    InvalidValue,
    LocalProtocolError,
    Origin,
    ResponseHead,
)
from vastroute_testing import (
    TEST_KEY,
    Chunk,
    Cut,
    Garbage,
    Head,
    LoopbackThread,
    NamedServers,
    Schedule,
    SimulatedEndpoint,
    SimulatedEngine,
    TestAuthority,
    answer,
    open_loopback,
    stream_answer,
    virtual_clock,
)

T = TypeVar("T")
OPTIONS: dict[str, Any] = {
    "key": TEST_KEY,
    "proxy": None,
    "find_key": False,
    "guard": Guard(allow_plain_http=True, allow_private_address=True),
}


def real(main: Callable[[], Awaitable[T]]) -> T:
    """Run `main` under trio; a mistake fails after seconds in place of hanging."""

    async def bounded() -> T:
        with trio.fail_after(10):
            return await main()

    return trio.run(bounded)


def always(schedule: Callable[[float], Schedule]) -> Callable[[HttpRequest, float], Schedule]:
    return lambda _request, now: schedule(now)


def hello(_request: HttpRequest, now: float) -> Schedule:
    return answer(200, b"hello", at=now)


def request(origin: Origin) -> HttpRequest:
    return HttpRequest(method="POST", origin=origin, target="/", headers=Headers(), body=b"x")


async def exchange(stream: trio.abc.Stream, http: Http1Connection, origin: Origin) -> list[Event]:
    """One request and everything that comes of it."""
    await stream.send_all(http.send(request(origin)))
    events: list[Event] = []
    while not events or not isinstance(events[-1], End | Broken):
        events += http.receive(bytes(await stream.receive_some(65536)))
    return events


async def received(stream: trio.abc.Stream) -> bytes:
    """Everything until the other end closes, well or badly."""
    data = b""
    with suppress(trio.BrokenResourceError):
        while more := await stream.receive_some():
            data += more
    return data


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


def test_one_server_and_many_requests_over_one_connection() -> None:
    async def main() -> None:
        async with open_loopback(hello) as loopback:
            assert loopback.url == str(loopback.origin) == f"http://127.0.0.1:{loopback.origin.port}"
            assert loopback.origins == {"server": loopback.origin}
            http = Http1Connection()
            async with await trio.open_tcp_stream("127.0.0.1", loopback.origin.port) as stream:
                for _ in range(3):
                    events = await exchange(stream, http, loopback.origin)
                    assert isinstance(events[0], ResponseHead)
                    assert events[-2:] == [b"hello", End()]
                assert (loopback.open, loopback.opened) == (1, 1)
            await loopback.wait_idle()
            assert (loopback.open, loopback.opened) == (0, 1)

    real(main)


def test_the_servers_see_where_they_were_asked() -> None:
    seen: list[Origin] = []

    def serve(request: HttpRequest, now: float) -> Schedule:
        seen.append(request.origin)
        return answer(204, at=now)

    async def main() -> list[Origin]:
        async with open_loopback({"one": serve, "two": serve}) as loopback:
            with pytest.raises(LocalProtocolError, match="several"):
                _ = loopback.origin
            for origin in loopback.origins.values():
                async with await trio.open_tcp_stream(origin.host, origin.port) as stream:
                    await exchange(stream, Http1Connection(), origin)
            return list(loopback.origins.values())

    assert real(main) == seen
    assert len(set(seen)) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_engine_and_its_workers(host: str) -> None:
    async def main() -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2))
        async with open_loopback(engine, host=host) as loopback:
            assert loopback.origin == loopback.origins["engine"]
            assert [str(loopback.origins[f"worker {n}"]) for n in (1, 2)] == [each.url for each in engine.workers]
            async with vastroute_io.trio.Client(engine=loopback.origin, **OPTIONS) as client:
                for _ in range(4):
                    reply = await client.call("demo", "/echo", {"x": 1}, safe_to_repeat=True)
                    assert reply.status == 200
            await loopback.wait_idle()
            assert loopback.opened == 5  # workers close after each answer, the engine does not
        assert [worker.served for worker in engine.workers] == [2, 2]

    if host == "::1" and not socket.has_ipv6:
        pytest.skip("there is no IPv6 here")
    real(main)


BEGUN = (Head(at=0.0, status=200), Chunk(at=0.0, data=b"hello"))


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("before", [(), BEGUN])
@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (Cut(at=0.0), FailureKind.EOF),
        (Cut(at=0.0, kind=FailureKind.RESET), FailureKind.RESET),
        (Cut(at=0.0, kind=FailureKind.REFUSED), FailureKind.RESET),
        (Garbage(at=0.0), FailureKind.GARBAGE),
    ],
)
def test_faults_are_real(
    tls: bool, before: Schedule, step: Cut | Garbage, kind: FailureKind, authority: TestAuthority
) -> None:
    if before and step == Cut(at=0.0, kind=FailureKind.REFUSED):
        return

    async def main() -> None:
        context = authority.server_context() if tls else None
        async with open_loopback(always(lambda _now: (*before, step)), ssl_context=context) as loopback:
            stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)
            if tls:
                stream = trio.SSLStream(stream, authority.client_context(), server_hostname="127.0.0.1")
            async with stream:
                if kind is FailureKind.RESET:
                    with pytest.raises(trio.BrokenResourceError):
                        await exchange(stream, Http1Connection(), loopback.origin)
                else:
                    last = (await exchange(stream, Http1Connection(), loopback.origin))[-1]
                    assert isinstance(last, Broken)
                    assert last.kind is kind
            await loopback.wait_idle()

    real(main)


def test_an_answer_without_a_length_ends_properly_over_tls(authority: TestAuthority) -> None:
    async def main() -> bytes:
        served = stream_answer([b"hello"], at=0.0, every=0.0)
        async with open_loopback(always(lambda _now: served), ssl_context=authority.server_context()) as loopback:
            plain = await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)
            async with trio.SSLStream(plain, authority.client_context(), server_hostname="localhost") as stream:
                await stream.send_all(b"GET / HTTP/1.0\r\nhost: a\r\n\r\n")
                data = b""
                while more := await stream.receive_some():  # raises if TLS does not end with its own goodbye
                    data += more
                return data

    assert real(main).endswith(b"\r\n\r\nhello")


def test_small_pieces(authority: TestAuthority) -> None:
    async def main() -> None:
        async with (
            open_loopback(hello, cut=[1, 3]) as loopback,
            await trio.open_tcp_stream("127.0.0.1", loopback.origin.port) as stream,
        ):
            assert (await exchange(stream, Http1Connection(), loopback.origin))[-1] == End()

    real(main)


class TestTls:
    def test_a_client_that_trusts_the_authority(self, authority: TestAuthority) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))

        async def main() -> None:
            servers: NamedServers = {"engine": engine, "worker": engine.workers[0]}
            async with open_loopback(servers, ssl_context=authority.server_context()) as loopback:
                engine.workers[0].url = str(loopback.origins["worker"])
                context = authority.client_context()
                client = vastroute_io.trio.Client(
                    engine=loopback.origins["engine"], ssl_context=context, worker_ssl_context=context, **OPTIONS
                )
                async with client:
                    assert (await client.call("demo", "/echo", {"x": 1})).status == 200
                await loopback.wait_idle()

        real(main)
        assert engine.requests[0].origin.scheme == "https"

    def test_a_client_that_does_not(self, authority: TestAuthority) -> None:
        async def main() -> None:
            context = authority.server_context()
            async with open_loopback(hello, ssl_context=context) as loopback:
                strangers = TestAuthority().client_context()
                async with vastroute_io.trio.Client(engine=loopback.url, ssl_context=strangers, **OPTIONS) as client:
                    with pytest.raises(ConnectionFailed) as caught:
                        await client.route("demo")
                assert caught.value.kind is FailureKind.TLS
                await loopback.wait_idle()
                # Whoever does not speak TLS at all does not disturb the others either.
                async with await trio.open_tcp_stream("127.0.0.1", loopback.origin.port) as stream:
                    await stream.send_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                    assert not (await received(stream)).startswith(b"HTTP")
                await loopback.wait_idle()

        real(main)

    def test_certificates_are_for_loopback_unless_another_host_is_named(self, authority: TestAuthority) -> None:
        async def main(name: str, *hosts: str) -> None:
            async with open_loopback(hello, ssl_context=authority.server_context(*hosts)) as loopback:
                plain = await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)
                async with trio.SSLStream(plain, authority.client_context(), server_hostname=name) as stream:
                    await stream.do_handshake()

        real(lambda: main("localhost"))
        real(lambda: main("worker.example", "worker.example"))
        with pytest.raises(trio.BrokenResourceError):
            real(lambda: main("worker.example"))

    def test_its_contexts_are_strict_and_its_root_is_pem(self, authority: TestAuthority) -> None:
        context = authority.client_context()
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert len(context.get_ca_certs()) == 1
        assert authority.pem.startswith(b"-----BEGIN CERTIFICATE-----")


class TestLeaks:
    def test_a_client_that_is_cancelled_leaves_nothing_open(self) -> None:
        async def main() -> None:
            asked = trio.Event()

            def serve(_request: HttpRequest, _now: float) -> Schedule:
                asked.set()
                return BEGUN

            async with (
                open_loopback(serve) as loopback,
                vastroute_io.trio.Client(engine=loopback.url, **OPTIONS) as client,
            ):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.route, "demo")
                    await asked.wait()
                    assert loopback.open == 1
                    nursery.cancel_scope.cancel()
                await loopback.wait_idle()

        real(main)

    def test_leaving_the_block_closes_what_clients_left_open(self) -> None:
        async def main() -> None:
            async with open_loopback(always(lambda _now: BEGUN)) as loopback:
                stream = await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)
                await stream.send_all(Http1Connection().send(request(loopback.origin)))
                assert await stream.receive_some()
            assert loopback.open == 0
            assert await stream.receive_some() == b""
            await stream.aclose()
            with pytest.raises(OSError, match="127"):
                await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)

        real(main)


class TestMistakes:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"host": "0.0.0.0"}, "allow_any_host"),
            ({"host": "192.0.2.1"}, "allow_any_host"),
            ({"host": "::"}, "allow_any_host"),
            ({"host": "localhost"}, "IP address"),
            ({"host": "example.com"}, "IP address"),
            ({"port": 1}, "one port"),
        ],
    )
    def test_where_it_does_not_listen(self, options: dict[str, Any], words: str) -> None:
        async def main() -> None:
            async with open_loopback({"a": hello, "b": hello}, **options):
                raise AssertionError

        with pytest.raises(InvalidValue, match=words):
            real(main)

    def test_a_port_that_is_taken(self) -> None:
        async def main() -> None:
            engine = SimulatedEngine(SimulatedEndpoint("demo", workers=2))
            before = [worker.url for worker in engine.workers]
            async with open_loopback(hello) as first:
                with pytest.raises(OSError, match="in use"):
                    async with open_loopback(engine, port=first.origin.port):
                        raise AssertionError
            assert [worker.url for worker in engine.workers] == before

        real(main)

    def test_others_are_let_in_only_by_the_switch(self) -> None:
        async def main() -> Origin:
            async with open_loopback(hello, host="0.0.0.0", allow_any_host=True) as loopback:
                return loopback.origin

        assert real(main).host == "0.0.0.0"

    def test_not_in_virtual_time(self) -> None:
        async def main() -> None:
            async with open_loopback(hello):
                raise AssertionError

        with pytest.raises(LocalProtocolError, match="virtual time"):
            trio.run(main, clock=virtual_clock())

    def test_what_the_block_raises_comes_out_as_it_is(self) -> None:
        async def main() -> None:
            async with open_loopback(hello):
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            real(main)

    def test_a_server_that_fails_ends_the_block(self) -> None:
        async def main() -> None:
            async with open_loopback(always(lambda _now: (BEGUN[1],))) as loopback:
                async with await trio.open_tcp_stream("127.0.0.1", loopback.origin.port) as stream:
                    await exchange(stream, Http1Connection(), loopback.origin)
                await trio.sleep_forever()

        with pytest.raises(InvalidValue, match="schedule"):
            real(main)

    def test_a_server_that_fails_while_the_block_is_left_is_told_too(self) -> None:
        async def main() -> None:
            async with open_loopback(always(lambda _now: (BEGUN[1],))) as loopback:
                stream = await trio.open_tcp_stream("127.0.0.1", loopback.origin.port)
                async with stream:
                    await stream.send_all(Http1Connection().send(request(loopback.origin)))
                    with trio.CancelScope(shield=True):
                        assert await stream.receive_some() == b""
                raise KeyError("mine")

        with pytest.raises(InvalidValue, match="schedule") as caught:
            real(main)
        assert caught.value.__cause__ is None or isinstance(caught.value.__cause__, KeyError)


@contextmanager
def connected(origin: Origin) -> Iterator[socket.socket]:
    with closing(socket.create_connection((origin.host, origin.port), timeout=10)) as plain:
        yield plain


class TestThread:
    def test_blocking_clients_and_threads(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        with LoopbackThread(engine) as loopback:
            with vastroute_io.blocking.Client(engine=loopback.origin, **OPTIONS) as client:
                for _ in range(3):
                    assert client.call("demo", "/echo", {"x": 1}).status == 200
                assert 1 <= loopback.open <= loopback.opened
                with pytest.raises(TimeoutError, match="connections"):
                    loopback.wait_idle(0.0)
            loopback.wait_idle()
            assert loopback.open == 0

    def test_resets_are_real(self) -> None:
        with LoopbackThread(always(lambda now: (Cut(at=now, kind=FailureKind.RESET),))) as loopback:
            assert loopback.url == str(loopback.origin)
            with connected(loopback.origin) as plain:
                plain.sendall(Http1Connection().send(request(loopback.origin)))
                with pytest.raises(ConnectionResetError):
                    plain.recv(100)

    def test_a_port_that_is_taken_is_told_at_once(self) -> None:
        with LoopbackThread(hello) as loopback, pytest.raises(OSError, match="in use"):
            LoopbackThread(hello, port=loopback.origin.port).__enter__()

    def test_all_of_them_have_one_clock(self) -> None:
        def serve(_request: HttpRequest, now: float) -> Schedule:
            times.append(now)
            return answer(200, at=now)

        times = [time.monotonic()]
        for _ in range(3):
            with LoopbackThread(serve) as loopback, connected(loopback.origin) as plain:
                plain.sendall(Http1Connection().send(request(loopback.origin)))
                assert plain.recv(100)
        times.append(time.monotonic())
        assert len(times) == 5
        assert times == sorted(times)

    def test_an_engine_and_its_worker_in_two_threads(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo", workers=1))
        servers: NamedServers = {"engine": engine}
        with LoopbackThread(servers) as here, LoopbackThread(engine.workers[0]) as there:
            engine.workers[0].url = there.url
            with vastroute_io.blocking.Client(engine=here.url, **OPTIONS) as client:
                assert client.call("demo", "/echo", {"x": 1}).counts.workers_lost == 0

    def test_waiting_inside_another_loop(self) -> None:
        async def main() -> None:
            with LoopbackThread(hello) as loopback:
                async with await trio.open_tcp_stream("127.0.0.1", loopback.origin.port) as stream:
                    await exchange(stream, Http1Connection(), loopback.origin)
                    with pytest.raises(TimeoutError, match="connections"):
                        loopback.wait_idle(0.0)
                loopback.wait_idle()

        real(main)

    def test_a_server_that_fails_is_told_at_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        def serve(_request: HttpRequest, _now: float) -> Schedule:
            raise ZeroDivisionError

        def main() -> None:
            with LoopbackThread(serve) as loopback, connected(loopback.origin) as plain:
                plain.sendall(Http1Connection().send(request(loopback.origin)))
                assert plain.recv(100) == b""
                loopback.wait_idle()
                raise AssertionError

        with pytest.raises(ZeroDivisionError) as caught:
            main()
        assert "serve" in [entry.name for entry in caught.traceback]
        assert "ZeroDivisionError" in capsys.readouterr().err

    def test_a_server_that_fails_is_told_at_the_end(self) -> None:
        def serve(_request: HttpRequest, _now: float) -> Schedule:
            raise ZeroDivisionError

        def main() -> None:
            with LoopbackThread(serve) as loopback, connected(loopback.origin) as plain:
                plain.sendall(Http1Connection().send(request(loopback.origin)))
                assert plain.recv(100) == b""

        with pytest.raises(ZeroDivisionError):
            main()

    def test_before_it_runs_nothing_is_known(self) -> None:
        with pytest.raises(LocalProtocolError, match="with LoopbackThread"):
            _ = LoopbackThread(hello).origin
