"""
Looking for secrets and image bytes where they must not be: in the clear, and in the codings in which bytes travel.
"""

import base64
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from opentelemetry.proto.trace.v1.trace_pb2 import Span

ALIGNMENTS = 3
"""Base64 codes three bytes at a time, so that the same bytes look different at three places of a longer text."""


def forms(secret: str) -> frozenset[str]:
    """
    How a secret of at least nine characters may look: as it is, quoted for a URL, in hex, and within base64.
    """
    raw = secret.encode()
    return frozenset(
        {secret, quote(secret), quote(secret, safe=""), raw.hex(), raw.hex().upper(), *_within_base64(raw)}
    )


def found_in(text: str, secrets: Mapping[str, str]) -> list[str]:
    """
    The names of the secrets that a text holds in any form, sorted.
    """
    return sorted(name for name, secret in secrets.items() if any(form in text for form in forms(secret)))


def text_of(span: Span) -> str:
    """
    All texts of a span: its name, attributes, events, links and status.
    """
    return str(span)


def text_of_bytes(value: bytes | None) -> str:
    """
    Bytes as a text in which any secret is found that they hold.
    """
    return "" if value is None else value.decode("latin-1")


def without_original(letter: dict[str, Any]) -> dict[str, Any]:
    """
    A dead letter without the record that it carries byte for byte, as the contract says.
    """
    original = {
        name: value
        for name, value in letter["original"].items()
        if name not in {"key_base64", "value_base64", "headers"}
    }
    return letter | {"original": original}


def _within_base64(raw: bytes) -> Iterator[str]:
    for offset in range(ALIGNMENTS):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            coded = encode(bytes(offset) + raw).decode()
            # The first and the last characters also depend on what stands beside the secret.
            yield coded[4 if offset else 0 : -4]
