"""The blocking transport: `Client` drives the core's machines over plain sockets, from any number of threads.

A call occupies its thread until it ends. To end one from outside, use a ``timeout``.
"""

from ..links import Link
from .client import Client
from .clocks import Clock, RealClock
from .links import Connect, PoolView
from .session import Session
from .stream import Stream
from .streams import ByteStream, SocketStream

__all__ = [
    "ByteStream",
    "Client",
    "Clock",
    "Connect",
    "Link",
    "PoolView",
    "RealClock",
    "Session",
    "SocketStream",
    "Stream",
]
