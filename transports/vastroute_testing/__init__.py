"""Test doubles for code that calls Vast.ai's serverless engine: no network, no account, and no waiting.

Everything is loaded on first use: importing this imports neither trio nor ssl. `vastroute_testing.memory.Client` is the
client without bytes; the transports' own clients run in virtual time against `connector`, `asyncio_connector` and
`blocking_connector`, or over real sockets against `open_loopback` and `LoopbackThread`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .asyncio_streams import AsyncioConnector, AsyncioMemoryStream, asyncio_connector
    from .clock import BEGIN, ManualClock, virtual_clock
    from .conformance import check_embedding, check_transport
    from .drive import Drive, Received, Transcript, run
    from .engine import SimulatedEngine
    from .fault_table import EVERY, Faults, FaultTable
    from .faults import (
        BadJson,
        BadSignature,
        CloseBeforeHead,
        CutBody,
        CutStreamAt,
        Delay,
        DropField,
        DropIndex,
        Fault,
        Garbled,
        Hang,
        Html,
        OtherIndex,
        Padded,
        Redirect,
        Refuse,
        ResetBeforeHead,
        SetField,
        Slow,
        Status,
    )
    from .fleet import Lifetime, SimulatedEndpoint, StatusForm
    from .keys import (
        OTHER_TEST_PRIVATE_KEY,
        OTHER_TEST_PUBLIC_KEY,
        TEST_PRIVATE_KEY,
        TEST_PUBLIC_KEY,
        public_half,
        sign,
    )
    from .life import WorkerPlan, WorkerState
    from .loopback import Loopback, LoopbackOptions, LoopbackThread, NamedServers, open_loopback
    from .memory import TEST_KEY
    from .models import MODELS, Model, ModelFailed, Work
    from .replays import RecordedCall, Replay, ReplayDiffers, replay
    from .schedule import (
        Chunk,
        Cut,
        End,
        Garbage,
        Head,
        Schedule,
        Step,
        answer,
        body_of,
        json_answer,
        stream_answer,
        whole,
    )
    from .server import Close, Serve, Server, ServerConnection, Servers, Write, check_schedule, find_server
    from .sessions import WorkerSession
    from .streams import BlockingConnector, BlockingMemoryStream, CutSizes, Road, Roads, blocking_connector
    from .tls import TestAuthority
    from .trio_streams import Connector, MemoryStream, connector
    from .virtual_loop import VirtualLoop
    from .workers import SimulatedWorker
else:
    # A type checker that saw this would take a misspelt name for one that exists.
    def __getattr__(name: str) -> Any:
        module = _ON_FIRST_USE.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{module}", __name__), name)
        globals()[name] = value
        return value


_WHERE = {
    "asyncio_streams": ("AsyncioConnector", "AsyncioMemoryStream", "asyncio_connector"),
    "clock": ("BEGIN", "ManualClock", "virtual_clock"),
    "conformance": ("check_embedding", "check_transport"),
    "drive": ("Drive", "Received", "Transcript", "run"),
    "engine": ("SimulatedEngine",),
    "fault_table": ("EVERY", "FaultTable", "Faults"),
    "faults": (
        "BadJson",
        "BadSignature",
        "CloseBeforeHead",
        "CutBody",
        "CutStreamAt",
        "Delay",
        "DropField",
        "DropIndex",
        "Fault",
        "Garbled",
        "Hang",
        "Html",
        "OtherIndex",
        "Padded",
        "Redirect",
        "Refuse",
        "ResetBeforeHead",
        "SetField",
        "Slow",
        "Status",
    ),
    "fleet": ("Lifetime", "SimulatedEndpoint", "StatusForm"),
    "keys": (
        "OTHER_TEST_PRIVATE_KEY",
        "OTHER_TEST_PUBLIC_KEY",
        "TEST_PRIVATE_KEY",
        "TEST_PUBLIC_KEY",
        "public_half",
        "sign",
    ),
    "life": ("WorkerPlan", "WorkerState"),
    "loopback": ("Loopback", "LoopbackOptions", "LoopbackThread", "NamedServers", "open_loopback"),
    "memory": ("TEST_KEY",),
    "models": ("MODELS", "Model", "ModelFailed", "Work"),
    "replays": ("RecordedCall", "Replay", "ReplayDiffers", "replay"),
    "schedule": (
        "Chunk",
        "Cut",
        "End",
        "Garbage",
        "Head",
        "Schedule",
        "Step",
        "answer",
        "body_of",
        "json_answer",
        "stream_answer",
        "whole",
    ),
    "server": ("Close", "Serve", "Server", "ServerConnection", "Servers", "Write", "check_schedule", "find_server"),
    "sessions": ("WorkerSession",),
    "streams": ("BlockingConnector", "BlockingMemoryStream", "CutSizes", "Road", "Roads", "blocking_connector"),
    "tls": ("TestAuthority",),
    "trio_streams": ("Connector", "MemoryStream", "connector"),
    "virtual_loop": ("VirtualLoop",),
    "workers": ("SimulatedWorker",),
}
_ON_FIRST_USE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "BEGIN",
    "EVERY",
    "MODELS",
    "OTHER_TEST_PRIVATE_KEY",
    "OTHER_TEST_PUBLIC_KEY",
    "TEST_KEY",
    "TEST_PRIVATE_KEY",
    "TEST_PUBLIC_KEY",
    "AsyncioConnector",
    "AsyncioMemoryStream",
    "BadJson",
    "BadSignature",
    "BlockingConnector",
    "BlockingMemoryStream",
    "Chunk",
    "Close",
    "CloseBeforeHead",
    "Connector",
    "Cut",
    "CutBody",
    "CutSizes",
    "CutStreamAt",
    "Delay",
    "Drive",
    "DropField",
    "DropIndex",
    "End",
    "Fault",
    "FaultTable",
    "Faults",
    "Garbage",
    "Garbled",
    "Hang",
    "Head",
    "Html",
    "Lifetime",
    "Loopback",
    "LoopbackOptions",
    "LoopbackThread",
    "ManualClock",
    "MemoryStream",
    "Model",
    "ModelFailed",
    "NamedServers",
    "OtherIndex",
    "Padded",
    "Received",
    "RecordedCall",
    "Redirect",
    "Refuse",
    "Replay",
    "ReplayDiffers",
    "ResetBeforeHead",
    "Road",
    "Roads",
    "Schedule",
    "Serve",
    "Server",
    "ServerConnection",
    "Servers",
    "SetField",
    "SimulatedEndpoint",
    "SimulatedEngine",
    "SimulatedWorker",
    "Slow",
    "Status",
    "StatusForm",
    "Step",
    "TestAuthority",
    "Transcript",
    "VirtualLoop",
    "Work",
    "WorkerPlan",
    "WorkerSession",
    "WorkerState",
    "Write",
    "answer",
    "asyncio_connector",
    "blocking_connector",
    "body_of",
    "check_embedding",
    "check_schedule",
    "check_transport",
    "connector",
    "find_server",
    "json_answer",
    "open_loopback",
    "public_half",
    "replay",
    "run",
    "sign",
    "stream_answer",
    "virtual_clock",
    "whole",
]


def __dir__() -> list[str]:
    return sorted(__all__)
