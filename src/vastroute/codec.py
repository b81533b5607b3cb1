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
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import Advice, CallFailed, InvalidValue, KeyRefused, Outcome, Phase, Refused, UnexpectedAnswer
from .messages import ENGINE, LARGEST_INT, Grant, HttpRequest, HttpResponse, NotReady, RouteRequest, Secret
from .policy import Limits
from .reading import excerpt, host_of, parse_object, request_id, request_index, retry_after, without_key
from .urls import Origin, split_url

if TYPE_CHECKING:
    from .memory import RouteMemory


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
    secret = key if type(key) is Secret else Secret.of(key)
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
    response: HttpResponse,
    *,
    limits: Limits = Limits(),
    key: Secret | str | None = None,
    memory: RouteMemory | None = None,
) -> Grant | NotReady:
    """What the engine's answer means: a worker, or none yet.

    Raises a `CallFailed` for everything else: `Refused` and `KeyRefused` where the engine says no (also inside a
    200), `UnexpectedAnswer` where it is no answer of this protocol. Its ``advice`` is ``ASK_AGAIN`` if the trouble may
    pass. `key` is masked in what the error quotes and in a `NotReady`, should the engine repeat it. `memory` is what a
    client remembers of workers.
    """
    if key is not None and type(key) is not Secret:
        key = Secret.of(key)
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
        return _grant(raw, fields, response, key, memory)
    if refusal is not None:
        raise _failure(
            Refused,
            "the engine refuses; if it finds no such endpoint for this key, the name is wrong, or the key is another's",
            Advice.CHECK_ENDPOINT,
            response,
            key,
            fields,
        )
    text, counts = _status(fields.get("status"))
    endpoint = fields.get("endpoint")
    return NotReady(
        status=None if text is None else without_key(text, key),
        counts={without_key(name, key): number for name, number in counts.items()},
        request_idx=request_index(fields),
        request_id=request_id(fields, key),
        endpoint=without_key(endpoint, key) if isinstance(endpoint, str) else None,
    )


_KEY_LIKE = 16
"""Characters: a shorter text in a grant may be there by chance."""
_COUNT_PAIRS = re.compile(
    r"([A-Za-z][A-Za-z_ ]{0,40}?)\s{0,9}[:=]\s{0,9}([0-9]{1,9})(?![0-9.])|\b([0-9]{1,9})\s{1,9}([A-Za-z_]{1,40})"
)


def _number(value: float) -> str:
    """The JSON text of a number. A subclass (an IntEnum, NumPy's float64) may have a repr of its own."""
    return int.__repr__(value) if isinstance(value, int) else float.__repr__(value)


def _grant(
    raw: bytes, fields: dict[str, Any], response: HttpResponse, key: Secret | None, memory: RouteMemory | None
) -> Grant:
    """The typed view of a grant. A worker refuses one that lacks any of these (wire facts, section 3)."""
    url, endpoint, signature = fields.get("url"), fields.get("endpoint"), fields.get("signature")
    cost, reqnum = fields.get("cost"), fields.get("reqnum")
    if type(url) is not str:
        why = "its url is not text"
    elif type(endpoint) is not str:
        why = "its endpoint is not text"
    elif type(signature) is not str:
        why = "its signature is not text"
    elif not (type(cost) is float and math.isfinite(cost)) and not (type(cost) is int and abs(cost) <= LARGEST_INT):
        why = "its cost is not a finite number"
    elif type(reqnum) is not int or not 0 <= reqnum <= LARGEST_INT:
        why = "its reqnum is not a whole number of at least 0"
    else:
        try:
            origin, path = split_url(url) if memory is None else memory.split(url)
        except InvalidValue as error:
            why = f"its url is {error}"
        else:
            if key is None or not (len(plain := key.reveal()) >= _KEY_LIKE and plain.encode() in raw):
                return Grant(
                    raw=raw,
                    fields=fields,
                    url=url,
                    origin=origin,
                    path=path,
                    endpoint=endpoint,
                    cost=cost,
                    reqnum=reqnum,
                    signature=signature,
                    request_idx=request_index(fields),
                    request_id=request_id(fields),
                )
            # A grant goes to the worker byte for byte, and a key goes to none.
            why = "it repeats the key"
    raise _unexpected(f"the grant cannot be used: {why}", response, key, fields)


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
_LOOKUP_KEY = _KEY._replace(message="the key is not accepted; look-ups want the account's key")
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
        where = without_key(host_of(response.headers.get("location")), key)
        message = f"a redirect to {where}, never followed"
        return _failure(UnexpectedAnswer, message, Advice.CHECK_ANSWER, response, key, phase=phase)
    if not 400 <= status < 600:
        message = "a status that ends no exchange"
        return _failure(UnexpectedAnswer, message, Advice.CHECK_ANSWER, response, key, phase=phase)
    rule = _BUSY if status >= 500 else _STATUS_RULES.get(status, _INPUT)
    if rule is _KEY and phase is Phase.LOOKUP:
        rule = _LOOKUP_KEY
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
