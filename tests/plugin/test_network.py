"""The guard stops what leads away from this machine, and lets pass what tests need."""

from __future__ import annotations

import socket

import pytest

from .inner import run

pytest_plugins = ["pytester"]

FORBIDDEN = """
def test_dials_out():
    with socket.socket() as s: s.connect(("192.0.2.1", 80))
def test_dials_out_over_ipv6():
    with socket.socket(socket.AF_INET6) as s: s.connect(("2001:db8::1", 80))
def test_dials_quietly():
    with socket.socket() as s: s.connect_ex(("0.0.0.0", 80))
def test_sends_a_datagram():
    with socket.socket(type=socket.SOCK_DGRAM) as s: s.sendto(b"", ("192.0.2.1", 53))
def test_sends_a_message():
    with socket.socket(type=socket.SOCK_DGRAM) as s: s.sendmsg([b""], [], 0, ("192.0.2.1", 53))
def test_looks_up_the_name_of_an_address(): socket.gethostbyaddr("192.0.2.1")
def test_looks_up_the_name_of_an_address_and_a_port(): socket.getnameinfo(("192.0.2.1", 80), 0)
def test_looks_up_a_name(): socket.getaddrinfo("worker.example", 443)
def test_looks_up_a_name_in_the_old_way(): socket.gethostbyname("worker.example")
def test_hides_it():
    with socket.socket() as s, pytest.raises(AssertionError, match="loopback only, not '192.0.2.1'"):
        s.connect(("192.0.2.1", 80))
def test_swallows_it():
    with socket.socket() as s:
        try: s.connect(("192.0.2.1", 80))
        except Exception: pass
def test_trio():
    async def main(): await trio.open_tcp_stream("worker.example", 443)
    trio.run(main)
def test_trio_in_a_group():
    async def main():
        async with trio.open_nursery() as nursery: nursery.start_soon(trio.open_tcp_stream, "192.0.2.1", 443)
    trio.run(main)
def test_asyncio():
    async def main(): await asyncio.open_connection("192.0.2.1", 443)
    asyncio.run(main())
def test_a_client_without_options():
    with vastroute_io.blocking.Client(key="real") as client: client.call(*CALL)
"""
ALLOWED = """
def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.getpeername() == server.getsockname()
def test_loopback_in_bytes():
    with socket.socket() as s: assert s.connect_ex((b"127.0.0.1", 1))
def test_messages():
    one, other = socket.socketpair()
    with one, other: assert one.sendmsg([b"x"]) == 1
    with socket.socket(type=socket.SOCK_DGRAM) as s: s.sendmsg([b""], [], 0, ("127.0.0.1", 9))
def test_malformed():
    with socket.socket() as s, pytest.raises(TypeError, match="AF_INET"): s.connect(5)
def test_names_of_what_is_here():
    assert socket.getfqdn("127.0.0.1")
    assert socket.getnameinfo(("192.0.2.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == ("192.0.2.1", "80")
def test_pair():
    for end in socket.socketpair(): end.close()
def test_numbers(): assert socket.getaddrinfo("192.0.2.1", 80) and socket.getaddrinfo(None, 80)
def test_localhost(): assert socket.getaddrinfo("localhost", 80)
"""
EACH = 'pytestmark = pytest.mark.usefixtures("vast_no_network")\n'
OURS = 'pytestmark = pytest.mark.usefixtures("vast_engine")\n'
WAYS = {"fixture": (EACH, ()), "engine": (OURS, ()), "setting": ("", ("-o", "vast_no_network=true"))}


@pytest.mark.parametrize("way", WAYS)
def test_what_leads_away_is_refused(pytester: pytest.Pytester, way: str) -> None:
    head, args = WAYS[way]
    result = run(pytester, head + FORBIDDEN, *args)
    result.assert_outcomes(failed=FORBIDDEN.count("def test_"))


@pytest.mark.parametrize("way", WAYS)
def test_what_tests_need_is_not(pytester: pytest.Pytester, way: str) -> None:
    head, args = WAYS[way]
    result = run(pytester, head + ALLOWED, *args)
    result.assert_outcomes(passed=ALLOWED.count("def test_"))


def test_fixtures_are_guarded_too(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        """
        def leave():
            try: socket.getaddrinfo("worker.example", 443)
            except AssertionError: pass

        @pytest.fixture
        def early(): leave()
        @pytest.fixture
        def late():
            yield
            leave()

        def test_early(early): pass
        def test_late(late): pass
        def test_well_behaved(): pass
        """,
        "-o",
        "vast_no_network=true",
    )
    result.assert_outcomes(errors=2, passed=2)


@pytest.mark.parametrize("way", ["engine", "setting"])
def test_the_mark_lets_a_test_out(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port: [host, port])  # in place of the world
    head, args = WAYS[way]
    result = run(
        pytester,
        head
        + """
@pytest.mark.vast_network
def test_out(): assert socket.getaddrinfo("worker.example", 443) == ["worker.example", 443]
def test_after(): socket.getaddrinfo("worker.example", 443)
""",
        *args,
    )
    result.assert_outcomes(passed=1, failed=1)


def test_sockets_are_as_they_were_afterwards(pytester: pytest.Pytester) -> None:
    before = [socket.socket.connect, socket.socket.sendmsg, socket.getaddrinfo, socket.getnameinfo]
    run(pytester, "def test(vast_engine): pass\n", "-o", "vast_no_network=true").assert_outcomes(passed=1)
    run(pytester, "def test(vast_engine): pass\n").assert_outcomes(passed=1)
    assert [socket.socket.connect, socket.socket.sendmsg, socket.getaddrinfo, socket.getnameinfo] == before
