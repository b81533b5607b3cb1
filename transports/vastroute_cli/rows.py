"""One request of the demo as it goes, and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from time import perf_counter
from typing import Any, final

from vastroute import Answer, CallFailed, Counts, Entry, EntryKind, Outcome, Phase, Reason, RouteResult, Verdict, Why

from .progress import breakdown
from .script import End, Scripted, What


@final
class Row:
    """One request. `changed` is called with it at every change of its phase."""

    def __init__(self, scripted: Scripted, *, seed: int, changed: Callable[[Row], None]) -> None:
        self.scripted = scripted
        self.rng = Random(seed * 1_000_003 + scripted.number)  # noqa: S311 - it spreads pauses
        """Its own, so that its pauses are the same in every run."""
        self.phase = ""
        self.end: End | None = None
        """How it ended, once it has."""
        self.text = ""
        """What came of the answer."""
        self.tokens = 0
        self.request_idx: int | None = None
        self.worker = ""
        """The address of the worker that was granted last."""
        self.reqnum: int | None = None
        self.verdict: Verdict | None = None
        self.polls = self.retries = self.re_routes = 0
        self.error = ""
        self._began_at = 0.0
        self._ended_at: float | None = None
        self._changed = changed
        self._workers = self._why = ""

    def __call__(self, entry: Entry) -> None:
        """What the client's observer is told."""
        if entry.phase is Phase.LOOKUP:
            return
        self.request_idx = entry.request_idx or self.request_idx
        if entry.kind is EntryKind.ASKED:
            self.polls += self._why == Why.POLL.value
            self.retries += self._why == Why.RETRY.value
            if not self.phase:
                self.be("asking")
        elif entry.kind is EntryKind.NOT_READY:
            self._workers = breakdown(entry.detail)
        elif entry.kind is EntryKind.WAITING:
            self._why = entry.detail
            if self._why == Why.POLL.value:
                self.be(f"waiting: {self._workers}")
        elif entry.kind is EntryKind.TROUBLE:
            self.be(f"HTTP {entry.status}: asking again" if entry.status else "asking again")
        elif entry.kind is EntryKind.WORKER_LOST:
            self.re_routes += 1
            self.be(f"re-route: {entry.detail.partition(':')[0].removeprefix('the ')}")
        elif entry.kind is EntryKind.GRANTED:
            self.worker = entry.detail
            if self.scripted.what is What.ROUTE:
                self.be("granted")
        elif entry.kind is EntryKind.SENT:
            self.be("working")
        elif entry.kind is EntryKind.STREAMING:
            self.be("streaming")

    def begin(self) -> None:
        """It begins now."""
        self._began_at = perf_counter()

    def be(self, phase: str) -> None:
        """Be in `phase` from now on."""
        if phase != self.phase:
            self.phase = phase
            self._changed(self)

    def routed(self, result: RouteResult) -> None:
        """There is a worker, and that is all that was wanted."""
        self._granted(result)
        self._over(End.GRANTED)

    def answered(self, answer: Answer) -> None:
        """There is an answer."""
        if self.scripted.what is What.ANSWER:
            self.text = answer.data["choices"][0]["text"]
        self._granted(answer)
        self._over(End.ANSWERED)

    def failed(self, error: CallFailed) -> None:
        """It ended without what it was made for."""
        self.error = str(error)
        self.verdict = error.verdict
        self._count(error.counts or Counts())
        perhaps = error.phase is Phase.WORKER and error.outcome is Outcome.PERHAPS_STARTED
        self._over(End.PERHAPS_STARTED if perhaps else End.FAILED)

    def _granted(self, found: RouteResult | Answer) -> None:
        self.verdict, self.reqnum, self.request_idx = found.verdict, found.grant.reqnum, found.request_idx
        self._count(found.counts)

    def _count(self, counts: Counts) -> None:
        """The call's own account, in place of what was seen of it."""
        self.polls, self.retries, self.re_routes = counts.polls, counts.retries, counts.workers_lost

    def _over(self, end: End) -> None:
        self.end = end
        self._ended_at = perf_counter()
        after = ""
        if self.re_routes:
            after = " after re-route"
        elif self.retries:
            after = " after retry"
        self.phase = f"{end.value}{after}"
        self._changed(self)

    @property
    def name(self) -> str:
        """What to call it."""
        return f"#{self.scripted.number} {self.scripted.endpoint} {self.scripted.what.value}"

    @property
    def place(self) -> str:
        """The worker's port; all are on this machine."""
        return f":{self.worker.rpartition(':')[2]}" if self.worker else ""

    @property
    def seconds(self) -> float:
        """How long it has taken so far, or took."""
        return (perf_counter() if self._ended_at is None else self._ended_at) - self._began_at

    def differences(self) -> list[str]:
        """In what it is not as its script says."""
        scripted = self.scripted
        cold = "at least 1" if scripted.is_cold else "0"
        wanted = self.text if scripted.what is What.ROUTE or self.end is End.FAILED else scripted.text
        if scripted.end is End.PERHAPS_STARTED and scripted.cut_after is None:
            wanted = ""
        signature = self.verdict and self.verdict.reason.value
        checks: tuple[tuple[str, Any, Any, bool], ...] = (
            ("end", self.end and self.end.value, scripted.end.value, self.end is scripted.end),
            ("retries", self.retries, scripted.retries, self.retries == scripted.retries),
            ("re-routes", self.re_routes, scripted.re_routes, self.re_routes == scripted.re_routes),
            ("polls", self.polls, cold, (self.polls > 0) == scripted.is_cold),
            ("text", self.text, wanted, self.text == wanted),
            ("signature", signature, Reason.VERIFIED.value, signature == Reason.VERIFIED.value),
        )
        return [f"{name}: {found!r}, not {wanted!r}" for name, found, wanted, good in checks if not good]

    def as_json(self) -> dict[str, Any]:
        """All that is known of it, as JSON values."""
        scripted, verdict = self.scripted, self.verdict
        return {
            "kind": "request",
            "number": scripted.number,
            "endpoint": scripted.endpoint,
            "what": scripted.what.value,
            "cost": scripted.cost,
            "safe_to_repeat": scripted.safe_to_repeat,
            "end": self.end and self.end.value,
            "as_scripted": not self.differences(),
            "request_idx": self.request_idx,
            "polls": self.polls,
            "retries": self.retries,
            "re_routes": self.re_routes,
            "worker": self.worker or None,
            "reqnum": self.reqnum,
            "signature": verdict and verdict.reason.value,
            "covers": list(verdict.covers) if verdict else [],
            "tokens": self.tokens,
            "error": self.error or None,
            "seconds": round(self.seconds, 3),
        }
