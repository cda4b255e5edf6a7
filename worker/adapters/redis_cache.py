"""
What was found of bytes, shared between workers and kept between runs, in Redis.

A Redis that is down, slow, full or wrong costs hits and counts in the metrics; it is never a failure. How a sighting
lies in a value is in ``sighting_codec.py``, how values are signed, if they are, in ``value_seal.py``, how Redis is
connected to in ``redis_client.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from redis.exceptions import RedisError

from worker.adapters.circuit_breaker import CircuitBreaker
from worker.adapters.redis_client import open_redis
from worker.adapters.sighting_codec import (
    SightingScope,
    facts_key,
    failure_key,
    measured_key,
    pack_facts,
    pack_failure,
    pack_measured,
    scope_names,
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

    Time-outs hold for each read of the socket and nothing is tried twice. Raises ``ConfigInvalid`` for a URL that is
    none, and for keys that cannot be read.
    """

    def __init__(self, settings: RedisSettings, scope: SightingScope, *, recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._scope = scope
        self._recorder = recorder
        self._breaker = CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        self._redis = open_redis(settings)
        self._seal = seal_of(settings)
        # Written by the recall thread, read by the remember thread.
        self._marks_seen: dict[ContentHash, bytes] = {}
        # The remember thread's own.
        self._unsure: dict[ContentHash, None] = {}

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Remembered] | None:
        """
        What is known of these bytes, in one round trip; None when Redis could not be asked. Never raises.

        Where values were damaged or foreign, a second round trip removes them, so that good ones can take their place.
        """
        if not hashes:
            return {}
        if not self._breaker.allows():
            self._count_requests(len(hashes), "skipped")
            return None
        keys = [key for content_hash in hashes for key in (*self._keys(content_hash), self._mark(content_hash))]
        try:
            values = self._values(keys)
        except (RedisError, OSError):
            self._breaker.failed()
            self._count_requests(len(hashes), "error")
            return None
        self._breaker.succeeded()
        self._see(hashes, values[3::4])
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
        except (RedisError, OSError):
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
        namespace = self._settings.namespace
        return (
            measured_key(content_hash, self._scope, namespace=namespace),
            facts_key(content_hash, self._scope, namespace=namespace),
            failure_key(content_hash, self._scope, namespace=namespace),
        )

    def _mark(self, content_hash: ContentHash) -> str:
        return mark_key(content_hash, namespace=self._settings.namespace)

    def _see(self, hashes: Sequence[ContentHash], marks: Sequence[bytes | None]) -> None:
        for content_hash, mark in zip(hashes, marks, strict=True):
            self._marks_seen.pop(content_hash, None)
            if mark is not None:
                self._marks_seen[content_hash] = mark
        while len(self._marks_seen) > SEEN_LIMIT:
            del self._marks_seen[next(iter(self._marks_seen))]

    def _values(self, keys: Sequence[str]) -> Sequence[bytes | None]:
        """
        What lies under these keys, in order. Raises ``RedisError`` also for an answer that is none to this question.
        """
        return _answers(self._redis.mget(keys), len(keys))

    def _understood(
        self, hashes: Sequence[ContentHash], values: Sequence[bytes | None]
    ) -> Mapping[ContentHash, Remembered]:
        """
        What the values of an MGET mean, four for each hash. Counts, and removes what is invalid.
        """
        known: dict[ContentHash, Remembered] = {}
        invalid: list[str] = []
        tally = {"hit": 0, "miss": 0, "invalid": 0}
        for content_hash, *found in _each(hashes, values):
            keys = self._keys(content_hash)
            packed, text, code = (self._seal.opened(key, value) for key, value in zip(keys, found, strict=True))
            measured = None if packed is None else unpack_measured(packed, content_hash, self._scope)
            facts = None if text is None else unpack_facts(text, content_hash, self._scope)
            failure = None if code is None else unpack_failure(code, content_hash, self._scope)
            meanings = zip(keys, found, (measured, facts, failure), strict=True)
            damaged = [key for key, value, meaning in meanings if value is not None and meaning is None]
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
            self._remove(invalid)
        return known

    def _write(self, found: Mapping[ContentHash, Remembered]) -> frozenset[ContentHash]:
        """
        Write these, and tell which of them, or of those before, carry a mark that they had not when recalled.
        """
        pipeline = self._redis.pipeline(transaction=False)
        # First, so that nothing lies in a scope that whoever forgets bytes would not know of.
        at_scopes = scopes_key(namespace=self._settings.namespace)
        pipeline.sadd(at_scopes, *scope_names(self._scope))
        pipeline.expire(at_scopes, longest_ttl_s(self._settings.ttl_s))
        for content_hash, sighting in found.items():
            at_measured, at_facts, at_failure = self._keys(content_hash)
            if not isinstance(sighting, Sighting):
                failure = self._seal.sealed(at_failure, pack_failure(sighting, content_hash, self._scope))
                pipeline.set(at_failure, failure, ex=self._settings.failure_ttl_s)
                continue
            ttl_s = self._ttl_s(content_hash)
            measured = self._seal.sealed(at_measured, pack_measured(sighting, content_hash, self._scope))
            facts = self._seal.sealed(at_facts, pack_facts(sighting.facts, content_hash, self._scope))
            pipeline.set(at_measured, measured, ex=ttl_s, nx=not has_shift(sighting))
            pipeline.set(at_facts, facts, ex=ttl_s)
        written = list(dict.fromkeys([*found, *self._unsure]))
        pipeline.mget([self._mark(content_hash) for content_hash in written])
        marks = _answers(pipeline.execute()[-1], len(written))
        return frozenset(
            content_hash
            for content_hash, mark in zip(written, marks, strict=True)
            if mark is not None and mark != self._marks_seen.get(content_hash)
        )

    def _remove(self, keys: Sequence[str]) -> None:
        try:
            self._redis.unlink(*keys)
        except (RedisError, OSError):
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


def _answers(values: object, asked: int) -> Sequence[bytes | None]:
    """
    What a server sent to an MGET. Raises ``RedisError`` for whatever is no answer to this question.
    """
    if not isinstance(values, list) or len(values) != asked:
        raise RedisError(f"MGET of {asked} keys was answered with {type(values).__name__}")
    return [value if isinstance(value, bytes) else None for value in values]


def _each(
    hashes: Sequence[ContentHash], values: Sequence[bytes | None]
) -> Iterator[tuple[ContentHash, bytes | None, bytes | None, bytes | None]]:
    return zip(hashes, values[0::4], values[1::4], values[2::4], strict=True)


def mark_key(content_hash: ContentHash, *, namespace: str) -> str:
    """
    Where it is marked that these bytes were forgotten lately; each forgetting writes a mark of its own.
    """
    return f"touchstone:{namespace}:g1:{content_hash}"
