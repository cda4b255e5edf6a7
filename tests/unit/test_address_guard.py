"""
Which addresses are public, literal by literal.
"""

from ipaddress import IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.adapters.address_guard import is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.17",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.1",
    "192.169.0.1",
    "223.255.255.254",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2400:cb00:2048::1",
    "::ffff:8.8.8.8",
]
NOT_PUBLIC = [
    "0.0.0.0",  # noqa: S104 - an address to refuse, nobody binds to it
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:a9fe:a9fe",
    "::ffff:169.254.169.254",
    "0:0:0:0:0:ffff:7f00:1",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "::ffff:127.0.0.1%lo",
    "::169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::8.8.8.8",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "64:ff9b:1:ffff::8.8.8.8",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "2002:808:808::808:808",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "2606:4700:4700::1111%1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
NOT_AN_ADDRESS = [
    "",
    " ",
    "localhost",
    "example.com",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "0x7f.0x0.0x0.0x1",
    "0x7f.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "127.0.0.1.",
    "127.0.0.01",
    "1.1.1.1/32",
    "\u0661.1.1.1",
    "1.1.1.256",
    "::ffff:8.8.8.8.8",
    "8.8.8.8 ",
    "[::1]",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_the_public_internet_is_public(address: str) -> None:
    """
    Addresses that anybody can reach are public, also those next to a refused range.
    """
    found = is_public(address)

    assert found


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_special_addresses_are_not_public(address: str) -> None:
    """
    Loopback, private, metadata, multicast, reserved and translated addresses are refused, in whatever clothes.
    """
    found = is_public(address)

    assert not found


@pytest.mark.parametrize("text", NOT_AN_ADDRESS)
def test_what_is_no_numeric_address_is_not_public(text: str) -> None:
    """
    Names and the numeric spellings that only a C library understands are refused.
    """
    found = is_public(text)

    assert not found


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_judged_alike_in_ipv6_clothes(address: object) -> None:
    """
    Mapping an IPv4 address into IPv6 neither opens nor shuts the door.
    """
    mapped = IPv6Address(f"::ffff:{address}")

    assert is_public(str(address)) == is_public(str(mapped))


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private(address: object) -> None:
    """
    We are at least as strict as the standard library.
    """
    parsed = ip_address(str(address))
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None

    if mapped is None and not parsed.is_global:
        assert not is_public(str(address))
