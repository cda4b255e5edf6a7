"""
Host names in settings: exact, or every name below one, as in ``*.cdn.example``; with a port where that is asked for.

What they are good for is not here.
"""

from typing import Annotated, Final

from pydantic import AfterValidator, Field

_ANY_BELOW: Final = "*."
_NAME: Final = r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,250}[A-Za-z0-9_])?"
_HTTPS_PORT: Final = 443
_LAST_PORT: Final = 65535


def _lower(pattern: str) -> str:
    return pattern.lower()


def _with_a_port(pattern: str) -> str:
    if _split(pattern)[1] > _LAST_PORT:
        raise ValueError(f"the port of {pattern!r} is beyond {_LAST_PORT}")
    return pattern


HostPattern = Annotated[
    str,
    Field(pattern=f"^{_NAME}$"),
    AfterValidator(_lower),
]
"""A name as it stands in an address (an international one as ``xn--``), or an IPv4 address; no scheme, no port."""

HostAndPortPattern = Annotated[
    str,
    Field(pattern=f"^{_NAME}(:[1-9][0-9]{{0,4}})?$"),
    AfterValidator(_lower),
    AfterValidator(_with_a_port),
]
"""The same with a port behind it, as in ``media.example:8443``; without one, port 443 is meant and no other."""


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


def covers_at(pattern: str, host: str, port: int) -> bool:
    """
    Whether a host at a port is one of those that a ``HostAndPortPattern`` names.
    """
    name, named_port = _split(pattern)
    return port == named_port and covers(name, host)


def overlap_at(one: str, other: str) -> bool:
    """
    Whether some host at some port is named by both ``HostAndPortPattern``.
    """
    (name, port), (other_name, other_port) = _split(one), _split(other)
    return port == other_port and overlap(name, other_name)


def _split(pattern: str) -> tuple[str, int]:
    name, _, port = pattern.partition(":")
    return name, int(port or _HTTPS_PORT)
