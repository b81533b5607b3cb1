"""The worker's hop as values: what is sent to a worker, and what an answer is. Pure functions, like the codec's.

The grant goes to the worker byte for byte. No key of ours goes with it: the official worker asks for none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import attrs

from .errors import Advice, InvalidValue, Outcome, Phase, UnexpectedAnswer
from .messages import USER_AGENT, Grant, Headers, HttpRequest, HttpResponse
from .reading import excerpt, with_value
from .record import Counts, Record
from .reqnum import ReqnumVerdict
from .urls import join_target
from .verdicts import Verdict

_OWN = (("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", USER_AGENT))
_PLAIN = Headers(_OWN)
_JSON = json.JSONEncoder(allow_nan=False)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
_VALUE = re.compile(r"(?:[!-~](?:[ -~\t]*[!-~])?)?")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "te", "upgrade"})


def _payload(value: Mapping[str, Any] | bytes) -> bytes:
    if isinstance(value, bytes):
        try:
            parsed = json.loads(value.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise InvalidValue("payload is not JSON in UTF-8") from None
        _check_object(parsed)
        return value
    _check_object(value)
    try:
        return _JSON.encode(value if type(value) is dict else dict(value)).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidValue(f"payload must be what JSON can hold: {error}") from None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_object(value: object) -> None:
    if type(value) is not dict and not isinstance(value, Mapping):
        # The official worker answers anything else with 422 (wire facts, section 3).
        raise InvalidValue(f"payload must be a JSON object, not {type(value).__name__}")


def _headers(value: Any) -> Headers:
    if value is _PLAIN or value == {}:
        return _PLAIN
    headers = value if isinstance(value, Headers) else Headers(value)
    if clash := sorted(_FRAMING & {pair[0] for pair in headers if pair not in _OWN}):  # our own come back by evolve
        raise InvalidValue(f"headers must not hold what frames the request: {', '.join(clash)}")
    for name, text in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(text):
            raise InvalidValue(f"headers must be what HTTP can carry: {name[:100]!r} is not, or its value")
    named = {name for name, _ in headers}
    return Headers((*(pair for pair in _OWN if pair[0] not in named), *headers)) if headers else _PLAIN


def _switch(_instance: object, attribute: Any, value: object) -> None:
    if not isinstance(value, bool):
        raise InvalidValue(f"{attribute.name} must be True or False")


def _route(_instance: object, _attribute: object, value: str) -> None:
    join_target("", value)


@attrs.frozen(kw_only=True)
class WorkerRequest:
    """The work: what is posted to whichever worker is granted."""

    route: str = attrs.field(validator=_route)
    """The path at the worker, such as ``/v1/completions``; a slash in front is added where it lacks one."""
    payload: bytes = attrs.field(converter=_payload, repr=False)
    """A JSON object; given as a mapping, or as its JSON text, which is sent as it is."""
    headers: Headers = attrs.field(converter=_headers, default=_PLAIN)
    """Headers of the caller's own. ``Authorization`` goes to the worker only if it is named here."""
    stream: bool = attrs.field(default=False, validator=_switch)
    """Whether the answer is wanted piece by piece, as it comes."""
    safe_to_repeat: bool = attrs.field(default=False, validator=_switch)
    """Whether the work may run twice. Without it, work that perhaps started is never sent again."""


@attrs.frozen(kw_only=True)
class Answer:
    """A worker's answer, and everything that was found out while getting it."""

    status: int
    headers: Headers
    body: bytes = attrs.field(repr=lambda body: f"<{len(body)} bytes>")
    """The body as it came; empty for a stream, whose pieces were given out."""
    data: Any = attrs.field(repr=False)
    """What the body says: a JSON value where the content type says JSON, text for ``text/*``, else the bytes; None if
    it is empty."""
    grant: Grant
    verdict: Verdict
    """What the check of the grant's signature said."""
    reqnum: ReqnumVerdict | None
    """Whether the grant's reqnum was in order, where a tracker was given."""
    request_idx: int | None
    """The request's number at the engine."""
    request_idx_added: bool
    """Whether the grant lacked that number, or had a useless one (0, null, text), so that the one we held was put into
    it for the worker."""
    differences: tuple[str, ...]
    """Fields of the grant that came back other than they were asked."""
    counts: Counts
    record: Record = attrs.field(repr=False)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, lower case; empty if none was given."""
        return content_type(self.headers)

    def json(self) -> Any:
        """The body as JSON, whatever the content type says. Raises ValueError if it is none."""
        try:
            return json.loads(self.body)
        except RecursionError:
            raise ValueError("the body is nested too deeply") from None

    def text(self) -> str:
        """The body as text, in UTF-8 unless the content type names another charset that Python knows."""
        return _decode(self.body, self.headers)


def encode_worker(
    grant: Grant, work: WorkerRequest, *, request_idx: int | None = None, session_id: str | None = None
) -> HttpRequest:
    """The HTTP request that sends `work` to the worker of `grant`.

    The grant's own bytes stand in it. Only where the grant lacks a ``request_idx``, without which workers refuse it, is
    the `request_idx` that is held added; 0, null and text count as lacking, since a worker would report the work's end
    to the engine under them. Source: wire facts, sections 2 and 3.
    """
    return HttpRequest(
        method="POST",
        origin=grant.origin,
        # The route alone was looked at when the work was made.
        target=join_target(grant.path, work.route) if grant.path or work.route[:1] != "/" else work.route,
        headers=work.headers,
        body=b'{"auth_data": %b, "session_id": %b, "payload": %b}'
        % (
            auth_data(grant, request_idx),
            b"null" if session_id is None else json.dumps(session_id).encode(),
            work.payload,
        ),
    )


def auth_data(grant: Grant, request_idx: int | None = None) -> bytes:
    """The grant's own JSON text, with `request_idx` where it names no such number of its own. Raises `InvalidValue`.

    It is added at the end, or put in the place of what stands there and counts as absent: 0, null, a text.
    """
    if request_idx is None:
        return grant.raw
    if type(request_idx) is not int or request_idx < 1:
        raise InvalidValue("request_idx must be a whole number from 1, as the engine gave it")
    if grant.request_idx is not None:
        return grant.raw
    if "request_idx" not in grant.fields:
        return grant.raw[:-1] + b', "request_idx": %d}' % request_idx
    try:
        return with_value(grant.raw, "request_idx", str(request_idx))
    except ValueError:
        raise InvalidValue("there is no request_idx in the grant's text, as its fields say") from None


def decode_body(response: HttpResponse) -> Any:
    """What the body of a worker's 2xx answer says: see `Answer.data`.

    Raises `UnexpectedAnswer`, with the bytes in its ``body``, where the content type promises JSON and it is none: the
    work is done and paid for, and is never run again for that.
    """
    if not response.body:
        return None
    kind = content_type(response.headers)
    if kind == "application/json" or kind.endswith("+json"):
        try:
            return json.loads(response.body)
        except (ValueError, RecursionError):
            error = UnexpectedAnswer(
                "the worker's answer says that it is JSON, but is not; its bytes are in the error's body",
                phase=Phase.WORKER,
                outcome=Outcome.ANSWERED,
                advice=Advice.CHECK_ANSWER,
                status=response.status,
                excerpt=excerpt(response.body),
            )
            error.body = response.body
            raise error from None
    return _decode(response.body, response.headers) if kind.startswith("text/") else response.body


def content_type(headers: Headers) -> str:
    """The media type that `headers` name, lower case and without parameters; empty if there is none."""
    return (headers.get("content-type") or "").partition(";")[0].strip().lower()


def _decode(body: bytes, headers: Headers) -> str:
    _, _, parameters = (headers.get("content-type") or "").partition(";")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            try:
                return body.decode(value.strip(" \"'"), "replace")
            except (LookupError, ValueError):
                break
    return body.decode("utf-8", "replace")
