"""
Values in Redis that are larger than any a worker writes, or of another kind: found by their sizes, and not read.

Who asked for them, and what is counted, is in ``redis_cache.py``.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from redis import Redis
from redis.exceptions import RedisError

from worker.adapters.redis_reading import all_good, asked, of_wrong_type
from worker.adapters.redis_wire import ANSWER_LIMIT_BYTES, VALUE_LIMIT_BYTES, AnswerTooLong


class Values(NamedTuple):
    """
    What lies under some keys, in order, and those of the keys under which lies what no worker writes.
    """

    found: Sequence[bytes | None]
    foreign: frozenset[str] = frozenset()


def values_of(redis: Redis, keys: Sequence[str]) -> Values:
    """
    The values of these keys, in one round trip unless they are too large together, and then in three.

    Then the sizes are asked for, and of the values that are no larger than a worker's as many as may be read in one
    answer; the rest is as if it were not there. Raises ``RedisError``, also for an answer to another question.
    """
    try:
        return Values(_values(redis, keys))
    except AnswerTooLong:
        pass
    sizes = _sizes(redis, keys)
    foreign = _foreign(sizes)
    read = _as_many_as_fit({key: size for key, size in sizes.items() if size and key not in foreign})
    found = dict(zip(read, _values(redis, read), strict=True)) if read else {}
    return Values([found.get(key) for key in keys], foreign)


def foreign_among(redis: Redis, keys: Sequence[str]) -> frozenset[str]:
    """
    Those of the keys under which lies something too large or of another kind. Raises ``RedisError``.
    """
    return _foreign(_sizes(redis, keys))


def _foreign(sizes: Mapping[str, int | None]) -> frozenset[str]:
    return frozenset(key for key, size in sizes.items() if size is None or size > VALUE_LIMIT_BYTES)


def answers_to_mget(values: object, asked_for: int) -> Sequence[bytes | None]:
    """
    What a server sent to an MGET. Raises ``RedisError`` for whatever is no answer to this question.
    """
    if not isinstance(values, list) or len(values) != asked_for:
        raise RedisError(f"MGET of {asked_for} keys was answered with {type(values).__name__}")
    return [value if isinstance(value, bytes) else None for value in values]


def _values(redis: Redis, keys: Sequence[str]) -> Sequence[bytes | None]:
    return answers_to_mget(asked(lambda: redis.mget(keys)), len(keys))


def _sizes(redis: Redis, keys: Sequence[str]) -> dict[str, int | None]:
    pipeline = redis.pipeline(transaction=False)
    once = list(dict.fromkeys(keys))
    for key in once:
        pipeline.strlen(key)
    answers = asked(lambda: pipeline.execute(raise_on_error=False))
    strings = [None if of_wrong_type(answer) else answer for answer in answers]
    sizes = all_good(strings, len(once))
    if not all(size is None or isinstance(size, int) for size in sizes):
        raise RedisError("STRLEN was answered with no number")
    return {key: size if isinstance(size, int) else None for key, size in zip(once, sizes, strict=True)}


def _as_many_as_fit(sizes: Mapping[str, int]) -> list[str]:
    # Half, for what else an answer counts.
    up_to = accumulate(sizes.values())
    return [key for key, total in zip(sizes, up_to, strict=True) if total <= ANSWER_LIMIT_BYTES // 2]
