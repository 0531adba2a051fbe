"""Networks of clients, for keys and settings: reads one from text, in the form that a client's address has."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Network, IPv6Network
from typing import Final

Network = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_SHOWN_CHARS: Final = 64


def parse_network(text: str) -> Network:
    """Return the network that ``text`` names, or that of one address; an IPv4-mapped one (``::ffff:``) as IPv4.

    A client's address is compared as IPv4 and without a scope id, so any other form would match no client. Raises
    ValueError, which says what is wrong: also for host bits, with the network that was probably meant.
    """
    shown = repr(text[:_SHOWN_CHARS])
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown} is neither an address nor a network") from None
    if "%" in text:
        raise ValueError(f"{shown} has a scope id (%), which no client's address has; leave it out")
    has_host_bits = "/" in text and not _has_only_network_bits(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        ipv4_bits = int(network.network_address) & 0xFFFF_FFFF
        network = IPv4Network((ipv4_bits, network.prefixlen - _MAPPED.prefixlen))
    if has_host_bits:
        raise ValueError(f"{shown} has host bits set; the network is {network}")
    return network


def _has_only_network_bits(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True
