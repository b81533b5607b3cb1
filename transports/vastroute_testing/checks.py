"""Checks of the numbers in a script."""

from __future__ import annotations

from typing import Any, TypeGuard

from vastroute import InvalidValue


def at_least_zero(_instance: object, attribute: Any, value: Any) -> None:
    """An attrs validator: a number of at least 0, or None where that means something."""
    if value is not None and not (_is_number(value) and value >= 0):
        raise InvalidValue(f"{attribute.name} must be a number of at least 0")


def above_zero(_instance: object, attribute: Any, value: Any) -> None:
    """An attrs validator: a number above 0, or None where that means something."""
    if value is not None and not (_is_number(value) and value > 0):
        raise InvalidValue(f"{attribute.name} must be a number above 0")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
