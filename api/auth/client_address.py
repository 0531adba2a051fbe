"""The address that a request comes from, behind trusted proxies too."""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from flask import request

from api.http.version_prefix import is_trusted_proxy


def client_address() -> IPv4Address | IPv6Address | None:
    """Return the address of the client; None if the peer has none, as on a Unix socket.

    That is the peer, or, if the peer is a trusted proxy, the last address of ``X-Forwarded-For`` that no trusted proxy
    has: what stands before it could have been sent by anyone.
    """
    address: str = request.environ.get("REMOTE_ADDR", "")
    if "HTTP_X_FORWARDED_FOR" in request.environ:
        hops = [hop.strip() for hop in request.environ["HTTP_X_FORWARDED_FOR"].split(",")]
        while hops and is_trusted_proxy(address):
            address = hops.pop()
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def is_client_in(networks: tuple[IPv4Network | IPv6Network, ...]) -> bool:
    """Return whether the client's address is in one of ``networks``."""
    address = client_address() if networks else None
    return address is not None and any(address in network for network in networks)
