"""The servers of a script, as a client reaches them: in memory or over sockets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

from ..loopback import LoopbackThread
from .harness import Harness, Opened
from .report import NotConforming
from .stage import Stage


@final
class Network:
    """Servers that are being served, and the connections to them."""

    def __init__(self, stage: Stage, options: Mapping[str, Any], opened: Opened | LoopbackThread) -> None:
        self.stage = stage
        self.options = options
        """How a client reaches them."""
        self._opened = opened

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return self._opened.open

    @property
    def opened(self) -> int:
        """How many were opened so far."""
        return self._opened.opened if isinstance(self._opened, LoopbackThread) else len(self._opened.streams)

    async def check_closed(self, harness: Harness) -> None:
        """Raise `NotConforming` if a connection is open. The clients must have been closed."""
        if isinstance(self._opened, LoopbackThread):
            try:
                await harness.apart(self._opened.wait_idle)
            except TimeoutError as error:
                raise NotConforming(f"the client is closed, and {error}") from None
        elif self.open:
            raise NotConforming(f"the client is closed, and {self.open} connections are still open")
