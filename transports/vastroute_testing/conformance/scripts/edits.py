"""What scripts do to the answers of honest servers."""

from __future__ import annotations

import attrs

from vastroute import FailureKind, Headers

from ...schedule import Chunk, Cut, End, Garbage, Head, Schedule, body_of
from ..stage import Edit


def without(*names: str) -> Edit:
    """The head lacks these headers."""

    def edit(schedule: Schedule) -> Schedule:
        head = schedule[0]
        if not isinstance(head, Head):  # nothing is answered
            return schedule
        kept = Headers([pair for pair in head.headers if pair[0] not in names])
        return (attrs.evolve(head, headers=kept), *schedule[1:])

    return edit


keeping: Edit = without("connection")
"""The server keeps the connection: the official worker does not after a whole answer."""


def with_headers(*headers: tuple[str, str]) -> Edit:
    """The head has these headers too."""

    def edit(schedule: Schedule) -> Schedule:
        head = _head(schedule)
        return (attrs.evolve(head, headers=Headers((*head.headers, *headers))), *schedule[1:])

    return edit


def closing_after(seconds: float, kind: FailureKind = FailureKind.EOF) -> Edit:
    """The server keeps the connection, and closes it when it has been idle for so long."""

    def edit(schedule: Schedule) -> Schedule:
        return (*keeping(schedule), Cut(at=schedule[-1].at + seconds, kind=kind))

    return edit


def speaking_after(seconds: float, text: str) -> Edit:
    """The server keeps the connection, and says this unasked when it has been idle for so long; then it closes."""
    data = text.replace("\n", "\r\n").encode("latin-1")
    return lambda schedule: (*keeping(schedule), Garbage(at=schedule[-1].at + seconds, data=data))


def on_the_wire(text: str) -> Edit:
    """This head, whatever it says, before the honest body, whose length stands for ``{}``; then it closes."""

    def edit(schedule: Schedule) -> Schedule:
        body = body_of(schedule)
        head = text.format(len(body)).replace("\n", "\r\n").encode("latin-1")
        return (Garbage(at=schedule[0].at, data=head + b"\r\n\r\n" + body),)

    return edit


def in_chunks(schedule: Schedule) -> Schedule:
    """The body in HTTP's chunked coding, a few bytes at a time."""
    head, last = _head(without("content-length", "connection")(schedule)), schedule[-1].at
    body = body_of(schedule)
    return (head, *(Chunk(at=last, data=body[at : at + 5]) for at in range(0, len(body), 5)), End(at=last))


def trickling(seconds: float) -> Edit:
    """The body comes byte by byte, one each so many seconds."""

    def edit(schedule: Schedule) -> Schedule:
        head = _head(schedule)
        pieces = [Chunk(at=head.at + n * seconds, data=bytes([byte])) for n, byte in enumerate(body_of(schedule), 1)]
        return (head, *pieces, End(at=pieces[-1].at))

    return edit


def after_others(*statuses: int) -> Edit:
    """These 1xx answers come before the answer."""
    return lambda schedule: (*(Head(at=schedule[0].at, status=status) for status in statuses), *schedule)


def with_more(data: bytes) -> Edit:
    """Bytes that nobody asked for follow the body."""

    def edit(schedule: Schedule) -> Schedule:
        head, body, *rest = keeping(schedule)
        assert isinstance(body, Chunk)
        return (head, attrs.evolve(body, data=body.data + data), *rest)

    return edit


def once(edit: Edit) -> Edit:
    """The first answer alone is edited."""
    edits = [edit]

    def first(schedule: Schedule) -> Schedule:
        return edits.pop()(schedule) if edits else schedule

    return first


def _head(schedule: Schedule) -> Head:
    head = schedule[0]
    assert isinstance(head, Head)
    return head
