"""Where a grant may lead: the tables against the standard library's idea of a public address, and every switch."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vastroute import (
    Advice,
    ConnectionFailed,
    FailureKind,
    Guard,
    GuardReason,
    InvalidValue,
    Origin,
    Outcome,
    Phase,
)
from vastroute.guard import IPV4_CLASSES, IPV6_CLASSES, IPV6_EMBEDDINGS

STRICT = Guard()
SWITCHES = [field.name for field in attrs.fields(Guard)]
PRIVATE = "allow_private_address"
METADATA = "allow_metadata_address"
CLASSES = [*IPV4_CLASSES, *IPV6_CLASSES]

# Where the guard's idea of a public address differs from `ipaddress.is_global`, and why.
STRICTER_IPV4 = [
    IPv4Network("224.0.0.0/4"),  # multicast is global by the registry, but no worker is there
    IPv4Network("192.88.99.0/24"),  # relays of 6to4, given up in 2015 (RFC 7526): they lead anywhere
    IPv4Network("192.0.0.0/24"),  # some of it is global: anycast addresses of protocols, no workers
    IPv4Network("168.63.129.16/32"),  # looks public, but is a cloud's own service
]
STRICTER_IPV6 = [
    IPv6Network("2001::/23"),  # the same: some of it is global, for protocols
    IPv6Network("3fff::/20"),  # documentation since 2024 (RFC 9637), which older Pythons do not know
]
GIVEN_OUT = IPv6Network("2000::/3")
"""The only IPv6 addresses that are given out to the public; the library calls the unassigned rest global."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """What the guard should say, built upon the standard library."""
    if isinstance(address, IPv4Address):
        return address.is_global and not any(address in network for network in STRICTER_IPV4)
    if address.ipv4_mapped is not None:
        return is_public(address.ipv4_mapped)
    if address.sixtofour is not None:
        return is_public(address.sixtofour)
    if address.teredo is not None:
        return all(is_public(each) for each in address.teredo)
    if address in IPv6Network("64:ff9b::/96") or address in IPv6Network("::ffff:0:0:0/96"):
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    return address.is_global and address in GIVEN_OUT and not any(address in network for network in STRICTER_IPV6)


def edges() -> Iterator[str]:
    """The first and the last address of every network in the tables, and their neighbours outside."""
    networks = [row[0] for row in CLASSES] + [row[0] for row in IPV6_EMBEDDINGS]
    for network in [ip_network(each) for each in networks]:
        kind: Any = IPv4Address if network.version == 4 else IPv6Address
        first, last = int(network.network_address), int(network.broadcast_address)
        for number in (first - 1, first, last, last + 1):
            if 0 <= number < 2**network.max_prefixlen:
                yield str(kind(number))


addresses = st.one_of(
    st.ip_addresses(v=4),
    st.ip_addresses(v=6),
    *(st.ip_addresses(network=row[0]) for row in CLASSES),
    *(st.ip_addresses(network=row[0]) for row in IPV6_EMBEDDINGS),
)


def embedded(form: str, number: int) -> str:
    """The IPv6 address that stands for the IPv4 address `number` in one of its forms."""
    public = 0x05060708
    high = {
        "IPv4-mapped": (0xFFFF << 32) | number,
        "IPv4-translated": (0xFFFF << 48) | number,
        "NAT64": (0x64FF9B << 96) | number,
        "6to4": (0x2002 << 112) | (number << 80) | 1,
        "Teredo server": (0x20010000 << 96) | (number << 64) | (public ^ 0xFFFFFFFF),
        "Teredo client": (0x20010000 << 96) | (public << 64) | (number ^ 0xFFFFFFFF),
    }
    return str(IPv6Address(high[form]))


FORMS = ["IPv4-mapped", "IPv4-translated", "NAT64", "6to4", "Teredo server", "Teredo client"]


class TestAddress:
    @pytest.mark.parametrize("address", sorted(set(edges())))
    def test_at_the_edges_of_every_class(self, address: str) -> None:
        assert (STRICT.check_address(address) is None) is is_public(ip_address(address))

    @given(addresses)
    def test_anywhere(self, address: IPv4Address | IPv6Address) -> None:
        refusal = STRICT.check_address(str(address))
        assert (refusal is None) is is_public(address)
        assert STRICT.check_address(address.exploded) == refusal or ":" in str(address)
        if refusal is None:
            return
        assert refusal.reason is GuardReason.ADDRESS
        assert refusal.text.startswith(f"{address} is not public: ")
        assert refusal.text.endswith(f"; {refusal.switch} would allow it")
        # One switch more is enough, unless the address stands for two others of different kinds.
        lifted = attrs.evolve(STRICT, **{refusal.switch: True}).check_address(str(address))
        assert lifted is None or (lifted.switch != refusal.switch and ip_address(address).version == 6)

    @given(addresses)
    def test_with_all_switches_everything_is_allowed(self, address: IPv4Address | IPv6Address) -> None:
        assert Guard(allow_private_address=True, allow_metadata_address=True).check_address(str(address)) is None

    @pytest.mark.parametrize(
        ("address", "name", "switch"),
        [
            ("169.254.169.254", "a cloud's metadata service", METADATA),
            ("169.254.170.2", "a container's credentials service", METADATA),
            ("169.254.170.23", "a container's credentials service", METADATA),
            ("100.100.100.200", "a cloud's metadata service", METADATA),
            ("168.63.129.16", "a cloud's metadata service", METADATA),
            ("192.0.0.192", "a cloud's metadata service", METADATA),
            ("fd00:ec2::254", "a cloud's metadata service", METADATA),
            ("fd00:ec2::23", "a container's credentials service", METADATA),
            ("fd20:ce::254", "a cloud's metadata service", METADATA),
            ("fe80::a9fe:a9fe", "a cloud's metadata service", METADATA),
            ("0.0.0.0", "the unspecified address", PRIVATE),
            ("0.1.2.3", "an address of this network", PRIVATE),
            ("10.255.0.1", "a private network", PRIVATE),
            ("100.64.0.1", "a carrier's shared network (CGNAT)", PRIVATE),
            ("127.0.0.1", "loopback", PRIVATE),
            ("127.255.255.254", "loopback", PRIVATE),
            ("169.254.1.1", "link-local", PRIVATE),
            ("172.31.255.255", "a private network", PRIVATE),
            ("192.0.0.9", "reserved for protocols", PRIVATE),
            ("192.0.2.1", "reserved for documentation", PRIVATE),
            ("192.88.99.1", "a 6to4 relay", PRIVATE),
            ("192.168.1.1", "a private network", PRIVATE),
            ("198.19.255.255", "reserved for benchmarks", PRIVATE),
            ("198.51.100.1", "reserved for documentation", PRIVATE),
            ("203.0.113.1", "reserved for documentation", PRIVATE),
            ("224.0.0.1", "multicast", PRIVATE),
            ("239.255.255.255", "multicast", PRIVATE),
            ("240.0.0.1", "reserved", PRIVATE),
            ("255.255.255.255", "broadcast", PRIVATE),
            ("::", "the unspecified address", PRIVATE),
            ("::1", "loopback", PRIVATE),
            ("::7f00:1", "reserved", PRIVATE),  # IPv4-compatible, long out of use
            ("100::1", "reserved", PRIVATE),  # discard only
            ("64:ff9b:1::1", "a private network (local NAT64)", PRIVATE),
            ("2001:1::1", "reserved for protocols", PRIVATE),
            ("2001:db8::1", "reserved for documentation", PRIVATE),
            ("3fff::1", "reserved for documentation", PRIVATE),
            ("4000::1", "reserved", PRIVATE),
            ("5f00::1", "reserved", PRIVATE),  # segment routing
            ("fc00::1", "a private network (unique local)", PRIVATE),
            ("fe80::1", "link-local", PRIVATE),
            ("fec0::1", "a private network (site-local)", PRIVATE),
            ("ff02::1", "multicast", PRIVATE),
            ("8.8.8.8%eth0", "it is bound to one network link", PRIVATE),
            ("2606:4700::1%eth0", "it is bound to one network link", PRIVATE),
            ("fe80::1%eth0", "link-local", PRIVATE),
            ("fe80::a9fe:a9fe%eth0", "a cloud's metadata service", METADATA),
        ],
    )
    def test_has_a_name_and_a_switch(self, address: str, name: str, switch: str) -> None:
        refusal = STRICT.check_address(address)
        assert refusal is not None
        assert refusal.text == f"{address} is not public: {name}; {switch} would allow it"
        assert refusal.switch == switch

    @pytest.mark.parametrize(
        "address",
        [
            "8.8.8.8",
            "1.1.1.1",
            "192.0.1.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1",
            "2a00:1450::",
            "2002:808:808::1",
        ],
    )
    def test_public(self, address: str) -> None:
        assert STRICT.check_address(address) is None

    @pytest.mark.parametrize("row", CLASSES, ids=lambda row: row[0])
    def test_no_class_is_hidden_behind_those_before_it(self, row: tuple[str, str, str | None]) -> None:
        network, name, switch = row
        table = IPV4_CLASSES if row in IPV4_CLASSES else IPV6_CLASSES
        before: list[Any] = [ip_network(each) for each, _, _ in table[: table.index(row)]]
        inside: Any = ip_network(network)
        assert not any(inside.subnet_of(each) for each in before)
        assert switch in {None, PRIVATE, METADATA}
        assert (switch is None) is (name == "public")

    @pytest.mark.parametrize("form", FORMS)
    @given(number=st.one_of(*(st.ip_addresses(network=row[0]).map(int) for row in IPV4_CLASSES)))
    def test_an_address_that_stands_for_another_leads_where_that_one_leads(self, form: str, number: int) -> None:
        address = embedded(form, number)
        for guard in (STRICT, Guard(allow_private_address=True), Guard(allow_metadata_address=True)):
            inner = guard.check_address(str(IPv4Address(number)))
            outer = guard.check_address(address)
            if inner is None:
                assert outer is None
                continue
            assert outer is not None
            assert (outer.reason, outer.switch) == (inner.reason, inner.switch)
            name = inner.text.partition(": ")[2].partition(";")[0]
            assert f"{name}, in its {form.split(maxsplit=1)[0]} form" in outer.text

    @pytest.mark.parametrize(
        "address",
        [
            "",
            "localhost",
            "256.0.0.1",
            "1.2.3",
            "0x7f.0.0.1",
            "127.1",
            "010.0.0.1",
            "1.2.3.4.5",
            "::g",
            "[::1]",
            " ::1",
        ],
    )
    def test_what_is_no_address(self, address: str) -> None:
        with pytest.raises(InvalidValue, match="is not an IP address"):
            STRICT.check_address(address)

    def test_the_text_names_what_was_resolved(self) -> None:
        refusal = STRICT.check_address("127.0.0.1", Origin.parse("https://worker.example:8443"))
        assert refusal is not None
        assert refusal.text.startswith("https://worker.example:8443 (127.0.0.1) is not public: loopback;")

    def test_metadata_is_no_part_of_private(self) -> None:
        guard = Guard(allow_private_address=True)
        assert guard.check_address("169.254.1.1") is None
        refusal = guard.check_address("169.254.169.254")
        assert refusal is not None
        assert refusal.switch == METADATA
        assert Guard(allow_metadata_address=True).check_address("169.254.169.254") is None
        assert Guard(allow_metadata_address=True).check_address("169.254.1.1") is not None


class TestOrigin:
    @pytest.mark.parametrize(
        ("url", "reason", "switch"),
        [
            ("https://8.8.8.8", None, ""),
            ("https://8.8.8.8:40123", None, ""),
            ("https://worker.example", None, ""),
            ("https://worker.example.:40123", None, ""),
            ("https://[2606:4700::1]:40123", None, ""),
            ("https://localhost", None, ""),  # a name: the address that it resolves to decides
            ("https://1.2.3.a", None, ""),
            ("https://0xg", None, ""),
            ("https://a1", None, ""),
            ("https://1-2", None, ""),
            ("http://8.8.8.8", GuardReason.SCHEME, "allow_plain_http"),
            ("http://127.0.0.1:22", GuardReason.SCHEME, "allow_plain_http"),
            ("https://8.8.8.8:22", GuardReason.PORT, "allow_any_port"),
            ("https://127.0.0.1:1023", GuardReason.PORT, "allow_any_port"),
            ("https://127.0.0.1", GuardReason.ADDRESS, PRIVATE),
            ("https://127.0.0.1.", GuardReason.ADDRESS, PRIVATE),
            ("https://10.0.0.1:40123", GuardReason.ADDRESS, PRIVATE),
            ("https://169.254.169.254", GuardReason.ADDRESS, METADATA),
            ("https://169.254.169.254.", GuardReason.ADDRESS, METADATA),
            ("https://[::1]", GuardReason.ADDRESS, PRIVATE),
            ("https://[::ffff:169.254.169.254]", GuardReason.ADDRESS, METADATA),
            ("https://[fd00:ec2::254]", GuardReason.ADDRESS, METADATA),
            # Spellings that inet_aton, and so many a resolver, reads as 127.0.0.1 or 8.8.8.8.
            ("https://127.1", GuardReason.ADDRESS, PRIVATE),
            ("https://2130706433", GuardReason.ADDRESS, PRIVATE),
            ("https://017700000001", GuardReason.ADDRESS, PRIVATE),
            ("https://0x7f000001", GuardReason.ADDRESS, PRIVATE),
            ("https://0X7F000001", GuardReason.ADDRESS, PRIVATE),
            ("https://0x7f.0.0.1", GuardReason.ADDRESS, PRIVATE),
            ("https://0177.0.0.1", GuardReason.ADDRESS, PRIVATE),
            ("https://127.0.0.01", GuardReason.ADDRESS, PRIVATE),
            ("https://127.0.0.0x1", GuardReason.ADDRESS, PRIVATE),
            ("https://127.0.0.1.0x", GuardReason.ADDRESS, PRIVATE),
            ("https://0", GuardReason.ADDRESS, PRIVATE),
            ("https://0x", GuardReason.ADDRESS, PRIVATE),
            ("https://8.8.8.08", GuardReason.ADDRESS, PRIVATE),
            ("https://8.8.2056", GuardReason.ADDRESS, PRIVATE),
            ("https://256.256.256.256", GuardReason.ADDRESS, PRIVATE),
            ("https://1.2.3.4.5", GuardReason.ADDRESS, PRIVATE),
            ("https://worker.example.1", GuardReason.ADDRESS, PRIVATE),
            ("https://0xa9fea9fe", GuardReason.ADDRESS, PRIVATE),
        ],
    )
    def test_as_it_is_written(self, url: str, reason: GuardReason | None, switch: str) -> None:
        origin = Origin.parse(url)
        refusal = STRICT.check_origin(origin)
        if refusal is None:
            assert reason is None
            return
        assert (refusal.reason, refusal.switch) == (reason, switch)
        assert str(origin) in refusal.text
        assert refusal.text.endswith(f"; {switch} would allow it")
        lifted = attrs.evolve(STRICT, **{switch: True}).check_origin(origin)
        assert lifted is None or lifted.switch != switch

    @given(addresses, st.booleans())
    def test_an_address_is_judged_as_if_it_were_dialled(
        self, address: IPv4Address | IPv6Address, private: bool
    ) -> None:
        guard = Guard(allow_private_address=private)
        origin = Origin.parse(f"https://{address}" if address.version == 4 else f"https://[{address}]")
        written, dialled = guard.check_origin(origin), guard.check_address(str(address))
        assert (written and written.switch) == (dialled and dialled.switch)
        assert guard.check_origin(origin, proxied=True) == written

    @given(st.integers(1, 65535) | st.sampled_from([1, 79, 80, 81, 442, 443, 444, 1023, 1024]))
    def test_ports(self, port: int) -> None:
        origin = Origin(scheme="https", host="worker.example", port=port)
        refusal = STRICT.check_origin(origin)
        assert (refusal is None) is (port >= 1024 or port in {80, 443})
        assert refusal is None or refusal.reason is GuardReason.PORT
        assert Guard(allow_any_port=True).check_origin(origin) is None

    @pytest.mark.parametrize("url", ["https://127.1", "https://0x7f000001", "https://1.2.3.4.5"])
    def test_an_odd_spelling_is_left_to_the_dialled_address_where_private_ones_are_allowed(self, url: str) -> None:
        guard = Guard(allow_private_address=True)
        assert guard.check_origin(Origin.parse(url)) is None
        refusal = guard.check_origin(Origin.parse(url), proxied=True)
        assert refusal is not None
        assert refusal.reason is GuardReason.PROXIED_NAME

    @pytest.mark.parametrize(
        ("url", "refused"),
        [
            ("https://worker.example", True),
            ("https://localhost", True),
            ("https://8.8.8.8", False),
            ("https://[2606:4700::1]", False),
        ],
    )
    def test_a_name_that_only_the_proxy_resolves(self, url: str, refused: bool) -> None:
        origin = Origin.parse(url)
        assert STRICT.check_origin(origin) is None
        refusal = STRICT.check_origin(origin, proxied=True)
        assert (refusal is not None) is refused
        assert refusal is None or (refusal.reason, refusal.switch) == (GuardReason.PROXIED_NAME, "allow_proxied_names")
        assert Guard(allow_proxied_names=True).check_origin(origin, proxied=True) is None

    def test_the_first_objection_is_the_one_that_is_reported(self) -> None:
        origin = Origin.parse("http://127.0.0.1:22")
        guard, switches = STRICT, []
        while refusal := guard.check_origin(origin):
            switches.append(refusal.switch)
            guard = attrs.evolve(guard, **{refusal.switch: True})
        assert switches == ["allow_plain_http", "allow_any_port", PRIVATE]


class TestValues:
    def test_everything_is_off_by_default(self) -> None:
        assert set(attrs.astuple(STRICT)) == {False}
        assert len(SWITCHES) == 5
        assert Guard() == STRICT
        assert hash(Guard()) == hash(STRICT)
        with pytest.raises(TypeError):
            Guard(True)  # type: ignore[call-arg]  # what is tested

    @pytest.mark.parametrize(
        "url", ["http://8.8.8.8", "https://8.8.8.8:22", "https://10.0.0.1", "https://169.254.169.254", "https://a"]
    )
    @pytest.mark.parametrize("phase", [Phase.WORKER, Phase.ROUTE])
    def test_a_refusal_as_an_error(self, url: str, phase: Phase) -> None:
        refusal = STRICT.check_origin(Origin.parse(url), proxied=True)
        assert refusal is not None
        assert refusal.switch in SWITCHES
        error = refusal.as_error(phase=phase, request_idx=7)
        assert type(error) is ConnectionFailed
        assert str(error) == f"{phase.value}: {refusal.text}"
        assert (error.outcome, error.advice, error.kind) == (Outcome.NOT_SENT, Advice.ALLOW, FailureKind.GUARD)
        assert (error.limit, error.request_idx, error.phase) == (refusal.switch, 7, phase)
        assert refusal.as_error().phase is Phase.WORKER
        assert refusal.as_error().request_idx is None
