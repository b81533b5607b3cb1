"""Call Vast.ai's serverless GPU workers: the protocol as pure machines and functions, without any I/O.

What needs h11 or is rarely used is loaded on first use, so that importing this costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .actions import Action, Done, GiveUp, Machine, Receive, Send, WaitUntil, Why
from .calls import RouteCall, RouteResult, RouteState
from .codec import decode_route, encode_route
from .errors import (
    Advice,
    CallFailed,
    Cancelled,
    ConnectionFailed,
    FailureKind,
    InvalidValue,
    KeyRefused,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
    Refused,
    SignatureRefused,
    TunnelFailed,
    UnexpectedAnswer,
    VastrouteError,
)
from .machine import AskMachine
from .messages import (
    ENGINE,
    Grant,
    Headers,
    HttpRequest,
    HttpResponse,
    NotReady,
    ResponseHead,
    RouteRequest,
    Secret,
)
from .policy import Limits, Pause, RetryPolicy, WorstCase
from .record import Counts, Entry, EntryKind, Record
from .reqnum import ReqnumGate, ReqnumOrder, ReqnumTracker, ReqnumVerdict
from .signature import (
    FORMS,
    PublicKey,
    Reason,
    SignatureMode,
    SigningForm,
    Verdict,
    Verifier,
    signed_text,
    verify,
)
from .state import ASK_TABLE, AskInput, AskState
from .urls import Origin

if TYPE_CHECKING:
    from .guard import Guard, GuardReason, GuardRefusal
    from .http1 import Broken, ConnectTunnel, End, Event, Http1Connection
    from .lookups import PublicKeyCall, decode_public_key, encode_public_key
    from .pool import Holding, Open, Pool, PoolLimits, Ticket, Use, Wait

_ON_FIRST_USE = {
    "Broken": "http1",
    "ConnectTunnel": "http1",
    "End": "http1",
    "Event": "http1",
    "Guard": "guard",
    "GuardReason": "guard",
    "GuardRefusal": "guard",
    "Holding": "pool",
    "Http1Connection": "http1",
    "Open": "pool",
    "Pool": "pool",
    "PoolLimits": "pool",
    "PublicKeyCall": "lookups",
    "Ticket": "pool",
    "Use": "pool",
    "Wait": "pool",
    "decode_public_key": "lookups",
    "encode_public_key": "lookups",
}

__all__ = [
    "ASK_TABLE",
    "ENGINE",
    "FORMS",
    "Action",
    "Advice",
    "AskInput",
    "AskMachine",
    "AskState",
    "Broken",
    "CallFailed",
    "Cancelled",
    "ConnectTunnel",
    "ConnectionFailed",
    "Counts",
    "Done",
    "End",
    "Entry",
    "EntryKind",
    "Event",
    "FailureKind",
    "GiveUp",
    "Grant",
    "Guard",
    "GuardReason",
    "GuardRefusal",
    "Headers",
    "Holding",
    "Http1Connection",
    "HttpRequest",
    "HttpResponse",
    "InvalidValue",
    "KeyRefused",
    "LimitReached",
    "Limits",
    "LocalProtocolError",
    "Machine",
    "NotReady",
    "Open",
    "Origin",
    "Outcome",
    "Pause",
    "Phase",
    "Pool",
    "PoolLimits",
    "PublicKey",
    "PublicKeyCall",
    "Reason",
    "Receive",
    "Record",
    "Refused",
    "ReqnumGate",
    "ReqnumOrder",
    "ReqnumTracker",
    "ReqnumVerdict",
    "ResponseHead",
    "RetryPolicy",
    "RouteCall",
    "RouteRequest",
    "RouteResult",
    "RouteState",
    "Secret",
    "Send",
    "SignatureMode",
    "SignatureRefused",
    "SigningForm",
    "Ticket",
    "TunnelFailed",
    "UnexpectedAnswer",
    "Use",
    "VastrouteError",
    "Verdict",
    "Verifier",
    "Wait",
    "WaitUntil",
    "Why",
    "WorstCase",
    "decode_public_key",
    "decode_route",
    "encode_public_key",
    "encode_route",
    "signed_text",
    "verify",
]


def __getattr__(name: str) -> Any:
    module = _ON_FIRST_USE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
