"""``vastroute route``: one worker, and what its grant says."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter

from vastroute import Counts, Grant, LimitReached, NotReady, RetryPolicy, RouteResult, Verdict

from .exits import Exit
from .failures import attempt, verdict_fields
from .options import Asking, Json, Name
from .output import duration, plural, say, write_json, write_line, write_pairs
from .progress import Progress, breakdown

NoWait: TypeAlias = Annotated[
    bool, Parameter(negative="", show_default=False, help="Ask once. If no worker is ready, say so and exit with 3.")
]


def route(endpoint: Name, /, *, asking: Asking = Asking(), no_wait: NoWait = False, json: Json = False) -> Exit:
    """Ask for a worker, waiting while none is ready, and print the grant.

    A grant is a secret: whoever holds it can use the worker, and it does not expire. It is printed whole with --json
    only.
    """
    import trio

    import vastroute_io.trio

    with Progress() as progress:
        options = asking.client_for(progress, **({"policy": RetryPolicy(max_polls=0)} if no_wait else {}))

        async def work() -> Exit:
            began = trio.current_time()
            async with vastroute_io.trio.Client(**options) as client:
                try:
                    result = await client.route(endpoint, **asking.route())
                except LimitReached as error:
                    if not no_wait or error.limit != "max_polls" or error.not_ready is None:
                        raise
                    _show_not_ready(error.not_ready, error.request_idx, json=json)
                    return Exit.NOT_READY
            progress.stop()
            _show(result, trio.current_time() - began, json=json)
            return Exit.DONE

        return attempt(work, json=json)


def _show(result: RouteResult, seconds: float, *, json: bool) -> None:
    grant, counts = result.grant, result.counts
    if json:
        more = {
            "verdict": verdict_fields(result.verdict),
            "request_idx": result.request_idx,
            "request_idx_age": result.request_idx_age,
            "differences": list(result.differences),
            "counts": attrs.asdict(counts),
            "seconds": round(seconds, 3),
        }
        write_json({"kind": "grant"} | more, grant=raw_line(grant))
        return
    write_pairs(
        [
            ("worker", grant.url),
            ("endpoint", grant.endpoint),
            ("cost", f"{grant.cost}"),
            ("reqnum", f"{grant.reqnum}"),
            ("request_idx", "none" if result.request_idx is None else f"{result.request_idx}"),
            ("signature", shortened(grant.signature)),
            ("verdict", words_of(result.verdict)),
            ("asked", asked(counts, seconds)),
        ]
    )
    if result.differences:
        say(f"note: the grant is for another {' and '.join(result.differences)} than was asked for", "yellow")


def _show_not_ready(answer: NotReady, request_idx: int | None, *, json: bool) -> None:
    if json:
        fields: dict[str, Any] = {"kind": "not ready", "status": answer.status, "workers": dict(answer.counts)}
        write_json(fields | {"request_idx": request_idx})
        return
    status = "the engine does not say why" if answer.status is None else breakdown(answer.status)
    write_line(f"not ready: {status}")
    if request_idx is not None:
        say(f"  --request-idx {request_idx} goes on with this request", "dim")


def raw_line(grant: Grant) -> str:
    """The grant's own JSON text on one line: a line end can only stand between two tokens, where a space is the same.

    Numbers and strings keep their spelling, which the signature may cover.
    """
    return grant.raw.decode("utf-8").replace("\r", " ").replace("\n", " ")


def shortened(signature: str) -> str:
    """Enough of a signature to tell two apart, too little to use it."""
    return f"{signature[:12]}... ({plural(len(signature), 'character')})" if len(signature) > 12 else signature


def words_of(verdict: Verdict) -> str:
    """A verdict for people; what would give another one, where there is no key."""
    if verdict.reason.value == "no key":
        return "not checked: no public key is known (--public-key names one)"
    return f"{verdict.reason.value}: {verdict.detail}" if verdict.detail else verdict.reason.value


def asked(counts: Counts, seconds: float) -> str:
    """How often the engine was asked, and how long all took."""
    parts = [plural(counts.asks, "time")]
    parts += [plural(counts.polls, "poll")] if counts.polls else []
    parts += [plural(counts.retries, "retry", "retries")] if counts.retries else []
    return f"{', '.join(parts)}, {duration(seconds)}"
