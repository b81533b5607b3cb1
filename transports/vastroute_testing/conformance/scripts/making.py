"""How scripts are made and what they say: one coroutine function each, whose text is its requirement."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeVar

from vastroute import CallFailed

from ..features import Feature, Law
from ..report import NotConforming, Script
from ..world import World

T = TypeVar("T")
Play = Callable[[World], Awaitable[None]]


def script(law: Law, *needs: Feature) -> Callable[[Play], Script]:
    """Make a script of a coroutine function: its name is the script's, its text the requirement."""

    def make(play: Play) -> Script:
        return Script(
            name=play.__name__.replace("_", "-"),
            requirement=inspect.cleandoc(play.__doc__ or "").replace("\n", " "),
            law=law,
            needs=frozenset(needs),
            play=play,
        )

    return make


def scripts_in(module: Mapping[str, Any]) -> tuple[Script, ...]:
    """Every script of a module, in its order."""
    return tuple(value for value in module.values() if isinstance(value, Script))


def fail(words: str) -> NoReturn:
    """Say what is wrong."""
    raise NotConforming(words)


def check(condition: object, words: str) -> None:
    """Say what is wrong if `condition` does not hold."""
    if not condition:
        fail(words)


def equal(got: object, wanted: object, what: str) -> None:
    """Say what is wrong if they differ."""
    check(got == wanted, f"{what}: {got!r}, and not {wanted!r}")


async def failure(work: Awaitable[Any], **wanted: Any) -> CallFailed:
    """The error that ends `work`, with the attributes that are wanted; ``type`` is its class."""
    try:
        got = await work
    except CallFailed as error:
        for name, value in wanted.items():
            found = type(error) if name == "type" else getattr(error, name)
            if found != value:
                fail(f"it ends with {type(error).__name__}: {error}; {name} is {_name(found)}, and not {_name(value)}")
        return error
    fail(f"it ends with {type(got).__name__}, and not with {_name(wanted.get('type', CallFailed))}")


def _name(value: object) -> str:
    return value.__name__ if isinstance(value, type) else str(value)
