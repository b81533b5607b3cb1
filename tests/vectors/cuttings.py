"""What depends on bytes and on nothing else: streams, HTTP messages, tunnels. Each is read whole and in many pieces."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, pairwise
from typing import Any

from vastroute import (
    Broken,
    CallFailed,
    ConnectTunnel,
    End,
    Event,
    Headers,
    Http1Connection,
    HttpRequest,
    Limits,
    Origin,
    ResponseHead,
    StreamLimits,
    TunnelFailed,
    stream_decoder,
)
from vastroute.urls import split_url

from . import plain
from .files import Plain, Row, bare, data_of, put, recorded


def pieces_of(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` cut at these places, each counted from its beginning."""
    return [data[start:end] for start, end in pairwise((0, *places, len(data)))]


def same_however_cut(read: Callable[[Sequence[bytes]], Plain], data: bytes, cuttings: Iterable[Iterable[int]]) -> Plain:
    """What `read` says of `data`: whole, cut at the given places, byte by byte, and with nothing before and behind."""
    whole = bare(read([data]))
    for places in chain(cuttings, [range(1, len(data)), (0, len(data))]):
        assert bare(read(pieces_of(data, places))) == whole, f"cut at {list(places)} it says something else"
    return dict(whole)


def stream(row: Row) -> Plain:
    """The events of a streamed body."""
    limits = StreamLimits(**row.get("limits", {}))

    def read(pieces: Sequence[bytes]) -> Plain:
        decoder = stream_decoder(row["content_type"], limits)
        events: list[Any] = []
        failed: Plain = {}
        try:
            for piece in pieces:
                events += decoder.feed(piece)
            events += decoder.end()
        except CallFailed as failure:
            failed = plain.error(failure)
        if events and isinstance(events[0], bytes):
            events = [b"".join(events)]
        ends = failed or {"finished": decoder.finished, "incomplete": decoder.incomplete}
        rest = put("rest", decoder.rest) if decoder.incomplete else {}
        return {"events": [plain.event(each) for each in events], **ends, **rest}

    return same_however_cut(read, data_of(row, "body"), row.get("cuttings", ()))


def http1(row: Row) -> Plain:
    """Requests as bytes, and answers from bytes."""
    if "connect" in row:
        return _tunnel(row)
    limits = Limits(**row.get("limits", {}))
    values = dict(row.get("request", {"method": "GET", "url": "http://engine.example/"}))
    origin, target = split_url(values["url"])
    made = HttpRequest(
        method=values["method"],
        origin=origin,
        target=target or "/",
        headers=Headers(values.get("headers", ())),
        body=data_of(values, "body"),
    )
    if "wire" not in row and "wire_base64" not in row and "recorded" not in row:
        return put("wire", Http1Connection(limits).send(made))
    wire = b64decode(recorded(**row["recorded"])["response_b64"]) if "recorded" in row else data_of(row, "wire")

    def read(pieces: Sequence[bytes]) -> Plain:
        connection = Http1Connection(limits)
        connection.send(made)
        events: list[Event] = []
        for piece in [*filter(None, pieces), *([b""] if row.get("closed") else [])]:
            events += connection.receive(piece)
            if events and isinstance(events[-1], End | Broken):
                break
        return {"events": _joined(events), "reusable": connection.reusable}

    if row.get("only_whole"):
        return read([wire])
    return same_however_cut(read, wire, row.get("cuttings", ()))


def _joined(events: Iterable[Event]) -> list[Plain]:
    """Events as plain values, the pieces of a body in one: where it was cut says nothing."""
    said: list[Plain] = []
    body = b""
    for each in events:
        if isinstance(each, bytes):
            body += each
            continue
        if body:
            said.append(put("body", body))
            body = b""
        if isinstance(each, ResponseHead):
            said.append({"head": {"status": each.status, "headers": plain.headers(each.headers)}})
        else:
            said.append({"end": True} if isinstance(each, End) else {"broken": plain.name_of(each.kind)})
    return [*said, put("body", body)] if body else said


def _tunnel(row: Row) -> Plain:
    tunnel = ConnectTunnel(Origin.parse(row["connect"]), authorization=row.get("authorization"))
    sent = tunnel.send()
    try:
        return {**put("wire_sent", sent), "open": tunnel.receive(data_of(row, "wire"))}
    except TunnelFailed as failure:
        return {**put("wire_sent", sent), **plain.error(failure)}
