"""What came of it: a value to be read by people and by programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, final, overload

import attrs

from .features import Feature, Law

if TYPE_CHECKING:
    from .world import World


class NotConforming(AssertionError):
    """A transport does not do what a script requires. The text says which script, and what happened."""


class Ending(Enum):
    """How a script ended."""

    PASSED = "passed"
    FAILED = "failed"
    DOES_NOT_APPLY = "does not apply"


@attrs.frozen(kw_only=True)
class Script:
    """One requirement, and the conversation that shows whether it is met."""

    name: str
    """Short, lower case, with hyphens; it does not change."""
    requirement: str
    """What the transport has to do."""
    law: Law
    """What that is for."""
    needs: frozenset[Feature]
    """What the transport must have for the script to apply."""
    play: Callable[[World], Awaitable[None]] = attrs.field(repr=False)
    """Play it in a world; raises what is wrong."""


@attrs.frozen(kw_only=True)
class Result:
    """What came of one script."""

    script: Script
    ending: Ending
    reason: str = ""
    """What is wrong, or why it does not apply; empty if it passed."""
    conversation: str = ""
    """If it failed: what the servers saw and answered, a line for each request, and how the call ended. It shows no
    key, no grant and no body."""
    seconds: float = attrs.field(default=0.0, eq=False)
    """How long it took by the wall's clock."""

    @property
    def name(self) -> str:
        """The script's name."""
        return self.script.name

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is empty is left out."""
        values = {
            "name": self.name,
            "requirement": self.script.requirement,
            "law": self.script.law.value,
            "ending": self.ending.value,
            "reason": self.reason,
            "conversation": self.conversation,
            "seconds": round(self.seconds, 3),
        }
        return {name: value for name, value in values.items() if value != ""}


@final
@attrs.frozen
class Report(Sequence[Result]):
    """What came of all scripts, in their order. Its text is a table; ``report["cold-start"]`` is one row."""

    transport: str
    results: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether no script failed. One that does not apply has not failed: look at `not_applicable` too."""
        return not self.failures

    @property
    def failures(self) -> tuple[Result, ...]:
        """Those that failed."""
        return self._ended(Ending.FAILED)

    @property
    def not_applicable(self) -> tuple[Result, ...]:
        """Those that do not apply; their `reason` says why."""
        return self._ended(Ending.DOES_NOT_APPLY)

    def raise_for_failures(self) -> None:
        """Raise `NotConforming` if a script failed: its text shows every failure with its conversation."""
        if self.failures:
            shown = "\n\n".join(f"{each.name}: {each.reason}\n{each.conversation}".rstrip() for each in self.failures)
            raise NotConforming(f"{self.transport} fails {len(self.failures)} of {len(self)} scripts\n\n{shown}")

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "transport": self.transport,
            "passed": self.passed,
            "results": [result.as_dict() for result in self.results],
        }

    @overload
    def __getitem__(self, key: int | str) -> Result: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, key: int | str | slice) -> Result | tuple[Result, ...]:
        if isinstance(key, str):
            found = next((result for result in self.results if result.name == key), None)
            if found is None:
                raise KeyError(key)
            return found
        return self.results[key]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __str__(self) -> str:
        width = max((len(result.name) for result in self), default=0)
        lines = [self._headline(), ""]
        for result in self:
            lines.append(f"{result.name:<{width}}  {result.ending.value:<14}  {_shown(result)}".rstrip())
        for result in self.failures:
            lines += ["", f"{result.name}: {result.script.requirement}", f"  {result.reason}"]
            lines += [f"  {line}" for line in result.conversation.splitlines()]
        return "\n".join(lines)

    def _headline(self) -> str:
        counted = Counter(result.ending for result in self)
        counts = ", ".join(f"{counted[ending]} {ending.value}" for ending in Ending if counted[ending])
        return f"{self.transport}: {counts or 'no scripts'}"

    def _ended(self, ending: Ending) -> tuple[Result, ...]:
        return tuple(result for result in self.results if result.ending is ending)


def _shown(result: Result) -> str:
    """What stands in the table's last column: the first line of what there is to say."""
    return (result.reason or result.script.requirement).partition("\n")[0]
