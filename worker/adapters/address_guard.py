"""
Which network addresses may be asked for an image: those of the public Internet, and no other.

``ipaddress`` alone is not enough, and its answers changed between patch releases of Python; so what is refused stands
here as ranges. Names, sockets and resolving are not here; they live in ``guarded_dial.py``.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# https://www.iana.org/assignments/iana-ipv4-special-registry, and multicast
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT; also the metadata service of Alibaba Cloud
        "127.0.0.0/8",
        "168.63.129.16/32",  # looks public, but answers inside every Azure virtual machine
        "169.254.0.0/16",  # link-local: the metadata service of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",  # also the metadata service of Oracle Cloud
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays: leads to whatever 6to4 address follows
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # ipaddress calls some multicast global
        "240.0.0.0/4",
    )
)
# Only global unicast is ever routed, and it lies within 2000::/3: NAT64, unique-local, link-local, the deprecated
# site-local and IPv4-compatible ranges, multicast and the SRv6 range all lie outside it.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# https://www.iana.org/assignments/iana-ipv6-special-registry
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocols; among them Teredo, which embeds an IPv4 address of the sender's choosing
        "2001:db8::/32",
        "2002::/16",  # 6to4 embeds an IPv4 address, 127.0.0.1 if it likes
        "3fff::/20",
    )
)


def is_public(address: str) -> bool:
    """
    Whether a numeric address belongs to the public Internet; anything that is no plain numeric address does not.

    An IPv4 address in IPv6 clothes (``::ffff:a.b.c.d``) is judged as what it is. A zone (``%eth0``) is refused.
    """
    if "%" in address:
        return False
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    return parsed in _GLOBAL_UNICAST and not any(parsed in network for network in _REFUSED_V6)
