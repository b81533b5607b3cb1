"""Which request meets which faults: a table by label and attempt.

Never drawn from a shared random stream, so that concurrent calls meet the same faults in every run. What a label is,
says the server that has the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, final

from vastroute import InvalidValue

from .faults import Fault
from .schedule import Schedule

Faults: TypeAlias = Mapping[tuple[str, int], Fault | Iterable[Fault]]
"""What goes wrong, by label and attempt: ``{("demo", 1): Status(503), ("demo", 2): (BadJson(), Delay(3))}``.

Attempts count from 1; `EVERY` stands for all that have no entry of their own.
"""
EVERY: Final = 0
"""In place of an attempt's number: each attempt under the label that has no entry of its own."""
NO_FAULTS: Faults = MappingProxyType({})
"""Nothing goes wrong."""


@final
class FaultTable:
    """Counts the attempts under each label, and plays the faults that are planned for them."""

    __slots__ = ("_attempts", "_planned")

    def __init__(self, faults: Faults = NO_FAULTS) -> None:
        self._planned: dict[tuple[str, int], tuple[Fault, ...]] = {}
        for (label, attempt), given in faults.items():
            several = (given,) if isinstance(given, Fault) else tuple(given)
            if not all(isinstance(fault, Fault) for fault in several):
                raise InvalidValue(f"the faults planned for {label!r} must be faults: {several!r}")
            if not isinstance(label, str) or isinstance(attempt, bool) or not isinstance(attempt, int) or attempt < 0:
                raise InvalidValue(f"faults go by a text and the number of an attempt, not by {(label, attempt)!r}")
            self._planned[label, attempt] = several
        # Only for labels that are planned for: a peer chooses the others, and must not make this grow.
        self._attempts = {label: 0 for label, _ in self._planned}

    def play(self, label: str, serve: Callable[[], Schedule], *, now: float) -> Schedule:
        """What becomes of the next request under `label`; `serve` is called for the honest schedule, if at all."""
        faults = self._next(label)
        schedule = serve() if all(fault.served for fault in faults) else ()
        for fault in faults:
            schedule = fault.spoil(schedule, now=now)
        return schedule

    def _next(self, label: str) -> tuple[Fault, ...]:
        if label not in self._attempts:
            return ()
        self._attempts[label] += 1
        always = self._planned.get((label, EVERY), ())
        return self._planned.get((label, self._attempts[label]), always)
