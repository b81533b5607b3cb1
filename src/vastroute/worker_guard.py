"""The other side: what a worker checks of a request before it works, as values. Pure, and bounded.

A worker gets ``{"auth_data": grant, "session_id": ..., "payload": {...}}``. `WorkerGuard` reads that, checks that the
grant is the engine's and says `Admitted` or `Rejected`, with the status that the official worker answers. What the
official worker checks, in which order, and what it leaves unchecked: wire facts, section 3; what older ones checked of
the order of reqnums: section 4, "Replay window". Where the guard is stricter than either, it says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeAlias, TypeGuard, final

import attrs

from .errors import InvalidValue
from .forms import FORMS, SigningForm
from .messages import LARGEST_INT
from .policy import Limits
from .reading import parse_body
from .reqnum import ReqnumOrder, ReqnumTracker, ReqnumVerdict
from .signature import KeyLike, Keys
from .urls import split_url
from .verdicts import SignatureMode, Verdict
from .verification import Verifier

AUTH_FIELDS = ("cost", "endpoint", "reqnum", "request_idx", "signature", "url")
"""The fields that a grant must have at a worker: all six (wire facts, section 3)."""
_LARGEST_BODY = 16 * 1024 * 1024
_NO_SESSION = b'{"error": "invalid session"}'
"""The official worker's answer to a session that it does not know (wire facts, section 3)."""


class RejectReason(Enum):
    """Why a worker's guard does not let a request in."""

    TOO_LARGE = "the body is too large"
    NOT_JSON = "not JSON"
    ENVELOPE = "not an envelope of auth_data and payload"
    FIELD_MISSING = "a field of auth_data is missing"
    SESSION = "there are no sessions here"
    SIGNATURE = "the signature"
    FIELD = "a field of auth_data is of another kind"
    OTHER_WORKER = "the grant is for another worker"
    FULL = "the queue is too long"
    REPEATED = "the grant was used before"
    OUTSIDE_WINDOW = "the reqnum is too far below the highest"


@attrs.frozen(kw_only=True)
class Envelope:
    """What a client posted to a worker, read but not yet trusted."""

    auth_data: Mapping[str, Any] = attrs.field(repr=False, hash=False)
    """The grant's parsed fields, those that nobody knows included. A secret, like any grant."""
    payload: Mapping[str, Any] = attrs.field(repr=False, hash=False)
    session_id: Any = None
    """The session that the client names, or None. Whether there is such a session is the worker's to know."""


@attrs.frozen(kw_only=True)
class Admitted:
    """A request that may be worked on."""

    auth_data: Mapping[str, Any] = attrs.field(repr=False, hash=False)
    """The grant's parsed fields. Only those in ``verdict.covers`` are the engine's word, the rest is the client's."""
    payload: Mapping[str, Any] = attrs.field(repr=False, hash=False)
    session_id: Any
    verdict: Verdict
    """What the check of the signature said."""
    reqnum: ReqnumVerdict | None
    """How the reqnum stands to those before it; None where none is tracked, nothing verified, or in a session."""


@attrs.frozen(kw_only=True)
class Rejected:
    """A request that is to be answered with a refusal. It holds nothing that the client sent."""

    reason: RejectReason
    text: str
    """What is wrong, for people and logs."""
    status: int
    """The HTTP status to answer with: the official worker's, where it rejects such a request too."""
    body: bytes = b""
    """The body to answer with: JSON in the official worker's words, or empty where its answer is."""
    verdict: Verdict | None = None
    """What the check of the signature said, once it was made."""


@final
class WorkerGuard:
    """Checks the requests of one worker. It does no I/O; `check` costs one RSA operation for a signature that is new.

    `public_key` is the engine's, or several: see `PublicKey.load`. Without one, and until `add_key` gives one, every
    request is rejected, as the official worker does. `forms` are the signing forms that are accepted, by default the
    one in use. With `SignatureMode.REPORT` an unverified grant is admitted, and the verdict says so.

    `url` is the worker's own address as the engine knows it: a grant for another one is then rejected. The official
    worker does not look, so that a grant of one worker opens all others; None leaves it at that.

    `window` is how many reqnums are remembered; None remembers none. A reqnum that was seen, or lies so far below the
    highest that this is not known any more, is rejected **where the signature covers it**, as workers did until
    December 2025. The form that is in use now covers the url alone: then the number is only reported, in
    `Admitted.reqnum`, for whoever holds one grant could lock everybody else out with a number of their choice. The
    requests of a session share one grant, and their number is not looked at.

    `max_queue_time` is the longest wait, in seconds, that a request is admitted to; the official worker's own default.

    `limits` bounds what is read: ``max_body`` bytes, ``max_depth`` levels. Bodies are read strictly: a field that is
    named twice, NaN and infinities are rejected, because two readers could disagree about them, and fields of the grant
    of another kind than the engine sends. `like_official` takes and rejects what the official worker does instead, with
    its status: also the 500 where it fails at what it was sent, which is a 422 otherwise. Then only `forms`, `url` and
    `window` tell the two apart.

    What it remembers is bounded: `window` reqnums of each worker, and the signatures of a `Verifier`. Use it from one
    thread at a time (in asyncio and trio that is given); with threads hold a lock around `check`. Raises `InvalidValue`
    for arguments that cannot be used.
    """

    __slots__ = ("_like_official", "_limits", "_max_queue_time", "_place", "_tracker", "_verifier")

    def __init__(
        self,
        public_key: Keys = (),
        *,
        forms: Iterable[SigningForm] = FORMS[:1],
        signature: SignatureMode = SignatureMode.REQUIRE,
        url: str | None = None,
        window: int | None = 100,
        max_queue_time: float = 30.0,
        limits: Limits = Limits(max_body=_LARGEST_BODY),
        like_official: bool = False,
    ) -> None:
        _check_seconds(max_queue_time, "max_queue_time")
        self._verifier = Verifier(public_key, mode=signature, forms=forms)
        self._place = None if url is None else split_url(url)
        self._tracker = None if window is None else ReqnumTracker(window=window)
        self._max_queue_time = max_queue_time
        self._limits = limits
        self._like_official = like_official

    def add_key(self, key: KeyLike) -> None:
        """Take one more key: the engine's once it was fetched, or its next one. Raises `InvalidValue`."""
        self._verifier.add_key(key)

    def check(self, body: bytes | Mapping[str, Any], *, waiting: float = 0.0) -> Admitted | Rejected:
        """What to do with a request whose body is `body`: its bytes, or the object that was parsed of them.

        Give the bytes if you can: in a parsed object nobody sees any more that a field was named twice. `waiting` is
        how long it would have to wait for its turn, in seconds, as the worker reckons. Nothing in `body` makes this
        raise; `InvalidValue` is for arguments of another kind.

        This is for workers without sessions: a request that names one is rejected, as the official worker rejects an
        unknown one. Let in, it would be a way round the window of reqnums, which the requests of a session are spared.
        """
        envelope = self.read(body)
        if isinstance(envelope, Rejected):
            return envelope
        if envelope.session_id is not None:
            text = "the request names a session, and there are none here"
            return Rejected(reason=RejectReason.SESSION, text=text, status=410, body=_NO_SESSION)
        return self.admit(envelope, waiting=waiting)

    def read(self, body: bytes | Mapping[str, Any]) -> Envelope | Rejected:
        """The first half of a check, for workers with sessions: whether `body` has the form of a request.

        The official worker looks for the session between the two halves, and answers 410 if it does not know it.
        """
        if isinstance(body, Mapping):
            return self._envelope(body)
        if not isinstance(body, bytes | bytearray | memoryview):
            raise InvalidValue(f"body must be bytes or a mapping, not {type(body).__name__}")
        body = bytes(body)
        if len(body) > self._limits.max_body and not self._like_official:
            text = f"the body has {len(body)} bytes, more than the {self._limits.max_body} allowed"
            return Rejected(reason=RejectReason.TOO_LARGE, text=text, status=413)
        try:
            value = json.loads(body.decode()) if self._like_official else parse_body(body, self._limits)[1]
        except json.JSONDecodeError:
            return self._not_json("the body is not JSON", 422)
        except (ValueError, RecursionError) as error:
            # The reader's words, which are those for an answer. The official worker fails at other encodings, at
            # numbers of thousands of digits and at deep nesting.
            return self._not_json(str(error).replace("the answer", "the body", 1), 500)
        return self._envelope(value)

    def admit(self, envelope: Envelope, *, waiting: float = 0.0) -> Admitted | Rejected:
        """The second half: whether the grant lets the request in, and there is room for it.

        An `envelope` with a ``session_id`` is of a session that you know.
        """
        _check_seconds(waiting, "waiting")
        grant, reqnum = envelope.auth_data, envelope.auth_data.get("reqnum")
        verdict = self._verifier.check(grant)
        if not verdict.verified and self._verifier.mode is SignatureMode.REQUIRE:
            return _refused(RejectReason.SIGNATURE, verdict.detail, 401, verdict)
        for name, is_right, wanted in _COMPARED if self._like_official else _KINDS:
            if not is_right(grant.get(name)):
                errors = {"auth_data": {name: f"must be {wanted}"}}
                return attrs.evolve(self._malformed(RejectReason.FIELD, errors, 500), verdict=verdict)
        if self._place is not None and not self._is_ours(grant.get("url")):
            return _refused(RejectReason.OTHER_WORKER, "its url is not this worker's", 401, verdict)
        if waiting > self._max_queue_time:
            text = f"{waiting:g} s of work are waiting, more than the {self._max_queue_time:g} s allowed"
            return _refused(RejectReason.FULL, text, 429, verdict)
        order = None
        if self._tracker is not None and verdict.verified and envelope.session_id is None and _is_count(reqnum):
            is_signed = "reqnum" in verdict.covers
            # Apart, so that a number which anybody may have written pushes no signed one out of the window.
            order = self._tracker.observe(f"signed for {grant.get('url')}" if is_signed else "", reqnum)
            if is_signed and order.order in _OUT_OF_ORDER:
                return _refused(*_OUT_OF_ORDER[order.order], 401, verdict)
        return Admitted(
            auth_data=grant,
            payload=envelope.payload,
            session_id=envelope.session_id,
            verdict=verdict,
            reqnum=order,
        )

    def _envelope(self, body: Any) -> Envelope | Rejected:
        """The envelope in a JSON value; what it lacks is named in the official worker's words."""
        if not isinstance(body, Mapping | list | str):
            return self._malformed(RejectReason.ENVELOPE, {"error": "the body must be an object"}, 500)
        fields: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
        errors: dict[str, Any] = {}
        grant, payload, session_id = fields.get("auth_data"), fields.get("payload"), fields.get("session_id")
        if "auth_data" not in fields:
            errors["auth_data"] = "field missing"
        elif absent := _absent(grant):
            errors["auth_data"] = dict.fromkeys(absent, "missing parameter")
        elif not isinstance(grant, Mapping):
            return self._malformed(RejectReason.ENVELOPE, {"auth_data": "must be an object"}, 500)
        if "payload" not in fields:
            errors["payload"] = "field missing"
        elif not isinstance(payload, Mapping):
            errors["payload"] = {"data": "payload must be a dictionary"}
        if errors:
            only_fields = list(errors) == ["auth_data"] and isinstance(grant, Mapping)
            return self._malformed(RejectReason.FIELD_MISSING if only_fields else RejectReason.ENVELOPE, errors, 422)
        assert isinstance(grant, Mapping)
        assert isinstance(payload, Mapping)
        if not self._like_official and not (session_id is None or (isinstance(session_id, str) and session_id)):
            return self._malformed(RejectReason.ENVELOPE, {"session_id": "must be text or null"}, 422)
        return Envelope(auth_data=grant, payload=payload, session_id=session_id)

    def _is_ours(self, url: Any) -> bool:
        try:
            return split_url(url) == self._place
        except (InvalidValue, TypeError):
            return False

    def _not_json(self, text: str, official: int) -> Rejected:
        rejected = self._malformed(RejectReason.NOT_JSON, {"error": "invalid JSON"}, official)
        return attrs.evolve(rejected, text=text)

    def _malformed(self, reason: RejectReason, errors: Mapping[str, Any], official: int) -> Rejected:
        """A body of another form than the protocol's; `official` is what the official worker answers to it."""
        return Rejected(
            reason=reason,
            text="; ".join(_words(errors)),
            status=official if self._like_official else 422,
            body=json.dumps(errors).encode(),
        )


def _refused(reason: RejectReason, text: str, status: int, verdict: Verdict) -> Rejected:
    return Rejected(reason=reason, text=text, status=status, verdict=verdict)


def _absent(grant: Any) -> list[str]:
    # A text or a list has no fields either, but the official worker asks it what is in it all the same.
    return [name for name in AUTH_FIELDS if name not in grant] if isinstance(grant, Mapping | list | str) else []


def _words(errors: Mapping[str, Any]) -> list[str]:
    """The same as `errors` for people; all of it are words of ours."""
    return [
        f"{name}: {', '.join(_words(said)) if isinstance(said, Mapping) else said}" for name, said in errors.items()
    ]


def _check_seconds(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise InvalidValue(f"{name} must be seconds: a number of at least 0")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_finite(value: object) -> bool:
    return (type(value) is int and abs(value) <= LARGEST_INT) or (type(value) is float and math.isfinite(value))


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= LARGEST_INT


def _is_index(value: object) -> bool:
    return value is None or _is_count(value)


_Kind: TypeAlias = tuple[str, Callable[[object], bool], str]
_KINDS: tuple[_Kind, ...] = (
    ("url", _is_text, "text"),
    ("endpoint", _is_text, "text"),
    ("signature", _is_text, "text"),
    ("cost", _is_finite, "a finite number"),
    ("reqnum", _is_count, "a whole number of at least 0"),
    ("request_idx", _is_index, "a whole number of at least 0, or null"),
)
"""What the engine sends in each field of a grant (wire facts, section 1)."""
_COMPARED: tuple[_Kind, ...] = (("reqnum", _is_number, "a number"),)
"""The one field in which the official worker fails at another kind: it compares it (section 3)."""
_OUT_OF_ORDER: Mapping[ReqnumOrder, tuple[RejectReason, str]] = {
    ReqnumOrder.REPEATED: (RejectReason.REPEATED, "a grant with this reqnum was used before"),
    ReqnumOrder.OUTSIDE: (RejectReason.OUTSIDE_WINDOW, "its reqnum is too far below the highest seen"),
}
