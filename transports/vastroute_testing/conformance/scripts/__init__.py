"""The scripts, by what they are about; each module's table is in its own order."""

from __future__ import annotations

from ..report import Script
from . import asking

SCRIPTS: tuple[Script, ...] = (*asking.SCRIPTS,)
"""Every script, in the order in which they are played."""
