"""The trio transport: `Client` drives the core's machines over trio streams, many at once in one process.

A call's work ends with the call. What runs in the background is one system task for each client, which keeps the time
limits of its connections until the last one is closed. Cancel a call as anything in trio; the connection that it used
is closed by force and nothing is left behind.
"""

from ..asynchronous.session import AsyncSession as Session
from ..asynchronous.stream import AsyncStream as Stream
from ..links import Link
from .client import Client
from .links import Connect

__all__ = ["Client", "Connect", "Link", "Session", "Stream"]
