"""Every embedding sends the key and the work to whom they are for, and trusts whom it should."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

import attrs
import pytest

from embedding.libraries import load
from embedding.worlds import AUTHORITIES, POLICY, PROXIES, World, engine_of
from vastroute import (
    ConnectionFailed,
    FailureKind,
    Guard,
    Headers,
    HttpRequest,
    LimitReached,
    Outcome,
    Phase,
    UnexpectedAnswer,
    read_worker_root,
)
from vastroute_testing import (
    TEST_KEY,
    Head,
    LoopbackThread,
    Redirect,
    Schedule,
    SimulatedEngine,
    TestAuthority,
    WorkerPlan,
    answer,
)

# --- where the key goes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(world: World, status: int) -> None:
    with LoopbackThread(lambda request, now: answer(200, at=now)) as elsewhere:
        engine = engine_of(faults={("my-endpoint", 1): Redirect(f"{elsewhere.url}/route/", status=status)})
        with LoopbackThread(engine) as loopback:
            route = world.route(loopback)
            with pytest.raises(UnexpectedAnswer, match="redirect"):
                world.drive(route)
            loopback.wait_idle()
        assert elsewhere.opened == 0
    assert len(engine.requests) == 1


def test_a_redirecting_worker_gets_the_work_once(world: World) -> None:
    with LoopbackThread(lambda request, now: answer(200, at=now)) as elsewhere:
        engine = engine_of(WorkerPlan(faults={("/echo", 1): Redirect(elsewhere.url)}))
        with LoopbackThread(engine) as loopback:
            call = world.call(loopback)
            with pytest.raises(UnexpectedAnswer, match="redirect"):
                world.drive(call)
        assert elsewhere.opened == 0


def test_credentials_of_a_netrc_file_are_not_sent(world: World, tmp_path: Path) -> None:
    for name in ("netrc", ".netrc", "_netrc"):
        (tmp_path / name).write_text("machine 127.0.0.1 login someone password else\n")
        (tmp_path / name).chmod(0o600)
    engine = engine_of()
    with LoopbackThread(engine) as loopback:
        call = world.call(loopback)
        world.drive(call)
    assert [ask.headers.get("authorization") for ask in engine.requests] == [f"Bearer {TEST_KEY}"]
    (sent,) = engine.workers[0].requests
    assert sent.headers.get("authorization") is None


def test_proxies_of_the_environment_are_not_used(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with LoopbackThread(lambda request, now: answer(502, at=now)) as proxy, LoopbackThread(engine_of()) as loopback:
        for name in PROXIES[:3]:
            monkeypatch.setenv(name, proxy.url)
            monkeypatch.setenv(name.upper(), proxy.url)
        call = world.call(loopback)
        world.drive(call)
        assert proxy.opened == 0
    assert call.result().data == {"echo": {"n": 1}}


def test_no_cookie_is_kept(world: World) -> None:
    asks: list[HttpRequest] = []
    engine = engine_of(ready_after=0.1)

    def with_cookies(request: HttpRequest, now: float) -> Schedule:
        asks.append(request)
        head, *rest = engine.serve(request, now=now)
        assert isinstance(head, Head)
        return (attrs.evolve(head, headers=Headers([*head.headers, ("set-cookie", "seen=1")])), *rest)

    with LoopbackThread(with_cookies) as loopback:
        world.drive(world.route(loopback))
    assert len(asks) >= 2
    assert [ask.headers.get("cookie") for ask in asks] == [None] * len(asks)


@pytest.mark.parametrize(
    ("url", "guard", "switch"),
    [
        (None, Guard(allow_private_address=True), "allow_plain_http"),
        (None, Guard(allow_plain_http=True), "allow_private_address"),
        ("http://localhost:40001", Guard(allow_plain_http=True), "allow_proxied_names"),
    ],
)
def test_the_guard_is_asked(world: World, url: str | None, guard: Guard, switch: str) -> None:
    engine = engine_of()
    with LoopbackThread(engine) as loopback:
        if url is not None:
            engine.workers[0].url = url
        call = world.call(loopback, guard=guard)
        with pytest.raises(ConnectionFailed) as caught:
            world.drive(call)
        loopback.wait_idle()
    error = caught.value
    assert (error.kind, error.limit, error.outcome) == (FailureKind.GUARD, switch, Outcome.NOT_SENT)
    assert len(engine.workers[0].requests) == 0


# --- TLS --------------------------------------------------------------------------------------------------------------


@contextmanager
def serve_tls(
    world: World, engine: SimulatedEngine, authorities: dict[Phase, TestAuthority]
) -> Iterator[LoopbackThread]:
    """Sockets for the engine and its worker, each under a root of its own."""
    (worker,) = engine.workers
    with LoopbackThread(worker, ssl_context=authorities[Phase.WORKER].server_context()) as at_worker:
        worker.url = at_worker.url
        world.listening.append(at_worker)
        servers = {"engine": engine}
        with LoopbackThread(servers, ssl_context=authorities[Phase.ROUTE].server_context()) as at_engine:
            yield at_engine
            world.settle()


def test_each_hop_is_trusted_by_its_own_root(world: World) -> None:
    with serve_tls(world, engine_of(), AUTHORITIES) as loopback:
        call = world.call(loopback, guard=Guard(allow_private_address=True))
        world.drive(call)
        assert call.result().data == {"echo": {"n": 1}}


def test_whom_the_page_trusts(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = tmp_path / "system.pem"
    system.write_bytes(AUTHORITIES[Phase.ROUTE].pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))  # which stands for the system's
    root = read_worker_root(AUTHORITIES[Phase.WORKER].pem, pins=None)
    use = load("use.py")
    if world.library.takes_files:
        world.roots = use.files(root, tmp_path / "worker.pem")
        assert world.roots[Phase.ROUTE] is True
        world.roots[Phase.ROUTE] = str(system)  # these have roots of their own
    else:
        world.roots = use.contexts(root)
        assert len(world.roots[Phase.WORKER].get_ca_certs()) == 1
    guard = Guard(allow_private_address=True)
    with serve_tls(world, engine_of(WorkerPlan(pace=0.0)), AUTHORITIES) as loopback:
        if world.library.is_async:
            call = world.call(loopback, guard=guard)
            world.drive(call)
            assert call.result().status == 200
        else:
            drive = world.library.load().drive
            assert use.hello(drive, world.roots, world.route(loopback), guard=guard).status == 200
            assert capsys.readouterr().out == "You said: Hello"


def test_a_worker_under_another_root_gets_nothing(world: World) -> None:
    engine = engine_of()
    with serve_tls(world, engine, AUTHORITIES | {Phase.WORKER: AUTHORITIES[Phase.ROUTE]}) as loopback:
        policy = attrs.evolve(POLICY, max_reroutes=0)
        call = world.call(loopback, guard=Guard(allow_private_address=True), policy=policy)
        with pytest.raises(LimitReached) as caught:
            world.drive(call)
    assert (caught.value.kind, caught.value.limit) == (FailureKind.TLS, "max_reroutes")
    assert "may have run" not in str(caught.value)
    assert len(engine.workers[0].requests) == 0


def test_an_engine_under_another_root_gets_no_key(world: World) -> None:
    engine = engine_of()
    with serve_tls(world, engine, AUTHORITIES | {Phase.ROUTE: AUTHORITIES[Phase.WORKER]}) as loopback:
        route = world.route(loopback)
        with pytest.raises(ConnectionFailed) as caught:
            world.drive(route)
    assert (caught.value.kind, caught.value.outcome) == (FailureKind.TLS, Outcome.NOT_SENT)
    assert len(engine.requests) == 0


# --- what the page says -----------------------------------------------------------------------------------------------


def test_a_session_of_requests_would_replace_the_key_by_what_netrc_says(tmp_path: Path) -> None:
    requests = import_module("requests")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login someone password else\n")
    (tmp_path / "netrc").chmod(0o600)
    engine = engine_of()
    with LoopbackThread(engine) as loopback:
        requests.post(f"{loopback.url}/route/", headers={"authorization": f"Bearer {TEST_KEY}"}, data=b"{}").close()
    (ask,) = engine.requests
    assert (ask.headers.get("authorization") or "").startswith("Basic ")
