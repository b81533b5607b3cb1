"""Faults, as small values: each turns the answer that an honest server would have given into the faulty one.

There is one mechanism. A server makes its honest schedule, then the faults that are planned for this request spoil it,
in their order, the first nearest to the server. A fault that stands in front of the server (``served=False``: a
gateway's error page, a refused connection) keeps the request from it: no load is counted, no work is done. Any fault
can be told to be of the one kind or the other, because that is the difference between asking again and paying twice.

Which request meets which faults is planned in a `vastroute_testing.fault_table.FaultTable`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil, inf
from typing import Any

import attrs

from vastroute import FailureKind

from .checks import above_zero, at_least_zero
from .keys import OTHER_TEST_PRIVATE_KEY, sign
from .schedule import Chunk, Cut, End, Garbage, Head, Schedule, Step, answer, body_of, shifted, with_body


@attrs.frozen
class Fault(ABC):
    """One thing that goes wrong with one request. Make your own by deriving from this."""

    served: bool = attrs.field(default=True, kw_only=True)
    """Whether the server does its part; False if the request never reaches it."""

    @abstractmethod
    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        """The faulty schedule in place of `honest`, which is empty if the request did not reach the server."""


@attrs.frozen
class Refuse(Fault):
    """The connection is refused."""

    served: bool = attrs.field(default=False, kw_only=True)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return (Cut(at=now, kind=FailureKind.REFUSED),)


@attrs.frozen
class CloseBeforeHead(Fault):
    """The request is taken, and the connection closed without a byte of the answer."""

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return (Cut(at=_start(honest, now), kind=FailureKind.EOF),)


@attrs.frozen
class ResetBeforeHead(Fault):
    """The request is taken, and the connection reset without a byte of the answer."""

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return (Cut(at=_start(honest, now), kind=FailureKind.RESET),)


@attrs.frozen
class Garbled(Fault):
    """The answer is not HTTP: another protocol listens there."""

    served: bool = attrs.field(default=False, kw_only=True)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return (Garbage(at=_start(honest, now)),)


@attrs.frozen
class CutBody(Fault):
    """The connection ends after `after_bytes` of the body; a shorter answer is not cut."""

    after_bytes: int = attrs.field(validator=at_least_zero)
    kind: FailureKind = FailureKind.EOF

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        if len(body_of(honest)) <= self.after_bytes:
            return honest
        kept = _beginning(honest, self.after_bytes)
        return (*kept, Cut(at=kept[-1].at, kind=self.kind))


@attrs.frozen
class CutStreamAt(Fault):
    """A stream ends after `event` whole events; an answer that is no stream, or has no more, is not cut."""

    event: int = attrs.field(validator=at_least_zero)
    kind: FailureKind | None = FailureKind.EOF
    """How the connection ends; None ends the answer properly, as if this were all: only a reader who knows what the
    last event must be can tell."""

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        events = body_of(honest).split(b"\n\n")[:-1]
        if not _is_stream(honest) or len(events) <= self.event:
            return honest
        kept = _beginning(honest, sum(len(event) + 2 for event in events[: self.event]))
        at = kept[-1].at
        return (*kept, End(at=at) if self.kind is None else Cut(at=at, kind=self.kind))


@attrs.frozen
class Hang(Fault):
    """Silence for ever, after the head and `after_bytes` of the body, or from the beginning if that is None."""

    after_bytes: int | None = attrs.field(default=None, validator=at_least_zero)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return () if self.after_bytes is None else _beginning(honest, self.after_bytes)


@attrs.frozen
class Delay(Fault):
    """The whole answer comes `seconds` later."""

    seconds: float = attrs.field(validator=at_least_zero)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return shifted(honest, self.seconds)


@attrs.frozen
class Slow(Fault):
    """The body trickles: a little each tenth of a second, or each byte by itself if that is slower."""

    bytes_per_second: float = attrs.field(validator=above_zero)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        size = ceil(self.bytes_per_second / 10)
        steps: list[Step] = []
        free = -inf
        for step in honest:
            if not isinstance(step, Chunk):
                steps.append(attrs.evolve(step, at=max(step.at, free)))
                continue
            for begin in range(0, len(step.data), size):
                piece = step.data[begin : begin + size]
                free = max(step.at, free) + len(piece) / self.bytes_per_second
                steps.append(Chunk(at=free, data=piece))
        return tuple(steps)


@attrs.frozen
class Status(Fault):
    """Another status, as from a gateway. `body` is bytes, text, or anything that JSON can hold; None is no body."""

    status: int
    retry_after: float | str | None = None
    """The ``Retry-After`` header: seconds, or an HTTP date."""
    body: Any = None
    served: bool = attrs.field(default=False, kw_only=True)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        headers = [] if self.retry_after is None else [("retry-after", str(self.retry_after))]
        body = self.body
        if isinstance(body, str):
            headers.append(("content-type", "text/plain; charset=utf-8"))
            body = body.encode()
        elif body is not None and not isinstance(body, bytes):
            headers.append(("content-type", "application/json"))
            body = json.dumps(body).encode()
        return answer(self.status, body or b"", at=_start(honest, now), headers=headers)


@attrs.frozen
class Redirect(Fault):
    """A redirect to `location`, which nobody should follow: a grant and a prompt would go with it."""

    location: str
    status: int = 307
    served: bool = attrs.field(default=False, kw_only=True)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return answer(self.status, at=_start(honest, now), headers={"location": self.location})


@attrs.frozen
class Html(Fault):
    """A page for people where JSON is due."""

    status: int = 200
    served: bool = attrs.field(default=False, kw_only=True)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        page = b"<!DOCTYPE html>\n<html><body><h1>We will be back soon</h1></body></html>\n"
        return answer(self.status, page, at=_start(honest, now), headers={"content-type": "text/html; charset=utf-8"})


@attrs.frozen
class BadJson(Fault):
    """The body lacks its last byte, though the answer is complete."""

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return with_body(honest, body_of(honest)[:-1])


@attrs.frozen
class Padded(Fault):
    """`size` spaces follow the body: the same meaning, and too large for whoever has a limit."""

    size: int = attrs.field(validator=at_least_zero)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return with_body(honest, body_of(honest) + b" " * self.size)


@attrs.frozen
class SetField(Fault):
    """The answer's JSON object has `value` under `name`, whatever it had there."""

    name: str
    value: Any = attrs.field(hash=False)

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return _edited(honest, lambda fields: fields | {self.name: self.value})


@attrs.frozen
class DropField(Fault):
    """The answer's JSON object lacks the field `name`."""

    name: str

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return _edited(honest, lambda fields: {name: value for name, value in fields.items() if name != self.name})


@attrs.frozen
class DropIndex(Fault):
    """The answer lacks ``request_idx``."""

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return DropField("request_idx").spoil(honest, now=now)


@attrs.frozen
class OtherIndex(Fault):
    """The answer has another ``request_idx``."""

    request_idx: int

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return SetField("request_idx", self.request_idx).spoil(honest, now=now)


@attrs.frozen
class BadSignature(Fault):
    """A grant's signature is `signature`, or one made with another key if that is None; other answers stay."""

    signature: str | None = None

    def spoil(self, honest: Schedule, *, now: float) -> Schedule:
        return _edited(honest, self._forge)

    def _forge(self, grant: dict[str, Any]) -> dict[str, Any]:
        if "signature" not in grant:
            return grant
        forged = sign(grant, key=OTHER_TEST_PRIVATE_KEY) if self.signature is None else self.signature
        return grant | {"signature": forged}


def _start(honest: Schedule, now: float) -> float:
    return honest[0].at if honest else now


def _is_stream(schedule: Schedule) -> bool:
    return bool(schedule) and isinstance(schedule[0], Head) and schedule[0].headers.get("content-length") is None


def _beginning(schedule: Schedule, size: int) -> Schedule:
    """The head and the first `size` bytes of the body, without an end."""
    kept: list[Step] = []
    for step in schedule:
        if isinstance(step, Head):
            kept.append(step)
        elif isinstance(step, Chunk) and size > 0:
            kept.append(Chunk(at=step.at, data=step.data[:size]))
            size -= len(step.data)
    return tuple(kept)


def _edited(schedule: Schedule, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Schedule:
    """The answer with its JSON object changed; unchanged if it holds none."""
    try:
        fields = json.loads(body_of(schedule))
    except ValueError:
        return schedule
    return with_body(schedule, json.dumps(edit(fields)).encode()) if isinstance(fields, dict) else schedule
