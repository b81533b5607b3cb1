"""Where a script is played: clients of the transport under test, simulated servers, and time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final, TypeVar, final

from vastroute import Answer, CallFailed, Guard, Pool, Record, RetryPolicy, RouteResult

from ..engine import SimulatedEngine
from ..fleet import SimulatedEndpoint
from ..keys import TEST_PUBLIC_KEY
from ..loopback import LoopbackThread
from ..memory import TEST_KEY, Client
from ..streams import CutSizes, Roads
from .features import Feature
from .harness import NO_ROAD, Harness, Job, at_once
from .network import Network
from .report import NotConforming
from .stage import Edit, Stage, as_it_is
from .verbs import AnyClient, shortened

T = TypeVar("T")
MakeClient = Callable[..., Any]
"""Makes a client of the transport under test from options by name: see `check_transport`."""
IN_MEMORY: Final = Guard(allow_private_address=True)
"""For simulated workers, which have addresses that are reserved for documentation."""
ON_LOOPBACK: Final = Guard(allow_private_address=True, allow_plain_http=True)
"""For workers on loopback sockets."""


@final
class World:
    """What a script has at hand. All its seconds are the script's: over sockets they pass faster than real ones."""

    def __init__(self, make_client: MakeClient, harness: Harness, lacks: Collection[Feature] = ()) -> None:
        self.harness: Harness = harness
        self._lacks = frozenset(lacks)
        self.virtual: bool = harness.virtual
        self._make_client = make_client
        self._notes: list[tuple[float, str]] = []
        self._began = 0.0

    def has(self, feature: Feature) -> bool:
        """Whether the transport has it."""
        return feature not in self._lacks

    # --- time

    def now(self) -> float:
        """Monotonic seconds."""
        return self.harness.now() * self.harness.speed

    async def sleep(self, seconds: float) -> None:
        """Let time pass between calls."""
        await self.harness.sleep(seconds / self.harness.speed)

    async def together(self, *works: Job) -> None:
        """Run them all at once."""
        await self.harness.together(*works)

    async def cancelled_at(self, step: int, work: Job) -> bool:
        """Run `work`, cancelled as it waits for the `step`-th time. False if it was over before."""
        return await self.harness.cancelled_at(step, work)

    @property
    def slack(self) -> float:
        """Seconds by which something may be late: none where time is virtual, half a real second elsewhere."""
        return 1e-6 if self.virtual else self.harness.speed / 2

    async def until(self, holds: Callable[[], bool], otherwise: str) -> None:
        """Raise `NotConforming` unless it holds; over sockets, where news takes its time, within some seconds."""
        for _ in range(1 if self.virtual else 400):
            if holds():
                return
            await self.harness.sleep(0.0 if self.virtual else 0.005)
        raise NotConforming(otherwise)

    # --- clients and servers

    @asynccontextmanager
    async def serve(
        self,
        engine: SimulatedEngine,
        *,
        engine_edit: Edit = as_it_is,
        worker_edit: Edit = as_it_is,
        one_address: bool = False,
        cut: CutSizes = None,
        roads: Roads = NO_ROAD,
    ) -> AsyncIterator[Network]:
        """Serve `engine` and its workers for as long as the block lasts. At its end every connection must be closed."""
        stage = Stage(
            engine,
            engine_edit=engine_edit,
            worker_edit=worker_edit,
            one_address=one_address,
            speed=self.harness.speed,
        )
        if self.virtual:
            options, opened = self.harness.options(stage, cut=cut, roads=roads)
            network = Network(stage, options, opened)
            with self._noted(stage):
                yield network
            await network.check_closed(self.harness)
            return
        with LoopbackThread(stage.named(), cut=cut) as loopback:
            for name, origin in loopback.origins.items():
                stage.settle(name, origin)
            url = str(loopback.origins["engine"])
            network = Network(stage, {"engine": url, "console": url}, loopback)
            with self._noted(stage):
                yield network
            await network.check_closed(self.harness)

    @asynccontextmanager
    async def client(
        self,
        server: SimulatedEngine | Network,
        *,
        engine_edit: Edit = as_it_is,
        worker_edit: Edit = as_it_is,
        one_address: bool = False,
        cut: CutSizes = None,
        roads: Roads = NO_ROAD,
        **options: Any,
    ) -> AsyncIterator[AnyClient]:
        """A client of the transport under test, closed at the block's end; an engine is served for as long."""
        if isinstance(server, Network):
            async with self._client(server, options) as client:
                yield client
            return
        serving = self.serve(
            server,
            engine_edit=engine_edit,
            worker_edit=worker_edit,
            one_address=one_address,
            cut=cut,
            roads=roads,
        )
        async with (
            serving as network,
            self._client(network, options) as client,
        ):
            yield client

    @asynccontextmanager
    async def _client(self, network: Network, options: dict[str, Any]) -> AsyncIterator[AnyClient]:
        speed = self.harness.speed
        given: dict[str, Any] = {
            "key": TEST_KEY,
            "public_key": TEST_PUBLIC_KEY,
            "rng": _half,
            "guard": IN_MEMORY if self.virtual else ON_LOOPBACK,
            "proxy": None,
            **network.options,
        }
        if not self.virtual:
            # The pauses are a script's; the limits, where a script names none, are real seconds: machines are slow.
            pauses = shortened(RetryPolicy(), speed)
            given["policy"] = RetryPolicy(poll_pause=pauses.poll_pause, retry_pause=pauses.retry_pause)
            options = {
                name: shortened(value, speed) if name in {"policy", "work_policy", "pool"} else value
                for name, value in options.items()
            }
        client = AnyClient(self._make_client(**(given | options)), network, speed=speed)
        try:
            yield client
        finally:
            await client.aclose()
        check_pool(client.client)

    # --- what it is compared with

    def reference(
        self, engine: SimulatedEngine, verb: Callable[[AnyClient], Awaitable[T]], **options: Any
    ) -> T | CallFailed:
        """What `verb` comes to over messages, where there is no transport: what it gives, or the error."""
        defaults: dict[str, Any] = {"public_key": TEST_PUBLIC_KEY, "guard": IN_MEMORY}
        client = AnyClient(Client(server=Stage(engine), **(defaults | options)))
        return at_once(outcome(verb(client)))

    def conversation(self, record: Record | None) -> list[tuple[Any, ...]]:
        """What happened in a call, comparable everywhere: without words, over sockets without times too."""
        if record is None:
            raise NotConforming("a call that is over has no record")
        if not record:
            return []
        began = record[0].at
        return [
            (
                entry.kind.value,
                entry.phase.value,
                entry.attempt,
                entry.request_idx,
                entry.status,
                *((_rounded(entry.at, began), _rounded(entry.until, began)) if self.virtual else ()),
            )
            for entry in record
        ]

    def same(self, got: Answer | RouteResult | CallFailed, wanted: Answer | RouteResult | CallFailed) -> str:
        """How `got` differs from `wanted`, in words; empty if it does not."""
        if type(got) is not type(wanted):
            return f"it ends with {_what(got)}, and not with {_what(wanted)}"
        facts = _FACTS if isinstance(wanted, CallFailed) else ("counts", "request_idx")
        for name in facts if self.has(Feature.KINDS) else [each for each in facts if each != "kind"]:
            one, other = (_timeless(getattr(each, name), timed=self.virtual) for each in (got, wanted))
            if one != other:
                return f"its {name} is {one!r}, and not {other!r}"
        if (
            isinstance(got, Answer)
            and isinstance(wanted, Answer)
            and (got.status, got.body)
            != (
                wanted.status,
                wanted.body,
            )
        ):
            return "it gives another answer"
        mine, theirs = self.conversation(got.record), self.conversation(wanted.record)
        for number, (one, other) in enumerate(zip(mine, theirs, strict=False), 1):
            if one != other:
                return f"entry {number} of its record is {one}, and not {other}"
        return "" if len(mine) == len(theirs) else f"its record has {len(mine)} entries, and not {len(theirs)}"

    # --- for the report

    def begin(self) -> None:
        """The script begins now."""
        self._began = self.now()

    @property
    def talk(self) -> str:
        """What the servers saw and answered so far; the last of it, if it is long."""
        # Over sockets the servers have a clock of their own.
        began = self._began if self.virtual or not self._notes else self._notes[0][0]
        lines = [f"{at - began:10.3f} s  {words}" for at, words in self._notes[-_MOST_LINES:]]
        if len(self._notes) > _MOST_LINES:
            lines.insert(0, f"(the last {_MOST_LINES} of {len(self._notes)} requests)")
        return "\n".join(lines)

    @contextmanager
    def _noted(self, stage: Stage) -> Iterator[None]:
        try:
            yield
        finally:
            self._notes += stage.notes


_MOST_LINES = 40
_FACTS = ("phase", "outcome", "advice", "status", "request_idx", "kind", "limit", "retry_after", "counts", "body")


def engine_of(**options: Any) -> SimulatedEngine:
    """An engine with one endpoint, ``demo``."""
    return SimulatedEngine(SimulatedEndpoint("demo", **options))


async def outcome(work: Awaitable[T]) -> T | CallFailed:
    """What `work` gives, or the error that ended the call."""
    try:
        return await work
    except CallFailed as error:
        return error


def check_pool(client: Any) -> None:
    """Raise `NotConforming` if the client has a `vastroute.Pool` in which something is still under way."""
    pool = getattr(client, "pool", None)
    for held in pool.inspect().values() if isinstance(pool, Pool) else ():
        if held.in_use or held.opening or held.served or held.waiting:
            raise NotConforming(f"no call is under way, and the pool holds {held}")


def _half() -> float:
    return 0.5


def _rounded(at: float | None, began: float) -> float | None:
    return None if at is None else round(at - began, 6)


def _timeless(value: Any, *, timed: bool) -> Any:
    if timed or not hasattr(value, "seconds_waited"):
        return value
    import attrs

    return attrs.evolve(value, seconds_waited=0.0, seconds_routing=0.0, seconds_working=0.0)


def _what(value: object) -> str:
    return f"{type(value).__name__} ({value})" if isinstance(value, CallFailed) else type(value).__name__
