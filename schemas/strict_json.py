"""
What counts as JSON here: UTF-8, one object, each name once in an object, no NaN and no infinity.

Stricter than most parsers, because two readers that resolve a repeated name differently would judge different images.
"""

import json
import re
from typing import Final, NoReturn

JsonObject = dict[str, object]


class JsonInvalid(ValueError):
    """
    The bytes are no JSON object; the message holds none of their content.
    """


def parse_object(value: bytes) -> JsonObject:
    """
    The one JSON object in ``value``.

    Raises ``JsonInvalid``. Text may still hold lone surrogates, and nesting is bounded by the interpreter's stack only:
    pydantic's parser refuses both.
    """
    try:
        document = _DECODER.decode(value.decode())
    except JsonInvalid:
        raise
    except RecursionError:
        raise JsonInvalid("found JSON that is nested too deeply, expected at most 200 levels") from None
    except UnicodeDecodeError as error:
        raise JsonInvalid(
            f"found bytes that are not UTF-8 at position {error.start}{_prefix_hint(value)}, expected JSON"
        ) from None
    except json.JSONDecodeError as error:
        raise JsonInvalid(f"found no JSON{_prefix_hint(value)} ({error}), expected a JSON object") from None
    except ValueError:  # the interpreter's limit, against quadratic time
        raise JsonInvalid("found an integer of thousands of digits, expected numbers of at most 19 digits") from None
    if not isinstance(document, dict):
        raise JsonInvalid(f"found JSON that is {_KINDS.get(type(document), 'a number')}, expected an object")
    return document


def presentable_name(name: str) -> str:
    """
    A member's name if it looks like one of a schema; a producer could put anything there, and it will be logged.
    """
    return name if _SCHEMA_NAME.fullmatch(name) else "*"


_SCHEMA_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_KINDS: Final = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def _unique(pairs: list[tuple[str, object]]) -> JsonObject:
    named = dict(pairs)
    if len(named) != len(pairs):
        repeated = next(name for name in named if sum(name == other for other, _ in pairs) > 1)
        raise JsonInvalid(f"{presentable_name(repeated)}: found twice in one object, expected each name once")
    return named


def _no_constant(name: str) -> NoReturn:
    raise JsonInvalid(f"found {name}, expected a number that JSON can hold")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _prefix_hint(value: bytes) -> str:
    # The Confluent wire format: a zero byte, then the id of the schema in four bytes.
    if len(value) > 5 and value[0] == 0:  # noqa: PLR2004 - magic byte and id
        return f" but a schema registry's prefix (schema {int.from_bytes(value[1:5], 'big')}); send plain JSON"
    return ""
