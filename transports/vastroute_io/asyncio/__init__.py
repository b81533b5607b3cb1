"""The asyncio transport: `Client` drives the core's machines over asyncio streams, for those who use no trio.

A call's work ends with the call: nothing runs in the background. Cancel it as anything in asyncio; the connection that
it used is closed by force and nothing is left behind.
"""

from ..asynchronous.session import AsyncSession as Session
from ..asynchronous.stream import AsyncStream as Stream
from ..links import Link
from .client import Client
from .links import Connect
from .streams import ByteStream

__all__ = ["ByteStream", "Client", "Connect", "Link", "Session", "Stream"]
