"""``vastroute endpoints`` and ``vastroute workers``: what the console and the engine know, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from .exits import Exit
from .failures import attempt
from .options import Account, Json, Name
from .output import say, write_json, write_table

_NUMBERS = ("cur_load", "perf", "reqs_working", "reliability")
"""The fields of a worker that the table shows; --json shows all there are."""


def endpoints(*, account: Account = Account(), json: Json = False) -> Exit:
    """List the account's endpoints. This wants the account's key, not an endpoint's own.

    Keys are never shown.
    """
    import vastroute_io.trio

    options = account.with_console()

    async def work() -> Exit:
        async with vastroute_io.trio.Client(**options) as client:
            found = await client.endpoints()
        if json:
            for each in found:
                fields = {"id": each.id, "name": each.name, "state": each.state, "has_key": each.key is not None}
                write_json({"kind": "endpoint"} | fields | {"fields": dict(each.fields)})
        elif not found:
            say("this account has no endpoints")
        else:
            rows = [
                (
                    f"{each.id}",
                    each.name,
                    each.state or "",
                    "yes" if each.key else "no",
                    _time(each.fields, "created_at"),
                )
                for each in found
            ]
            write_table(("id", "endpoint", "state", "own key", "created (UTC)"), rows, right=("id",))
        return Exit.DONE

    return attempt(work, json=json)


def workers(endpoint: Name, /, *, account: Account = Account(), json: Json = False) -> Exit:
    """List the workers of an endpoint and what they are doing. This wants the account's key."""
    import vastroute_io.trio

    options = account.with_console()

    async def work() -> Exit:
        async with vastroute_io.trio.Client(**options) as client:
            found = await client.workers(endpoint)
        if json:
            for each in found:
                write_json({"kind": "worker", "id": each.id, "status": each.status, "fields": dict(each.fields)})
        elif not found:
            say("this endpoint has no workers")
        else:
            rows = [
                (
                    f"{each.id}",
                    each.status or "",
                    *(_number(each.fields.get(name)) for name in _NUMBERS),
                    _time(each.fields, "started_at"),
                    _time(each.fields, "loaded_at"),
                )
                for each in found
            ]
            heads = ("id", "status", *_NUMBERS, "started (UTC)", "loaded (UTC)")
            write_table(heads, rows, right=("id", *_NUMBERS))
        return Exit.DONE

    return attempt(work, json=json)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _time(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value if isinstance(value, str) else ""
    if not value:
        return ""  # it has not come to that yet
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, OSError, ValueError):
        return f"{value}"
