"""What a transport may or may not be able to do, and the laws that scripts stand for."""

from __future__ import annotations

from enum import Enum


class Feature(Enum):
    """What some scripts need and not every transport has. The values say it in words."""

    VIRTUAL_TIME = "time that passes at once"
    BYTES = "HTTP over connections that it makes itself"
    SOCKETS = "connections over sockets"
    ROADS = "connections that are opened by a function of the caller's"
    KEPT = "connections that are kept between requests"
    LOOKS = "kept connections that are looked at before they are used"
    POOL = "the option `pool`"
    HEAD_LIMITS = "limits of the client's own on an answer's head"
    KINDS = "failures that say how an exchange broke (`kind`)"
    PIECES = "answers that are reported piece by piece, each of them in its time"
    CUTS = "what came of an answer before its connection broke"
    INTERIM = "answers that follow others of the 1xx kind"
    SURPLUS = "answers that stand although more bytes came than they announced"
    STREAMS = "the verb `stream`"
    SESSIONS = "the verbs `session` and `resume_session`"
    LOOKUPS = "the verbs `endpoints`, `workers` and `fetch_public_key`, and looking for keys"
    OBSERVER = "the option `observer`"
    CANCELLATION = "calls that can be cancelled from outside"
    CONCURRENCY = "several calls at once"


class Law(Enum):
    """What the scripts are for. The values say it in words."""

    ONE_CALL = "one call is one request of the engine's, however often it asks"
    ONE_DEADLINE = "one deadline is over asking, waiting, working and streaming"
    PAY_ONCE = "work that perhaps started is never repeated by accident"
    KEYS_STAY = "a key goes to the origin that it was issued for, and nowhere else"
    GRANT_VERBATIM = "a grant is passed on byte for byte"
    SIGNATURES = "a signature is checked where a key is known"
    BLAME = "whatever a peer or the network does ends as a typed error that says what may be done"
    BOUNDED = "whatever a peer can grow is bounded"
    NO_DECISION = "a driver decides nothing: the same script has the same record everywhere"
    NOTHING_LEFT = "nothing is left open or running, however a call ends"
    CONNECTIONS = "connections are kept and used again as HTTP and the machines say"
