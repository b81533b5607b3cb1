"""Conversations written to a file with what is private left out, to be replayed in tests.

A recorder stands between a driver and its machine, where all transports meet: it sees requests, answers and failures as
the machine does, and its times are the machine's. `vastroute_testing.replay` plays a file to any client.

The file is JSON Lines: one line for each call that is over, written at once, so that a crash leaves whole lines. The
format, version 1, is described under "Recording and replaying" in the documentation.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, final

from vastroute import (
    CONSOLE,
    ENGINE,
    Action,
    Broken,
    CallFailed,
    ConnectionFailed,
    Event,
    FailureKind,
    HttpResponse,
    InvalidValue,
    Machine,
    Origin,
    Phase,
    Record,
    ResponseHead,
    Send,
    Verifier,
)

from .redaction import (
    Body,
    Form,
    Names,
    answer_form,
    answer_headers,
    request_fields,
    request_headers,
    worker_fields,
)

T = TypeVar("T")
VERSION: Final = 1
"""The version of the format."""
_MOST: Final = 16 * 1024 * 1024


@final
class Recorder:
    """Writes the conversations of one or more clients to the file at `path`, a line for each call that is over.

    What is written is decided by lists of what is kept (`vastroute_io.redaction`): the protocol's own numbers and
    names, statuses, times, and the shapes of bodies. Keys, signatures, payloads and answers are not, workers get
    addresses reserved for documentation, and sessions and ids get numbers. `keep_payloads` and `keep_answers` write
    down what was sent to workers, and what they answered: look at the file before you show it to anybody. The names of
    endpoints, and the routes without their queries, are always kept.

    A call's conversation is held in memory until the call is over, in about `most` bytes; what is longer is marked as
    cut short, and cannot be replayed.

    Pass it as the `recorder` of a client, or hand `record` a machine that you drive yourself. Threads may share one.
    The file is created for its owner alone. Raises `InvalidValue` if it cannot be written. A failure later on does not
    disturb a call that is paid for: it is kept in `trouble`, and nothing more is written.
    """

    def __init__(
        self, path: str | Path, *, keep_payloads: bool = False, keep_answers: bool = False, most: int = _MOST
    ) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidValue("most must be a whole number of bytes, at least 1")
        self.path = Path(path)
        """The file."""
        self.trouble: OSError | None = None
        """Why nothing is written any more, if so."""
        self.keep_payloads = keep_payloads
        """Whether payloads are written down."""
        self.keep_answers = keep_answers
        """Whether the bodies of workers' answers are written down."""
        self.most = most
        """Bytes of memory for one call, about."""
        self._names = Names()
        self._lock = threading.Lock()
        self._drawing = threading.local()
        self._epoch: float | None = None
        try:
            self._append(b"" if self._is_whole() else b"\n")
        except OSError as error:
            raise InvalidValue(f"the recording cannot be written: {error.strerror or type(error).__name__}") from None

    def record(
        self,
        machine: Machine[T],
        *,
        engine: Origin = ENGINE,
        console: Origin | None = CONSOLE,
        verifier: Verifier | None = None,
    ) -> Machine[T]:
        """A machine that does what `machine` does, and is written down when it is over. Drive it in its place.

        `verifier` finds out in which form grants are signed, so that a replay signs in the same.
        """
        return _Recorded(machine, self, engine=engine, console=console, verifier=verifier)

    def draws(self, rng: Callable[[], float]) -> Callable[[], float]:
        """`rng`, with its draws written down for the machine that draws: a replay with the same ones pauses as long."""

        def draw() -> float:
            drawn = rng()
            into: list[float] | None = getattr(self._drawing, "into", None)
            if into is not None:
                into.append(drawn)
            return drawn

        return draw

    # For machines that are recorded

    @contextmanager
    def drawing(self, into: list[float]) -> Iterator[None]:
        """What is drawn in this block, in this thread, is noted in `into`."""
        self._drawing.into = into
        try:
            yield
        finally:
            self._drawing.into = None

    def began(self, now: float) -> float:
        """When a call began, on this recorder's clock, which began with its first call."""
        with self._lock:
            if self._epoch is None:
                self._epoch = now
            return now - self._epoch

    def locked(self, describe: Callable[[Names], T]) -> T:
        """What `describe` gives: one at a time, since names are given out there."""
        with self._lock:
            return describe(self._names)

    def write(self, described: Form) -> None:
        """One line for a call that is over."""
        line = json.dumps({"vastroute": "recording", "version": VERSION} | described)
        with self._lock:
            if self.trouble is None:
                try:
                    self._append(f"{line}\n".encode())
                except OSError as error:
                    self.trouble = error

    def _append(self, data: bytes) -> None:
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        try:
            os.write(file, data)
        finally:
            os.close(file)

    def _is_whole(self) -> bool:
        """Whether the file is new, or ends with a line: a process that was killed while it wrote may have left half of
        one."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 1))
                return file.read(1) in {b"", b"\n"}
        except FileNotFoundError:
            return True


class _Exchange:
    """One request and what came of it."""

    def __init__(self, send: Send, described: Form, *, asked: Any) -> None:
        self.send: Send | None = send
        """Until something came of it: it holds the payload."""
        self.described = described
        self.asked = asked
        self.is_ours = send.phase is not Phase.WORKER or described["request"]["path"].startswith("/session/")
        """Whether the answer is one of the protocol's, not of a worker's model."""
        self.head: Form | None = None
        self.body: Body | None = None


@final
class _Recorded(Generic[T]):
    """A machine, and what happens to it."""

    def __init__(
        self,
        machine: Machine[T],
        recorder: Recorder,
        *,
        engine: Origin,
        console: Origin | None,
        verifier: Verifier | None,
    ) -> None:
        self._machine = machine
        self._recorder = recorder
        self._engine = engine
        self._console = console
        self._verifier = verifier
        self._began: float | None = None
        self._began_at = 0.0
        self._exchanges: list[_Exchange] = []
        self._draws: list[float] = []
        self._left = recorder.most
        self._cancelled_at: float | None = None
        self._is_written = False

    # What a driver calls

    def next_action(self, *, now: float) -> Action[T]:
        with self._watching(now):
            action = self._machine.next_action(now=now)
            if isinstance(action, Send) and (not self._exchanges or self._exchanges[-1].send is not action):
                self._exchanges.append(self._recorder.locked(lambda names: self._begin(action, names, now)))
        return action

    def receive(self, response: HttpResponse, *, now: float) -> None:
        with self._watching(now):
            self._machine.receive(response, now=now)
            self._head(ResponseHead(status=response.status, headers=response.headers), now)
            self._chunk(response.body, now)
            self._end(now)

    def head(self, head: ResponseHead, *, now: float) -> None:
        with self._watching(now):
            self._machine.head(head, now=now)
            self._head(head, now)

    def chunk(self, data: bytes, *, now: float) -> None:
        with self._watching(now):
            self._machine.chunk(data, now=now)
            self._chunk(data, now)

    def end(self, *, now: float) -> None:
        with self._watching(now):
            self._machine.end(now=now)
            self._end(now)

    def feed(self, events: Sequence[Event], *, now: float, reused: bool = False) -> float | None:
        with self._watching(now):
            until = self._machine.feed(events, now=now, reused=reused)
            for event in events:
                if isinstance(event, ResponseHead):
                    self._head(event, now)
                elif isinstance(event, bytes):
                    self._chunk(event, now)
                elif isinstance(event, Broken):
                    self._failed(event.kind, sent=True, reused=reused, now=now)
                else:
                    self._end(now)
        return until

    def failed(
        self,
        error: FailureKind | BaseException | str,
        *,
        kind: FailureKind = FailureKind.OTHER,
        sent: bool | None,
        now: float,
        reused: bool = False,
    ) -> None:
        with self._watching(now):
            self._machine.failed(error, kind=kind, sent=sent, now=now, reused=reused)
            if isinstance(error, FailureKind):
                kind = error
            elif isinstance(error, ConnectionFailed):
                kind = error.kind or kind
            self._failed(kind, sent=sent, reused=reused, now=now)

    def cancelled(self, *, now: float) -> None:
        with self._watching(now):
            self._machine.cancelled(now=now)
            self._cancelled_at = self._since(now)

    def result(self) -> T:
        return self._machine.result()

    @property
    def over(self) -> bool:
        return self._machine.over

    @property
    def record(self) -> Record:
        return self._machine.record

    # What is noted

    @contextmanager
    def _watching(self, now: float) -> Iterator[None]:
        """Around everything that is done to the machine; when it is over, all of it is written."""
        if self._began is None:
            self._began = now
            self._began_at = self._recorder.began(now)
        with self._recorder.drawing(self._draws):
            yield
        if self._machine.over and not self._is_written:
            self._is_written = True
            self._recorder.write(self._describe(self._since(now)))

    def _since(self, now: float) -> float:
        assert self._began is not None
        return round(now - self._began, 6)

    def _begin(self, send: Send, names: Names, now: float) -> _Exchange:
        """The exchange that `send` begins, with all that is kept of its request."""
        request = send.request
        path, _, query = request.target.partition("?")
        if send.phase is Phase.WORKER:
            to = str(names.worker(request.origin))
            path = names.route(request.origin, path)
        else:
            to = "engine" if request.origin == self._engine else "console"
        asked, body = None, None
        if request.body:
            if send.phase is Phase.WORKER:
                body = worker_fields(request.body, names, payload=self._recorder.keep_payloads)
            else:
                body = request_fields(path, request.body, names)
                asked = None if body is None else body.get("endpoint")
        described: Form = {
            "phase": send.phase.value,
            "attempt": send.attempt,
            "at": self._since(now),
            "request": {
                "method": request.method,
                "to": to,
                "path": path,
                "query": bool(query),
                "key": "authorization" in request.headers,
                "headers": request_headers(request.headers),
                "body": body,
            },
        }
        return _Exchange(send, described, asked=asked)

    def _head(self, head: ResponseHead, now: float) -> None:
        exchange = self._exchanges[-1]
        exchange.head = {
            "at": self._since(now),
            "status": head.status,
            "headers": answer_headers(head.headers),
        }
        exchange.body = Body(
            head.headers.get("content-type"),
            streamed=getattr(self._machine, "stream_head", None) is not None,
            kept=self._recorder.keep_answers and not exchange.is_ours,
            most=self._left,
        )

    def _chunk(self, data: bytes, now: float) -> None:
        body = self._exchanges[-1].body
        if body is not None:
            body.feed(data, at=self._since(now))

    def _end(self, now: float) -> None:
        self._settle(end=self._since(now))

    def _failed(self, kind: FailureKind, *, sent: bool | None, reused: bool, now: float) -> None:
        self._settle()
        self._exchanges[-1].described["failed"] = {
            "kind": kind.value,
            "sent": sent,
            "reused": reused,
            "at": self._since(now),
        }

    def _settle(self, end: float | None = None) -> None:
        """Nothing more comes of the last exchange: all that is kept of its answer."""
        exchange = self._exchanges[-1]
        body, exchange.body, exchange.send = exchange.body, None, None
        if body is None or exchange.head is None:
            return
        path = exchange.described["request"]["path"]
        form = (
            self._recorder.locked(
                lambda names: answer_form(path, body, names, asked=exchange.asked, verifier=self._verifier)
            )
            if exchange.is_ours
            else body.form()
        )
        exchange.described["answer"] = exchange.head | {"body": form, "cuts": body.cuts, "end": end}
        self._left = max(1, self._left - body.size)

    def _describe(self, ended: float) -> Form:
        if self._exchanges:
            self._settle()
        exchanges = [each.described for each in self._exchanges]
        assert self._began is not None
        described: Form = {
            "machine": type(self._machine).__name__,
            "began": round(self._began_at, 6),
            "seconds": ended,
            "exchanges": exchanges,
            "draws": self._draws,
            "record": plain_record(self._machine.record, began=self._began),
            "outcome": self._outcome(),
        }
        if self._cancelled_at is not None:
            described["cancelled_at"] = self._cancelled_at
        return described

    def _outcome(self) -> Form:
        try:
            result = self._machine.result()
        except CallFailed as error:
            error.__traceback__ = None  # it is raised to the caller yet, who is to see nothing of this
            kind = error.kind
            return {
                "error": type(error).__name__,
                "phase": error.phase.value,
                "outcome": error.outcome.value,
                "advice": error.advice.value,
                "status": error.status,
                "kind": None if kind is None else kind.value,
                "limit": error.limit,
            }
        return {"result": type(result).__name__, "status": getattr(result, "status", None)}


def plain_record(record: Record, *, began: float) -> list[Form]:
    """The entries of a call's record as a recording has them: times count from `began`, and no texts are in them.

    So the record of a replayed call can be compared with that of the call that was recorded.
    """
    entries = []
    for entry in record:
        values = entry.as_dict()
        values.pop("detail", None)
        entries.append(values | {name: round(values[name] - began, 6) for name in ("at", "until") if name in values})
    return entries
