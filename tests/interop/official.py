"""The official client in this process, where `tests/conftest.py` watches what it dials.

The package is imported once, with its warnings put aside: they are not ours to heed.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    vastai: Any = import_module("vastai")  # it has no types


@asynccontextmanager
async def open_official(url: str, *, key: str, context: ssl.SSLContext | None = None) -> AsyncIterator[Any]:
    """An official client whose engine and console are at `url`; `key` is the account's key there.

    `context` stands in for the root certificate that it would download for any request, plain HTTP or not.
    """
    client = vastai.CoroutineServerless(key, autoscaler_url=url, webserver_url=url, max_poll_interval=0.3)
    client._ssl_context = context or ssl.create_default_context()
    async with client:
        yield client
