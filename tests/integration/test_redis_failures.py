"""
The cache over a Redis that is flushed, killed, restarted, full or locked, and over servers that are no Redis.

Whatever happens, asking and telling return, in time, and raise nothing.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.fake_outcomes import ManualClock
from tests.servers import eventually
from tests.sightings import a_hash, a_sighting, same
from tests.speaking_redis import ASKED, NO_ANSWERS, nothing_found, speaking
from tests.watched_cache import Watched
from worker.dev.redis_server import EmbeddedRedis

CAT, DOG = a_hash("cat"), a_hash("dog")


@pytest.fixture
def own_redis() -> Iterator[EmbeddedRedis]:
    """
    A Redis that only this test uses, and may harm.
    """
    with EmbeddedRedis() as redis:
        yield redis


@pytest.mark.servers
def test_a_redis_that_dies_and_comes_back(own_redis: EmbeddedRedis) -> None:
    """
    While Redis is gone the cache says so; when it is back, empty, everything works again.
    """
    with closing(Watched(own_redis.url, breaker_failures=100)) as watched:
        watched.remember(CAT)
        before = watched.cache.recall([CAT])
        own_redis.kill()
        gone = [watched.cache.recall([CAT]) for _ in range(2)]
        watched.remember(CAT)
        own_redis.start()
        back = watched.cache.recall([CAT])
        watched.remember(CAT)
        after = watched.cache.recall([CAT])

    assert before is not None
    assert CAT in before
    assert gone == [None, None]
    assert back == {}
    assert after is not None
    assert same(after[CAT], a_sighting(CAT))
    assert watched.requests() == {"hit": 2, "error": 2, "miss": 1}
    assert watched.writes() == {"stored": 2, "error": 1}


@pytest.mark.servers
def test_a_redis_that_restarts_between_two_questions_is_not_noticed(own_redis: EmbeddedRedis) -> None:
    """
    A kept connection that broke meanwhile is replaced before it is used.
    """
    with closing(Watched(own_redis.url)) as watched:
        watched.cache.recall([CAT])
        own_redis.restart()

        assert watched.cache.recall([CAT]) == {}
        assert watched.requests() == {"miss": 2}


@pytest.mark.servers
def test_a_flushed_redis_knows_nothing(own_redis: EmbeddedRedis) -> None:
    """
    After a flush every hash is a miss, and can be remembered anew.
    """
    with closing(Watched(own_redis.url)) as watched:
        watched.remember(CAT)
        watched.redis.flushall()
        flushed = watched.cache.recall([CAT])
        watched.remember(CAT)
        recalled = watched.cache.recall([CAT])

    assert flushed == {}
    assert recalled is not None
    assert CAT in recalled


@pytest.mark.servers
def test_a_full_redis_still_answers(own_redis: EmbeddedRedis) -> None:
    """
    When there is no room for new values, those that are there are still recalled.
    """
    with closing(Watched(own_redis.url)) as watched:
        watched.remember(CAT)
        watched.redis.config_set("maxmemory-policy", "noeviction")
        watched.redis.config_set("maxmemory", "1")
        watched.remember(DOG)
        recalled = watched.cache.recall([CAT, DOG])

    assert recalled is not None
    assert recalled.keys() == {CAT}
    assert watched.writes() == {"stored": 1, "error": 1}


@pytest.mark.servers
def test_a_wrong_password_is_an_error_like_any_other(own_redis: EmbeddedRedis) -> None:
    """
    A Redis that does not let us in costs hits, not the worker.
    """
    with closing(Watched(own_redis.url)) as watched:
        watched.redis.config_set("requirepass", "right")
        with closing(Watched(own_redis.url.replace("redis://", "redis://:wrong@"))) as locked_out:
            locked_out.remember(CAT)

            assert locked_out.cache.recall([CAT]) is None
            assert locked_out.requests() == {"error": 1}
            assert locked_out.writes() == {"error": 1}


def test_a_redis_that_never_answers_holds_nobody() -> None:
    """
    A server that accepts and stays silent costs the time-out, for asking and for telling.
    """
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        with closing(Watched(url, connect_timeout_s=0.2, timeout_s=0.05)) as watched:
            started_s = time.monotonic()
            recalled = watched.cache.recall([CAT, DOG])
            watched.remember(CAT)
            took_s = time.monotonic() - started_s

    assert recalled is None
    assert 0.1 <= took_s < 30
    assert watched.requests() == {"error": 2}
    assert watched.writes() == {"error": 1}


def test_a_redis_that_nobody_can_reach_holds_nobody() -> None:
    """
    Where nobody listens, the answer is None at once, and a worker starts all the same.
    """
    with closing(Watched("redis://127.0.0.1:1/0")) as watched:
        watched.remember(CAT)

        assert watched.cache.recall([CAT]) is None
        assert watched.requests() == {"error": 1}
        assert watched.writes() == {"error": 1}


@pytest.mark.parametrize("answer", NO_ANSWERS.values(), ids=NO_ANSWERS.keys())
def test_a_server_that_is_no_redis_is_an_error(answer: bytes) -> None:
    """
    An answer that makes no sense is treated as none.
    """
    with speaking(answer) as (url, heard), closing(Watched(url, timeout_s=1.0)) as watched:
        recalled = watched.cache.recall([CAT])
        watched.remember(CAT)
        asked = eventually(lambda: len(heard) > 0)

    assert asked
    assert recalled is None
    assert watched.requests() == {"error": 1}


def test_as_many_values_as_were_asked_for_are_an_answer() -> None:
    """
    The same server is believed as soon as the number of its values is right.
    """
    with speaking(nothing_found(ASKED)) as (url, _), closing(Watched(url)) as watched:
        recalled = watched.cache.recall([CAT])

    assert {} == recalled
    assert {"miss": 1} == watched.requests()


def test_the_breaker_spares_a_redis_that_fails() -> None:
    """
    After some errors in a row nothing is sent for a while; then one question probes, and the next waits again.
    """
    clock = ManualClock()
    with (
        speaking(b"-ERR no\r\n") as (url, heard),
        closing(Watched(url, clock=clock, breaker_failures=2, breaker_open_s=10)) as watched,
    ):
        failing = [watched.cache.recall([CAT]) for _ in range(2)]
        sent = len(heard)
        watched.cache.recall([CAT, DOG])
        watched.remember(CAT)
        while_open = len(heard)
        clock.now_s = 10
        watched.cache.recall([CAT])
        probed = len(heard)
        watched.cache.recall([CAT])

    assert failing == [None, None]
    assert while_open == sent
    assert probed == sent + 1
    assert len(heard) == probed
    assert watched.requests() == {"error": 3, "skipped": 3}
    assert watched.writes() == {"skipped": 1}


@pytest.mark.servers
def test_the_breaker_closes_when_redis_is_back(own_redis: EmbeddedRedis) -> None:
    """
    The first good answer after the pause ends it.
    """
    clock = ManualClock()
    with closing(Watched(own_redis.url, clock=clock, breaker_failures=1, breaker_open_s=10)) as watched:
        own_redis.kill()
        dead = watched.cache.recall([CAT])
        own_redis.start()
        too_early = watched.cache.recall([CAT])
        clock.now_s = 10
        probe = watched.cache.recall([CAT])
        after = watched.cache.recall([CAT])

    assert (dead, too_early) == (None, None)
    assert (probe, after) == ({}, {})
    assert watched.requests() == {"error": 1, "skipped": 1, "miss": 2}
