"""Driving a machine against simulated servers over messages: no bytes, no sockets, and no waiting.

Time is a `ManualClock`, which a wait passes at once. What a message cannot show (kept connections, how bytes are cut, a
``content-length`` that lies) is shown by `vastroute_testing.streams` and `vastroute_testing.trio_streams`.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar, final

import attrs

from vastroute import (
    Action,
    Broken,
    CallFailed,
    ConnectionFailed,
    Done,
    Entry,
    FailureKind,
    GiveUp,
    Headers,
    HttpRequest,
    LocalProtocolError,
    Machine,
    Receive,
    Record,
    ResponseHead,
    Send,
    WaitUntil,
)
from vastroute import End as WholeAnswer
from vastroute_io.options import Observer
from vastroute_io.settings import Watch

from .clock import ManualClock
from .schedule import Chunk, Cut, End, Head, Schedule, Step
from .server import Servers, check_schedule, find_server

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Received:
    """A request as a server saw it."""

    at: float
    """Monotonic seconds."""
    request: HttpRequest


@attrs.frozen(kw_only=True)
class Transcript(Generic[T]):
    """All of one call: what the machine asked for, what the servers saw, and how it ended.

    Its text is a line for each thing that happened, times counted from the begin. Neither that nor its repr shows a
    key, a grant's signature or a body.
    """

    outcome: Done[T] | GiveUp
    """The last action: `vastroute.Done` with the result, or `vastroute.GiveUp` with the error."""
    began: float
    """Monotonic seconds."""
    ended: float
    actions: tuple[Action[T], ...] = attrs.field(repr=False)
    """What the machine asked for, in order; an action that stayed pending stands here once."""
    requests: tuple[Received, ...] = attrs.field(repr=False)
    """What reached a server, in order."""
    record: Record = attrs.field(repr=False)
    """What the machine noted."""

    @property
    def error(self) -> CallFailed | None:
        """The error, if the call gave up."""
        return self.outcome.error if isinstance(self.outcome, GiveUp) else None

    @property
    def seconds(self) -> float:
        """How long it took, in the clock's seconds."""
        return self.ended - self.began

    def result(self) -> T:
        """The result, or the raised error of a call that gave up."""
        if isinstance(self.outcome, GiveUp):
            raise self.outcome.error
        return self.outcome.result

    def __str__(self) -> str:
        lines = [f"{entry.at - self.began:10.3f} s  {_words(entry)}" for entry in self.record]
        end = "done" if self.error is None else f"gave up: {type(self.error).__name__}: {self.error}"
        return "\n".join([*lines, f"{self.seconds:10.3f} s  {end}"])


def _words(entry: Entry) -> str:
    parts = [f"{entry.phase.value} {entry.attempt}: {entry.kind.value}"]
    if entry.status is not None:
        parts.append(f"HTTP {entry.status}")
    if entry.detail:
        parts.append(entry.detail)
    return ", ".join(parts)


@final
class Drive(Generic[T]):
    """One machine on its way, over messages: `step` does what it asks for, `run` goes on until it is over.

    A connection costs no time. What happens at a deadline comes too late, as it does over streams.
    """

    def __init__(
        self, machine: Machine[T], servers: Servers, clock: ManualClock, *, observer: Observer | None = None
    ) -> None:
        self._machine = machine
        self._servers = servers
        self._clock = clock
        self._watch = None if observer is None else Watch(machine, observer)
        self._began = self._ended = clock()
        self._actions: list[Action[T]] = []
        self._requests: list[Received] = []
        self._steps: deque[Step] = deque()
        """What is still to come of the answer."""

    def run(self) -> Transcript[T]:
        """To the end."""
        while self.step():
            pass
        return self.transcript()

    def end(self) -> None:
        """Nothing more will be done, whether it is over or not: one that is not is cancelled."""
        if not self._machine.over:
            self._machine.cancelled(now=self._clock())
        self._next()

    def transcript(self) -> Transcript[T]:
        """All of it, once it is over. Raises `vastroute.LocalProtocolError` before."""
        outcome = self._next()
        if not isinstance(outcome, Done | GiveUp):
            raise LocalProtocolError("it is not over yet: step on, or end it")
        return Transcript(
            outcome=outcome,
            began=self._began,
            ended=self._ended,
            actions=tuple(self._actions),
            requests=tuple(self._requests),
            record=self._machine.record,
        )

    def step(self) -> bool:
        """Do what the machine asks for next. False once it is over."""
        action = self._next()
        if isinstance(action, WaitUntil):
            self._clock.sleep_until(action.at)
        elif isinstance(action, Send):
            self._send(action)
        elif isinstance(action, Receive):
            self._receive(action.deadline)
        else:
            return False
        return True

    def _next(self) -> Action[T]:
        action = self._machine.next_action(now=self._clock())
        if self._watch is not None:
            self._watch.tell()
        if not self._actions or self._actions[-1] != action:
            self._actions.append(action)
            self._ended = self._clock()
        return action

    def _send(self, send: Send) -> None:
        request, now = send.request, self._clock()
        try:
            schedule = check_schedule(find_server(self._servers, request.origin, now=now)(request, now))
        except ConnectionRefusedError:
            schedule = (Cut(at=now, kind=FailureKind.REFUSED),)
        except ConnectionFailed as error:
            self._machine.failed(error, sent=False, now=now)
            return
        if not _is_refused(schedule):
            self._requests.append(Received(at=now, request=request))
        self._steps = deque(schedule)
        self._receive(send.deadline)

    def _receive(self, deadline: float) -> None:
        """What comes of the answer until `deadline`, or until the machine has something else in mind."""
        machine, clock = self._machine, self._clock
        while True:
            if not self._steps or self._steps[0].at >= deadline:
                clock.sleep_until(deadline)
                machine.failed(FailureKind.TIMEOUT, sent=True, now=clock())
                return
            step = self._steps.popleft()
            clock.sleep_until(step.at)
            if _is_silent(step):
                continue
            if not self._report(step):
                return
            following = self._next()
            if not isinstance(following, Receive):
                return
            deadline = following.deadline

    def _report(self, step: Step) -> bool:
        now = self._clock()
        if isinstance(step, Cut):
            self._machine.failed(step.kind, sent=step.kind is not FailureKind.REFUSED, now=now)
            return False
        event: ResponseHead | bytes | WholeAnswer | Broken
        if isinstance(step, Head):
            event = ResponseHead(status=step.status, headers=_framed(step))
        elif isinstance(step, Chunk):
            event = step.data
        elif isinstance(step, End):
            event = WholeAnswer()
        else:
            event = Broken(kind=FailureKind.GARBAGE, detail="the server sent what is not HTTP")
        return self._machine.feed([event], now=now) is not None


def run(
    machine: Machine[T], servers: Servers, clock: ManualClock | None = None, *, observer: Observer | None = None
) -> Transcript[T]:
    """Drive `machine` against simulated servers to its end. Nothing is raised for a call that gives up.

    Without `clock` one is made; a machine's deadline counts on the clock that it is driven with, so make both together.
    """
    return Drive(machine, servers, ManualClock() if clock is None else clock, observer=observer).run()


def _is_refused(schedule: Schedule) -> bool:
    return bool(schedule) and isinstance(schedule[0], Cut) and schedule[0].kind is FailureKind.REFUSED


def _framed(head: Head) -> Headers:
    """The headers with what is added on a wire: an answer without a length is sent in chunks, and has an end."""
    is_framed = "content-length" in head.headers or "transfer-encoding" in head.headers or head.status in {204, 304}
    return head.headers if is_framed else Headers((*head.headers, ("transfer-encoding", "chunked")))


def _is_silent(step: Step) -> bool:
    """Whether no machine hears of it: a 1xx head, or a piece of nothing."""
    return (isinstance(step, Head) and step.status < 200) or (isinstance(step, Chunk) and not step.data)
