"""A machine whose conversation is written down: what a recorder puts between it and its driver."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar, final

from vastroute import (
    Action,
    Broken,
    CallFailed,
    Event,
    FailureKind,
    HttpResponse,
    Machine,
    Origin,
    Phase,
    Record,
    ResponseHead,
    Send,
    StreamEvent,
    Verifier,
    judge_failure,
)

from .bodies import Body, Form
from .recording_file import RecordingFile
from .redaction import (
    Names,
    answer_form,
    answer_headers,
    note_address,
    plain_record,
    request_fields,
    request_headers,
    worker_fields,
)

T = TypeVar("T")
_EXCHANGE = 1024
"""What an exchange beside its body counts against the recorder's limit, in bytes."""


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
class Recorded(Generic[T]):
    """A machine, and what happens to it."""

    def __init__(
        self,
        machine: Machine[T],
        file: RecordingFile,
        *,
        engine: Origin,
        verifier: Verifier | None,
        keep_payloads: bool,
        keep_answers: bool,
        most: int,
    ) -> None:
        self._machine = machine
        self._file = file
        self._engine = engine
        self._verifier = verifier
        self._keep_payloads = keep_payloads
        self._keep_answers = keep_answers
        self._began: float | None = None
        self._began_at = 0.0
        self._exchanges: list[_Exchange] = []
        self._draws: list[float] = []
        self._left = most
        self._cancelled_at: float | None = None
        self._is_written = False

    # What a driver calls

    def next_action(self, *, now: float) -> Action[T]:
        with self._watching(now):
            action = self._machine.next_action(now=now)
            if isinstance(action, Send) and (not self._exchanges or self._exchanges[-1].send is not action):
                self._settle()  # of an answer that was too long nobody waits for the end
                self._exchanges.append(self._file.locked(lambda names: self._begin(action, names, now)))
        return action

    def read_limit(self, *, now: float) -> float | None:
        with self._watching(now):
            return self._machine.read_limit(now=now)

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
        kind: FailureKind | None = None,
        sent: bool | None,
        now: float,
        reused: bool = False,
    ) -> None:
        with self._watching(now):
            kind, sent = judge_failure(error, kind, sent=sent)
            self._machine.failed(error, kind=kind, sent=sent, now=now, reused=reused)
            self._failed(kind, sent=sent, reused=reused, now=now)

    def next_event(self, *, now: float) -> StreamEvent | None:
        return self._machine.next_event(now=now)

    def cancelled(self, *, now: float, sent: bool = True) -> None:
        with self._watching(now):
            self._machine.cancelled(now=now, sent=sent)
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
            self._began_at = self._file.began(now)
        with self._file.drawing_into(self._draws):
            yield
        if self._machine.over and not self._is_written:
            self._is_written = True
            self._file.write(self._describe(self._since(now)))

    def _since(self, now: float) -> float:
        assert self._began is not None
        return round(now - self._began, 6)

    def _begin(self, send: Send, names: Names, now: float) -> _Exchange:
        """The exchange that `send` begins, with all that is kept of its request."""
        request = send.request
        path, _, query = request.target.partition("?")
        if send.phase is Phase.WORKER:
            to = str(names.worker(request.origin))
            note_address(request.body, names)
            path = names.route(request.origin, path)
        else:
            to = "engine" if request.origin == self._engine else "console"
        asked, body = None, None
        if request.body:
            if send.phase is Phase.WORKER:
                body = worker_fields(request.body, names, payload=self._keep_payloads)
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
            kept=self._keep_answers and not exchange.is_ours,
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
        """Nothing more comes of the last exchange, if there is one: note all that is kept of its answer."""
        if not self._exchanges:
            return
        exchange = self._exchanges[-1]
        body, exchange.body, exchange.send = exchange.body, None, None
        if body is None or exchange.head is None:
            return
        path = exchange.described["request"]["path"]
        form = (
            self._file.locked(
                lambda names: answer_form(path, body, names, asked=exchange.asked, verifier=self._verifier)
            )
            if exchange.is_ours
            else body.form()
        )
        exchange.described["answer"] = exchange.head | {"body": form, "cuts": body.cuts, "end": end}
        self._left = max(1, self._left - body.size - _EXCHANGE)

    def _describe(self, ended: float) -> Form:
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
