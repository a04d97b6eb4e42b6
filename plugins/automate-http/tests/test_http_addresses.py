"""Which addresses may be reached."""

from __future__ import annotations

import ipaddress

import pytest
from automate_http import AddressPolicy
from automate_kernel.base.errors import ConfigError
from hypothesis import given
from hypothesis import strategies as st

PUBLIC = [
    "93.184.215.14",
    "8.8.8.8",
    "1.1.1.1",
    "172.15.0.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2a00:1450:4001:82a::200e",
    "64:ff9b::8.8.8.8",
    "::ffff:8.8.8.8",
]

# Private ones: what they are, and that `true` opens them.
PRIVATE = [
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "::1",
    "fd12:3456::1",
    "fc00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::127.0.0.1",
]

# What nothing but its own entry opens.
SPECIAL = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.0.9",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "febf::1",
    "ff02::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "64:ff9b::169.254.169.254",
    "::127.0.0.1",
    "::8.8.8.8",
    "64:ff9b:1::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3fff::1",
    "fec0::1",
    "100::1",
    "4000::1",
    "5f00::1",
    "2606:4700::5efe:169.254.169.254",
    "2606:4700::200:5efe:0.0.0.0",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_reached(address: str) -> None:
    """Nothing that is really on the internet is refused."""
    assert AddressPolicy().refusal("example.com", address) is None


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_permission(address: str) -> None:
    """Refused as they are, also inside an IPv6 address; opened by ``true`` or by name."""
    assert AddressPolicy().refusal("intern", address)
    assert AddressPolicy.parse(True).refusal("intern", address) is None
    assert AddressPolicy.parse(["Intern."]).refusal("intern", address) is None
    assert AddressPolicy.parse(["Intern"]).refusal("other", address)


@pytest.mark.parametrize("address", SPECIAL)
def test_special_addresses_need_an_entry_of_their_own(address: str) -> None:
    """The clouds' metadata services stay shut when private networks are opened."""
    assert AddressPolicy().refusal("intern", address)
    assert AddressPolicy.parse(True).refusal("intern", address)
    assert AddressPolicy.parse(["intern"]).refusal("intern", address)


def test_isatap_hides_no_private_address() -> None:
    """Both the address and the IPv4 address in it have to be allowed."""
    assert AddressPolicy().refusal("x", "2606:4700::5efe:10.0.0.1") == "private"
    assert AddressPolicy().refusal("x", "fe80::5efe:8.8.8.8") == "link-local"
    assert AddressPolicy().refusal("x", "2606:4700::5efe:8.8.8.8") is None


def test_a_listed_network_is_opened() -> None:
    """An operator can open one network, or even link-local, and no more than that."""
    policy = AddressPolicy.parse(["10.1.0.0/16", "169.254.169.254", "fd00::/8"])
    assert policy.refusal("x", "10.1.2.3") is None
    assert policy.refusal("x", "::ffff:10.1.2.3") is None
    assert policy.refusal("x", "169.254.169.254") is None
    assert policy.refusal("x", "fd00:ec2::254") is None
    assert policy.refusal("x", "10.2.0.1") == "private"
    assert policy.refusal("x", "169.254.169.253") == "link-local"


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.0/99", "http://intern", "intern/8", "*.intern", "a b"]
)
def test_an_entry_that_is_neither_network_nor_name_is_refused(entry: str) -> None:
    """A typing error opens nothing, and is found at once."""
    with pytest.raises(ConfigError, match="allow_private_networks"):
        AddressPolicy.parse([entry])


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.0.0.1", "1.2.3.4.5", "١.1.1.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    """Whatever a resolver gives, the guard fails shut."""
    assert AddressPolicy.parse(True).refusal("x", text) == "unreadable"


@given(st.ip_addresses())
def test_whatever_python_calls_private_is_refused(address: ipaddress.IPv4Address) -> None:
    """The tables are at least as strict as the standard library of any Python."""
    embedding = ("64:ff9b::/96", "::ffff:0:0/96")
    if any(address in ipaddress.ip_network(network) for network in embedding):
        return  # judged by the IPv4 address in it, while Python's answers vary
    if address.is_private or address.is_link_local or address.is_multicast or address.is_reserved:
        assert AddressPolicy().refusal("x", str(address))
