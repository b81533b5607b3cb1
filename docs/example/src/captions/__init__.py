"""Captions for pictures: by a model on Vast.ai's GPUs, or by a poor one on this machine where that takes too long."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

import vastroute
import vastroute_io.trio

ENDPOINT, ROUTE, COST = "captions", "/v1/completions", 64
OURS = {vastroute.Advice.CHECK_KEY, vastroute.Advice.CHECK_ENDPOINT, vastroute.Advice.CHECK_INPUT}


@dataclass(frozen=True)
class Caption:
    picture: str
    text: str
    by: str = "gpu"
    is_whole: bool = True


class Captioner:
    def __init__(self, client: vastroute_io.trio.Client, *, patience: float = 900) -> None:
        self._client = client
        self._patience = patience

    async def caption(self, picture: str) -> Caption:
        """A caption within `patience` seconds, whatever happens to the GPUs."""
        prompt = {"prompt": f"Describe {picture}"}
        try:
            answer = await self._client.call(
                ENDPOINT, ROUTE, prompt, cost=COST, timeout=self._patience, safe_to_repeat=True
            )
        except vastroute.CallFailed as error:
            if error.advice in OURS:
                raise  # a mistake of ours, which no fallback should hide
            return Caption(picture, f"A picture called {picture}", by="cpu")
        return Caption(picture, answer.data["choices"][0]["text"])

    async def caption_all(self, pictures: Sequence[str], *, at_once: int = 8) -> list[Caption]:
        """Their captions, in their order."""
        captions: dict[str, Caption] = {}
        limiter = trio.CapacityLimiter(at_once)

        async def work(picture: str) -> None:
            async with limiter:
                captions[picture] = await self.caption(picture)

        async with trio.open_nursery() as nursery:
            for picture in pictures:
                nursery.start_soon(work, picture)
        return [captions[picture] for picture in pictures]

    async def story(self, picture: str) -> Caption:
        """A long caption; as much of it as came, if the worker went away in the middle."""
        prompt = {"prompt": f"Tell of {picture}", "stream": True}
        said: list[str] = []
        try:
            async with self._client.stream(ENDPOINT, ROUTE, prompt, cost=COST, timeout=self._patience) as events:
                async for event in events:
                    if isinstance(event, vastroute.ServerSentEvent) and not event.done:
                        said.append(event.json()["choices"][0]["text"])
        except vastroute.ConnectionFailed:
            return Caption(picture, "".join(said), is_whole=False)
        return Caption(picture, "".join(said))


@asynccontextmanager
async def open_captioner(*, patience: float = 900, **options: Any) -> AsyncIterator[Captioner]:
    """A captioner with a client of its own; `options` are the client's, and what tests come in by."""
    async with vastroute_io.trio.Client(**options) as client:
        yield Captioner(client, patience=patience)
