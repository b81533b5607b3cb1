"""Whom the clients trust: real handshakes on loopback, the engine under the system's roots, workers under theirs."""

from __future__ import annotations

import datetime
import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vastroute import (
    CallFailed,
    ConnectionFailed,
    FailureKind,
    HttpRequest,
    InvalidValue,
    LimitReached,
    Origin,
    Outcome,
    Phase,
    RetryPolicy,
    UnexpectedAnswer,
    WorkPolicy,
)
from vastroute_io.tls import engine_context, keep_root, kept_root, worker_context
from vastroute_testing import Schedule, SimulatedEngine, TestAuthority, answer
from vastroute_testing.conformance.verbs import AnyClient

from .proxy import open_proxy
from .worlds import ALLOWED, LOOPBACK, Listening, World, assert_tidy, engine_of

ENGINES, WORKERS, OTHERS = TestAuthority(), TestAuthority(), TestAuthority()
ONE_TRY = RetryPolicy(max_retries=0, max_reroutes=0)


@functools.cache
def server(authority: TestAuthority, *hosts: str) -> ssl.SSLContext:
    return authority.server_context(*hosts)


@asynccontextmanager
async def served(
    sockets: World, engine: SimulatedEngine, *, engine_tls: ssl.SSLContext, worker_tls: ssl.SSLContext
) -> AsyncIterator[tuple[str, Listening]]:
    """The engine's address, and its worker's sockets, each with TLS of its own."""
    (worker,) = engine.workers
    async with sockets.listen({"worker": worker}, ssl_context=worker_tls) as at_worker:
        worker.url = str(at_worker.origins["worker"])
        async with sockets.listen({"engine": engine}, ssl_context=engine_tls) as at_engine:
            yield str(at_engine.origins["engine"]), at_worker


def cause_of(error: CallFailed) -> ConnectionFailed:
    """The failure that ended the one attempt."""
    cause = error.__cause__ if isinstance(error, LimitReached) else error
    assert isinstance(cause, ConnectionFailed)
    return cause


# --- the contexts ----------------------------------------------------------------------------------------------------


def test_the_engines_context_is_strict_and_has_the_systems_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    context = engine_context()
    assert context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("strict", [True, False])
def test_the_workers_context_has_one_root(strict: bool) -> None:
    context = worker_context(WORKERS.pem, strict=strict)
    assert bool(context.verify_flags & ssl.VERIFY_X509_STRICT) is strict
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    (root,) = context.get_ca_certs(binary_form=True)
    assert root == ssl.PEM_cert_to_DER_cert(WORKERS.pem.decode())
    assert worker_context(root).get_ca_certs(binary_form=True) == [root], "DER will do"


@pytest.mark.parametrize(
    "root",
    [b"", b"nonsense", b"\x30\x03abc", b"-----BEGIN CERTIFICATE-----\n\xff", WORKERS.pem[:200]],
    ids=["nothing", "text", "der", "pem", "cut"],
)
def test_what_is_no_root_is_refused(root: bytes) -> None:
    with pytest.raises(InvalidValue, match="no certificate"):
        worker_context(root)


# --- handshakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_file", [False, True])
async def test_engine_and_worker_each_under_their_root(
    sockets: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, as_file: bool
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(ENGINES.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(roots))  # which stands for the system's
    root: Any = WORKERS.pem
    if as_file:
        root = tmp_path / "worker.pem"
        root.write_bytes(WORKERS.pem)
    engine = engine_of()
    tls = {"engine_tls": server(ENGINES), "worker_tls": server(WORKERS, "127.0.0.1")}
    async with (
        served(sockets, engine, **tls) as (url, _),
        sockets.client(engine=url, worker_root=root) as client,
    ):
        for number in range(3):
            answered = await client.call("demo", "/echo", {"n": number})
            assert answered.data == {"echo": {"n": number}}
        async with client.stream("demo", "/stream", {}) as events:
            assert len([event async for event in events]) == 4
        async with client.session("demo") as session:
            assert await session.health()
    assert engine.asks == 5


async def test_the_engine_under_a_root_that_the_system_does_not_have(sockets: World) -> None:
    engine = engine_of()
    tls = {"engine_tls": server(ENGINES), "worker_tls": server(WORKERS)}
    async with served(sockets, engine, **tls) as (url, _):
        # The workers' root is for workers, whatever it has signed.
        for root in (None, ENGINES.pem):
            async with sockets.client(engine=url, policy=ONE_TRY, worker_root=root) as client:
                with pytest.raises(ConnectionFailed) as caught:
                    await client.route("demo")
                assert (caught.value.kind, caught.value.outcome) == (FailureKind.TLS, Outcome.NOT_SENT)
                assert_tidy(client)
    assert not engine.requests


@pytest.mark.parametrize(
    ("authority", "hosts"),
    [(ENGINES, ("127.0.0.1",)), (OTHERS, ("127.0.0.1",)), (WORKERS, ("203.0.113.9",)), (WORKERS, ("localhost",))],
    ids=["the-engines-root", "another-root", "another-address", "a-name"],
)
async def test_a_worker_that_does_not_prove_its_address_under_the_workers_root(
    sockets: World, authority: TestAuthority, hosts: tuple[str, ...]
) -> None:
    engine = engine_of()
    tls = {"engine_tls": server(ENGINES), "worker_tls": server(authority, *hosts)}
    async with served(sockets, engine, **tls) as (url, _):
        options: dict[str, Any] = {"ssl_context": ENGINES.client_context(), "worker_root": WORKERS.pem}
        async with sockets.client(engine=url, policy=ONE_TRY, **options) as client:
            with pytest.raises(CallFailed) as caught:
                await client.call("demo", "/echo", {})
            cause = cause_of(caught.value)
            assert (cause.kind, cause.outcome, cause.phase) == (FailureKind.TLS, Outcome.NOT_SENT, Phase.WORKER)
            assert_tidy(client)
    assert engine.asks == 1
    assert not engine.workers[0].requests


async def test_contexts_of_ones_own(sockets: World) -> None:
    engine = engine_of()
    tls = {"engine_tls": server(ENGINES), "worker_tls": server(OTHERS)}
    options: dict[str, Any] = {
        "ssl_context": ENGINES.client_context(),
        "worker_ssl_context": OTHERS.client_context(),
        "worker_root": WORKERS.pem,
    }
    async with served(sockets, engine, **tls) as (url, _), sockets.client(engine=url, **options) as client:
        assert (await client.call("demo", "/echo", {})).status == 200


async def test_a_server_that_speaks_no_tls(sockets: World) -> None:
    engine = engine_of()
    async with sockets.listen({"engine": engine}) as plain:
        url = str(plain.origins["engine"]).replace("http:", "https:")
        async with sockets.client(engine=url, policy=ONE_TRY, ssl_context=ENGINES.client_context()) as client:
            with pytest.raises(ConnectionFailed) as caught:
                await client.route("demo")
            assert caught.value.outcome is Outcome.NOT_SENT
            assert caught.value.kind in {FailureKind.TLS, FailureKind.EOF, FailureKind.RESET}
            assert_tidy(client)
    assert not engine.requests


# --- the finer rules of X.509 ----------------------------------------------------------------------------------------


def old_root() -> tuple[bytes, ssl.SSLContext]:
    """A root shaped like that of 2022, which names no key usage (wire facts, section 6), and a server under it."""
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.UTC)
    key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old root")])

    def build(subject: x509.Name, public: Any) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().issuer_name(name).subject_name(subject).public_key(public)
        builder = builder.serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - day).not_valid_after(now + day)

    root = build(name, key.public_key()).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "worker")])
    alternative = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    leaf = build(subject, leaf_key.public_key()).add_extension(alternative, critical=False)
    signed = leaf.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = leaf_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return root.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), _server(signed, private)


def _server(certificate: bytes, key: bytes) -> ssl.SSLContext:
    import tempfile

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        path.write_bytes(key + certificate)
        context.load_cert_chain(path)
    return context


@pytest.mark.parametrize("strict", [True, False])
async def test_a_certificate_that_breaks_them(sockets: World, strict: bool) -> None:
    engine = engine_of()
    root, worker_tls = old_root()
    options: dict[str, Any] = {"ssl_context": ENGINES.client_context(), "worker_root": root, "policy": ONE_TRY}
    async with (
        served(sockets, engine, engine_tls=server(ENGINES), worker_tls=worker_tls) as (url, _),
        sockets.client(engine=url, strict_worker_tls=strict, **options) as client,
    ):
        if strict:
            with pytest.raises(CallFailed) as caught:
                await client.call("demo", "/echo", {})
            assert cause_of(caught.value).kind is FailureKind.TLS
        else:
            assert (await client.call("demo", "/echo", {})).status == 200


# --- the workers' root, fetched --------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the root is kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vastroute" / "worker-root.der"


def kept(cache: Path) -> bytes | None:
    return cache.read_bytes() if cache.exists() else None


@asynccontextmanager
async def behind_a_proxy(
    sockets: World, engine: SimulatedEngine, served_root: Any, **options: Any
) -> AsyncIterator[AnyClient]:
    """A client that reaches production's console, and all else, through a proxy which leads to loopback."""
    (worker,) = engine.workers
    tls = server(ENGINES, "console.vast.ai", "127.0.0.1")
    async with (
        served(sockets, engine, engine_tls=tls, worker_tls=server(WORKERS)) as (url, _),
        sockets.listen({"console": served_root}, ssl_context=tls) as at_console,
    ):
        here = [Origin.parse(url), Origin.parse(worker.url)]
        routes = {f"127.0.0.1:{origin.port}": origin.port for origin in here}
        routes["console.vast.ai:443"] = at_console.origins["console"].port
        async with open_proxy(sockets, routes) as proxy:
            defaults: dict[str, Any] = {
                "engine": url,
                "console": "https://console.vast.ai",
                "ssl_context": ENGINES.client_context(),
                "proxy": proxy.url,
                "guard": ALLOWED,
            }
            client = sockets.client(None, **defaults | options)
            async with client:
                yield client


class Console:
    """Production's console, as far as it serves the root."""

    def __init__(self, root: bytes | None) -> None:
        self.requests: list[HttpRequest] = []
        self._root = root

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        self.requests.append(request)
        return () if self._root is None else answer(200, self._root, at=now)


@pytest.mark.parametrize("root", [WORKERS.pem, b"<html>"], ids=["a-root", "a-page"])
async def test_a_root_that_is_not_pinned_is_refused(sockets: World, cache: Path, root: bytes) -> None:
    keep_root(root)  # what an earlier process left is looked at like any other
    console, engine = Console(root), engine_of()
    async with behind_a_proxy(sockets, engine, console) as client:
        for _ in range(2):
            with pytest.raises(UnexpectedAnswer) as caught:
                await client.call("demo", "/echo", {})
            assert (caught.value.phase, caught.value.kind) == (Phase.LOOKUP, None)
            assert_tidy(client)
        await client.route("demo")
    assert [request.target for request in console.requests] == ["/static/jvastai_root.cer"] * 2
    assert all(request.headers.get("authorization") is None for request in console.requests)
    assert engine.asks == 1, "a worker is asked for once it can be trusted"
    assert not engine.workers[0].requests
    assert kept(cache) == root


@pytest.mark.parametrize("options", [{"console": None}, {"guard": LOOPBACK}], ids=["another-engine", "plain-http"])
async def test_the_root_is_not_fetched_before_it_is_needed(
    sockets: World, cache: Path, options: dict[str, Any]
) -> None:
    console, engine = Console(b"<html>"), engine_of()
    async with behind_a_proxy(sockets, engine, console, **options) as client:
        with pytest.raises(UnexpectedAnswer) as caught:
            await client.call("demo", "/echo", {})
        assert caught.value.phase is Phase.LOOKUP
        assert_tidy(client)
    assert engine.asks == 1
    assert len(console.requests) == 1
    assert kept(cache) is None


async def test_the_root_is_not_fetched_where_it_is_given(sockets: World, cache: Path) -> None:
    console, engine = Console(None), engine_of()
    async with behind_a_proxy(sockets, engine, console, worker_root=WORKERS.pem) as client:
        assert (await client.call("demo", "/echo", {})).status == 200
    assert not console.requests
    assert kept(cache) is None


async def test_the_fetch_is_within_the_calls_time(sockets: World, cache: Path) -> None:
    console, engine = Console(None), engine_of()
    async with behind_a_proxy(sockets, engine, console) as client:
        began = sockets.now()
        with pytest.raises(LimitReached) as caught:
            await client.call("demo", "/echo", {}, timeout=0.1)
        assert (caught.value.limit, caught.value.phase) == ("total", Phase.LOOKUP)
        assert 0.05 < sockets.now() - began < 3
        assert_tidy(client)
    assert engine.asks == 0
    assert kept(cache) is None


async def test_a_fetch_that_a_worker_waits_for_is_within_its_limit(sockets: World, cache: Path) -> None:
    console, engine = Console(None), engine_of()
    async with behind_a_proxy(sockets, engine, console, console=None) as client:
        began = sockets.now()
        with pytest.raises(CallFailed):
            await client.call("demo", "/echo", {}, work_policy=WorkPolicy(connecting=0.1), policy=ONE_TRY)
        assert 0.05 < sockets.now() - began < 3
        assert_tidy(client)
    assert not engine.workers[0].requests
    assert kept(cache) is None


def test_the_root_is_kept_in_the_cache_folder(cache: Path) -> None:
    assert kept_root() is None
    keep_root(b"one")
    assert cache.read_bytes() == b"one"
    keep_root(b"another")
    assert cache.read_bytes() == b"another"
    assert kept_root() is None, "it is not pinned"
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_the_cache_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    keep_root(b"root")
    assert (tmp_path / ".cache" / "vastroute" / "worker-root.der").read_bytes() == b"root"


def test_where_there_is_no_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    keep_root(b"root")
    assert kept_root() is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    keep_root(b"root")
    assert kept_root() is None


def test_nothing_is_left_over_where_it_cannot_be_kept(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "occupied").touch()
    keep_root(b"root")
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
