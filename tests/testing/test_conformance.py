"""The conformance scripts: our transports pass them, and a transport with a mistake does not.

Each mistake is caught by the script that is named beside it: that is the proof that the scripts can fail.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import Guard, InvalidValue
from vastroute_testing import TEST_KEY, Fault, Road, faults
from vastroute_testing.conformance import (
    LEFT_OUT,
    SCRIPTS,
    Asyncio,
    Blocking,
    Ending,
    Feature,
    Harness,
    Job,
    Law,
    NotConforming,
    Report,
    Steps,
    Trio,
    check_embedding,
    check_transport,
    our_transports,
)
from vastroute_testing.conformance.scripts.comparing import FAULTS

from .third import Mistake, maker, over_sockets

THIRD_LACKS = {
    feature: LEFT_OUT[feature] for feature in (Feature.SESSIONS, Feature.LOOKUPS, Feature.OBSERVER, Feature.POOL)
}
"""What the third party's transport leaves out."""


class WaitingClock:
    """The system's clock, for a test that may not sleep."""

    def __call__(self) -> float:
        return time.monotonic()

    def sleep_until(self, at: float) -> None:
        threading.Event().wait(max(0.0, at - time.monotonic()))


OVER_MESSAGES = {
    "there are only messages: no connection, no bytes",
    "a blocking call is not cancelled from outside",
    "in virtual time blocking calls come one after the other",
    "it is checked over streams in memory",
}


@pytest.mark.parametrize(("name", "passed"), [("trio", 113), ("asyncio", 113), ("blocking", 105), ("memory", 78)])
def test_our_transports(name: str, passed: int) -> None:
    report = check_transport(*our_transports()[name])
    report.raise_for_failures()
    assert len(report) == len(SCRIPTS)
    assert Counter(result.ending for result in report)[Ending.PASSED] == passed
    assert {result.reason for result in report.not_applicable} <= OVER_MESSAGES


SOCKETS = [
    "ask",
    "cold-start",
    "work",
    "worker-dead",
    "worker-closes",
    "worker-resets",
    "same-record",
    "side-by-side",
    "framed-by-close",
    "kept-as-told",
    "stale-first-ask",
    "one-at-a-time",
    "closing",
    "deadline-first-byte",
    "deadline-trickling",
    "stream",
    "stream-left",
    "session",
    "cancel-working",
    "guard-names",
]
"""Where sockets and real time may make a difference; all are played by ``python -m vastroute_testing.conformance``."""


@pytest.mark.parametrize("name", ["trio", "asyncio", "blocking"])
def test_our_transports_over_sockets(name: str) -> None:
    make_client, harness = our_transports()[f"{name} over sockets"]
    if name == "blocking":
        make_client = partial(make_client, clock=WaitingClock())
    report = check_transport(make_client, harness, only=SOCKETS)
    report.raise_for_failures()
    assert len(report) == len(SOCKETS)
    assert len(report.not_applicable) == isinstance(harness, Blocking)


def test_a_third_partys_transport() -> None:
    report = check_transport(maker(), Blocking(), name="third", lacks=THIRD_LACKS)
    report.raise_for_failures()
    assert str(report).startswith("third: 90 passed, 24 does not apply\n")


# --- the scripts can fail --------------------------------------------------------------------------------------------


MISTAKES = [
    (Mistake.STALE_IS_FAILURE, "stale-poll"),
    (Mistake.KEEPS_ALL, "kept-as-told"),
    (Mistake.NEVER_LOOKS, "spoiled-while-idle"),
    (Mistake.NEVER_FRESH, "fresh-for-work"),
    (Mistake.KEY_FOR_WORKERS, "key-stays"),
    (Mistake.KEY_FOR_WORKERS, "key-stays-in-streams"),
    (Mistake.SWALLOWS_TIMEOUT, "deadline-first-byte"),
    (Mistake.SWALLOWS_TIMEOUT, "deadline-while-silent"),
    (Mistake.SWALLOWS_TIMEOUT, "deadline-trickling"),
    (Mistake.IGNORES_CONNECT_BY, "deadline-connecting"),
    (Mistake.IGNORES_RECEIVE, "deadline-silence"),
    (Mistake.FOLLOWS_REDIRECTS, "worker-redirects"),
    (Mistake.FOLLOWS_REDIRECTS, "engine-redirects"),
    (Mistake.DROPS_FIRST_PIECE, "work"),
    (Mistake.ALWAYS_SENT, "worker-dead"),
    (Mistake.NEVER_SENT, "worker-resets"),
    (Mistake.NEVER_SENT, "deadline-sending"),
    (Mistake.LEAKS_FAILED, "worker-closes"),
    (Mistake.LEAKS_LEFT, "stream-left"),
    (Mistake.LEAKS_LEFT, "stream-left-by-error"),
    (Mistake.LEAKS_IDLE, "ask"),
    (Mistake.NEVER_CLOSED, "closing"),
    (Mistake.RETRIES, "worker-closes"),
    (Mistake.RETRIES, "engine-fails"),
    (Mistake.JOINS_TEXT, "picture"),
    (Mistake.JOINS_TEXT, "stream"),
    (Mistake.READS_TO_THE_END, "stream-at-once"),
    (Mistake.GUESSES_KIND, "kinds"),
    (Mistake.GUESSES_KIND, "worker-faults"),
]
"""Each mistake, and a script that catches it."""


@pytest.mark.parametrize(
    ("mistake", "script"), MISTAKES, ids=[f"{mistake.name.lower()}-{script}" for mistake, script in MISTAKES]
)
def test_a_mistake_is_caught(mistake: Mistake, script: str) -> None:
    report = check_transport(maker(mistake), Blocking(), lacks=THIRD_LACKS, only=[script])
    assert [result.name for result in report.failures] == [script]
    assert report[script].reason


def test_every_mistake_is_caught() -> None:
    assert {mistake for mistake, _ in MISTAKES} == set(Mistake)


def without(*names: str) -> Callable[..., Any]:
    """A client that ignores some of its options."""

    def make(**options: Any) -> Any:
        return vastroute_io.blocking.Client(**{name: value for name, value in options.items() if name not in names})

    return make


@pytest.mark.parametrize(
    ("option", "script"),
    [
        ("limits", "body-limit"),
        ("pool", "idle-so-many"),
        ("pool", "idle-for-so-long"),
        ("stream_limits", "stream-long-line"),
        ("signature", "signature-required"),
        ("public_key", "ask"),
        ("fetch_public_key", "public-key"),
        ("observer", "observer"),
    ],
)
def test_an_option_that_is_ignored_is_caught(option: str, script: str) -> None:
    assert check_transport(without(option), Blocking(), only=[script]).failures


def test_a_guard_that_is_not_asked_is_caught() -> None:
    def make(**options: Any) -> Any:
        everything = Guard(allow_private_address=True, allow_plain_http=True)
        return vastroute_io.blocking.Client(**{**options, "guard": everything})

    assert check_transport(make, Blocking(), only=["guard"]).failures
    assert check_transport(make, Blocking(virtual=False), only=["guard-names"]).failures


class Wrapped:
    """A client whose verbs a test replaces."""

    def __init__(self, client: Any, **verbs: Callable[..., Any]) -> None:
        self._client = client
        self._verbs = verbs

    def __getattr__(self, name: str) -> Any:
        if name in self._verbs:
            return partial(self._verbs[name], self._client)
        return getattr(self._client, name)


def wrapped(cls: Callable[..., Any], **verbs: Callable[..., Any]) -> Callable[..., Any]:
    def make(**options: Any) -> Wrapped:
        return Wrapped(cls(**options), **verbs)

    return make


class Leaky:
    """An asyncio stream that is not closed where its task is being cancelled."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.send_all = inner.send_all
        self.receive_some = inner.receive_some

    def abort(self) -> None:
        task = asyncio.current_task()
        if task is None or not task.cancelling():
            self._inner.abort()


def leaking(**options: Any) -> Any:
    connect = options["connect"]

    async def opens(origin: Any) -> Leaky:
        return Leaky(await connect(origin))

    return vastroute_io.asyncio.Client(**{**options, "connect": opens})


async def stubborn(client: Any, endpoint: str, **options: Any) -> Any:
    try:
        return await client.route(endpoint, **options)
    except asyncio.CancelledError:
        return await client.route(endpoint, **options)


LEFT: set[asyncio.Task[None]] = set()


async def littering(client: Any, *args: Any, **options: Any) -> Any:
    task = asyncio.create_task(asyncio.sleep(1e9))
    LEFT.add(task)
    task.add_done_callback(LEFT.discard)
    return await client.call(*args, **options)


async def waiting(_client: Any, *_args: Any, **_options: Any) -> None:
    await asyncio.sleep(0)


async def for_ever(_client: Any, *_args: Any, **_options: Any) -> None:
    await asyncio.get_running_loop().create_future()


async def for_ever_in_trio(_client: Any, *_args: Any, **_options: Any) -> None:
    await trio.sleep_forever()


def undeadlined(client: Any, *args: Any, **options: Any) -> Any:
    options.pop("timeout", None)
    return client.call(*args, **options)


def repeating(client: Any, *args: Any, **options: Any) -> Any:
    return client.call(*args, **{**options, "safe_to_repeat": True})


class NeverEnded:
    """A session that is left open."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def __enter__(self) -> Any:
        self._session.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._session.detach()


def unended(client: Any, *args: Any, **options: Any) -> Any:
    return NeverEnded(client.session(*args, **options))


A, B, T = vastroute_io.asyncio.Client, vastroute_io.blocking.Client, vastroute_io.trio.Client


@pytest.mark.parametrize(
    ("make", "harness", "script", "words"),
    [
        (leaking, Asyncio(), "cancel-asking", "still open"),
        (leaking, Asyncio(), "cancel-streaming", "still open"),
        (wrapped(A, route=stubborn), Asyncio(), "cancel-asking", "goes on to its end"),
        (wrapped(A, call=littering), Asyncio(), "work", "still at work"),
        (wrapped(A, route=for_ever), Asyncio(), "ask", "would hang for ever"),
        (wrapped(T, route=for_ever_in_trio), Trio(), "ask", "what is not going to happen"),
        (wrapped(B, call=undeadlined), Blocking(), "deadline-waiting", "and not 9"),
        (wrapped(B, call=repeating), Blocking(), "worker-closes", "and not with CallFailed"),
        (wrapped(B, session=unended), Blocking(), "session-left-by-error", "/session/end"),
        (wrapped(B, route=waiting), Blocking(), "ask", "is the client an asynchronous one"),
    ],
)
def test_what_else_is_caught(make: Callable[..., Any], harness: Harness, script: str, words: str) -> None:
    report = check_transport(make, harness, only=[script])
    assert [result.name for result in report.failures] == [script]
    assert words in report[script].reason


# --- another library -------------------------------------------------------------------------------------------------


class Plain(Harness):
    """All that a harness has to be: six methods; and `apart`, since it is the loop that closes sockets."""

    name = "plain"

    def run(self, script: Job) -> None:
        asyncio.run(script())

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def together(self, *works: Job) -> None:
        await asyncio.gather(*(work() for work in works))

    async def cancelled_at(self, step: int, work: Job) -> bool:
        task = asyncio.current_task()
        assert task is not None
        steps = Steps(work(), step, task.cancel)
        with suppress(asyncio.CancelledError):
            await steps
        if steps.has_cancelled:
            task.uncancel()
        return steps.has_cancelled

    def at_work(self) -> int:
        return len(asyncio.all_tasks())

    async def apart(self, work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)


def test_a_harness_of_ones_own() -> None:
    only = ["ask", "pauses", "stream-left", "cancel-asking", "one-at-a-time", "slow-roads"]
    report = check_transport(vastroute_io.asyncio.Client, Plain(virtual=False), only=only)
    report.raise_for_failures()
    assert str(report).startswith("plain: 5 passed, 1 does not apply\n")
    assert report["slow-roads"].reason == "it is checked over sockets that it opens itself"
    with pytest.raises(NotImplementedError):
        Plain().connector(lambda _request, _now: (), cut=None, roads=Road())


# --- embeddings ------------------------------------------------------------------------------------------------------


def test_an_embedding() -> None:
    """The third party's driver alone, as an embedding is: over sockets, each request over a connection of its own."""
    report = check_embedding(over_sockets, Blocking(virtual=False), name="by hand", only=[*SOCKETS, "kinds"])
    report.raise_for_failures()
    not_applicable = {result.name for result in report.not_applicable}
    assert not_applicable == {"session", "cancel-working", "stale-first-ask", "one-at-a-time", "kinds"}


# --- the report ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def report() -> Report:
    only = ["ask", "work", "worker-closes", "cancel-asking"]
    return check_transport(maker(Mistake.RETRIES), Blocking(), name="mine", lacks=THIRD_LACKS, only=only)


def test_its_text_is_a_table(report: Report) -> None:
    table, _, failures = str(report).partition("\n\nworker-closes: ")
    assert table == (
        "mine: 2 passed, 1 failed, 1 does not apply\n"
        "\n"
        "ask            passed          One ask gives the grant, as it came; every argument reaches the engine.\n"
        "work           passed          The work goes to the granted worker, with the grant byte for byte, the payload "
        "and the caller's own headers.\n"
        "worker-closes  failed          it ends with Answer, and not with CallFailed\n"
        "cancel-asking  does not apply  a blocking call is not cancelled from outside"
    )
    assert failures.splitlines() == [
        "A worker that closes before it answers perhaps began: repeated only if the caller said that it may run twice.",
        "  it ends with Answer, and not with CallFailed",
        "       0.000 s  engine: POST /route/, 35 bytes: HTTP 200, 522 bytes",
        "       0.000 s  worker 1: POST /echo, 578 bytes: closed",
        "       0.000 s  worker 1: POST /echo, 578 bytes: HTTP 200, 18 bytes",
    ]


def test_it_is_a_value_for_programs(report: Report) -> None:
    values = json.loads(json.dumps(report.as_dict()))
    assert (values["transport"], values["passed"]) == ("mine", False)
    assert [row["ending"] for row in values["results"]] == ["passed", "passed", "failed", "does not apply"]
    assert "conversation" in values["results"][2]
    assert "reason" not in values["results"][0]
    assert report[0] is report["ask"]
    assert [each.name for each in report[1:3]] == ["work", "worker-closes"]
    with pytest.raises(KeyError):
        report["nothing"]


def test_failures_can_be_raised(report: Report) -> None:
    with pytest.raises(NotConforming, match="mine fails 1 of 4 scripts") as caught:
        report.raise_for_failures()
    assert report["worker-closes"].conversation in str(caught.value)
    check_transport(maker(), Blocking(), only=["ask"]).raise_for_failures()


def test_it_shows_no_secret() -> None:
    report = check_transport(maker(*Mistake), Blocking(), lacks=THIRD_LACKS)
    assert len(report.failures) > 50
    text = str(report) + json.dumps(report.as_dict()) + repr(report)
    assert TEST_KEY not in text
    assert "signature" not in text.replace("grant's signature", "").replace("signature-", "").replace("a signature", "")


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(InvalidValue, match="there is no script 'asks'"):
        check_transport(maker(), Blocking(), only=["asks"])
    with pytest.raises(InvalidValue, match="speed must be above 0"):
        Blocking(virtual=False, speed=0)


def test_a_client_that_cannot_be_made_is_a_failure() -> None:
    def make(**_: Any) -> None:
        raise ZeroDivisionError("no")

    report = check_transport(make, Trio(), only=["ask"])
    assert report["ask"].reason == "it raises ZeroDivisionError: no"


# --- the scripts -----------------------------------------------------------------------------------------------------


def test_the_scripts_say_what_they_are() -> None:
    names = [script.name for script in SCRIPTS]
    assert len(set(names)) == len(names)
    for script in SCRIPTS:
        assert script.requirement.endswith(".")
    assert {script.law for script in SCRIPTS} == set(Law)
    assert {feature for script in SCRIPTS for feature in script.needs} == set(Feature)


def test_no_fault_is_left_out() -> None:
    known = {cls for cls in Fault.__subclasses__() if cls.__module__ == faults.__name__}
    used = {type(fault) for each in FAULTS.values() for fault in (each if isinstance(each, tuple) else (each,))}
    assert used == known


def test_the_reasons_are_there_for_everything_an_embedding_leaves_out() -> None:
    reasons: Mapping[Feature, str] = LEFT_OUT
    assert all(reasons.values())
