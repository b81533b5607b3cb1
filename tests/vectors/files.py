"""The vector files as Python sees them: rows, bytes, and the one way in which they are written.

A port in another language needs nothing of this: ``docs/vectors.md`` says all that it does in words.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from vastroute import Headers, Http1Connection, HttpRequest, HttpResponse, Origin, ResponseHead

FOLDER = Path(__file__).parent
WIDTH = 118
"""Columns of a line, as far as its values can be broken."""
_UNSEEN = re.compile("[\x7f-\xa0\xad\u2000-\u200f\u2028-\u202f\ufeff]")
"""Characters that an editor does not show, or takes for a line's end."""
SAID = frozenset({"id", "from", "note", "expect"})
"""What every row may hold beside its inputs."""

Plain: TypeAlias = dict[str, Any]


class Row(Mapping[str, Any]):
    """A row's values, which keeps account of who was looked at: an input that no reader knows is a mistake."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.seen: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def unread(self) -> set[str]:
        """Inputs that were not looked at."""
        return set(self._values) - self.seen - SAID


def load(name: str) -> Plain:
    """The file `name`, its header and its rows."""
    return dict(json.loads((FOLDER / name).read_text("utf-8")))


def data_of(values: Mapping[str, Any], name: str, default: bytes = b"") -> bytes:
    """The bytes called `name`: UTF-8 text under that name, or base64 under the name with ``_base64`` behind it."""
    if f"{name}_base64" in values:
        return b64decode(values[f"{name}_base64"], validate=True)
    return str(values[name]).encode() if name in values else default


def put(name: str, data: bytes) -> Plain:
    """The bytes `data` as `data_of` reads them; left out where there are none."""
    if not data:
        return {}
    try:
        return {name: data.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(data).decode()}


def recorded(name: str, line: int) -> Plain:
    """One recorded exchange, by the number of its line."""
    return dict(json.loads((FOLDER / name).read_text("utf-8").splitlines()[line - 1]))


def response_of(values: Mapping[str, Any]) -> HttpResponse:
    """An answer: ``status``, ``headers`` and ``body``, or the bytes of a recorded one."""
    if "recorded" in values:
        return _whole(b64decode(recorded(**values["recorded"])["response_b64"]))
    return HttpResponse(status=values["status"], headers=values.get("headers", ()), body=data_of(values, "body"))


def _whole(data: bytes) -> HttpResponse:
    connection = Http1Connection()
    connection.send(HttpRequest(method="POST", origin=Origin.parse("http://worker"), target="/", headers=Headers()))
    head, *pieces, _ = connection.receive(data)
    assert isinstance(head, ResponseHead)
    body = b"".join(piece for piece in pieces if isinstance(piece, bytes))
    return HttpResponse(status=head.status, headers=head.headers, body=body)


def bare(value: Any) -> Any:
    """`value` without what is null: to leave it out means the same."""
    if isinstance(value, Mapping):
        return {name: bare(each) for name, each in value.items() if each is not None}
    return [bare(each) for each in value] if isinstance(value, list | tuple) else value


def written(value: Any, indent: int = 0, used: int = 0) -> str:
    """`value` as JSON: on one line where it fits, else broken up."""
    flat = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
    if indent + used + len(flat) < WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = " " * (indent + 2)
    if isinstance(value, list):
        parts = [written(each, indent + 2) for each in value]
    else:
        names = {name: json.dumps(name, ensure_ascii=False) + ": " for name in value}
        parts = [names[name] + written(each, indent + 2, len(names[name])) for name, each in value.items()]
    begin, end = "[]" if isinstance(value, list) else "{}"
    return begin + "\n" + ",\n".join(inner + part for part in parts) + "\n" + " " * indent + end
