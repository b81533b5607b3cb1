"""What a simulated server does with one request: a timed schedule, as a value.

A schedule is a tuple of steps, each with the instant at which it happens, on the clock that the request's ``now`` came
from. One that does not end with `End`, `Cut` or `Garbage` leaves the client hanging. The same schedule is played in
memory, in virtual time and over sockets.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from email.utils import formatdate
from math import inf
from typing import Any, TypeAlias

import attrs

from vastroute import FailureKind, Headers, HttpResponse


@attrs.frozen(kw_only=True)
class Head:
    """The status and the headers leave at `at` (seconds).

    Without ``content-length`` the body is sent in HTTP's chunked coding; whoever puts it on a wire adds the header.
    """

    at: float
    status: int
    headers: Headers = attrs.field(factory=Headers)


@attrs.frozen(kw_only=True)
class Chunk:
    """A piece of the body leaves at `at`."""

    at: float
    data: bytes


@attrs.frozen(kw_only=True)
class End:
    """The answer is complete at `at`."""

    at: float


@attrs.frozen(kw_only=True)
class Cut:
    """The connection ends at `at`, whether the answer was complete or not."""

    at: float
    kind: FailureKind = FailureKind.EOF
    """`FailureKind.EOF` (closed) or `FailureKind.RESET`; `FailureKind.REFUSED` as the only step takes no connection."""


@attrs.frozen(kw_only=True)
class Garbage:
    """Bytes that are not HTTP leave at `at`, and the connection is closed."""

    at: float
    data: bytes = b"\x15\x03\x01\x00\x02\x02\x50 this is not HTTP\r\n\r\n"


Step: TypeAlias = Head | Chunk | End | Cut | Garbage
"""One thing that happens, at its instant."""
Schedule: TypeAlias = tuple[Step, ...]
"""What a server does with one request, in the order of time."""
_LATEST = 2e11
Pairs: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers, in either of the two ways people write them."""


def answer(status: int, body: bytes = b"", *, at: float, headers: Pairs = ()) -> Schedule:
    """A whole answer at one instant; ``content-length`` is added, save where HTTP has no body to measure."""
    length = () if status in {204, 304} else (("content-length", str(len(body))),)
    head = Head(at=at, status=status, headers=Headers((*_pairs(headers), *length)))
    return (head, Chunk(at=at, data=body), End(at=at)) if body else (head, End(at=at))


def json_answer(status: int, value: Any, *, at: float, headers: Iterable[tuple[str, str]] = ()) -> Schedule:
    """`value` as JSON, as a whole answer at one instant."""
    body = json.dumps(value).encode()
    return answer(status, body, at=at, headers=(("content-type", "application/json"), *headers))


def stream_answer(pieces: Iterable[bytes], *, at: float, every: float, headers: Pairs = ()) -> Schedule:
    """A streamed answer: the head at `at`, then a piece each `every` seconds, the first at once; no length is named."""
    steps: list[Step] = [Head(at=at, status=200, headers=Headers(headers))]
    steps += [Chunk(at=at + number * every, data=piece) for number, piece in enumerate(pieces)]
    return (*steps, End(at=steps[-1].at))


def shifted(schedule: Schedule, seconds: float) -> Schedule:
    """The same, `seconds` later."""
    return tuple(attrs.evolve(step, at=step.at + seconds) for step in schedule)


def cut(schedule: Schedule, *, at: float, kind: FailureKind) -> Schedule:
    """What happens before `at`, and then the connection ends; the same as before if it is over by then.

    An infinite `at` cuts nothing.
    """
    if at == inf:
        return schedule
    kept = tuple(step for step in schedule if step.at < at)
    over = len(kept) == len(schedule) and kept and not isinstance(kept[-1], Head | Chunk)
    return schedule if over else (*kept, Cut(at=at, kind=kind))


def dated(schedule: Schedule, epoch: float) -> Schedule:
    """The same with a ``Date`` in its head; `epoch` is the wall clock, in seconds since 1970, at the instant 0."""
    if not schedule or not isinstance(schedule[0], Head) or not 0 <= epoch + schedule[0].at < _LATEST:
        return schedule
    head = schedule[0]
    headers = Headers((*head.headers, ("date", formatdate(epoch + head.at, usegmt=True))))
    return (attrs.evolve(head, headers=headers), *schedule[1:])


def body_of(schedule: Schedule) -> bytes:
    """The bytes of the body, as far as they come."""
    return b"".join(step.data for step in schedule if isinstance(step, Chunk))


def whole(schedule: Schedule) -> HttpResponse | None:
    """The answer as one message, for those who do not look at times; None if it does not come whole."""
    if not schedule or not isinstance(schedule[0], Head) or not isinstance(schedule[-1], End):
        return None
    return HttpResponse(status=schedule[0].status, headers=schedule[0].headers, body=body_of(schedule))


def with_body(schedule: Schedule, body: bytes) -> Schedule:
    """The same answer with another `body`, at once when it would have been complete; unchanged if it is not whole."""
    response = whole(schedule)
    if response is None:
        return schedule
    headers = [(name, value) for name, value in response.headers if name != "content-length"]
    return answer(response.status, body, at=schedule[-1].at, headers=headers)


def _pairs(headers: Pairs) -> tuple[tuple[str, str], ...]:
    return tuple(headers.items() if isinstance(headers, Mapping) else headers)
