"""What a client was told, and the machines it makes from that: the same for every transport."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from math import inf
from pathlib import Path
from typing import Any, Self, TypeVar, final

import attrs

from vastroute import (
    CONSOLE,
    DEFAULT_LIFETIME,
    ENGINE,
    Advice,
    Call,
    CallFailed,
    EndpointInfo,
    Guard,
    HeadMemory,
    Http1Connection,
    HttpRequest,
    HttpResponse,
    InvalidValue,
    KeyRefused,
    Limits,
    Lookup,
    Machine,
    Origin,
    Outcome,
    Phase,
    PoolLimits,
    PublicKey,
    ReqnumTracker,
    RetryPolicy,
    RouteCall,
    RouteMemory,
    RouteRequest,
    Secret,
    SessionEnded,
    SessionHandle,
    SessionInfo,
    SignatureMode,
    StreamLimits,
    Verifier,
    WorkerInfo,
    WorkerRequest,
    WorkPolicy,
    decode_endpoints,
    decode_public_key,
    decode_session_end,
    decode_session_get,
    decode_session_health,
    decode_worker_root,
    decode_workers,
    encode_endpoints,
    encode_public_key,
    encode_session_end,
    encode_session_get,
    encode_session_health,
    encode_worker_root,
    encode_workers,
    session_payload,
)

from .credentials import load_key
from .options import CallOptions, Observer, RouteOptions, SessionOptions, WorkOptions
from .proxies import Proxy, proxy_from_environment
from .recording import Recorder

T = TypeVar("T")
_LISTS = 4 * 1024 * 1024
"""Bytes of a list of endpoints or workers: far longer than a grant, still bounded."""
_ROOT = 64 * 1024


def _origin(value: Origin | str) -> Origin:
    return Origin.parse(value) if isinstance(value, str) else value


def _optional_origin(value: Origin | str | None) -> Origin | None:
    return None if value is None else _origin(value)


def _mode(value: SignatureMode | str) -> SignatureMode:
    try:
        return SignatureMode(value)
    except ValueError:
        raise InvalidValue("signature must be 'off', 'report' or 'require'") from None


def _public_key(value: PublicKey | bytes | str | None) -> PublicKey | None:
    return value if value is None or isinstance(value, PublicKey) else PublicKey.load(value)


def _proxy(value: Proxy | str | None) -> Proxy | str | None:
    return value if value == "environment" or not isinstance(value, str) else Proxy.parse(value)


def _root(value: str | Path | bytes | None) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    try:
        return Path(value).read_bytes()
    except OSError as error:
        raise InvalidValue(f"worker_root cannot be read: {error.strerror or type(error).__name__}") from None


def _is_out_of_reach(origin: Origin) -> bool:
    """Whether nobody on the way reads what is sent there: it is sent over TLS, or does not leave this machine."""
    if origin.scheme == "https" or origin.host == "localhost":
        return True
    try:
        return ip_address(origin.host).is_loopback
    except ValueError:
        return False


def _route_request(endpoint: str, options: RouteOptions) -> RouteRequest:
    cost, replay_timeout = options.get("cost", 100.0), options.get("replay_timeout")
    if "request_idx" not in options and "extra" not in options:
        try:
            return _plain_route_request(endpoint, cost, replay_timeout)
        except TypeError:  # it cannot be hashed, and is no good either, which is said below
            pass
    return RouteRequest(
        endpoint=endpoint,
        cost=cost,
        request_idx=options.get("request_idx"),
        replay_timeout=replay_timeout,
        extra=options.get("extra", {}),
    )


@lru_cache(maxsize=256, typed=True)
def _plain_route_request(endpoint: str, cost: float, replay_timeout: float | None) -> RouteRequest:
    """A new request, or the last one like it: most calls of a program ask for the same."""
    return RouteRequest(endpoint=endpoint, cost=cost, replay_timeout=replay_timeout)


@attrs.define(kw_only=True, eq=False)
class Settings:
    """A client's `ClientOptions`, checked, and the machines that they make."""

    key: Secret | str | None = attrs.field(default=None, repr=False)
    find_key: bool = True
    engine: Origin = attrs.field(default=ENGINE, converter=_origin)
    console: Origin | None = attrs.field(default=None, converter=_optional_origin)
    policy: RetryPolicy = attrs.field(factory=RetryPolicy)
    work_policy: WorkPolicy = attrs.field(factory=WorkPolicy)
    limits: Limits = attrs.field(factory=Limits)
    stream_limits: StreamLimits = attrs.field(factory=StreamLimits)
    pool: PoolLimits = attrs.field(factory=PoolLimits)
    guard: Guard = attrs.field(factory=Guard)
    worker_root: bytes | None = attrs.field(default=None, converter=_root, repr=False)
    strict_worker_tls: bool = True
    signature: SignatureMode = attrs.field(default=SignatureMode.REPORT, converter=_mode)
    public_key: PublicKey | None = attrs.field(default=None, converter=_public_key)
    fetch_public_key: bool = False
    proxy: Proxy | str | None = attrs.field(default="environment", converter=_proxy, repr=False)
    key_in_body: bool = False
    observer: Observer | None = None
    recorder: Recorder | None = None
    rng: Callable[[], float] = random.random
    tracker: ReqnumTracker = attrs.field(factory=ReqnumTracker, init=False)
    memory: RouteMemory = attrs.field(factory=RouteMemory, init=False)
    _heads: HeadMemory = attrs.field(factory=HeadMemory, init=False)
    _secret: Secret | None = attrs.field(default=None, init=False, repr=False)
    _verifier: Verifier | None = attrs.field(default=None, init=False)
    _endpoints: dict[str, EndpointInfo] = attrs.field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.console is None and self.engine == ENGINE:
            self.console = CONSOLE
        for name, origin in (("engine", self.engine), ("console", self.console)):
            if origin is not None and not (self.guard.allow_plain_http or _is_out_of_reach(origin)):
                raise InvalidValue(
                    f"the {name} {origin} has no TLS, so that whoever is on the way would read the key: give an https "
                    "address; allow_plain_http would allow it"
                )
        if self.recorder is not None:
            self.rng = self.recorder.draws(self.rng)

    def http(self) -> Http1Connection:
        """The HTTP of a new connection."""
        return Http1Connection(self.limits, heads=self._heads)

    # Keys

    @property
    def needs_public_key(self) -> bool:
        """Whether the public key has to be fetched before the next route call."""
        wanted = self.fetch_public_key or self.signature is SignatureMode.REQUIRE
        return wanted and self.public_key is None and self.signature is not SignatureMode.OFF

    @property
    def needs_worker_root(self) -> bool:
        """Whether workers will surely be reached under the root that production's console gives."""
        return self.console == CONSOLE and not self.guard.allow_plain_http

    def secret(self) -> Secret:
        """The key, looked up when it is first needed and kept from then on."""
        if self._secret is None:
            self._secret = load_key(self.key)
        return self._secret

    def key_for(self, endpoint: str) -> Secret:
        """The key to ask for a worker of `endpoint` with: its own if it was looked up, else the client's."""
        known = self._endpoints.get(endpoint)
        return known.key if known is not None and known.key is not None else self._secret or self.secret()

    def can_find_key(self) -> bool:
        """Whether the console may be asked for an endpoint's own key."""
        return self.find_key and self.console is not None

    def learn(self, endpoints: tuple[EndpointInfo, ...]) -> None:
        """Take note of an account's endpoints."""
        self._endpoints = {each.name: each for each in endpoints}

    def endpoint(self, name: str, refused: CallFailed | None = None) -> EndpointInfo:
        """What was looked up about the endpoint `name`, with a key of its own; else a typed error.

        `refused` is the engine's refusal that the look-up was to mend, if there was one.
        """
        found = self._endpoints.get(name)
        if found is None or found.key is None:
            error = KeyRefused(
                f"the key is an account's, and this account has no endpoint {name!r}"
                if found is None
                else f"the console gives no key for endpoint {name!r}",
                phase=Phase.LOOKUP,
                outcome=refused.outcome if refused is not None else Outcome.ANSWERED,
                advice=Advice.CHECK_ENDPOINT,
                request_idx=refused.request_idx if refused is not None else None,
            )
            raise error from refused
        return found

    def verifier(self) -> Verifier | None:
        """One verifier for all calls of the client, so that what it has seen is remembered."""
        if self._verifier is None and self.public_key is not None:
            self._verifier = Verifier(self.public_key, mode=self.signature)
        return self._verifier

    def proxy_for(self, origin: Origin) -> Proxy | None:
        """The proxy that leads to `origin`, if one does."""
        if isinstance(self.proxy, str):
            return proxy_from_environment(origin)
        return self.proxy

    # Machines

    def recorded(self, machine: Machine[T]) -> Machine[T]:
        """`machine` as a driver is to drive it: written down, if somebody wants that."""
        if self.recorder is None:
            return machine
        return self.recorder.record(machine, engine=self.engine, verifier=self.verifier())

    def deadline(self, options: RouteOptions | WorkOptions, *, now: float) -> float:
        """When a call that begins `now` must be over, in monotonic seconds. Raises `InvalidValue` if it cannot be."""
        policy: RetryPolicy = options.get("policy") or self.policy  # type: ignore[assignment]
        return self.within(options.get("timeout"), now=now, policy=policy)

    def within(self, timeout: float | None, *, now: float, policy: RetryPolicy | None = None) -> float:
        """When what begins `now` and may take `timeout` seconds must be over; without one, the policy's total holds."""
        if timeout is None:
            timeout = (policy or self.policy).total
        elif isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
            raise InvalidValue("timeout must be seconds: a number")
        return now + timeout

    def route_call(self, endpoint: str, options: RouteOptions, *, deadline: float) -> RouteCall:
        """The machine that asks for one worker of `endpoint`."""
        return RouteCall(
            _route_request(endpoint, options),
            key=self.key_for(endpoint),
            rng=self.rng,
            deadline=deadline,
            policy=(options.get("policy") or self.policy),
            limits=self.limits,
            verifier=self.verifier(),
            tracker=self.tracker,
            memory=self.memory,
            engine=self.engine,
            key_in_body=self.key_in_body,
        )

    def routing(self, endpoint: str, options: RouteOptions, *, deadline: float) -> Callable[[], RouteCall]:
        """What makes the machine of a route call: again if another key was found for it."""
        return lambda: self.route_call(endpoint, options, deadline=deadline)

    def calls(
        self, endpoint: str, work: WorkerRequest, options: CallOptions, *, now: float, deadline: float
    ) -> Callable[[], Call]:
        """What makes the machine of a call that begins `now`: again if another key was found for it."""
        return lambda: self.call(self.route_call(endpoint, options, deadline=deadline), work, options, now=now)

    def work(
        self, route: str, payload: Mapping[str, Any] | bytes, options: WorkOptions, *, stream: bool = False
    ) -> WorkerRequest:
        """What is posted to a worker."""
        return WorkerRequest(
            route=route,
            payload=payload,
            headers=options.get("headers", {}),
            stream=stream,
            safe_to_repeat=options.get("safe_to_repeat", False),
        )

    def call(self, source: RouteCall | SessionHandle, work: WorkerRequest, options: WorkOptions, *, now: float) -> Call:
        """The machine for one piece of work."""
        return Call(
            source,
            work,
            deadline=None if isinstance(source, RouteCall) else self.deadline(options, now=now),
            policy=(options.get("work_policy") or self.work_policy),
            guard=self.guard,
            limits=self.limits,
            stream_limits=self.stream_limits,
        )

    def session_work(self, options: SessionOptions) -> WorkerRequest:
        """What is posted to a worker to make a session there."""
        payload = session_payload(
            lifetime=options.get("lifetime", DEFAULT_LIFETIME),
            on_close_route=options.get("on_close_route"),
            on_close_payload=options.get("on_close_payload"),
        )
        return self.work("/session/create", payload, options)

    def public_key_lookup(self, *, now: float, deadline: float = inf) -> Lookup[PublicKey]:
        """The machine that fetches the engine's public key."""
        return self._lookup(encode_public_key(engine=self.engine), decode_public_key, now=now, deadline=deadline)

    def worker_root_lookup(self, *, now: float, deadline: float = inf) -> Lookup[bytes]:
        """The machine that fetches the workers' root certificate. It always asks production's console."""
        return self._lookup(encode_worker_root(), decode_worker_root, now=now, deadline=deadline, most=_ROOT)

    def endpoints_lookup(self, *, now: float, deadline: float = inf) -> Lookup[tuple[EndpointInfo, ...]]:
        """The machine that asks the console for the account's endpoints."""
        if self.console is None:
            raise InvalidValue("no console is known for this engine: give console=...")
        key = self.secret()
        limits = attrs.evolve(self.limits, max_body=_LISTS)

        def decode(response: HttpResponse) -> tuple[EndpointInfo, ...]:
            return decode_endpoints(response, limits=limits, key=key)

        request = encode_endpoints(key=key, console=self.console)
        return self._lookup(request, decode, now=now, deadline=deadline, most=_LISTS, key=key)

    def workers_lookup(
        self, endpoint: EndpointInfo, *, now: float, deadline: float = inf
    ) -> Lookup[tuple[WorkerInfo, ...]]:
        """The machine that asks the engine for an endpoint's workers."""
        key = endpoint.key
        assert key is not None
        limits = attrs.evolve(self.limits, max_body=_LISTS)

        def decode(response: HttpResponse) -> tuple[WorkerInfo, ...]:
            return decode_workers(response, limits=limits, key=key)

        request = encode_workers(endpoint.id, key=key, engine=self.engine)
        return self._lookup(request, decode, now=now, deadline=deadline, most=_LISTS, key=key)

    def session_get(self, handle: SessionHandle, *, now: float, utc: float, deadline: float) -> Lookup[SessionInfo]:
        """The machine that asks a worker what it knows of a session."""

        def decode(response: HttpResponse) -> SessionInfo:
            return decode_session_get(response, handle, utc=utc)

        return self._lookup(encode_session_get(handle), decode, now=now, deadline=deadline, phase=Phase.WORKER)

    def session_health(self, handle: SessionHandle, *, now: float, deadline: float) -> Lookup[bool]:
        """The machine that asks a worker whether a session is alive."""

        def decode(response: HttpResponse) -> bool:
            return decode_session_health(response, handle)

        return self._lookup(encode_session_health(handle), decode, now=now, deadline=deadline, phase=Phase.WORKER)

    def session_end(self, handle: SessionHandle, *, now: float, seconds: float) -> Lookup[SessionEnded]:
        """The machine that ends a session, or gives up after `seconds`."""

        def decode(response: HttpResponse) -> SessionEnded:
            return decode_session_end(response, handle)

        return self._lookup(encode_session_end(handle), decode, now=now, deadline=now + seconds, phase=Phase.WORKER)

    def _lookup(
        self,
        request: HttpRequest,
        decode: Callable[[HttpResponse], T],
        *,
        now: float,
        deadline: float,
        most: int | None = None,
        key: Secret | None = None,
        phase: Phase = Phase.LOOKUP,
    ) -> Lookup[T]:
        return Lookup(
            request,
            decode,
            rng=self.rng,
            deadline=now + self.policy.total if deadline == inf else deadline,
            policy=self.policy,
            limits=self.limits if most is None else attrs.evolve(self.limits, max_body=most),
            key=key,
            phase=phase,
            guard=self.guard if phase is Phase.WORKER else None,
        )


@final
class Watch:
    """Tells an observer what a machine has noted since it was last asked."""

    __slots__ = ("_machine", "_observer", "_seen")

    def __init__(self, machine: Machine[Any], observer: Observer) -> None:
        self._machine = machine
        self._observer = observer
        self._seen = 0

    @classmethod
    def of(cls, settings: Settings, machine: Machine[Any]) -> Self | None:
        """One for `machine`, if somebody watches."""
        return None if settings.observer is None else cls(machine, settings.observer)

    def tell(self) -> None:
        """Every new entry, in order."""
        record = self._machine.record
        for entry in record[self._seen :]:
            self._observer(entry)
        self._seen = len(record)
