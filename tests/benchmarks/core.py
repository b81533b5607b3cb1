"""One route and one whole call through the core alone, byte for byte, on kept connections: no I/O, always the same.

``python core.py route|call COUNT`` does one of them so often, for a tool that counts instructions.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import vastroute
from benchmarks.place import ENDPOINT, KEY, PAYLOAD, WORK, answer, grant
from vastroute_testing.keys import TEST_PUBLIC_KEY

PORT = 40001
_HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\n\r\n%b"
)


class Core:
    """Everything that a client keeps between calls."""

    def __init__(self) -> None:
        self._engine = vastroute.Origin.parse(f"http://127.0.0.1:{PORT}")
        self._key = vastroute.Secret(KEY)
        self._verifier = vastroute.Verifier(TEST_PUBLIC_KEY)
        self._tracker = vastroute.ReqnumTracker()
        self._guard = vastroute.Guard(allow_plain_http=True, allow_private_address=True)
        self._heads = vastroute.HeadMemory()
        self._memory = vastroute.RouteMemory()
        self._request = vastroute.RouteRequest(endpoint=ENDPOINT, cost=100.0)
        self._connections = self._connection(), self._connection()
        self._replies = tuple(_HEAD % (len(body), body) for body in (grant(PORT), answer()))

    def _connection(self) -> vastroute.Http1Connection:
        return vastroute.Http1Connection(heads=self._heads)

    def route(self) -> vastroute.RouteResult:
        """One route, of which everything is looked at."""
        result: vastroute.RouteResult = self._drive(self._routing())
        return result

    def call(self) -> vastroute.Answer:
        """One whole call."""
        work = vastroute.WorkerRequest(route=WORK, payload=PAYLOAD, safe_to_repeat=True)
        result: vastroute.Answer = self._drive(vastroute.Call(self._routing(), work, guard=self._guard))
        return result

    def _routing(self) -> vastroute.RouteCall:
        return vastroute.RouteCall(
            self._request,  # the clients, too, ask again with the one they have
            key=self._key,
            rng=float,
            deadline=1000.0,
            verifier=self._verifier,
            tracker=self._tracker,
            memory=self._memory,
            engine=self._engine,
        )

    def _drive(self, machine: Any) -> Any:
        now = 1.0
        for connection, reply in zip(self._connections, self._replies, strict=True):
            action = machine.next_action(now=now)
            if type(action) is not vastroute.Send:
                break
            connection.send(action.request, limit_body=False)
            now += 0.5
            if machine.feed(connection.receive(reply), now=now, reused=True):
                raise AssertionError("the answer was whole, and more is wanted")
        if type(machine.next_action(now=now)) is not vastroute.Done:
            raise AssertionError("the call is not over")
        return machine.result()


def main() -> None:
    """What the arguments say, so often."""
    core = Core()
    once = {"route": core.route, "call": core.call}[sys.argv[1]]
    for _ in range(int(sys.argv[2])):
        once()


if __name__ == "__main__":
    main()
