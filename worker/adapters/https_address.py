"""
Which web addresses may be asked, as far as their text tells: scheme, user name, host in disguise, allow-list.

Where a host's name leads is checked as it is connected to, in ``guarded_dial.py``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError
from urllib3.util import Url, parse_url

from schemas.errors import ErrorCode
from worker.errors import UploadFailed
from worker.settings.host_patterns import covers

WebAddress = Url

_PORTS: Final = {"http": 80, "https": 443}
# Hosts that a C library reads as IPv4 numbers; the URL standard says "ends in a number".
_NUMERIC_HOST: Final = re.compile(r"(^|\.)(\d+|0[xX][0-9a-fA-F]*)\.?$")
# A name of labels, or an IPv6 address without a zone (a zone names a card of this machine).
_HOST: Final = re.compile(r"\[[0-9a-fA-F:.]+\]|(?=.{1,254}$)(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# A folded header leaves a line break in its value, and some take a backslash for a slash.
_NOT_IN_LOCATION: Final = re.compile(r"[\x00-\x1f\x7f\\]")


@dataclass(frozen=True, slots=True)
class AddressRules:
    """
    What an address must be like: ``https``, ``http`` only where it is allowed, and a host that is on the list, if any.
    """

    allow_http: bool
    allowed_hosts: Sequence[str]

    def checked(self, text: str, code_if_malformed: ErrorCode) -> Url:
        """
        The address without its fragment, if it is one that may be asked. Raises ``UploadFailed``.
        """
        try:
            url = parse_url(text)._replace(fragment=None)
        except (HTTPError, ValueError) as error:
            raise UploadFailed(code_if_malformed, "the reference is no well-formed web address") from error
        if url.scheme != "https" and not (url.scheme == "http" and self.allow_http):
            raise UploadFailed(
                ErrorCode.REF_FORBIDDEN,
                f"scheme {(url.scheme or '')[:16]!r} is refused; use https (or set fetch.allow_http)",
            )
        if not url.host:
            raise UploadFailed(code_if_malformed, "the reference is a web address without a host")
        if url.auth is not None:
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the reference carries a user name or password")
        if not _HOST.fullmatch(url.host) or url.port == 0:
            raise UploadFailed(code_if_malformed, "the host is neither a name nor an address, or its port is 0")
        if _NUMERIC_HOST.search(url.host) and not _is_plain_ipv4(url.host):
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, "the host is a number, yet no plain IPv4 address")
        if self.allowed_hosts and not any(covers(pattern, url.host) for pattern in self.allowed_hosts):
            raise UploadFailed(ErrorCode.REF_FORBIDDEN, f"host {url.host} is not among fetch.allowed_hosts")
        return url

    def redirected(self, url: Url, location: str | None, status: int) -> Url:
        """
        Where an answer of ``url`` leads, checked like any other. Raises ``UploadFailed``.
        """
        if not location:
            raise UploadFailed(
                ErrorCode.FETCH_REDIRECT,
                f"{place(url)} answered {status} without saying where to",
                http_status=status,
            )
        no_address = UploadFailed(
            ErrorCode.FETCH_REDIRECT, f"{place(url)} redirects to what is no address", http_status=status
        )
        if _NOT_IN_LOCATION.search(location):
            raise no_address
        try:
            target = urljoin(url.url, location)
        except ValueError as error:
            raise no_address from error
        following = self.checked(target, ErrorCode.FETCH_REDIRECT)
        if url.scheme == "https" and following.scheme != "https":
            raise UploadFailed(ErrorCode.FETCH_REDIRECT, f"{place(url)} redirects to plain http", http_status=status)
        return following


def place(url: Url) -> str:
    """
    What of an address may be told: a path may be as secret as a query.
    """
    return f"{url.scheme}://{url.netloc}"


def origin(url: Url) -> tuple[str | None, str, int]:
    """
    Scheme, host and port: what must be the same for two addresses to be of one host.
    """
    return url.scheme, (url.host or "").lower().removesuffix("."), url.port or _PORTS.get(url.scheme or "", 0)


def _is_plain_ipv4(host: str) -> bool:
    try:
        return ip_address(host).version == 4  # noqa: PLR2004 - IPv4
    except ValueError:
        return False
