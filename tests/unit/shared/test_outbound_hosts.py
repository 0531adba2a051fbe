"""The list of outbound hosts: what it takes, what it refuses and in which words, and which addresses are public."""

from __future__ import annotations

import contextlib
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import SettingsError
from shared.outbound_hosts import (
    Origin,
    OutboundHostFault,
    OutboundHosts,
    is_public,
    origin_of_url,
    parse_outbound_hosts,
)
from shared.settings import Settings

LABELS = st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.integers(1, 65_535)


@given(NAMES, PORTS, st.sampled_from(["http", "https"]))
def test_an_entry_allows_its_origin_and_no_other(name: str, port: int, scheme: str) -> None:
    hosts = parse_outbound_hosts([f"{scheme}://{name}:{port}"])
    assert hosts.allows(Origin(scheme, name, port))
    assert not hosts.allows(Origin(scheme, name, port % 65_535 + 1))
    assert not hosts.allows(Origin("http" if scheme == "https" else "https", name, port))
    assert not hosts.allows(Origin(scheme, f"x.{name}", port))
    assert parse_outbound_hosts([f"{name}:{port}"]).allows(Origin("https", name, port))
    assert parse_outbound_hosts([name.upper()]).allows(Origin("https", name, 443))
    assert origin_of_url(f"{scheme}://u:p@{name}:{port}/path?q=1#f") == Origin(scheme, name, port)


@given(st.text(max_size=30))
def test_any_text_is_taken_or_refused_with_a_reason(text: str) -> None:
    with contextlib.suppress(OutboundHostFault):
        assert parse_outbound_hosts([text]) is not None


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_its_ipv6_forms(address: IPv4Address) -> None:
    for form in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert is_public(ip_address(form)) == is_public(address)
    for number in (int(address), 0x2002 << 112 | int(address) << 80):
        assert not is_public(IPv6Address(number)), "IPv4-compatible, 6to4"


@given(st.sampled_from(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4",
                        "100.64.0.0/10", "0.0.0.0/8", "240.0.0.0/4", "fc00::/7", "fe80::/10", "ff00::/8", "fec0::/10"])
       .flatmap(lambda network: st.ip_addresses(network=network)))  # fmt: skip
def test_a_private_address_is_allowed_for_a_name_only_if_it_is_named(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)
    assert not parse_outbound_hosts(["a.example"]).allows_address("a.example", address)
    assert parse_outbound_hosts(["a.example", str(ip_network(address))]).allows_address("a.example", address)
    assert parse_outbound_hosts(["a.example", "0.0.0.0/0", "::/0"]).allows_address("a.example", address)


def test_localhost_is_loopback_and_nothing_else() -> None:
    hosts = parse_outbound_hosts(["http://localhost:9000", "10.0.0.0/8"])
    assert hosts.allows_address("localhost", ip_address("127.0.0.1"))
    assert not hosts.allows_address("localhost", ip_address("10.0.0.1"))
    assert not hosts.allows_address("other", ip_address("127.0.0.1"))


def test_all_faults_are_told_together_with_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {
        "*.example.com": "has a wildcard; name each host",
        "10.0.0.7/8": "is no network",
        "ftp://a.example": "has no scheme http or https",
        "a.example:ninety": "has a port that is no number from 1 to 65535",
        "127.1": "is no address; write all four numbers",
        "https://a.example/path": "has more than a scheme, a host and a port",
        "münchen.example": "write it in Punycode",
        "2001:db8::1:2:3:4:5:6:7:8": "an IPv6 address with a scheme or a port has brackets",
    }
    monkeypatch.setenv("BUCKET_OUTBOUND_HOSTS", ",".join(["good.example", *faults, "https://u:s3cret@a.example"]))
    with pytest.raises(SettingsError) as caught:
        Settings.from_environ()
    text = str(caught.value)
    assert text.startswith("BUCKET_OUTBOUND_HOSTS: is no list of hosts, such as api.example.com,")
    for entry, words in faults.items():
        assert f"{entry!r} " in text
        assert words in text
    assert "good.example" not in text
    assert "s3cret" not in text
    assert "holds a user or password" in text


def test_the_setting_is_read_and_none_allows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().outbound_hosts == OutboundHosts()
    monkeypatch.setenv("BUCKET_OUTBOUND_HOSTS", " a.example, [::1]:8443,10.0.0.0/8, ")
    monkeypatch.setenv("BUCKET_OUTBOUND_RATE", "2.5")
    settings = Settings.from_environ()
    assert settings.outbound_hosts.origins == {Origin("https", "a.example", 443), Origin("https", "::1", 8443)}
    assert settings.outbound_rate == 2.5
    assert settings.outbound_proxy == ""
    monkeypatch.setenv("BUCKET_OUTBOUND_PROXY", "http://ada:s3cret@proxy.example:3128")
    settings = Settings.from_environ()
    assert settings.outbound_proxy == "http://ada:s3cret@proxy.example:3128"
    assert "s3cret" not in repr(settings)
    for wrong in ("proxy.example:3128", "http://ada:s3cret@proxy.example", "socks5://s3cret:1", "http://p:1/s3cret"):
        monkeypatch.setenv("BUCKET_OUTBOUND_PROXY", wrong)
        with pytest.raises(SettingsError, match="is no URL of a proxy with its port") as caught:
            Settings.from_environ()
        assert "s3cret" not in str(caught.value)
    monkeypatch.delenv("BUCKET_OUTBOUND_PROXY")
    monkeypatch.setenv("BUCKET_OUTBOUND_RATE", "0")
    with pytest.raises(SettingsError, match="BUCKET_OUTBOUND_RATE"):
        Settings.from_environ()
