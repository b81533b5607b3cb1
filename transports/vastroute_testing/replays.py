"""A recorded conversation, played to a client again: the same answers after the same times, signed with the test key.

`vastroute_io.recording` writes the file. What was left out of it is filled in with something of the same length and
kind, so that the client comes to the same end as the one that was recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, final

import attrs

from vastroute import (
    ENGINE,
    Advice,
    ConnectionFailed,
    FailureKind,
    Headers,
    HttpRequest,
    InvalidValue,
    Origin,
    Outcome,
    Phase,
    VastrouteError,
)
from vastroute_io.recording_file import STOPPED, VERSION

from .rebuild import Form, schedule
from .schedule import Schedule

_NOTHING = HttpRequest(method="GET", origin=ENGINE, target="/", headers=Headers())
_ENGINES = frozenset({"console", "engine"})


class ReplayDiffers(VastrouteError):
    """The client asked something else than the one that was recorded. The text says what was expected."""


@attrs.frozen(kw_only=True)
class RecordedCall:
    """One call of a recording: how it went, and how it ended."""

    number: int
    """Its line in the file, from 1."""
    machine: str
    """What was driven: ``Call``, ``RouteCall`` or ``Lookup``."""
    began: float
    """Seconds since the first call of the recording began."""
    seconds: float
    """How long it took."""
    outcome: Mapping[str, Any]
    """``result`` and ``status``, or ``error`` (the class), ``phase``, ``outcome``, ``advice``, ``status``, ``kind`` and
    ``limit``."""
    record: tuple[Mapping[str, Any], ...] = attrs.field(repr=False)
    """Its record's entries, as `vastroute_io.redaction.plain_record` writes them."""
    draws: tuple[float, ...] = attrs.field(repr=False)
    """What it drew to spread its pauses."""
    exchanges: tuple[Form, ...] = attrs.field(repr=False)
    """Each request, its answer, and how it failed."""

    @property
    def asks(self) -> int:
        """How often it asked the engine for a worker."""
        return sum(each["phase"] == Phase.ROUTE.value for each in self.exchanges)


class _Part:
    """One call on its way through a replay."""

    def __init__(self, call: RecordedCall) -> None:
        self.call = call
        self.next = 0

    @property
    def head(self) -> Form | None:
        """The exchange that comes next."""
        return self.call.exchanges[self.next] if self.next < len(self.call.exchanges) else None

    @property
    def due(self) -> float:
        """When that came, on the recorder's clock."""
        at: float = self.call.exchanges[self.next]["at"]
        return self.call.began + at


@final
class Replay:
    """A server that answers as those of a recording did: the `server` of `vastroute_testing.memory.Client`, and what
    `connector`, `blocking_connector` and the others connect to.

    Within a call the requests must come in their order; calls may overlap as they did. A request is looked for by its
    method, its path, whom it goes to, whether a key goes with it, and the numbers and names of the protocol in it; by
    its payload only where that was recorded. A client that asks something else gets `ReplayDiffers`, raised from its
    call, and it says what was expected.

    The answers come as long after their requests as they did. `rng` draws as the recorded client did, so that the
    pauses are as long: pass it on. Give the client the options that the recorded one had. Grants are signed anew: with
    `vastroute_testing.TEST_PUBLIC_KEY` they verify, or not, as they did. Workers have addresses reserved for
    documentation, so allow private ones.
    """

    def __init__(self, calls: tuple[RecordedCall, ...]) -> None:
        self.calls: tuple[RecordedCall, ...] = calls
        """The calls of the recording, in the order in which they were over."""
        self._parts = [_Part(call) for call in calls]
        self._workers = {each["request"]["to"] for call in calls for each in call.exchanges} - _ENGINES
        draws = [draw for call in sorted(calls, key=lambda call: call.began) for draw in call.draws]
        self._draws = iter(draws)
        self._epoch: float | None = None

    def rng(self) -> float:
        """The draws of the recorded client, one call after the other; 0.5 when there are no more."""
        return next(self._draws, 0.5)

    @property
    def left(self) -> int:
        """How many of the recorded requests have not come yet."""
        return sum(len(part.call.exchanges) - part.next for part in self._parts)

    def refuses(self, origin: Origin, *, now: float) -> bool:
        """Whether a connection to `origin` is refused now. Raises `ConnectionFailed` where it failed otherwise."""
        for part in self._in_order(now):
            exchange = part.head
            if exchange is None or not self._leads_to(exchange, origin):
                continue
            if not _is_unsent(exchange):
                return False
            part.next += 1
            kind = FailureKind(exchange["failed"]["kind"])
            if kind is FailureKind.REFUSED:
                return True
            raise ConnectionFailed(
                "as it was recorded",
                phase=Phase(exchange["phase"]),
                outcome=Outcome.NOT_SENT,
                advice=Advice.ASK_AGAIN,
                kind=kind,
            )
        return False

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        """What the recorded server did. Raises `ReplayDiffers` if this request was not made then, or not now."""
        differences = []
        for part in self._in_order(now):
            exchange = part.head
            assert exchange is not None
            found = list(_differences(exchange, request))
            if not self._leads_to(exchange, request.origin):
                found.append(f"it went to {exchange['request']['to']}")
            if not found:
                part.next += 1
                following = part.head
                closes = following is not None and _is_unsent(following)
                return schedule(exchange, now=now, closes=closes)
            differences.append((len(found), part, found))
        if not differences:
            raise ReplayDiffers(f"{_words(request)}: the recording is at its end")
        _, part, found = min(differences, key=lambda each: each[0])
        where = f"call {part.call.number}, request {part.next + 1}"
        raise ReplayDiffers(f"{_words(request)} differs from the recording ({where}): {'; '.join(found)}")

    def _leads_to(self, exchange: Form, origin: Origin) -> bool:
        """Whether a connection to `origin` may be for `exchange`. Any address that is no worker's is the engine's."""
        to = exchange["request"]["to"]
        return to == str(origin) or (to in _ENGINES and str(origin) not in self._workers)

    def _in_order(self, now: float) -> list[_Part]:
        """The calls that are not over, the one whose next request is due the nearest to `now` before the others.

        Calls that overlap may ask the same at the same point: it is then the time that tells them apart.
        """
        going = [part for part in self._parts if part.head is not None]
        if self._epoch is None and going:
            self._epoch = now - min(part.due for part in going)
        return sorted(going, key=lambda part: abs(part.due - (now - (self._epoch or 0.0))))


def replay(path: str | Path) -> Replay:
    """The recording in the file at `path`, ready to be played once.

    Raises `InvalidValue` if it is none, or of another version, or if a call was too long to be recorded whole. Half a
    line is left out: its writer was stopped.
    """
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InvalidValue(f"the recording cannot be read: {reason}") from None
    lines = text.split("\n")[:-1]
    calls = tuple(_read(number, line) for number, line in enumerate(lines, 1) if line and not line.endswith(STOPPED))
    return Replay(calls)


def _read(number: int, line: str) -> RecordedCall:
    try:
        value = json.loads(line)
        is_ours = value["vastroute"] == "recording"
        version = value["version"]
        call = _call(number, value) if is_ours and version == VERSION else None
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise InvalidValue(f"line {number} is no recorded call") from None
    if call is None:
        raise InvalidValue(f"line {number} is no recorded call of version {VERSION}, the one that is known here")
    if any(each.get("answer", {}).get("body", {}).get("cut_short") for each in call.exchanges):
        raise InvalidValue(f"line {number} is a call that was too long to be recorded: give the recorder more room")
    return call


def _call(number: int, value: Mapping[str, Any]) -> RecordedCall:
    call = RecordedCall(
        number=number,
        machine=value["machine"],
        began=value["began"],
        seconds=value["seconds"],
        outcome=value["outcome"],
        record=tuple(value["record"]),
        draws=tuple(value["draws"]),
        exchanges=tuple(value["exchanges"]),
    )
    for exchange in call.exchanges:  # a file that somebody has edited fails here and not in the middle of a test
        schedule(exchange, now=call.began, closes=False)
        list(_differences(exchange, _NOTHING))
    return call


def _is_unsent(exchange: Form) -> bool:
    """Whether it failed before there was a connection."""
    failed = exchange.get("failed")
    return failed is not None and failed["sent"] is False


def _words(request: HttpRequest) -> str:
    return f"{request.method} {request.target.partition('?')[0]} to {request.origin}"


def _differences(exchange: Form, request: HttpRequest) -> Iterator[str]:
    """In what `request` differs from the recorded one, in words that repeat nothing private."""
    wanted = exchange["request"]
    path, _, query = request.target.partition("?")
    has_key = "authorization" in request.headers
    if (request.method, path) != (wanted["method"], wanted["path"]):
        yield f"{wanted['method']} {wanted['path']} was expected"
    if bool(query) != wanted["query"]:
        yield f"it had {'a' if wanted['query'] else 'no'} query"
    if has_key != wanted["key"]:
        yield f"{'a' if wanted['key'] else 'no'} key went with it"
    yield from _body_differences(exchange, request.body)


def _body_differences(exchange: Form, body: bytes) -> Iterator[str]:
    wanted = exchange["request"]["body"]
    if wanted is None:
        return
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        given = {}
    if exchange["phase"] == Phase.WORKER.value:
        if given.get("session_id") != wanted["session_id"]:
            yield f"it was {'in no session' if wanted['session_id'] is None else 'in ' + wanted['session_id']}"
        payload = wanted.get("payload", {})
        if "value" in payload and given.get("payload") != payload["value"]:
            yield "its payload was another"
        return
    for name in ("endpoint", "cost", "request_idx", "replay_timeout"):
        if given.get(name) != wanted.get(name):
            yield f"its {name} was {json.dumps(wanted.get(name))}, not {json.dumps(given.get(name))}"
