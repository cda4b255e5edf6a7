"""
A Redis that is itself somebody else: answers that are late, odd, or never end.

They cost hits and a time-out, and never a deletion or a thread.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from itertools import product

import pytest
from redis import Redis

from tests.servers import eventually
from tests.sightings import a_hash, a_sighting
from tests.speaking_redis import NO_ANSWERS, speaking
from tests.watched_cache import Watched
from worker.adapters import redis_contents
from worker.adapters.redis_contents import RedisContents
from worker.contents import ContentName
from worker.dev.servers import RedisAt
from worker.errors import StoreUnavailable

CAT, DOG = a_hash("cat"), a_hash("dog")
POST, OTHER = ContentName("acme", "post-1"), ContentName("acme", "post-2")


def test_a_value_that_is_not_copied_in_time_is_found() -> None:
    """
    Where the answer only times out, because the value is so large, its size is asked for with the next question.
    """
    removed: list[bytes] = []

    def answer(told: bytes) -> bytes:
        if b"STRLEN" in told:
            return b":4\r\n:400000000\r\n:0\r\n:0\r\n"
        if b"UNLINK" in told:
            removed.append(told)
            return b":1\r\n"
        return b"*4\r\n" + b"$-1\r\n" * 4 if removed else b""

    with speaking(answer) as (url, _), closing(Watched(url, timeout_s=2.0)) as watched:
        recalled = [watched.cache.recall([CAT]) for _ in range(3)]

    assert [None, {}, {}] == recalled
    assert 1 == len(removed)
    assert watched.keys(CAT)[1].encode() in removed[0]
    assert {"error": 1, "invalid": 1, "miss": 2} == watched.requests()


ODD = {
    **NO_ANSWERS,
    "members that are no texts": b"*2\r\n+a\r\n$1\r\n\xff\r\n",
    "numbers": b"*3\r\n:1\r\n:2\r\n:3\r\n",
    "lists in lists": b"*1\r\n*1\r\n*1\r\n:1\r\n",
    "no list": b"*-1\r\n",
    "of RESP3": b"|1\r\n+a\r\n+b\r\n:1\r\n>2\r\n+a\r\n+b\r\n",
    "pushes without end": b">2\r\n+a\r\n+b\r\n" * 3000,
    "a walk that goes nowhere": b"*2\r\n$1\r\n0\r\n:1\r\n",
    "moved": b"-MOVED x\r\n",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD.keys())
def test_a_server_that_is_no_redis_ends_no_deletion(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever it answers, the index says that it was not reached, or what it was told; it raises nothing else.
    """
    monkeypatch.setattr(redis_contents, "PATIENCE_S", 1.0)
    calls: dict[str, Callable[[RedisContents], object]] = {
        "note": lambda index: index.note([(POST, CAT)]),
        "mark_gone": lambda index: index.mark_gone([POST]),
        "bytes_of": lambda index: index.bytes_of([POST]),
        "let_go": lambda index: index.let_go([POST]),
        "forget": lambda index: index.forget([CAT]),
    }
    with speaking(answer * 4) as (url, heard), closing(Watched(url)) as watched:
        for (name, call), scan in product(calls.items(), (False, True)):
            heard.clear()
            with closing(RedisContents(watched.settings, keep_s=60, scan=scan)) as index, suppress(StoreUnavailable):
                call(index)

            assert eventually(lambda: bool(heard)), name


@pytest.mark.parametrize("what", ["recall", "remember", "forget"])
def test_an_answer_that_drips_holds_nobody(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A byte every few milliseconds, of an answer without end, costs the time-out and no more.
    """
    monkeypatch.setattr(redis_contents, "PATIENCE_S", 0.3)
    dripping = [b"*4\r\n$100000\r\n", *[b"x"] * 2000]
    with ExitStack() as stack:
        url, _ = stack.enter_context(speaking(dripping))
        watched = stack.enter_context(closing(Watched(url, timeout_s=0.3)))
        index = stack.enter_context(closing(RedisContents(watched.settings, keep_s=60)))
        started_s = time.monotonic()
        if what == "recall":
            assert watched.cache.recall([CAT]) is None
        elif what == "remember":
            assert watched.cache.remember({CAT: a_sighting(CAT)}) == frozenset()
        else:
            with pytest.raises(StoreUnavailable):
                index.forget([CAT])
        took_s = time.monotonic() - started_s

    assert 0.3 <= took_s < 30


def test_a_client_of_redis_reads_no_answer_itself(redis_server: RedisAt) -> None:
    """
    Else an odd answer would leave those behind it on the connection, for the next question to read.
    """
    with closing(Watched(redis_server.url)) as watched:
        client: Redis = watched.cache._redis  # the adapter's own

        assert not client.response_callbacks
