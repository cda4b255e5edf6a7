"""
What is wrong with an event, in one line: the field, what was found, what was expected.

The line goes into logs and dead letters, so what was found is shown only where it cannot be user data or a secret:
never base64, addresses, keys, paths or the values of attributes, and only a text that can be none of these.
"""

import re
from typing import Final

from pydantic import ValidationError

from schemas.strict_json import presentable_name

_SHOWN: Final = frozenset({
    "ai_disclosed", "byte_length", "created_at", "expires_at", "kind", "media_type", "profile", "revision", "sha256",
    "surface",
})  # fmt: skip
_PLAIN: Final = (
    ("Input should be ", ""),
    ("String should match pattern ", "text that matches "),
    ("String should have ", "text of "),
)
_MAX_FOUND_CHARS: Final = 40
# A word, a number, a time or a media type: no sign of it could begin a query, or end a name and a password.
_TELLING: Final = re.compile(r"[A-Za-z0-9 ._+:-]*|(?:application|audio|image|multipart|text|video)/[A-Za-z0-9._+-]+")


def explain(error: ValidationError) -> str:
    """
    One line for people about the first of the errors, and how many more there are.
    """
    errors = error.errors(include_url=False)
    first = errors[0]
    if first["type"] == "json_invalid":
        return f"found no JSON ({first['msg'].removeprefix('Invalid JSON: ')}), expected a JSON object"
    if first["type"] == "value_error":  # raised by our own models, in the form of this line
        return first["msg"].removeprefix("Value error, ")
    field, found, expected = _field(first["loc"]), _found(first["input"], first["loc"]), _plain(first["msg"])
    if first["type"] == "missing":
        found, expected = "nothing", "a value"
    elif first["type"] == "union_tag_invalid":
        context = first["ctx"]
        field, found, expected = f"{field}.kind", _shown(context["tag"]), f"one of {context['expected_tags']}"
    elif first["type"] == "union_tag_not_found":
        field, found, expected = f"{field}.kind", "nothing", "the kind of the reference"
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{field}: found {found}, expected {expected}{more}"


def found_text(text: str) -> str:
    """
    What was found, in quotes, where it looks like no address and no credentials; else its length.
    """
    if not _TELLING.fullmatch(text):
        return f"text of {len(text)} characters"
    return repr(text) if len(text) <= _MAX_FOUND_CHARS else f"{text[:_MAX_FOUND_CHARS]!r}… ({len(text)} characters)"


def _field(location: tuple[int | str, ...]) -> str:
    return ".".join(presentable_name(str(part)) for part in location) or "event"


def _found(value: object, location: tuple[int | str, ...]) -> str:
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if location and location[-1] in _SHOWN and "attributes" not in location:
        return _shown(value)
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    return "true or false" if isinstance(value, bool) else "a number"


def _shown(value: object) -> str:
    if isinstance(value, str):
        return found_text(value)
    text = repr(value)
    return text if len(text) <= _MAX_FOUND_CHARS else f"{text[:_MAX_FOUND_CHARS]}… ({len(text)} characters)"


def _plain(message: str) -> str:
    for prefix, plain in _PLAIN:
        if message.startswith(prefix):
            return plain + message.removeprefix(prefix)
    return message
