"""
What a real Redis holds of bytes that are no readable image: for how long, what is believed of it, and how it is gone.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest

from schemas.errors import ErrorCode
from tests.sightings import a_hash, a_sighting, same
from tests.watched_cache import SCOPE, Watched
from worker.adapters.redis_contents import RedisContents
from worker.adapters.sighting_codec import FAILURE_MAGIC, failure_key, pack_failure
from worker.dev.servers import RedisAt
from worker.domain import ContentHash

pytestmark = pytest.mark.servers
CAT, DOG = a_hash("cat"), a_hash("dog")
TORN = ErrorCode.DECODE_TRUNCATED
GOOD = pack_failure(TORN, CAT, SCOPE)


@pytest.fixture
def watched(redis_server: RedisAt) -> Iterator[Watched]:
    """
    A cache over the session's Redis, in a namespace of its own, that keeps failures for ten minutes.
    """
    with closing(Watched(redis_server.url, failure_ttl_s=600)) as watched:
        yield watched


def key_of(watched: Watched, content_hash: ContentHash = CAT) -> str:
    """
    Where a failure of these bytes lies.
    """
    return failure_key(content_hash, SCOPE, namespace=watched.settings.namespace)


def test_a_failure_lives_for_its_own_time(watched: Watched) -> None:
    """
    Far shorter than an embedding, and it counts as a hit.
    """
    watched.cache.remember({CAT: TORN, DOG: a_sighting(DOG)})
    recalled = watched.cache.recall([CAT, DOG])

    assert recalled is not None
    assert TORN is recalled[CAT]
    assert same(recalled[DOG], a_sighting(DOG))
    assert 0 < int(watched.redis.ttl(key_of(watched))) <= 600
    assert {"hit": 2} == watched.requests()
    assert {"stored": 2} == watched.writes()


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"garbage",
        GOOD[:-1],
        GOOD + b"x",
        bytes([GOOD[0] ^ 1]) + GOOD[1:],
        pack_failure(TORN, DOG, SCOPE),
        FAILURE_MAGIC + b"INTERNAL" + GOOD[-4:],
        FAILURE_MAGIC + b"FETCH_DENIED" + GOOD[-4:],
    ],
    ids=["empty", "garbage", "short", "long", "one bit", "of other bytes", "no such failure", "not of the bytes"],
)
def test_what_nobody_wrote_for_these_bytes_is_a_miss(watched: Watched, forged: bytes) -> None:
    """
    Garbage, a value of other bytes and codes that are never kept condemn no picture; they are counted and removed.
    """
    watched.redis.set(key_of(watched), forged)

    assert {} == watched.cache.recall([CAT])
    assert {"invalid": 1} == watched.requests()
    assert watched.redis.get(key_of(watched)) is None


def test_a_sighting_outweighs_a_failure(watched: Watched) -> None:
    """
    Whoever has seen the picture has seen more than whoever could not.
    """
    watched.cache.remember({CAT: TORN})
    watched.remember(CAT)
    recalled = watched.cache.recall([CAT])

    assert recalled is not None
    assert same(recalled[CAT], a_sighting(CAT))


def test_forgetting_bytes_forgets_that_they_are_no_image(watched: Watched) -> None:
    """
    The key goes with the others of these bytes, also when nothing else was ever kept of them.
    """
    watched.cache.remember({CAT: TORN, DOG: TORN})
    with closing(RedisContents(watched.settings, keep_s=3600)) as contents:
        removed = contents.forget([CAT])

    assert 1 == removed
    assert {DOG: TORN} == watched.cache.recall([CAT, DOG])


def test_a_failure_of_bytes_that_others_forgot_meanwhile_is_taken_back(watched: Watched) -> None:
    """
    As with sightings: what was forgotten between being asked for and being written does not come back.
    """
    watched.cache.recall([CAT])
    with closing(RedisContents(watched.settings, keep_s=3600)) as contents:
        contents.forget([CAT])
    gone = watched.cache.remember({CAT: TORN})

    assert frozenset([CAT]) == gone
    assert watched.redis.get(key_of(watched)) is None
