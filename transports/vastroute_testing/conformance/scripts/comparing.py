"""The same script, played over messages and over the transport: the same conversation, entry by entry."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any

from vastroute import Answer, CallFailed, FailureKind, HttpRequest, Limits, RetryPolicy, WorkPolicy

from ...engine import SimulatedEngine
from ...fault_table import EVERY
from ...faults import (
    BadJson,
    BadSignature,
    CloseBeforeHead,
    CutBody,
    CutStreamAt,
    Delay,
    DropField,
    DropIndex,
    Fault,
    Garbled,
    Hang,
    Html,
    OtherIndex,
    Padded,
    Redirect,
    Refuse,
    ResetBeforeHead,
    SetField,
    Slow,
    Status,
)
from ...fleet import SimulatedEndpoint
from ...life import WorkerPlan
from ...streams import CutSizes
from ..features import Feature, Law
from ..verbs import AnyClient
from ..world import World, engine_of, outcome
from .making import check, equal, fail, script, scripts_in

FAULTS: dict[str, Fault | tuple[Fault, ...]] = {
    "refuse": Refuse(),
    "close": CloseBeforeHead(),
    "reset": ResetBeforeHead(),
    "close-in-front": CloseBeforeHead(served=False),
    "garbled": Garbled(),
    "garbled-late": Garbled(served=True),
    "cut-head": CutBody(0),
    "cut-body": CutBody(20),
    "cut-reset": CutBody(20, FailureKind.RESET),
    "cut-stream": CutStreamAt(1),
    "hang": Hang(),
    "hang-head": Hang(0),
    "hang-body": Hang(20),
    "delay": Delay(8),
    "delay-long": Delay(45),
    "slow": Slow(40),
    "slower": Slow(1),
    "204": Status(204),
    "302": Redirect("https://elsewhere.example/x?y", 302),
    "307": Redirect("https://elsewhere.example/x?y"),
    "400": Status(400, body={"error": "no"}),
    "401": Status(401),
    "403": Status(403, body="forbidden"),
    "404": Status(404),
    "408": Status(408),
    "410": Status(410, body={"error": "invalid session"}),
    "422": Status(422, body={"error": "invalid JSON"}),
    "429": Status(429, retry_after=3),
    "429-date": Status(429, retry_after="Fri, 24 Nov 2023 05:00:00 GMT"),
    "499": Status(499),
    "500": Status(500, body={"error": "boom"}),
    "500-late": Status(500, served=True),
    "502": Status(502, body="bad gateway"),
    "503": Status(503, retry_after=7),
    "504": Status(504),
    "599": Status(599),
    "html": Html(),
    "html-503": Html(503),
    "bad-json": BadJson(),
    "padded": Padded(200),
    "too-large": Padded(800),
    "too-large-503": (Status(503, body={"a": 1}), Padded(800)),
    "no-field": DropField("reqnum"),
    "no-index": DropIndex(),
    "other-index": OtherIndex(77),
    "null-url": SetField("url", None),
    "strange-url": SetField("url", "ftp://worker.example"),
    "refusal": SetField("error_msg", "not you"),
    "signature": BadSignature(),
    "signature-text": BadSignature("nonsense"),
    "together": (Status(503), Delay(4)),
}
"""Every fault that there is, by a name."""
BY_BYTES = frozenset(
    [
        "reset",
        "garbled-late",
        "cut-head",
        "cut-body",
        "hang-body",
        "slow",
        "204",
        "429",
        "html",
        "bad-json",
        "too-large-503",
    ]
)
"""Those that do to the bytes what no other does: these are played with the bytes cut, too."""
_BY_TIME = frozenset(
    ["hang", "hang-head", "hang-body", "delay", "delay-long", "slow", "slower", "429", "429-date", "503"]
)
"""Those that are about time, and have scripts of their own over sockets."""
POLICY = RetryPolicy(max_retries=3, max_reroutes=2, total=200)
WORK = WorkPolicy(first_byte=30, silence=20, working=60, max_body=700)
LIMITS = Limits(max_body=700)


_NOT_READY = (DropField("url"), SetField("status", "1 loading"))
"""The engine answers that nothing is ready, at whatever time it is asked."""


async def call(client: AnyClient, safe: bool) -> Answer:
    """A call, with text that is not ASCII."""
    return await client.call("demo", "/echo", {"x": "tökën"}, safe_to_repeat=safe)


def engine_with(hop: str, attempt: int, fault: Fault | tuple[Fault, ...]) -> SimulatedEngine:
    """An engine that has the fault itself, or whose workers have."""
    at_route = {("demo", attempt): fault} if hop == "engine" else {}
    at_work = {("/echo", attempt): fault} if hop == "worker" else {}
    plans = [WorkerPlan(faults=at_work) for _ in range(3)]
    return SimulatedEngine(SimulatedEndpoint("demo", workers=plans, faults=at_route))


def over_bytes(fault: Fault | tuple[Fault, ...]) -> Fault | tuple[Fault, ...]:
    """What comes of it over bytes: once there is a request, it is too late to refuse the connection; it is reset."""
    return ResetBeforeHead(served=False) if isinstance(fault, Refuse) else fault


async def every_fault(
    world: World, hop: str, names: Iterable[str], plans: Iterable[tuple[CutSizes, int, bool]]
) -> None:
    """Play them all; say how those that differ do."""
    different = []
    for name in names:
        if not world.virtual and name in _BY_TIME:
            continue
        for cut, attempt, safe in plans if world.virtual else _OVER_SOCKETS:
            fault = over_bytes(FAULTS[name]) if world.has(Feature.BYTES) else FAULTS[name]
            options: dict[str, Any] = {"policy": POLICY, "work_policy": WORK, "limits": LIMITS, "find_key": False}
            wanted = world.reference(engine_with(hop, attempt, fault), partial(call, safe=safe), **options)
            async with world.client(engine_with(hop, attempt, FAULTS[name]), cut=cut, **options) as client:
                got = await outcome(call(client, safe))
            if words := world.same(got, wanted):
                different.append(f"{name}{' at every attempt' if attempt == EVERY else ''}: {words}")
    if different:
        fail(f"{len(different)} of them end otherwise than over messages: " + "; ".join(different[:5]))


_WHOLE: tuple[tuple[CutSizes, int, bool], ...] = ((None, 1, False), (None, 1, True), (None, EVERY, True))
_CUT: tuple[tuple[CutSizes, int, bool], ...] = (((1, 13), 1, True),)
_OVER_SOCKETS: tuple[tuple[CutSizes, int, bool], ...] = ((None, 1, True),)
"""How the bytes are cut, which attempts go wrong, and whether the work may run twice."""


@script(Law.NO_DECISION)
async def engine_faults(world: World) -> None:
    """Every fault that an engine can have ends as over messages: the same result or error, counts and record."""
    await every_fault(world, "engine", FAULTS, _WHOLE)


@script(Law.NO_DECISION)
async def worker_faults(world: World) -> None:
    """Every fault that a worker can have ends as over messages: the same result or error, counts and record."""
    await every_fault(world, "worker", FAULTS, _WHOLE)


@script(Law.NO_DECISION, Feature.BYTES)
async def faults_cut(world: World) -> None:
    """Faults of the bytes end as over messages however the bytes are cut."""
    for hop in ("engine", "worker"):
        await every_fault(world, hop, sorted(BY_BYTES), _CUT)


@script(Law.NO_DECISION)
async def same_record(world: World) -> None:
    """A call through a cold start, failures and re-routing has the same record and counts as over messages."""

    def make() -> SimulatedEngine:
        # Over sockets what happens must not depend on how late it is.
        ready = 40 if world.virtual else 0
        plans = [WorkerPlan(ready_after=ready, faults={("/echo", 1): Status(503)}) for _ in range(2)]
        faults: dict[tuple[str, int], Fault | tuple[Fault, ...]] = {
            ("demo", 1): _NOT_READY,
            ("demo", 2): Status(503),
            ("demo", 3): _NOT_READY,
            ("demo", 4): DropIndex(),
        }
        return engine_of(workers=plans, faults=faults)

    wanted = world.reference(make(), partial(call, safe=False))
    async with world.client(make()) as client:
        got = await outcome(call(client, False))
    words = world.same(got, wanted)
    check(not words, words)


@script(Law.NO_DECISION, Feature.CONCURRENCY)
async def side_by_side(world: World) -> None:
    """Each of many calls at once has the answer, the counts and the record that it has alone."""

    def engine(count: int) -> SimulatedEngine:
        faults: dict[tuple[str, int], Fault | tuple[Fault, ...]] = {}
        at_work: dict[tuple[str, int], Fault] = {}
        for number in range(count):
            if number % 3 == 0:
                faults |= {(str(number), attempt): _NOT_READY for attempt in range(1, number % 4 + 1)}
            if number % 3 == 1:
                faults[str(number), 1] = Status(502)
            if number % 4 == 2:
                at_work[str(number), 1] = Status(503)
        plan = WorkerPlan(label=_number, faults=at_work)
        return engine_of(workers=[plan], faults=faults)

    async def one(client: AnyClient, number: int) -> Answer | CallFailed:
        payload, extra = {"n": number, "text": "x" * number}, {"guid": str(number)}
        return await outcome(client.call("demo", "/echo", payload, cost=number + 1, extra=extra))

    count = 24
    got: dict[int, Answer | CallFailed] = {}
    server = engine(count)
    async with world.client(server) as client:

        async def play(number: int) -> None:
            got[number] = await one(client, number)

        await world.together(*[partial(play, number) for number in range(count)])
    equal(server.load("demo"), sum(range(1, count + 1)), "the load that the engine counts")
    for number in range(count):
        wanted = world.reference(engine(count), partial(one, number=number))
        mine, alone = got[number], wanted
        assert not isinstance(alone, CallFailed)
        if isinstance(mine, CallFailed):
            fail(f"call {number} ends with {type(mine).__name__}: {mine}")
        equal(mine.data, alone.data, f"the answer of call {number}")
        one_of, other = (_apart(world.conversation(each.record)) for each in (mine, alone))
        equal(one_of, other, f"the record of call {number}")


def _number(request: HttpRequest) -> str:
    return str(json.loads(request.body)["payload"]["n"])


def _apart(conversation: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without the request's number at the engine, which is the next one for whoever asks first."""
    return [(*entry[:3], *entry[4:]) for entry in conversation]


SCRIPTS = scripts_in(globals())
