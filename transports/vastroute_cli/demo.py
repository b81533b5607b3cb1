"""``vastroute demo``: the whole of it on this machine, over real HTTP, without an account and without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from vastroute import CallFailed, Entry, Guard, ServerSentEvent
from vastroute_io.options import CallOptions

from .deliver import token_of
from .exits import Exit
from .failures import attempt, say_error
from .options import Json
from .output import plural, write_json, write_line, write_pairs

if TYPE_CHECKING:
    from vastroute_io.trio import Client
    from vastroute_testing import SimulatedEngine

    from .rows import Row

Seed: TypeAlias = Annotated[int, Parameter(help="What pauses and names are drawn from.")]
_NEXT = (
    "export VAST_API_KEY=...",
    "vastroute route my-endpoint",
    """vastroute call my-endpoint /v1/completions --payload '{"prompt": "Hello"}'""",
)


def demo(*, seed: Seed = 0, json: Json = False) -> Exit:
    """Watch a few dozen calls at once against a simulated engine: no account, no network, about seven seconds.

    They meet a cold start, a worker that refuses connections, one that is full, two that die at work, a stream that is
    cut, and an engine that answers 503. Every request has to end as its script says; the exit code is 0 only then.
    """
    import trio

    import vastroute_io.trio
    from vastroute_testing import TEST_KEY, open_loopback

    from .board import board
    from .rows import Row
    from .script import nobody_there, script, world

    current: ContextVar[Row] = ContextVar("current")

    def observe(entry: Entry) -> None:
        current.get()(entry)

    def draw() -> float:
        return current.get().rng.random()

    async def one(client: Client, row: Row) -> None:
        current.set(row)
        row.begin()
        try:
            await _do(client, row)
        except CallFailed as error:
            row.failed(error)

    async def run() -> Exit:
        simulated = world(seed)
        began = trio.current_time()
        with board(json=json) as shown:
            rows = [Row(each, seed=seed, changed=shown.changed) for each in script()]
            async with open_loopback(simulated) as loopback:
                with nobody_there(simulated):
                    shown.show(rows)
                    async with (
                        vastroute_io.trio.Client(
                            key=TEST_KEY,
                            engine=loopback.origin,
                            guard=Guard(allow_plain_http=True, allow_private_address=True),
                            fetch_public_key=True,
                            proxy=None,
                            observer=observe,
                            rng=draw,
                        ) as client,
                        trio.open_nursery() as nursery,
                    ):
                        for row in rows:
                            nursery.start_soon(one, client, row)
        return conclude(rows, simulated, trio.current_time() - began, json=json)

    return attempt(run, json=json)


async def _do(client: Client, row: Row) -> None:
    from .script import COMPLETIONS, What

    scripted = row.scripted
    if scripted.what is What.ROUTE:
        row.routed(await client.route(scripted.endpoint, cost=scripted.cost))
        return
    options = CallOptions(cost=scripted.cost, safe_to_repeat=scripted.safe_to_repeat)
    if scripted.what is What.ANSWER:
        row.answered(await client.call(scripted.endpoint, COMPLETIONS, scripted.payload, **options))
        return
    async with client.stream(scripted.endpoint, COMPLETIONS, scripted.payload, **options) as events:
        async for event in events:
            if isinstance(event, ServerSentEvent) and not event.done and (token := token_of(event.json())):
                row.text += token
                row.tokens += 1
        row.answered(events.result())


def conclude(rows: Sequence[Row], simulated: SimulatedEngine, seconds: float, *, json: bool) -> Exit:
    """Say what became of all of it."""
    from .script import End

    unexpected = [f"{row.name}: {difference}" for row in rows for difference in row.differences()]
    for row in rows:
        lifetime = simulated.lifetimes.get(row.request_idx or 0)
        if lifetime is None or len(lifetime.grants) != row.re_routes + bool(row.worker):
            unexpected.append(f"{row.name}: the engine did not see one request_idx for all of it")
    load_asked = sum(row.scripted.cost for row in rows)
    load_counted = sum(simulated.load(name) for name in {row.scripted.endpoint for row in rows})
    if load_counted != load_asked or len(simulated.lifetimes) != len(rows):
        unexpected.append(f"load: the engine counted {load_counted:g}, not {load_asked}")
    ends = Counter(row.end for row in rows)
    summary = {
        "kind": "summary",
        "asked": len(rows),
        "granted": sum(bool(row.worker) for row in rows),
        "answered": ends[End.ANSWERED],
        "perhaps_started": ends[End.PERHAPS_STARTED],
        "failed": ends[End.FAILED],
        "polls": sum(row.polls for row in rows),
        "retries": sum(row.retries for row in rows),
        "re_routes": sum(row.re_routes for row in rows),
        "load_asked": load_asked,
        "load_counted": load_counted,
        "verified": sum(row.verdict is not None and row.verdict.verified for row in rows),
        "seconds": round(seconds, 2),
        "unexpected": unexpected,
    }
    if json:
        write_json(summary | {"next": list(_NEXT)})
    else:
        _write(summary)
    return Exit.DEMO_DIFFERS if unexpected else Exit.DONE


def _write(said: dict[str, Any]) -> None:
    write_line()
    asked, answered, perhaps = said["asked"], said["answered"], said["perhaps_started"]
    again = (plural(said["polls"], "poll"), plural(said["retries"], "retry", "retries"))
    load = f"{said['load_asked']} asked, {said['load_counted']:g} counted by the engine: once for each request_idx"
    write_pairs(
        [
            ("requests", f"{asked} asked, {said['granted']} granted a worker"),
            ("work", f"{answered} answered, {perhaps} perhaps started, {said['failed']} failed in another way"),
            ("again", ", ".join((*again, plural(said["re_routes"], "re-route")))),
            ("load", load),
            ("signatures", f"{said['verified']} of {asked} verified"),
            ("time", f"{said['seconds']:.1f} s"),
        ]
    )
    write_line()
    if said["unexpected"]:
        for line in said["unexpected"]:
            say_error(line)
        return
    write_line("Every request ended as its script says. Next, with a key of your own:", "bold")
    for line in _NEXT:
        write_line(f"  {line}")
