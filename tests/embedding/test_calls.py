"""Every embedding through the same calls: what goes well, and workers and engines that fail."""

from __future__ import annotations

import gzip
import random
import time
from typing import Any

import attrs
import pytest

from embedding.worlds import PAUSE, World, engine_of, free_port
from vastroute import (
    ConnectionFailed,
    FailureKind,
    LimitReached,
    Lookup,
    Origin,
    Outcome,
    PublicKey,
    RetryPolicy,
    SignatureMode,
    SignatureRefused,
    UnexpectedAnswer,
    Verifier,
    decode_public_key,
    encode_public_key,
)
from vastroute_testing import (
    TEST_KEY,
    TEST_PUBLIC_KEY,
    BadSignature,
    CloseBeforeHead,
    CutBody,
    Fault,
    Garbage,
    Hang,
    LoopbackThread,
    Padded,
    Schedule,
    Status,
    Work,
    WorkerPlan,
    answer,
)

# --- what goes well ---------------------------------------------------------------------------------------------------


def test_a_route_through_a_cold_start(world: World) -> None:
    engine = engine_of(ready_after=0.1)
    with LoopbackThread(engine) as loopback:
        route = world.route(loopback)
        assert world.drive(route) == []
        loopback.wait_idle()
    result = route.result()
    assert result.counts.polls >= 1
    assert result.grant.url == engine.workers[0].url
    assert engine.load("my-endpoint") == 256, "counted once: every ask had the same request_idx"


def test_a_call_of_both_hops(world: World) -> None:
    engine = engine_of(ready_after=0.05)
    with LoopbackThread(engine) as loopback:
        call = world.call(loopback)
        assert world.drive(call) == []
        loopback.wait_idle()
    assert call.result().data == {"echo": {"n": 1}}
    (worker,) = engine.workers
    (sent,) = worker.requests
    assert sent.headers.get("authorization") is None, "no key for a worker"
    assert {ask.headers.get("authorization") for ask in engine.requests} == {f"Bearer {TEST_KEY}"}
    for request in (*engine.requests, sent):
        assert request.headers.get_all("accept-encoding") == ("identity",)
        assert request.headers.get_all("user-agent") == ("vastroute",)
        assert request.headers.get_all("content-type") == ("application/json",)


def test_a_look_up(world: World) -> None:
    engine = engine_of()
    with LoopbackThread(engine) as loopback:
        world.listening.append(loopback)
        lookup = Lookup(
            encode_public_key(engine=loopback.origin),
            decode_public_key,
            rng=random.random,
            deadline=time.monotonic() + 20,
        )
        assert world.drive(lookup) == []
    assert lookup.result() == PublicKey.load(TEST_PUBLIC_KEY)


def test_a_body_comes_as_it_was_sent(world: World) -> None:
    body = gzip.compress(b"nobody asked for this")

    def packed(work: Work) -> Schedule:
        return answer(200, body, at=work.at, headers={"content-encoding": "gzip", "content-type": "image/png"})

    with LoopbackThread(engine_of(WorkerPlan(models={"/packed": packed}))) as loopback:
        call = world.call(loopback, "/packed")
        world.drive(call)
    assert call.result().body == body


def test_a_large_answer(world: World) -> None:
    body = b"0123456789" * 300_000
    with LoopbackThread(engine_of(WorkerPlan(models={"/big": lambda work: answer(200, body, at=work.at)}))) as loopback:
        call = world.call(loopback, "/big")
        world.drive(call)
        loopback.wait_idle()
    assert call.result().body == body


def test_a_stream(world: World) -> None:
    with LoopbackThread(engine_of()) as loopback:
        call = world.call(loopback, "/stream", {"count": 5}, stream=True)
        events = world.drive(call)
        loopback.wait_idle()
    assert [event.json()["n"] for event in events[:-1]] == [0, 1, 2, 3, 4]
    assert events[-1].done
    assert call.result().status == 200


def test_the_events_of_a_stream_come_before_its_end(world: World) -> None:
    faults = {("/stream", 1): Hang(after_bytes=70)}  # two events, then nothing more
    with LoopbackThread(engine_of(WorkerPlan(faults=faults))) as loopback:
        call = world.call(loopback, "/stream", {"count": 5}, stream=True)
        events = world.drive(call, most=1)
        loopback.wait_idle()
    assert events[0].json()["n"] == 0
    assert not call.over


def test_leaving_a_stream_early_frees_the_connection(world: World) -> None:
    with LoopbackThread(engine_of(WorkerPlan(pace=0.01))) as loopback:
        call = world.call(loopback, "/stream", {"count": 2_000}, stream=True)
        assert len(world.drive(call, most=3)) == 3
        loopback.wait_idle()
    assert not call.over


# --- workers that fail ------------------------------------------------------------------------------------------------


def test_a_worker_that_refuses_connections_is_replaced(world: World) -> None:
    engine = engine_of(WorkerPlan(), WorkerPlan())
    with LoopbackThread(engine) as loopback:
        engine.workers[0].url = f"http://127.0.0.1:{free_port()}"
        call = world.call(loopback)
        world.drive(call)
        loopback.wait_idle()
    counts = call.result().counts
    assert (counts.work_attempts, counts.workers_lost, counts.possible_double_runs) == (2, 1, 0)
    assert engine.load("my-endpoint") == 256


@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.parametrize("fault", [CloseBeforeHead(), CutBody(5)], ids=["before the head", "in the body"])
def test_a_worker_that_dies_of_its_work(world: World, fault: Any, is_safe: bool) -> None:
    engine = engine_of(WorkerPlan(faults={("/echo", 1): fault}), WorkerPlan())
    with LoopbackThread(engine) as loopback:
        call = world.call(loopback, safe_to_repeat=is_safe)
        if is_safe:
            world.drive(call)
            assert call.result().counts.possible_double_runs == 1
        else:
            with pytest.raises(ConnectionFailed) as caught:
                world.drive(call)
            assert caught.value.outcome is Outcome.PERHAPS_STARTED
            assert len(engine.workers[1].requests) == 0, "it may have run, so nobody else runs it"
        loopback.wait_idle()


def test_a_full_worker_is_replaced(world: World) -> None:
    engine = engine_of(WorkerPlan(faults={("/echo", 1): Status(429)}), WorkerPlan())
    with LoopbackThread(engine) as loopback:
        call = world.call(loopback)
        world.drive(call)
        loopback.wait_idle()
    assert call.result().counts.workers_lost == 1


CHUNKED, PLAIN = b"transfer-encoding: chunked\r\n\r\n", b"\r\n"
CUT = {
    "in an event, chunked": CHUNKED + b"f\r\ndata: 1\n\ndata: \r\n",
    "in a chunk": CHUNKED + b"ff\r\ndata: 1\n\n",
    "after an event, chunked": CHUNKED + b"9\r\ndata: 1\n\n\r\n",
    "after an event, below its length": b"content-length: 99\r\n" + PLAIN + b"data: 1\n\n",
    "after an event, without a length": PLAIN + b"data: 1\n\n",
}
WHOLE = {
    "chunked": CHUNKED + b"9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    "with its length": b"content-length: 9\r\n" + PLAIN + b"data: 1\n\n",
    "with its last word": PLAIN + b"data: 1\n\ndata: [DONE]\n\n",
}


@attrs.frozen
class Says(Fault):
    """A stream as these bytes, and then the connection ends."""

    rest: bytes

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return (Garbage(at=now, data=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n" + self.rest),)


@pytest.mark.parametrize("name", [*CUT, *WHOLE])
def test_a_stream_that_is_cut_is_told_from_one_that_is_complete(world: World, name: str) -> None:
    rest = (CUT | WHOLE)[name]
    with LoopbackThread(engine_of(WorkerPlan(faults={("/stream", 1): Says(rest)}))) as loopback:
        call = world.call(loopback, "/stream", stream=True)
        if name in WHOLE:
            assert "1" in [event.data for event in world.drive(call)]
            assert call.result().status == 200
        else:
            with pytest.raises(ConnectionFailed) as caught:
                world.drive(call)
            assert caught.value.outcome is Outcome.PERHAPS_STARTED
        loopback.wait_idle()


# --- the engine -------------------------------------------------------------------------------------------------------


def test_a_busy_engine_says_when_to_come_back(world: World) -> None:
    engine = engine_of(faults={("my-endpoint", 1): Status(503, retry_after=0.1)})
    with LoopbackThread(engine) as loopback:
        route = world.route(loopback)
        world.drive(route)
        loopback.wait_idle()
    assert route.result().counts.retries == 1
    waits = [entry.until - entry.at for entry in route.record if entry.until is not None]
    assert waits == [pytest.approx(0.1)], "the server's word, not the policy's pause"


def test_nobody_at_the_engines_address(world: World) -> None:
    with LoopbackThread(engine_of()) as loopback:
        nobody = Origin.parse(f"http://127.0.0.1:{free_port()}")
        route = world.route(loopback, engine=nobody, policy=RetryPolicy(max_retries=2, retry_pause=PAUSE))
        with pytest.raises(LimitReached) as caught:
            world.drive(route)
    error = caught.value
    assert (error.limit, error.kind, error.outcome) == ("max_retries", FailureKind.REFUSED, Outcome.NOT_SENT)
    assert route.counts.possible_double_loads == 0


def test_a_grant_with_a_bad_signature_is_refused_where_that_is_wanted(world: World) -> None:
    engine = engine_of(faults={("my-endpoint", 1): BadSignature()})
    verifier = Verifier(TEST_PUBLIC_KEY, mode=SignatureMode.REQUIRE)
    with LoopbackThread(engine) as loopback:
        call = world.call(loopback, verifier=verifier)
        with pytest.raises(SignatureRefused):
            world.drive(call)
        loopback.wait_idle()
        again = world.call(loopback, verifier=verifier)
        world.drive(again)
    assert again.result().verdict.verified
    assert len(engine.workers[0].requests) == 1


def test_an_answer_that_is_too_large_is_not_read_to_its_end(world: World) -> None:
    engine = engine_of(faults={("my-endpoint", 1): Padded(10_000_000)})
    with LoopbackThread(engine) as loopback:
        route = world.route(loopback)
        with pytest.raises(UnexpectedAnswer) as caught:
            world.drive(route)
        loopback.wait_idle()
    assert caught.value.limit == "max_body"
