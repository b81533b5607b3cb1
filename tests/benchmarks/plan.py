"""What is measured, by whom and how often."""

from __future__ import annotations

from enum import Enum
from math import inf
from typing import Any, NamedTuple

OURS_TRIO, OURS_ASYNCIO, OURS_BLOCKING = "vastroute, trio", "vastroute, asyncio", "vastroute, blocking"
OFFICIAL = "official vastai"
FLOOR_TRIO, FLOOR_ASYNCIO, FLOOR_BLOCKING = "floor: trio", "floor: asyncio", "floor: blocking"
RUST, RUST_BLOCKING = "pyreqwest, async", "pyreqwest, blocking"
SLOW = ("httpx", "niquests", "requests")
"""Clients that take several times as long as the others, and so make fewer calls."""


class Often(Enum):
    """In which rounds a row is measured."""

    ALWAYS = "in every round"
    SOME = "in the first three rounds"
    ONCE = "in the first round"


class Row(NamedTuple):
    """One measurement for several clients."""

    name: str
    mode: str
    verb: str
    in_flight: int
    calls: int
    often: Often
    clients: tuple[str, ...]


def _rate(name: str, verb: str, in_flight: int, calls: int, often: Often, *clients: str) -> Row:
    return Row(name, "rate", verb, in_flight, calls, often, clients)


ROWS = (
    _rate("route", "route", 1, 1500, Often.ALWAYS, OFFICIAL, OURS_TRIO, OURS_BLOCKING, OURS_ASYNCIO, RUST),
    _rate("route", "route", 1, 1500, Often.ALWAYS, RUST_BLOCKING, "http.client", "requests.Session", FLOOR_TRIO),
    _rate("route", "route", 1, 1500, Often.SOME, "aiohttp", "httpx, asyncio", "httpx, trio", "httpx, blocking"),
    _rate("route", "route", 1, 1500, Often.SOME, "niquests, asyncio", "niquests, blocking", "urllib3"),
    _rate("route", "route", 1, 1500, Often.SOME, "bare h11, trio", FLOOR_ASYNCIO, FLOOR_BLOCKING),
    _rate("route", "route", 100, 4000, Often.ALWAYS, OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, "aiohttp", FLOOR_TRIO),
    _rate("route", "route", 100, 4000, Often.SOME, "bare h11, trio", FLOOR_ASYNCIO, "niquests, asyncio"),
    _rate("route", "route", 100, 900, Often.SOME, "httpx, asyncio", "httpx, trio"),
    _rate("route", "route", 500, 4000, Often.SOME, OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, "aiohttp", FLOOR_TRIO),
    _rate("route", "route", 5000, 15000, Often.SOME, OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, FLOOR_TRIO),
    _rate("call", "call", 100, 2000, Often.ALWAYS, OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, "aiohttp", FLOOR_TRIO),
    _rate("call", "call", 100, 2000, Often.SOME, "bare h11, trio", FLOOR_ASYNCIO),
    _rate("call", "call", 100, 1000, Often.ONCE, "httpx, trio"),
    _rate("call, a new connection for the work", "call-fresh", 100, 2000, Often.SOME, OURS_TRIO, OURS_ASYNCIO),
    Row("memory", "memory", "route", 100, 0, Often.ONCE, (OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, FLOOR_TRIO)),
    Row("memory", "memory", "route", 500, 0, Often.SOME, (OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, "aiohttp")),
    Row("memory", "memory", "route", 500, 0, Often.SOME, (FLOOR_TRIO, FLOOR_ASYNCIO)),
    Row("memory", "memory", "call", 500, 0, Often.ONCE, (OFFICIAL, OURS_TRIO, OURS_ASYNCIO)),
    Row("memory", "memory", "route", 500, 0, Often.ONCE, ("niquests, asyncio", "bare h11, trio")),
    Row("memory", "memory", "route", 3000, 0, Often.ONCE, (OFFICIAL, OURS_TRIO, OURS_ASYNCIO, RUST, FLOOR_TRIO)),
    Row("memory", "memory", "route", 10000, 0, Often.ONCE, (OURS_TRIO, OURS_ASYNCIO, FLOOR_TRIO)),
    Row("batch", "batch", "route", 100, 100_000, Often.ONCE, (OURS_TRIO,)),
    Row("stream", "stream", "stream", 1, 5, Often.SOME, (OFFICIAL, OURS_TRIO, OURS_ASYNCIO, "httpx, asyncio")),
    Row("stream, parsed", "stream", "stream-parsed", 1, 5, Often.SOME, (OFFICIAL, OURS_TRIO, "httpx, asyncio")),
    Row("import", "import", "", 0, 0, Often.SOME, ("vastai", "vastroute", "vastroute_io.trio")),
    Row("import", "import", "", 0, 0, Often.SOME, ("vastroute_io.blocking", "aiohttp", "httpx", "pyreqwest.client")),
)
QUICK = (
    _rate("route", "route", 1, 1000, Often.ALWAYS, OFFICIAL, OURS_TRIO, RUST, FLOOR_TRIO),
    _rate("route", "route", 100, 3000, Often.ALWAYS, OFFICIAL, OURS_TRIO, RUST, FLOOR_TRIO),
    _rate("call", "call", 100, 1500, Often.ALWAYS, OFFICIAL, OURS_TRIO, RUST, FLOOR_TRIO),
    _rate("route", "route", 1, 1000, Often.ALWAYS, OURS_BLOCKING, "http.client"),
    Row("memory", "memory", "route", 500, 0, Often.ONCE, (OURS_TRIO, FLOOR_TRIO, OFFICIAL)),
    Row("import", "import", "", 0, 0, Often.ALWAYS, ("vastai", "vastroute")),
)
"""The few that tell most."""


def specs(rows: tuple[Row, ...], number: int) -> list[dict[str, Any]]:
    """What is measured in round `number`, counted from 0."""
    rounds = {Often.ALWAYS: inf, Often.SOME: 3, Often.ONCE: 1}
    return [
        {
            "name": row.name,
            "mode": row.mode,
            "verb": row.verb,
            "in_flight": row.in_flight,
            "calls": row.calls // (3 if client.startswith(SLOW) else 1),
            "client": client,
        }
        for row in rows
        if number < rounds[row.often]
        for client in row.clients
    ]
