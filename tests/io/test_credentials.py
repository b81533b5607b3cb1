"""Where the key comes from: the official order, looked at when a call first needs it, and never told to anybody."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vastroute import InvalidValue, Secret
from vastroute_io.credentials import key_files, load_key

from .worlds import World, engine_of

SECRET = "k3y-s0-secret"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and nothing from outside."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("VAST_API_KEY", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidValue):
        load_key()
    write(home / ".vast_api_key", "from-home\n")
    assert load_key().reveal() == "from-home"
    write(home / ".config" / "vastai" / "vast_api_key", "from-config\n")
    assert load_key().reveal() == "from-config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    assert load_key().reveal() == "from-home"
    write(home / "xdg" / "vastai" / "vast_api_key", "from-xdg\n")
    assert load_key().reveal() == "from-xdg"
    monkeypatch.setenv("VAST_API_KEY", "from-variable")
    assert load_key().reveal() == "from-variable"
    assert load_key("from-argument").reveal() == "from-argument"
    assert load_key(Secret("from-secret")).reveal() == "from-secret"


def test_the_files(home: Path) -> None:
    assert list(key_files()) == [home / ".config" / "vastai" / "vast_api_key", home / ".vast_api_key"]


@pytest.mark.parametrize("text", [f"{SECRET}\n", f"  {SECRET}\t\r\n\n", SECRET])
def test_white_space_around_it_is_not_part_of_it(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    assert load_key(text).reveal() == SECRET
    write(home / ".vast_api_key", text)
    assert load_key().reveal() == SECRET
    (home / ".vast_api_key").unlink()
    monkeypatch.setenv("VAST_API_KEY", text)
    assert load_key().reveal() == SECRET


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_what_is_empty_is_passed_over(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("VAST_API_KEY", text)
    write(home / ".config" / "vastai" / "vast_api_key", text)
    write(home / ".vast_api_key", SECRET)
    assert load_key().reveal() == SECRET


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_argument_is_a_mistake(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAST_API_KEY", SECRET)
    with pytest.raises(InvalidValue, match="non-empty"):
        load_key(text)


def test_what_is_missing_says_what_to_do() -> None:
    with pytest.raises(InvalidValue) as caught:
        load_key()
    text = str(caught.value)
    assert "key=" in text
    assert "VAST_API_KEY" in text
    assert str(Path(".config", "vastai", "vast_api_key")) in text


@pytest.mark.parametrize("text", [f"{SECRET}\n{SECRET}", f"{SECRET} {SECRET}", f"{SECRET}ü", f"{SECRET}\x00"])
def test_what_cannot_be_a_key_is_refused_and_not_told(home: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def check() -> None:
        with pytest.raises(InvalidValue) as caught:
            load_key()
        assert SECRET not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"

    with pytest.raises(InvalidValue) as caught:
        load_key(text)
    assert SECRET not in str(caught.value)
    write(home / ".vast_api_key", text)
    check()
    (home / ".vast_api_key").unlink()
    if "\x00" not in text:
        monkeypatch.setenv("VAST_API_KEY", text)
        check()


def test_a_file_that_is_no_text(home: Path) -> None:
    (home / ".vast_api_key").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidValue, match="not plain text"):
        load_key()


def test_a_folder_in_its_place_is_passed_over(home: Path) -> None:
    (home / ".config" / "vastai" / "vast_api_key").mkdir(parents=True)
    write(home / ".vast_api_key", SECRET)
    assert load_key().reveal() == SECRET


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o777])
def test_a_file_that_others_can_read_is_used_with_a_warning(home: Path, mode: int) -> None:
    path = write(home / ".vast_api_key", SECRET, mode)
    with pytest.warns(UserWarning, match="others can read") as caught:
        assert load_key().reveal() == SECRET
    assert str(path) in str(caught[0].message)
    assert "chmod 600" in str(caught[0].message)
    assert SECRET not in str(caught[0].message)


def test_a_file_without_a_key_is_no_reason_to_warn(home: Path) -> None:
    write(home / ".config" / "vastai" / "vast_api_key", "\n", 0o644)
    write(home / ".vast_api_key", SECRET)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_key().reveal() == SECRET


def test_where_there_is_no_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("could not determine the home directory")

    write(home / ".vast_api_key", "from-home")
    monkeypatch.setattr(Path, "home", nowhere)
    assert list(key_files()) == []
    with pytest.raises(InvalidValue, match="write it to a key file"):
        load_key()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    assert list(key_files()) == [home / "vastai" / "vast_api_key"]


async def test_it_is_looked_for_when_a_call_needs_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of()
    client = world.client(engine, key=None)
    async with client:
        with pytest.raises(InvalidValue, match="there is no key"):
            await client.route("demo")
        assert not engine.requests
        monkeypatch.setenv("VAST_API_KEY", "test-endpoint-key")
        await client.route("demo")
        monkeypatch.setenv("VAST_API_KEY", "another")
        await client.route("demo")
    assert [request.headers.get("authorization") for request in engine.requests] == ["Bearer test-endpoint-key"] * 2


async def test_a_session_that_is_resumed_needs_no_key(world: World) -> None:
    engine = engine_of()
    async with (
        world.client(engine) as client,
        client.session("demo") as session,
        world.client(engine, key=None) as other,
        other.resume_session(session.handle) as resumed,
    ):
        assert (await resumed.call("/echo", {})).status == 200


def test_nothing_is_read_at_import() -> None:
    script = """
import os, pathlib, builtins

class Watched(dict):
    def _look(self, name):
        if "VAST" in str(name) or str(name).startswith("XDG"):
            raise SystemExit(f"{name} was read")
    def __getitem__(self, name):
        self._look(name)
        return super().__getitem__(name)
    def get(self, name, *default):
        self._look(name)
        return super().get(name, *default)

os.environ = Watched(os.environ)
pathlib.Path.home = lambda: exit("the home folder was looked for")
import vastroute_io.asyncio, vastroute_io.blocking, vastroute_io.trio
vastroute_io.trio.Client(), vastroute_io.blocking.Client(), vastroute_io.asyncio.Client()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
