"""The trio transport: `Client` drives the core's machines over trio streams, many at once in one process.

A call's work ends with the call: nothing runs in the background. Cancel it as anything in trio; the connection that it
used is closed by force and nothing is left behind.
"""

from .client import Client
from .links import Connect, Link
from .session import Session
from .stream import Stream

__all__ = ["Client", "Connect", "Link", "Session", "Stream"]
