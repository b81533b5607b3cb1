"""Streamed answers: the standard's examples, every line end, every cut, every limit, and what is at the end."""

from __future__ import annotations

import json
import re
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, TypeAlias

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute.decoders import StreamLimits
from vastroute.errors import (
    Advice,
    FailureKind,
    InvalidValue,
    LimitReached,
    LocalProtocolError,
    Outcome,
    Phase,
    UnexpectedAnswer,
)
from vastroute.streams import (
    CONTENT_TYPES,
    DONE,
    EventStream,
    JsonLine,
    JsonLines,
    RawChunks,
    ServerSentEvent,
    StreamDecoder,
    StreamEvent,
    stream_decoder,
)

BOM = b"\xef\xbb\xbf"
TINY = StreamLimits(max_line=20, max_event=25)

Ending: TypeAlias = tuple[list[StreamEvent], bool, bool, str | None]
"""The events, `finished`, `incomplete`, and the limit that stopped it all."""


def run(decoder: StreamDecoder, pieces: Iterable[bytes]) -> Ending:
    events: list[StreamEvent] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.end()
    except LimitReached as error:
        return events, decoder.finished, decoder.incomplete, error.limit
    return events, decoder.finished, decoder.incomplete, None


def sse(body: bytes, limits: StreamLimits = StreamLimits()) -> list[ServerSentEvent]:
    """The events of a whole body, the same in three ways of cutting it."""
    decoder = EventStream(limits)
    events = decoder.feed(body) + decoder.end()
    assert run(EventStream(limits), each_byte(body))[0] == events
    assert run(EventStream(limits), [b"", body[:1], b"", body[1:], b""])[0] == events
    return events


def each_byte(body: bytes) -> list[bytes]:
    return [body[n : n + 1] for n in range(len(body))]


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(marks)]


def event(data: str, **others: Any) -> ServerSentEvent:
    return ServerSentEvent(data=data, **others)


# --- server-sent events: what the tables in tests/vectors/streams.json do not say ------------------------------------


def test_an_event_is_given_as_soon_as_its_line_end_is_here() -> None:
    decoder = EventStream()
    assert decoder.feed(b"data: a\r\n\r") == [event("a")]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [event("b")]
    assert decoder.feed(b"\n") == []


@pytest.mark.parametrize(
    "decoder", [EventStream(), JsonLines(), RawChunks()], ids=lambda decoder: type(decoder).__name__
)
def test_only_the_end_says_whether_it_is_incomplete(decoder: StreamDecoder) -> None:
    decoder.feed(b'{"a": ')
    assert not decoder.ended
    assert not decoder.incomplete
    decoder.end()
    assert decoder.ended
    assert decoder.incomplete is not isinstance(decoder, RawChunks)


def test_done_and_json_of_an_event() -> None:
    assert event(DONE).done
    assert not event(" [DONE]").done
    assert event('{"a": [1, 100.0, "\u00e9"]}').json() == {"a": [1, 100.0, "\u00e9"]}


# --- server-sent events: properties ---------------------------------------------------------------------------------


def by_the_book(body: bytes) -> Ending:
    """The standard's algorithm, step by step over the whole text; slow, and nothing like the real one."""
    text = body.decode("utf-8", "replace").removeprefix("\ufeff")
    *lines, last = re.split("\r\n|\r|\n", text)
    events: list[StreamEvent] = []
    data, name, last_id, retry, in_event = "", "", "", None, False
    for line in lines:
        if line == "":
            if data:
                events.append(event(data[:-1], event=name or "message", id=last_id, retry=retry))
                retry = None
            data, name, in_event = "", "", False
            continue
        if line[0] == ":":
            continue
        field, _, value = line.partition(":")
        value = value[1:] if value[:1] == " " else value
        if field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
        elif field == "id":
            last_id = last_id if "\0" in value else value
        elif field == "retry":
            retry = int(value) if re.fullmatch("[0-9]{1,15}", value) else retry
        in_event = in_event or field in {"data", "event", "id", "retry"}
    finished = any(isinstance(each, ServerSentEvent) and each.done for each in events)
    return events, finished, bool(last) or in_event, None


PARTS = st.sampled_from(
    [
        *(b"data", b"data:", b"data: ", b"event: ", b"id: ", b"retry: ", b"7", b":", b" ", b"x", b"[DONE]", b"\0", BOM),
        *(b"\n", b"\n", b"\r", b"\r\n", b"\n\n", b"\r\n\r\n", b"\xe2", b"\x82", b"\xac", b"\xff", "\u2028".encode()),
    ]
)
BODIES = st.lists(PARTS | st.binary(max_size=3), max_size=30).map(b"".join)
PLACES = st.lists(st.integers(0, 10_000), max_size=12)


@given(BODIES, PLACES)
def test_events_are_the_standards_however_the_bytes_are_cut(body: bytes, places: list[int]) -> None:
    expected = by_the_book(body)
    assert run(EventStream(), [body]) == expected
    assert run(EventStream(), cut(body, places)) == expected
    assert run(EventStream(), each_byte(body)) == expected


@given(BODIES, PLACES)
def test_limits_do_not_depend_on_how_the_bytes_are_cut(body: bytes, places: list[int]) -> None:
    whole = run(EventStream(TINY), [body])
    assert run(EventStream(TINY), cut(body, places)) == whole
    assert run(EventStream(TINY), each_byte(body)) == whole
    lines = run(JsonLines(TINY), [body])
    assert run(JsonLines(TINY), cut(body, places)) == lines
    assert run(JsonLines(TINY), each_byte(body)) == lines


ONE_LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)
EVENTS = st.lists(
    st.builds(
        ServerSentEvent,
        data=st.lists(ONE_LINE, min_size=1, max_size=3).map("\n".join),
        event=ONE_LINE.filter(bool) | st.just("message"),
        id=st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=20),
        retry=st.none() | st.integers(0, 10**15 - 1),
    ),
    max_size=5,
)


@given(EVENTS, st.data(), PLACES)
def test_what_is_written_is_read(events: list[ServerSentEvent], data: st.DataObject, places: list[int]) -> None:
    def line(field: str, value: str) -> str:
        end = data.draw(st.sampled_from(["\n", "\r", "\r\n"]))
        space = " " if value.startswith(" ") else data.draw(st.sampled_from(["", " "]))
        return f"{field}:{space}{value}{end}"

    text = data.draw(st.sampled_from(["", "\ufeff"]))
    for each in events:
        fields = [line("data", part) for part in each.data.split("\n")]
        fields += [line("event", each.event), line("id", each.id), line("", "a comment")]
        fields += [] if each.retry is None else [line("retry", str(each.retry))]
        # A CR and the blank line's LF would be one line end.
        text += "".join(fields) + data.draw(st.sampled_from(["\r", "\r\n", "\r\r\n"]))
    body = text.encode()
    got, _, incomplete, _ = run(EventStream(), cut(body, places))
    assert got == events
    assert not incomplete


# --- JSON Lines -----------------------------------------------------------------------------------------------------


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), st.lists, max_leaves=5)


@given(st.lists(JSON, max_size=6), st.sampled_from(["\n", "\r\n"]), st.booleans(), PLACES)
def test_json_values_go_through(values: list[Any], end: str, ended: bool, places: list[int]) -> None:
    text = end.join(json.dumps(value, ensure_ascii=False) for value in values)
    body = (text + end * ended).encode()
    decoder = JsonLines()
    got = [line for piece in cut(body, places) for line in decoder.feed(piece)] + decoder.end()
    assert [line.json() for line in got] == values
    assert not decoder.incomplete


# --- raw chunks -----------------------------------------------------------------------------------------------------


def test_raw_chunks_pass_the_bytes_on() -> None:
    decoder = RawChunks()
    assert decoder.feed(b"\xff\n") == [b"\xff\n"]
    assert decoder.feed(b"") == []
    assert decoder.rest == b""
    assert decoder.end() == []
    assert (decoder.ended, decoder.finished, decoder.incomplete) == (True, False, False)


# --- what all share -------------------------------------------------------------------------------------------------

DECODERS: list[Callable[[], StreamDecoder]] = [EventStream, JsonLines, RawChunks]


@pytest.mark.parametrize("decoder", DECODERS)
def test_nothing_is_taken_after_the_end(decoder: Callable[[], StreamDecoder]) -> None:
    stream = decoder()
    stream.end()
    with pytest.raises(LocalProtocolError, match="over"):
        stream.feed(b"data: a\n\n")
    with pytest.raises(LocalProtocolError, match="over"):
        stream.end()
    assert (stream.finished, stream.incomplete, stream.rest) == (False, False, b"")


@pytest.mark.parametrize(
    ("content_type", "decoder"),
    [
        *CONTENT_TYPES.items(),
        ("text/event-stream; charset=utf-8", EventStream),
        (" Text/Event-Stream ;charset=UTF-8", EventStream),
        ("application/x-ndjson;q=1", JsonLines),
        ("application/json", RawChunks),
        ("text/event-streams", RawChunks),
        ("video/mp4", RawChunks),
        ("", RawChunks),
        (None, RawChunks),
    ],
)
def test_the_content_type_picks_the_decoder(content_type: str | None, decoder: type[StreamDecoder]) -> None:
    assert type(stream_decoder(content_type)) is decoder


def test_the_documented_content_types_are_known() -> None:
    assert {"text/event-stream", "application/x-ndjson", "application/jsonl", "application/json-lines"} <= set(
        CONTENT_TYPES
    )


def test_the_picked_decoder_has_the_limits() -> None:
    with pytest.raises(LimitReached):
        stream_decoder("application/jsonl", StreamLimits(max_line=1)).feed(b"12")


@pytest.mark.parametrize("text", ["", "[DONE]", "{", "{'a': 1}", "1 2", "\ufeff1", "[" * 200_000, "9" * 5000, "\ud800"])
def test_what_is_not_json_is_kept_whole(text: str) -> None:
    for each in (event(text), JsonLine(text=text)):
        with pytest.raises(UnexpectedAnswer) as caught:
            each.json()
        error = caught.value
        assert error.body == text.encode("utf-8", "replace")
        assert (error.phase, error.outcome, error.advice) == (Phase.WORKER, Outcome.ANSWERED, Advice.CHECK_ANSWER)
        assert len(error.excerpt) <= 200
        assert error.__cause__ is None


def test_pythons_extensions_of_json_are_taken() -> None:
    # Model servers written in Python write NaN; the official client takes it (wire facts, section 2).
    assert repr(JsonLine(text="[NaN, Infinity]").json()) == "[nan, inf]"


@pytest.mark.parametrize("value", [event("x"), JsonLine(text="x"), StreamLimits()])
def test_values_are_frozen(value: Any) -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        value.data = "y"


# --- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1", None])
def test_limits_are_whole_numbers(value: Any) -> None:
    with pytest.raises(InvalidValue, match="max_line"):
        StreamLimits(max_line=value)
    with pytest.raises(InvalidValue, match="max_event"):
        StreamLimits(max_event=value)


def test_the_default_limits() -> None:
    assert StreamLimits() == StreamLimits(max_line=2**20, max_event=2**22)


@pytest.mark.parametrize(
    ("body", "datas", "limit"),
    [
        (b"data: " + b"a" * 14 + b"\n\n", ["a" * 14], None),
        (BOM + b"data: " + b"a" * 14 + b"\r\n\r\n", ["a" * 14], None),
        (b"data: " + b"a" * 15 + b"\n\n", [], "max_line"),
        (b"data: " + b"a" * 15, [], "max_line"),
        (b": " + b"a" * 19 + b"\n", [], "max_line"),
        (b"data: a\n\ndata: " + b"a" * 15 + b"\n\ndata: b\n\n", ["a"], "max_line"),
        (b"data: a\n\ndata: b\n\n" + b"a" * 21, ["a", "b"], "max_line"),
        (b"data: a\n\ndata: b\n" + b"a" * 21 + b"\n\n", ["a"], "max_line"),
        # 12 bytes, a line feed, 12 bytes.
        (b"data: aaaaaaaaaaaa\ndata: bbbbbbbbbbbb\n\n", ["a" * 12 + "\n" + "b" * 12], None),
        (b"data: aaaaaaaaaaaa\ndata: bbbbbbbbbbbbb\n\n", [], "max_event"),
        (b"data: x\n\n" + b"data\n" * 26 + b"\n", ["x", "\n" * 25], None),
        (b"data: x\n\n" + b"data\n" * 27 + b"\n", ["x"], "max_event"),
        (b": aaaaaaaaaaaaaaaaa\n" * 20 + b"data: x\n\n", ["x"], None),
        (b"event: aaaaaaaaaaaaa\n" * 20 + b"data: x\n\n", ["x"], None),
    ],
)
def test_the_limits_of_an_event_stream(body: bytes, datas: list[str], limit: str | None) -> None:
    for pieces in ([body], each_byte(body)):
        events, _, _, reached = run(EventStream(TINY), pieces)
        assert [each.data for each in events if isinstance(each, ServerSentEvent)] == datas
        assert reached == limit


def test_one_event_may_not_be_larger_than_its_limit_in_one_line_either() -> None:
    limits = StreamLimits(max_line=100, max_event=5)
    assert sse(b"data: 12345\n\n", limits) == [event("12345")]
    assert run(EventStream(limits), [b"data: 123456\n\n"])[3] == "max_event"


@pytest.mark.parametrize("decoder", [EventStream, JsonLines])
def test_events_before_the_error_are_given_first(decoder: type[EventStream | JsonLines]) -> None:
    stream = decoder(TINY)
    assert len(stream.feed(b"data: 1\n\n" + b"x" * 21 + b"\n\ndata: 2\n\n")) == 1
    with pytest.raises(LimitReached) as caught:
        stream.feed(b"data: 3\n\n")
    with pytest.raises(LimitReached) as again:
        stream.feed(b"")
    with pytest.raises(LimitReached) as at_end:
        stream.end()
    error = caught.value
    assert error is again.value is at_end.value
    assert (error.phase, error.outcome, error.advice) == (Phase.WORKER, Outcome.ANSWERED, Advice.RAISE_LIMIT)
    assert (error.kind, error.limit) == (FailureKind.TOO_LARGE, "max_line")
    assert error.excerpt == "x" * 21
    assert str(error) == f"worker: a line of the stream is longer than the 20 bytes allowed (it said: {'x' * 21})"
    assert stream.rest == b""
    assert not stream.ended


def test_an_error_quotes_little() -> None:
    with pytest.raises(LimitReached) as caught:
        EventStream().feed(b"x" * (2**20 + 1))
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("body", "texts", "limit"),
    [
        (b"1" * 20 + b"\n" + b"2" * 20, ["1" * 20, "2" * 20], None),
        (b"1" * 19 + b"\r\n" + b"2" * 20, ["1" * 19, "2" * 20], None),
        (b"1" * 20 + b"\r\n", [], "max_line"),
        (b"1\n" + b"2" * 21 + b"\n3\n", ["1"], "max_line"),
        (b"1\n" + b"2" * 21, ["1"], "max_line"),
        (b" " * 21, [], "max_line"),
        (b"1\n" * 100, ["1"] * 100, None),
    ],
)
def test_the_limit_of_json_lines(body: bytes, texts: list[str], limit: str | None) -> None:
    for pieces in ([body], each_byte(body)):
        events, _, _, reached = run(JsonLines(TINY), pieces)
        assert [each.text for each in events if isinstance(each, JsonLine)] == texts
        assert reached == limit


# --- cost -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decoder", "chunk"),
    [
        (EventStream, b"data: " + b"x" * 1000 + b"\n\n"),
        (EventStream, b"id: 7\nevent: x\ndata: " + b"x" * 1000 + b"\r\n\r\n"),
        (JsonLines, b'"' + b"x" * 1000 + b'"\n'),
    ],
)
def test_nothing_is_kept_of_what_was_given(decoder: type[EventStream | JsonLines], chunk: bytes) -> None:
    stream = decoder()
    tracemalloc.start()
    try:
        for _ in range(100):
            assert len(stream.feed(chunk * 10 + chunk[:500]) + stream.feed(chunk[500:])) == 11
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # More than a megabyte went through; one piece and its events are about 40 kB.
    assert peak < 150_000
    assert stream.rest == b""


@pytest.mark.parametrize("decoder", [EventStream, JsonLines])
def test_a_line_in_single_bytes_is_not_copied_each_time(decoder: type[EventStream | JsonLines]) -> None:
    # With a copy for each byte this would move 20 GB, far beyond the patience of whoever runs it.
    stream = decoder()
    for _ in range(200_000):
        stream.feed(b"x")
    assert stream.rest == b"x" * 200_000
