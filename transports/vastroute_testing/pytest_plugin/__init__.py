"""The pytest plugin: fixtures, marks, and a report of the conversation where a test fails. See ``docs/pytest.md``.

Pytest loads this in every run of everybody who has vastroute installed, so it imports nothing but what pytest has
imported already, and has no hook that is called for each test; all else waits until a test uses a fixture or a mark.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import vastroute_io.asyncio
    import vastroute_io.blocking
    import vastroute_io.trio
    from vastroute_testing import ManualClock, SimulatedEndpoint, SimulatedEngine
    from vastroute_testing.memory import Client

    from .network import NetworkGuard
    from .rigs import AsyncioRig, BlockingRig, LoopbackRig, TrioRig
    from .world import World

_MARKS = {
    "vast_endpoint": "vast_endpoint(name, **options): vast_engine has this endpoint; the options are those of "
    "vastroute_testing.SimulatedEndpoint.",
    "vast_faults": "vast_faults(*troubles, endpoint=None): what goes wrong at vast_engine's endpoints, or at one of "
    "them; see vastroute_testing.trouble.",
    "vast_network": "vast_network: this test may leave this machine, vastroute's guard or not.",
}
_HOOKS = "vastroute hooks"
_GUARD = "vastroute guard"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("vast_no_network", "no test may leave this machine, vastroute's fixtures or not", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    for text in _MARKS.values():
        config.addinivalue_line("markers", text)
    if config.getini("vast_no_network"):
        guard = _guard(config)
        guard.__enter__()
        config.add_cleanup(lambda: guard.__exit__(None, None, None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(mark.name in _MARKS for item in items for mark in item.own_markers):
        _hook(config)  # a mark without effect has to be told, though none of our fixtures may be used


@pytest.fixture
def _vast_world(request: pytest.FixtureRequest) -> World:
    from .world import WORLD, World

    _hook(request.config)
    world = request.node.stash[WORLD] = World()
    if request.node.get_closest_marker("vast_network") is None:
        request.getfixturevalue("vast_no_network")
    return world


@pytest.fixture
def vast_no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail the test if it leaves this machine. Every fixture of vastroute's uses this one."""
    with _guard(request.config):
        yield


@pytest.fixture
def vast_endpoints(request: pytest.FixtureRequest, _vast_world: World) -> list[SimulatedEndpoint]:
    """The endpoints of `vast_engine`: those that the marks `vast_endpoint` name, else one, "my-endpoint"."""
    from vastroute_testing import SimulatedEndpoint

    _vast_world.applied.add("vast_endpoint")
    with _blaming("vast_endpoint"):
        marks = request.node.iter_markers("vast_endpoint")
        endpoints = [SimulatedEndpoint(*mark.args, **mark.kwargs) for mark in marks]
    nearest = {endpoint.name: endpoint for endpoint in reversed(endpoints)}
    return list(nearest.values()) or [SimulatedEndpoint("my-endpoint")]


@pytest.fixture
def vast_engine(
    request: pytest.FixtureRequest, vast_endpoints: list[SimulatedEndpoint], _vast_world: World
) -> SimulatedEngine:
    """The simulated engine that everything here leads to: `vast_endpoints`, with what the marks `vast_faults` say."""
    from vastroute_testing import SimulatedEngine
    from vastroute_testing.trouble import troubled

    _vast_world.applied.add("vast_faults")
    endpoints = {endpoint.name: endpoint for endpoint in vast_endpoints}
    with _blaming("vast_faults"):
        for mark in reversed(list(request.node.iter_markers("vast_faults"))):
            for name in _named(mark, endpoints):
                endpoints[name] = troubled(endpoints[name], *mark.args)
    _vast_world.engine = SimulatedEngine(endpoints.values())
    return _vast_world.engine


@pytest.fixture
def vast_clock(_vast_world: World) -> ManualClock:
    """The test's virtual time, one for all clients: let some pass with ``vast_clock.advance(seconds)``."""
    from vastroute_testing import ManualClock

    _vast_world.claim("virtual time")
    return ManualClock()


@pytest.fixture
def vast_client(vast_engine: SimulatedEngine, vast_clock: ManualClock, _vast_world: World) -> Client:
    """A client without bytes, `vastroute_testing.memory.Client`: the quickest, for code that takes a client."""
    from vastroute_testing.memory import Client

    _vast_world.engine = vast_engine
    return Client(server=vast_engine, clock=vast_clock, observer=_vast_world.log("vast_client"))


@pytest.fixture
def vast_blocking(vast_engine: SimulatedEngine, vast_clock: ManualClock, _vast_world: World) -> Iterator[BlockingRig]:
    """For blocking code: `client()`, and `options` for clients of your code's own making."""
    from .rigs import BlockingRig

    yield from _vast_world.use(BlockingRig(_vast_world, vast_engine, vast_clock))


@pytest.fixture
def vast_trio(vast_engine: SimulatedEngine, vast_clock: ManualClock, _vast_world: World) -> Iterator[TrioRig]:
    """For trio code, in virtual time: `client()`, `options` for clients of your code's own making, and `run`."""
    from .rigs import TrioRig

    yield from _vast_world.use(TrioRig(_vast_world, vast_engine, vast_clock))


@pytest.fixture
def vast_asyncio(vast_engine: SimulatedEngine, vast_clock: ManualClock, _vast_world: World) -> Iterator[AsyncioRig]:
    """For asyncio code, in virtual time: `client()`, `options` for clients of your code's own making, and `run`."""
    from .rigs import AsyncioRig

    yield from _vast_world.use(AsyncioRig(_vast_world, vast_engine, vast_clock))


@pytest.fixture
def vast_blocking_client(vast_blocking: BlockingRig) -> vastroute_io.blocking.Client:
    """A client of `vast_blocking`."""
    return vast_blocking.client()


@pytest.fixture
def vast_trio_client(vast_trio: TrioRig) -> vastroute_io.trio.Client:
    """A client of `vast_trio`."""
    return vast_trio.client()


@pytest.fixture
def vast_asyncio_client(vast_asyncio: AsyncioRig) -> vastroute_io.asyncio.Client:
    """A client of `vast_asyncio`."""
    return vast_asyncio.client()


@pytest.fixture
def vast_loopback(
    request: pytest.FixtureRequest, vast_engine: SimulatedEngine, _vast_world: World
) -> Iterator[LoopbackRig]:
    """The engine and its workers on sockets of this machine, in real time: `url`, and `options` for any client."""
    _vast_world.claim("real time")
    from vastroute_testing import LoopbackThread

    from .rigs import LoopbackRig

    with LoopbackThread(vast_engine) as thread:
        yield from _vast_world.use(LoopbackRig(_vast_world, vast_engine, thread))


def _hook(config: pytest.Config) -> None:
    """Have the hooks that tests of ours need, from now on."""
    if not config.pluginmanager.has_plugin(_HOOKS):
        from .hooks import Hooks

        config.pluginmanager.register(Hooks(), _HOOKS)


def _guard(config: pytest.Config) -> NetworkGuard:
    """The one guard of this run: a plugin too, from the first time that somebody wants it."""
    guard: NetworkGuard | None = config.pluginmanager.get_plugin(_GUARD)
    if guard is None:
        from .network import NetworkGuard

        guard = NetworkGuard()
        config.pluginmanager.register(guard, _GUARD)
    return guard


@contextmanager
def _blaming(mark: str) -> Iterator[None]:
    """What cannot be used in `mark` fails the test, without a trace of ours."""
    try:
        yield
    except (TypeError, ValueError) as error:
        pytest.fail(f"{mark}: {error}", pytrace=False)


def _named(mark: pytest.Mark, endpoints: Collection[str]) -> Collection[str]:
    """The endpoints that a mark of faults means."""
    if odd := ", ".join(name for name in mark.kwargs if name != "endpoint"):
        raise TypeError(f"it takes endpoint by name, and nothing else: {odd}")
    name = mark.kwargs.get("endpoint")
    if name is not None and name not in endpoints:
        raise ValueError(f"there is no endpoint {name!r}, only {', '.join(endpoints)}")
    return endpoints if name is None else (name,)
