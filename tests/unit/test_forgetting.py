"""
Forgetting: in which order stores are asked, what becomes of failures, and how a worker notes and listens.
"""

import hashlib
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.deleted import TYPE
from tests.fakes_forgetting import InMemoryContents
from tests.servers import eventually
from tests.sightings import a_hash
from worker.contents import ContentName
from worker.domain import ContentHash, Partition, RawEvent
from worker.errors import EXIT_FOUND, ArchiveUnavailable, EventUnreadable, NotForgotten
from worker.operation.forgetting import Deletion, Forgotten, Stores, forget, read_deletion
from worker.operation.listening import HEARD_BEFORE_S, DeletionListener, Overlooked
from worker.operation.noting import ContentNotes, Noticed
from worker.telemetry.metrics import InMemoryRecorder

CAT, DOG = a_hash("cat"), a_hash("dog")
POST, OTHER = ContentName("acme", "post-1"), ContentName("acme", "post-2")
AT = Partition("deletions", 0)


class Archive:
    """
    A ``Forgetter`` that is told what to do.
    """

    def __init__(self) -> None:
        self.down = False
        self.told: list[list[ContentHash]] = []

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        Remembers what it was told to forget.
        """
        if self.down:
            raise ArchiveUnavailable("the disk is full")
        self.told.append(list(hashes))
        return len(hashes)


class World:
    """
    Redis and an archive in memory, with a cat's bytes noted of a post.
    """

    def __init__(self) -> None:
        self.redis = InMemoryContents(values={("e2", CAT): b"", ("e2", DOG): b""})
        self.archive = Archive()
        self.recorder = InMemoryRecorder()
        self.stores = Stores(self.redis, {"archive": self.archive, "redis": self.redis})
        self.redis.note([(POST, CAT)])

    def forget(self, *deletions: Deletion) -> Forgotten:
        """
        Forget these.
        """
        return forget(deletions, self.stores, self.recorder)

    def counted(self) -> dict[tuple[str, ...], float]:
        """
        What was counted as forgotten, by result and store.
        """
        return {
            tuple(value for _, value in sorted(series.labels)): count
            for series, count in self.recorder.counters().items()
            if series.name == "forgotten_total"
        }


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


def a_record(
    body: object, attributes: Mapping[str, str] | None = None, *, offset: int = 0, told_s: float | None = None
) -> RawEvent:
    """
    A record of the deletions topic, in binary mode where attributes are given; told then, in seconds since the epoch.
    """
    headers = tuple((f"ce_{name}", value.encode()) for name, value in (attributes or {}).items())
    value = json.dumps(body).encode()
    timestamp_ms = None if told_s is None else round(told_s * 1000)
    return RawEvent(AT, offset, key=None, value=value, headers=headers, timestamp_ms=timestamp_ms)


BODY = {"content_id": "post-1", "tenant_id": "acme", "sha256": [CAT], "reason": "of a later version"}
ATTRIBUTES = {"specversion": "1.0", "id": "1", "source": "urn:platform", "type": TYPE}


@pytest.mark.parametrize(
    "record",
    [
        a_record(BODY),
        a_record(BODY, ATTRIBUTES),
        a_record(ATTRIBUTES | {"data": BODY}),
        a_record(ATTRIBUTES | {"data_base64": b64encode(json.dumps(BODY).encode()).decode()}),
    ],
    ids=["bare", "binary", "structured", "structured in base64"],
)
def test_deletions_are_read_in_every_envelope(record: RawEvent) -> None:
    """
    Who is gone is read alike however the event is wrapped; fields that we do not know are passed over.
    """
    assert Deletion(POST, (CAT,)) == read_deletion(record)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (RawEvent(AT, 0, key=b"post-1", value=None), "EVENT_EMPTY"),
        (RawEvent(AT, 0, key=None, value=b"{" * 9), "EVENT_INVALID"),
        (RawEvent(AT, 0, key=None, value=b" " * 70_000), "EVENT_TOO_LARGE"),
        (a_record({"tenant_id": "acme"}), "content_id"),
        (a_record(BODY | {"sha256": ["Q" * 64]}), "sha256"),
        (a_record(BODY, ATTRIBUTES | {"type": "image.uploaded.v1"}), "EVENT_TYPE_UNSUPPORTED"),
        (a_record(ATTRIBUTES | {"type": "other", "data": BODY}), "EVENT_TYPE_UNSUPPORTED"),
        (a_record(ATTRIBUTES), "EVENT_INVALID"),
        (a_record(BODY, {"id": "1"}), "specversion"),
    ],
    ids=[
        "tombstone",
        "no JSON",
        "too large",
        "no content",
        "no hash",
        "another type",
        "likewise",
        "no data",
        "no event",
    ],
)
def test_what_is_no_deletion_says_why(record: RawEvent, why: str) -> None:
    """
    A record that names nothing to forget is refused with a code and no value of its own.
    """
    with pytest.raises(EventUnreadable, match=why) as refused:
        read_deletion(record)

    assert "QQQQ" not in str(refused.value)


class Deletions:
    """
    A ``DeletionSource`` over a list, one poll each; ``committed`` has the offsets in order.
    """

    def __init__(self, *polls: Sequence[RawEvent]) -> None:
        self._polls = list(polls)
        self.committed: list[int] = []

    def poll(self, *, wait_s: float) -> Sequence[RawEvent]:
        """
        The next list, then nothing after a while.
        """
        if self._polls:
            return self._polls.pop(0)
        threading.Event().wait(min(wait_s, 0.01))
        return []

    def commit(self, done: Sequence[RawEvent]) -> None:
        """
        Remembered.
        """
        self.committed += [event.offset for event in done]


def listen(
    world: World,
    source: Deletions | None,
    until: Callable[[], bool],
    overlooked: Overlooked | None = None,
    *,
    hears_again: bool = False,
) -> None:
    """
    Listen until it came true, and no longer.
    """
    listener = DeletionListener(source, world.stores, world.recorder, overlooked, hears_again=hears_again, retry_s=0.01)
    faults: list[BaseException] = []

    def work() -> None:
        try:
            listener.work()
        except BaseException as fault:  # noqa: BLE001 - told to the test
            faults.append(fault)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    came_true = eventually(until)
    listener.end()
    thread.join(10)

    assert came_true
    assert not thread.is_alive()
    assert [] == faults


def test_a_listener_commits_what_is_forgotten(world: World) -> None:
    """
    Each batch is forgotten and then committed, one that cannot be read with it; no content id gets into the log.
    """
    source = Deletions([a_record(BODY, offset=4), RawEvent(AT, 5, key=None, value=b"post-1")])
    with capture_logs() as lines:
        listen(world, source, lambda: bool(source.committed))

    assert [4, 5] == source.committed
    assert [[CAT]] == world.archive.told
    assert 1 == world.counted()["unreadable", "event"]
    assert {"deletion.unreadable", "contents.forgotten"} == {line["event"] for line in lines}
    assert "post-1" not in json.dumps(lines, default=str)


def test_a_deletion_of_unknown_bytes_is_told_with_its_place(world: World) -> None:
    """
    Where its content id can be read, for it is committed; not the id itself, and nothing of deletions that found bytes.
    """
    unknown = {"content_id": "post-2", "tenant_id": "acme"}
    source = Deletions([a_record(BODY, offset=4), a_record(unknown, offset=5), a_record(BODY, offset=6)])
    with capture_logs() as lines:
        listen(world, source, lambda: bool(source.committed))
    (told,) = [line for line in lines if line["event"] == "deletion.unknown"]

    assert ("deletions", 0, 5) == (told["topic"], told["partition"], told["offset"])
    assert (hashlib.sha256(b"post-2").hexdigest()[:12], "acme") == (told["content_id_hash"], told["tenant"])
    assert "--search-verdicts" in told["advice"]
    assert "post-2" not in json.dumps(lines, default=str)
    assert [4, 5, 6] == source.committed


@pytest.mark.parametrize("hears_again", [True, False], ids=["without offsets", "with offsets"])
def test_deletions_that_are_heard_again_mark_nothing(world: World, *, hears_again: bool) -> None:
    """
    A worker that begins with the oldest at each start takes those of yesterday for followed; one that goes on does not.
    """
    now_s = time.time()
    bodies = [{"content_id": name, "tenant_id": "acme"} for name in ("post-2", "post-3")]
    old = a_record(bodies[0], offset=4, told_s=now_s - HEARD_BEFORE_S - 60)
    new = a_record(bodies[1], offset=5, told_s=now_s - HEARD_BEFORE_S + 3600)
    source = Deletions([old, new])
    with capture_logs() as lines:
        listen(world, source, lambda: bool(source.committed), hears_again=hears_again)
    expected = {"post-3"} if hears_again else {"post-2", "post-3"}

    assert expected == {content.content_id for content in world.redis.marked}
    assert len(expected) == world.counted()["unknown", "index"]
    assert len(expected) == sum(line["event"] == "deletion.unknown" for line in lines)


def test_a_listener_waits_for_a_store_and_commits_nothing(world: World) -> None:
    """
    While a store is down the same deletion is tried again, told once, and neither it nor what follows is committed.
    """
    source = Deletions([a_record(BODY, offset=4)], [a_record(BODY, offset=5)])
    world.archive.down = True
    tries = 3

    def tried() -> bool:
        return world.redis.calls.count("forget") >= tries

    def back_again() -> bool:
        if tried() and world.archive.down:
            assert [] == source.committed
            world.archive.down = False
        return source.committed == [4, 5]

    with capture_logs() as lines:
        listen(world, source, back_again)

    assert [[CAT], [CAT]] == world.archive.told
    assert 1 == sum(line["event"] == "contents.not_forgotten" for line in lines)


def test_a_listener_ends_while_a_store_is_down(world: World) -> None:
    """
    A worker that leaves does not wait for the store; the deletion stays uncommitted.
    """
    source = Deletions([a_record(BODY, offset=4)])
    world.archive.down = True
    listen(world, source, lambda: world.redis.calls.count("forget") >= 1)

    assert [] == source.committed


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


class InFlight:
    """
    A ``worker.operation.listening.Memory`` in which others forgot a dog.
    """

    def __init__(self) -> None:
        self.elsewhere = [DOG]

    def forget(self, hashes: Sequence[ContentHash]) -> int:
        """
        It remembers nothing.
        """
        return 0

    def forgotten_elsewhere(self) -> Sequence[ContentHash]:
        """
        The dog, once.
        """
        told, self.elsewhere = self.elsewhere, []
        return told


@pytest.mark.parametrize("announced", [True, False])
def test_what_nobody_announced_is_followed_until_it_is_done(world: World, *, announced: bool) -> None:
    """
    Noticed by name or by bytes, beside announced deletions or without, and again while a store is down.
    """
    noticed, quiet = Noticed(), Stores(world.redis, {"archive": world.archive})
    noticed.add([Deletion(OTHER, (CAT,))])
    world.archive.down = True
    source = Deletions() if announced else None

    def back_again() -> bool:
        if world.redis.calls.count("bytes_of") >= 3:
            world.archive.down = False
        return bool(world.archive.told)

    listen(world, source, back_again, Overlooked(noticed, InFlight(), quiet))

    assert [[CAT, DOG]] == world.archive.told
    assert {OTHER} == world.redis.gone


def test_what_could_not_be_followed_is_left_to_whoever_comes_next(world: World) -> None:
    """
    A listener that is told to end while a store is down gives it back.
    """
    noticed = Noticed()
    noticed.add([Deletion(OTHER, (CAT,))])
    world.archive.down = True
    overlooked = Overlooked(noticed, InFlight(), world.stores)
    listen(world, None, lambda: "bytes_of" in world.redis.calls, overlooked)

    assert [Deletion(OTHER, (CAT,)), Deletion(None, (DOG,))] == noticed.take()
