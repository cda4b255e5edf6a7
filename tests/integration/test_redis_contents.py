"""
The index of contents in a real Redis: how names lie there, how long they live, and forgetting when something is wrong.
"""

from collections.abc import Iterator
from contextlib import closing
from uuid import uuid4

import pytest
from pydantic import SecretStr
from redis import Redis
from redis.exceptions import RedisError

from tests.sightings import a_hash, a_scope, a_sighting
from worker.adapters import redis_contents
from worker.adapters.redis_cache import RedisCache, longest_ttl_s
from worker.adapters.redis_contents import LINGER_S, MARKED_S, RedisContents
from worker.adapters.sighting_codec import scope_names, scopes_key
from worker.adapters.system_clock import SystemClock
from worker.contents import ContentName
from worker.dev.servers import RedisAt
from worker.errors import StoreUnavailable
from worker.settings.tree import RedisSettings
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
POST = ContentName("acme", "somebody@example.org/holiday.jpg")

pytestmark = pytest.mark.servers


@pytest.fixture
def settings(redis_server: RedisAt) -> RedisSettings:
    """
    A namespace of its own on the session's Redis.
    """
    return RedisSettings(
        url=SecretStr(redis_server.url), namespace=uuid4().hex, connect_timeout_s=5, timeout_s=5, ttl_s=3600
    )


@pytest.fixture
def redis(redis_server: RedisAt) -> Iterator[Redis]:
    """
    A client that sees what lies there.
    """
    with closing(Redis.from_url(redis_server.url)) as client:
        yield client


def keys(redis: Redis, settings: RedisSettings) -> list[str]:
    """
    All keys of the namespace.
    """
    return sorted(key.decode() for key in redis.scan_iter(match=f"touchstone:{settings.namespace}:*"))


def remember(settings: RedisSettings) -> None:
    """
    A worker saw a cat and a dog.
    """
    with closing(RedisCache(settings, a_scope(), recorder=InMemoryRecorder(), clock=SystemClock())) as cache:
        cache.remember({name: a_sighting(name) for name in (CAT, DOG)})


def test_no_content_id_stands_in_the_clear(redis: Redis, settings: RedisSettings) -> None:
    """
    Whoever lists the keys reads the tenant and a hash, and not whose picture it was.
    """
    with closing(RedisContents(settings, keep_s=60)) as contents:
        contents.note([(POST, CAT)])
    found = keys(redis, settings)

    assert len(found) == 1
    assert found[0].startswith(f"touchstone:{settings.namespace}:u1:acme:")
    assert "somebody" not in found[0]


@pytest.mark.parametrize("keep_s", [60, 7200])
def test_names_live_as_long_as_anything_that_is_kept(redis: Redis, settings: RedisSettings, keep_s: int) -> None:
    """
    A name outlives the embeddings in Redis and those in an archive that keeps them for longer.
    """
    with closing(RedisContents(settings, keep_s=keep_s)) as contents:
        contents.note([(POST, CAT)])
    ttl_s = redis.ttl(keys(redis, settings)[0])

    assert isinstance(ttl_s, int)
    assert longest_ttl_s(max(keep_s, 3600)) - 60 < ttl_s <= longest_ttl_s(max(keep_s, 3600))


def test_a_name_that_was_let_go_expires_unless_it_is_noted_again(redis: Redis, settings: RedisSettings) -> None:
    """
    A deleted content's name is gone after a day; one that is uploaded again lives on.
    """
    other = ContentName("acme", "post-2")
    with closing(RedisContents(settings, keep_s=90 * 86_400)) as contents:
        contents.note([(POST, CAT), (other, DOG)])
        contents.let_go([POST, other])
        contents.note([(other, DOG)])
    ttls_s = sorted(int(str(redis.ttl(key))) for key in keys(redis, settings))

    assert LINGER_S - 60 < ttls_s[0] <= LINGER_S
    assert ttls_s[1] > 90 * 86_400 - 60


def test_marks_name_no_content_and_expire(redis: Redis, settings: RedisSettings) -> None:
    """
    That bytes were forgotten is known for an hour, that a content is gone for a day; whoever must not tell marks none.
    """
    with closing(RedisContents(settings, keep_s=60, marks=False)) as silent:
        silent.mark_gone([POST])
        silent.forget([CAT])
    unmarked = keys(redis, settings)
    with closing(RedisContents(settings, keep_s=60)) as contents:
        contents.mark_gone([POST])
        contents.forget([CAT])
    bytes_mark, name_mark = keys(redis, settings)
    ttls_s = [int(str(redis.ttl(key))) for key in (bytes_mark, name_mark)]

    assert unmarked == []
    assert bytes_mark == f"touchstone:{settings.namespace}:g1:{CAT}"
    assert name_mark.startswith(f"touchstone:{settings.namespace}:g2:acme:")
    assert "somebody" not in name_mark
    assert MARKED_S - 60 < ttls_s[0] <= MARKED_S
    assert LINGER_S - 60 < ttls_s[1] <= LINGER_S


def test_scan_finds_what_no_scope_leads_to(redis: Redis, settings: RedisSettings) -> None:
    """
    Where the names of some scopes are lost, or were never written, walking all keys forgets these bytes all the same.
    """
    remember(settings)
    redis.delete(scopes_key(namespace=settings.namespace))
    redis.sadd(scopes_key(namespace=settings.namespace), "f1:" + "0" * 16)
    with (
        closing(RedisContents(settings, keep_s=60)) as contents,
        closing(RedisContents(settings, keep_s=60, scan=True)) as thorough,
    ):
        by_scope, by_scan = contents.forget([CAT]), thorough.forget([CAT])
    left = keys(redis, settings)

    assert (by_scope, by_scan) == (0, 2)
    assert [(key.split(":")[2], key[-64:]) for key in left[:3]] == [("e2", DOG), ("f1", DOG), ("g1", CAT)]


def test_other_namespaces_are_left_alone(settings: RedisSettings) -> None:
    """
    Workers of another namespace keep what they have of the same bytes.
    """
    other = settings.model_copy(update={"namespace": uuid4().hex})
    remember(settings)
    remember(other)
    with closing(RedisContents(settings, keep_s=60, scan=True)) as contents:
        contents.forget([CAT])
    with closing(RedisCache(other, a_scope(), recorder=InMemoryRecorder(), clock=SystemClock())) as cache:
        recalled = cache.recall([CAT])

    assert recalled is not None
    assert recalled.keys() == {CAT}


@pytest.mark.parametrize("damaged", [True, False])
def test_lost_scopes_are_found_again(redis: Redis, settings: RedisSettings, *, damaged: bool) -> None:
    """
    Where a text lies in the place of the scopes, or nothing, all keys are walked over, and name the scopes again.
    """
    remember(settings)
    at_scopes = scopes_key(namespace=settings.namespace)
    redis.delete(at_scopes)
    if damaged:
        redis.set(at_scopes, "x")
    with closing(RedisContents(settings, keep_s=60)) as contents:
        removed = contents.forget([CAT])
        named = redis.smembers(at_scopes)
        removed_by_name = contents.forget([DOG])

    assert [2, 2] == [removed, removed_by_name]
    assert named == {name.encode() for name in scope_names(a_scope())[:2]}
    assert 0 < redis.ttl(at_scopes)


def test_a_walk_that_broke_off_is_begun_again(
    redis: Redis, settings: RedisSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Though a worker has written names of its own meanwhile: those of others lie in none of them.
    """
    remember(settings)
    at_scopes = scopes_key(namespace=settings.namespace)
    redis.delete(at_scopes)
    redis.lpush(at_scopes, "x")
    with closing(RedisContents(settings, keep_s=60)) as contents:
        with monkeypatch.context() as patch:
            patch.setattr(redis_contents, "page_in", _refused)
            with pytest.raises(StoreUnavailable):
                contents.forget([CAT])
        redis.sadd(at_scopes, "f1:" + "0" * 16)
        removed = contents.forget([CAT])

    assert 2 == removed


def _refused(answer: object) -> tuple[int, list[bytes]]:
    raise RedisError(f"no page: {answer!r}")


def test_noise_among_the_bytes_is_passed_over(redis: Redis, settings: RedisSettings) -> None:
    """
    What is no hash in a content's set is no hash of its bytes.
    """
    with closing(RedisContents(settings, keep_s=60)) as contents:
        contents.note([(POST, CAT)])
        redis.sadd(keys(redis, settings)[0], "*", b"\xff", "A" * 64)
        found = contents.bytes_of([POST])

    assert found == {POST: {CAT}}


def test_a_redis_that_is_down_says_so_without_its_password() -> None:
    """
    Every call fails with what to do; the address, which may hold a password, is not repeated.
    """
    away = RedisSettings(url=SecretStr("redis://:s3cr3t@127.0.0.1:1/0"))
    with closing(RedisContents(away, keep_s=60)) as contents:
        for call in (
            lambda: contents.note([(POST, CAT)]),
            lambda: contents.bytes_of([POST]),
            lambda: contents.mark_gone([POST]),
            lambda: contents.let_go([POST]),
            lambda: contents.forget([CAT]),
        ):
            with pytest.raises(StoreUnavailable, match=r"Check redis\.url") as refused:
                call()

            assert "s3cr3t" not in str(refused.value)
