"""Playing the scripts."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping

from vastroute import InvalidValue

from .features import Feature
from .harness import Harness
from .report import Ending, NotConforming, Report, Result, Script
from .scripts import SCRIPTS
from .stage import clean
from .world import MakeClient, World

_IN_MEMORY = {Feature.SOCKETS: "it is checked over streams in memory"}
_OVER_SOCKETS = {
    Feature.VIRTUAL_TIME: "it is checked in real time",
    Feature.ROADS: "it is checked over sockets that it opens itself",
}


def check_transport(
    make_client: MakeClient,
    harness: Harness,
    *,
    name: str | None = None,
    lacks: Mapping[Feature, str] | None = None,
    only: Collection[str] = (),
) -> Report:
    """Play the conformance scripts with clients of a transport, and report what came of each. Nothing is printed.

    `make_client` is called with options by name, those of `vastroute_io.options.ClientOptions`, and with what `harness`
    adds: ``connect`` in virtual time (and ``clock`` for a blocking client), the addresses of ``engine`` and ``console``
    over sockets. It returns a client with the verbs ``route``, ``call``, ``stream``, ``session`` and so on, and
    ``aclose`` or ``close``; each verb may be asynchronous or not. A client class with these options can be given as it
    is.

    `harness` is the library that it is made for: `Trio`, `Asyncio`, `Blocking`, `Messages`, or one of your own. `lacks`
    says what the transport does not have, and why: scripts that need it do not apply, and the report says so. `only`
    names the scripts to play, all by default. `name` is the transport's in the report.

    Raises `vastroute.InvalidValue` for a script that does not exist. What a client raises is a failure of the script.
    """
    if unknown := set(only) - {script.name for script in SCRIPTS}:
        raise InvalidValue(f"there is no script {min(unknown)!r}: see SCRIPTS")
    missing = what_is_missing(harness, lacks)
    chosen = [script for script in SCRIPTS if not only or script.name in only]
    results = tuple(_result(script, make_client, harness, missing) for script in chosen)
    return Report(harness.name if name is None else name, results)


def what_is_missing(harness: Harness, lacks: Mapping[Feature, str] | None = None) -> Mapping[Feature, str]:
    """What transports of this library do not have here, and why, together with what one lacks by itself."""
    return (_IN_MEMORY if harness.virtual else _OVER_SOCKETS) | dict(harness.lacks) | dict(lacks or {})


def why_not(script: Script, missing: Mapping[Feature, str]) -> str | None:
    """Why a script does not apply where this is missing; None if it does."""
    return next((missing[feature] for feature in Feature if feature in script.needs and feature in missing), None)


def _result(script: Script, make_client: MakeClient, harness: Harness, lacks: Mapping[Feature, str]) -> Result:
    reason_against = why_not(script, lacks)
    if reason_against is not None:
        return Result(script=script, ending=Ending.DOES_NOT_APPLY, reason=reason_against)
    world = World(make_client, harness, lacks)

    async def play() -> None:
        world.begin()
        before = harness.at_work()
        await script.play(world)
        await world.until(lambda: harness.at_work() <= before, "tasks or threads of it are still at work")

    began = time.perf_counter()
    reason = conversation = ""
    try:
        harness.run(play)
    except Exception as error:
        reason, conversation = clean(_words(_first(error))), world.talk
    return Result(
        script=script,
        ending=Ending.FAILED if reason else Ending.PASSED,
        reason=reason,
        conversation=conversation,
        seconds=time.perf_counter() - began,
    )


def _first(error: BaseException) -> BaseException:
    """The first of several errors, which task groups wrap."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _words(error: BaseException) -> str:
    if isinstance(error, NotConforming):
        return str(error)
    return f"it raises {type(error).__name__}: {error}"
