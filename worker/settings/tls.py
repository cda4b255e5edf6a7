"""
What the TLS settings of Kafka and of Redis have in common: which of them make sense together. Opens no file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr


class TlsSettings(Protocol):
    """
    A section with the four settings of TLS.
    """

    @property
    def ssl_cafile(self) -> Path | None:
        """
        The authorities that are trusted.
        """

    @property
    def ssl_certfile(self) -> Path | None:
        """
        Our own certificate.
        """

    @property
    def ssl_keyfile(self) -> Path | None:
        """
        The key to our own certificate.
        """

    @property
    def ssl_key_password(self) -> SecretStr | None:
        """
        The password of that key.
        """


def tls_contradictions(section: TlsSettings, *, tls: bool, why: str) -> Iterator[str]:
    """
    One line for each of the four that cannot be meant; ``why`` names what has no TLS where ``tls`` is false.
    """
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password"):
        if not tls and getattr(section, name) is not None:
            yield f"{why} does not use {name}"
    if (section.ssl_certfile is None) != (section.ssl_keyfile is None):
        yield "ssl_certfile and ssl_keyfile go together: give both or neither"
    if section.ssl_key_password is not None and section.ssl_keyfile is None:
        yield "ssl_key_password needs ssl_keyfile"
