"""Streams and sessions of the client without bytes.

That they do what every transport's do, the conformance scripts say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf

import pytest

from vastroute import (
    Answer,
    Cancelled,
    ConnectionFailed,
    Done,
    EntryKind,
    GiveUp,
    InvalidValue,
    LocalProtocolError,
    Refused,
    RouteCall,
    RouteRequest,
    ServerSentEvent,
    SessionGone,
    SessionHandle,
    SessionState,
)
from vastroute_testing import (
    BEGIN,
    TEST_KEY,
    CutStreamAt,
    Drive,
    Hang,
    ManualClock,
    SimulatedEndpoint,
    SimulatedEngine,
    Status,
    WorkerPlan,
)
from vastroute_testing.memory import Client, Session


def client_of(*plans: WorkerPlan) -> Client:
    workers = plans or (WorkerPlan(),)
    return Client(server=SimulatedEngine(SimulatedEndpoint("demo", workers=workers)))


class TestStreams:
    def test_an_event_is_there_when_it_is_sent(self) -> None:
        client = client_of(WorkerPlan(pace=7.0))
        with client.stream("demo", "/stream", {"count": 2}) as events:
            assert events.status == 200
            assert client.clock() == BEGIN
            times = [(client.clock() - BEGIN, event.done) for event in events if isinstance(event, ServerSentEvent)]
        assert times == [(0.0, False), (7.0, False), (14.0, True)]
        assert events.finished

    def test_it_leaves_a_transcript_when_it_is_left(self) -> None:
        client = client_of()
        with client.stream("demo", "/stream", {}) as events:
            assert list(events)
            assert client.transcripts == []
        (transcript,) = client.transcripts
        assert transcript.result() is events.result()
        assert transcript.record == events.record

    def test_one_that_is_left_early_is_cancelled(self) -> None:
        client = client_of()
        with client.stream("demo", "/stream", {"count": 9}) as events:
            next(events)
        for look in (lambda: next(events), events.result):
            with pytest.raises(Cancelled):
                look()
        (transcript,) = client.transcripts
        assert isinstance(transcript.error, Cancelled)
        assert transcript.record[-1].kind is EntryKind.CANCELLED
        events.close()
        assert len(client.transcripts) == 1

    def test_one_that_is_over_stays_over(self) -> None:
        client = client_of()
        with client.stream("demo", "/stream", {"count": 0}) as events:
            assert len(list(events)) == 1
        assert list(events) == []

    def test_one_that_is_cut_raises_after_its_events(self) -> None:
        client = client_of(WorkerPlan(faults={("/stream", 1): CutStreamAt(1)}))
        with client.stream("demo", "/stream", {}) as events:
            next(events)
            with pytest.raises(ConnectionFailed):
                next(events)
        assert isinstance(client.transcripts[0].error, ConnectionFailed)

    def test_what_fails_before_it_begins_leaves_its_transcript_too(self) -> None:
        client = client_of(WorkerPlan(faults={("/stream", 1): Status(403)}))
        with pytest.raises(Refused, match="403"), client.stream("demo", "/stream", {}):
            raise AssertionError("it does not begin")
        assert client.transcripts[0].error is not None


class TestSessions:
    def test_its_whole_life(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        client = Client(server=engine)
        with client.session("demo", lifetime=60.0) as session:
            assert session.call("/echo", {"n": 1}).data == {"echo": {"n": 1}}
            with session.stream("/stream", {"count": 1}) as events:
                assert len(list(events)) == 2
            assert session.health()
            assert session.info().lifetime == 60.0
            assert session.life.kept_until == pytest.approx(BEGIN + 180.0, abs=1.0)
        assert session.life.state is SessionState.ENDED
        assert [request.target for request in engine.workers[0].requests] == [
            "/session/create",
            "/echo",
            "/stream",
            "/session/health",
            "/session/get",
            "/session/end",
        ]
        assert len(client.transcripts) == 6

    def test_one_that_expired_is_gone(self) -> None:
        client = client_of()
        looks: list[Callable[[Session], object]] = [lambda lease: lease.info(), lambda lease: lease.call("/echo", {})]
        for look in looks:
            with client.session("demo", lifetime=10.0) as session:
                client.clock.advance(11.0)
                with pytest.raises(SessionGone):
                    look(session)
                assert session.life.state is SessionState.LOST
        with client.session("demo", lifetime=10.0) as session:
            client.clock.advance(11.0)
            assert not session.health()
            assert session.life.state is SessionState.LOST

    def test_another_client_goes_on_with_it(self) -> None:
        engine = SimulatedEngine(SimulatedEndpoint("demo"))
        first = Client(server=engine)
        with first.session("demo", lifetime=100.0) as session:
            saved = json.loads(json.dumps(session.detach().save()))
        with Client(server=engine, clock=first.clock).resume_session(SessionHandle.load(saved)) as resumed:
            assert resumed.call("/echo", {}).status == 200
        assert engine.asks == 1

    def test_its_end_is_waited_for_five_seconds(self) -> None:
        client = client_of(WorkerPlan(faults={("/session/end", 0): Hang()}))
        with client.session("demo") as session:
            pass
        assert client.clock() == BEGIN + 5.0
        assert session.life.state is SessionState.OPEN

    def test_what_is_misspelt_is_refused(self) -> None:
        client = client_of()
        with pytest.raises(InvalidValue, match="did you mean timeout"):
            client.route("demo", tiemout=3)  # type: ignore[call-arg]
        with client.session("demo") as session, pytest.raises(InvalidValue, match="no option cost"):
            session.call("/echo", {}, cost=3)  # type: ignore[call-arg]


class TestDrive:
    def test_one_that_is_ended_early_is_cancelled(self) -> None:
        clock = ManualClock()
        engine = SimulatedEngine(SimulatedEndpoint("demo", ready_after=inf))
        route = RouteCall(RouteRequest(endpoint="demo"), key=TEST_KEY, rng=lambda: 0.5, deadline=clock() + 900)
        drive = Drive(route, engine, clock)
        assert drive.step()
        with pytest.raises(LocalProtocolError, match="not over yet"):
            drive.transcript()
        drive.end()
        transcript = drive.transcript()
        assert isinstance(transcript.outcome, GiveUp)
        assert isinstance(transcript.error, Cancelled)
        drive.end()
        assert drive.transcript() == transcript
        assert not drive.step()

    def test_the_end_of_one_that_is_over_changes_nothing(self) -> None:
        client = client_of()
        answer = client.call("demo", "/echo", {})
        outcome = client.transcripts[0].outcome
        assert isinstance(outcome, Done)
        assert isinstance(answer, Answer)
        assert outcome.result is answer
