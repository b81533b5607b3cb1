"""The core does no I/O, keeps no hidden state, and changes a machine's state by its table only.

Every module under ``src/vastroute`` is parsed, functions included, and judged by the rules below. A rule gives the
findings of one module; the snippets at the end show that each rule sees what it is for.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import pytest

_SPEC = find_spec("vastroute")
assert _SPEC is not None
assert _SPEC.origin is not None
FOLDER = Path(_SPEC.origin).parent
MODULES = {
    ".".join(path.relative_to(FOLDER).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in sorted(FOLDER.glob("**/*.py"))
}

EVERYWHERE = frozenset({"__future__", "attrs", "collections", "enum", "functools", "json", "math", "re", "typing"})
"""What any module of the core may import; a package stands for what is in it."""

FURTHER = {
    "__init__": {"importlib"},
    "failures": {"errno"},
    "reading": {"datetime"},
    "guard": {"bisect", "ipaddress"},
    "http1": {"h11"},
    "lookups": {"binascii", "hashlib"},
    "signature": {"base64", "cryptography", "hashlib"},
    "urls": {"ipaddress"},
    "verification": {"base64", "binascii", "hashlib", "hmac"},
}
"""What one module may import beside that."""

OURS = {"errors": frozenset[str](), "state": frozenset({"errors"})}
"""The modules that may import only these of ours; at the bottom of the house there are no circles."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


BANNED_NAMES = _words(
    "__import__ breakpoint compile delattr eval exec exit globals help input locals open print quit setattr"
)
BANNED_MODULES = _words(
    "asyncio builtins io logging os pathlib random secrets select signal socket ssl subprocess sys tempfile threading "
    "time trio uuid warnings"
)
BANNED_CALLS = _words("astimezone fromtimestamp getenv now today urandom utcnow")
"""Methods that read a clock, a time zone, the environment or the system's randomness, whatever they are called on."""

MUTABLE = _words(
    "ChainMap Counter OrderedDict WeakKeyDictionary WeakValueDictionary bytearray count cycle defaultdict deque dict "
    "iter list set"
)
MUTATORS = _words(
    "add append appendleft clear discard extend insert move_to_end pop popitem popleft remove reverse setdefault sort "
    "update"
)
CACHES = frozenset({"cache", "lru_cache"})
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

Findings: TypeAlias = Iterator[tuple[int, str]]
Rule: TypeAlias = Callable[[str, ast.Module], Findings]


# --- the rules -----------------------------------------------------------------------------------------------------


def imports(module: str, tree: ast.Module) -> Findings:
    """Only what the lists allow is imported."""
    for_types = {id(node) for block in _for_types_only(tree) for node in ast.walk(block)}
    for node, name, ours in _imported(tree):
        if ours:
            if module in OURS and name not in OURS[module] and id(node) not in for_types:
                yield node.lineno, f"imports {name} of ours"
        elif not any(name == allowed or name.startswith(f"{allowed}.") for allowed in _allowed(module)):
            yield node.lineno, f"imports {name}"


def calls(module: str, tree: ast.Module) -> Findings:
    """Nothing that reads or writes the world outside is named or called."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()) if name in BANNED_NAMES:
                if (module, name) != ("__init__", "globals"):  # where names are loaded on first use
                    yield node.lineno, f"uses {name}"
            case ast.Attribute(value=ast.Name(id=name)) if name in BANNED_MODULES:
                yield node.lineno, f"uses {ast.unparse(node)}"
            case ast.Call(func=ast.Attribute(attr=name)) if name in BANNED_CALLS:
                yield node.lineno, f"calls {ast.unparse(node.func)}"


def module_state(module: str, tree: ast.Module) -> Findings:
    """What stands at the level of a module or a class is a constant, and no function writes to it."""
    for statement in _outside_functions(tree):
        if isinstance(statement, ast.Assign | ast.AnnAssign) and not _is_constant(statement):
            yield statement.lineno, f"holds a mutable {ast.unparse(statement)}"
    shared = {name for statement in tree.body for name in _bound(statement)}
    for function in (node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)):
        if not isinstance(function, ast.Lambda) and _is_cached(function) and ast.unparse(function.args):
            yield function.lineno, f"caches by argument: {function.name}"
        foreign = shared - _local_names(function)
        for node in ast.walk(function):
            match node:
                case ast.Global():
                    yield node.lineno, f"writes global {', '.join(node.names)}"
                case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                    if _root(node) in foreign:
                        yield node.lineno, f"writes {ast.unparse(node)}"
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                    if method in MUTATORS and name in foreign:
                        yield node.lineno, f"calls {ast.unparse(node.func)}"


def machine_state(module: str, tree: ast.Module) -> Findings:
    """Tables stand in ``state``; a machine's state comes from `advance`, or is the first one, in ``__init__``."""
    if module != "state":
        imported = {node.asname or node.name for node in ast.walk(tree) if isinstance(node, ast.alias)}
        for statement in tree.body:
            for name in set(_bound(statement)) - imported:
                if name.endswith("_TABLE") or (name.endswith(("State", "Input")) and _is_enum(statement)):
                    yield statement.lineno, f"defines {name}"
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        for node in ast.walk(function):
            for target, value in _assigned(node):
                is_state = isinstance(target, ast.Attribute) and target.attr == "_state"
                first = function.name == "__init__" and _is_state_member(value)
                if is_state and not (first or _is_advance(value, target)):
                    yield target.lineno, f"assigns {ast.unparse(target)} in {function.name}"
                if isinstance(target, ast.Attribute) and not is_state and _is_state_member(value):
                    yield target.lineno, f"keeps a state in {ast.unparse(target)}"


def time_by_name(module: str, tree: ast.Module) -> Findings:
    """Where the public can pass a time or a source of randomness, it does so by name."""
    for cls in (node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")):
        yield from _times_by_position(cls.body)
    yield from _times_by_position(tree.body)


RULES: tuple[Rule, ...] = (imports, calls, module_state, machine_state, time_by_name)


# --- what the rules are made of ------------------------------------------------------------------------------------


def _allowed(module: str) -> frozenset[str]:
    return EVERYWHERE | FURTHER.get(module, set())


def _imported(tree: ast.Module) -> Iterator[tuple[ast.stmt, str, bool]]:
    """Every imported module, and whether it is one of ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node, node.module, False
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from ((node, name, True) for name in names)


def _for_types_only(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body


def _outside_functions(node: ast.AST) -> Iterator[ast.stmt]:
    """The statements that run once, when the module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and not isinstance(child, FUNCTIONS):
            yield child
            yield from _outside_functions(child)


def _is_constant(statement: ast.Assign | ast.AnnAssign) -> bool:
    names = [ast.unparse(target) for target in getattr(statement, "targets", [])]
    match statement.value:
        case ast.List() | ast.Set() | ast.ListComp() | ast.SetComp():
            return names == ["__all__"]
        case ast.Dict(keys=keys):  # a table; an empty one is there to be filled
            return bool(keys)
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name not in MUTABLE
    return True


def _is_cached(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = (ast.unparse(each).partition("(")[0].rpartition(".")[2] for each in function.decorator_list)
    return any(name in CACHES for name in names)


def _is_enum(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in statement.bases)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement at module level binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _local_names(function: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> set[str]:
    names = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
    return names


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Every target of a statement that is not a tuple, with its value where there is one of its own."""
    match node:
        case ast.Assign(targets=targets, value=value):
            given: list[tuple[ast.expr, ast.expr | None]] = [(target, value) for target in targets]
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            given = [(target, value)]
        case ast.AugAssign(target=target) | ast.For(target=target) | ast.comprehension(target=target):
            given = [(target, None)]
        case ast.withitem(optional_vars=ast.expr() as target):
            given = [(target, None)]
        case ast.Delete(targets=targets):
            given = [(target, None) for target in targets]
        case _:
            return
    while given:
        each, its_value = given.pop()
        if isinstance(each, ast.Tuple | ast.List):
            values = its_value.elts if isinstance(its_value, ast.Tuple | ast.List) else [None] * len(each.elts)
            given += zip(each.elts, values, strict=False)
        else:
            yield each, its_value


def _is_state_member(value: ast.expr | None) -> bool:
    match value:
        case ast.Attribute(value=ast.Name(id=cls), attr=member):
            return cls.endswith("State") and member.isupper()
    return False


def _is_advance(value: ast.expr | None, target: ast.expr) -> bool:
    match value:
        case ast.Call(func=ast.Name(id="advance"), args=[ast.Name(id=table), before, _], keywords=[]):
            return table.endswith("_TABLE") and ast.unparse(before) == ast.unparse(target)
    return False


def _times_by_position(body: list[ast.stmt]) -> Findings:
    for function in body:
        if isinstance(function, ast.FunctionDef) and (function.name == "__init__" or function.name[0] != "_"):
            for arg in (*function.args.posonlyargs, *function.args.args):
                if arg.arg in {"now", "rng", "utc"}:
                    yield arg.lineno, f"takes {arg.arg} by position in {function.name}"


# --- the tests -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
@pytest.mark.parametrize("module", MODULES)
def test_the_core_keeps_its_rules(module: str, rule: Rule) -> None:
    found = [f"{module}.py:{line} {text}" for line, text in rule(module, MODULES[module])]
    assert not found, "; ".join(found)


@pytest.mark.parametrize("module", FURTHER)
def test_nothing_is_allowed_that_nobody_needs(module: str) -> None:
    imported = {name.partition(".")[0] for _, name, ours in _imported(MODULES[module]) if not ours}
    assert FURTHER[module] - imported == set()


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (imports, "import time"),
        (imports, "import os.path"),
        (imports, "from random import random"),
        (imports, "import jsonschema"),
        (imports, "def f():\n    from cryptography.hazmat import primitives"),
        (imports, "if True:\n    import h11"),
        (imports, "import vastroute.codec"),
        (calls, "def f():\n    print(1)"),
        (calls, "run(callback=print)"),
        (calls, "x = time.monotonic()"),
        (calls, "x = os.environ"),
        (calls, "from datetime import datetime\nx = datetime.now()"),
        (calls, "setattr(machine, '_state', 1)"),
        (calls, "globals()['x'] = 1"),
        (module_state, "SEEN = {}"),
        (module_state, "SEEN: dict[str, int] = {}"),
        (module_state, "SEEN = [1]"),
        (module_state, "import collections\nSEEN = collections.deque()"),
        (module_state, "class C:\n    seen = set()"),
        (module_state, "X = 1\ndef f():\n    global X\n    X = 2"),
        (module_state, "TABLE = {1: 2}\ndef f():\n    TABLE[2] = 3"),
        (module_state, "TABLE = {1: 2}\ndef f():\n    del TABLE[1]"),
        (module_state, "from .state import TABLE\ndef f():\n    TABLE.update({})"),
        (module_state, "class C:\n    n = 0\n    def f(self):\n        C.n += 1"),
        (module_state, "from functools import cache\n@cache\ndef f(x):\n    return x"),
        (module_state, "import functools\n@functools.lru_cache(maxsize=1)\ndef f(x):\n    return x"),
        (machine_state, "def f(self):\n    self._state = AskState.WAITING"),
        (machine_state, "def f(self):\n    self._state, x = AskState.WAITING, 1"),
        (machine_state, "def f(self):\n    self._state = advance(ASK_TABLE, other._state, given)"),
        (machine_state, "def f(self):\n    self._state = advance({}, self._state, given)"),
        (machine_state, "def __init__(self, state):\n    self._state = state"),
        (machine_state, "def f(self):\n    self._where = AskState.WAITING"),
        (machine_state, "def f(self, states):\n    for self._state in states: pass"),
        (machine_state, "OTHER_TABLE = {}"),
        (machine_state, "class OtherState(Enum):\n    A = 1"),
        (time_by_name, "def f(now): pass"),
        (time_by_name, "class C:\n    def f(self, now): pass"),
        (time_by_name, "class C:\n    def __init__(self, rng): pass"),
    ],
)
def test_the_rules_see(rule: Rule, source: str) -> None:
    assert list(rule("made_up", ast.parse(source)))


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (imports, "from collections.abc import Mapping\nfrom .errors import InvalidValue"),
        (calls, "import re\nx = re.compile('x')"),
        (module_state, "TABLE = {1: 2}\ndef f(TABLE):\n    TABLE[1] = 3\n    mine = {}\n    mine[1] = TABLE[1]"),
        (module_state, "from functools import cache\n@cache\ndef f():\n    return ()"),
        (machine_state, "def __init__(self):\n    self._state = AskState.WAITING"),
        (machine_state, "def f(self):\n    self._state = advance(ASK_TABLE, self._state, given)"),
        (machine_state, "def f(self):\n    state = self._state\n    x = AskState.WAITING"),
        (time_by_name, "def f(*, now): pass\ndef _g(now): pass"),
    ],
)
def test_the_rules_let_pass(rule: Rule, source: str) -> None:
    assert list(rule("made_up", ast.parse(source))) == []
