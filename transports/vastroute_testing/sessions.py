"""The sessions of one simulated worker: create, get, health, end, as the official worker has them.

Its oddities are kept, because a client must live with them (wire facts, section 5): any grant opens a session, signed
or not; each request adds a whole lifetime, also one whose signature is then refused. Left out: the call to
``on_close_route``, which would be I/O, and the sweep every 5 s: here a session is gone the instant it expires.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from random import Random
from typing import Any, TypeAlias, final

import attrs

Answer: TypeAlias = tuple[int, Any]
"""A status, and what its JSON body holds; None is an empty body."""

_NO_ID: Answer = (422, {"error": "missing session_id"})
_WRONG_AUTH: Answer = (401, {"error": "session_auth is not valid"})
_LONGEST = 1e12
_CHARACTERS = string.ascii_letters + string.digits


class Trouble(Exception):
    """The official worker's handler fails here, and answers 500."""


@attrs.define(kw_only=True, eq=False)
class WorkerSession:
    """One lease on a worker."""

    session_id: str
    auth_data: Mapping[str, Any]
    lifetime: float
    """Seconds that it lives, and that each request adds."""
    expires_at: float
    """When it ends, in monotonic seconds."""
    created_at: float
    on_close_route: Any = None
    on_close_payload: Any = None


@final
class WorkerSessions:
    """Every session that is open. `epoch` is the wall clock, in seconds since 1970, at the instant 0."""

    def __init__(self, *, most: int, epoch: float, rng: Random) -> None:
        self._most = most
        self._epoch = epoch
        self._rng = rng
        self._open: dict[str, WorkerSession] = {}

    def open(self, *, now: float) -> tuple[WorkerSession, ...]:
        """The sessions that have not expired, the oldest first."""
        self._open = {key: session for key, session in self._open.items() if session.expires_at > now}
        return tuple(self._open.values())

    def prolong(self, session_id: Any, *, now: float) -> bool:
        """Add a lifetime, as each request does. False if there is no such session."""
        session = self._find(session_id, now)
        if session is not None:
            session.expires_at += session.lifetime
        return session is not None

    def answer(self, route: str, body: Any, *, now: float) -> Answer:
        """The answer to one of the calls below ``/session/``; `body` is the request's parsed body.

        Raises `Trouble` where the official worker fails.
        """
        if not isinstance(body, dict):
            raise Trouble
        return _HANDLERS[route](self, body, now)

    def _find(self, session_id: Any, now: float) -> WorkerSession | None:
        if not isinstance(session_id, str | int | float):
            raise Trouble  # it looks the value up in a dict, which wants something that can be hashed
        self.open(now=now)
        return self._open.get(session_id) if isinstance(session_id, str) else None

    def _create(self, body: dict[str, Any], now: float) -> Answer:
        auth_data, payload = body.get("auth_data"), body.get("payload")
        if not isinstance(auth_data, dict):
            raise Trouble
        is_counted = isinstance(auth_data.get("cost"), int | float)
        if len(self.open(now=now)) >= self._most:
            if not is_counted:
                raise Trouble
            return 429, None
        lifetime = payload.get("lifetime", 60.0) if isinstance(payload, dict) else None
        if isinstance(lifetime, bool) or not isinstance(lifetime, int | float) or not abs(lifetime) <= _LONGEST:
            raise Trouble
        assert isinstance(payload, dict)
        session = WorkerSession(
            session_id="".join(self._rng.choices(_CHARACTERS, k=13)),
            auth_data=auth_data,
            lifetime=lifetime,
            expires_at=now + lifetime,
            created_at=now,
            on_close_route=payload.get("on_close_route"),
            on_close_payload=payload.get("on_close_payload") if payload.get("on_close_route") is not None else None,
        )
        self._open[session.session_id] = session
        if not is_counted:
            raise Trouble  # it counts the work, with the session made and nobody told of it
        return 201, {"session_id": session.session_id, "expiration": self._epoch + session.expires_at}

    def _get(self, body: dict[str, Any], now: float) -> Answer:
        if not body.get("session_id"):
            return _NO_ID
        session = self._find(body["session_id"], now)
        if session is None:
            return 400, {"error": "session does not exist"}
        if session.auth_data != body.get("session_auth"):
            return _WRONG_AUTH
        return 200, {
            "session_id": session.session_id,
            "auth_data": session.auth_data,
            "lifetime": session.lifetime,
            "expiration": self._epoch + session.expires_at,
            "created_at": self._epoch + session.created_at,
            "on_close_route": session.on_close_route,
            "on_close_payload": session.on_close_payload,
        }

    def _health(self, body: dict[str, Any], now: float) -> Answer:
        if not body.get("session_id"):
            return _NO_ID
        session = self._find(body["session_id"], now)
        if session is None:
            return 200, {"ok": False}
        return (200, {"ok": True}) if session.auth_data == body.get("session_auth") else _WRONG_AUTH

    def _end(self, body: dict[str, Any], now: float) -> Answer:
        if not body.get("session_id"):
            return _NO_ID
        session = self._find(body["session_id"], now)
        if session is None:
            return 400, {"error": f"session with id {body['session_id']} not found"}
        if session.auth_data != body.get("session_auth"):
            return _WRONG_AUTH
        del self._open[session.session_id]
        return 200, {"ended": True, "removed_session": session.session_id}


_HANDLERS = {
    "/session/create": WorkerSessions._create,
    "/session/get": WorkerSessions._get,
    "/session/health": WorkerSessions._health,
    "/session/end": WorkerSessions._end,
}
SESSION_ROUTES = frozenset(_HANDLERS)
