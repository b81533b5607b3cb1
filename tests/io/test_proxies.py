"""HTTP proxies: which one leads where, and CONNECT through a real one, which sees a host name and nothing more."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from vastroute import (
    ConnectionFailed,
    FailureKind,
    Guard,
    InvalidValue,
    LimitReached,
    Origin,
    Outcome,
    RetryPolicy,
)
from vastroute_io.proxies import Proxy, proxy_from_environment
from vastroute_testing import TEST_KEY, SimulatedEndpoint, SimulatedEngine, TestAuthority

from .proxy import open_proxy
from .worlds import LOOPBACK, World, assert_tidy, engine_of

AUTHORITY = TestAuthority()
ONE_TRY = RetryPolicy(max_retries=0, max_reroutes=0)
BASIC = "Basic " + b64encode(b"user:pass:w\xc3\xb6rd").decode()
SERVED = AUTHORITY.server_context("127.0.0.1", "engine.example", "worker.example")
ENGINE = Origin.parse("https://engine.example")


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "authorization"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("http://proxy.example:3128/", "http://proxy.example:3128", None),
        ("proxy.example:3128", "http://proxy.example:3128", None),
        ("http://10.0.0.1:3128", "http://10.0.0.1:3128", None),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://user:pass%3Aw%C3%B6rd@proxy.example:1", "http://proxy.example:1", BASIC),
        ("http://user@proxy.example:1", "http://proxy.example:1", "Basic " + b64encode(b"user:").decode()),
    ],
)
def test_an_address_of_a_proxy(url: str, origin: str, authorization: str | None) -> None:
    proxy = Proxy.parse(url)
    assert proxy.origin == Origin.parse(origin)
    assert proxy.authorization == authorization


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "https://proxy.example:3128",
        "socks5://s3cret:s3cret@proxy.example:1080",
        "http://user:s3cret@proxy.example:99999",
        "http://user:s3cret@:3128",
        "http://user:s3cret@proxy.example:port",
        "http://[user:s3cret@proxy.example",
    ],
)
def test_what_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        Proxy.parse(url)
    assert "s3cret" not in str(caught.value)


def test_its_credentials_do_not_show() -> None:
    assert BASIC not in repr(Proxy.parse("http://user:pass%3Aw%C3%B6rd@proxy.example:1"))


# --- the environment -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "url", "wanted"),
    [
        ({}, "https://run.vast.ai", None),
        ({"HTTPS_PROXY": "http://a:1"}, "https://run.vast.ai", "a"),
        ({"https_proxy": "http://a:1"}, "https://run.vast.ai", "a"),
        ({"HTTPS_PROXY": "http://a:1"}, "http://worker.example", None),
        ({"HTTP_PROXY": "http://a:1"}, "https://run.vast.ai", None),
        ({"HTTP_PROXY": "http://a:1"}, "http://worker.example", "a"),
        ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http://worker.example", None),
        ({"ALL_PROXY": "http://a:1"}, "https://run.vast.ai", "a"),
        ({"ALL_PROXY": "http://a:1"}, "http://worker.example", "a"),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, "https://run.vast.ai", "b"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "*"}, "https://run.vast.ai", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "vast.ai"}, "https://run.vast.ai", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "x, run.vast.ai"}, "https://run.vast.ai", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "run.vast.ai:443"}, "https://run.vast.ai", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "run.vast.ai:444"}, "https://run.vast.ai", "a"),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "n.vast.ai"}, "https://run.vast.ai", "a"),
        ({"HTTPS_PROXY": "http://a:1", "no_proxy": "203.0.113.5"}, "https://203.0.113.5:40000", None),
        ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "::1"}, "https://[::1]:40000", None),
        ({"HTTPS_PROXY": ""}, "https://run.vast.ai", None),
    ],
    ids=str,
)
def test_which_proxy_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, wanted: str | None
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxy_from_environment(Origin.parse(url))
    assert (None if found is None else found.origin.host) == wanted


# --- through a proxy -------------------------------------------------------------------------------------------------


def options_for(engine: str, proxy: Any, **more: Any) -> dict[str, Any]:
    context = AUTHORITY.client_context()
    return {
        "engine": engine,
        "proxy": proxy,
        "ssl_context": context,
        "worker_ssl_context": context,
        "policy": ONE_TRY,
    } | more


async def test_the_proxy_sees_host_names_and_no_request(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen(engine, ssl_context=SERVED) as at:
        (worker,) = engine.workers
        worker_at = Origin.parse(worker.url)
        routes = {"engine.example:443": at.origin.port, f"127.0.0.1:{worker_at.port}": worker_at.port}
        async with (
            open_proxy(sockets, routes) as proxy,
            sockets.client(None, **options_for("https://engine.example", proxy.url)) as client,
        ):
            for _ in range(2):
                answered = await client.call("demo", "/echo", {"x": "s3cret"})
                assert answered.data == {"echo": {"x": "s3cret"}}
            async with client.stream("demo", "/stream", {}) as events:
                assert len([event async for event in events]) == 4
    assert proxy.targets == ["engine.example:443", *[f"127.0.0.1:{worker_at.port}"] * 3]
    seen = b"".join(proxy.heads) + proxy.carried
    assert len(proxy.carried) > 3000, "it carried what it could not read"
    for secret in (TEST_KEY, "s3cret", "/route/", "authorization"):
        assert secret.encode() not in seen.lower()


async def test_credentials_for_the_proxy(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen({"engine": engine}, ssl_context=SERVED) as at:
        routes = {"engine.example:443": at.origins["engine"].port}
        async with open_proxy(sockets, routes, wanted=BASIC.lower()) as proxy:
            url = proxy.url.replace("http://", "http://user:pass%3Aw%C3%B6rd@")
            async with sockets.client(None, **options_for("https://engine.example", url)) as client:
                await client.route("demo")
            async with sockets.client(None, **options_for("https://engine.example", proxy.url)) as client:
                with pytest.raises(ConnectionFailed, match="407") as caught:
                    await client.route("demo")
                assert (caught.value.kind, caught.value.outcome) == (FailureKind.PROXY, Outcome.NOT_SENT)
                assert_tidy(client)
    assert engine.asks == 1
    assert all("proxy-authorization" not in dict(request.headers) for request in engine.requests)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "answered 403"),
        (b"HTTP/1.1 302 Found\r\nlocation: http://x\r\n\r\n", "answered 302"),
        (b"SSH-2.0-nothing\r\n\r\n", "does not speak HTTP"),
        (b"", "closed the connection"),
        (b"HTTP/1.1 200", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n", "bytes of its own"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 20_000, "too long|does not speak HTTP"),
    ],
    ids=["403", "302", "other", "nothing", "cut", "more", "long"],
)
async def test_a_proxy_that_does_not_connect_us(sockets: World, said: bytes, words: str) -> None:
    async with (
        open_proxy(sockets, answer=said) as proxy,
        sockets.client(None, **options_for("https://engine.example", proxy.url)) as client,
    ):
        with pytest.raises(ConnectionFailed, match=words) as caught:
            await client.route("demo")
        assert caught.value.outcome is Outcome.NOT_SENT
        assert_tidy(client)


async def test_a_host_that_is_dead_behind_the_proxy_is_no_fault_of_the_proxys(sockets: World) -> None:
    plans = SimulatedEndpoint("demo", worker_urls=("https://203.0.113.1:4000", "https://203.0.113.2:4000"))
    engine = SimulatedEngine(plans)
    async with sockets.listen({"engine": engine}, ssl_context=SERVED) as at:
        routes = {"engine.example:443": at.origins["engine"].port}
        async with (
            open_proxy(sockets, routes) as proxy,
            sockets.client(None, **options_for("https://engine.example", proxy.url)) as client,
        ):
            with pytest.raises(LimitReached) as caught:
                await client.call("demo", "/echo", {})
            assert caught.value.limit == "max_reroutes"
            assert isinstance(caught.value.__cause__, ConnectionFailed)
            assert caught.value.__cause__.kind is FailureKind.UNREACHABLE


async def test_a_proxy_that_is_not_there(sockets: World) -> None:
    async with open_proxy(sockets) as proxy:
        url = proxy.url
    async with sockets.client(None, **options_for("https://engine.example", url)) as client:
        with pytest.raises(ConnectionFailed) as caught:
            await client.route("demo")
        assert (caught.value.kind, caught.value.outcome) == (FailureKind.REFUSED, Outcome.NOT_SENT)


async def test_the_peer_behind_the_proxy_must_prove_its_name(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen({"engine": engine}, ssl_context=SERVED) as at:
        routes = {"other.example:443": at.origins["engine"].port}
        async with (
            open_proxy(sockets, routes) as proxy,
            sockets.client(None, **options_for("https://other.example", proxy.url)) as client,
        ):
            with pytest.raises(ConnectionFailed) as caught:
                await client.route("demo")
            assert caught.value.kind is FailureKind.TLS
            assert_tidy(client)
    assert not engine.requests


async def test_plain_http_goes_through_a_tunnel_too(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen(engine) as at:
        (worker,) = engine.workers
        ports = (at.origin.port, Origin.parse(worker.url).port)
        async with (
            open_proxy(sockets, {f"127.0.0.1:{port}": port for port in ports}) as proxy,
            sockets.client(None, **options_for(at.url, proxy.url)) as client,
        ):
            assert (await client.call("demo", "/echo", {})).status == 200
        assert all(head.startswith(b"CONNECT ") for head in proxy.heads)


async def test_the_environment_is_looked_at_for_each_connection(
    sockets: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of()
    async with sockets.listen({"engine": engine}, ssl_context=SERVED) as at:
        port = at.origins["engine"].port
        async with open_proxy(sockets, {"engine.example:443": port, f"127.0.0.1:{port}": port}) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            async with sockets.client(None, **options_for("https://engine.example", "environment")) as client:
                await client.route("demo")
            async with sockets.client(None, **options_for(f"https://127.0.0.1:{port}", "environment")) as client:
                await client.route("demo")
            async with sockets.client(None, **options_for(f"https://127.0.0.1:{port}", None)) as client:
                monkeypatch.delenv("NO_PROXY")
                await client.route("demo")
    assert proxy.targets == ["engine.example:443"]
    assert engine.asks == 3


async def test_a_proxy_of_the_environments_that_is_none(sockets: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://user:s3cret@127.0.0.1:1080")
    async with sockets.client(None, **options_for("https://engine.example", "environment")) as client:
        with pytest.raises(InvalidValue, match="has the form http://") as caught:
            await client.route("demo")
        assert "s3cret" not in str(caught.value)
        assert_tidy(client)


@pytest.mark.parametrize(
    ("url", "guard", "switch"),
    [
        ("https://worker.example:4000", LOOPBACK, "allow_proxied_names"),
        ("https://127.0.0.1:4000", Guard(), "allow_private_address"),
        ("https://169.254.169.254:4000", LOOPBACK, "allow_metadata_address"),
    ],
)
async def test_the_guard_stands_before_the_proxy(sockets: World, url: str, guard: Guard, switch: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo", worker_urls=(url,)))
    async with sockets.listen({"engine": engine}, ssl_context=SERVED) as at:
        routes = {"engine.example:443": at.origins["engine"].port}
        async with open_proxy(sockets, routes) as proxy:
            options = options_for("https://engine.example", proxy.url, guard=guard)
            async with sockets.client(None, **options) as client:
                with pytest.raises(ConnectionFailed, match=switch) as caught:
                    await client.call("demo", "/echo", {})
                assert (caught.value.kind, caught.value.limit) == (FailureKind.GUARD, switch)
                assert caught.value.outcome is Outcome.NOT_SENT
    assert proxy.targets == ["engine.example:443"]


async def test_a_name_can_be_allowed(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen(engine, ssl_context=SERVED) as at:
        (worker,) = engine.workers
        routes = {"engine.example:443": at.origin.port, "worker.example:4000": Origin.parse(worker.url).port}
        worker.url = "https://worker.example:4000"
        async with open_proxy(sockets, routes) as proxy:
            guard = Guard(allow_proxied_names=True)
            options = options_for("https://engine.example", proxy.url, guard=guard)
            async with sockets.client(None, **options) as client:
                assert (await client.call("demo", "/echo", {})).status == 200
    assert proxy.targets == ["engine.example:443", "worker.example:4000"]
