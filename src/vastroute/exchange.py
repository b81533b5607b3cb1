"""What the answer to one request consists of, as a connection tells it: for whoever reads one, and whoever puts it
together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import attrs

from .errors import FailureKind
from .messages import HttpResponse, ResponseHead, response_of


@attrs.frozen(kw_only=True)
class End:
    """The answer is complete."""


@attrs.frozen(kw_only=True)
class Broken:
    """The exchange is broken, and the connection with it."""

    kind: FailureKind
    """`FailureKind.EOF`, `FailureKind.GARBAGE` or `FailureKind.TOO_LARGE`."""
    detail: str
    """The same for people."""


Event: TypeAlias = ResponseHead | bytes | End | Broken
"""What an answer consists of: one head, pieces of its body, and an end, or a breach in place of what is missing."""

END: Final = End()
CLOSED: Final = "closed before the end of the answer"
BAD_FRAMING: Final = "the framing of the body is not HTTP"


class Reader:
    """One answer on its way."""

    __slots__ = ("clean", "left", "over")

    def __init__(self, left: int | None) -> None:
        self.left = left
        """How many bytes of body may still come; None for any number."""
        self.over: bool = False
        self.clean: bool = False
        """Whether the connection may be used again, once it is over: only if it came to a clean end."""

    def _give(self, data: bytes, events: list[Event]) -> None:
        if self.left is not None:
            data, excess = data[: self.left], len(data) > self.left
            self.left -= len(data)
            if data:
                events.append(data)
            if excess:
                self._break(FailureKind.TOO_LARGE, "the body is larger than allowed", events)
        elif data:
            events.append(data)

    def _break(self, kind: FailureKind, detail: str, events: list[Event]) -> None:
        self.over = True
        events.append(Broken(kind=kind, detail=detail))

    def _end(self, events: list[Event], *, clean: bool) -> None:
        self.over = True
        # Bytes that nobody asked for: what they would be taken for is not ours to guess.
        self.clean = clean
        events.append(END)


def whole_answer(events: Sequence[Event]) -> HttpResponse | None:
    """The answer that `events` are, if they are all of it, as nearly always."""
    if len(events) == 3:
        head, body, end = events
        if type(end) is End and type(body) is bytes and type(head) is ResponseHead:
            return response_of(head, body)
    return None


def joined(body: bytes | bytearray, data: bytes) -> bytes | bytearray:
    """`body` and `data` behind it. What came in one piece, as nearly every answer does, stays that piece."""
    if not body:
        return bytes(data)
    if type(body) is bytes:
        body = bytearray(body)
    body += data
    return body
