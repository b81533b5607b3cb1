"""``vastroute call``: have a worker do the work, and print what it answers."""

from __future__ import annotations

import json as json_module
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import attrs
from cyclopts import Parameter

from vastroute import Answer, CallFailed, InvalidValue, JsonLine, Reason, ServerSentEvent, StreamEvent
from vastroute_io.options import CallOptions, RouteOptions, WorkOptions

from .deliver import Delivery
from .exits import Exit
from .failures import attempt, verdict_fields
from .options import Allowing, Asking, Json, Name, read_file
from .output import duration, plural, say, write_json
from .progress import Progress

if TYPE_CHECKING:
    from vastroute_io.trio import Client, Stream

Route: TypeAlias = Annotated[str, Parameter(help="The worker's route, such as /v1/completions.")]
Payload: TypeAlias = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True, help="What is posted there: a JSON object, or @FILE that holds one, or - for stdin."
    ),
]
Streamed: TypeAlias = Annotated[
    bool,
    Parameter(name="--stream", negative="", show_default=False, help="Print the answer as it comes, token by token."),
]
Safe: TypeAlias = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="The work may run twice. Without it, work that perhaps started is never sent again.",
    ),
]
Lifetime: TypeAlias = Annotated[
    float | None, Parameter(help="Do it in a worker session of so many seconds, ended with the call.")
]
Output: TypeAlias = Annotated[Path | None, Parameter(help="Write the answer to this file, whatever it is.")]
HeaderTexts: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        name="--header",
        negative="",
        show_default=False,
        help="A header 'Name: value' for the worker; may be repeated.",
    ),
]


def call(
    endpoint: Name,
    route: Route,
    /,
    *,
    payload: Payload,
    stream: Streamed = False,
    safe_to_repeat: Safe = False,
    session_lifetime: Lifetime = None,
    output: Output = None,
    header: HeaderTexts = (),
    asking: Asking = Asking(),
    allowing: Allowing = Allowing(),
    json: Json = False,
) -> Exit:
    """Have a worker of the endpoint do the work, waiting while none is ready, and print its answer.

    With --stream, tokens in OpenAI's shape are printed as they come, other events as their data. Media goes to a pipe
    or to --output; on a terminal it is kept in a new file, for it is paid for.
    """
    import trio

    import vastroute_io.trio

    posted = read_payload(payload)
    work = WorkOptions(headers=read_headers(header), safe_to_repeat=safe_to_repeat)
    with Progress() as progress, Delivery(output) as delivery:
        options = asking.client_for(progress, **allowing.client(asking.guard))

        async def run() -> Exit:
            began = trio.current_time()
            async with (
                vastroute_io.trio.Client(**options) as client,
                _place(client, endpoint, asking, session_lifetime) as place,
            ):
                if asking.timeout is not None:
                    work["timeout"] = began + asking.timeout - trio.current_time()
                try:
                    if stream:
                        events = place.stream(route, posted, work)
                        answer, number = await _streamed(events, delivery, progress, json=json)
                    else:
                        answer, number = await _whole(place.call(route, posted, work), delivery, json=json), None
                finally:
                    delivery.close()
            _show(answer, number, trio.current_time() - began, delivery, json=json)
            return Exit.DONE

        return attempt(run, json=json)


@attrs.frozen
class _Place:
    """Who does the work: any worker of the endpoint, or the one of a session."""

    call: Callable[[str, bytes, WorkOptions], Awaitable[Answer]]
    stream: Callable[[str, bytes, WorkOptions], Stream]


@asynccontextmanager
async def _place(client: Client, endpoint: str, asking: Asking, lifetime: float | None) -> AsyncIterator[_Place]:
    asked = asking.route()
    if lifetime is None:
        yield _Place(
            lambda route, payload, work: client.call(endpoint, route, payload, **_both(asked, work)),
            lambda route, payload, work: client.stream(endpoint, route, payload, **_both(asked, work)),
        )
        return
    async with client.session(endpoint, lifetime=lifetime, **asked) as session:
        yield _Place(
            lambda route, payload, work: session.call(route, payload, **work),
            lambda route, payload, work: session.stream(route, payload, **work),
        )


def _both(asked: RouteOptions, work: WorkOptions) -> CallOptions:
    return CallOptions(**{**asked, **work})


async def _whole(answering: Awaitable[Answer], delivery: Delivery, *, json: bool) -> Answer:
    try:
        answer = await answering
    except CallFailed as error:
        if error.body and error.status is not None and 200 <= error.status < 300:
            # It cannot be read, but it is paid for.
            if json and not delivery.to_file:
                write_json({"kind": "body", "data_base64": _base64(error.body)})
            else:
                delivery.media(error.body, "")
        raise
    if delivery.to_file or not json:
        delivery.whole(answer)
    return answer


async def _streamed(stream: Stream, delivery: Delivery, progress: Progress, *, json: bool) -> tuple[Answer, int | None]:
    number = 0
    async with stream as events:
        progress.stop()  # the first event may be here before the observer is told of anything
        kind = (events.headers.get("content-type") or "").partition(";")[0].strip().lower()
        async for event in events:
            number += 1
            if json:
                write_json(_event_fields(event))
            if delivery.to_file or not json:
                delivery.piece(event, kind)
        return events.result(), number


def _event_fields(event: StreamEvent) -> dict[str, Any]:
    if isinstance(event, bytes):
        return {"kind": "event", "data_base64": _base64(event)}
    text = event.text if isinstance(event, JsonLine) else event.data
    try:
        data = json_module.loads(text)
    except (ValueError, RecursionError):
        data = text
    named = {"event": event.event} if isinstance(event, ServerSentEvent) else {}
    return {"kind": "event", **named, "data": data}


def _show(answer: Answer, events: int | None, seconds: float, delivery: Delivery, *, json: bool) -> None:
    """What there is to say about the answer beside itself."""
    if json:
        fields: dict[str, Any] = {"kind": "answer", "status": answer.status, "content_type": answer.content_type}
        if delivery.to_file:
            fields["output"] = str(delivery.output)
        elif events is None and isinstance(answer.data, bytes):
            fields["data_base64"] = _base64(answer.data)
        elif events is None:
            fields["data"] = answer.data
        fields |= {} if events is None else {"events": events}
        fields |= {"worker": answer.grant.url, "reqnum": answer.grant.reqnum, "request_idx": answer.request_idx}
        fields |= {"differences": list(answer.differences), "verdict": verdict_fields(answer.verdict)}
        write_json(fields | {"counts": attrs.asdict(answer.counts), "seconds": round(seconds, 3)})
        return
    if answer.verdict.reason in {Reason.NO_MATCH, Reason.MALFORMED}:
        say(f"note: the grant's signature is not verified: {answer.verdict.detail}", "yellow")
    if sys.stderr.isatty():
        about = [f"worker {answer.grant.url}", f"reqnum {answer.grant.reqnum}", f"request_idx {answer.request_idx}"]
        about += [] if events is None else [plural(events, "event")]
        say(", ".join([*about, duration(seconds)]), "dim")


def _base64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def read_payload(text: str) -> bytes:
    """The payload itself, or what the file or stdin holds that `text` names."""
    if text == "-":
        return sys.stdin.buffer.read()
    if text.startswith("@"):
        return read_file(Path(text[1:]), "--payload")
    return text.encode("utf-8", "surrogateescape")


def read_headers(texts: tuple[str, ...]) -> dict[str, str]:
    """Headers by name. Raises `InvalidValue`, which never repeats a value, since it may be a secret."""
    headers: dict[str, str] = {}
    for text in texts:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise InvalidValue("--header wants the form 'Name: value'")
        if name.strip().lower() in headers:
            raise InvalidValue(f"--header names {name.strip()} twice")
        headers[name.strip().lower()] = value.strip()
    return headers
