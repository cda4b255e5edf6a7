"""
A Redis in which somebody else writes: what a worker makes of entries that no worker writes.

Such entries are removed and counted where they are found; they cost hits, and never a deletion or a thread.
"""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import product

import pytest

from tests.sightings import a_hash, a_sighting, same
from tests.watched_cache import SCOPE, Watched
from worker.adapters import redis_contents
from worker.adapters.redis_contents import RedisContents
from worker.adapters.redis_wire import ANSWER_LIMIT_BYTES, VALUE_LIMIT_BYTES
from worker.adapters.sighting_codec import failure_key, scope_names, scopes_key
from worker.contents import ContentName
from worker.dev.servers import RedisAt
from worker.domain import ContentHash
from worker.operation.forgetting import Deletion, Stores, forget
from worker.operation.listening import DeletionListener, Overlooked
from worker.operation.noting import ContentNotes, Noticed
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
POST, OTHER = ContentName("acme", "post-1"), ContentName("acme", "post-2")
INVALID = 'forgotten_total{result="invalid",store="index"}'


@pytest.fixture
def watched(redis_server: RedisAt) -> Iterator[Watched]:
    """
    A worker's cache, in a namespace of its own.
    """
    with closing(Watched(redis_server.url)) as cache:
        yield cache


@pytest.fixture
def contents(watched: Watched) -> Iterator[RedisContents]:
    """
    What forgets, in the same namespace.
    """
    with closing(RedisContents(watched.settings, keep_s=60)) as index:
        yield index


def at_scopes(watched: Watched) -> str:
    """
    Where the names of the scopes lie.
    """
    return scopes_key(namespace=watched.settings.namespace)


def names_in(watched: Watched) -> set[bytes]:
    """
    The names of the scopes as they lie there.
    """
    members: object = watched.redis.smembers(at_scopes(watched))
    assert isinstance(members, set)
    return members


def of_a_post(watched: Watched) -> str:
    """
    Where its bytes are noted.
    """
    (key,) = watched.redis.scan_iter(match=f"touchstone:{watched.settings.namespace}:u1:*")
    return str(key.decode())


def found(watched: Watched, *names: ContentHash) -> bool:
    """
    Whether just these are recalled of a cat and a dog, each as it was remembered.
    """
    recalled = watched.cache.recall([CAT, DOG]) or {}
    return recalled.keys() == set(names) and all(same(recalled[name], a_sighting(name)) for name in names)


@pytest.mark.servers
@pytest.mark.parametrize("garbage", [b"\xff", b"", b"g1", b"*", b"e2:../../x", b"\x00" * 900])
def test_garbage_among_the_scopes_is_taken_out(watched: Watched, contents: RedisContents, garbage: bytes) -> None:
    """
    A name that no worker writes is passed over, removed and counted, and the deletion is done.
    """
    watched.remember(CAT)
    watched.redis.sadd(at_scopes(watched), garbage)
    removed = contents.forget([CAT])

    assert 2 == removed
    assert {name.encode() for name in scope_names(SCOPE)} == names_in(watched)
    assert [1, 0] == [contents.damaged(), contents.damaged()]


@pytest.mark.servers
def test_garbage_ends_no_thread(watched: Watched, contents: RedisContents) -> None:
    """
    The listener of a live worker follows the deletion and goes on.
    """
    recorder = InMemoryRecorder()
    watched.remember(CAT)
    watched.redis.sadd(at_scopes(watched), b"\xff")
    stores = Stores(contents, {"redis": contents})

    class Memory:
        """
        A worker that was just told that a cat was forgotten.
        """

        def forgotten_elsewhere(self) -> list[ContentHash]:
            """
            Once; then the listener is told to end.
            """
            listener.end()
            return [CAT]

        def forget(self, hashes: Sequence[ContentHash]) -> int:
            """
            It remembers nothing.
            """
            return 0 * len(hashes)

    listener = DeletionListener(None, stores, recorder, Overlooked(Noticed(), Memory(), stores))
    listener.work()

    assert 0 == watched.redis.exists(*watched.keys(CAT))
    assert 1 == recorder.snapshot()[INVALID]


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["text", "list", "too large"])
def test_scopes_that_lie_in_no_set(watched: Watched, contents: RedisContents, kind: str) -> None:
    """
    The first deletion removes them, and finds the values all the same; so does the next.
    """
    spoil: dict[str, Callable[[], object]] = {
        "text": lambda: watched.redis.set(at_scopes(watched), b"x"),
        "list": lambda: watched.redis.lpush(at_scopes(watched), b"x"),
        "too large": lambda: watched.redis.sadd(at_scopes(watched), bytes(VALUE_LIMIT_BYTES + 1)),
    }
    watched.remember(CAT)
    watched.redis.delete(at_scopes(watched))
    spoil[kind]()
    recorder = InMemoryRecorder()
    stores = Stores(contents, {"redis": contents})
    first = forget([Deletion(None, (CAT,))], stores, recorder)
    watched.remember(DOG)
    second = forget([Deletion(None, (DOG,))], stores, recorder)

    assert ({}, {"redis": 2}) == (first.failed, first.removed)
    assert ({}, {"redis": 2}) == (second.failed, second.removed)
    assert 1 == recorder.snapshot()[INVALID]


@pytest.mark.servers
def test_scopes_of_another_kind_are_written_anew(watched: Watched) -> None:
    """
    Writing goes on as ever, and the breaker stays closed.
    """
    watched.redis.lpush(at_scopes(watched), b"x")
    for _ in range(6):
        watched.remember(CAT)

    assert {"stored": 6} == watched.writes()
    assert {name.encode() for name in scope_names(SCOPE)} == names_in(watched)
    assert 1 == watched.recorder.snapshot()[INVALID]


@pytest.mark.servers
def test_a_value_of_another_kind_makes_room(watched: Watched) -> None:
    """
    What lies there would be a miss for ever, for what is there is not written over: the next write removes it.
    """
    watched.redis.lpush(watched.keys(CAT)[0], b"x")
    watched.remember(CAT)
    watched.remember(CAT)

    assert found(watched, CAT)
    assert {"invalid": 1, "hit": 1, "miss": 1} == watched.requests()


@pytest.mark.servers
@pytest.mark.parametrize("size", [VALUE_LIMIT_BYTES + 1, 40 << 20])
def test_values_too_large_are_removed_unread(watched: Watched, size: int) -> None:
    """
    They cost the hit of their image, no other's, and next to no memory.
    """
    watched.remember(CAT, DOG)
    namespace = watched.settings.namespace
    for key in (*watched.keys(CAT), failure_key(CAT, SCOPE, namespace=namespace), f"touchstone:{namespace}:g1:{DOG}"):
        watched.redis.setrange(key, size, b"x")
    tracemalloc.start()
    try:
        at_first = found(watched, DOG)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    left = watched.redis.exists(*watched.keys(CAT), f"touchstone:{namespace}:g1:{DOG}")
    watched.remember(CAT)

    assert at_first
    assert 16 << 20 > most  # other threads of this process allocate too
    assert 0 == left
    assert found(watched, CAT, DOG)
    assert {"hit": 3, "invalid": 1} == watched.requests()


@pytest.mark.servers
def test_more_values_than_may_be_read_at_once(watched: Watched) -> None:
    """
    Each is no larger than a worker's, all together too large: some are read, removed as damaged, and memory is bounded.
    """
    names = [a_hash(f"image {number}") for number in range(40)]
    for name in names:
        watched.redis.setrange(watched.keys(name)[0], VALUE_LIMIT_BYTES - 1, b"x")
    tracemalloc.start()
    try:
        rounds = 0
        while watched.redis.exists(*(watched.keys(name)[0] for name in names)) and rounds < 40:
            watched.cache.recall(names)
            rounds += 1
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 3 * ANSWER_LIMIT_BYTES > most
    assert rounds < 40
    assert len(names) == watched.requests()["invalid"]
    assert "error" not in watched.requests()


@pytest.mark.servers
def test_a_mark_too_large_does_not_stop_writing(watched: Watched) -> None:
    """
    The write that meets it is an error, the next one has removed it.
    """
    watched.redis.setrange(f"touchstone:{watched.settings.namespace}:g1:{CAT}", VALUE_LIMIT_BYTES, b"x")
    watched.remember(CAT)
    watched.remember(CAT)

    assert {"error": 1, "stored": 1} == watched.writes()
    assert found(watched, CAT)


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["text", "garbage", "too large", "too many"])
def test_names_that_no_worker_wrote(
    watched: Watched, contents: RedisContents, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of one content they are removed, those of others are known, and the content can be noted again.
    """
    contents.note([(POST, CAT)])
    at = of_a_post(watched)
    contents.note([(OTHER, DOG)])
    if kind == "text":
        watched.redis.set(at, b"x")
    elif kind == "garbage":
        watched.redis.sadd(at, b"\xff", b"A" * 64)
    elif kind == "too large":
        watched.redis.sadd(at, bytes(VALUE_LIMIT_BYTES + 1))
    else:
        members = [bytes([*pair]) * 4000 for pair in product(range(65, 91), range(65, 91), range(65, 68))]
        watched.redis.sadd(at, *members)
        monkeypatch.setattr(redis_contents, "MEMBERS_LIMIT", 1000)
    known = contents.bytes_of([POST, OTHER])
    damaged = contents.damaged()
    contents.note([(POST, CAT)])

    assert {POST: {CAT} if kind == "garbage" else set(), OTHER: {DOG}} == known
    assert (2 if kind == "garbage" else 1) == damaged
    assert {POST: {CAT}, OTHER: {DOG}} == contents.bytes_of([POST, OTHER])
    assert 0 == contents.damaged()


@pytest.mark.servers
def test_a_name_of_another_kind_is_noted_anew_and_counted(watched: Watched, contents: RedisContents) -> None:
    """
    The thread that notes does it, and no other content of its batch is lost.
    """
    contents.note([(POST, CAT)])
    watched.redis.set(of_a_post(watched), b"x")
    recorder = InMemoryRecorder()
    notes = ContentNotes(contents, recorder)
    for content, name in ((POST, CAT), (OTHER, DOG)):
        notes.offer(content, name)
    notes.close()
    notes.work()

    assert {POST: {CAT}, OTHER: {DOG}} == contents.bytes_of([POST, OTHER])
    assert (2, 1) == (recorder.snapshot()['content_notes_total{result="stored"}'], recorder.snapshot()[INVALID])


@pytest.mark.servers
def test_odd_keys_do_not_stop_a_walk(watched: Watched) -> None:
    """
    Names that are no text are passed over.
    """
    watched.remember(CAT)
    watched.redis.delete(at_scopes(watched))
    watched.redis.set(f"touchstone:{watched.settings.namespace}:e2:".encode() + b"\xff\xfe", b"1")
    with closing(RedisContents(watched.settings, keep_s=60, scan=True)) as thorough:
        removed = thorough.forget([CAT])

    assert 2 == removed
