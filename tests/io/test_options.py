"""What is misspelt or out of place is refused before anything is sent: silence would cost its reader money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from vastroute import InvalidValue
from vastroute_io.settings import Settings
from vastroute_testing import SimulatedEndpoint, SimulatedEngine
from vastroute_testing.conformance.verbs import AnyClient

from .worlds import World

Verb = Callable[[AnyClient, dict[str, Any]], Awaitable[Any]]


async def route(client: AnyClient, options: dict[str, Any]) -> None:
    await client.route("demo", **options)


async def call(client: AnyClient, options: dict[str, Any]) -> None:
    await client.call("demo", "/echo", {}, **options)


async def stream(client: AnyClient, options: dict[str, Any]) -> None:
    async with client.stream("demo", "/stream", {}, **options):
        pass


async def session(client: AnyClient, options: dict[str, Any]) -> None:
    async with client.session("demo", **options):
        pass


@pytest.mark.parametrize("verb", [route, call, stream, session])
@pytest.mark.parametrize(("option", "hint"), [("tiemout", "did you mean timeout"), ("nothing_like_it", "")])
async def test_an_option_that_does_not_exist(world: World, verb: Verb, option: str, hint: str) -> None:
    engine = SimulatedEngine(SimulatedEndpoint("demo"))
    async with world.client(engine) as client:
        with pytest.raises(InvalidValue, match=f"no option {option}.*{hint}"):
            await verb(client, {option: 5})
    assert engine.asks == 0


async def test_a_session_takes_no_cost(world: World) -> None:
    options: dict[str, Any] = {"cost": 7}
    async with world.client(SimulatedEngine(SimulatedEndpoint("demo"))) as client, client.session("demo") as held:
        with pytest.raises(InvalidValue, match="no option cost"):
            await held.call("/echo", {}, **options)
        assert held.life.out == frozenset()


async def test_none_is_the_clients_own(world: World) -> None:
    async with world.client(SimulatedEngine(SimulatedEndpoint("demo"))) as client:
        options: dict[str, Any] = {"policy": None, "work_policy": None, "timeout": None}
        assert (await client.call("demo", "/echo", {}, **options)).status == 200


@pytest.mark.parametrize("timeout", ["5", True, float("nan")], ids=repr)
def test_a_timeout_is_a_number(timeout: Any) -> None:
    with pytest.raises(InvalidValue, match="timeout must be seconds"):
        Settings().deadline({"timeout": timeout}, now=0.0)
