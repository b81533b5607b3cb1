"""One reader for each file of vectors: what the library makes of a row's inputs, as plain values.

``tests/core/test_vectors.py`` holds every row's ``expect`` against what these say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from vastroute import (
    FORMS,
    Call,
    Done,
    FailureKind,
    GiveUp,
    Grant,
    Guard,
    GuardRefusal,
    HttpResponse,
    InvalidValue,
    Limits,
    Origin,
    RouteCall,
    RouteRequest,
    Secret,
    SessionEnded,
    SessionHandle,
    SessionInfo,
    SessionLife,
    VastrouteError,
    WorkerRequest,
    decode_endpoints,
    decode_public_key,
    decode_route,
    decode_session_create,
    decode_session_end,
    decode_session_get,
    decode_session_health,
    decode_workers,
    encode_endpoints,
    encode_public_key,
    encode_route,
    encode_session_create,
    encode_session_end,
    encode_session_get,
    encode_session_health,
    encode_worker,
    encode_worker_root,
    encode_workers,
    outcome_of_failure,
    outcome_of_status,
    signed_text,
    verify,
)
from vastroute.urls import join_target, split_url

from . import plain
from .conversations import conversation
from .cuttings import http1, stream
from .files import Plain, Row, bare, load, put, response_of

NOW = 1000.0


def grant_of(text: str) -> Grant:
    """The grant whose JSON text this is."""
    grant = decode_route(HttpResponse(status=200, body=text.encode()))
    assert isinstance(grant, Grant)
    return grant


def work_of(values: Mapping[str, Any]) -> WorkerRequest:
    """The work; its payload is a value, or the JSON text that is sent as it is."""
    rest = {name: value for name, value in values.items() if name != "payload_json"}
    if "payload_json" in values:
        rest["payload"] = str(values["payload_json"]).encode()
    return WorkerRequest(**rest)


def handle_of(values: Mapping[str, Any]) -> SessionHandle:
    """A session; its grant is JSON text."""
    return SessionHandle(**({"expiration": NOW} | dict(values) | {"grant": grant_of(values["grant"])}))


# --- requests ----------------------------------------------------------------------------------------------------


def route_request(row: Row) -> Plain:
    """What is asked of the engine."""
    asked, key = dict(row["request"]), row["key"]
    if "cost_json" in asked:
        asked["cost"] = json.loads(asked.pop("cost_json"))
    options = {name: row[name] for name in ("request_idx", "key_in_body") if name in row}
    if "engine" in row:
        options["engine"] = Origin.parse(row["engine"])
    return plain.request(encode_route(RouteRequest(**asked), key=key, **options))


def worker_request(row: Row) -> Plain:
    """What is sent to a worker."""
    wanted = row.get("wanted", "work")
    if wanted == "work":
        options = {name: row[name] for name in ("request_idx", "session_id") if name in row}
        return plain.request(encode_worker(grant_of(row["grant"]), work_of(row["work"]), **options))
    if wanted == "session_create":
        options = {name: row[name] for name in ("request_idx",) if name in row}
        return plain.request(encode_session_create(grant_of(row["grant"]), **row["session"], **options))
    ask = {
        "session_get": encode_session_get,
        "session_health": encode_session_health,
        "session_end": encode_session_end,
    }
    return plain.request(ask[wanted](handle_of(row["session"])))


# --- answers -----------------------------------------------------------------------------------------------------


def route_answer(row: Row) -> Plain:
    """What an engine's answer means."""
    limits = Limits(**row.get("limits", {}))
    return plain.route_answer(decode_route(response_of(row["answer"]), limits=limits, key=row.get("key")))


def worker_answer(row: Row) -> Plain:
    """What a worker's answer means: to work, or to a word about a session."""
    wanted = row.get("wanted", "work")
    response = response_of(row["answer"])
    limits = Limits(**row.get("limits", {}))
    if wanted == "work":
        return _answer_to_work(row, response, limits)
    if wanted == "session_create":
        grant = grant_of(row["grant"])
        return plain.session(decode_session_create(response, grant=grant, utc=row["utc"], limits=limits))
    handle = handle_of(row["session"])
    if wanted == "session_get":
        return plain.session_info(decode_session_get(response, handle, utc=row["utc"], limits=limits))
    if wanted == "session_health":
        return {"alive": decode_session_health(response, handle, limits=limits)}
    assert wanted == "session_end"
    return plain.session_ended(decode_session_end(response, handle, limits=limits))


def _answer_to_work(row: Row, response: HttpResponse, limits: Limits) -> Plain:
    work = WorkerRequest(route="/", payload={}, safe_to_repeat=row.get("safe_to_repeat", False))
    guard = Guard(allow_private_address=True)
    if row.get("in_session"):
        call = Call(
            handle_of({"session_id": "s", "grant": row["grant"]}),
            work,
            deadline=NOW + 900.0,
            limits=limits,
            guard=guard,
        )
    else:
        asked = RouteRequest(endpoint="demo")
        route = RouteCall(asked, key="key", rng=lambda: 0.5, deadline=NOW + 900.0)
        # The vectors' workers live in a network reserved for documentation, which the guard refuses.
        call = Call(route, work, limits=limits, guard=guard)
        call.next_action(now=NOW)
        call.receive(HttpResponse(status=200, body=row["grant"].encode()), now=NOW)
    call.next_action(now=NOW)
    call.receive(response, now=NOW)
    action = call.next_action(now=NOW)
    if isinstance(action, Done):
        answer = action.result
        return {"answer": plain.answered(answer.data, answer.body, answer.content_type)}
    return plain.error(action.error, row.get("must_not_show", ())) if isinstance(action, GiveUp) else {"reroute": True}


def outcome(row: Row) -> Plain:
    """A row of the table of outcomes."""
    if "status" in row:
        found = outcome_of_status(row["status"])
    else:
        found = outcome_of_failure(FailureKind[row["failure"].upper()], sent=row["sent"])
    said = {name: plain.name_of(getattr(found, name)) for name in ("outcome", "then", "advice")}
    return {**said, "may_have_run": found.may_have_run or None}


def signature(row: Row) -> Plain:
    """Whether a grant is signed, in which form, and over which text."""
    fields = json.loads(row["grant_json"])
    verdict = verify(fields, load("signing.json")["pubkey"])
    if not verdict.verified:
        return {"refused": plain.name_of(verdict.reason)}
    (form,) = (form for form in FORMS if form.name == verdict.form)
    return {"form": form.name, "covers": list(form.covers), **put("signed", signed_text(form, fields) or b"")}


# --- look-ups ----------------------------------------------------------------------------------------------------


def lookup(row: Row) -> Plain:
    """What is asked besides, and what the answers mean: the public key, an account's endpoints, their workers."""
    wanted = row["wanted"]
    if "answer" not in row:
        if wanted == "public_key":
            return plain.request(encode_public_key())
        if wanted == "worker_root":
            return plain.request(encode_worker_root())
        if wanted == "endpoints":
            return plain.request(encode_endpoints(key=row["key"]))
        return plain.request(encode_workers(row["endpoint_id"], key=row["key"]))
    response = response_of(row["answer"])
    if wanted == "public_key":
        key = decode_public_key(response)
        return {"bits": key.bits, "fingerprint": key.fingerprint}
    secret = Secret(row["key"]) if "key" in row else None
    if wanted == "endpoints":
        found = decode_endpoints(response, key=secret)
        return {
            "endpoints": [
                {"id": each.id, "name": each.name, "key": each.key and each.key.reveal(), "state": each.state}
                for each in found
            ]
        }
    return {"workers": [{"id": each.id, "status": each.status} for each in decode_workers(response, key=secret)]}


# --- addresses ---------------------------------------------------------------------------------------------------


def url(row: Row) -> Plain:
    """An address taken apart, or a path put together."""
    if "route" in row:
        return {"target": join_target(row["path"], row["route"])}
    origin, path = split_url(row["url"])
    return {"scheme": origin.scheme, "host": origin.host, "port": origin.port, "path": path, "origin": str(origin)}


def guarded(row: Row) -> Plain:
    """Whether a grant may lead somewhere."""
    guard = Guard(**dict.fromkeys(row.get("allow", ()), True))
    refusal: GuardRefusal | None
    if "address" in row:
        refusal = guard.check_address(row["address"])
    else:
        refusal = guard.check_origin(split_url(row["url"])[0], proxied=row.get("proxied", False))
    if refusal is None:
        return {"allowed": True}
    return {"refused": {"reason": plain.name_of(refusal.reason), "switch": refusal.switch}}


# --- sessions ----------------------------------------------------------------------------------------------------


def session_life(row: Row) -> Plain:
    """The account of a session, after each report."""
    life = SessionLife(handle_of(row["session"]), now=row["now"], utc=row["utc"])
    accounts: list[Plain] = []
    for report in row["reports"]:
        now = report["now"]
        match report["what"]:
            case "sent":
                life.request_sent()
            case "answered":
                life.request_answered(report["number"], report["status"], now=now)
            case "failed":
                life.request_failed(report["number"], sent=report["sent"])
            case "told":
                life.told(SessionInfo(**report["info"]), now=now, utc=report["utc"])
            case "ended":
                life.ended(SessionEnded(session_id="s", was_open=report["was_open"]), now=now)
            case "gone":
                life.gone(now=now)
            case other:
                raise AssertionError(f"nobody knows how to report {other}")
        accounts.append(
            {
                "state": plain.name_of(life.state),
                "out": sorted(life.out),
                "sent": life.handle.sent,
                "doubtful": life.handle.doubtful,
                "kept_until": life.kept_until,
                "ends_by": life.ends_by(),
                "stacked": life.stacked(now=now),
            }
        )
    return {"accounts": accounts}


READERS: Mapping[str, Callable[[Row], Plain]] = {
    "conversations.json": conversation,
    "guard.json": guarded,
    "http1.json": http1,
    "lookups.json": lookup,
    "outcomes.json": outcome,
    "route-answers.json": route_answer,
    "route-requests.json": route_request,
    "sessions.json": session_life,
    "signing.json": signature,
    "streams.json": stream,
    "urls.json": url,
    "worker-answers.json": worker_answer,
    "worker-requests.json": worker_request,
}


def read(name: str, row: Row) -> Plain:
    """What the library says of a row of the file `name`; an error that is raised is what it says."""
    hidden = row.get("must_not_show", ())
    try:
        said = READERS[name](row)
    except InvalidValue:
        return {"error": {"name": "invalid_value"}}
    except VastrouteError as failure:
        said = plain.error(failure, hidden)
    shown = json.dumps(said)
    assert not [secret for secret in hidden if secret in shown], "it shows what it must not"
    return dict(bare(said))
