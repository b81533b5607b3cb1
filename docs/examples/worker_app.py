"""A worker in Starlette: one route, checked by a guard, whose answer is streamed. Run it with any ASGI server:

ENGINE_PUBLIC_KEY="$(cat pubkey.pem)" uvicorn --factory worker_app:from_environment
"""

import json
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from vastroute import Rejected, WorkerGuard

SECONDS_PER_TOKEN = 0.1


class Streaming(StreamingResponse):
    """Ends its generator with the exchange, however that ends; else only the garbage collector may do so, some day."""

    body_iterator: AsyncGenerator[str, None]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self.body_iterator):
            await super().__call__(scope, receive, send)


class Worker:
    """The app's state: the guard, and how much work is waiting."""

    def __init__(self, guard: WorkerGuard) -> None:
        self.guard = guard
        self.waiting = 0.0

    async def completions(self, request: Request) -> Response:
        body = bytearray()
        async for piece in request.stream():
            if len(body) <= 2**24:  # more than that the guard does not read: it says 413
                body += piece
        checked = self.guard.check(bytes(body), waiting=self.waiting)
        if isinstance(checked, Rejected):
            return Response(checked.body, checked.status, media_type="application/json" if checked.body else None)
        words = str(checked.payload.get("prompt", "")).split()
        return Streaming(self.tokens(words), media_type="text/event-stream")

    async def tokens(self, words: list[str]) -> AsyncGenerator[str, None]:
        cost = len(words) * SECONDS_PER_TOKEN
        self.waiting += cost
        try:
            for word in words:
                await anyio.sleep(SECONDS_PER_TOKEN)  # the model at work
                yield f"data: {json.dumps({'token': word})}\n\n"
            yield "data: [DONE]\n\n"
        finally:
            self.waiting -= cost  # also when the client went away: here a model is told to stop


def make_app(worker: Worker) -> Starlette:
    return Starlette(routes=[Route("/v1/completions", worker.completions, methods=["POST"])])


def from_environment() -> Starlette:
    guard = WorkerGuard(os.environ["ENGINE_PUBLIC_KEY"], url=os.environ.get("WORKER_URL"))
    return make_app(Worker(guard))
