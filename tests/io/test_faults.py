"""Every fault, at both hops, over real byte streams: it ends as the machines say, however the bytes are cut.

What the machines say is taken from the same script over messages, where there are no bytes and no transport.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import pytest

from vastroute import Answer, CallFailed, Limits, Record, RetryPolicy, WorkPolicy
from vastroute_testing import (
    BEGIN,
    CutSizes,
    Fault,
    Refuse,
    ResetBeforeHead,
    SimulatedEndpoint,
    SimulatedEngine,
    WorkerPlan,
)
from vastroute_testing.conformance.verbs import AnyClient
from vastroute_testing.fault_table import EVERY
from vastroute_testing.faults import __name__ as _faults
from vastroute_testing.memory import Client as MessageClient

from .faulty import BY_BYTES, FAULTS
from .worlds import World, facts, rows

POLICY = RetryPolicy(max_retries=3, max_reroutes=2, total=200)
WORK = WorkPolicy(first_byte=30, silence=20, working=60, max_body=700)
LIMITS = Limits(max_body=700)
Outcome: TypeAlias = Answer | CallFailed


def test_no_fault_is_left_out() -> None:
    known = {cls for cls in Fault.__subclasses__() if cls.__module__ == _faults}
    used = {type(fault) for each in FAULTS.values() for fault in (each if isinstance(each, tuple) else (each,))}
    assert used == known


def over_bytes(fault: Fault | tuple[Fault, ...]) -> Fault | tuple[Fault, ...]:
    # Once there is a request, it is too late to refuse the connection: it is reset.
    return ResetBeforeHead(served=False) if isinstance(fault, Refuse) else fault


def engine_with(hop: str, attempt: int, fault: Fault | tuple[Fault, ...]) -> SimulatedEngine:
    at_route = {("demo", attempt): fault} if hop == "route" else {}
    at_work = {("/echo", attempt): fault, ("/stream", attempt): fault} if hop == "work" else {}
    plans = [WorkerPlan(faults=at_work) for _ in range(3)]
    return SimulatedEngine(SimulatedEndpoint("demo", workers=plans, faults=at_route))


def options_of(engine: SimulatedEngine) -> dict[str, Any]:
    return {
        "public_key": engine.public_key,
        "policy": POLICY,
        "work_policy": WORK,
        "limits": LIMITS,
        "find_key": False,
        "key": "test-endpoint-key",
    }


@cache
def reference(name: str, hop: str, attempt: int, safe: bool) -> tuple[Outcome, float]:
    engine = engine_with(hop, attempt, over_bytes(FAULTS[name]))
    client = MessageClient(server=engine, **options_of(engine))
    client.clock.sleep_until(BEGIN)
    try:
        return client.call("demo", "/echo", {"x": "tökën"}, safe_to_repeat=safe), client.clock()
    except CallFailed as error:
        return error, client.clock()


PLANS: tuple[tuple[CutSizes, int, bool], ...] = (
    (None, 1, False),
    (None, 1, True),
    (None, EVERY, True),
    (7, 1, True),
    (1, 1, True),
)
"""How the bytes are cut, which attempts go wrong, and whether the work may run twice."""


@pytest.mark.parametrize("hop", ["route", "work"])
@pytest.mark.parametrize("name", FAULTS)
async def test_it_ends_as_the_machines_say(world: World, name: str, hop: str) -> None:
    for cut, attempt, safe in PLANS:
        if cut is not None and name not in BY_BYTES:
            continue
        wanted, ended = reference(name, hop, attempt, safe)
        engine = engine_with(hop, attempt, FAULTS[name])
        began = world.now()
        async with world.client(engine, cut=cut, **options_of(engine)) as client:
            got = await outcome(client, safe)
        case = (cut, attempt, safe, got, wanted)
        assert type(got) is type(wanted), case
        if isinstance(got, CallFailed):
            assert isinstance(wanted, CallFailed)
            assert facts(got) == facts(wanted), case
            assert got.body == wanted.body, case
        else:
            assert isinstance(wanted, Answer)
            assert (got.status, got.data, got.counts) == (wanted.status, wanted.data, wanted.counts), case
        assert shape(got.record) == shape(wanted.record), case
        assert world.now() - began == pytest.approx(ended - BEGIN), case
        assert world.now() - began <= POLICY.total, case


async def outcome(client: AnyClient, safe: bool) -> Outcome:
    try:
        return await client.call("demo", "/echo", {"x": "tökën"}, safe_to_repeat=safe)
    except CallFailed as error:
        return error


def shape(record: Record | None) -> list[Any]:
    """What happened and when, without the words: each transport quotes its own exceptions."""
    entries = rows(record)
    began = entries[0].at
    return [
        (
            (entry.kind, entry.phase, entry.attempt, entry.request_idx, entry.status),
            round(entry.at - began, 6),
            None if entry.until is None else round(entry.until - began, 6),
        )
        for entry in entries
    ]
