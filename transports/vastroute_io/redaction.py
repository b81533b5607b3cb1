"""What of a conversation may be written down: lists of what is kept. What no list names is replaced by its shape.

The shape of a body is enough to make another one of the same length that is read the same way: JSON of the same kind,
the same lines of a stream, the same cuts. Addresses, sessions and ids become names that are the same throughout one
recording.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, final

from vastroute import EventStream, Headers, InvalidValue, JsonLines, Origin, RawChunks, Verifier, stream_decoder

Form: TypeAlias = dict[str, Any]
"""How a body stands in a recording: see `Body.form`."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WORDS = _words(
    "a active are available booting busy cold create created creating dead destroying down endpoint error errored "
    "exited failed full idle in inactive init initializing is load loaded loading model no none not of offline "
    "online paused pending queued ready reboot rebooting running scheduling sleeping standby start started starting "
    "stop stopped stopping total unavailable unknown up waiting warm worker workers"
)
"""The words that a status may be made of. The engine's own wording is not known (wire facts, section 8)."""
_STATUS = re.compile(r"[A-Za-z]+|[0-9]{1,6}|[\s,:;=.()/-]+")
_PHRASES = ("Authentication failed", "No endpoints", "invalid session", "session does not exist", "invalid JSON")
"""The refusals that mean something to a client, or to its reader."""
_MEDIA = _words(
    "application/json application/json-lines application/jsonl application/ndjson application/octet-stream "
    "application/x-jsonlines application/x-ndjson audio/mpeg audio/wav image/jpeg image/png image/webp "
    "text/event-stream text/html text/plain video/mp4"
)
_DATE = r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
_ANSWER_HEADERS: Mapping[str, re.Pattern[str]] = {
    "connection": re.compile("close|keep-alive", re.IGNORECASE),
    "content-length": re.compile("[0-9]{1,19}"),
    "date": re.compile(_DATE),
    "retry-after": re.compile(f"[0-9]{{1,9}}(?:\\.[0-9]{{1,9}})?|{_DATE}"),
    "transfer-encoding": re.compile("chunked", re.IGNORECASE),
}
_REQUEST_HEADERS = frozenset(
    {("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", "vastroute")}
)
_FIELDS = re.compile(r"\ufeff?(?:data|event|id|retry): ?")
_EVENT_LINE = re.compile(rb"(\r\n|\n|\r(?=.))", re.DOTALL)
_JSON_LINE = re.compile(rb"(\n)")
_EVENT_NAMES = frozenset({"completion", "delta", "done", "end", "error", "message", "ping", "token"})
_ENTRY = 64
"""What a line or a cut that was noted counts against the limit, in bytes."""


def value_of(body: bytes | bytearray | str) -> Any:
    """The JSON value of `body`, read as strictly as clients read it. Raises ValueError if it is none."""
    try:
        return json.loads(body, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field twice")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(name)


# --- what is kept of what the protocol knows -------------------------------------------------------------------------


@final
class Names:
    """The names that stand for what is private, the same ones throughout a recording."""

    def __init__(self) -> None:
        self._workers: dict[Origin, Origin] = {}
        self._bases: dict[Origin, str] = {}
        self._others: dict[tuple[str, Any], int] = {}

    def worker(self, origin: Origin) -> Origin:
        """The address that stands for a worker's: one reserved for documentation, with the same scheme."""
        known = self._workers.get(origin)
        if known is None:
            number = len(self._workers) + 1
            known = Origin(
                scheme=origin.scheme, host=f"203.0.113.{(number - 1) % 254 + 1}", port=40_000 + number % 25_000
            )
            self._workers[origin] = known
        return known

    def grant(self, url: str) -> str | None:
        """What stands for the url of a grant, whose path is left out; None if it is no address."""
        parts = url.split("/", 3)
        try:
            origin = Origin.parse("/".join(parts[:3]))
        except InvalidValue:
            return None
        self._bases[origin] = f"/{parts[3]}".rstrip("/") if len(parts) > 3 else ""
        return str(self.worker(origin))

    def route(self, origin: Origin, path: str) -> str:
        """The path at a worker without that of its url."""
        return path.removeprefix(self._bases.get(origin, ""))

    def number(self, kind: str, value: Any) -> int:
        """The number that stands for `value` among those of its kind, from 1."""
        return self._others.setdefault((kind, repr(value)), len(self._others) + 1)


Rule: TypeAlias = Callable[[Any, Names], Any]
"""What is written in place of a value."""


def shape(value: Any, _names: Names | None = None) -> Any:
    """Another value of the same kind."""
    if isinstance(value, str):
        return "x" * len(value)
    if isinstance(value, bool | None):
        return value
    return type(value)() if isinstance(value, list | dict) else 0


def _number(value: Any, _names: Names) -> Any:
    return value if isinstance(value, int | float | None) else shape(value)


def status(value: Any, names: Names) -> Any:
    """A breakdown of workers, if it is made of known words and counts."""
    if isinstance(value, dict):
        return {key: _number(each, names) for key, each in value.items() if key.lower() in _WORDS}
    if not isinstance(value, str):
        return shape(value)
    words = _STATUS.findall(value)
    known = "".join(words) == value and all(not word.isalpha() or word.lower() in _WORDS for word in words)
    return value if known else shape(value)


def _text(value: Any, _names: Names) -> Any:
    if isinstance(value, str):
        return next((phrase for phrase in _PHRASES if phrase in value), shape(value))
    return shape(value)


def _address(value: Any, names: Names) -> Any:
    return (names.grant(value) if isinstance(value, str) else None) or shape(value)


def _id(value: Any, names: Names) -> Any:
    return names.number("id", value) if type(value) is int else shape(value)


def _session(value: Any, names: Names) -> Any:
    return f"session-{names.number('session', value)}" if isinstance(value, str) and value else shape(value)


def _name(value: Any, _names: Names) -> Any:
    return value if isinstance(value, str) else shape(value)


def _key(value: Any, _names: Names) -> Any:
    return "recorded-key" if isinstance(value, str) and value else shape(value)


def _signature(value: Any, _names: Names) -> Any:
    return "recorded" if isinstance(value, str) and value else shape(value)


def fields(rules: Mapping[str, Rule]) -> Rule:
    """A rule for an object: these fields by these rules, and nothing else of it."""

    def keep(value: Any, names: Names) -> Any:
        if not isinstance(value, dict):
            return shape(value)
        return {name: rule(value[name], names) for name, rule in rules.items() if name in value}

    return keep


def each(rule: Rule) -> Rule:
    """A rule for a list."""

    def keep(value: Any, names: Names) -> Any:
        return [rule(one, names) for one in value] if isinstance(value, list) else shape(value)

    return keep


def either(first: Rule, second: Rule) -> Rule:
    """The first rule for a list, the second for anything else."""
    return lambda value, names: (first if isinstance(value, list) else second)(value, names)


_NUMBERS = _words(
    "cur_load cur_load_rolling_avg cur_perf disk_usage dlperf loaded_at measured_perf new_load perf reliability "
    "reqs_working started_at"
)
_WORKERS = each(fields({"id": _id, "status": status} | dict.fromkeys(_NUMBERS, _number)))
_REFUSAL: dict[str, Rule] = {"error": _text, "error_msg": _text}
_LIFE: dict[str, Rule] = dict.fromkeys(("lifetime", "expiration", "created_at"), _number)
_REQUESTS: Mapping[str, Rule] = {
    "/route/": fields(
        {"endpoint": _name, "api_key": _key, "cost": _number, "request_idx": _number, "replay_timeout": _number}
    ),
    "/get_endpoint_workers/": fields({"id": _id, "api_key": _key}),
}
"""What is kept of requests, by path: fields of wire facts, sections 1 and 7."""
_ANSWERS: Mapping[str, Rule] = {
    "/route/": fields(
        {
            "url": _address,
            "cost": _number,
            "reqnum": _number,
            "request_idx": _number,
            "signature": _signature,
            "status": status,
            **_REFUSAL,
        }
    ),
    "/get_endpoint_workers/": either(_WORKERS, fields({"workers": _WORKERS, **_REFUSAL})),
    "/api/v0/endptjobs/": fields(
        {
            "success": _number,
            "results": each(fields({"id": _id, "endpoint_name": _name, "api_key": _key, "endpoint_state": status})),
            **_REFUSAL,
        }
    ),
    "/session/create": fields({"session_id": _session, **_LIFE, **_REFUSAL}),
    "/session/get": fields({"session_id": _session, **_LIFE, **_REFUSAL}),
    "/session/health": fields({"ok": _number, **_REFUSAL}),
    "/session/end": fields({"ended": _number, "removed_session": _session, **_REFUSAL}),
}
"""What is kept of answers, by path: fields of wire facts, sections 1, 5 and 7."""


def request_fields(path: str, body: bytes, names: Names) -> Form | None:
    """What is kept of a request to the engine; None of one that is not known."""
    rule = _REQUESTS.get(path)
    kept: Form | None = None if rule is None else rule(_sent(body), names)
    return kept


def worker_fields(body: bytes, names: Names, *, payload: bool) -> Form:
    """What is kept of a request to a worker: which session, and the length of the payload, or all of it."""
    value = _sent(body)
    session_id = value.get("session_id")
    kept: Form = {"session_id": None if session_id is None else _session(session_id, names)}
    if "payload" in value:
        given = value["payload"]
        kept["payload"] = {"value": given} if payload else {"bytes": len(json.dumps(given))}
    return kept


def _sent(body: bytes) -> dict[str, Any]:
    """The fields of a request of ours."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def answer_form(path: str, body: Body, names: Names, *, asked: Any, verifier: Verifier | None) -> Form:
    """The form of an answer of the protocol's own. `asked` is the endpoint that was asked for.

    Where the answer is not what the protocol says, its shape is kept like that of any other body.
    """
    rule, raw = _ANSWERS.get(path), body.raw
    if raw is None:
        return body.form()
    if path == "/pubkey/" and b"PUBLIC KEY" in raw:
        return {"public_key": True}
    try:
        value = value_of(raw)
    except ValueError:
        return body.form()
    if rule is None or not isinstance(value, dict | list):
        return body.form()
    kept: Form = {"fields": rule(value, names), "bytes": len(raw)}
    if path == "/route/" and isinstance(value, dict):
        # A name that was not asked for may be anything.
        if "endpoint" in value:
            kept["fields"]["endpoint"] = asked if value["endpoint"] == asked else shape(value["endpoint"])
        if verifier is not None and isinstance(value.get("signature"), str):
            # One of our own: the clients' is used by one thread at a time.
            verdict = verifier.with_keys(verifier.keys).check(value)
            kept["signature"] = {"reason": verdict.reason.value, "form": verdict.form}
    return kept


# --- headers ---------------------------------------------------------------------------------------------------------


def request_headers(headers: Headers) -> list[list[str]]:
    """Those that we set ourselves, with the values that we set."""
    return [[name, value] for name, value in headers if (name, value) in _REQUEST_HEADERS]


def answer_headers(headers: Headers) -> list[list[str]]:
    """Those that say how to read an answer, where their values are such."""
    kept = []
    for name, value in headers:
        if name == "content-type":
            media, _, rest = value.partition(";")
            media = media.strip().lower()
            kind = media if media in _MEDIA else _kind_of_media(media)
            kept.append([name, f"{kind}; charset=utf-8" if "utf-8" in rest.lower() else kind])
        elif name in _ANSWER_HEADERS and _ANSWER_HEADERS[name].fullmatch(value):
            kept.append([name, value])
    return kept


def _kind_of_media(media: str) -> str:
    """A media type that is read as this one is."""
    if media.endswith("+json"):
        return "application/json"
    return "text/plain" if media.startswith("text/") else "application/octet-stream"


# --- bodies ----------------------------------------------------------------------------------------------------------


@final
class Body:
    """A body on its way, as it will stand in a recording. Takes `most` bytes of memory at the most, about."""

    def __init__(self, content_type: str | None, *, streamed: bool, kept: bool, most: int) -> None:
        decoder = stream_decoder(content_type)
        self.length = 0
        self.cuts: list[list[float]] = []
        """When how many bytes of it came."""
        self.cut_short = False
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
        prefix = ""
        if self._is_events:
            match = _FIELDS.match(line[:16].decode("utf-8", "replace"))
            prefix = match[0] if match is not None else ""
        value = line[len(prefix.encode()) :]
        if value == b"[DONE]":
            return [prefix + "[DONE]", "", 0, end]
        name, text = prefix.strip(": \ufeff"), value.decode("utf-8", "replace")
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
