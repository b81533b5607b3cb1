"""What is public is named, documented and found under its name; and importing it costs and changes nothing."""

from __future__ import annotations

import ast
import copy
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from pkgutil import walk_packages
from types import FunctionType, ModuleType
from typing import Any

import attrs
import pytest

import vastroute as v

ROOTS = ("vastroute", "vastroute_cli", "vastroute_io", "vastroute_testing")


def _modules() -> Iterator[str]:
    for root in ROOTS:
        spec = find_spec(root)
        if spec is not None:
            yield root
            yield from (found.name for found in walk_packages(spec.submodule_search_locations, f"{root}."))


MODULES = tuple(name for name in _modules() if not name.endswith(".__main__"))


@cache
def _source(name: str) -> ast.Module:
    """The module's text, parsed; it need not be imported for that."""
    spec = find_spec(name)
    assert spec is not None
    return ast.parse(Path(spec.origin).read_text("utf-8") if spec.origin else "")


def _own_names(module: ModuleType) -> dict[str, str]:
    """The public names that a module defines, or that a package takes from its modules; and what defines each."""
    names: dict[str, str] = {}
    body = _source(module.__name__).body
    for statement in (*body, *(node for block in body if isinstance(block, ast.If) for node in block.body)):
        if isinstance(statement, ast.ImportFrom) and statement.level and hasattr(module, "__path__"):
            source = import_module("." * statement.level + (statement.module or ""), module.__name__).__name__
            names |= {alias.asname or alias.name: source for alias in statement.names}
        elif isinstance(statement, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names[statement.name] = module.__name__
        elif isinstance(statement, ast.Assign | ast.AnnAssign) and "TypeVar(" not in ast.unparse(statement):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {target.id: module.__name__ for target in targets if isinstance(target, ast.Name)}
    return {name: source for name, source in names.items() if not name.startswith("_")}


def _documented(source: str, name: str) -> bool:
    """Whether a text stands below the assignment of `name`."""
    body = _source(source).body
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            if name in map(ast.unparse, targets):
                return isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
    return False


def _members(cls: type) -> Iterator[tuple[str, object]]:
    """The methods and properties that a class defines for the public."""
    for name, member in vars(cls).items():
        if not name.startswith("_"):
            if isinstance(member, property):
                yield name, member.fget
            elif isinstance(member, FunctionType | classmethod | staticmethod):
                yield name, getattr(cls, name)


def _has_list(name: str) -> bool:
    assigned = (node for node in _source(name).body if isinstance(node, ast.Assign | ast.AnnAssign))
    return any(ast.unparse(node).startswith("__all__") for node in assigned)


PUBLIC = tuple(name for name in MODULES if _has_list(name))


def _classes(name: str) -> list[type]:
    """Our own classes among the public names of a module."""
    values = (getattr(module, each) for module in [import_module(name)] for each in module.__all__)
    return [value for value in values if inspect.isclass(value) and value.__module__.partition(".")[0] in ROOTS]


@pytest.mark.parametrize(
    "name", ["vastroute", "vastroute_testing", "vastroute_io.asyncio", "vastroute_io.blocking", "vastroute_io.trio"]
)
def test_what_people_import_from_has_a_list_of_names(name: str) -> None:
    assert name in PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_the_list_of_names_is_what_exists(name: str) -> None:
    module = import_module(name)
    assert len(module.__all__) == len(set(module.__all__))
    assert [each for each in module.__all__ if not hasattr(module, each)] == []
    assert set(_own_names(module)) - set(module.__all__) == set()
    assert set(module.__all__) <= set(dir(module))


def test_what_is_loaded_on_first_use_is_what_the_type_checker_sees() -> None:
    later = v._ON_FIRST_USE
    seen: dict[str, str | None] = {}
    for block in (node for node in _source("vastroute").body if isinstance(node, ast.If)):
        for node in ast.walk(block):
            if isinstance(node, ast.ImportFrom):
                seen |= {alias.name: node.module for alias in node.names}
    assert seen == later
    for name, module in later.items():
        assert getattr(v, name) is getattr(import_module(f"vastroute.{module}"), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'vastroute' has no attribute 'Rout'"):
        v.Rout  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize("name", MODULES)
def test_modules_say_what_they_are(name: str) -> None:
    assert ast.get_docstring(_source(name))


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name: str) -> None:
    module = import_module(name)
    silent = []
    for each, source in _own_names(module).items():
        value = getattr(module, each)
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            silent += [] if _documented(source, each) else [each]
        elif not value.__doc__:
            silent.append(each)
        if inspect.isclass(value):
            silent += [f"{each}.{name}" for name, member in _members(value) if not inspect.getdoc(member)]
    assert not silent, ", ".join(silent)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_classes_are_found_under_their_names(name: str) -> None:
    for cls in _classes(name):
        assert pickle.loads(pickle.dumps(cls)) is cls
        assert cls.__qualname__ == cls.__name__


def _grant() -> v.Grant:
    fields = {
        "url": "https://worker.example:8000",
        "endpoint": "e",
        "reqnum": 1,
        "signature": "c2ln",
        "cost": 100.0,
        "request_idx": 7,
    }
    grant = v.decode_route(v.HttpResponse(status=200, body=json.dumps(fields).encode()))
    assert isinstance(grant, v.Grant)
    return grant


def _values() -> Iterator[Any]:
    """One value of many public classes: those that need no argument, and these. Requests may hold a key and stay."""
    yield v.ENGINE
    yield v.FORMS[0]
    yield v.Headers((("content-type", "application/json"),))
    yield v.HttpResponse(status=200)
    yield v.ResponseHead(status=200)
    yield v.RouteRequest(endpoint="e")
    yield v.WaitUntil(at=1.0, why=v.Why.POLL)
    yield v.Verdict(reason=v.Reason.NO_KEY)
    yield v.Entry(kind=v.EntryKind.ASKED, at=1.0, phase=v.Phase.ROUTE, attempt=1)
    yield v.Record(((v.EntryKind.ASKED, 1.0, v.Phase.ROUTE, 1, None, None, "", None),))
    yield v.Done(result=1)
    yield _grant()
    for cls in _classes("vastroute"):
        if attrs.has(cls):
            fields = attrs.fields(cls)
            if cls.__hash__ is not None and not any(each.init and each.default is attrs.NOTHING for each in fields):
                yield cls()


@pytest.mark.parametrize("value", tuple(_values()), ids=lambda value: type(value).__name__)
def test_values_print_and_travel(value: Any) -> None:
    assert repr(value).startswith(f"{type(value).__name__}(")
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    assert hash(pickle.loads(pickle.dumps(value))) == hash(value)


def test_errors_travel_with_all_that_is_known() -> None:
    error = v.Refused("no", phase=v.Phase.ROUTE, outcome=v.Outcome.ANSWERED, advice=v.Advice.CHECK_INPUT, status=400)
    error.request_idx = 7
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


# --- what an import costs and changes ------------------------------------------------------------------------------


def _fresh(code: str) -> str:
    """What `code` prints in an interpreter of its own, where every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(
    ("name", "never"),
    [
        ("vastroute", {"asyncio", "cryptography", "h11", "socket", "ssl", "trio"}),
        ("vastroute_io", {"asyncio", "trio"}),
        ("vastroute_io.asyncio", {"trio"}),
        ("vastroute_io.blocking", {"asyncio", "trio"}),
        ("vastroute_testing", {"asyncio", "pytest", "trio"}),
    ],
)
def test_an_import_loads_no_more_than_it_must(name: str, never: set[str]) -> None:
    loaded = _fresh(f"import sys; before = set(sys.modules); import {name}; print(*(set(sys.modules) - before))")
    assert {each.partition(".")[0] for each in loaded.split()} & never == set()


SIDE_EFFECTS = """
import logging, os, signal, sys, threading, warnings
from importlib import import_module

def world():
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "warnings": list(warnings.filters),
        "log handlers": list(logging.root.handlers),
        "log level": logging.root.level,
        "loggers": sorted(name for name in logging.root.manager.loggerDict if name.startswith("vastroute")),
        "signals": [signal.getsignal(number) for number in signal.valid_signals()],
        "hooks": [sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook],
        "threads": threading.active_count(),
        "path": list(sys.path),
        "recursion": sys.getrecursionlimit(),
    }

for name in THEIRS:
    import_module(name)
before = world()
for name in OURS:
    import_module(name)
after = world()
print(*(what for what in before if before[what] != after[what]))
"""


def test_an_import_changes_nothing() -> None:
    theirs = ("asyncio", "attrs", "cryptography", "cyclopts", "h11", "pytest", "rich", "trio", "trustme")
    names = f"OURS = {MODULES!r}\nTHEIRS = {theirs!r}\n"
    assert _fresh(names + SIDE_EFFECTS).split("\n") == ["", ""]
