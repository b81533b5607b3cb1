"""The blocking transport: `Client` drives the core's machines over plain sockets, from any number of threads.

A call occupies its thread until it ends. To end one from outside, use a ``timeout``.
"""

from ..links import Link
from .client import Client
from .links import ByteStream, Clock, Connect, RealClock, SocketStream
from .session import Session
from .stream import Stream

__all__ = ["ByteStream", "Client", "Clock", "Connect", "Link", "RealClock", "Session", "SocketStream", "Stream"]
