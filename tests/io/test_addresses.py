"""Where workers may be: a grant's address is looked at as it is written, and again where its name resolves to."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import pytest
import trio

from vastroute import (
    Advice,
    CallFailed,
    ConnectionFailed,
    FailureKind,
    Guard,
    LimitReached,
    Origin,
    Outcome,
    Phase,
    RetryPolicy,
)
from vastroute_io.addresses import allowed, check_proxied, written
from vastroute_io.proxies import Proxy
from vastroute_testing import SimulatedEndpoint, SimulatedEngine, TestAuthority

from .worlds import LOOPBACK, TrioWorld, World, assert_tidy, engine_of

NAMED = Origin.parse("https://worker.example:4000")


def rows(*addresses: str) -> list[tuple[Any, ...]]:
    """What ``getaddrinfo`` gives."""
    return [
        (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 4000))
        for address in addresses
    ]


# --- the list --------------------------------------------------------------------------------------------------------


def test_what_is_allowed_keeps_its_order_and_stands_once() -> None:
    found = rows("2a00::1", "198.51.101.1", "10.0.0.1", "198.51.101.1", "::1", "1.1.1.1")
    assert allowed(found, NAMED, Guard()) == ["2a00::1", "198.51.101.1", "1.1.1.1"]
    everything = ["2a00::1", "198.51.101.1", "10.0.0.1", "::1", "1.1.1.1"]
    assert allowed(found, NAMED, Guard(allow_private_address=True)) == everything
    assert allowed(found, NAMED, None) == everything


def test_if_none_is_allowed_the_first_reason_is_told() -> None:
    with pytest.raises(ConnectionFailed, match=r"worker\.example:4000 \(169\.254\.169\.254\)") as caught:
        allowed(rows("169.254.169.254", "10.0.0.1"), NAMED, Guard())
    assert (caught.value.kind, caught.value.limit) == (FailureKind.GUARD, "allow_metadata_address")
    assert (caught.value.advice, caught.value.outcome) == (Advice.ALLOW, Outcome.NOT_SENT)


@pytest.mark.parametrize("guard", [Guard(), None])
def test_a_name_without_an_address(guard: Guard | None) -> None:
    with pytest.raises(OSError, match=r"worker\.example has no address"):
        allowed([], NAMED, guard)


def test_an_address_with_a_zone_is_bound_to_a_link() -> None:
    with pytest.raises(ConnectionFailed, match="allow_private_address"):
        allowed(rows("fe80::1%eth0"), NAMED, Guard())


def test_through_a_proxy_a_name_is_the_proxys_to_resolve() -> None:
    proxy = Proxy.parse("http://127.0.0.1:3128")
    with pytest.raises(ConnectionFailed, match="allow_proxied_names"):
        check_proxied(NAMED, Guard(), proxy)
    check_proxied(NAMED, Guard(allow_proxied_names=True), proxy)
    check_proxied(Origin.parse("https://1.1.1.1:4000"), Guard(), proxy)
    check_proxied(NAMED, Guard(), None)
    check_proxied(NAMED, None, proxy)


# --- as it is written ------------------------------------------------------------------------------------------------

REFUSED: Sequence[tuple[str, Guard, str]] = [
    ("https://127.0.0.1:4000", Guard(), "allow_private_address"),
    ("https://10.1.2.3:4000", Guard(), "allow_private_address"),
    ("https://[::1]:4000", Guard(), "allow_private_address"),
    ("https://[::ffff:10.0.0.1]:4000", Guard(), "allow_private_address"),
    ("https://0x7f000001:4000", Guard(), "allow_private_address"),
    ("https://2130706433:4000", Guard(), "allow_private_address"),
    ("https://169.254.169.254", Guard(), "allow_metadata_address"),
    ("https://169.254.169.254", LOOPBACK, "allow_metadata_address"),
    ("https://[fd00:ec2::254]", LOOPBACK, "allow_metadata_address"),
    ("http://1.1.1.1:4000", Guard(), "allow_plain_http"),
    ("http://1.1.1.1:4000", Guard(allow_private_address=True), "allow_plain_http"),
    ("https://1.1.1.1:22", LOOPBACK, "allow_any_port"),
]


@pytest.mark.parametrize(("url", "guard", "switch"), REFUSED, ids=str)
async def test_a_grant_that_leads_where_it_may_not(world: World, url: str, guard: Guard, switch: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", worker_urls=(url,)))
    async with world.client(engine, guard=guard) as client:
        assert (await client.route("demo")).grant.url == url, "a bare route hands it over"
        with pytest.raises(ConnectionFailed, match=switch) as caught:
            await client.call("demo", "/echo", {})
        error = caught.value
        assert (error.kind, error.limit, error.advice) == (FailureKind.GUARD, switch, Advice.ALLOW)
        assert (error.phase, error.outcome) == (Phase.WORKER, Outcome.NOT_SENT)
        with pytest.raises(ConnectionFailed, match=switch):
            async with client.stream("demo", "/stream", {}):
                raise AssertionError("it is not entered")
        with pytest.raises(ConnectionFailed, match=switch):
            async with client.session("demo"):
                raise AssertionError("it is not entered")
        assert_tidy(client)
    assert world.opened == 1, "nobody connected to it"
    assert engine.asks == 4, "another grant would be no better"


# --- at the address that is dialled ----------------------------------------------------------------------------------


async def test_a_name_that_leads_to_loopback(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen(engine) as at:
        (worker,) = engine.workers
        worker.url = f"http://localhost:{Origin.parse(worker.url).port}"
        async with sockets.client(None, engine=at.url, guard=Guard(allow_plain_http=True)) as client:
            with pytest.raises(ConnectionFailed, match=r"localhost:\d+ \((127\.0\.0\.1|::1)\)") as caught:
                await client.call("demo", "/echo", {})
            assert (caught.value.kind, caught.value.limit) == (FailureKind.GUARD, "allow_private_address")
            assert caught.value.outcome is Outcome.NOT_SENT
            assert_tidy(client)
        assert not worker.requests
        async with sockets.client(None, engine=at.url, guard=LOOPBACK) as client:
            assert (await client.call("demo", "/echo", {})).status == 200
            async with client.session("demo") as session:
                handle = session.handle
                strict = sockets.client(None, engine=at.url, guard=Guard(allow_plain_http=True))
                async with strict, strict.resume_session(handle) as resumed:
                    with pytest.raises(ConnectionFailed) as caught:
                        await resumed.health()
                    assert (caught.value.kind, caught.value.limit) == (FailureKind.GUARD, "allow_private_address")
                    assert (await session.call("/echo", {})).status == 200
                    assert strict.pool.inspect() == {}


async def test_the_engine_is_where_the_caller_says(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen({"engine": engine}) as at:
        url = f"http://localhost:{at.origins['engine'].port}"
        async with sockets.client(None, engine=url, guard=Guard()) as client:
            await client.route("demo")


class Resolver(trio.abc.HostnameResolver):
    """Names that lead where the test says, and somewhere else the next time."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def getaddrinfo(
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - trio's own name
        proto: int = 0,
        flags: int = 0,
    ) -> Any:
        assert host is not None
        self.asked.append(host.decode())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(*row[:4], (row[4][0], int(port or 0))) for row in rows(*answer)]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


def with_resolver(resolver: Resolver, guard: Guard, wanted: str | None) -> None:
    """One call to a worker at a name that `resolver` resolves; `wanted` is the switch that a refusal has to name."""
    sockets = TrioWorld(virtual=False)
    authority = TestAuthority()

    async def main() -> None:
        trio.socket.set_custom_hostname_resolver(resolver)
        engine = engine_of()
        (worker,) = engine.workers
        async with (
            sockets.listen({"engine": engine}) as at_engine,
            sockets.listen({"worker": worker}, ssl_context=authority.server_context("localhost")) as at_worker,
        ):
            worker.url = f"https://localhost:{at_worker.origins['worker'].port}"
            options: dict[str, Any] = {
                "engine": str(at_engine.origins["engine"]),
                "worker_root": authority.pem,
                "guard": guard,
                "policy": RetryPolicy(max_reroutes=0),
            }
            async with sockets.client(None, **options) as client:
                if wanted is None:
                    assert (await client.call("demo", "/echo", {})).status == 200
                else:
                    with pytest.raises(CallFailed, match=wanted) as caught:
                        await client.call("demo", "/echo", {})
                    assert caught.value.limit == wanted
                    assert at_worker.opened == 0
                assert_tidy(client)

    sockets.run(main)
    sockets.check()


def test_a_name_is_resolved_once_and_the_address_dialled() -> None:
    resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
    with_resolver(resolver, Guard(allow_private_address=True), None)
    assert resolver.asked == ["localhost"], "another look could lead elsewhere"


def test_what_is_not_allowed_is_passed_over() -> None:
    with_resolver(Resolver(["169.254.169.254", "127.0.0.1"]), Guard(allow_private_address=True), None)


@pytest.mark.parametrize(
    ("addresses", "guard", "switch"),
    [
        (["127.0.0.1"], Guard(), "allow_private_address"),
        (["10.0.0.1", "::1"], Guard(), "allow_private_address"),
        (["169.254.169.254"], Guard(allow_private_address=True), "allow_metadata_address"),
        (["::ffff:169.254.169.254"], Guard(allow_private_address=True), "allow_metadata_address"),
    ],
    ids=str,
)
def test_a_public_name_that_leads_inside(addresses: Sequence[str], guard: Guard, switch: str) -> None:
    with_resolver(Resolver(addresses), guard, switch)


async def test_a_name_where_nobody_listens(sockets: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    engine = SimulatedEngine(SimulatedEndpoint("demo", worker_urls=(f"http://localhost:{port}",)))
    async with (
        sockets.listen({"engine": engine}) as at,
        sockets.client(None, engine=str(at.origins["engine"]), policy=RetryPolicy(max_reroutes=0)) as client,
    ):
        with pytest.raises(LimitReached) as caught:
            await client.call("demo", "/echo", {})
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectionFailed)
        assert (cause.kind, cause.outcome) == (FailureKind.REFUSED, Outcome.NOT_SENT)
        assert_tidy(client)


async def test_the_next_address_is_tried_where_one_is_dead(sockets: World, monkeypatch: pytest.MonkeyPatch) -> None:
    if sockets.name == "trio":
        return  # it has a resolver for tests: see below
    engine = engine_of()
    async with sockets.listen({"engine": engine}) as at:
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: rows("127.0.0.9", "127.0.0.1"))
        async with sockets.client(None, engine=f"http://localhost:{at.origins['engine'].port}") as client:
            await client.route("demo")
    assert engine.asks == 1


@pytest.mark.parametrize("host", ["1.1.1.1", "2a00::1"])
def test_an_address_is_not_looked_up(host: str) -> None:
    found = written(Origin(scheme="https", host=host, port=4000))
    assert found is not None
    assert [row[4] for row in found] == [(host, 4000)]


@pytest.mark.parametrize("host", ["worker.example", "127.1", "0x7f000001", "2130706433", "1.1.1.1.", "fe80::1%eth0"])
def test_what_a_resolver_has_to_read(host: str) -> None:
    assert written(Origin(scheme="https", host=host, port=4000)) is None


def test_a_dead_address_does_not_end_it() -> None:
    with_resolver(Resolver(["127.0.0.9", "127.0.0.1"]), Guard(allow_private_address=True), None)
