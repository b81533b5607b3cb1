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

LABEL = "a" * 63
LONGEST = ".".join([LABEL, LABEL, LABEL, "b" * 61])
"""A name of 253 characters, which is all that names can have."""


class TestSplit:
    @pytest.mark.parametrize(
        ("url", "scheme", "host", "port", "path"),
        [
            ("https://203.0.113.7:40123", "https", "203.0.113.7", 40123, ""),
            ("http://203.0.113.7", "http", "203.0.113.7", 80, ""),
            ("https://run.vast.ai/", "https", "run.vast.ai", 443, "/"),
            ("HTTPS://Run.VAST.ai", "https", "run.vast.ai", 443, ""),
            ("https://run.vast.ai.", "https", "run.vast.ai.", 443, ""),
            ("https://host:0443", "https", "host", 443, ""),
            ("https://host:00001", "https", "host", 1, ""),
            ("https://host:65535/a/B", "https", "host", 65535, "/a/B"),
            ("https://a_b-c.d", "https", "a_b-c.d", 443, ""),
            ("https://xn--nxasmq6b", "https", "xn--nxasmq6b", 443, ""),
            (f"https://{LONGEST}", "https", LONGEST, 443, ""),
            (f"https://{LONGEST}.", "https", f"{LONGEST}.", 443, ""),
            ("https://[::1]:8443/x", "https", "::1", 8443, "/x"),
            ("https://[2001:DB8:0:0::0001]", "https", "2001:db8::1", 443, ""),
            ("https://[::ffff:203.0.113.7]", "https", "::ffff:203.0.113.7", 443, ""),
            # Spellings that some resolvers take for an address; whether they may be dialled is the guard's question.
            ("https://2130706433", "https", "2130706433", 443, ""),
            ("https://0x7f.1", "https", "0x7f.1", 443, ""),
            ("https://host/a//b/", "https", "host", 443, "/a//b/"),
            ("https://host/.a/b../...", "https", "host", 443, "/.a/b../..."),
            ("https://host/%41%2F%zz", "https", "host", 443, "/%41%2F%zz"),
            ("https://host/a:b@c;d=e,f!$&'()*+~[]^_`{|}-.", "https", "host", 443, "/a:b@c;d=e,f!$&'()*+~[]^_`{|}-."),
        ],
    )
    def test_takes(self, url: str, scheme: str, host: str, port: int, path: str) -> None:
        assert split_url(url) == (Origin(scheme=scheme, host=host, port=port), path)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("", "it is empty"),
            (" https://host", "a space or a control character"),
            ("https://host\n", "a space or a control character"),
            ("https://ho st", "a space or a control character"),
            ("https://host/\x7f", "a space or a control character"),
            ("https://host\t:80", "a space or a control character"),
            ("https://host\x00.evil.example", "a space or a control character"),
            ("host", "it is relative"),
            ("//host", "it is relative"),
            ("/path", "it is relative"),
            ("host:443", "it is relative"),
            ("https:host", "it is relative"),
            ("https:/host", "it is relative"),
            ("ftp://host", "neither http nor https"),
            ("httpss://host", "neither http nor https"),
            ("javascript://host", "neither http nor https"),
            ("http\u017f://host", "neither http nor https"),  # casefolds to https
            ("://host", "neither http nor https"),
            ("https://user@host", "it holds credentials"),
            ("https://user:word@host", "it holds credentials"),
            ("https://good.example@evil.example", "it holds credentials"),
            ("https://@host", "it holds credentials"),
            ("https://host?query", "it has a query or a fragment"),
            ("https://host/path?", "it has a query or a fragment"),
            ("https://host#fragment", "it has a query or a fragment"),
            ("https://host/#@evil.example", "it has a query or a fragment"),
            ("https://", "its host, port or path is malformed"),
            ("https:///path", "its host, port or path is malformed"),
            ("https://:443", "its host, port or path is malformed"),
            ("https://host:", "its host, port or path is malformed"),
            ("https://host:/", "its host, port or path is malformed"),
            ("https://host:+80", "its host, port or path is malformed"),
            ("https://host:8_0", "its host, port or path is malformed"),
            ("https://host:\u0668", "its host, port or path is malformed"),  # int() would read it as 8
            ("https://host:000443", "its host, port or path is malformed"),
            ("https://host\\path", "its host, port or path is malformed"),
            ("https://good.example\\.evil.example", "its host, port or path is malformed"),
            ("https://host/\\path", "its host, port or path is malformed"),
            ("https://%68ost", "its host, port or path is malformed"),
            ("https://127%2E0.0.1", "its host, port or path is malformed"),
            ("https://h\xf6st", "its host, port or path is malformed"),
            ("https://\u212a", "its host, port or path is malformed"),  # the Kelvin sign lowers to k
            ("https://127\u30020\u30020\u30021", "its host, port or path is malformed"),  # IDNA reads dots
            ("https://\uff11\uff12\uff17.0.0.1", "its host, port or path is malformed"),  # and NFKC digits
            ("https://host\xad", "its host, port or path is malformed"),
            ("https://\ud800", "its host, port or path is malformed"),
            ("https://host/\xe9", "its host, port or path is malformed"),
            ('https://host/"', "its host, port or path is malformed"),
            ("https://host/<>", "its host, port or path is malformed"),
            ("https://a..b", "its host, port or path is malformed"),
            ("https://.a", "its host, port or path is malformed"),
            ("https://.", "its host, port or path is malformed"),
            ("https://a..", "its host, port or path is malformed"),
            ("https://*.host", "its host, port or path is malformed"),
            (f"https://{LABEL}a", "its host, port or path is malformed"),
            (f"https://a.{LABEL}a.b", "its host, port or path is malformed"),
            (f"https://{LONGEST}c", "the host name is longer than names can be"),
            (f"https://{LONGEST}.c", "the host name is longer than names can be"),
            ("https://::1", "its host, port or path is malformed"),
            ("https://[::1", "its host, port or path is malformed"),
            ("https://[]", "its host, port or path is malformed"),
            ("https://[::1]x", "its host, port or path is malformed"),
            ("https://[fe80::1%25eth0]", "its host, port or path is malformed"),
            ("https://[fe80::1%eth0]", "its host, port or path is malformed"),
            ("https://[v1.a]", "its host, port or path is malformed"),
            ("https://[host]", "its host, port or path is malformed"),
            ("https://[203.0.113.7]", "not an IPv6 address"),
            ("https://[:::]", "not an IPv6 address"),
            ("https://[1::2::3]", "not an IPv6 address"),
            ("https://[12345::]", "not an IPv6 address"),
            ("https://[::ffff:256.0.0.1]", "not an IPv6 address"),
            ("https://host:0", "port 0 is not between 1 and 65535"),
            ("https://host:00000", "port 0 is not between 1 and 65535"),
            ("https://host:65536", "port 65536 is not between 1 and 65535"),
            ("https://host:99999", "port 99999 is not between 1 and 65535"),
            ("https://host/..", "the path climbs"),
            ("https://host/a/../b", "the path climbs"),
            ("https://host/.", "the path climbs"),
            ("https://host/./a", "the path climbs"),
            ("https://host/%2e%2E/a", "the path climbs"),
            ("https://host/.%2e", "the path climbs"),
        ],
    )
    def test_refuses(self, url: str, why: str) -> None:
        with pytest.raises(InvalidValue, match=why) as refused:
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
    @pytest.mark.parametrize(
        ("base", "route", "target"),
        [
            ("", "/v1/generate", "/v1/generate"),
            ("", "v1/generate", "/v1/generate"),
            ("/", "/v1", "/v1"),
            ("/base", "/v1", "/base/v1"),
            ("/base/", "v1/", "/base/v1/"),
            ("/base//", "/v1", "/base/v1"),
            ("", "", "/"),
            ("", "/", "/"),
            ("/base", "", "/base/"),
            ("", "/v1?a=b&c=%20d", "/v1?a=b&c=%20d"),
            ("", "/v1?a=http://host/../x", "/v1?a=http://host/../x"),
            ("", "/v1?a?b", "/v1?a?b"),
            ("/base", "?a", "/base/?a"),
            ("", "/a//b", "/a//b"),
            ("", "/a:b@c", "/a:b@c"),
            ("", "/..a/b../.../.well-known", "/..a/b../.../.well-known"),
        ],
    )
    def test_one_slash_between(self, base: str, route: str, target: str) -> None:
        assert join_target(base, route) == target

    @pytest.mark.parametrize(
        ("route", "why"),
        [
            *(
                (route, "not a plain path")
                for route in (
                    "//evil.example/x",
                    "https://evil.example",
                    "/a b",
                    "/a\tb",
                    "/a HTTP/1.1\r\nX: 1",
                    "/a\nb",
                    "/a\x00",
                    "/a#b",
                    "/a\\b",
                    '/a"b',
                    "/a<b>",
                    "/\xe9",
                    "/\ud800",
                    "/a?b#c",
                    "/a?b c",
                )
            ),
            *(
                (route, "must not climb")
                for route in ("/..", "/../x", "/a/../b", "..", "/.", "/a/./b", "/%2e%2E/a", "/a/.%2e?b", "/%2E")
            ),
        ],
    )
    @pytest.mark.parametrize("base", ["", "/base"])
    def test_refuses(self, base: str, route: str, why: str) -> None:
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
