"""
Forgetting: in which order stores are asked, what becomes of failures, and how a worker notes and listens.
"""

from typing import Any

import pytest

from tests.forgetting_worlds import CAT, DOG, OTHER, POST, Archive, World
from worker.contents import ContentName
from worker.errors import EXIT_FOUND, NotForgotten
from worker.operation.forgetting import Deletion, Forgotten, Stores, forget
from worker.operation.noting import ContentNotes, Noticed


@pytest.fixture
def world() -> World:
    """
    A world in which nothing was forgotten yet.
    """
    return World()


def test_named_and_noted_bytes_go_from_every_store(world: World) -> None:
    """
    The hashes of the event and those that the index knows are forgotten everywhere, each once, and then the name.
    """
    forgotten = world.forget(Deletion(POST, (DOG, CAT)))

    assert {"archive": 2, "redis": 2} == forgotten.removed
    assert [[DOG, CAT]] == world.archive.told
    assert {} == world.redis.values
    assert {POST} == world.redis.gone
    assert ["note", "mark_gone", "bytes_of", "forget", "let_go"] == world.redis.calls
    assert {("removed", "archive"): 2, ("removed", "redis"): 2} == world.counted()


def test_a_store_that_is_down_keeps_the_name(world: World) -> None:
    """
    What can be forgotten is, what cannot is named, and the bytes are still found the next time.
    """
    world.archive.down = True
    first = world.forget(Deletion(POST))
    gone_at_first = set(world.redis.gone)
    world.archive.down = False
    second = world.forget(Deletion(POST))

    assert {"archive": "the disk is full"} == first.failed
    assert {"redis": 1} == first.removed
    assert {} == second.failed
    assert [[CAT]] == world.archive.told
    assert (set(), {POST}) == (gone_at_first, world.redis.gone)


def test_every_worker_forgets_in_its_own_stores(world: World) -> None:
    """
    A second worker that hears of the same deletion later still finds the bytes, for its own archive's sake.
    """
    there = Archive()
    world.forget(Deletion(POST))
    second = forget([Deletion(POST)], Stores(world.redis, {"archive": there, "redis": world.redis}), world.recorder)

    assert [[CAT]] == there.told
    assert 0 == second.unknown


def test_what_failed_is_said(world: World) -> None:
    """
    The error of a command names each store and why, with the exit code of something found; done, there is none.
    """
    world.archive.down = world.redis.down = True
    forgotten = world.forget(Deletion(POST))

    with pytest.raises(
        NotForgotten, match=r"Not removed from archive: the disk is full.*Not removed from redis"
    ) as said:
        forgotten.require_whole()

    assert EXIT_FOUND == said.value.exit_code
    Forgotten().require_whole()


def test_hashes_are_forgotten_where_no_names_can_be_asked(world: World) -> None:
    """
    Without an index, or with one that is down, the event's own hashes are forgotten in the other stores.
    """
    world.redis.down = True
    with_one = world.forget(Deletion(POST, (DOG,)))
    without = forget([Deletion(POST, (CAT,))], Stores(None, {"archive": world.archive}), world.recorder)

    assert {"the index of contents", "redis"} == set(with_one.failed)
    assert {} == without.failed
    assert [[DOG], [CAT]] == world.archive.told


def test_contents_of_which_nothing_is_known_are_counted(world: World) -> None:
    """
    A content that was never seen is no failure, but somebody may want to know; one with hashes is known by these.
    """
    forgotten = world.forget(Deletion(OTHER), Deletion(ContentName(None, "post-3"), (CAT,)), Deletion(None, (DOG,)))

    with pytest.raises(NotForgotten, match="no bytes are known"):
        forgotten.require_whole()
    assert 1 == forgotten.unknown
    assert 1 == world.counted()["unknown", "index"]


def test_what_was_followed_before_is_neither_marked_nor_wondered_about(world: World) -> None:
    """
    Its bytes are forgotten where they are known; a content that is new here is not taken for gone, nor counted.
    """
    again = world.forget(Deletion(POST, was_followed=True), Deletion(OTHER, was_followed=True))
    marked_by_old = set(world.redis.marked)
    both = world.forget(Deletion(OTHER), Deletion(OTHER, was_followed=True))

    assert [[CAT], []] == world.archive.told
    assert (set(), {OTHER}) == (marked_by_old, world.redis.marked)
    assert ((), (OTHER,)) == (again.unknown_contents, both.unknown_contents)
    assert 1 == world.counted()["unknown", "index"]


def test_notes_are_written_and_counted(world: World) -> None:
    """
    What is offered is noted in the end; while the index is down, and beyond what may wait, it is counted and let go.
    """
    notes = ContentNotes(world.redis, world.recorder, max_waiting=2)
    for name in (OTHER, ContentName(None, "post-3"), ContentName(None, "post-4")):
        notes.offer(name, DOG)
    notes.close()
    notes.work()
    world.redis.down = True
    down = ContentNotes(world.redis, world.recorder)
    down.offer(POST, DOG)
    down.close()
    down.work()
    results: dict[str, Any] = {
        dict(series.labels)["result"]: count
        for series, count in world.recorder.counters().items()
        if series.name == "content_notes_total"
    }

    assert {POST: {CAT}, OTHER: {DOG}, ContentName(None, "post-3"): {DOG}} == world.redis.named
    assert {"stored": 2, "error": 1, "skipped": 1} == results


def test_contents_that_are_gone_are_noticed_once_each(world: World) -> None:
    """
    Whoever takes what was noticed gets each deletion once, with the bytes that were just noted, and may add it again.
    """
    noticed = Noticed()
    notes = ContentNotes(world.redis, world.recorder, noticed)
    world.redis.mark_gone([OTHER])
    for content, content_hash in ((OTHER, DOG), (POST, CAT), (OTHER, DOG), (OTHER, CAT)):
        notes.offer(content, content_hash)
    notes.close()
    notes.work()
    found = noticed.take()
    nothing = noticed.take()
    noticed.add(found)

    assert [Deletion(OTHER, (DOG,)), Deletion(OTHER, (CAT,))] == found
    assert [] == nothing
    assert found == noticed.take()
