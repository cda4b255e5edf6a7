"""
What the answers of a Redis are, or that they are none: every oddity becomes ``RedisError``, and nothing else is raised.

What is asked is in the adapters that ask; what is read of an answer at all, in ``redis_wire.py``.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import structlog
from redis.exceptions import RedisError, ResponseError

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_PAGE: Final = 2
"""Parts of an answer to SCAN: where it goes on, and the keys."""
_CURSOR: Final = re.compile(rb"[0-9]{1,20}")


def asked(ask: Callable[[], _T]) -> _T:
    """
    What was answered. Raises ``RedisError`` alone, also for what redis-py, the system or an odd answer raise otherwise.
    """
    try:
        return ask()
    except RedisError:
        raise
    except OSError as fault:
        raise RedisError(f"Redis was not asked ({type(fault).__name__})") from fault
    except Exception as fault:
        log.exception("redis.unexpected_fault", error=type(fault).__name__)
        raise RedisError(f"Redis was not asked, or its answer not read ({type(fault).__name__})") from fault


def all_good(answers: object, number: int) -> list[object]:
    """
    The answers to so many commands. Raises ``RedisError`` where there are others, or one of them is an error.
    """
    if not isinstance(answers, list) or len(answers) != number:
        raise RedisError(f"{number} commands were answered with {type(answers).__name__}")
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer if isinstance(answer, RedisError) else RedisError(type(answer).__name__)
    return answers


def of_wrong_type(answer: object) -> bool:
    """
    Whether a command found something of another kind under its key than a worker writes there.
    """
    return isinstance(answer, ResponseError) and str(answer).startswith("WRONGTYPE")


def numbers(answers: object, number: int) -> list[int]:
    """
    The answers to so many commands that are answered with numbers. Raises ``RedisError`` for others.
    """
    found = [answer for answer in all_good(answers, number) if isinstance(answer, int)]
    if len(found) != number:
        raise RedisError("a number was expected of each command")
    return found


def members_in(answer: object) -> Sequence[bytes]:
    """
    What a set holds. Raises ``RedisError`` for an answer that is no list of texts.
    """
    members = answer if isinstance(answer, list) else [None]
    found = [member for member in members if isinstance(member, bytes)]
    if len(found) != len(members):
        raise RedisError("a list of members was expected")
    return found


def page_in(answer: object) -> tuple[int, Sequence[bytes]]:
    """
    Where a walk over all keys goes on, 0 at its end, and the keys of this step. Raises ``RedisError``.
    """
    if not isinstance(answer, list) or len(answer) != _PAGE:
        raise RedisError("a step of a walk over all keys was expected")
    cursor, keys = answer
    if not isinstance(cursor, bytes) or not _CURSOR.fullmatch(cursor):
        raise RedisError("a step of a walk over all keys was expected")
    return int(cursor), members_in(keys)
