"""Runs of pytest within a test, with our plugin."""

from __future__ import annotations

from importlib import import_module
from textwrap import dedent
from typing import TYPE_CHECKING

import vastroute
import vastroute_testing
from vastroute_testing.memory import Client

if TYPE_CHECKING:
    import pytest

PLUGIN = "vastroute_testing.pytest_plugin"

# What is imported within such a run is taken out after it, and would be there twice: so all of it is imported before.
for package in (vastroute, vastroute_testing):
    for name in package.__all__:
        getattr(package, name)
for name in ("asyncio", "blocking", "trio"):
    import_module(f"vastroute_io.{name}")
for name in ("hooks", "network", "rigs", "trio_time"):
    import_module(f"{PLUGIN}.{name}")
engine = vastroute_testing.SimulatedEngine(vastroute_testing.SimulatedEndpoint("e"))
Client(server=engine).call("e", "/echo", {})  # which imports cryptography, a part at a time

HEAD = """
import asyncio
import socket

import pytest
import trio

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import *
from vastroute_testing import BEGIN, EVERY, Html, Refuse, SimulatedEndpoint, SimulatedEngine, Status, WorkerPlan
from vastroute_testing.trouble import *

CALL = ("my-endpoint", "/echo", {"n": 1})
"""


def run(pytester: pytest.Pytester, source: str, *args: str) -> pytest.RunResult:
    """Run a module of `source`, with some imports before it."""
    pytester.makepyfile(HEAD + dedent(source))
    return pytester.runpytest_inprocess(
        "-p", PLUGIN, "-p", "no:cacheprovider", "--strict-markers", "-W", "error", *args
    )
