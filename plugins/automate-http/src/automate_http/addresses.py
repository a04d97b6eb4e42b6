"""
The network addresses that may be reached.

The tables are written out, from IANA's registries of special-purpose addresses, because
`ipaddress.is_private` and `is_global` answer differently from one Python to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from automate_kernel.base.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
_HOST = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*"
)

# `allow_private_networks: true` opens these.
_PRIVATE = [
    (ip_network(network), kind)
    for network, kind in (
        ("10.0.0.0/8", "private"),
        ("172.16.0.0/12", "private"),
        ("192.168.0.0/16", "private"),
        ("100.64.0.0/10", "private"),
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
    )
]

# Only its own entry in the list opens one of these.
_SPECIAL = [
    (ip_network(network), kind)
    for network, kind in (
        # The clouds' metadata services, which hand out credentials: those of Alibaba, Azure, AWS
        # and Google that are not link-local.
        ("100.100.100.200/32", "metadata"),
        ("168.63.129.16/32", "metadata"),
        ("fd00:ec2::254/128", "metadata"),
        ("fd20:ce::254/128", "metadata"),
        ("0.0.0.0/8", "unspecified"),
        ("169.254.0.0/16", "link-local"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("198.18.0.0/15", "reserved"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        # Protocol assignments, Teredo among them; documentation; 6to4; documentation.
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("2002::/16", "reserved"),
        ("3fff::/20", "reserved"),
    )
]

_GLOBAL_UNICAST = IPv6Network("2000::/3")
# An IPv4 address in the last 32 bits: IPv4-mapped, and the well-known prefix of NAT64.
_EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))
_ISATAP = (0x00005EFE, 0x02005EFE)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """
    Public addresses, and others that the config allows.

    *private* allows this machine's own and those of private networks. *networks* are allowed
    without exception; a name in *hosts* may be at a private address.
    """

    private: bool = False
    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def parse(cls, allowed: bool | Iterable[str]) -> AddressPolicy:
        """Make the policy of ``allow_private_networks``. Raises `ConfigError`."""
        if isinstance(allowed, bool):
            return cls(private=allowed)
        networks: list[Network] = []
        hosts: list[str] = []
        for entry in allowed:
            try:
                networks.append(ip_network(entry.strip(), strict=False))
            except ValueError:
                hosts.append(_parsed_host(entry))
        return cls(networks=tuple(networks), hosts=frozenset(hosts))

    def refusal(self, host: str, text: str) -> str | None:
        """Return the kind of the address *text* of *host* if it is refused, else None."""
        try:
            address = ip_address(text.partition("%")[0])
        except ValueError:
            return "unreadable"
        kinds = (self._refusal(host, each) for each in _destinations(address))
        return next((kind for kind in kinds if kind), None)

    def _refusal(self, host: str, address: Address) -> str | None:
        if any(address in network for network in self.networks):
            return None
        if kind := _find(_SPECIAL, address):
            return kind
        if kind := _find(_PRIVATE, address):
            return None if self.private or normal_host(host) in self.hosts else kind
        if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
            return "reserved"
        return None


def normal_host(host: str) -> str:
    """Return *host* for comparison: in lower case, without the dot at the end."""
    return host.lower().removesuffix(".")


def _parsed_host(entry: str) -> str:
    host = normal_host(entry.strip())
    if not _HOST.fullmatch(host):
        raise ConfigError(
            f"allow_private_networks: {entry!r} is no network, address or host name",
            hint="such as 10.1.0.0/16, ::1 or vault.internal",
        )
    return host


def _destinations(address: Address) -> list[Address]:
    """Return the addresses that get the traffic: also an IPv4 address that is part of *address*."""
    if not isinstance(address, IPv6Address):
        return [address]
    last = IPv4Address(int(address) & 0xFFFF_FFFF)
    if any(address in network for network in _EMBEDDING):
        return [last]
    if (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return [address, last]
    return [address]


def _find(table: Iterable[tuple[Network, str]], address: Address) -> str | None:
    return next((kind for network, kind in table if address in network), None)
