"""The arguments that every transport's ``Client`` and its verbs take: one list for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from vastroute import (
    Entry,
    Guard,
    InvalidValue,
    Limits,
    Origin,
    PoolLimits,
    PublicKey,
    RetryPolicy,
    Secret,
    SignatureMode,
    StreamLimits,
    WorkPolicy,
)

from .proxies import Proxy
from .recording import Recorder

Observer = Callable[[Entry], None]
"""Called for every entry of a call's record as it happens. It must not raise."""


class ClientOptions(TypedDict, total=False):
    """The arguments that every ``Client`` takes. All are optional and by name."""

    key: Secret | str | None
    """The endpoint's own key, or the account's. None looks for it when a call first needs it: see
    `vastroute_io.credentials`."""
    find_key: bool
    """If the engine does not accept the key for an endpoint, ask the console with it for the endpoint's own, and go on
    with that one. True by default, since an account's key is what most people have."""
    engine: Origin | str
    """The engine's address; production's by default. It gets the key, so without TLS it must be loopback, unless the
    guard's ``allow_plain_http`` is set; so must the console."""
    console: Origin | str | None
    """The console's address; production's by default where the engine is production's, and None otherwise: a key for
    one engine is not shown to another's console."""
    policy: RetryPolicy
    """How long and how often to ask."""
    work_policy: WorkPolicy
    """How long a worker may take."""
    limits: Limits
    """How much to take from a peer."""
    stream_limits: StreamLimits
    """How long one line or event of a stream may be."""
    pool: PoolLimits
    """How many connections to keep, and for how long."""
    guard: Guard
    """Where a grant may lead beyond https to a public address."""
    worker_root: str | Path | bytes | None
    """A file with, or the bytes of, the root certificate (PEM or DER) that workers are trusted by. None takes Vast.ai's
    own: fetched once from the console over the system's roots, accepted only if it is pinned, and kept in the cache
    folder."""
    strict_worker_tls: bool
    """False for workers whose certificates break X.509's finer rules."""
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
    recorder: Recorder | None
    """Writes every call to a file, with what is private left out, to be replayed in tests."""
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


class WorkOptions(TypedDict, total=False):
    """The arguments of a call in a session beside its route and payload. All are optional and by name."""

    timeout: float | None
    """Seconds for the whole call; None takes the policy's ``total``, 900 by default."""
    headers: Mapping[str, str]
    """Headers of the caller's own for the worker. ``Authorization`` goes there only if it is named here."""
    safe_to_repeat: bool
    """Whether the work may run twice. Without it, work that perhaps started is never sent again."""
    work_policy: WorkPolicy
    """Replaces the client's for this call."""


class CallOptions(RouteOptions, WorkOptions, total=False):
    """The arguments of ``Client.call`` and ``Client.stream``: those of ``route``, and those of the work."""


class SessionOptions(CallOptions, total=False):
    """The arguments of ``Client.session`` beside the endpoint. All are optional and by name."""

    lifetime: float
    """Seconds; every request adds as much again. 60 by default."""
    on_close_route: str | None
    """Where the worker POSTs when the session ends. Read the warning at `vastroute.session_payload` first."""
    on_close_payload: Any
    """What it POSTs there."""


def check_options(given: Mapping[str, Any], known: type[Any]) -> None:
    """Raise `vastroute.InvalidValue` for an option that `known` does not have: silence would cost its reader money."""
    names: frozenset[str] = known.__optional_keys__
    for name in given:
        if name not in names:
            from difflib import get_close_matches  # only for a mistake

            hint = "".join(f"; did you mean {close}?" for close in get_close_matches(name, names, 1))
            raise InvalidValue(f"there is no option {name}{hint}")
