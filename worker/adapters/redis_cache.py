"""
What was found of bytes, shared between workers and kept between runs, in Redis.

A Redis that is down, slow, full or wrong costs hits and counts in the metrics; it is never a failure. How a sighting
lies in a value is in ``sighting_codec.py``, how values are signed, if they are, in ``value_seal.py``, how Redis is
connected to in ``redis_client.py``, and what is done about values too large to read in ``redis_oversized.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Final

from redis.client import Pipeline
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.adapters.circuit_breaker import CircuitBreaker
from worker.adapters.redis_client import open_redis
from worker.adapters.redis_oversized import Values, answers_to_mget, foreign_among, values_of
from worker.adapters.redis_reading import all_good, asked, of_wrong_type
from worker.adapters.redis_wire import AnswerTooLong
from worker.adapters.sighting_codec import (
    SightingScope,
    pack_facts,
    pack_failure,
    pack_measured,
    scope_names,
    scoped_key,
    scopes_key,
    unpack_facts,
    unpack_failure,
    unpack_measured,
)
from worker.adapters.value_seal import seal_of
from worker.domain import ContentHash, Sighting
from worker.ports import Clock, Recorder, Remembered
from worker.settings.tree import RedisSettings
from worker.views import has_shift

JITTER = 10
"""Times to live are longer by up to one part in so many, lest what was written together expires together."""

SEEN_LIMIT: Final = 10_000
"""Marks of forgotten bytes that are remembered from recalling them; of more, the oldest bytes are not written."""

UNSURE_LIMIT: Final = 1000
"""Writes of which it is not known whether they arrived that are asked after with the next one."""


class RedisCache:
    """
    The ``EmbeddingCache`` over Redis. Connects when first asked, so that a worker starts without it.

    A time-out holds for all of a question's answers, and nothing is tried twice. Raises ``ConfigInvalid`` for a URL
    that is none, and for keys that cannot be read.
    """

    def __init__(self, settings: RedisSettings, scope: SightingScope, *, recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._scope = scope
        self._recorder = recorder
        self._breaker = CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        self._redis = open_redis(settings)
        self._seal = seal_of(settings)
        # What keys begin with: the hash of the bytes stands at their end.
        no_bytes, namespace = ContentHash(""), settings.namespace
        self._before = tuple(scoped_key(name, no_bytes, namespace=namespace) for name in scope_names(scope))
        self._before_mark = mark_key(no_bytes, namespace=namespace)
        # What was last asked for in vain: a value may be so large that copying it alone takes the server too long. One
        # of the recall thread, one of the remember thread.
        self._late_values: Sequence[str] = ()
        self._late_marks: Sequence[str] = ()
        # Written by the recall thread, read by the remember thread.
        self._marks_seen: dict[ContentHash, bytes] = {}
        # The remember thread's own.
        self._unsure: dict[ContentHash, None] = {}

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        What is known of these bytes, in one round trip; None when Redis could not be asked. Never raises.

        Where values were damaged or foreign, a second round trip removes them, so that good ones can take their place.
        Values too large to be read cost two more, by which they are found, removed, and the others read.
        """
        if not hashes:
            return {}
        if not self._breaker.allows():
            self._count_requests(len(hashes), "skipped")
            return None
        keys = [key for content_hash in hashes for key in (*self._keys(content_hash), self._mark(content_hash))]
        try:
            self._clear_the_way(self._late_values)
            values = values_of(self._redis, keys)
        except RedisError as fault:
            self._late_values = keys if isinstance(fault, RedisTimeoutError) else ()
            self._breaker.failed()
            self._count_requests(len(hashes), "error")
            return None
        self._late_values = ()
        self._breaker.succeeded()
        self._see(hashes, values.found[3::4])
        return self._understood(hashes, values)

    def remember(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        Keep these, in one round trip; what is there already stays, so that twins agree. Never raises.

        Only a sighting with its shift takes the place of another, which may lack it. What was forgotten by anybody
        since it was recalled here is told, and removed again in a second round trip: its mark is asked for behind the
        writes, and whoever forgets marks before removing, so that one of the two sees the other. A write that timed out
        may have arrived; it is asked after with the next write.
        """
        if not found:
            return frozenset()
        if not self._breaker.allows():
            self._recorder.count("cache_writes_total", len(found), result="skipped")
            return frozenset()
        try:
            gone = self._write(found)
        except RedisError:
            self._breaker.failed()
            self._recorder.count("cache_writes_total", len(found), result="error")
            self._unsure = dict.fromkeys(islice(chain(found, self._unsure), UNSURE_LIMIT))
            return frozenset()
        self._breaker.succeeded()
        self._recorder.count("cache_writes_total", len(found), result="stored")
        self._unsure.clear()
        if gone:
            self._remove([key for content_hash in gone for key in self._keys(content_hash)])
        return gone

    def close(self) -> None:
        """
        Release the connections.
        """
        self._redis.close()

    def _keys(self, content_hash: ContentHash) -> tuple[str, str, str]:
        measured, facts, failure = self._before
        return measured + content_hash, facts + content_hash, failure + content_hash

    def _mark(self, content_hash: ContentHash) -> str:
        return self._before_mark + content_hash

    def _see(self, hashes: Sequence[ContentHash], marks: Sequence[bytes | None]) -> None:
        for content_hash, mark in zip(hashes, marks, strict=True):
            self._marks_seen.pop(content_hash, None)
            if mark is not None:
                self._marks_seen[content_hash] = mark
        while len(self._marks_seen) > SEEN_LIMIT:
            del self._marks_seen[next(iter(self._marks_seen))]

    def _understood(self, hashes: Sequence[ContentHash], values: Values) -> Mapping[ContentHash, Remembered]:
        """
        What the values of an MGET mean, four for each hash. Counts, and removes what is invalid.
        """
        known: dict[ContentHash, Remembered] = {}
        # Marks among them say nothing of an image, and are of no hash's tally.
        invalid = list(values.foreign)
        tally = {"hit": 0, "miss": 0, "invalid": 0}
        for content_hash, *found in _each(hashes, values.found):
            keys = self._keys(content_hash)
            packed, text, code = map(self._seal.opened, keys, found)
            measured = None if packed is None else unpack_measured(packed, content_hash, self._scope)
            facts = None if text is None else unpack_facts(text, content_hash, self._scope)
            failure = None if code is None else unpack_failure(code, content_hash, self._scope)
            meanings = zip(keys, found, (measured, facts, failure), strict=True)
            damaged = [key for key, value, meaning in meanings if value is not None and meaning is None]
            if values.foreign:
                damaged += [key for key in keys if key in values.foreign]
            sighting = None if measured is None or facts is None else measured.with_facts(facts)
            if measured is not None and facts is not None and sighting is None:
                # One of the two is from before the other's looks; left there, it would never be written anew.
                damaged += keys[:2]
            invalid += damaged
            if sighting is not None:
                known[content_hash] = sighting
            elif failure is not None:
                known[content_hash] = failure
            tally["hit" if content_hash in known else "invalid" if damaged else "miss"] += 1
        for result, number in tally.items():
            self._count_requests(number, result)
        if invalid:
            self._remove(list(dict.fromkeys(invalid)))
        return known

    def _write(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        Write these, and tell which of them, or of those before, carry a mark that they had not when recalled.
        """
        pipeline = self._redis.pipeline(transaction=False)
        # First, so that nothing lies in a scope that whoever forgets bytes would not know of.
        self._name_scopes(pipeline)
        at: list[str] = []
        for content_hash, sighting in found.items():
            at_measured, at_facts, at_failure = self._keys(content_hash)
            if not isinstance(sighting, Sighting):
                failure = self._seal.sealed(at_failure, pack_failure(sighting, content_hash, self._scope))
                pipeline.set(at_failure, failure, ex=self._settings.failure_ttl_s)
                at.append(at_failure)
                continue
            ttl_s = self._ttl_s(content_hash)
            measured = self._seal.sealed(at_measured, pack_measured(sighting, content_hash, self._scope))
            facts = self._seal.sealed(at_facts, pack_facts(sighting.facts, content_hash, self._scope))
            pipeline.set(at_measured, measured, ex=ttl_s, nx=not has_shift(sighting))
            pipeline.set(at_facts, facts, ex=ttl_s)
            at += [at_measured, at_facts]
        written = list(dict.fromkeys([*found, *self._unsure]))
        marks = self._answered(pipeline, at, [self._mark(content_hash) for content_hash in written])
        return frozenset(
            content_hash
            for content_hash, mark in zip(written, marks, strict=True)
            if mark is not None and mark != self._marks_seen.get(content_hash)
        )

    def _name_scopes(self, pipeline: Pipeline) -> None:
        at_scopes = scopes_key(namespace=self._settings.namespace)
        pipeline.sadd(at_scopes, *scope_names(self._scope))
        pipeline.expire(at_scopes, longest_ttl_s(self._settings.ttl_s))

    def _answered(self, pipeline: Pipeline, at: Sequence[str], marks: Sequence[str]) -> Sequence[bytes | None]:
        """
        Send what was written to ``at`` behind the scopes' names; what lies under these marks. Raises ``RedisError``.

        What no worker wrote and what stands in the way of this write, or of the next, is removed.
        """
        late, self._late_marks = self._late_marks, ()
        self._clear_the_way(late)
        pipeline.mget(marks)
        number = len(pipeline)
        try:
            answers = asked(lambda: pipeline.execute(raise_on_error=False))
        except (AnswerTooLong, RedisTimeoutError):
            self._late_marks = marks
            raise
        if answers and of_wrong_type(answers[0]):
            # Left there, no forgetting would know of any scope again.
            self._recorder.count("forgotten_total", store="index", result="invalid")
            again = self._redis.pipeline(transaction=False)
            again.unlink(scopes_key(namespace=self._settings.namespace))
            self._name_scopes(again)
            answers[:2] = asked(again.execute)[1:]
        good = all_good(answers, number)
        if there_before := [key for key, answer in zip(at, good[2:-1], strict=True) if answer is None]:
            with suppress(RedisError):  # at best effort: the write itself is done
                self._clear_the_way(there_before)
        return answers_to_mget(good[-1], len(marks))

    def _clear_the_way(self, keys: Sequence[str]) -> None:
        """
        Remove what no worker wrote from under these keys, if any. Raises ``RedisError``.
        """
        if keys and (foreign := foreign_among(self._redis, keys)):
            self._count_requests(len(foreign), "invalid")
            self._remove(list(foreign))

    def _remove(self, keys: Sequence[str]) -> None:
        try:
            asked(lambda: self._redis.unlink(*keys))
        except RedisError:
            self._breaker.failed()

    def _ttl_s(self, content_hash: ContentHash) -> int:
        ttl_s = self._settings.ttl_s
        return ttl_s + int(content_hash[:8], 16) % (ttl_s // JITTER + 1)

    def _count_requests(self, number: int, result: str) -> None:
        if number:
            self._recorder.count("cache_requests_total", number, result=result)


def longest_ttl_s(ttl_s: int) -> int:
    """
    How long a value may live at most that was written to live for ``ttl_s``.
    """
    return ttl_s + ttl_s // JITTER + 1


def _each(
    hashes: Sequence[ContentHash], values: Sequence[bytes | None]
) -> Iterator[tuple[ContentHash, bytes | None, bytes | None, bytes | None]]:
    return zip(hashes, values[0::4], values[1::4], values[2::4], strict=True)


def mark_key(content_hash: ContentHash, *, namespace: str) -> str:
    """
    Where it is marked that these bytes were forgotten lately; each forgetting writes a mark of its own.
    """
    return f"touchstone:{namespace}:g1:{content_hash}"
