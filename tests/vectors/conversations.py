"""Whole calls: a machine is driven by a row's steps, and every action that it asks for is written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import cycle
from typing import Any

from vastroute import (
    Answer,
    Call,
    Done,
    FailureKind,
    GiveUp,
    Grant,
    Guard,
    HttpResponse,
    Receive,
    ResponseHead,
    RetryPolicy,
    RouteCall,
    RouteRequest,
    Send,
    SessionHandle,
    SignatureMode,
    Verifier,
    WaitUntil,
    WorkerRequest,
    WorkPolicy,
    decode_route,
)

from . import plain
from .files import Plain, Row, data_of, load, response_of


def conversation(row: Row) -> Plain:
    """What the machine of this row asks for at every step, and what comes of it."""
    machine = _machine(row)
    actions: list[Plain] = []
    for step in row["steps"]:
        now = step["now"]
        actions.append(_next(machine, now))
        for name, value in step.get("give", {}).items():
            _give(machine, name, value, now)
    said: Plain = {"actions": actions, "counts": plain.counts(machine.counts), "record": plain.record(machine.record)}
    return said


def _machine(row: Row) -> RouteCall | Call:
    source = _session(row["session"]) if "session" in row else _route(row)
    if "work" not in row:
        assert isinstance(source, RouteCall)
        return source
    work = WorkerRequest(**row["work"])
    policy, guard = WorkPolicy(**row.get("work_policy", {})), Guard(**row.get("guard", {}))
    deadline = row["deadline"] if isinstance(source, SessionHandle) else None
    return Call(source, work, deadline=deadline, policy=policy, guard=guard)


def _route(row: Row) -> RouteCall:
    draws: Callable[[], float] = cycle(row.get("draws", [0.5])).__next__
    policy = RetryPolicy(**row.get("policy", {}))
    request = dict(row["request"])
    if "cost_json" in request:
        request["cost"] = json.loads(request.pop("cost_json"))
    verifier = Verifier(load("signing.json")["pubkey"], mode=SignatureMode(row["check"])) if "check" in row else None
    return RouteCall(
        RouteRequest(**request), key=row["key"], rng=draws, deadline=row["deadline"], policy=policy, verifier=verifier
    )


def _session(values: Mapping[str, Any]) -> SessionHandle:
    grant = decode_route(HttpResponse(status=200, body=values["grant"].encode()))
    assert isinstance(grant, Grant)
    return SessionHandle(**(dict(values) | {"grant": grant}))


def _next(machine: RouteCall | Call, now: float) -> Plain:
    """Take what a stream has for the caller, then the next action."""
    events = []
    if isinstance(machine, Call):
        while (event := machine.next_event(now=now)) is not None:
            events.append(plain.event(event))
    action = machine.next_action(now=now)
    again = machine.next_action(now=now)
    assert action == again, "asked twice at the same instant, it says something else"
    return {"events": events, **_action(action)}


def _action(action: Send | Receive | WaitUntil | Done[Any] | GiveUp) -> Plain:
    match action:
        case Send():
            request = action.request
            return {
                "send": {
                    "phase": plain.name_of(action.phase),
                    "attempt": action.attempt,
                    "connect_by": action.connect_by,
                    "deadline": action.deadline,
                    "fresh": action.fresh or None,
                    "method": request.method,
                    "url": request.url,
                    "authorization": request.headers.get("authorization"),
                    "body": request.body.decode(),
                }
            }
        case Receive():
            return {"receive": {"phase": plain.name_of(action.phase), "deadline": action.deadline}}
        case WaitUntil():
            return {"wait": {"until": action.at, "why": plain.name_of(action.why)}}
        case Done():
            return {"done": _result(action.result)}
        case GiveUp():
            return {"give_up": plain.error(action.error)["error"]}


def _result(result: Any) -> Plain:
    said: Plain = {
        "request_idx": result.request_idx,
        "differences": list(result.differences),
        "verdict": plain.name_of(result.verdict.reason),
    }
    if isinstance(result, Answer):
        said |= {
            "status": result.status,
            "request_idx_added": result.request_idx_added or None,
            **plain.answered(result.data, result.body, result.content_type),
        }
    else:
        said |= {"url": result.grant.url, "request_idx_age": result.request_idx_age}
    return said


def _give(machine: RouteCall | Call, name: str, value: Any, now: float) -> None:
    match name:
        case "answer":
            machine.receive(response_of(value), now=now)
        case "head":
            machine.head(ResponseHead(status=value["status"], headers=value.get("headers", ())), now=now)
        case "chunk" | "chunk_base64":
            machine.chunk(data_of({name: value}, "chunk"), now=now)
        case "end":
            machine.end(now=now)
        case "failed":
            kind = FailureKind[value["kind"].upper()]
            machine.failed(kind, sent=value.get("sent"), now=now, reused=value.get("reused", False))
        case "worker_failed":
            assert isinstance(machine, RouteCall)
            machine.worker_failed(value, now=now)
        case "cancelled":
            machine.cancelled(now=now, sent=value["sent"])
        case _:
            raise AssertionError(f"nobody knows how to give {name}")
