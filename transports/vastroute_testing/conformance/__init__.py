"""Does a transport do what it must? `check_transport` plays scripts with it, and reports; pytest is not needed.

A script is a conversation with simulated servers, and what has to come of it. The same scripts are played over every
transport of this package, in virtual time and over sockets.
"""

from __future__ import annotations

from .checking import check_transport, what_is_missing, why_not
from .embedding import LEFT_OUT, check_embedding
from .features import Feature, Law
from .harness import Harness, Job, Opened, Steps
from .libraries import Asyncio, Blocking, Messages, Trio
from .ours import our_transports
from .report import Ending, NotConforming, Report, Result, Script
from .scripts import SCRIPTS
from .world import World

__all__ = [
    "LEFT_OUT",
    "SCRIPTS",
    "Asyncio",
    "Blocking",
    "Ending",
    "Feature",
    "Harness",
    "Job",
    "Law",
    "Messages",
    "NotConforming",
    "Opened",
    "Report",
    "Result",
    "Script",
    "Steps",
    "Trio",
    "World",
    "check_embedding",
    "check_transport",
    "our_transports",
    "what_is_missing",
    "why_not",
]
