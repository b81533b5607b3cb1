"""The transports of this package, as they are checked."""

from __future__ import annotations

from collections.abc import Mapping

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio

from ..memory import Client
from .harness import Harness
from .libraries import Asyncio, Blocking, Messages, Trio
from .world import MakeClient


def our_transports() -> Mapping[str, tuple[MakeClient, Harness]]:
    """What makes a client, and its harness, by the name that the report gives it."""
    return {
        "trio": (vastroute_io.trio.Client, Trio()),
        "asyncio": (vastroute_io.asyncio.Client, Asyncio()),
        "blocking": (vastroute_io.blocking.Client, Blocking()),
        "memory": (Client, Messages()),
        "trio over sockets": (vastroute_io.trio.Client, Trio(virtual=False)),
        "asyncio over sockets": (vastroute_io.asyncio.Client, Asyncio(virtual=False)),
        "blocking over sockets": (vastroute_io.blocking.Client, Blocking(virtual=False)),
    }
