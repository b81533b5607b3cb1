"""The gates, and the environments they run in: ``nox -f tests/noxfile.py -l`` lists them.

Each gate is defined here and nowhere else. ``.ci/run`` and the workflow call what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
TYPED = ("vastroute", "vastroute_io", "vastroute_testing")
"""The packages with ``py.typed``, whose types are for their users."""

GATES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lint": (("ruff", "check", "."),),
    "format": (("ruff", "format", "--check", "."),),
    "types": (
        ("mypy",),
        ("pyright",),
        # What is public has a type that every checker reads alike, written down and not inferred.
        *(("pyright", "--verifytypes", name, "--ignoreexternal") for name in TYPED),
    ),
    "imports": (("lint-imports", "--no-logo"),),
    "docs": (("sphinx-build", "-W", "--keep-going", "-E", "-q", "-b", "html", "docs", "docs/_build/html"),),
    # The core's own tests have to reach all of it: what only a transport's test runs is not shown to be right.
    "coverage": (
        ("coverage", "erase"),
        ("coverage", "run", "-m", "pytest", "-q", "tests/core", "tests/house"),
        ("coverage", "report"),
    ),
}
"""Commands by gate, run at the root in an environment that holds the ``dev`` extra."""

OLDEST = ("attrs==24.1.0", "cryptography==44.0.0", "h11==0.16.0", "trio==0.27.0")
"""The lower bounds in ``pyproject.toml``, each as the one release that it names."""

nox.options.envdir = str(ROOT / ".nox")
nox.options.default_venv_backend = "venv"
nox.options.sessions = ("gates", "wheel")


def _run(session: nox.Session, *names: str) -> None:
    session.chdir(ROOT)
    for name in names:
        for command in GATES[name]:
            # pyright would ask the registry whether there is a newer one.
            session.run(*command, env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


def _run_twice(session: nox.Session, *command: str) -> None:
    """Programs of others run in real time, and a busy machine may disturb a story: what failed is told once more."""
    session.run(*command, success_codes=[0, 1])
    session.run(*command, "--last-failed", "--last-failed-no-failures=none", success_codes=[0, 5])


@nox.session(venv_backend="none")
@nox.parametrize("gate", [nox.param(name, id=name) for name in GATES])
def gates(session: nox.Session, gate: str) -> None:
    """Every gate in the environment that nox runs in, which holds the ``dev`` extra."""
    _run(session, gate)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting and import contracts, in an environment of its own."""
    session.chdir(ROOT)
    session.install("-e", ".[dev]")
    _run(session, "lint", "format", "imports")


@nox.session
def types(session: nox.Session) -> None:
    """mypy and pyright, in an environment of its own."""
    session.chdir(ROOT)
    session.install("-e", ".[dev]")
    _run(session, "types")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation with every warning an error, in an environment of its own."""
    session.chdir(ROOT)
    session.install("-e", ".[docs]")
    _run(session, "docs")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The tests over an ordinary install, on every Python that is supported and here."""
    session.chdir(ROOT)
    session.install(".[test]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def oldest(session: nox.Session) -> None:
    """The tests over the oldest releases that the lower bounds allow."""
    session.chdir(ROOT)
    session.install(".[test]", *OLDEST)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def interop(session: nox.Session) -> None:
    """The tests beside Vast.ai's own programs, which pin what they need and so have an environment of their own."""
    session.chdir(ROOT)
    session.install(".[test]", "-r", "tests/interop/requirements.txt")
    # The official client leaves connections to the garbage collector, which warns in whichever test it happens to run.
    leaks = "ignore::pytest.PytestUnraisableExceptionWarning"
    command = ("python", "-m", "pytest", "tests/interop", "-W", leaks, *session.posargs)
    _run_twice(session, *command)


@nox.session(python=PYTHONS[0])
def embedding(session: nox.Session) -> None:
    """What the documentation shows for other people's HTTP libraries, with these libraries."""
    session.chdir(ROOT)
    session.install(".[test,embed]")
    command = ("python", "-m", "pytest", "tests/embedding", *session.posargs)
    _run_twice(session, *command)
    # Its urllib3-future takes the place of urllib3 for whoever is there, so that is shown too.
    session.install("niquests>=3.21")
    _run_twice(session, *command, "-k", "not conformance or niquests")


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel as a user gets it: built from the sdist, alone in an environment, without extras."""
    session.chdir(ROOT)
    folder = Path(session.create_tmp())
    session.run("python", "-m", "venv", "--clear", str(folder / "build"))
    builder = str(folder / "build" / "bin" / "python")
    session.run(builder, "-m", "pip", "install", "--quiet", "build", external=True)
    session.run(builder, "-m", "build", "--outdir", str(folder / "dist"), external=True, silent=True)
    (built,) = (folder / "dist").glob("*.whl")
    session.install(str(built))
    session.chdir(folder)
    for module in (
        "vastroute",
        "vastroute_testing",
        "vastroute_io.asyncio",
        "vastroute_io.blocking",
        "vastroute_io.trio",
    ):
        session.run("python", "-W", "error", "-c", f"import {module}")
    said = session.run("vastroute", silent=True, success_codes=[2])
    if not isinstance(said, str) or "vastroute[cli]" not in said or "Traceback" in said:
        session.error(f"without the cli extra the command must say to install vastroute[cli], but it says: {said}")
