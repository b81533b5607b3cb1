"""The exceptions that mean "the exchange failed", for all transports. Every other one flies."""

from __future__ import annotations

from vastroute import ConnectionFailed, TunnelFailed

FAILURES = (OSError, TunnelFailed, ConnectionFailed)
"""What ends an exchange over any kind of socket; `ssl.SSLError`, time-outs and look-ups are among the OSErrors, and a
guard's refusal is a `vastroute.ConnectionFailed`. The core knows what each amounts to."""
