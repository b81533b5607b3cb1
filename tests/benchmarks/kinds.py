"""What a client of the benchmark is: a context that gives verbs, each of which does one thing and checks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, NamedTuple, TypeAlias

from .place import Place


class Setup(NamedTuple):
    """What a client is made for."""

    place: Place
    most: int
    """Calls in flight at the most: its pool is to be large enough for them."""


AsyncVerbs: TypeAlias = Mapping[str, Callable[..., Any]]
"""By name, coroutine functions: ``route``, ``call``, ``stream`` with the size in MiB as its argument, and others."""
Verbs: TypeAlias = Mapping[str, Callable[[], None]]
"""The same without waiting."""
AsyncClient: TypeAlias = Callable[[Setup], AbstractAsyncContextManager[AsyncVerbs]]
Client: TypeAlias = Callable[[Setup], AbstractContextManager[Verbs]]
