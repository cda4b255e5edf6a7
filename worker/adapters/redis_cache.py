"""
Sightings shared between workers and kept between runs, in Redis: the only module that touches redis.

A Redis that is down, slow, full or wrong costs hits and counts in the metrics; it is never a failure. How a sighting
lies in a value is in ``sighting_codec.py``.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from worker.adapters.circuit_breaker import CircuitBreaker
from worker.adapters.sighting_codec import (
    SightingScope,
    facts_key,
    measured_key,
    pack_facts,
    pack_measured,
    scope_names,
    scopes_key,
    unpack_facts,
    unpack_measured,
)
from worker.domain import ContentHash, Sighting
from worker.errors import ConfigInvalid
from worker.ports import Clock, Recorder
from worker.settings.tree import RedisSettings

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
    none.
    """

    def __init__(self, settings: RedisSettings, scope: SightingScope, *, recorder: Recorder, clock: Clock) -> None:
        self._settings = settings
        self._scope = scope
        self._recorder = recorder
        self._breaker = CircuitBreaker(clock, failures=settings.breaker_failures, open_s=settings.breaker_open_s)
        self._redis = open_redis(settings)
        # Written by the recall thread, read by the remember thread.
        self._marks_seen: dict[ContentHash, bytes] = {}
        # The remember thread's own.
        self._unsure: dict[ContentHash, None] = {}

    def recall(self, hashes: Sequence[ContentHash]) -> Mapping[ContentHash, Sighting] | None:
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
        self._see(hashes, values[2::3])
        return self._understood(hashes, values)

    def remember(self, sightings: Mapping[ContentHash, Sighting]) -> frozenset[ContentHash]:
        """
        Keep these sightings, in one round trip; what is there already stays, so that twins agree. Never raises.

        Only a sighting with its shift takes the place of another, which may lack it. What was forgotten by anybody
        since it was recalled here is told, and removed again in a second round trip: its mark is asked for behind the
        writes, and whoever forgets marks before removing, so that one of the two sees the other. A write that timed out
        may have arrived; it is asked after with the next write.
        """
        if not sightings:
            return frozenset()
        if not self._breaker.allows():
            self._recorder.count("cache_writes_total", len(sightings), result="skipped")
            return frozenset()
        try:
            gone = self._write(sightings)
        except (RedisError, OSError):
            self._breaker.failed()
            self._recorder.count("cache_writes_total", len(sightings), result="error")
            self._unsure = dict.fromkeys(islice(chain(sightings, self._unsure), UNSURE_LIMIT))
            return frozenset()
        self._breaker.succeeded()
        self._recorder.count("cache_writes_total", len(sightings), result="stored")
        self._unsure.clear()
        if gone:
            self._remove([key for content_hash in gone for key in self._keys(content_hash)])
        return gone

    def close(self) -> None:
        """
        Release the connections.
        """
        self._redis.close()

    def _keys(self, content_hash: ContentHash) -> tuple[str, str]:
        namespace = self._settings.namespace
        return (
            measured_key(content_hash, self._scope, namespace=namespace),
            facts_key(content_hash, self._scope, namespace=namespace),
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
    ) -> Mapping[ContentHash, Sighting]:
        """
        The sightings among the values of an MGET, three for each hash. Counts, and removes what is invalid.
        """
        known: dict[ContentHash, Sighting] = {}
        invalid: list[str] = []
        tally = {"hit": 0, "miss": 0, "invalid": 0}
        for content_hash, packed, text in _pairs(hashes, values):
            measured = None if packed is None else unpack_measured(packed, content_hash, self._scope)
            facts = None if text is None else unpack_facts(text, content_hash, self._scope)
            at_measured, at_facts = self._keys(content_hash)
            damaged = [
                key
                for key, value, meaning in ((at_measured, packed, measured), (at_facts, text, facts))
                if value is not None and meaning is None
            ]
            invalid += damaged
            if measured is not None and facts is not None:
                known[content_hash] = measured.with_facts(facts)
            tally["hit" if content_hash in known else "invalid" if damaged else "miss"] += 1
        for result, number in tally.items():
            self._count_requests(number, result)
        if invalid:
            self._remove(invalid)
        return known

    def _write(self, sightings: Mapping[ContentHash, Sighting]) -> frozenset[ContentHash]:
        """
        Write these, and tell which of them, or of those before, carry a mark that they had not when recalled.
        """
        pipeline = self._redis.pipeline(transaction=False)
        # First, so that nothing lies in a scope that whoever forgets bytes would not know of.
        at_scopes = scopes_key(namespace=self._settings.namespace)
        pipeline.sadd(at_scopes, *scope_names(self._scope))
        pipeline.expire(at_scopes, longest_ttl_s(self._settings.ttl_s))
        for content_hash, sighting in sightings.items():
            at_measured, at_facts = self._keys(content_hash)
            ttl_s = self._ttl_s(content_hash)
            measured = pack_measured(sighting, content_hash, self._scope)
            pipeline.set(at_measured, measured, ex=ttl_s, nx=sighting.shift is None)
            pipeline.set(at_facts, pack_facts(sighting.facts, content_hash, self._scope), ex=ttl_s)
        written = list(dict.fromkeys([*sightings, *self._unsure]))
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


def _pairs(
    hashes: Sequence[ContentHash], values: Sequence[bytes | None]
) -> Iterator[tuple[ContentHash, bytes | None, bytes | None]]:
    return zip(hashes, values[0::3], values[1::3], strict=True)


def mark_key(content_hash: ContentHash, *, namespace: str) -> str:
    """
    Where it is marked that these bytes were forgotten lately; each forgetting writes a mark of its own.
    """
    return f"touchstone:{namespace}:g1:{content_hash}"


def open_redis(settings: RedisSettings) -> Redis:
    """
    A client that connects when first asked. Raises ``ConfigInvalid`` for a URL that is none.
    """
    url = settings.url.get_secret_value()
    try:
        return Redis.from_url(
            url,
            socket_connect_timeout=settings.connect_timeout_s,
            socket_timeout=settings.timeout_s,
            retry=Retry(NoBackoff(), 0),
            # RESP2 and no CLIENT SETINFO: a new connection costs no round trips before the first question.
            protocol=2,
            driver_info=None,
        )
    except ValueError as error:
        # The text of the error may hold the URL, and the URL a password.
        raise ConfigInvalid(
            "redis.url is no Redis address; write redis://, rediss:// or unix://, such as redis://localhost:6379/0"
        ) from error
