"""The values that cross the core's border: requests, answers, grants, and what is said about a call.

All are frozen. None holds a connection, a clock or a key in the open: a key lives in a `Secret`, and the one place
where it comes out is an HTTP request's ``Authorization`` header (or its body, where a caller asked for that).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, final

import attrs

from .errors import InvalidValue, LocalProtocolError
from .urls import Origin

ENGINE = Origin(scheme="https", host="run.vast.ai", port=443)
"""The production engine. Source: wire facts, section 1."""
USER_AGENT = "vastroute"
LARGEST_INT = 2**63 - 1
"""The largest whole number that is taken from an answer or sent."""
_LARGEST_FLOAT = 1.7976931348623157e308


@final
class Secret:
    """A key that does not show: not in a repr, a text, a comparison's output or a pickle.

    `value` is visible ASCII without spaces, as HTTP's ``Authorization`` header takes it; anything else raises
    `InvalidValue`, which never repeats it.
    """

    __slots__ = ("_headers", "_value")

    def __init__(self, value: str) -> None:
        if not isinstance(value, str) or not value:
            raise InvalidValue("the key must be non-empty text")
        if not (value.isascii() and value.isprintable() and " " not in value):
            raise InvalidValue(
                "the key holds a character that no HTTP header can carry (a line end or space left over?)"
            )
        self._value = value
        self._headers = Headers(
            (
                ("authorization", f"Bearer {value}"),
                ("content-type", "application/json"),
                ("accept-encoding", "identity"),
                ("user-agent", USER_AGENT),
            )
        )

    @classmethod
    def of(cls, key: Secret | str) -> Secret:
        """`key` itself if it is a `Secret`, else a new one."""
        return key if type(key) is Secret else cls(key)  # a wrong type is refused there

    def reveal(self) -> str:
        """The key in the open. Whoever calls this answers for where it goes."""
        return self._value

    @property
    def headers(self) -> Headers:
        """The headers of a JSON request that carries this key; made once, since every request needs them."""
        return self._headers

    def __repr__(self) -> str:
        return "Secret(...)"

    def __eq__(self, other: object) -> bool:
        return type(other) is Secret and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> Any:
        raise LocalProtocolError(
            "a key is never pickled or copied: pass a reference to it and load it where it is used"
        )


@final
class Headers:
    """HTTP headers in order: names lower case, repeated names kept, both sides text (latin-1 on the wire)."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]] | Headers = ()) -> None:
        try:
            # Not every library's headers are a Mapping: those of the standard library only look like one.
            items = pairs.items() if hasattr(pairs, "items") else pairs
            self._pairs = tuple([(_text(name).lower(), _text(value)) for name, value in items])
        except (TypeError, ValueError):
            raise InvalidValue("headers must be a mapping or pairs, of text or bytes") from None

    def get(self, name: str) -> str | None:
        """The first value of `name`, in any case, or None."""
        name = name.lower()
        for key, value in self._pairs:
            if key == name:
                return value
        return None

    def get_all(self, name: str) -> tuple[str, ...]:
        """Every value of `name`, in any case, in order."""
        name = name.lower()
        return tuple(value for key, value in self._pairs if key == name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and other._pairs == self._pairs

    def __hash__(self) -> int:
        return hash(self._pairs)

    def __repr__(self) -> str:
        shown = [(name, "..." if name in _HIDDEN_HEADERS else value) for name, value in self._pairs]
        return f"Headers({shown!r})"

    def __reduce__(self) -> Any:
        if any(name in _CREDENTIALS for name, _ in self._pairs):
            raise LocalProtocolError("headers that hold a key are never pickled or copied")
        return Headers, (self._pairs,)


_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})
_HIDDEN_HEADERS = _CREDENTIALS | {"cookie", "set-cookie"}


def _text(value: str | bytes) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("latin-1")
    raise TypeError


def _headers(value: Any) -> Headers:
    return value if type(value) is Headers else Headers(value)


def _size(body: bytes) -> str:
    return f"<{len(body)} bytes>"


@attrs.frozen(kw_only=True)
class HttpRequest:
    """One HTTP request, ready for any HTTP library: `method`, `url`, `headers`, `body` are all it needs.

    ``Host`` and ``Content-Length`` are not among the headers: every library adds them by itself. Send it as it is:
    follow no redirect, add no credentials. Its repr hides the key; pickling is refused, since the key is in it.
    """

    method: str
    origin: Origin
    target: str
    """Path and query, as the request line has it."""
    headers: Headers
    body: bytes = attrs.field(default=b"", repr=_size)

    @property
    def url(self) -> str:
        """The whole address."""
        return f"{self.origin}{self.target}"

    def __getstate__(self) -> Any:
        raise LocalProtocolError(
            "a request may hold a key and is never pickled or copied: build it again from its call"
        )


@attrs.frozen(kw_only=True)
class ResponseHead:
    """The beginning of an answer: the status and the headers."""

    status: int
    headers: Headers = attrs.field(converter=_headers, factory=Headers)
    framed: bool = False
    """Whether the version of HTTP marks the end of every answer by itself, as HTTP/2 and HTTP/3 do. In HTTP/1 the
    headers tell, or nothing does: then a stream that just stops counts as cut."""


def _status(_instance: object, _attribute: object, value: Any) -> None:
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidValue("status must be the answer's HTTP status: a whole number")


def _bytes(value: bytes | bytearray | memoryview) -> bytes:
    if type(value) is bytes:
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        raise InvalidValue("body must be the answer's bytes as they came, not text that was made of them")
    return bytes(value)


@attrs.frozen(kw_only=True)
class HttpResponse:
    """A whole answer as any HTTP library gives it: `headers` may be a mapping or pairs, text or bytes."""

    status: int = attrs.field(validator=_status)
    headers: Headers = attrs.field(converter=_headers, factory=Headers)
    body: bytes = attrs.field(default=b"", converter=_bytes, repr=_size)


def response_of(head: ResponseHead, body: bytes) -> HttpResponse:
    """The answer of this `head` and `body`, which a connection of ours has read: none of it is looked at again."""
    response = _new(HttpResponse)
    _set(response, "status", head.status)
    _set(response, "headers", head.headers)
    _set(response, "body", body)
    return response


_new, _set = object.__new__, object.__setattr__


def _endpoint(_instance: object, _attribute: object, value: str) -> None:
    if not isinstance(value, str) or not value or value.isspace():
        raise InvalidValue("endpoint must be the endpoint's name: non-empty text")


def _cost(_instance: object, _attribute: object, value: object) -> None:
    # Compared, not math.isfinite: that fails for an int which no float can hold.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST_FLOAT:
        raise InvalidValue(
            "cost must be a finite number of at least 0, in the units that the endpoint's workers define"
        )


def _index(_instance: object, _attribute: object, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_INT):
        raise InvalidValue(
            "request_idx must be a whole number from 1, as the engine gave it; leave it out for a new request"
        )


def _seconds(_instance: object, attribute: Any, value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST_FLOAT
    ):
        raise InvalidValue(f"{attribute.name} must be seconds: a finite number above 0")


_OWN_INPUTS = frozenset({"endpoint", "api_key", "cost", "request_idx", "replay_timeout"})


def _extra(value: Mapping[str, Any]) -> Mapping[str, Any]:
    if value == {}:
        return {}
    try:
        copy: Mapping[str, Any] = json.loads(json.dumps(dict(value), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"extra must be a mapping that JSON can hold: {error}") from None
    if clash := _OWN_INPUTS & set(copy):
        raise InvalidValue(f"extra must not repeat what has an argument of its own: {', '.join(sorted(clash))}")
    return copy


@attrs.frozen(kw_only=True)
class RouteRequest:
    """What is asked of the engine: a worker of `endpoint`, for work of a given `cost`.

    Source of the fields: wire facts, section 1.
    """

    endpoint: str = attrs.field(validator=_endpoint)
    cost: float = attrs.field(default=100.0, validator=_cost)
    """The estimated work, in units the endpoint's workers define; an int stays an int on the wire."""
    request_idx: int | None = attrs.field(default=None, validator=_index)
    """The number of an earlier ask to go on with; None begins a new request."""
    replay_timeout: float | None = attrs.field(default=None, validator=_seconds)
    """Seconds after which the engine may replay an unanswered request on another worker; None leaves it to it."""
    extra: Mapping[str, Any] = attrs.field(factory=dict, converter=_extra, hash=False)
    """Further documented inputs (``endpoint_id``, ``latency``, ``guid``), sent as they are."""


@attrs.frozen(kw_only=True)
class Grant:
    """The engine's successful answer: one worker, for one request.

    `raw` is the answer's exact JSON text; it is what a worker gets as ``auth_data``, every number's spelling and every
    unknown field included. The attributes are a typed view of it. Treat it as a secret: whoever holds it can use the
    worker, and it does not expire (wire facts, section 3).
    """

    raw: bytes = attrs.field(repr=_size)
    fields: Mapping[str, Any] = attrs.field(repr=False, eq=False)
    """The parsed fields of `raw`."""
    url: str
    """The worker's address, as the engine wrote it."""
    origin: Origin = attrs.field(repr=False)
    """Where `url` leads."""
    path: str = attrs.field(repr=False)
    """The path of `url`, usually empty."""
    endpoint: str
    cost: float
    reqnum: int
    """The engine's running number of requests for this worker."""
    signature: str = attrs.field(repr=False)
    request_idx: int | None
    request_id: str | None = None
    """``__request_id``: the engine's name for the one HTTP request."""


@attrs.frozen(kw_only=True)
class NotReady:
    """The engine's other successful answer: no worker yet.

    The wording of ``status`` is not documented beyond two examples, so `status` keeps it verbatim (an object as its
    JSON text, None if there was none) and `counts` holds whatever numbers could be read out of it.
    """

    status: str | None
    counts: Mapping[str, int] = attrs.field(factory=dict, hash=False)
    request_idx: int | None = None
    request_id: str | None = None
    endpoint: str | None = None
