"""
Workers and commands over one real Redis: what one forgets, another that has it in flight does not bring back.
"""

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis.client import Pipeline
from redis.exceptions import TimeoutError as RedisTimeout

from tests.sightings import a_hash, a_sighting
from tests.watched_cache import Watched
from worker.adapters import redis_cache
from worker.adapters.redis_contents import RedisContents
from worker.dev.servers import RedisAt

CAT, DOG = a_hash("cat"), a_hash("dog")

pytestmark = pytest.mark.servers


@pytest.fixture
def watched(redis_server: RedisAt) -> Iterator[Watched]:
    """
    A worker's cache, in a namespace of its own.
    """
    with closing(Watched(redis_server.url)) as watched:
        yield watched


@pytest.fixture
def contents(watched: Watched) -> Iterator[RedisContents]:
    """
    Somebody else who forgets in the same namespace.
    """
    with closing(RedisContents(watched.settings, keep_s=60)) as contents:
        yield contents


def lying(watched: Watched) -> list[int]:
    """
    How many values lie in Redis of a cat and of a dog.
    """
    return [int(str(watched.redis.exists(*watched.keys(name)))) for name in (CAT, DOG)]


def test_what_was_forgotten_in_flight_is_not_written(watched: Watched, contents: RedisContents) -> None:
    """
    A write that lands after the removal is undone and told; what else is written with it stays.
    """
    watched.cache.recall([CAT, DOG])
    contents.forget([CAT])
    gone = watched.cache.remember({name: a_sighting(name) for name in (CAT, DOG)})

    assert {CAT} == gone
    assert [0, 2] == lying(watched)


def test_a_write_that_lands_first_is_removed(watched: Watched, contents: RedisContents) -> None:
    """
    The other way round the removal finds it, and nobody is told.
    """
    watched.cache.recall([CAT])
    gone = watched.cache.remember({CAT: a_sighting(CAT)})
    removed = contents.forget([CAT])

    assert frozenset() == gone
    assert 2 == removed
    assert [0, 0] == lying(watched)


def test_bytes_that_come_back_are_kept_and_forgotten_again(watched: Watched, contents: RedisContents) -> None:
    """
    A content that comes after the deletion may have the same bytes; a second deletion holds for it like the first.
    """
    contents.forget([CAT])
    watched.cache.recall([CAT])
    first = watched.cache.remember({CAT: a_sighting(CAT)})
    kept = lying(watched)
    watched.cache.recall([CAT])
    contents.forget([CAT])
    second = watched.cache.remember({CAT: a_sighting(CAT)})

    assert [[], [CAT]] == [list(first), list(second)]
    assert ([2, 0], [0, 0]) == (kept, lying(watched))


def test_marks_beyond_what_is_remembered_hold(
    watched: Watched, contents: RedisContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where it is no longer known whether a mark is older than the recall, nothing is written.
    """
    monkeypatch.setattr(redis_cache, "SEEN_LIMIT", 1)
    contents.forget([CAT, DOG])
    watched.cache.recall([CAT, DOG])
    gone = watched.cache.remember({name: a_sighting(name) for name in (CAT, DOG)})

    assert {CAT} == gone
    assert [0, 2] == lying(watched)


def test_a_write_that_timed_out_is_asked_after_with_the_next(
    watched: Watched, contents: RedisContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A write whose answer was lost arrived all the same; the next write finds that it was forgotten, and undoes it.
    """
    watched.cache.recall([CAT, DOG])
    contents.forget([CAT])
    execute = Pipeline.execute
    with monkeypatch.context() as patched:

        def lose_the_answer(pipeline: Pipeline, *, raise_on_error: bool) -> list[object]:
            execute(pipeline, raise_on_error)
            raise RedisTimeout("too late")

        patched.setattr(Pipeline, "execute", lose_the_answer)
        at_first = watched.cache.remember({CAT: a_sighting(CAT)})
    brought_back = lying(watched)
    then = watched.cache.remember({DOG: a_sighting(DOG)})

    assert [[], [CAT]] == [list(at_first), list(then)]
    assert ([2, 0], [0, 2]) == (brought_back, lying(watched))
    assert {"error": 1, "stored": 1} == watched.writes()
