"""What simulated models answer, by route: pure functions from a payload to a timed schedule.

They are there to be seen through, not to be clever: what comes back can be told from what was sent. Give a
`vastroute_testing.life.WorkerPlan` your own `models` to have a worker answer as yours does.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs

from .schedule import Schedule, answer, json_answer, stream_answer

_MOST_EVENTS = 100_000
_MOST_SECONDS = 86_400.0
_PIXEL = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
"""A PNG of one pixel."""


class ModelFailed(Exception):
    """The model cannot do it. The worker answers 500 with nothing in it, and keeps the reason to itself."""


@attrs.frozen(kw_only=True)
class Work:
    """What a model is given."""

    payload: Mapping[str, Any] = attrs.field(hash=False)
    """The request's payload."""
    at: float
    """When the answer begins, in monotonic seconds."""
    pace: float
    """Seconds between the pieces of a stream."""
    number: int
    """The worker's running number of this request, from 1."""
    created: float
    """The same instant as `at` on the wall clock, in seconds since 1970."""

    def number_of(self, name: str, default: float, most: float) -> float:
        """The number from 0 to `most` under `name`; the model fails on anything else."""
        value = self.payload.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            raise ModelFailed(f"{name} must be a number from 0 to {most}")
        return value


Model: TypeAlias = Callable[[Work], Schedule]
"""What answers on a route. It may raise `ModelFailed`, and nothing else."""


def echo(work: Work) -> Schedule:
    """``/echo``: the payload."""
    return json_answer(200, {"echo": work.payload}, at=work.at)


def stream(work: Work) -> Schedule:
    """``/stream``: as many events as `count` says (3), then ``[DONE]``."""
    count = int(work.number_of("count", 3, _MOST_EVENTS))
    # Not ASCII on purpose: a reader that cuts characters in two is seen.
    events = ({"n": number, "text": f"t\u00f6k\u00ebn {number}"} for number in range(count))
    return _events(work, events)


def status(work: Work) -> Schedule:
    """``/status``: the HTTP status that `status` names (200)."""
    code = int(work.number_of("status", 200, 599))
    if code < 200:
        raise ModelFailed("status must be one that ends an exchange")
    if code in {204, 304}:  # these have no body
        return answer(code, at=work.at)
    return json_answer(code, {"status": code}, at=work.at)


def slow(work: Work) -> Schedule:
    """``/slow``: nothing for `seconds` (1), then their number."""
    seconds = work.number_of("seconds", 1.0, _MOST_SECONDS)
    return json_answer(200, {"seconds": seconds}, at=work.at + seconds)


def media(work: Work) -> Schedule:
    """``/media``: a picture."""
    return answer(200, _PIXEL, at=work.at, headers={"content-type": "image/png"})


def completions(work: Work) -> Schedule:
    """``/v1/completions``: OpenAI's text completion, whole or streamed."""
    call = _inner(work)
    prompt = call.get("prompt")
    if not isinstance(prompt, str):
        return _invalid(work, "prompt must be text")
    words, reason = _words(call, prompt)
    base = _base(work, call, "cmpl", "text_completion")
    if not call.get("stream"):
        choice = {"index": 0, "text": "".join(words), "logprobs": None, "finish_reason": reason}
        return json_answer(200, base | {"choices": [choice], "usage": _usage(prompt, words)}, at=work.at)

    def piece(text: str, reason: str | None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": reason}]}

    return _events(work, [*(piece(word, None) for word in words), piece("", reason)])


def chat_completions(work: Work) -> Schedule:
    """``/v1/chat/completions``: OpenAI's chat completion, whole or streamed."""
    call = _inner(work)
    messages = call.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    prompt = last.get("content") if isinstance(last, dict) else None
    if not isinstance(prompt, str):
        return _invalid(work, "messages must be a list whose last one has text as its content")
    words, reason = _words(call, prompt)
    if not call.get("stream"):
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": reason}
        base = _base(work, call, "chatcmpl", "chat.completion")
        return json_answer(200, base | {"choices": [choice], "usage": _usage(prompt, words)}, at=work.at)
    base = _base(work, call, "chatcmpl", "chat.completion.chunk")

    def piece(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
        return base | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    begin, end = piece({"role": "assistant", "content": ""}), piece({}, reason)
    return _events(work, [begin, *(piece({"content": word}) for word in words), end])


MODELS: Mapping[str, Model] = MappingProxyType(
    {
        "/echo": echo,
        "/stream": stream,
        "/status": status,
        "/slow": slow,
        "/media": media,
        "/v1/completions": completions,
        "/v1/chat/completions": chat_completions,
    }
)
"""The model behind each route of a simulated worker."""


def _events(work: Work, events: Iterable[Mapping[str, Any]]) -> Schedule:
    """Server-sent events of JSON, closed with ``[DONE]`` as OpenAI does."""
    texts = [*(json.dumps(event, ensure_ascii=False) for event in events), "[DONE]"]
    # Half of a surrogate pair, which JSON can name and UTF-8 cannot, becomes a question mark.
    pieces = (f"data: {text}\n\n".encode("utf-8", "replace") for text in texts)
    return stream_answer(pieces, at=work.at, every=work.pace, headers={"content-type": "text/event-stream"})


def _inner(work: Work) -> Mapping[str, Any]:
    """What is meant for the model: the payload, or its ``input``, as many of Vast's templates wrap it."""
    inner = work.payload.get("input")
    return inner if isinstance(inner, dict) else work.payload


def _words(call: Mapping[str, Any], prompt: str) -> tuple[list[str], str]:
    """The answer, a word (for us a token) at a time, and why it ends where it does."""
    words = f"You said: {prompt}".split(" ")
    pieces = [words[0], *(f" {word}" for word in words[1:])]
    most = call.get("max_tokens")
    if isinstance(most, int) and not isinstance(most, bool) and 0 <= most < len(pieces):
        return pieces[:most], "length"
    return pieces, "stop"


def _base(work: Work, call: Mapping[str, Any], prefix: str, kind: str) -> dict[str, Any]:
    model = call.get("model", "simulated")
    return {"id": f"{prefix}-{work.number}", "object": kind, "created": int(work.created), "model": model}


def _usage(prompt: str, words: list[str]) -> dict[str, int]:
    asked, answered = len(prompt.split()), len(words)
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered}


def _invalid(work: Work, message: str) -> Schedule:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return json_answer(400, {"error": error}, at=work.at)
