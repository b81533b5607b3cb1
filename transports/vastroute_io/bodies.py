"""The shapes of bodies: enough to make others of the same length that are read the same way.

That is JSON of the same kind, the same lines of a stream, the same cuts.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, TypeAlias, final

from vastroute import EventStream, JsonLines, RawChunks, stream_decoder

Form: TypeAlias = dict[str, Any]
"""How a body stands in a recording: see `Body.form`."""
_FIELDS = re.compile(r"(?:data|event|id|retry)(?:: ?|\Z)")
_BOM = b"\xef\xbb\xbf"
_EVENT_LINE = re.compile(rb"(\r\n|\n|\r(?=.))", re.DOTALL)
_JSON_LINE = re.compile(rb"(\n)")
_EVENT_NAMES = frozenset({"completion", "delta", "done", "end", "error", "message", "ping", "token"})
_ENTRY = 64
"""What a line or a cut that was noted counts against the limit, in bytes."""


@final
class Body:
    """A body on its way, as it will stand in a recording. Takes `most` bytes of memory at the most, about."""

    def __init__(self, content_type: str | None, *, streamed: bool, kept: bool, most: int) -> None:
        decoder = stream_decoder(content_type)
        self.length: int = 0
        self.cuts: list[list[float]] = []
        """When how many bytes of it came."""
        self.cut_short: bool = False
        """Whether there was more than it may hold."""
        self._kept = kept
        self._most = most
        self._lines: list[list[Any]] = []
        self._is_lines = not kept and isinstance(decoder, EventStream | JsonLines)
        self._is_events = isinstance(decoder, EventStream)
        self._is_counted = not kept and streamed and isinstance(decoder, RawChunks)
        self._after_cr = False
        self._held = bytearray()

    def feed(self, data: bytes, *, at: float) -> None:
        """One more piece of it, which came `at` (seconds)."""
        self.length += len(data)
        if self.cut_short or not data:
            return
        if self.cuts and self.cuts[-1][0] == at:
            self.cuts[-1][1] += len(data)
        else:
            self.cuts.append([at, len(data)])
        if not self._is_counted:
            self._held += data
        if self._is_lines and (b"\n" in data or b"\r" in data or self._after_cr):
            self._take_lines()
        self._after_cr = data.endswith(b"\r")
        if self.size > self._most:
            self.cut_short = True
            self._held.clear()
            self._lines.clear()
            self.cuts.clear()

    @property
    def size(self) -> int:
        """The memory that it takes, in bytes, about."""
        return len(self._held) + _ENTRY * (len(self._lines) + len(self.cuts))

    @property
    def raw(self) -> bytes | None:
        """All of it, where it is held: not of a stream."""
        return None if self._is_lines or self._is_counted or self.cut_short else bytes(self._held)

    def form(self) -> Form:
        """Its length and shape, or all of it where that is wanted; `render` makes a body of it again."""
        if self.cut_short:
            return {"bytes": self.length, "cut_short": True}
        if self._is_lines:
            rest = bytes(self._held)
            end = "\r" if self._is_events and rest.endswith(b"\r") else ""
            last = [self._line(rest.removesuffix(end.encode()), end)] if rest else []
            return {"lines": [*self._lines, *last]}
        if self._kept:
            try:
                return {"text": self._held.decode()}
            except UnicodeDecodeError:
                return {"base64": b64encode(self._held).decode()}
        kind = "text" if self._is_counted or not self._held else _kind_of(bytes(self._held))
        return {"bytes": self.length} if kind == "text" else {"json": kind, "bytes": self.length}

    def _take_lines(self) -> None:
        *lines, rest = re.split(
            rb"(\r\n|\n|\r(?=.))" if self._is_events else rb"(\n)", bytes(self._held), flags=re.DOTALL
        )
        self._held[:] = rest
        for line, end in zip(lines[::2], lines[1::2], strict=True):
            self._lines.append(self._line(line, end.decode()))

    def _line(self, line: bytes, end: str) -> list[Any]:
        """A line as the part of it that is kept, the kind and the length in bytes of the rest, and its end."""
        # At the very beginning a byte-order mark is no part of the line.
        bom = _BOM if not self._lines and line.startswith(_BOM) else b""
        line = line.removeprefix(bom)
        field = ""
        if self._is_events:
            match = _FIELDS.match(line[:16].decode("utf-8", "replace"))
            field = match[0] if match is not None else ""
        prefix = bom.decode() + field
        value = line[len(field) :]
        if value == b"[DONE]":
            return [prefix + "[DONE]", "", 0, end]
        name, text = field.strip(": "), value.decode("utf-8", "replace")
        if (name == "event" and text in _EVENT_NAMES) or (name == "retry" and re.fullmatch("[0-9]{1,9}", text)):
            return [prefix + text, "", 0, end]
        is_json = name == "data" or not self._is_events
        return [prefix, _kind_of(value) if is_json else "text", len(value), end]


def _kind_of(data: bytes) -> str:
    """The kind of JSON value that `data` is; ``blank`` if it is nothing, ``text`` if it is none."""
    if not data.strip():
        return "blank"
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return "text"
    if value is None or isinstance(value, bool):
        return "literal"
    kinds: Iterable[tuple[type, str]] = ((dict, "object"), (list, "array"), (str, "string"))
    return next((kind for cls, kind in kinds if isinstance(value, cls)), "number")
