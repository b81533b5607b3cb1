"""The neighbouring calls: what a client asks beside a worker. Each is a request, a reading of its answer, a `Lookup`.

They are the engine's public key, the root certificate of the workers, the endpoints of an account with their keys, and
the workers of an endpoint. Source: wire facts, sections 4, 6 and 7.
"""

from __future__ import annotations

import json
from binascii import a2b_base64
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, TypeVar

import attrs

from .codec import refusal_of
from .errors import Advice, CallFailed, InvalidValue, Outcome, Phase, Refused, SessionGone, UnexpectedAnswer
from .guard import Guard
from .machine import AskMachine
from .messages import ENGINE, USER_AGENT, Headers, HttpRequest, HttpResponse, Secret
from .policy import Limits, RetryPolicy
from .reading import excerpt, parse_body, request_id
from .signature import PublicKey
from .urls import Origin

T = TypeVar("T")

CONSOLE = Origin(scheme="https", host="console.vast.ai", port=443)
"""Where accounts and endpoints are looked after. Source: wire facts, section 7."""
WORKER_ROOT_PINS: frozenset[str] = frozenset({"a1a78f9e1a806c74dad08b8f01f5f08c739fb70a5bfbb52d28923751c223451d"})
"""SHA-256 of the DER of each root certificate that workers may be trusted by. Source: wire facts, section 6."""

_PLAIN = Headers((("accept-encoding", "identity"), ("user-agent", USER_AGENT)))


class Lookup(AskMachine[T]):
    """Asks one question until `decode` reads an answer out of it, as often and as long as the policy allows.

    `decode` gives the result or raises a `CallFailed`, whose advice says whether to ask again. `key` is masked in what
    errors quote; `phase` and `guard` are the worker's hop for what is asked of a worker. Driven like any machine: see
    `vastroute.machine`.
    """

    __slots__ = ("_decode", "_request")

    def __init__(
        self,
        request: HttpRequest,
        decode: Callable[[HttpResponse], T],
        *,
        rng: Callable[[], float],
        deadline: float,
        policy: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        key: Secret | None = None,
        phase: Phase = Phase.LOOKUP,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(policy=policy, limits=limits, key=key, rng=rng, deadline=deadline, phase=phase, guard=guard)
        self._request = request
        self._decode = decode

    def _encode(self) -> HttpRequest:
        return self._request

    def _judge(self, response: HttpResponse, now: float) -> None:
        try:
            result = self._decode(response)
        except SessionGone as error:
            self._refuse(error, now)  # asking again helps only where it makes another session
        except CallFailed as error:
            self._trouble(error, now)
        else:
            self._accept(result, now)


# --- the engine's public key -------------------------------------------------------------------------------------


def encode_public_key(*, engine: Origin = ENGINE) -> HttpRequest:
    """The request for the engine's public key. No key of ours goes with it."""
    return HttpRequest(method="GET", origin=engine, target="/pubkey/", headers=_PLAIN)


def decode_public_key(response: HttpResponse, *, limits: Limits = Limits(), min_bits: int = 2048) -> PublicKey:
    """The public key in the engine's answer; to be trusted as far as the connection that it came over.

    `min_bits` is the smallest key that will do. Raises a `CallFailed` if there is none.
    """
    _check(response, limits, None)
    try:
        return PublicKey.load(response.body.strip(), min_bits=min_bits)
    except InvalidValue as error:
        raise _strange(f"this is no public key: {error}", response) from None


# --- the workers' root certificate -------------------------------------------------------------------------------


def encode_worker_root(*, console: Origin = CONSOLE) -> HttpRequest:
    """The request for the root certificate that workers' certificates are issued under."""
    return HttpRequest(method="GET", origin=console, target="/static/jvastai_root.cer", headers=_PLAIN)


def decode_worker_root(
    response: HttpResponse, *, limits: Limits = Limits(), pins: frozenset[str] = WORKER_ROOT_PINS
) -> bytes:
    """The root certificate in the answer, as DER. Raises a `CallFailed` if it is none of those pinned."""
    _check(response, limits, None)
    try:
        return read_worker_root(response.body, pins=pins)
    except InvalidValue as error:
        raise _strange(str(error), response) from None


def read_worker_root(data: bytes, *, pins: frozenset[str] | None = WORKER_ROOT_PINS) -> bytes:
    """The DER of the one certificate in `data`, PEM or DER; with `pins`, only if its SHA-256 is among them.

    The pin is of the certificate, not of the file. Raises `InvalidValue`.
    """
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    if begin in data:
        if data.count(begin) != 1:
            raise InvalidValue("there is more than one certificate; give the root alone")
        try:
            data = a2b_base64(b"".join(data.partition(begin)[2].partition(end)[0].split()), strict_mode=True)
        except ValueError:
            raise InvalidValue("the certificate's PEM is damaged") from None
    if not data.startswith(b"\x30"):
        raise InvalidValue("this is no certificate: neither PEM nor DER")
    found = sha256(data).hexdigest()
    if pins is not None and found not in pins:
        raise InvalidValue(
            f"the root certificate is not one that is pinned (its SHA-256 is {found}): it was replaced, or this is not "
            "Vast.ai's; check it, then give the file yourself"
        )
    return data


# --- an account's endpoints --------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class EndpointInfo:
    """One endpoint of an account."""

    id: int
    name: str
    key: Secret | None
    """The endpoint's own key, which ``/route/`` wants; None if the answer lacks one."""
    state: str | None = None
    fields: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """Everything else that was said of it; its key left out."""


def encode_endpoints(*, key: Secret | str, console: Origin = CONSOLE) -> HttpRequest:
    """The request for the endpoints of the account whose `key` this is. The key goes into the header alone."""
    target = "/api/v0/endptjobs/?client_id=me"
    return HttpRequest(method="GET", origin=console, target=target, headers=Secret.of(key).headers)


def decode_endpoints(
    response: HttpResponse, *, limits: Limits = Limits(), key: Secret | None = None
) -> tuple[EndpointInfo, ...]:
    """The endpoints in the console's answer; none if the account has none. Raises a `CallFailed`."""
    if response.status == 400 and b"No endpoints" in response.body:
        return ()
    _check(response, limits, key)
    value = _json(response, limits, key)
    results = value.get("results") if isinstance(value, dict) else None
    if not isinstance(results, list):
        raise _strange("the answer lists no endpoints", response, key)
    return tuple(_endpoint(fields) for fields in results if isinstance(fields, dict) and _is_endpoint(fields))


def _is_endpoint(fields: Mapping[str, Any]) -> bool:
    return type(fields.get("id")) is int and isinstance(fields.get("endpoint_name"), str)


def _endpoint(fields: Mapping[str, Any]) -> EndpointInfo:
    try:
        key = Secret(fields["api_key"])
    except (KeyError, InvalidValue):
        key = None
    state = fields.get("endpoint_state")
    return EndpointInfo(
        id=fields["id"],
        name=fields["endpoint_name"],
        key=key,
        state=state if isinstance(state, str) else None,
        fields={name: value for name, value in fields.items() if name != "api_key"},
    )


# --- an endpoint's workers ---------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class WorkerInfo:
    """One worker of an endpoint, as the engine sees it."""

    id: int
    status: str | None
    fields: Mapping[str, Any] = attrs.field(factory=dict, repr=False, hash=False)
    """Everything that was said of it: loads, performance, times. Source of the names: wire facts, section 7."""


def encode_workers(endpoint_id: int, *, key: Secret | str, engine: Origin = ENGINE) -> HttpRequest:
    """The request for the workers of an endpoint. Its key stands in the body: no other place for it is known."""
    secret = Secret.of(key)
    body = json.dumps({"id": endpoint_id, "api_key": secret.reveal()}).encode()
    return HttpRequest(method="POST", origin=engine, target="/get_endpoint_workers/", headers=secret.headers, body=body)


def decode_workers(
    response: HttpResponse, *, limits: Limits = Limits(), key: Secret | None = None
) -> tuple[WorkerInfo, ...]:
    """The workers in the engine's answer, which is a list or an object with one. Raises a `CallFailed`."""
    _check(response, limits, key)
    value = _json(response, limits, key)
    if isinstance(value, dict):
        if (text := value.get("error_msg") or value.get("error")) and isinstance(text, str):
            raise _refused(text, response, key, value)
        value = value.get("workers")
    if not isinstance(value, list):
        raise _strange("the answer lists no workers", response, key)
    workers = []
    for fields in value:
        if isinstance(fields, dict) and type(fields.get("id")) is int:
            status = fields.get("status")
            workers.append(
                WorkerInfo(id=fields["id"], status=status if isinstance(status, str) else None, fields=fields)
            )
    return tuple(workers)


# --- what they share ---------------------------------------------------------------------------------------------


def _check(response: HttpResponse, limits: Limits, key: Secret | None) -> None:
    if not 200 <= response.status < 300:
        raise refusal_of(response, limits, key, Phase.LOOKUP)


def _json(response: HttpResponse, limits: Limits, key: Secret | None) -> Any:
    try:
        return parse_body(response.body, limits)[1]
    except ValueError as error:
        raise _strange(str(error), response, key) from None


def _strange(message: str, response: HttpResponse, key: Secret | None = None) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        message,
        phase=Phase.LOOKUP,
        outcome=Outcome.ANSWERED,
        advice=Advice.CHECK_ANSWER,
        status=response.status,
        excerpt=excerpt(response.body, key),
    )


def _refused(text: str, response: HttpResponse, key: Secret | None, fields: Mapping[str, Any]) -> Refused:
    return Refused(
        "the engine refuses",
        phase=Phase.LOOKUP,
        outcome=Outcome.ANSWERED,
        advice=Advice.CHECK_ENDPOINT,
        status=response.status,
        excerpt=excerpt(text, key),
        request_id=request_id(fields, key),
    )
