"""A client's options: checked when it is made, shown without their secrets, the same for every transport."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vastroute_io.asyncio
import vastroute_io.blocking
import vastroute_io.trio
from vastroute import (
    CONSOLE,
    ENGINE,
    EndpointInfo,
    Guard,
    InvalidValue,
    KeyRefused,
    Origin,
    PoolLimits,
    PublicKey,
    RetryPolicy,
    Secret,
    SignatureMode,
)
from vastroute_io.proxies import Proxy
from vastroute_io.settings import Settings
from vastroute_testing import OTHER_TEST_PUBLIC_KEY, TEST_PUBLIC_KEY

SECRET = "k3y-s0-secret"
CLIENTS = [vastroute_io.trio.Client, vastroute_io.asyncio.Client, vastroute_io.blocking.Client]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__module__.split(".")[1])
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("engine", "run.vast.ai"),
        ("engine", "https://run.vast.ai/route/"),
        ("console", "ftp://console.vast.ai"),
        ("signature", "perhaps"),
        ("public_key", "no key"),
        ("public_key", b""),
        ("proxy", "socks5://127.0.0.1"),
        ("worker_root", "/does/not/exist.pem"),
        ("worker_root", Path("/")),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_when_the_client_is_made(client: Any, option: str, value: Any) -> None:
    with pytest.raises(InvalidValue):
        client(**{option: value})


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__module__.split(".")[1])
def test_what_is_unknown_is_refused(client: Any) -> None:
    with pytest.raises((TypeError, InvalidValue), match="tiemout"):
        client(tiemout=5)


def test_the_reason_why_a_root_cannot_be_read() -> None:
    with pytest.raises(InvalidValue, match="worker_root cannot be read: No such file"):
        Settings(worker_root="/does/not/exist.pem")


def test_a_root_as_file_or_bytes(tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(b"root")
    for root in (b"root", tmp_path / "root.pem", str(tmp_path / "root.pem")):
        assert Settings(worker_root=root).worker_root == b"root"
    assert Settings().worker_root is None


def test_where_the_engine_and_the_console_are() -> None:
    assert (Settings().engine, Settings().console) == (ENGINE, CONSOLE)
    assert Settings(engine="https://run.vast.ai").console == CONSOLE
    assert Settings(engine="https://engine.example").console is None, "a key for one engine is not another console's"
    both = Settings(engine=Origin.parse("https://engine.example"), console="https://console.example:81")
    assert str(both.console) == "https://console.example:81"
    assert not Settings(engine="https://engine.example").can_find_key()
    assert both.can_find_key()
    assert not Settings(find_key=False).can_find_key()


def test_every_way_to_give_a_public_key() -> None:
    key = PublicKey.load(TEST_PUBLIC_KEY)
    for given in (key, TEST_PUBLIC_KEY, TEST_PUBLIC_KEY.encode()):
        assert Settings(public_key=given).public_key == key
    assert Settings().verifier() is None
    settings = Settings(public_key=key, signature="require")
    assert settings.signature is SignatureMode.REQUIRE
    assert settings.verifier() is settings.verifier()


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, False),
        ({"fetch_public_key": True}, True),
        ({"signature": "require"}, True),
        ({"signature": SignatureMode.REQUIRE}, True),
        ({"signature": "off", "fetch_public_key": True}, False),
        ({"signature": "require", "public_key": TEST_PUBLIC_KEY}, False),
        ({"fetch_public_key": True, "public_key": OTHER_TEST_PUBLIC_KEY}, False),
    ],
    ids=str,
)
def test_whether_the_public_key_has_to_be_fetched(options: dict[str, Any], wanted: bool) -> None:
    assert Settings(**options).needs_public_key is wanted


def test_nothing_secret_shows() -> None:
    settings = Settings(key=SECRET, proxy=f"http://user:{SECRET}@127.0.0.1:3128", worker_root=SECRET.encode())
    settings.learn((EndpointInfo(id=1, name="one", key=Secret(SECRET)),))
    assert settings.secret().reveal() == SECRET
    assert SECRET not in repr(settings)
    for client in CLIENTS:
        made = client(key=SECRET, proxy=f"http://user:{SECRET}@127.0.0.1:3128")
        assert SECRET not in f"{made!r} {made} {vars(made)}"


def test_which_key_is_used_for_an_endpoint() -> None:
    settings = Settings(key="account")
    assert settings.key_for("one").reveal() == "account"
    settings.learn(
        (EndpointInfo(id=1, name="one", key=Secret("of-one")), EndpointInfo(id=2, name="two", key=None)),
    )
    keys = [settings.key_for(name).reveal() for name in ("one", "two", "three")]
    assert keys == ["of-one", "account", "account"]
    assert settings.endpoint("one").id == 1
    for name, words in (("two", "gives no key"), ("three", "has no endpoint 'three'")):
        with pytest.raises(KeyRefused, match=words):
            settings.endpoint(name)
    settings.learn(())
    with pytest.raises(KeyRefused):
        settings.endpoint("one")


def test_a_proxy_in_every_form() -> None:
    assert Settings().proxy == "environment"
    assert Settings(proxy=None).proxy_for(ENGINE) is None
    for given in ("http://127.0.0.1:3128", Proxy(origin=Origin(scheme="http", host="127.0.0.1", port=3128))):
        found = Settings(proxy=given).proxy_for(ENGINE)
        assert found is not None
        assert found.origin.port == 3128


def test_the_time_of_a_call() -> None:
    settings = Settings(policy=RetryPolicy(total=50))
    assert settings.deadline({}, now=1000.0) == 1050
    assert settings.deadline({"timeout": None}, now=1000.0) == 1050
    assert settings.deadline({"timeout": 5}, now=1000.0) == 1005
    assert settings.deadline({"policy": RetryPolicy(total=7)}, now=1000.0) == 1007
    assert settings.deadline({"policy": RetryPolicy(total=7), "timeout": 5}, now=1000.0) == 1005


def test_settings_are_the_clients_own() -> None:
    one, other = Settings(), Settings()
    assert one != other
    assert one.tracker is not other.tracker
    assert (one.guard, one.pool) == (Guard(), PoolLimits())


def test_they_are_the_same_without_any_library_for_io() -> None:
    script = "import sys, vastroute_io.settings; assert not {'trio', 'asyncio', 'ssl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# --- a key in the clear ----------------------------------------------------------------------------------------------

LOOPBACKS = ["http://127.0.0.1:8080", "http://127.7.7.7", "http://[::1]:8080", "http://localhost:8080"]
OTHERS = ["http://engine.example", "http://10.0.0.1", "http://128.0.0.1", "http://[::2]", "http://localhost.example"]


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.__module__.split(".")[1])
@pytest.mark.parametrize("option", ["engine", "console"])
def test_a_key_goes_nowhere_in_the_clear(client: Any, option: str) -> None:
    for url in OTHERS:
        with pytest.raises(InvalidValue, match="has no TLS") as caught:
            client(**{option: url, "key": SECRET})
        text = str(caught.value)
        assert option in text
        assert url in text
        assert "allow_plain_http" in text
        client(**{option: url, "key": SECRET, "guard": Guard(allow_plain_http=True)})
    for url in LOOPBACKS:
        client(**{option: url, "key": SECRET})
