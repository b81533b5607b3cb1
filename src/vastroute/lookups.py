"""The neighbouring calls: what a client asks beside a worker. Each is an `AskMachine` like a route call.

So far the engine's public key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from .codec import excerpt, refusal_of
from .errors import Advice, CallFailed, InvalidValue, Outcome, Phase, UnexpectedAnswer
from .machine import AskMachine
from .messages import ENGINE, USER_AGENT, Headers, HttpRequest, HttpResponse
from .policy import Limits, RetryPolicy
from .signature import PublicKey
from .urls import Origin

_PLAIN = Headers((("accept-encoding", "identity"), ("user-agent", USER_AGENT)))


def encode_public_key(*, engine: Origin = ENGINE) -> HttpRequest:
    """The request for the engine's public key. No key goes with it. Source: wire facts, section 4, "Key"."""
    return HttpRequest(method="GET", origin=engine, target="/pubkey/", headers=_PLAIN)


def decode_public_key(response: HttpResponse, *, limits: Limits = Limits(), min_bits: int = 2048) -> PublicKey:
    """The public key in the engine's answer. Raises a `CallFailed` if there is none."""
    if not 200 <= response.status < 300:
        raise refusal_of(response, limits, None, Phase.LOOKUP)
    try:
        return PublicKey.load(response.body.strip(), min_bits=min_bits)
    except InvalidValue as error:
        raise UnexpectedAnswer(
            f"this is no public key: {error}",
            phase=Phase.LOOKUP,
            outcome=Outcome.ANSWERED,
            advice=Advice.CHECK_ANSWER,
            status=response.status,
            excerpt=excerpt(response.body),
        ) from None


class PublicKeyCall(AskMachine[PublicKey]):
    """Asks the engine for its public key; `min_bits` is the smallest key that will do.

    What comes is to be trusted as far as the connection it came over.
    """

    _phase: ClassVar[Phase] = Phase.LOOKUP

    def __init__(
        self,
        *,
        rng: Callable[[], float],
        deadline: float,
        policy: RetryPolicy = RetryPolicy(),
        limits: Limits = Limits(),
        engine: Origin = ENGINE,
        min_bits: int = 2048,
    ) -> None:
        super().__init__(policy=policy, limits=limits, key=None, rng=rng, deadline=deadline)
        self._engine = engine
        self._min_bits = min_bits

    def _encode(self) -> HttpRequest:
        return encode_public_key(engine=self._engine)

    def _judge(self, response: HttpResponse, now: float) -> None:
        try:
            key = decode_public_key(response, limits=self._limits, min_bits=self._min_bits)
        except CallFailed as error:
            self._trouble(error, now)
        else:
            self._accept(key, now)
