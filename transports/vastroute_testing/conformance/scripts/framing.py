"""How answers are framed, and heads that are hostile: however the bytes are cut."""

from __future__ import annotations

from vastroute import CallFailed, FailureKind, Limits, RetryPolicy, WorkPolicy

from ...faults import Padded
from ...life import WorkerPlan
from ..features import Feature, Law
from ..stage import Edit
from ..world import World, engine_of
from .edits import after_others, in_chunks, on_the_wire, trickling, with_headers, with_more
from .making import check, equal, failure, script, scripts_in

_CUTS = (None, 1, (7, 2))
"""Everything at once, byte by byte, and in pieces between."""


async def framed(world: World, *edits: Edit) -> None:
    """Engine and worker frame their answers so, and the call is the same as ever."""
    for edit in edits:
        for cut in _CUTS:
            async with world.client(engine_of(), engine_edit=edit, worker_edit=edit, cut=cut) as client:
                answer = await client.call("demo", "/echo", {"x": "tökën"})
            equal((answer.status, answer.data), (200, {"echo": {"x": "tökën"}}), "the answer")
            equal((answer.counts.asks, answer.counts.work_attempts), (1, 1), "asks and attempts")


@script(Law.NO_DECISION, Feature.BYTES)
async def framed_by_length(world: World) -> None:
    """An answer with `content-length`, in whatever pieces its bytes come."""
    await framed(world, with_headers(), with_headers(("set-cookie", "a"), ("set-cookie", "b"), ("x-one", "")))


@script(Law.NO_DECISION, Feature.BYTES)
async def framed_by_chunks(world: World) -> None:
    """An answer in HTTP's chunked coding, in whatever pieces its bytes come."""
    await framed(world, in_chunks)


@script(Law.NO_DECISION, Feature.BYTES)
async def framed_by_close(world: World) -> None:
    """An answer that only the end of the connection ends."""
    await framed(world, on_the_wire("HTTP/1.1 200 OK\ncontent-type: application/json"))


@script(Law.NO_DECISION, Feature.BYTES)
async def framed_by_old_http(world: World) -> None:
    """An answer in HTTP/1.0, with and without a length."""
    length = on_the_wire("HTTP/1.0 200 OK\ncontent-type: application/json\ncontent-length: {}")
    await framed(world, on_the_wire("HTTP/1.0 200 OK\ncontent-type: application/json"), length)


@script(Law.NO_DECISION, Feature.BYTES, Feature.INTERIM)
async def framed_after_others(world: World) -> None:
    """An answer after others of the 1xx kind, which are not it."""
    await framed(world, after_others(100, 103))


@script(Law.CONNECTIONS, Feature.BYTES, Feature.SURPLUS)
async def more_than_asked(world: World) -> None:
    """Bytes that nobody asked for are no part of the answer, nor of the next one."""
    for more in (b"x", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"):
        async with world.client(engine_of(), engine_edit=with_more(more), worker_edit=with_more(more)) as client:
            for number in range(2):
                answer = await client.call("demo", "/echo", {"n": number}, safe_to_repeat=True)
                equal(answer.data, {"echo": {"n": number}}, "the answer")


HOSTILE: dict[str, str] = {
    "a head of 100,000 bytes": f"HTTP/1.1 200 OK\nx-long: {'x' * 100_000}\ncontent-length: {{}}",
    "a thousand headers": "HTTP/1.1 200 OK\n" + "x-many: 1\n" * 1000 + "content-length: {}",
    "two lengths": "HTTP/1.1 200 OK\ncontent-length: 5\ncontent-length: {}",
    "a length that is no number": "HTTP/1.1 200 OK\ncontent-length: -1",
    "a status line that is none": "HTTP/1.1 OK 200\ncontent-length: {}",
    "a version that is none": "HTTP/x.1 200 OK\ncontent-length: {}",
    "a header without a name": "HTTP/1.1 200 OK\n: nothing\ncontent-length: {}",
    "a chunk whose size is no number": "HTTP/1.1 200 OK\ntransfer-encoding: chunked\n\nxyz",
    "a coding that nobody asked for": "HTTP/1.1 200 OK\ntransfer-encoding: gzip",
}
"""Heads that no client should take, by what is wrong with them."""


@script(Law.BOUNDED, Feature.BYTES, Feature.HEAD_LIMITS)
async def hostile_heads(world: World) -> None:
    """A head that is too long, has too many lines, contradicts itself or is none ends the exchange as an error."""
    policy = RetryPolicy(max_retries=0, first_ask_repeats=0)
    for what, head in HOSTILE.items():
        for cut in (None, 1000, 7) if len(head) > 1000 else _CUTS:
            async with world.client(engine_of(), engine_edit=on_the_wire(head), cut=cut) as client:
                error = await failure(client.route("demo", policy=policy))
                check(isinstance(error, CallFailed), f"it takes {what}")
                check(len(str(error)) < 1000, f"the error repeats {what}")


@script(Law.BOUNDED, Feature.BYTES, Feature.HEAD_LIMITS, Feature.KINDS)
async def endless_others(world: World) -> None:
    """Answers of the 1xx kind without end are ended by a limit."""
    async with world.client(engine_of(), engine_edit=after_others(*[103] * 20)) as client:
        await failure(client.route("demo", policy=RetryPolicy(max_retries=0)), kind=FailureKind.TOO_LARGE)


@script(Law.BOUNDED)
async def body_limit(world: World) -> None:
    """A body that is larger than its limit ends the exchange: the engine's and a worker's."""
    limits = Limits(max_body=700)
    async with world.client(engine_of(faults={("demo", 0): Padded(800)}), limits=limits) as client:
        await failure(client.route("demo", policy=RetryPolicy(max_retries=0)))
    engine = engine_of(workers=[WorkerPlan(faults={("/echo", 0): Padded(5000)})])
    async with world.client(engine, work_policy=WorkPolicy(max_body=700)) as client:
        await failure(client.call("demo", "/echo", {}), limit="max_body")
    equal(engine.grants, 1, "grants that were used")


@script(Law.BOUNDED, Feature.PIECES)
async def trickle(world: World) -> None:
    """An answer that trickles is read to its end, as long as no limit is over: a little is no silence."""
    seconds = 2.0 if world.virtual else 0.5
    async with world.client(engine_of(), worker_edit=trickling(seconds)) as client:
        policy = WorkPolicy(silence=20)
        answer = await client.call("demo", "/echo", {"x": 1}, work_policy=policy)
    equal(answer.data, {"echo": {"x": 1}}, "the answer")


SCRIPTS = scripts_in(globals())
