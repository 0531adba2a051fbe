"""Networks of clients: the forms that can match an address, and what is said of the others."""

from __future__ import annotations

import re
from ipaddress import ip_network

import pytest

from shared.networks import parse_network


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("10.0.0.7", "10.0.0.7/32"),
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("::1", "::1/128"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::/0", "::/0"),
        ("::ffff:127.0.0.1", "127.0.0.1/32"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::FFFF:0:0/96", "0.0.0.0/0"),
        ("::/64", "::/64"),
    ],
)
def test_a_network_has_the_form_that_a_client_s_address_has(text: str, network: str) -> None:
    assert parse_network(text) == ip_network(network)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("10.0.0.1/8", "'10.0.0.1/8' has host bits set; the network is 10.0.0.0/8"),
        ("2001:db8::1/32", "'2001:db8::1/32' has host bits set; the network is 2001:db8::/32"),
        ("::ffff:10.0.0.1/104", "'::ffff:10.0.0.1/104' has host bits set; the network is 10.0.0.0/8"),
        ("fe80::1%eth0", "'fe80::1%eth0' has a scope id (%), which no client's address has; leave it out"),
        ("fe80::%eth0/64", "'fe80::%eth0/64' has a scope id (%), which no client's address has; leave it out"),
        ("localhost", "'localhost' is neither an address nor a network"),
        ("10.0.0.0/33", "'10.0.0.0/33' is neither an address nor a network"),
        ("", "'' is neither an address nor a network"),
        ("x" * 1_000, f"'{'x' * 64}' is neither an address nor a network"),
    ],
)
def test_any_other_text_is_refused_with_the_reason(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        parse_network(text)
