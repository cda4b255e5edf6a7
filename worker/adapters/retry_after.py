"""
How long a server asks us to wait: the header ``Retry-After``, in seconds or as a date (RFC 9110, section 10.2.3).
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

LONGEST_S: Final = 3600.0
"""A server that asks for more is taken to have asked for this: what it says is not ours to believe without end."""

_DIGITS: Final = 9


def retry_after_s(header: str | None, *, now_s: float) -> float | None:
    """
    Seconds from now, between 0 and ``LONGEST_S``; None where nothing, or nothing readable, was said.

    ``now_s`` is in seconds since the epoch.
    """
    text = (header or "").strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:_DIGITS]), LONGEST_S)
    if not text or len(text) > 64:  # noqa: PLR2004 - a date is half as long
        return None
    try:
        then = parsedate_to_datetime(text)
        # A date without a zone says -0000: it is in UTC like all others.
        wait_s = (then if then.tzinfo is not None else then.replace(tzinfo=UTC)).timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), LONGEST_S)
