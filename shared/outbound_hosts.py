"""Outbound hosts: which hosts agents may call, and which private addresses; parsed from a list in the settings.

A private address is reached only if it is named: a name of a public list that resolves to one is no way into the
network of the worker.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"https": 443, "http": 80}
EXAMPLE: Final = "api.example.com,http://localhost:9000,10.0.0.0/8"
_HOST_NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*", re.ASCII)
_NUMBER: Final = re.compile(r"\d+|0x[0-9a-f]*", re.ASCII)  # "127.1" and "0x7f.1" are addresses to some resolvers

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")
# is_global calls these global, although an IPv4 address is inside or they are special.
_NOT_PUBLIC: Final = tuple(
    map(
        ipaddress.ip_network,
        ("::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16", "fec0::/10", "192.0.0.0/24", "192.88.99.0/24"),
    )
)


class OutboundHostFault(ValueError):
    """An entry that is no host, address or network."""


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Scheme, host and port of a URL; an address as host has its shortest form, without brackets."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, scheme: str, host: str, port: int | None) -> Origin:
        """Build an origin; without a port it has the scheme's default."""
        address = parse_address(host)
        name = host.lower().removesuffix(".") if address is None else str(address)
        return cls(scheme, name, port or DEFAULT_PORTS.get(scheme, 0))

    @property
    def provider(self) -> str:
        """The name of the provider at this origin, for people and metrics: its host, and its port if it is unusual."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS.get(self.scheme) else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.provider}"


@dataclass(frozen=True, slots=True)
class OutboundHosts:
    """The origins that may be called, and the addresses and networks that are named."""

    origins: frozenset[Origin] = frozenset()
    networks: tuple[Network, ...] = ()

    def allows(self, origin: Origin) -> bool:
        """Return whether ``origin`` may be called, as far as its name says."""
        return origin in self.origins

    def allows_address(self, host: str, address: Address) -> bool:
        """Return whether a connection to ``address`` may be made for ``host``, which may be called.

        A host that is an address names itself, and ``localhost`` names the loopback addresses. What any other name
        resolves to must be public, or named.
        """
        if parse_address(host) is not None:
            return True
        address = unwrap(address)
        if host == "localhost":
            return address.is_loopback
        return is_public(address) or any(address in network for network in self.networks)

    def with_urls_of(self, values: Iterable[str]) -> OutboundHosts:
        """Return this list and the origins of those ``values`` that are URLs: they name their hosts."""
        found = {origin for value in values if (origin := origin_of_url(value)) is not None}
        return OutboundHosts(self.origins | found, self.networks)


def parse_outbound_hosts(entries: Iterable[str]) -> OutboundHosts:
    """Build the list from ``entries``; raises OutboundHostFault, which names all that are wrong."""
    origins: set[Origin] = set()
    networks: list[Network] = []
    faults = []
    for entry in entries:
        text = entry.strip()
        try:
            if text:
                found_origin, found_network = _parse_entry(text)
                origins |= {found_origin} if found_origin else set()
                networks += [found_network] if found_network else []
        except ValueError as fault:
            faults.append(f"{text.rpartition('@')[2]!r} {fault}")  # what is before an @ may be a password
    if faults:
        raise OutboundHostFault("; ".join(faults))
    return OutboundHosts(frozenset(origins), tuple(networks))


def origin_of_url(text: str) -> Origin | None:
    """Return the origin of an http(s) URL; None for any other text."""
    try:
        parts = urlsplit(text.strip())
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            return None
        host = parts.hostname.encode("idna").decode() if not parts.hostname.isascii() else parts.hostname
        return Origin.of(parts.scheme, host, parts.port)
    except ValueError:
        return None


def parse_address(text: str) -> Address | None:
    """Return the address that ``text`` is, an IPv4 address in IPv6 as IPv4; None if it is none."""
    try:
        return unwrap(ipaddress.ip_address(text))
    except ValueError:
        return None


def unwrap(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or else ``address``."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_public(address: Address) -> bool:
    """Return whether ``address`` is one of the public internet: not private, loopback, link-local or multicast."""
    address = unwrap(address)
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _parse_entry(text: str) -> tuple[Origin | None, Network | None]:
    if "://" not in text:
        if "/" in text:
            return None, _parse_network(text)
        if (address := parse_address(text)) is not None:
            return Origin.of("https", str(address), None), ipaddress.ip_network(address)
    scheme, _, rest = text.rpartition("://")
    scheme = scheme.lower() or "https"
    if scheme not in DEFAULT_PORTS:
        raise ValueError("has no scheme http or https")
    if "@" in rest:
        raise ValueError("holds a user or password, which have no place here")
    if any(mark in rest.removesuffix("/") for mark in "/?#"):
        raise ValueError("has more than a scheme, a host and a port")
    host, port = _split_port(rest.removesuffix("/"))
    _check_host(host)
    origin = Origin.of(scheme, host, port)
    address = parse_address(origin.host)
    return origin, None if address is None else ipaddress.ip_network(address)


def _parse_network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"is no network such as 10.0.0.0/8: {error}") from error


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, closing, rest = text[1:].partition("]")
        if not closing or (rest and not rest.startswith(":")):
            raise ValueError("has brackets that do not hold an IPv6 address")
        port_text = rest[1:] if rest else None
    elif text.count(":") > 1:
        raise ValueError("is no host; an IPv6 address with a scheme or a port has brackets, such as [2001:db8::1]:8080")
    else:
        host, colon, rest = text.partition(":")
        port_text = rest if colon else None
    if port_text is None:
        return host, None
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) < 65_536):  # noqa: PLR2004
        raise ValueError("has a port that is no number from 1 to 65535")
    return host, int(port_text)


def _check_host(host: str) -> None:
    if parse_address(host) is not None:
        return
    name = host.lower().removesuffix(".")
    if "*" in name:
        raise ValueError("has a wildcard; name each host")
    if not name.isascii():
        raise ValueError("has letters beyond ASCII; write it in Punycode (xn--...)")
    if not _HOST_NAME.fullmatch(name) or len(name) > 253:  # noqa: PLR2004
        raise ValueError("is no name of a host")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError("is no address; write all four numbers of an IPv4 address")
