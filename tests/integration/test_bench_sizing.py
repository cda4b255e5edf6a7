"""
The sizing formula's bytes beside what a real Redis takes.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters.redis_cache import RedisCache
from worker.adapters.redis_client import open_redis
from worker.adapters.redis_contents import RedisContents
from worker.adapters.system_clock import SystemClock
from worker.bench.sizing import kept_bytes
from worker.contents import ContentName
from worker.dev.redis_server import EmbeddedRedis
from worker.settings.tree import RedisSettings
from worker.telemetry.metrics import InMemoryRecorder

PICTURES = 3000
DIM = 768
NATIVE_CROPS = 2
"""As many as ``a_sighting`` has."""


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """
    A Redis that holds nothing else.
    """
    with EmbeddedRedis() as redis:
        yield redis


@pytest.mark.servers
def test_a_picture_takes_the_memory_that_is_planned_for_it(own_redis: EmbeddedRedis) -> None:
    """
    Within a seventh, with all that a worker keeps of an upload: what was measured, its facts, and whose bytes they are.
    """
    settings = RedisSettings(url=own_redis.url)
    scope = a_scope(dim=DIM)
    with (
        closing(RedisCache(settings, scope, recorder=InMemoryRecorder(), clock=SystemClock())) as cache,
        closing(RedisContents(settings, keep_s=3600)) as contents,
        closing(open_redis(settings, raw=False)) as client,
    ):
        before = client.info("memory")["used_memory"]
        for start in range(0, PICTURES, 100):
            hashes = [a_hash(f"picture {number}") for number in range(start, start + 100)]
            cache.recall(hashes)
            kept = {one: a_sighting(one, dim=DIM) for one in hashes}
            assert not cache.remember(kept)
            contents.note([(ContentName(None, f"post/{one}"), one) for one in hashes])
        taken = client.info("memory")["used_memory"] - before

    assert kept_bytes(DIM, NATIVE_CROPS) == pytest.approx(taken / PICTURES, rel=1 / 7)
