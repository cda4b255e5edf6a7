"""
What may be said of an address, a text or a value where others read it: in logs, messages and ``config show``.

Pure functions; what is written where, is decided by their callers.
"""

import re
from collections.abc import Mapping
from datetime import date
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

MASK: Final = "***"
MAX_TEXT_CHARS: Final = 16_384
"""A text longer than this keeps its two ends: a traceback names its cause in the last line."""

# The scheme is bounded, or a long text without one would cost the square of its length.
_URL = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{0,31}://\S+")
_ENCODED_BYTES = re.compile(r"[A-Za-z0-9+/_=-]{256,}")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def redact_url(url: str) -> str:
    """
    The URL without userinfo, query and fragment, each of which may hold a secret; of a ``data:`` URL, its media type.
    """
    if url[:5].lower() == "data:":
        return re.split("[;,]", url, maxsplit=1)[0]
    try:
        parts = urlsplit(url)
    except ValueError:
        return "<unreadable url>"
    if not parts.netloc:
        return re.split("[?#]", url, maxsplit=1)[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def mask_url(url: str) -> str:
    """
    A secret address for its operator: scheme, host and path, and ``***`` where userinfo, query or fragment were.

    A password may hold an unescaped ``/``, ``?`` or ``#``: whatever stands before the last ``@`` is userinfo.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return MASK
    _, has_userinfo, address = rest.rpartition("@")
    bare, *hidden = re.split("[?#]", address, maxsplit=1)
    return f"{scheme}://{MASK + '@' if has_userinfo else ''}{bare}{'?' + MASK if hidden else ''}"


def redact_text(text: str) -> str:
    """
    The text with each URL in it redacted and long runs of base64, which may be an image, replaced by their length.
    """
    text = _ENCODED_BYTES.sub(lambda run: f"<{len(run[0])} encoded characters>", text)
    if "://" in text:
        text = _URL.sub(lambda url: redact_url(url[0]), text)
    if len(text) > MAX_TEXT_CHARS:
        half = MAX_TEXT_CHARS // 2
        text = f"{text[:half]} <{len(text) - 2 * half} characters> {text[-half:]}"
    return text


def one_line(text: str, *, keep_newlines: bool = False) -> str:
    """
    The text with its control characters escaped, so that no value can forge a line of the log or steer a terminal.
    """
    control = _CONTROL_BUT_NEWLINE if keep_newlines else _CONTROL
    return control.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def plain(value: object) -> object:
    """
    The value as None, bool, int, finite float, text, or a list or dict of these; never bytes, never a foreign ``repr``.

    Whatever is none of these (an event, a response, an array of pixels) is named by its type alone: its ``repr`` may
    hold what must not be logged.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if abs(number) < float("inf") else str(number)  # JSON knows neither NaN nor infinity
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{memoryview(value).nbytes} bytes>"
    return _plain_text(value)


def _plain_text(value: object) -> object:
    if isinstance(value, str | UUID | PurePath):
        return redact_text(str(value))
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, BaseException):
        return redact_text(f"{type(value).__name__}: {value}")
    if isinstance(value, Mapping):
        return {redact_text(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return f"<{type(value).__name__}>"
