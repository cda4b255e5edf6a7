"""
The cache over a real Redis: what it counts, how long values live, and what becomes of values that are not right.

A Redis that does not answer is in ``test_redis_failures.py``.
"""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from tests.sightings import a_hash, a_sighting, same
from tests.watched_cache import SCOPE, Watched
from worker.adapters.sighting_codec import pack_measured
from worker.dev.redis_server import EmbeddedRedis
from worker.dev.servers import RedisAt
from worker.errors import ConfigInvalid

CAT, DOG, EEL = a_hash("cat"), a_hash("dog"), a_hash("eel")


@pytest.fixture
def watched(redis_server: RedisAt) -> Iterator[Watched]:
    """
    A cache over the session's Redis, in a namespace of its own.
    """
    with closing(Watched(redis_server.url)) as watched:
        yield watched


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """
    A Redis that only this test uses, and may harm.
    """
    with EmbeddedRedis() as redis:
        yield redis


@pytest.mark.servers
def test_hits_and_misses_are_counted(watched: Watched) -> None:
    """
    Each hash that is asked for counts once, as what it was.
    """
    watched.remember(CAT, DOG)
    recalled = watched.cache.recall([CAT, EEL, DOG])

    assert recalled is not None
    assert recalled.keys() == {CAT, DOG}
    assert watched.requests() == {"hit": 2, "miss": 1}
    assert watched.writes() == {"stored": 2}


@pytest.mark.servers
def test_values_expire_and_not_all_at_once(watched: Watched) -> None:
    """
    Both values of a hash live for the configured time plus at most a tenth, the same for both.
    """
    watched.remember(CAT, DOG)
    ttl_s = {name: [watched.redis.ttl(key) for key in watched.keys(name)] for name in (CAT, DOG)}
    configured = watched.settings.ttl_s

    assert all(configured - 60 < value <= configured * 1.1 for values in ttl_s.values() for value in values)
    assert all(abs(one - other) <= 1 for one, other in ttl_s.values())
    assert abs(ttl_s[CAT][0] - ttl_s[DOG][0]) > 60


FOREIGN = pack_measured(a_sighting(DOG), DOG, SCOPE)
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "emptied": lambda _: b"",
    "truncated": lambda value: value[:-1],
    "one bit flipped": lambda value: bytes([value[0] ^ 1]) + value[1:],
    "noise": lambda value: bytes(len(value)),
    "another's": lambda _: FOREIGN,
    "a pickle": lambda _: b"\x80\x05K\x2a.",
    "huge": lambda value: value * 1000,
}


@pytest.mark.servers
@pytest.mark.parametrize("which", [0, 1], ids=["measured", "facts"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_poisoned_value_is_a_miss_and_is_removed(
    watched: Watched, which: int, damage: Callable[[bytes], bytes]
) -> None:
    """
    A damaged or foreign value never becomes a sighting, harms no other, and makes room for a good one.
    """
    watched.remember(CAT, EEL)
    key = watched.keys(CAT)[which]
    value = watched.redis.get(key)
    assert isinstance(value, bytes)
    watched.redis.set(key, damage(value))
    recalled = watched.cache.recall([CAT, EEL])
    removed = watched.redis.exists(key) == 0
    watched.remember(CAT)
    again = watched.cache.recall([CAT])

    assert recalled is not None
    assert recalled.keys() == {EEL}
    assert removed
    assert again is not None
    assert same(again[CAT], a_sighting(CAT))
    assert watched.requests() == {"hit": 2, "invalid": 1}


@pytest.mark.servers
@pytest.mark.parametrize("which", [0, 1], ids=["measured", "facts"])
def test_half_a_sighting_is_a_miss(watched: Watched, which: int) -> None:
    """
    When Redis has evicted one of the two values, the other alone is no sighting.
    """
    watched.remember(CAT)
    watched.redis.delete(watched.keys(CAT)[which])

    assert watched.cache.recall([CAT]) == {}
    assert watched.requests() == {"miss": 1}


@pytest.mark.servers
def test_a_key_of_another_type_is_a_miss(watched: Watched) -> None:
    """
    A list where a value should be is no value, and no failure.
    """
    for key in watched.keys(CAT):
        watched.redis.lpush(key, "x")

    assert watched.cache.recall([CAT]) == {}
    assert watched.requests() == {"miss": 1}


@pytest.mark.servers
def test_a_micro_batch_costs_one_command(own_redis: EmbeddedRedis) -> None:
    """
    However many hashes are asked for, Redis sees one MGET and nothing else, not even a greeting.
    """
    with closing(Watched(own_redis.url)) as watched:
        watched.redis.config_resetstat()
        watched.cache.recall([a_hash(str(number)) for number in range(64)])
        stats = watched.redis.info("commandstats")

    asked = {
        name: entry["calls"] for name, entry in stats.items() if not name.startswith(("cmdstat_config", "cmdstat_info"))
    }
    assert asked == {"cmdstat_mget": 1}


@pytest.mark.parametrize("url", ["http://:s3cr3t@localhost", "localhost:6379", "redis://:s3cr3t@localhost:port", ""])
def test_an_address_that_is_none_stops_the_start(url: str) -> None:
    """
    A malformed URL is found when the cache is made; the error names the key, and never shows the password.
    """
    with pytest.raises(ConfigInvalid, match=r"redis\.url") as refused:
        Watched(url)

    assert "s3cr3t" not in str(refused.value)
