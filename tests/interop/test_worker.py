"""Our clients with the official PyWorker, which checks signatures, behind our engine."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest
import trio

from vastroute import (
    Advice,
    ConnectionFailed,
    EntryKind,
    FailureKind,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Pause,
    Reason,
    Refused,
    RetryPolicy,
    ServerSentEvent,
    SessionGone,
    SessionState,
    SignatureRefused,
    WorkPolicy,
)
from vastroute_io.options import ClientOptions

from .clients import CLIENTS, Client, apart, tell
from .official_worker import FORBIDDEN, forbid_dialling_out
from .stage import KEY, Stage

Run = Callable[[Callable[[Client], Awaitable[None]]], None]
SOON = RetryPolicy(total=20, retry_pause=Pause(first=0.1, factor=1, cap=0.1, floor=0.05), max_reroutes=100)


@pytest.fixture(params=CLIENTS)
def run(request: pytest.FixtureRequest, stage: Stage) -> Run:
    """Runs a story with one client after the other."""

    def runner(story: Callable[[Client], Awaitable[None]]) -> None:
        tell(request.param, stage.options, story)

    return runner


@pytest.fixture
def tag(request: pytest.FixtureRequest) -> str:
    """A name for the payloads of one test."""
    return str(request.node.name)


# --- calls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["plain", "tls"])
def test_a_call(stage: Stage, run: Run, tag: str, endpoint: str) -> None:
    async def story(client: Client) -> None:
        answer = await client.call(endpoint, "/echo", {"tag": tag, "text": "größer 🦭"}, cost=12.5)
        assert (answer.status, answer.data) == (200, {"echo": {"tag": tag, "text": "größer 🦭"}})
        assert (answer.verdict.reason, answer.verdict.form) == (Reason.VERIFIED, "2026-url")
        assert answer.counts.work_attempts == answer.counts.asks == 1
        assert stage.model.count(tag) == 1
        assert stage.grants(answer.request_idx) == (answer.grant.url,)
        assert answer.grant.url == {"plain": stage.worker_url, "tls": stage.tls_worker_url}[endpoint]
        # The worker names it to the engine by the number that came with the grant.
        assert stage.end_of(answer.request_idx)["status"] == "Success"

    run(story)


@pytest.mark.parametrize("endpoint", ["plain", "tls"])
def test_a_stream(stage: Stage, run: Run, tag: str, endpoint: str) -> None:
    async def story(client: Client) -> None:
        payload = {"tag": tag, "count": 4, "pace": 0.1}
        async with client.stream(endpoint, "/stream", payload) as events:
            begun = time.monotonic()
            seen = [await anext(events)]
            early = time.monotonic() - begun
            seen += [event async for event in events]
            late = time.monotonic() - begun
        texts = [event.data for event in seen if isinstance(event, ServerSentEvent)]
        assert [json.loads(text) for text in texts[:-1]] == [{"n": n, "text": f"tökën {n}"} for n in range(4)]
        assert (texts[-1], events.finished) == ("[DONE]", True)
        assert early < 0.3 < late  # piece by piece, as the model makes it
        assert events.result().status == 200

    run(story)


def test_a_slow_model(run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        answer = await client.call("plain", "/slow", {"tag": tag, "seconds": 1.2})
        assert answer.data == {"seconds": 1.2}
        assert answer.counts.seconds_working > 1.2

    run(story)


def test_a_model_that_is_too_slow(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(LimitReached) as caught:
            await client.call("plain", "/slow", {"tag": tag, "seconds": 20}, work_policy=WorkPolicy(first_byte=0.3))
        error = caught.value
        assert (error.limit, error.outcome, error.status) == ("first_byte", Outcome.PERHAPS_STARTED, None)
        # Nothing runs on at our cost: the worker sees that we are gone, and leaves the model.
        assert (await apart(lambda: stage.end_of(error.request_idx)))["status"] == "Cancelled"
        await apart(stage.check_model_is_left)
        assert stage.model.count(tag) == 1

    run(story)


def test_a_model_that_fails(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(Refused) as caught:
            await client.call("plain", "/status", {"tag": tag, "status": "none"})
        error = caught.value
        assert (error.status, error.body, error.outcome) == (500, b"", Outcome.ANSWERED)
        assert stage.model.count(tag) == 1
        assert stage.end_of(error.request_idx)["status"] == "Error"

    run(story)


@pytest.mark.parametrize("status", [400, 404, 409, 422, 500])
def test_a_status_of_the_models_own(stage: Stage, tag: str, status: int) -> None:
    async def main() -> None:
        async with CLIENTS["trio"](**stage.options) as client:
            with pytest.raises(Refused) as caught:
                await client.call("plain", "/status", {"tag": tag, "status": status})
        assert (caught.value.status, caught.value.body) == (status, b'{"status": %d}' % status)
        assert stage.model.count(tag) == 1

    trio.run(main)


def test_a_payload_that_the_worker_refuses(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(Refused) as caught:
            await client.call("plain", "/strict", {"tag": tag})
        error = caught.value
        assert (error.status, error.advice) == (422, Advice.CHECK_INPUT)
        assert "missing parameter" in error.excerpt
        assert len(stage.grants(error.request_idx)) == 1
        assert stage.model.count(tag) == 0
        answer = await client.call("plain", "/strict", {"tag": tag, "prompt": "hello"})
        assert answer.data == {"echo": {"tag": tag, "prompt": "hello"}}

    run(story)


# --- signatures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", ["forged", "moved"])
def test_a_tampered_grant(stage: Stage, run: Run, tag: str, endpoint: str) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(Refused) as caught:
            await client.call(endpoint, "/echo", {"tag": tag}, policy=SOON)
        error = caught.value
        assert (error.status, error.body) == (401, b"")
        assert error.verdict is not None
        assert error.verdict.reason is Reason.NO_MATCH
        assert error.counts is not None
        assert (error.counts.asks, error.counts.work_attempts) == (2, 2)  # one fresh grant, then no more
        assert stage.model.count(tag) == 0
        assert stage.end_of(error.request_idx)["status"] == "Rejected"

    run(story)


def test_one_tampered_grant(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        answer = await client.call("forged once", "/echo", {"tag": tag}, policy=SOON)
        assert answer.verdict.verified
        assert (answer.counts.asks, answer.counts.work_attempts) == (2, 2)
        assert stage.grants(answer.request_idx) == (stage.worker_url, stage.worker_url)
        assert stage.model.count(tag) == 1

    run(story)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_tampered_grant_does_not_reach_the_worker_where_signatures_are_required(
    stage: Stage, tag: str, name: str
) -> None:
    async def story(client: Client) -> None:
        with pytest.raises(SignatureRefused) as refused:
            await client.call("forged", "/echo", {"tag": tag}, policy=SOON)
        assert refused.value.record is not None
        assert EntryKind.SENT not in {entry.kind for entry in refused.value.record}
        answer = await client.call("plain", "/echo", {"tag": tag}, policy=SOON)
        assert answer.verdict.verified

    tell(name, stage.options | ClientOptions(signature="require"), story)


# --- workers that are full, gone, or lost ------------------------------------------------------------------------


def test_a_full_worker_is_asked_again(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        with stage.occupied(f"{tag}, occupant", seconds=1):
            answer = await client.call("plain", "/busy", {"tag": tag}, policy=SOON)
        refusals = [entry.status for entry in answer.record if entry.status not in (None, 200)]
        assert set(refusals) == {429}
        assert answer.counts.workers_lost == len(refusals)
        assert set(stage.grants(answer.request_idx)) == {stage.worker_url}
        assert stage.model.count(tag) == 1

    run(story)


def test_a_full_worker_is_replaced(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        with stage.occupied(f"{tag}, occupant", seconds=1):
            answer = await client.call("both", "/busy", {"tag": tag}, policy=SOON)
        assert stage.grants(answer.request_idx) == (stage.worker_url, stage.tls_worker_url)
        assert answer.grant.url == stage.tls_worker_url
        assert stage.model.count(tag) == 1

    run(story)


def test_a_worker_that_is_gone_is_replaced(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        answer = await client.call("gone", "/echo", {"tag": tag}, policy=SOON)
        assert stage.grants(answer.request_idx)[1:] == (stage.worker_url,)
        assert answer.counts.possible_double_runs == 0

    run(story)


@pytest.mark.parametrize("safe", [False, True])
def test_a_worker_that_dies_at_its_work(stage: Stage, tag: str, safe: bool) -> None:
    endpoint = "mortal, safe to repeat" if safe else "mortal"
    said: list[Any] = []

    async def work() -> None:
        async with CLIENTS["trio"](**stage.options) as client:
            try:
                payload = {"tag": tag, "seconds": 0.5}
                said.append(await client.call(endpoint, "/slow", payload, policy=SOON, safe_to_repeat=safe))
            except ConnectionFailed as error:
                said.append(error)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            await trio.to_thread.run_sync(stage.model.wait_for, tag)
            await trio.to_thread.run_sync(worker.kill)

    with stage.spare_worker(f"mortal {safe}") as worker:
        trio.run(main)
    (end,) = said
    assert stage.model.count(tag) == 1 + safe
    assert end.counts.possible_double_runs == safe
    if safe:
        assert end.grant.url == stage.worker_url
    else:
        assert end.outcome is Outcome.PERHAPS_STARTED
        assert end.kind in {FailureKind.EOF, FailureKind.RESET}


# --- callers that leave ------------------------------------------------------------------------------------------


def test_a_cancelled_call(stage: Stage, tag: str) -> None:
    async def main() -> None:
        async with CLIENTS["trio"](**stage.options) as client, trio.open_nursery() as nursery:
            nursery.start_soon(client.call, "plain", "/slow", {"tag": tag, "seconds": 20})
            await trio.to_thread.run_sync(stage.model.wait_for, tag)
            nursery.cancel_scope.cancel()

    seen = len(stage.worker.lines)
    trio.run(main)
    stage.worker.wait_for("cancelled (client disconnect)", after=seen)
    assert stage.end_of(max(stage.engine.lifetimes))["status"] == "Cancelled"
    stage.check_model_is_left()
    assert stage.model.count(tag) == 1


def test_a_call_that_is_cancelled_in_the_workers_queue_never_reaches_the_model(stage: Stage, tag: str) -> None:
    async def main() -> None:
        async with CLIENTS["trio"](**stage.options) as client, trio.open_nursery() as nursery:
            seen = len(stage.worker.lines)
            nursery.start_soon(client.call, "plain", "/fifo", {"tag": f"{tag}, first", "seconds": 1})
            await trio.to_thread.run_sync(stage.model.wait_for, f"{tag}, first")
            async with trio.open_nursery() as second:
                second.start_soon(client.call, "plain", "/fifo", {"tag": tag})
                index = await trio.to_thread.run_sync(lambda: stage.worker.wait_for("Starting Request", after=seen))
                await trio.to_thread.run_sync(lambda: stage.worker.wait_for("Starting Request", after=index))
                second.cancel_scope.cancel()
            answer = await client.call("plain", "/fifo", {"tag": f"{tag}, last"})
            assert answer.counts.seconds_working > 0.5

    trio.run(main)
    assert [stage.model.count(f"{tag}{each}") for each in (", first", "", ", last")] == [1, 0, 1]


def test_a_stream_that_is_left(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        async with client.stream("plain", "/stream", {"tag": tag, "count": 30, "pace": 0.05}) as events:
            assert isinstance(await anext(events), ServerSentEvent)
        assert not events.finished
        # It reads no more of the model's stream from here on, but lets it run to its own end.
        assert (await apart(lambda: stage.end_of(events.request_idx)))["status"] == "Cancelled"

    run(story)


# --- sessions ----------------------------------------------------------------------------------------------------


def test_a_session(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        seen = len(stage.model.payloads("/closed"))
        async with client.session(
            "plain", lifetime=30, on_close_route="/closed", on_close_payload={"tag": f"{tag}, closed"}
        ) as session:
            made = session.handle
            assert await session.health()
            for number in range(3):
                answer = await session.call("/echo", {"tag": tag, "n": number})
                assert answer.data == {"echo": {"tag": tag, "n": number}}
            async with session.stream("/stream", {"tag": tag, "count": 2}) as events:
                assert len([event async for event in events]) == 3
            counted = session.life.handle
            info = await session.info()
            # Our account of what was stacked up is the worker's own.
            assert info.expiration == pytest.approx(made.expiration + 4 * 30, abs=1e-3)
            assert (counted.sent, counted.doubtful) == (4, 0)
            assert info.on_close_payload == {"tag": f"{tag}, closed"}
            ended = await session.end()
            assert ended.was_open
            assert session.life.state is SessionState.ENDED
            with pytest.raises(LocalProtocolError):
                await session.call("/echo", {"tag": tag})
        assert stage.model.payloads("/closed")[seen:] == [{"tag": f"{tag}, closed", "session_id": made.session_id}]
        assert stage.end_of(made.grant.request_idx)["status"] == "Success"
        async with client.resume_session(made) as late:
            assert not await late.health()
            assert late.life.state is SessionState.LOST

    run(story)


def test_leaving_the_block_ends_a_session(run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        async with client.session("tls", lifetime=30) as session:
            await session.call("/echo", {"tag": tag})
        assert session.life.state is SessionState.ENDED
        async with client.resume_session(session.handle) as late:
            assert not await late.health()

    run(story)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_session_that_is_over_is_asked_about_once(stage: Stage, name: str) -> None:
    async def story(client: Client) -> None:
        async with client.session("plain", lifetime=30) as session:
            pass
        async with client.resume_session(session.handle) as late:
            seen = len(stage.worker.lines)
            with pytest.raises(SessionGone):
                await late.info()
            assert late.life.state is SessionState.LOST
            stage.worker.wait_for("POST /session/get", after=seen)
            assert sum("POST /session/get" in line for line in stage.worker.lines[seen:]) == 1

    tell(name, stage.options | ClientOptions(policy=RetryPolicy(total=2)), story)


def test_a_session_goes_on_in_another_client(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        async with client.session("plain", lifetime=30) as session:
            saved = session.handle.save()
            async with type(client)(**stage.options) as other, other.resume_session(session.handle.load(saved)) as same:
                assert (await same.call("/echo", {"tag": tag})).status == 200
                assert (await same.info()).session_id == session.handle.session_id
            assert not await session.health()

    run(story)


def test_an_unknown_session(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        async with client.session("plain", lifetime=30) as session:
            async with client.resume_session(attrs.evolve(session.handle, session_id="nobodyknows00")) as unknown:
                with pytest.raises(SessionGone) as caught:
                    await unknown.call("/echo", {"tag": tag})
                assert (caught.value.status, unknown.life.state) == (410, SessionState.LOST)
            async with client.resume_session(attrs.evolve(session.handle, session_id="nobodyknows00")) as unknown:
                assert not (await unknown.end()).was_open
            assert await session.health()
        assert stage.model.count(tag) == 0

    run(story)


def test_the_end_of_a_session_cuts_what_is_under_way(stage: Stage, run: Run, tag: str) -> None:
    async def story(client: Client) -> None:
        async with client.session("plain", lifetime=30) as session:
            async with session.stream("/stream", {"tag": tag, "count": 30, "pace": 0.05}) as events:
                await anext(events)
                await session.end()
                with pytest.raises(ConnectionFailed):
                    async for _ in events:
                        pass
            assert not events.finished

    run(story)


def test_no_more_sessions_than_the_worker_has_room_for(stage: Stage, run: Run) -> None:
    async def story(client: Client) -> None:
        async with (
            client.session("plain", lifetime=30),
            client.session("plain", lifetime=30),
            client.session("plain", lifetime=30),
        ):
            with pytest.raises(LimitReached, match="the worker is full") as caught:
                async with client.session("plain", policy=RetryPolicy(max_reroutes=0)):
                    pass
            assert (caught.value.limit, caught.value.status) == ("max_reroutes", 429)

    run(story)


# --- what must not happen ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "arguments"),
    [
        ("socket.connect", (None, ("192.0.2.1", 80))),
        ("socket.connect", (None, ("2001:db8::1", 80, 0, 0))),
        ("socket.bind", (None, ("0.0.0.0", 0))),
        ("socket.getaddrinfo", ("run.vast.ai", 443)),
    ],
)
def test_the_official_worker_is_kept_on_this_machine(
    event: str, arguments: tuple[Any, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PermissionError):
        forbid_dialling_out(event, arguments)
    assert FORBIDDEN in capsys.readouterr().err
    forbid_dialling_out("socket.connect", (None, ("127.0.0.1", 80)))


def test_no_key_reaches_a_worker(stage: Stage) -> None:
    for worker in (stage.worker, stage.tls_worker):
        assert any("POST /" in line for line in worker.lines)
        assert not [line for line in worker.lines if KEY in line]
