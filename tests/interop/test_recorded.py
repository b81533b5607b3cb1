"""What the official programs ask our engine, beside what they were recorded to ask another one."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import h11

from vastroute import Headers, HttpRequest, Origin
from vastroute_testing import LoopbackThread, ServerConnection, SimulatedEndpoint, SimulatedEngine, WorkerPlan, Write

from .official import open_official
from .stage import Stage

KEY = "demo-api-key-0123456789"
"""The key in the recordings, the account's and the endpoint's at once."""
VECTORS = Path(__file__).parent / "vectors" / "official-client-to-engine.jsonl"
RECORDS = [json.loads(line) for line in VECTORS.read_text().splitlines()]


def engine_of_the_recordings() -> SimulatedEngine:
    """An engine with the endpoint that was recorded, whose worker starts cold."""
    plan = WorkerPlan(loading_after=0.2, ready_after=0.6)
    return SimulatedEngine(SimulatedEndpoint("demo-endpoint", key=KEY, workers=(plan,)), account_key=KEY)


def request_of(record: dict[str, Any]) -> HttpRequest:
    """A recorded request as the message that it is."""
    wire = h11.Connection(h11.SERVER)
    wire.receive_data(b64decode(record["request_b64"]))
    head = wire.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := wire.next_event(), h11.Data):
        body += event.data
    headers = Headers([pair for pair in Headers(head.headers) if pair[0] not in ("host", "content-length")])
    return HttpRequest(
        method=head.method.decode(),
        origin=Origin.parse("http://127.0.0.1"),
        target=head.target.decode(),
        headers=headers,
        body=body,
    )


def answer_of(data: bytes) -> tuple[int, str | None, Any]:
    """The status, the content type and the fields of an answer."""
    wire = h11.Connection(h11.CLIENT)
    wire.send(h11.Request(method="GET", target="/", headers=[("host", "any")]))
    wire.send(h11.EndOfMessage())
    wire.receive_data(data)
    head = wire.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := wire.next_event(), h11.Data):
        body += event.data
    headers = Headers(head.headers)
    kind = headers.get("content-type")
    return head.status_code, kind, json.loads(body) if kind == "application/json" else body.decode()


def test_our_engine_answers_what_was_recorded() -> None:
    engine = engine_of_the_recordings()
    connections: dict[int, ServerConnection] = {}
    for record in RECORDS:
        connection = connections.setdefault(record["conn"], ServerConnection(engine))
        steps = connection.receive(b64decode(record["request_b64"]), now=record["t"])
        status, kind, fields = answer_of(b"".join(step.data for step in steps if isinstance(step, Write)))
        wanted_status, wanted_kind, wanted = answer_of(b64decode(record["response_b64"]))
        assert (status, kind) == (wanted_status, wanted_kind)
        if isinstance(wanted, str):
            assert fields.splitlines()[0] == wanted.splitlines()[0]  # PEM
        elif "results" in wanted:
            assert fields["results"][0].keys() == wanted["results"][0].keys()
        else:
            assert fields["request_idx"] == wanted["request_idx"]
            # Ours stays ready once it is, so only what was granted there has to be granted here.
            if "url" in wanted:
                assert fields.keys() == wanted.keys()
                assert [repr(fields[name]) for name in ("cost", "reqnum")] == [repr(wanted["cost"]), str(engine.grants)]
    assert engine.asks == sum("/route/" in record["request"] for record in RECORDS)


def test_the_official_client_asks_what_was_recorded() -> None:
    engine = engine_of_the_recordings()

    async def main(url: str) -> None:
        async with asyncio.timeout(20), open_official(url, key=KEY) as client:
            endpoint = await client.get_endpoint("demo-endpoint")
            assert (await endpoint.request("/echo", {}, cost=100.0))["ok"]

    with LoopbackThread(engine) as loopback:
        asyncio.run(main(loopback.url))
    for live, record in zip(engine.requests, RECORDS[1:4], strict=True):
        recorded = request_of(record)
        assert (live.method, live.target, live.body) == (recorded.method, recorded.target, recorded.body)
        assert sorted(live.headers) == sorted(recorded.headers)


def test_the_official_worker_asks_for_the_key_as_was_recorded(stage: Stage) -> None:
    recorded = request_of(RECORDS[0])
    live = next(request for request in stage.engine.requests if request.target == "/pubkey/")
    assert live.method == recorded.method
    names = [name for name, _ in live.headers]
    assert names == [name for name, _ in recorded.headers]
    assert "authorization" not in names
