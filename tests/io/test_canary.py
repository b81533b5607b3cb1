"""A key that is a canary: it flies through every flow, and may be seen in the Authorization header to its own servers.

Nowhere else: not in a byte to a worker, a request line, a text or repr, a record, a pickle, a warning or a log.
"""

from __future__ import annotations

import json
import logging
import pickle
import traceback
import warnings
from base64 import b64encode
from collections.abc import Awaitable, Iterator
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from vastroute import (
    CONSOLE,
    ENGINE,
    CallFailed,
    HttpRequest,
    Limits,
    LocalProtocolError,
    Origin,
    RetryPolicy,
    SessionHandle,
    WorkPolicy,
)
from vastroute_testing import Fault, Schedule, SimulatedEndpoint, SimulatedEngine, WorkerPlan, answer
from vastroute_testing.conformance.scripts.comparing import BY_BYTES, FAULTS
from vastroute_testing.conformance.verbs import AnyClient

from .worlds import Streaming, World

MARK = "c4n4ry"
CANARY = f'{MARK}/"k3y\\+=%41{MARK}'
PLAIN = f"0123456789{MARK}"
OTHER = f"0ther-{MARK}"
"""The account's key."""
SPELLINGS = (MARK, MARK.upper(), quote(MARK), b64encode(CANARY.encode()).decode()[:12])
POLICY = RetryPolicy(max_retries=2, max_reroutes=1, total=100)
WORK = WorkPolicy(first_byte=20, silence=10, working=30)
MORE = {"refuse", "close", "hang", "307", "401", "500", "bad-json", "too-large", "no-field", "other-index", "refusal"}
MORE |= {"signature", "strange-url"}
LIMITS = Limits(max_body=2048)


def shows(data: bytes | str) -> bool:
    text = data.decode("latin-1") if isinstance(data, bytes) else data
    return any(spelling in text for spelling in SPELLINGS)


@attrs.define
class Tapped:
    """A stream whose bytes are kept."""

    inner: Streaming
    sent: bytearray

    async def send(self, data: bytes) -> None:
        self.sent += data
        await self.inner.send(data)

    async def receive(self, most: int) -> bytes:
        return await self.inner.receive(most)

    async def close(self) -> None:
        await self.inner.close()


class Cage:
    """All that comes out of the clients."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.texts: list[str] = []
        self.wires: list[tuple[Origin, bytearray]] = []

    def client(self, servers: Any, **options: Any) -> AnyClient:
        async def opens(origin: Origin) -> Streaming:
            self.wires.append((origin, bytearray()))
            return Tapped(await self.world.stream(servers, origin), self.wires[-1][1])

        defaults: dict[str, Any] = {"policy": POLICY, "work_policy": WORK, "limits": LIMITS, "observer": self.see}
        client = self.world.client(connect=self.world.connect(opens), **defaults | options)
        self.see(client)
        return client

    def see(self, thing: Any) -> None:
        """Keep what `thing` shows of itself."""
        self.texts += [repr(thing), str(thing)]
        if isinstance(thing, CallFailed):
            pickled = pickle.dumps(thing)
            self.texts += [repr(vars(thing)), pickled.decode("latin-1"), str(pickle.loads(pickled))]
            self.texts += [json.dumps(entry.as_dict()) for entry in thing.record or ()]

    async def catch(self, work: Awaitable[Any]) -> Any:
        """What `work` gives or raises, and keep what that shows."""
        try:
            result = await work
        except (CallFailed, LocalProtocolError) as error:
            self.texts += traceback.format_exception_only(error)
            chain: BaseException | None = error
            while chain is not None:
                self.see(chain)
                chain = chain.__cause__ or chain.__context__
            return error
        self.see(result)
        if hasattr(result, "record"):
            self.texts += [repr(result.record), *[json.dumps(entry.as_dict()) for entry in result.record]]
        return result

    async def fly(self, client: AnyClient, *, look_ups: bool = True) -> None:
        """Through every verb of `client`."""
        self.see(vars(client))
        await self.catch(client.route("demo"))
        await self.catch(client.call("demo", "/echo", {"a": 1}, safe_to_repeat=True))
        await self.catch(self._stream(client))
        await self.catch(self._session(client))
        if look_ups:
            await self.catch(client.endpoints())
            await self.catch(client.workers("demo"))
            await self.catch(client.fetch_public_key())
        self.see(client.pool.inspect())

    async def _stream(self, client: AnyClient) -> Any:
        stream = client.stream("demo", "/stream", {"count": 2})
        self.see(stream)
        async with stream as events:
            self.see([event async for event in events])
            self.see(events.record)
            return events.result()

    async def _session(self, client: AnyClient) -> Any:
        async with client.session("demo", lifetime=60) as session:
            self.see(session)
            self.see(session.handle)
            saved = session.handle.save()
            self.texts.append(json.dumps(saved))
            self.see(SessionHandle.load(saved))
            await self.catch(session.call("/echo", {"b": 2}))
            await self.catch(session.health())
            await self.catch(session.info())
            return await session.end()

    def check(self, *, key_in_body: bool) -> int:
        """How often the canary was seen where it may be; fails where it may not."""
        for text in self.texts:
            assert not shows(text), text
        seen = 0
        for origin, sent in self.wires:
            if origin not in {ENGINE, CONSOLE}:
                assert not shows(bytes(sent)), f"the key went to {origin}"
                continue
            for line in requests_of(bytes(sent)):
                head, _, body = line.partition(b"\r\n\r\n")
                request_line, *headers = head.split(b"\r\n")
                assert not shows(request_line)
                carriers = [header for header in headers if shows(header)]
                assert all(header.lower().startswith(b"authorization: bearer ") for header in carriers)
                assert len(carriers) <= 1
                if shows(body):
                    target = request_line.split(b" ")[1]
                    assert target == b"/get_endpoint_workers/" or (key_in_body and target == b"/route/")
                seen += len(carriers)
        return seen


def requests_of(sent: bytes) -> Iterator[bytes]:
    """The requests in what went over one connection."""
    while sent:
        head, _, rest = sent.partition(b"\r\n\r\n")
        lengths = [
            int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
        ]
        size = lengths[0] if lengths else 0
        yield head + b"\r\n\r\n" + rest[:size]
        sent = rest[size:]


@pytest.fixture
def outside(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What is logged, warned of and printed is looked at too."""
    caplog.set_level(logging.NOTSET)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert not shows(repr([str(each.message) for each in caught]))
    assert not shows(caplog.text)
    assert not shows("".join(capfd.readouterr()))


def engine(hop: str = "", fault: Fault | tuple[Fault, ...] = (), **options: Any) -> SimulatedEngine:
    paths = ("/echo", "/stream", "/session/create", "/session/get", "/session/health", "/session/end")
    at_work = {(path, 1): fault for path in paths} if hop == "work" else {}
    at_route = {("demo", 1): fault} if hop == "route" else {}
    lists = ("/pubkey/", "/api/v0/endptjobs/", "/get_endpoint_workers/")
    at_lists = {(path, 1): fault for path in lists} if hop == "list" else {}
    plans = [WorkerPlan(faults=at_work) for _ in range(2)]
    endpoint = SimulatedEndpoint("demo", key=CANARY, workers=plans, faults=at_route)
    return SimulatedEngine(endpoint, account_key=OTHER, faults=at_lists, **options)


@pytest.mark.parametrize("key_in_body", [False, True])
@pytest.mark.parametrize("key", [CANARY, OTHER, f"wr0ng-{MARK}"])
@pytest.mark.usefixtures("outside")
async def test_every_flow(world: World, key: str, key_in_body: bool) -> None:
    cage = Cage(world)
    async with cage.client(engine(), key=key, key_in_body=key_in_body) as client:
        await cage.fly(client)
    async with cage.client(engine(), key=key, public_key=None, signature="require", find_key=False) as client:
        await cage.fly(client)
    assert cage.check(key_in_body=key_in_body) > 8


@pytest.mark.parametrize("name", sorted(BY_BYTES | MORE))
async def test_faults_of_a_call(world: World, name: str) -> None:
    for hop in ("route", "work"):
        cage = Cage(world)
        async with cage.client(engine(hop, FAULTS[name]), key=OTHER, public_key=None, fetch_public_key=True) as client:
            await cage.fly(client, look_ups=False)
        assert cage.check(key_in_body=False) >= 2


@pytest.mark.parametrize("name", ["reset", "garbled", "cut-body", "hang", "307", "400", "500", "html", "too-large"])
async def test_faults_of_the_look_ups(world: World, name: str) -> None:
    cage = Cage(world)
    async with cage.client(engine("list", FAULTS[name]), key=OTHER, public_key=None, fetch_public_key=True) as client:
        await cage.fly(client)
    assert cage.check(key_in_body=False) >= 2


def said_of(key: str) -> Iterator[str]:
    """What an engine may say that repeats the key."""
    quoted = json.dumps(key)
    yield f"the key {key} is wrong"
    yield f'{{"error": {quoted}}}'
    yield f'{{"error": {quoted.replace("/", chr(92) + "/")}}}'
    yield f'{{"api_key": {quoted}}}'
    yield f"you sent Authorization: Bearer {key}"
    yield f"<html><body>{key}</body></html>"
    yield f'{{"request_idx": 5, "status": {quoted}, "endpoint": {quoted}, "__request_id": {quoted}}}'
    yield f'{{"error_msg": {quoted}, "__request_id": {quoted}}}'
    yield f'{{"request_idx": 5, "status": {{{quoted}: 3}}}}'
    yield f'{{"request_idx": 5, "url": {quoted}, "signature": {quoted}}}'
    if key == PLAIN:  # one that JSON escapes twice over is another text
        yield json.dumps({"error": json.dumps({"key": key})})
    yield "x" * 150 + key + "y" * 10_000
    yield "x" * 3190 + key + "y" * 10_000


@pytest.mark.parametrize("key", [PLAIN, CANARY])
@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_an_engine_that_repeats_the_key(one_world: World, key: str, status: int) -> None:
    for text in said_of(key):

        def serve(_request: HttpRequest, now: float, text: str = text) -> Schedule:
            return answer(status, text.encode(), at=now)

        cage = Cage(one_world)
        async with cage.client(serve, key=key, find_key=False, limits=Limits()) as client:
            await cage.fly(client)
        assert cage.check(key_in_body=False) > 3


@pytest.mark.parametrize("key", [PLAIN, CANARY])
async def test_an_engine_that_redirects_to_the_key(one_world: World, key: str) -> None:
    for place in (f"https://{PLAIN}.example/", f"/{key}", f"https://x.example/?api_key={key}"):

        def serve(_request: HttpRequest, now: float, place: str = place) -> Schedule:
            return answer(302, at=now, headers={"location": place})

        cage = Cage(one_world)
        async with cage.client(serve, key=PLAIN if PLAIN in place else key, find_key=False) as client:
            await cage.fly(client)
        assert cage.check(key_in_body=False) > 3


async def test_the_canary_is_seen_where_it_flies(world: World) -> None:
    """What would be found, if it were there: the cage itself is sound."""
    cage = Cage(world)
    cage.see(f"the key is {CANARY}")
    with pytest.raises(AssertionError):
        cage.check(key_in_body=False)
    cage.texts.clear()
    cage.wires.append(
        (Origin.parse("https://203.0.113.1:40001"), bytearray(b"POST /x HTTP/1.1\r\nx: " + CANARY.encode()))
    )
    with pytest.raises(AssertionError, match="went to"):
        cage.check(key_in_body=False)
    cage.wires[:] = [(ENGINE, bytearray(f"GET /?api_key={MARK} HTTP/1.1\r\n\r\n".encode()))]
    with pytest.raises(AssertionError):
        cage.check(key_in_body=False)
    cage.wires[:] = [(ENGINE, bytearray(f"GET / HTTP/1.1\r\nx-key: {MARK}\r\n\r\n".encode()))]
    with pytest.raises(AssertionError):
        cage.check(key_in_body=False)
