"""What any peer's answer is read with: JSON from a stranger, excerpts for errors, dates. No word of the protocol.

Whatever is quoted from an answer goes through `excerpt`, so that no key and no signature gets into a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

from .messages import LARGEST_INT, HttpResponse, Secret
from .policy import Limits

EXCERPT = 200
"""Characters of an answer that an error may quote."""

_SECONDS = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
# A name, then its value: a text up to its closing quote, a structure, or a word. Where an answer quotes another one,
# the quotes are escaped, as JSON or as HTML does it.
_SECRETS = re.compile(
    r"""((?:signature|api_key)(?:\\*["']|&\#?\w+;)?\s*[:=]\s*(?:\\+["']|&\#?\w+;)?|\bBearer\s+)"""
    r"""(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[\[{].*|[^\s"'\\,&}<]+)""",
    re.IGNORECASE | re.DOTALL,
)
_TEXTS = json.JSONDecoder(parse_int=str, parse_float=str)
_SPACE = frozenset(" \t\r\n")
_NO_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"?|[^][{}"]+', re.DOTALL)
_DATE = re.compile(r"[A-Z][a-z]{2}, ([0-9]{2}) ([A-Z][a-z]{2}) ([0-9]{4}) ([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


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
        whole = body.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("the answer is not UTF-8") from None
    text = whole.removeprefix("\ufeff").strip(" \t\r\n")
    if not text:
        raise ValueError("the answer is empty")
    if text.count("[") + text.count("{") > limits.max_depth and _is_deeper(text, limits.max_depth):
        raise ValueError("the answer is nested too deeply")
    try:
        value, end = (_SHORT if len(text) <= _MOST_DIGITS else _LONG).raw_decode(text)
    except json.JSONDecodeError:
        end = -1
    except RecursionError:  # where the limit on nesting is set higher than Python's own
        raise ValueError("the answer is nested too deeply") from None
    if end != len(text):
        raise ValueError("the answer is not JSON" + (": it is HTML" if text[0] == "<" else ""))
    return body if len(text) == len(whole) else text.encode("utf-8"), value


def with_value(raw: bytes, name: str, value: str) -> bytes:
    """The text of a JSON object with `value`, itself JSON, for that of its own field `name`; all else byte for byte.

    Raises ValueError if it has no such field.
    """
    text = raw.decode("utf-8")
    found, end = None, 0
    while found != name:
        found, end = _TEXTS.raw_decode(text, _after_space(text, end + 1))  # behind the brace, or the comma
        begin = _after_space(text, _after_space(text, end) + 1)
        _, stop = _TEXTS.raw_decode(text, begin)
        end = _after_space(text, stop)
    return f"{text[:begin]}{value}{text[stop:]}".encode()


def _after_space(text: str, at: int) -> int:
    while text[at : at + 1] in _SPACE:
        at += 1
    return at


def request_index(fields: Mapping[str, Any]) -> int | None:
    """The ``request_idx`` of an answer: a positive whole number, or None. 0, null and text count as absent."""
    value = fields.get("request_idx")
    return value if type(value) is int and 0 < value <= LARGEST_INT else None


def request_id(fields: Mapping[str, Any], key: Secret | None = None) -> str | None:
    """The ``__request_id`` of an answer, if it is a short printable text; `key` is masked in it."""
    value = fields.get("__request_id")
    if not isinstance(value, str) or len(value) > EXCERPT or not value.isprintable():
        return None
    return without_key(value, key)


def excerpt(data: bytes | str, key: Secret | None = None) -> str:
    """The beginning of `data` for an error's text: printable, at most 200 characters, keys and signatures masked."""
    if isinstance(data, bytes):
        # Enough to fill the excerpt; what is cut off here may leave the beginning of a key, which goes too.
        tail = 2 * len(key.reveal()) if key is not None and len(data) > 16 * EXCERPT else 0
        data = without_key(data[: 16 * EXCERPT].decode("utf-8", "backslashreplace"), key)
        data = data[: max(0, len(data) - tail)]
    else:
        data = without_key(data, key)
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
    until, since = http_date(value), http_date(response.headers.get("date") or "")
    return max(0.0, until - since) if until is not None and since is not None else None


def host_of(location: str | None) -> str:
    """The host that a ``Location`` names, and nothing more of it."""
    if location is None:
        return "nowhere"
    match = re.match(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//(?:[^/?#\\]*@)?([A-Za-z0-9.:\[\]_-]{1,255})(?:[/?#]|$)", location)
    if match is not None:
        return match[1]
    return "another path of the same host" if re.match(r"/(?![/\\])", location) else "an unreadable place"


def http_date(value: str) -> float | None:
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


def without_key(text: str, key: Secret | None) -> str:
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
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"the answer holds a number of more than {_MOST_DIGITS} digits")
    return int(digits)


_MOST_DIGITS = 1000
_SHORT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""For a text in which no number can be too long."""
_LONG = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant, parse_int=_whole)


def _is_deeper(text: str, most: int) -> bool:
    """Whether the brackets of `text` nest deeper than `most`, those inside strings left out."""
    depth = 0
    for bracket in _NO_BRACKETS.sub("", text):
        if bracket in "]}":
            depth -= 1
        elif depth == most:
            return True
        else:
            depth += 1
    return False
