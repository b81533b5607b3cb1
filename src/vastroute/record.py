"""What a call says about itself: an `Entry` for each thing that happened, and how often.

An entry tells what happened, never what was sent: no request, key or signature is in it. A `Record` keeps the plain
rows that a machine notes and makes entries of them when somebody looks, because most records are never read.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Any, final, overload

import attrs

from .errors import Phase


class EntryKind(Enum):
    """What an `Entry` tells."""

    ASKED = "asked"
    NOT_READY = "not ready"
    WAITING = "waiting"
    TROUBLE = "trouble"
    """One exchange failed; the call may go on."""
    INDEX_CHANGED = "index changed"
    """The engine answered with another ``request_idx``; it was adopted."""
    GRANTED = "granted"
    WORKER_LOST = "worker lost"
    """The granted worker failed, the first of the call's or the second and so on, as `Entry.attempt` says; the call
    goes on with the same ``request_idx``."""
    SENT = "sent"
    """The work went to a worker."""
    STREAMING = "streaming"
    """The head of a stream came."""
    ANSWERED = "answered"
    GAVE_UP = "gave up"
    CANCELLED = "cancelled"


@attrs.frozen(kw_only=True)
class Entry:
    """One thing that happened in a call."""

    kind: EntryKind
    at: float
    """Monotonic seconds, on the clock that the call was driven with."""
    phase: Phase
    attempt: int
    """The number of the exchange it belongs to, from 1; 0 before the first."""
    request_idx: int | None = None
    status: int | None = None
    """The HTTP status, if there was one."""
    detail: str = ""
    """For people: what the engine says of its workers, the failure's text, the worker's address."""
    until: float | None = None
    """When a pause ends, in monotonic seconds."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is empty is left out."""
        values = attrs.asdict(self) | {"kind": self.kind.value, "phase": self.phase.value}
        return {name: value for name, value in values.items() if value not in (None, "")}


Row = tuple[EntryKind, float, Phase, int, int | None, int | None, str, float | None]
"""The fields of an `Entry` in order."""


@final
class Record(Sequence[Entry]):
    """The entries of one call in the order they happened; a value that does not change."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Sequence[Row] = ()) -> None:
        self._rows = tuple(rows)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> Record: ...
    def __getitem__(self, index: int | slice) -> Entry | Record:
        if isinstance(index, slice):
            return Record(self._rows[index])
        kind, at, phase, attempt, request_idx, status, detail, until = self._rows[index]
        return Entry(
            kind=kind,
            at=at,
            phase=phase,
            attempt=attempt,
            request_idx=request_idx,
            status=status,
            detail=detail,
            until=until,
        )

    def __len__(self) -> int:
        return len(self._rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and other._rows == self._rows

    def __hash__(self) -> int:
        return hash(self._rows)

    def __repr__(self) -> str:
        return f"Record({list(self)!r})"


@attrs.frozen(kw_only=True)
class Counts:
    """How often things happened in one call."""

    asks: int = 0
    """Requests sent to the engine."""
    polls: int = 0
    """Asks after an answer that nothing was ready."""
    retries: int = 0
    """Asks after a failure, with a pause before them."""
    repeats: int = 0
    """Asks repeated at once because a kept connection had gone stale."""
    possible_double_loads: int = 0
    """First asks that were lost, or answered so that nobody knows whether they were taken, and asked again: the engine
    may have counted their load twice."""
    index_missing: int = 0
    """Answers without ``request_idx`` while one was held; the held one was kept."""
    index_changes: int = 0
    """Answers with another ``request_idx``; it was adopted."""
    workers_lost: int = 0
    """Workers that failed after their grant, so that the call went on to another."""
    seconds_waited: float = 0.0
    """Seconds of pauses asked for."""
    work_attempts: int = 0
    """Exchanges with workers."""
    possible_double_runs: int = 0
    """Repetitions of work that had perhaps started, because the caller said that it is safe to run twice."""
    seconds_routing: float = 0.0
    """Seconds from asking for a worker to its grant, over all grants of the call."""
    seconds_working: float = 0.0
    """Seconds of exchanges with workers, streams included."""

    def plus(self, **more: float) -> Counts:
        """The same with `more` of what is named."""
        return attrs.evolve(self, **{name: getattr(self, name) + each for name, each in more.items()})


NOTHING = Counts()
ONE_ASK = Counts(asks=1)
"""What nearly every call for a worker comes to."""
