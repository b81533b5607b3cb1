"""Addresses: what one strict pattern takes, that other readers read the same out of it, and what it refuses."""

from __future__ import annotations

import pickle
from ipaddress import IPv6Address
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import ENGINE, InvalidValue, Origin
from vastroute.urls import join_target, split_url
from vectors.files import load

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "b" * 61])
"""A name of 253 characters, which is all that names can have."""
REFUSED = [row["url"] for row in load("urls.json")["rows"] if "url" in row and "error" in row["expect"]]


class TestSplit:
    """What is taken and what is refused are the tables of ``tests/vectors/urls.json``; here is what they do not say."""

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "it is empty"),
            ("https://ho st", "a space or a control character"),
            ("https://host\x00.evil.example", "a space or a control character"),
            ("//host", "it is relative"),
            ("http\u017f://host", "neither http nor https"),  # casefolds to https
            ("https://good.example@evil.example", "it holds credentials"),
            ("https://host/path?", "it has a query or a fragment"),
            ("https://host/#@evil.example", "it has a query or a fragment"),
            ("https://host:\u0668", "its host, port or path is malformed"),  # int() would read it as 8
            ("https://\ud800", "its host, port or path is malformed"),
            (f"https://{LONGEST}c", "the host name is longer than names can be"),
            ("https://[1::2::3]", "not an IPv6 address"),
            ("https://host:65536", "port 65536 is not between 1 and 65535"),
            ("https://host/%2e%2E/a", "the path climbs"),
        ],
    )
    def test_says_why(self, url: str, why: str) -> None:
        with pytest.raises(InvalidValue, match=why):
            split_url(url)

    @pytest.mark.parametrize("url", REFUSED)
    def test_repeats_nothing_of_what_it_refuses(self, url: str) -> None:
        with pytest.raises(InvalidValue) as refused:
            split_url(url)
        assert not url or url not in str(refused.value)
        assert str(refused.value).isprintable()

    @given(
        st.sampled_from(["http", "https", "HTTPS"]),
        st.from_regex(r"[A-Za-z0-9_-]{1,9}(\.[A-Za-z0-9_-]{1,9}){0,3}\.?", fullmatch=True)
        | st.ip_addresses(v=4).map(str)
        | st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]"),
        st.none() | st.integers(1, 65535),
        st.from_regex(r"(/[a-z%!~\[\]'(]{0,4}){0,3}", fullmatch=True),
    )
    def test_the_standard_library_reads_the_same(self, scheme: str, host: str, port: int | None, path: str) -> None:
        url = f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"
        origin, kept = split_url(url)
        read = urlsplit(url)
        assert read.hostname is not None
        assert origin.scheme == read.scheme
        assert origin.port == (port or {"http": 80, "https": 443}[read.scheme])
        if ":" in read.hostname:
            # As addresses: Python spells those that stand for IPv4 differently from one version to the next.
            assert IPv6Address(origin.host) == IPv6Address(read.hostname)
        else:
            assert origin.host == read.hostname
        assert kept == read.path
        assert Origin.parse(str(origin)) == origin

    @given(
        st.text(st.characters(exclude_categories=())).flatmap(lambda text: st.sampled_from([text, f"https://{text}"]))
    )
    def test_any_text_is_read_or_refused(self, url: str) -> None:
        try:
            origin, path = split_url(url)
        except InvalidValue:
            return
        assert f"{origin}{path}".isascii()
        assert split_url(f"{origin}{path}") == (origin, path)


class TestOrigin:
    @pytest.mark.parametrize(
        ("url", "authority", "text"),
        [
            ("https://run.vast.ai", "run.vast.ai", "https://run.vast.ai"),
            ("https://RUN.vast.ai:443/", "run.vast.ai", "https://run.vast.ai"),
            ("http://localhost:80", "localhost", "http://localhost"),
            ("http://localhost:443", "localhost:443", "http://localhost:443"),
            ("https://localhost:80", "localhost:80", "https://localhost:80"),
            ("https://[::1]", "[::1]", "https://[::1]"),
            ("https://[::1]:8443", "[::1]:8443", "https://[::1]:8443"),
        ],
    )
    def test_spelling(self, url: str, authority: str, text: str) -> None:
        origin = Origin.parse(url)
        assert (origin.authority, str(origin)) == (authority, text)
        assert Origin.parse(text) == origin
        assert hash(Origin.parse(text)) == hash(origin)

    @pytest.mark.parametrize("url", ["https://host/path", "https://host//", "https://host/%20"])
    def test_has_no_path(self, url: str) -> None:
        with pytest.raises(InvalidValue, match="an origin has no path"):
            Origin.parse(url)

    def test_is_a_value(self) -> None:
        assert str(ENGINE) == "https://run.vast.ai"
        assert pickle.loads(pickle.dumps(ENGINE)) == ENGINE
        assert {ENGINE: 1}[pickle.loads(pickle.dumps(ENGINE))] == 1
        # What differs in any part is another place, to which no key of the first one goes.
        others = ["http://run.vast.ai", "https://run.vast.ai:8443", "https://run.vast.ai.", "https://vast.ai"]
        assert ENGINE not in [Origin.parse(other) for other in others]


class TestJoin:
    """The tables of ``tests/vectors/urls.json`` say what is joined how; here is what they do not say."""

    @pytest.mark.parametrize(
        ("route", "why"),
        [
            ("//evil.example/x", "not a plain path"),
            ("https://evil.example", "not a plain path"),
            ("/a HTTP/1.1\r\nX: 1", "not a plain path"),
            ("/\ud800", "not a plain path"),
            ("/../x", "must not climb"),
            ("/%2e%2E/a", "must not climb"),
        ],
    )
    @pytest.mark.parametrize("base", ["", "/base"])
    def test_says_why(self, base: str, route: str, why: str) -> None:
        with pytest.raises(InvalidValue, match=why) as refused:
            join_target(base, route)
        assert str(refused.value).isprintable()

    def test_a_long_route_is_quoted_in_part(self) -> None:
        with pytest.raises(InvalidValue) as refused:
            join_target("", "/a b" * 1000)
        assert len(str(refused.value)) < 300

    @given(st.sampled_from(["", "/", "/base", "/base/"]), st.text(st.characters(exclude_categories=()), max_size=20))
    def test_any_route_stays_below_the_base(self, base: str, route: str) -> None:
        try:
            target = join_target(base, route)
        except InvalidValue:
            return
        assert target.startswith(base.rstrip("/") + "/")
        assert not target.startswith("//")
        assert target.isascii()
        assert target.isprintable()
        assert not {" ", "#", "\\"} & set(target)
