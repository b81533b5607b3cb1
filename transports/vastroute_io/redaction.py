"""What of a conversation may be written down: lists of what is kept. What no list names is replaced by its shape.

Addresses, sessions and ids become names that are the same throughout one recording.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, final

from vastroute import Headers, InvalidValue, Origin, Record, Verifier

from .bodies import Body, Form


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


def note_address(body: bytes, names: Names) -> None:
    """Take note of the worker's url in a request to it, whose path is left out: its grant may have come unseen."""
    value = _sent(body)
    for name in ("auth_data", "session_auth"):
        grant = value.get(name)
        if isinstance(grant, dict) and isinstance(grant.get("url"), str):
            names.grant(grant["url"])


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


# --- records ---------------------------------------------------------------------------------------------------------


def plain_record(record: Record, *, began: float) -> list[Form]:
    """The entries of a call's record as a recording has them: times count from `began`, and no texts are in them.

    So the record of a replayed call can be compared with that of the call that was recorded.
    """
    entries = []
    for entry in record:
        values = entry.as_dict()
        values.pop("detail", None)
        entries.append(values | {name: round(values[name] - began, 6) for name in ("at", "until") if name in values})
    return entries
