"""A simulated engine: a pure machine that answers as Vast's serverless engine is known to, faults included.

Where the engine's behaviour is not known, the docstrings say what is our choice. Source of the rest: wire facts.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from random import Random
from types import MappingProxyType
from typing import Any, final
from urllib.parse import parse_qs
from uuid import UUID

import attrs

from vastroute import FORMS, HttpRequest, InvalidValue, Origin, SigningForm

from .fault_table import NO_FAULTS, Faults, FaultTable
from .fleet import Fleet, Lifetime, SimulatedEndpoint
from .keys import TEST_PRIVATE_KEY, public_half, sign
from .life import WorkerPlan, route_of
from .schedule import Schedule, answer, dated, json_answer
from .workers import EPOCH, MOST_COST, SimulatedWorker

_ENDPOINTS = "/api/v0/endptjobs/"
_FIRST_INDEX = 1001  # far from the reqnums, which begin at 1: whoever mixes them up is seen
_NO_ENDPOINT = "endpoint 0 not found or unauthorized"


@final
class SimulatedEngine:
    """An engine with its `endpoints` and their workers: give it requests, and play the schedules that it makes.

    It serves ``POST /route/``, ``GET /pubkey/``, ``POST /get_endpoint_workers/``, and ``GET /api/v0/endptjobs/``, which
    in production is another host's. What workers tell it (``POST /worker_status/`` and ``/delete_requests/``) it takes
    and keeps in `requests`. The same requests at the same times have the same answers: `seed` makes the UUIDs.

    Faults go by label and attempt. The label of an ask is the text of its ``guid``, if it has one, else the endpoint's
    name: give concurrent calls a guid each. The label of any other request is its path. Attempts count each label's
    requests from 1. `faults` are the engine's own; those of the endpoints are added to them.

    Our choices, since the production engine's are not known: a ``request_idx`` that was never given begins a new
    lifetime, under a new number; so does one of another endpoint. An ask that comes after a grant of the same lifetime
    gets another ready worker, if there is one, else the same again. A key of another endpoint is answered as an
    unknown endpoint.
    """

    def __init__(
        self,
        endpoints: SimulatedEndpoint | Iterable[SimulatedEndpoint],
        *,
        account_key: str = "test-account-key",
        private_key: str = TEST_PRIVATE_KEY,
        form: SigningForm = FORMS[0],
        latency: float = 0.0,
        faults: Faults = NO_FAULTS,
        bare_worker_list: bool = False,
        seed: int = 0,
        epoch: float = EPOCH,
        keep: int = 10_000,
    ) -> None:
        several = (endpoints,) if isinstance(endpoints, SimulatedEndpoint) else tuple(endpoints)
        if len({endpoint.name for endpoint in several}) != len(several):
            raise InvalidValue("each endpoint must have a name of its own")
        self.requests: deque[HttpRequest] = deque(maxlen=keep)
        """What came, the latest last; the last `keep` of them."""
        self.asks: int = 0
        """How many asks for a worker came, those included that a fault kept from being served."""
        self.grants: int = 0
        """How many workers were granted."""
        self.public_key: str = public_half(private_key)
        """The key that verifies its grants, as ``/pubkey/`` answers it."""
        self._account_key = account_key
        self._private_key = private_key
        self._form = form
        self._latency = latency
        self._bare_worker_list = bare_worker_list
        self._epoch = epoch
        self._keep = keep
        self._rng = Random(seed)  # noqa: S311 - it makes names, not secrets
        self._workers: list[SimulatedWorker] = []
        self._fleets = [Fleet(each, number=number, make_worker=self._make) for number, each in enumerate(several, 1)]
        merged = dict(faults)
        for endpoint in several:
            merged.update(endpoint.faults)
        self._faults = FaultTable(merged)
        self._lifetimes: dict[int, Lifetime] = {}
        self._next_index = _FIRST_INDEX

    def serve(self, request: HttpRequest, *, now: float) -> Schedule:
        """What it does with `request`, which arrives at `now`."""
        self.requests.append(request)
        route = route_of(request)
        fields = _object(request.body)
        label = route
        if route == "/route/" and request.method == "POST":
            self.asks += 1
            label = self._label(fields)
        return self._faults.play(label, lambda: dated(self._answer(route, request, fields, now), self._epoch), now=now)

    @property
    def workers(self) -> tuple[SimulatedWorker, ...]:
        """Every simulated worker, endpoint by endpoint; mere addresses are not among them."""
        return tuple(self._workers)

    def worker_at(self, origin: Origin) -> SimulatedWorker | None:
        """The simulated worker whose address this is, or None."""
        return next((worker for worker in self._workers if Origin.parse(worker.url) == origin), None)

    @property
    def lifetimes(self) -> Mapping[int, Lifetime]:
        """Every lifetime by its ``request_idx``, the oldest first; the last `keep` of them."""
        return MappingProxyType(self._lifetimes)

    def load(self, endpoint: str) -> float:
        """The cost of all lifetimes that began at `endpoint`, each counted once however often it was asked for."""
        for fleet in self._fleets:
            if fleet.endpoint.name == endpoint:
                return fleet.load
        raise InvalidValue(f"there is no endpoint {endpoint!r}")

    def _make(self, plan: WorkerPlan) -> SimulatedWorker:
        number = len(self._workers)
        worker = SimulatedWorker(
            # Addresses that are reserved for documentation: should one be dialled, nobody is there.
            f"https://203.0.113.{number % 254 + 1}:{40_001 + number % 20_000}",
            plan=plan,
            key=self.public_key,
            form=self._form,
            seed=self._rng.getrandbits(32),
            epoch=self._epoch,
            keep=self._keep,
        )
        self._workers.append(worker)
        return worker

    def _label(self, fields: dict[str, Any] | None) -> str:
        fields = fields or {}
        guid, name = fields.get("guid"), fields.get("endpoint")
        if isinstance(guid, int | str):
            return str(guid)
        fleet = self._find(fields)
        if fleet is not None:
            return fleet.endpoint.name
        return name if isinstance(name, str) else "/route/"

    def _find(self, fields: Mapping[str, Any]) -> Fleet | None:
        """The endpoint that an ask or a look-up names, by its name or its id."""
        name, number = fields.get("endpoint"), fields.get("endpoint_id", fields.get("id"))
        for fleet in self._fleets:
            if (fleet.endpoint.name == name) if name is not None else (fleet.number == number):
                return fleet
        return None

    # --- the questions -------------------------------------------------------------------------------------------

    def _answer(self, route: str, request: HttpRequest, fields: dict[str, Any] | None, now: float) -> Schedule:
        at = now + self._latency
        for path, method, handler in self._table():
            if route == path or (path == _ENDPOINTS and route.startswith(path)):
                if request.method != method:
                    text = {"content-type": "text/plain; charset=utf-8", "allow": method}
                    return answer(405, b"405: Method Not Allowed", at=at, headers=text)
                return handler(request, fields, now)
        return json_answer(404, {"error": "not found"}, at=at)

    def _table(self) -> Iterable[tuple[str, str, Callable[[HttpRequest, dict[str, Any] | None, float], Schedule]]]:
        return (
            ("/route/", "POST", self._route),
            ("/pubkey/", "GET", self._serve_key),
            (_ENDPOINTS, "GET", self._serve_endpoints),
            ("/get_endpoint_workers/", "POST", self._serve_workers),
            ("/worker_status/", "POST", self._take_report),
            ("/delete_requests/", "POST", self._take_report),
        )

    def _say(self, status: int, value: Any, now: float) -> Schedule:
        return json_answer(status, value, at=now + self._latency)

    def _route(self, request: HttpRequest, fields: dict[str, Any] | None, now: float) -> Schedule:
        key = _key_of(request, fields)
        if not any(fleet.endpoint.key == key for fleet in self._fleets):
            return self._say(401, {"error": "Authentication failed"}, now)
        if fields is None:
            return self._say(400, {"error": "the body must be a JSON object"}, now)
        if wrong := _wrong_input(fields):
            return self._say(400, {"error": wrong}, now)
        fleet = self._find(fields)
        if fleet is None or fleet.endpoint.key != key:
            return self._say(200, {"error_msg": _NO_ENDPOINT}, now)
        fleet.wake(now=now)
        lifetime = self._lifetime(fleet, fields, now)
        slot = None if fleet.is_stopped(now=now) else fleet.choose(now=now, avoid=lifetime.grants)
        said = {"endpoint": fleet.endpoint.name, "request_idx": lifetime.request_idx}
        if slot is None:
            lifetime = attrs.evolve(lifetime, is_waiting=True)
            if (status := fleet.status(now=now)) is not None:
                said["status"] = status
        else:
            slot.reqnum += 1
            self.grants += 1
            lifetime = attrs.evolve(lifetime, is_waiting=False, grants=(*lifetime.grants, slot.url))
            said |= {"url": slot.url, "cost": fields.get("cost", 100), "reqnum": slot.reqnum}
            said["signature"] = sign(said, self._form, key=self._private_key)
        self._lifetimes[lifetime.request_idx] = lifetime
        return self._say(200, said | {"__request_id": str(UUID(int=self._rng.getrandbits(128), version=4))}, now)

    def _lifetime(self, fleet: Fleet, fields: dict[str, Any], now: float) -> Lifetime:
        """The lifetime that an ask belongs to, with this ask counted; its load is counted when it begins."""
        known = self._lifetimes.get(fields.get("request_idx") or 0)
        if known is not None and known.endpoint == fleet.endpoint.name:
            return attrs.evolve(known, asks=known.asks + 1, polls=known.polls + known.is_waiting)
        index = self._next_index
        self._next_index += 1
        if len(self._lifetimes) >= self._keep:
            del self._lifetimes[next(iter(self._lifetimes))]
        cost = fields.get("cost", 100)
        fleet.load += cost
        return Lifetime(request_idx=index, endpoint=fleet.endpoint.name, cost=cost, first_at=now, asks=1)

    def _serve_key(self, _request: HttpRequest, _fields: dict[str, Any] | None, now: float) -> Schedule:
        return answer(200, self.public_key.encode(), at=now + self._latency, headers={"content-type": "text/plain"})

    def _serve_endpoints(self, request: HttpRequest, _fields: dict[str, Any] | None, now: float) -> Schedule:
        given = parse_qs(request.target.partition("?")[2]).get("api_key", [None])[0]
        if (_bearer(request) or given) != self._account_key:
            return self._say(401, {"error": "Authentication failed"}, now)
        rows = [
            {
                "id": fleet.number,
                "endpoint_name": fleet.endpoint.name,
                "api_key": fleet.endpoint.key,
                "user_id": 1,
                "created_at": self._epoch,
                "endpoint_state": "stopped" if fleet.is_stopped(now=now) else "active",
            }
            for fleet in self._fleets
        ]
        number = route_of(request).removeprefix(_ENDPOINTS).removesuffix("/")
        if number:
            row = next((row for row in rows if str(row["id"]) == number), None)
            found = {"success": True, "result": row} if row else {"success": False, "error": "not found"}
            return self._say(200 if row else 404, found, now)
        if not rows:
            return self._say(400, {"success": False, "error": "No endpoints for user 1 found."}, now)
        return self._say(200, {"success": True, "results": rows}, now)

    def _serve_workers(self, request: HttpRequest, fields: dict[str, Any] | None, now: float) -> Schedule:
        fleet = self._find(fields or {})
        key = _key_of(request, fields)
        if key != self._account_key and not any(each.endpoint.key == key for each in self._fleets):
            return self._say(401, {"error": "Authentication failed"}, now)
        if fleet is None or key not in {self._account_key, fleet.endpoint.key}:
            return self._say(200, {"error_msg": _NO_ENDPOINT}, now)
        rows = fleet.rows(now=now, epoch=self._epoch)
        return self._say(200, rows if self._bare_worker_list else {"workers": rows}, now)

    def _take_report(self, _request: HttpRequest, _fields: dict[str, Any] | None, now: float) -> Schedule:
        return answer(200, at=now + self._latency)


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _bearer(request: HttpRequest) -> str | None:
    scheme, _, key = (request.headers.get("authorization") or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def _key_of(request: HttpRequest, fields: Mapping[str, Any] | None) -> str | None:
    """The key of a request: from its header, else from its body. A key in the URL does not count here."""
    key = _bearer(request) or (fields or {}).get("api_key")
    return key if isinstance(key, str) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MOST_COST


def _is_index(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0)


def _wrong_input(fields: Mapping[str, Any]) -> str | None:
    """Why the engine cannot take an ask, or None. The wording is ours: Vast's is not known."""
    if not isinstance(fields.get("endpoint", ""), str) or not (fields.get("endpoint") or "endpoint_id" in fields):
        return "endpoint must be the endpoint's name"
    if not _is_number(fields.get("cost", 100)):
        return "cost must be a number of at least 0"
    if not _is_index(fields.get("request_idx")):
        return "request_idx must be a whole number of at least 0"
    if not _is_number(fields.get("replay_timeout", 0)):
        return "replay_timeout must be seconds"
    return None
