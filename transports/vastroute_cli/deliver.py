"""Where an answer goes: to stdout or a file, whole or piece by piece. What is paid for is never thrown away."""

from __future__ import annotations

import json
import mimetypes
import os
import sys
import tempfile
from codecs import getincrementaldecoder
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, final

from vastroute import Answer, InvalidValue, JsonLine, ServerSentEvent, StreamEvent

from .output import say, visible, write_value

_QUIET = frozenset({"role", "content", "refusal", "finish_reason"})
"""What may be in a token's ``delta`` without being missed."""


def token_of(value: Any) -> str | None:
    """The text of one token in OpenAI's shape, perhaps empty; None if `value` is something else."""
    choices = value.get("choices") if isinstance(value, dict) and "error" not in value else None
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return None
    if not choices:
        return ""  # the account of the tokens at the end
    delta = choices[0].get("delta")
    if isinstance(delta, dict):
        text = delta.get("content")
        more = any(delta[name] for name in delta if name not in _QUIET)
    else:
        text, more = choices[0].get("text"), "text" not in choices[0]
    if isinstance(text, str) and text:
        return text
    return None if more else ""


@final
class Delivery:
    """Takes one answer. Use it as ``with Delivery(output) as delivery``; `output` is a file, or None for stdout.

    Raises `InvalidValue` if the file cannot be written, before anything is asked for. It is opened with the first byte,
    so that a call without an answer leaves it as it was.
    """

    def __init__(self, output: Path | None = None) -> None:
        self.output = output
        """The file that it goes to, if there is one."""
        self._file: IO[bytes] | None = None
        self._kept: str | None = None
        self._kind = ""
        self._in_line = False
        self._decoder = getincrementaldecoder("utf-8")("replace")
        if output is not None:
            folder = output.parent
            if output.is_dir() or not os.access(output if output.exists() else folder, os.W_OK):
                raise InvalidValue(f"--output {output} cannot be written")

    @property
    def to_file(self) -> bool:
        """Whether there is a file to write to."""
        return self.output is not None

    def whole(self, answer: Answer) -> None:
        """A whole answer: JSON, pretty on a terminal; text; or media."""
        if answer.content_type.endswith(("/json", "+json")) and not self.to_file and sys.stdout.isatty():
            write_value(answer.data)
        elif self.to_file or isinstance(answer.data, bytes):
            self.media(answer.body, answer.content_type)
        elif answer.data is not None:
            self.text(answer.text())
            self.end_line()
        else:
            say(f"the answer is empty (HTTP {answer.status})", "dim")

    def piece(self, event: StreamEvent, kind: str) -> None:
        """A piece of a stream whose content type is `kind`: a token, or whatever else it is."""
        if isinstance(event, bytes):
            if kind.startswith("text/"):
                self.text(self._decoder.decode(event))
            else:
                self.media(event, kind)
            return
        if isinstance(event, ServerSentEvent) and event.done:
            return
        text = event.text if isinstance(event, JsonLine) else event.data
        try:
            token = token_of(json.loads(text))
        except (ValueError, RecursionError):
            token = None
        if token is None:
            self.text("\n" if self._in_line else "")
            self.text(f"{text}\n")
        else:
            self.text(token)

    def text(self, text: str) -> None:
        """Text, at once."""
        if not text:
            return
        if self.to_file:
            self._write(text.encode("utf-8", "replace"))
            self._in_line = not text.endswith("\n")
            return
        shown = visible(text.replace("\r\n", "\n")) if sys.stdout.isatty() else text
        self._in_line = not text.endswith("\n")
        sys.stdout.write(shown)
        sys.stdout.flush()

    def end_line(self) -> None:
        """Begin a new line, unless one has just begun; a file gets the answer and nothing else."""
        if self._in_line and not self.to_file:
            with suppress(BrokenPipeError):
                self.text("\n")

    def media(self, data: bytes, kind: str) -> None:
        """Bytes that are no text. A terminal does not get them."""
        if not self.to_file and not sys.stdout.isatty():
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        self._kind = kind
        self._write(data)

    def _write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self._open()
        self._file.write(data)
        self._file.flush()

    def _open(self) -> IO[bytes]:
        if self.output is not None:
            try:
                return self.output.open("wb")
            except OSError as error:
                say(f"warning: {self.output} cannot be written ({error.strerror})", "yellow")
        suffix = mimetypes.guess_extension(self._kind) or ".bin"
        kept = tempfile.NamedTemporaryFile(prefix="vastroute-", suffix=suffix, delete=False)  # noqa: SIM115
        self._kept = kept.name
        return kept

    def close(self) -> None:
        """That was all of it. May be called again."""
        self.end_line()
        if self._file is not None:
            self._file.close()
        if self._kept is not None:
            what = self._kind or "the answer"
            say(f"{what} is kept in {self._kept}: no terminal can show it; --output or a pipe takes it")
        self._file = self._kept = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
