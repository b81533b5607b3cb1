"""Bodies and answers made again from what a recording holds of them: of the same length, and read the same way."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, TypeAlias

from vastroute import FORMS, FailureKind, Headers, InvalidValue, Reason

from .keys import OTHER_TEST_PRIVATE_KEY, TEST_PRIVATE_KEY, TEST_PUBLIC_KEY, sign
from .schedule import Chunk, Cut, End, Garbage, Head, Schedule, Step

Form: TypeAlias = Mapping[str, Any]
_FORMS = {form.name: form for form in FORMS}
_OURS = frozenset({FailureKind.TIMEOUT.value, FailureKind.TOO_LARGE.value})
"""Failures that are the client's own: the server goes on, or hangs."""


def filler(kind: str, length: int) -> bytes:
    """`length` bytes of JSON of that kind, or of plain text."""
    if kind == "object" and length >= 2:
        return b"{" + b" " * (length - 2) + b"}"
    if kind == "array" and length >= 2:
        return b"[" + b" " * (length - 2) + b"]"
    if kind == "string" and length >= 2:
        return b'"' + b"x" * (length - 2) + b'"'
    if kind == "literal" and length >= 4:
        return b"null" + b" " * (length - 4)
    if kind == "blank":
        return b" " * length
    if kind == "number":
        return b"1" + b" " * (length - 1)
    return b"x" * length


def render(form: Form, path: str) -> bytes:
    """A body of this form, in answer to a request to `path`."""
    if form.get("public_key"):
        return TEST_PUBLIC_KEY.encode()
    if "fields" in form:
        fields = form["fields"]
        if isinstance(fields, dict) and "url" in fields and fields.get("signature"):
            fields = fields | {"signature": signature(fields, form.get("signature") or {})}
        return json.dumps(fields).encode().ljust(form["bytes"])
    if "lines" in form:
        return b"".join(prefix.encode() + filler(kind, n) + end.encode() for prefix, kind, n, end in form["lines"])
    if "text" in form:
        return str(form["text"]).encode()
    if "base64" in form:
        return b64decode(form["base64"])
    return filler(form.get("json", "text"), form["bytes"])


def signature(fields: Mapping[str, Any], found: Form) -> str:
    """A grant's signature by the test key, in the form that was found; one that does not verify where none did."""
    form = _FORMS.get(found.get("form") or "", FORMS[0])
    if found.get("reason") == Reason.MALFORMED.value:
        return "not a signature"
    key = OTHER_TEST_PRIVATE_KEY if found.get("reason") == Reason.NO_MATCH.value else TEST_PRIVATE_KEY
    try:
        return sign(fields, form, key=key)
    except InvalidValue:  # a field that the form signs is missing, and is missed by the client before the signature is
        return b64encode(bytes(256)).decode()


def schedule(exchange: Form, *, now: float, closes: bool) -> Schedule:
    """What the server does with the request of `exchange`, which arrives at `now`. `closes`: it keeps no connection."""

    began: float = exchange["at"]

    def at(seconds: float) -> float:
        return now + max(0.0, seconds - began)

    steps: list[Step] = []
    answer, failed = exchange.get("answer"), exchange.get("failed")
    if answer is not None:
        body = render(answer["body"], exchange["request"]["path"])
        cuts = answer["cuts"]
        more = len(body) - sum(length for _, length in cuts)
        steps.append(Head(at=at(answer["at"]), status=answer["status"], headers=_headers(answer, more, closes)))
        for number, (when, length) in enumerate(cuts, 1):
            piece, body = (body, b"") if number == len(cuts) else (body[:length], body[length:])
            steps.append(Chunk(at=at(when), data=piece))
        if answer["end"] is not None:
            steps.append(End(at=at(answer["end"])))
    if failed is not None and failed["kind"] not in _OURS:
        if failed["kind"] == FailureKind.GARBAGE.value:
            steps.append(Garbage(at=at(failed["at"])))
        else:
            closed = failed["kind"] == FailureKind.EOF.value
            steps.append(Cut(at=at(failed["at"]), kind=FailureKind.EOF if closed else FailureKind.RESET))
    return tuple(steps)


def _headers(answer: Form, more: int, closes: bool) -> Headers:
    """The headers, with the length of the body that is sent: `more` bytes beyond the recorded one."""
    pairs = []
    for name, value in answer["headers"]:
        if name == "connection" and closes:
            continue
        pairs.append((name, str(int(value) + more) if name == "content-length" else value))
    return Headers([*pairs, ("connection", "close")] if closes else pairs)
