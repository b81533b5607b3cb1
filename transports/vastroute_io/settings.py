"""What a client was told, and the machines it makes from that: the same for every transport."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Self, TypedDict, final

import attrs

from vastroute import (
    ENGINE,
    Entry,
    InvalidValue,
    Limits,
    Machine,
    Origin,
    PoolLimits,
    PublicKey,
    PublicKeyCall,
    ReqnumTracker,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Secret,
    SignatureMode,
    Verifier,
)

from .credentials import load_key
from .proxies import Proxy, proxy_from_environment

Observer = Callable[[Entry], None]
"""Called for every entry of a call's record as it happens. It must not raise."""


def _engine(value: Origin | str) -> Origin:
    return Origin.parse(value) if isinstance(value, str) else value


def _mode(value: SignatureMode | str) -> SignatureMode:
    try:
        return SignatureMode(value)
    except ValueError:
        raise InvalidValue("signature must be 'off', 'report' or 'require'") from None


def _public_key(value: PublicKey | bytes | str | None) -> PublicKey | None:
    return value if value is None or isinstance(value, PublicKey) else PublicKey.load(value)


def _proxy(value: Proxy | str | None) -> Proxy | str | None:
    return value if value == "environment" or not isinstance(value, str) else Proxy.parse(value)


class ClientOptions(TypedDict, total=False):
    """The arguments that every ``Client`` takes. All are optional and by name."""

    key: Secret | str | None
    """The endpoint's own key. None looks for it when a call first needs it: see `vastroute_io.credentials`."""
    engine: Origin | str
    """The engine's address; production's by default."""
    policy: RetryPolicy
    """How long and how often to ask."""
    limits: Limits
    """How much to take from a peer."""
    pool: PoolLimits
    """How many connections to keep, and for how long."""
    signature: SignatureMode | str
    """``"report"`` (the default) checks a grant's signature where a key is known and says what it found; ``"require"``
    refuses a grant that does not verify, or is for another endpoint or cost; ``"off"`` does not look."""
    public_key: PublicKey | bytes | str | None
    """The engine's public key: PEM, DER or a `vastroute.PublicKey`."""
    fetch_public_key: bool
    """Fetch the public key from the engine's ``/pubkey/``, once. With ``"require"`` and no key it is fetched anyway. A
    fetched key is to be trusted as far as the connection it came over."""
    proxy: Proxy | str | None
    """The address of an HTTP proxy; ``"environment"`` (the default) for ``HTTPS_PROXY`` and its kin; None for none."""
    key_in_body: bool
    """Send the key in the body too, where Vast's page first places it. The header suffices."""
    observer: Observer | None
    """Called with every `vastroute.Entry` as it happens. It must not raise."""
    rng: Callable[[], float]
    """Draws from [0, 1), to spread the pauses; `random.random` by default."""


class RouteOptions(TypedDict, total=False):
    """The arguments of ``Client.route`` beside the endpoint. All are optional and by name."""

    cost: float
    """The estimated work, in units that the endpoint's workers define; 100.0 by default."""
    request_idx: int | None
    """Go on with an earlier request of the engine's instead of beginning a new one."""
    timeout: float | None
    """Seconds for the whole call; None takes the policy's ``total``, 900 by default."""
    replay_timeout: float | None
    """Seconds after which the engine may replay an unanswered request on another worker."""
    extra: Mapping[str, Any]
    """Further documented inputs of ``/route/``, sent as they are."""
    policy: RetryPolicy
    """Replaces the client's for this call."""


@attrs.define(kw_only=True, eq=False)
class Settings:
    """A client's `ClientOptions`, checked, and the machines that they make."""

    key: Secret | str | None = attrs.field(default=None, repr=False)
    engine: Origin = attrs.field(default=ENGINE, converter=_engine)
    policy: RetryPolicy = attrs.field(factory=RetryPolicy)
    limits: Limits = attrs.field(factory=Limits)
    pool: PoolLimits = attrs.field(factory=PoolLimits)
    signature: SignatureMode = attrs.field(default=SignatureMode.REPORT, converter=_mode)
    public_key: PublicKey | None = attrs.field(default=None, converter=_public_key)
    fetch_public_key: bool = False
    proxy: Proxy | str | None = attrs.field(default="environment", converter=_proxy, repr=False)
    key_in_body: bool = False
    observer: Observer | None = None
    rng: Callable[[], float] = random.random
    tracker: ReqnumTracker = attrs.field(factory=ReqnumTracker, init=False)
    _secret: Secret | None = attrs.field(default=None, init=False, repr=False)
    _verifier: Verifier | None = attrs.field(default=None, init=False)

    @property
    def needs_public_key(self) -> bool:
        """Whether the public key has to be fetched before the next route call."""
        wanted = self.fetch_public_key or self.signature is SignatureMode.REQUIRE
        return wanted and self.public_key is None and self.signature is not SignatureMode.OFF

    def secret(self) -> Secret:
        """The key, looked up when it is first needed and kept from then on."""
        if self._secret is None:
            self._secret = load_key(self.key)
        return self._secret

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

    def route_call(self, endpoint: str, options: RouteOptions, *, now: float) -> RouteCall:
        """The machine for one route call that begins `now`."""
        policy = options.get("policy", self.policy)
        timeout = options.get("timeout")
        return RouteCall(
            RouteRequest(
                endpoint=endpoint,
                cost=options.get("cost", 100.0),
                request_idx=options.get("request_idx"),
                replay_timeout=options.get("replay_timeout"),
                extra=options.get("extra", {}),
            ),
            key=self.secret(),
            rng=self.rng,
            deadline=now + (policy.total if timeout is None else timeout),
            policy=policy,
            limits=self.limits,
            verifier=self.verifier(),
            tracker=self.tracker,
            engine=self.engine,
            key_in_body=self.key_in_body,
        )

    def public_key_call(self, *, now: float) -> PublicKeyCall:
        """The machine that fetches the engine's public key."""
        return PublicKeyCall(
            rng=self.rng,
            deadline=now + self.policy.total,
            policy=self.policy,
            limits=self.limits,
            engine=self.engine,
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
