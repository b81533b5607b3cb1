"""The scripts, by what they are about; each module's table is in its own order."""

from __future__ import annotations

from ..report import Script
from . import (
    asking,
    cancelling,
    comparing,
    framing,
    keeping,
    leasing,
    losing,
    streaming,
    timing,
    trusting,
    working,
)

_MODULES = (asking, working, losing, comparing, framing, keeping, timing, streaming, leasing, cancelling, trusting)
SCRIPTS: tuple[Script, ...] = tuple(script for module in _MODULES for script in module.SCRIPTS)
"""Every script, in the order in which they are played."""
