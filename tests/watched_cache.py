"""
The cache over Redis with everything that can be seen of it from outside: metrics, and what lies in Redis.
"""

from uuid import uuid4

from pydantic import SecretStr
from redis import Redis

from tests.sightings import a_scope, a_sighting
from worker.adapters.redis_cache import RedisCache
from worker.adapters.sighting_codec import facts_key, measured_key
from worker.adapters.system_clock import SystemClock
from worker.domain import ContentHash
from worker.ports import Clock
from worker.settings.tree import RedisSettings
from worker.telemetry.metrics import InMemoryRecorder, Series

SCOPE = a_scope()
PATIENT_S = 30.0
"""A time-out for a busy test machine; a worker's is a hundred times shorter."""


class Watched:
    """
    A cache with its metrics and, where it is over a real Redis, a client that sees what lies there.
    """

    def __init__(self, url: str, *, clock: Clock | None = None, **changes: object) -> None:
        fields = {"connect_timeout_s": PATIENT_S, "timeout_s": PATIENT_S, "namespace": uuid4().hex, **changes}
        self.settings = RedisSettings.model_validate({"url": SecretStr(url), **fields})
        self.recorder = InMemoryRecorder()
        self.cache = RedisCache(self.settings, SCOPE, recorder=self.recorder, clock=clock or SystemClock())
        self.redis = Redis.from_url(url)

    def close(self) -> None:
        """
        Both connections are closed.
        """
        self.cache.close()
        self.redis.close()

    def keys(self, content_hash: ContentHash) -> list[str]:
        """
        Where lie what was measured of these bytes, and their facts.
        """
        return [key(content_hash, SCOPE, namespace=self.settings.namespace) for key in (measured_key, facts_key)]

    def remember(self, *content_hashes: ContentHash) -> None:
        """
        A sighting of each is remembered.
        """
        self.cache.remember({content_hash: a_sighting(content_hash) for content_hash in content_hashes})

    def requests(self) -> dict[str, float]:
        """
        How many uploads were asked for, by result.
        """
        return self._by_result("cache_requests_total")

    def writes(self) -> dict[str, float]:
        """
        How many sightings were told, by result.
        """
        return self._by_result("cache_writes_total")

    def _by_result(self, name: str) -> dict[str, float]:
        counters: dict[Series, float] = dict(self.recorder.counters())
        return {dict(series.labels)["result"]: count for series, count in counters.items() if series.name == name}
