"""Messages to HTTP and back: pure functions, no state, no time. Everything a peer can write is read here, once.

Reading is strict about what is acted on (the worker's address, numbers, one meaning per field) and lenient about the
rest: unknown fields are kept, the content type is not looked at, a status of any shape is passed on.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any, NamedTuple

from .errors import Advice, CallFailed, InvalidValue, KeyRefused, Outcome, Phase, Refused, UnexpectedAnswer
from .messages import ENGINE, LARGEST_INT, Grant, HttpRequest, HttpResponse, NotReady, RouteRequest, Secret
from .policy import Limits
from .urls import Origin, split_url

EXCERPT = 200
"""Characters of an answer that an error may quote."""


def encode_route(
    request: RouteRequest,
    *,
    key: Secret | str,
    engine: Origin = ENGINE,
    request_idx: int | None = None,
    key_in_body: bool = False,
) -> HttpRequest:
    """The HTTP request that asks `engine` for a worker; the same bytes for the same arguments.

    `key` is the endpoint's own key and goes into the ``Authorization`` header, which suffices (wire facts, section
    1); `key_in_body` puts it into the body as well, where Vast's page first places it. `request_idx` is the number
    that is held; without it the request's own is sent, and none if there is none: never 0.
    """
    secret = Secret.of(key)
    parts = [f'"endpoint": {encode_basestring_ascii(request.endpoint)}']
    if key_in_body:
        parts.append(f'"api_key": {encode_basestring_ascii(secret.reveal())}')
    parts.append(f'"cost": {_number(request.cost)}')
    index = request.request_idx if request_idx is None else request_idx
    if index is not None:
        if request_index({"request_idx": index}) is None:
            raise InvalidValue("request_idx must be a whole number from 1, as the engine gave it; never 0")
        parts.append(f'"request_idx": {index}')
    if request.replay_timeout is not None:
        parts.append(f'"replay_timeout": {_number(request.replay_timeout)}')
    if request.extra:
        parts += [f"{encode_basestring_ascii(name)}: {json.dumps(value)}" for name, value in request.extra.items()]
    body = "{" + ", ".join(parts) + "}"
    return HttpRequest(
        method="POST", origin=engine, target="/route/", headers=secret.headers, body=body.encode("ascii")
    )


def decode_route(
    response: HttpResponse, *, limits: Limits = Limits(), key: Secret | str | None = None
) -> Grant | NotReady:
    """What the engine's answer means: a worker, or none yet.

    Raises a `CallFailed` for everything else: `Refused` and `KeyRefused` where the engine says no (also inside a
    200), `UnexpectedAnswer` where it is no answer of this protocol. Its ``advice`` is ``ASK_AGAIN`` if the trouble may
    pass. `key` is masked in what the error quotes and in a `NotReady`, should the engine repeat it.
    """
    key = None if key is None else Secret.of(key)
    status = response.status
    if not 200 <= status < 300:
        raise refusal_of(response, limits, key, Phase.ROUTE)
    try:
        raw, fields = parse_object(response.body, limits)
    except ValueError as error:
        raise _unexpected(str(error), response, key) from None
    refusal = _refusal_text(fields)
    url = fields.get("url")
    if url or fields.get("signature") is not None:
        return _grant(raw, fields, response, key)
    if refusal is not None:
        raise _failure(
            Refused,
            "the engine finds no such endpoint for this key: the name is wrong, or the key is another endpoint's",
            Advice.CHECK_ENDPOINT,
            response,
            key,
            fields,
        )
    text, counts = _status(fields.get("status"))
    endpoint = fields.get("endpoint")
    return NotReady(
        status=None if text is None else _without_key(text, key),
        counts={_without_key(name, key): number for name, number in counts.items()},
        request_idx=request_index(fields),
        request_id=request_id(fields, key),
        endpoint=_without_key(endpoint, key) if isinstance(endpoint, str) else None,
    )


def parse_object(body: bytes, limits: Limits) -> tuple[bytes, dict[str, Any]]:
    """The exact text of a JSON object and its fields. Raises ValueError, whose text says what it is instead."""
    text, fields = parse_body(body, limits)
    if type(fields) is not dict:
        raise ValueError("the answer is JSON, but not an object")
    return text, fields


def parse_body(body: bytes, limits: Limits) -> tuple[bytes, Any]:
    """The exact text of a JSON value, and the value. Raises ValueError, whose text says what it is instead.

    Stricter than `json.loads` where two readers could disagree: a field named twice, NaN and infinities, encodings
    other than UTF-8, and nesting beyond the limit are refused.
    """
    if len(body) > limits.max_body:
        raise ValueError(f"the answer has {len(body)} bytes, more than the {limits.max_body} allowed")
    try:
        text = body.decode("utf-8").removeprefix("\ufeff").strip(" \t\r\n")
    except UnicodeDecodeError:
        raise ValueError("the answer is not UTF-8") from None
    if not text:
        raise ValueError("the answer is empty")
    if text.count("[") + text.count("{") > limits.max_depth and _depth(text) > limits.max_depth:
        raise ValueError("the answer is nested too deeply")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError:
        raise ValueError("the answer is not JSON" + (": it is HTML" if text[0] == "<" else "")) from None
    except RecursionError:  # where the limit on nesting is set higher than Python's own
        raise ValueError("the answer is nested too deeply") from None
    return text.encode("utf-8"), value


def request_index(fields: Mapping[str, Any]) -> int | None:
    """The ``request_idx`` of an answer: a positive whole number, or None. 0, null and text count as absent."""
    value = fields.get("request_idx")
    return value if type(value) is int and 0 < value <= LARGEST_INT else None


def request_id(fields: Mapping[str, Any], key: Secret | None = None) -> str | None:
    """The ``__request_id`` of an answer, if it is a short printable text; `key` is masked in it."""
    value = fields.get("__request_id")
    if not isinstance(value, str) or len(value) > EXCERPT or not value.isprintable():
        return None
    return _without_key(value, key)


def excerpt(data: bytes | str, key: Secret | None = None) -> str:
    """The beginning of `data` for an error's text: printable, at most 200 characters, keys and signatures masked."""
    if isinstance(data, bytes):
        # Enough to fill the excerpt; what is cut off here may leave the beginning of a key, which goes too.
        tail = 2 * len(key.reveal()) if key is not None and len(data) > 16 * EXCERPT else 0
        data = _without_key(data[: 16 * EXCERPT].decode("utf-8", "backslashreplace"), key)
        data = data[: max(0, len(data) - tail)]
    else:
        data = _without_key(data, key)
    data = _SECRETS.sub(r"\1[masked]", data)
    data = "".join(c if c.isprintable() else " " for c in data).strip()
    data = re.sub(" {2,}", " ", data)
    return data if len(data) <= EXCERPT else data[: EXCERPT - 3] + "..."


def retry_after(response: HttpResponse) -> float | None:
    """The seconds that ``Retry-After`` asks for, or None. A date counts from the answer's own ``Date``."""
    value = response.headers.get("retry-after")
    if value is None:
        return None
    if _SECONDS.fullmatch(value):
        return float(value)
    until, since = _http_date(value), _http_date(response.headers.get("date") or "")
    return max(0.0, until - since) if until is not None and since is not None else None


_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# A name, then its value: a text up to its closing quote, a structure, or a word. Where an answer quotes another one,
# the quotes are escaped, as JSON or as HTML does it.
_SECRETS = re.compile(
    r"""((?:signature|api_key)(?:\\*["']|&\#?\w+;)?\s*[:=]\s*(?:\\+["']|&\#?\w+;)?|\bBearer\s+)"""
    r"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[\[{].*|[^\s"'\\,&}<]+)""",
    re.IGNORECASE | re.DOTALL,
)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_DATE = re.compile(r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_COUNT_PAIRS = re.compile(
    r"([A-Za-z][A-Za-z_ ]{0,40}?)\s{0,9}[:=]\s{0,9}([0-9]{1,9})(?![0-9.])|\b([0-9]{1,9})\s{1,9}([A-Za-z_]{1,40})"
)


def _number(value: float) -> str:
    """The JSON text of a number. A subclass (an IntEnum, NumPy's float64) may have a repr of its own."""
    return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)


def _without_key(text: str, key: Secret | None) -> str:
    """`text` with the key masked, also as JSON writes it."""
    if key is not None:
        plain = key.reveal()
        escaped = encode_basestring_ascii(plain)[1:-1]
        for spelling in (plain, escaped, escaped.replace("/", "\\/")):
            text = text.replace(spelling, "[key]")
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("the answer names a field twice")
    return fields


def _no_constant(name: str) -> Any:
    raise ValueError(f"the answer holds {name}, which is not JSON")


def _whole(digits: str) -> int:
    if len(digits) > 1000:
        raise ValueError("the answer holds a number of more than 1000 digits")
    return int(digits)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)


def _depth(text: str) -> int:
    """How deep the brackets of `text` nest, those inside strings left out."""
    deepest = depth = 0
    for character in _STRING.sub("", text):
        if character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _grant(raw: bytes, fields: dict[str, Any], response: HttpResponse, key: Secret | None) -> Grant:
    """The typed view of a grant. A worker refuses one that lacks any of these (wire facts, section 3)."""

    def useless(why: str) -> CallFailed:
        return _unexpected(f"the grant cannot be used: {why}", response, key, fields)

    for name, is_right, wanted in _GRANT_FIELDS:
        if not is_right(fields.get(name)):
            raise useless(f"its {name} is not {wanted}")
    try:
        origin, path = split_url(fields["url"])
    except InvalidValue as error:
        raise useless(f"its url is {error}") from None
    return Grant(
        raw=raw,
        fields=fields,
        url=fields["url"],
        origin=origin,
        path=path,
        endpoint=fields["endpoint"],
        cost=fields["cost"],
        reqnum=fields["reqnum"],
        signature=fields["signature"],
        request_idx=request_index(fields),
        request_id=request_id(fields),
    )


def _is_text(value: object) -> bool:
    return type(value) is str


def _is_number(value: object) -> bool:
    return (type(value) is int and abs(value) <= LARGEST_INT) or (type(value) is float and math.isfinite(value))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST_INT


_GRANT_FIELDS = (
    ("url", _is_text, "text"),
    ("endpoint", _is_text, "text"),
    ("signature", _is_text, "text"),
    ("cost", _is_number, "a finite number"),
    ("reqnum", _is_count, "a whole number of at least 0"),
)


def _status(value: Any) -> tuple[str | None, dict[str, int]]:
    """A ``status`` of any shape as text, and the numbers that can be read out of it."""
    if isinstance(value, dict):
        counts = {name: number for name, number in value.items() if type(number) is int and abs(number) <= LARGEST_INT}
        return json.dumps(value), counts
    if isinstance(value, str):
        counts = {}
        for name, number, number_first, name_after in _COUNT_PAIRS.findall(value):
            counts[(name or name_after).strip().lower()] = int(number or number_first)
        return value, counts
    return (None if value is None else json.dumps(value)), {}


def _refusal_text(fields: Mapping[str, Any]) -> str | None:
    """What ``error_msg`` or ``error`` says; both are documented (wire facts, section 1)."""
    for name in ("error_msg", "error"):
        if value := fields.get(name):
            return value if isinstance(value, str) else json.dumps(value)
    return None


class _Rule(NamedTuple):
    """What an HTTP status from the engine means."""

    error: type[CallFailed]
    advice: Advice
    message: str


_KEY = _Rule(
    KeyRefused,
    Advice.CHECK_KEY,
    "the engine does not accept the key; it wants the endpoint's own key, and answers an account's key like this",
)
_BUSY = _Rule(Refused, Advice.ASK_AGAIN, "the engine is busy or failing")
_INPUT = _Rule(Refused, Advice.CHECK_INPUT, "the engine refuses the request")
_NO_ROUTE = _Rule(
    UnexpectedAnswer, Advice.CHECK_ANSWER, "this server does not know what was asked for: is it an engine?"
)
_STATUS_RULES: Mapping[int, _Rule] = {
    401: _KEY,
    403: _KEY,
    404: _NO_ROUTE,
    405: _NO_ROUTE,
    408: _BUSY,
    425: _BUSY,
    429: _BUSY,
}


def refusal_of(response: HttpResponse, limits: Limits, key: Secret | None, phase: Phase) -> CallFailed:
    """The error for an engine's status outside 200 to 299."""
    status = response.status
    if 300 <= status < 400:
        where = _without_key(_host_of(response.headers.get("location")), key)
        message = f"a redirect to {where}, never followed"
        return _failure(UnexpectedAnswer, message, Advice.CHECK_ANSWER, response, key, phase=phase)
    if not 400 <= status < 600:
        message = "a status that ends no exchange"
        return _failure(UnexpectedAnswer, message, Advice.CHECK_ANSWER, response, key, phase=phase)
    rule = _BUSY if status >= 500 else _STATUS_RULES.get(status, _INPUT)
    try:
        _, fields = parse_object(response.body, limits)
    except ValueError:
        fields = {}
    return _failure(rule.error, rule.message, rule.advice, response, key, fields, phase=phase)


def _unexpected(
    message: str, response: HttpResponse, key: Secret | None, fields: Mapping[str, Any] | None = None
) -> CallFailed:
    # A gateway's error page inside a 200 may be gone a moment later: worth a bounded number of retries.
    return _failure(UnexpectedAnswer, message, Advice.ASK_AGAIN, response, key, fields)


def _failure(
    error: type[CallFailed],
    message: str,
    advice: Advice,
    response: HttpResponse,
    key: Secret | None,
    fields: Mapping[str, Any] | None = None,
    *,
    phase: Phase = Phase.ROUTE,
) -> CallFailed:
    fields = fields or {}
    return error(
        message,
        phase=phase,
        outcome=Outcome.ANSWERED,
        advice=advice,
        status=response.status,
        excerpt=excerpt(_refusal_text(fields) or response.body, key),
        request_idx=request_index(fields),
        request_id=request_id(fields, key),
        retry_after=retry_after(response),
    )


def _host_of(location: str | None) -> str:
    """The host that a ``Location`` names, and nothing more of it."""
    if location is None:
        return "nowhere"
    match = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#\\]*@)?([A-Za-z0-9.:\[\]_-]{1,255})(?:[/?#]|$)", location)
    if match is not None:
        return match[1]
    return "another path of the same host" if re.match(r"/(?![/\\])", location) else "an unreadable place"


def _http_date(value: str) -> float | None:
    """Seconds since the epoch of an HTTP date in its one current form, or None."""
    match = _DATE.fullmatch(value)
    if match is None or match[2] not in _MONTHS:
        return None
    from datetime import UTC, datetime  # arithmetic only, and rarely needed

    day, year, hour, minute, second = (int(match[n]) for n in (1, 3, 4, 5, 6))
    try:
        return datetime(year, _MONTHS.index(match[2]) + 1, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None
