"""
Host names in settings: exact, or every name below one, as in ``*.cdn.example``. What they are good for is not here.
"""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

_ANY_BELOW: Final = "*."


def _lower(pattern: str) -> str:
    return pattern.lower()


HostPattern = Annotated[
    str,
    Field(pattern=r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,250}[A-Za-z0-9_])?$"),
    AfterValidator(_lower),
]
"""A name as it stands in an address (an international one as ``xn--``), or an IPv4 address; no scheme, no port."""


def covers(pattern: str, host: str) -> bool:
    """
    Whether a host is one of those that a pattern names. ``*.cdn.example`` names all below it, and not itself.
    """
    host = host.lower().removesuffix(".")
    if pattern.startswith(_ANY_BELOW):
        return host.endswith(pattern[1:]) and len(host) >= len(pattern)
    return host == pattern


def overlap(one: str, other: str) -> bool:
    """
    Whether some host is named by both patterns.
    """
    bare, other_bare = one.removeprefix(_ANY_BELOW), other.removeprefix(_ANY_BELOW)
    if one != bare and other != other_bare:
        return bare == other_bare or bare.endswith(f".{other_bare}") or other_bare.endswith(f".{bare}")
    return one == other or covers(one, other) or covers(other, one)
