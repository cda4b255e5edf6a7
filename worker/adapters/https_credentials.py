"""
Which credentials go with a request to a web host, and to which hosts they never go.

They are those of the configuration's profiles; an event neither carries nor names any.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydantic import SecretStr

from worker.adapters.https_address import WebAddress, origin
from worker.settings.host_patterns import covers_at
from worker.settings.images import HttpProfile

NOTHING: Final[Mapping[str, SecretStr]] = MappingProxyType({})


class Credentials:
    """
    The profiles, asked for each fetch.
    """

    def __init__(self, profiles: Mapping[str, HttpProfile]) -> None:
        self._profiles = tuple((profile.hosts, _headers(profile)) for profile in profiles.values())

    def of_fetch(self, first: WebAddress) -> "FetchCredentials":
        """
        Those that a fetch which begins at this address may send.
        """
        if first.scheme != "https":
            return FetchCredentials(first, NOTHING)
        # The port too: whoever may run a server on another port of that host is not whom the secret is for.
        _, host, port = origin(first)
        for hosts, headers in self._profiles:
            if any(covers_at(pattern, host, port) for pattern in hosts):
                return FetchCredentials(first, headers)
        return FetchCredentials(first, NOTHING)


class FetchCredentials:
    """
    The credentials of one fetch, for the host where it begins.

    A redirect to another drops them for good: whoever comes back from there may have been sent by anybody.
    """

    def __init__(self, first: WebAddress, headers: Mapping[str, SecretStr]) -> None:
        self._origin = origin(first)
        self._headers = headers

    def headers_for(self, url: WebAddress) -> dict[str, str]:
        """
        What is sent to this address, in the clear; asked once for each hop, in their order.
        """
        if origin(url) != self._origin:
            self._headers = NOTHING
        return {name: secret.get_secret_value() for name, secret in self._headers.items()}


def _headers(profile: HttpProfile) -> Mapping[str, SecretStr]:
    headers: dict[str, SecretStr] = {}
    if profile.header is not None and profile.value is not None:
        headers[profile.header] = profile.value
    if profile.bearer_token is not None:
        headers["Authorization"] = SecretStr(f"Bearer {profile.bearer_token.get_secret_value()}")
    return headers
