"""
Deletions as a worker hears of them: how records are read, and what is committed and tried again.
"""

import hashlib
import json
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence

import pytest
from structlog.testing import capture_logs

from schemas.deleted import TYPE
from tests.forgetting_worlds import AT, BODY, CAT, DOG, OTHER, POST, InFlight, World, a_record
from tests.servers import eventually
from worker.domain import RawEvent
from worker.errors import EventUnreadable
from worker.operation.forgetting import Deletion, Stores, read_deletion
from worker.operation.listening import HEARD_BEFORE_S, DeletionListener, Overlooked
from worker.operation.noting import Noticed

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


@pytest.fixture
def world() -> World:
    """
    A world in which nothing was forgotten yet.
    """
    return World()


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
    thread.join(60)

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

    listen(world, source, back_again, Overlooked(noticed, InFlight(DOG), quiet))

    assert [[CAT, DOG]] == world.archive.told
    assert {OTHER} == world.redis.gone


def test_what_could_not_be_followed_is_left_to_whoever_comes_next(world: World) -> None:
    """
    A listener that is told to end while a store is down gives it back.
    """
    noticed = Noticed()
    noticed.add([Deletion(OTHER, (CAT,))])
    world.archive.down = True
    overlooked = Overlooked(noticed, InFlight(DOG), world.stores)
    listen(world, None, lambda: "bytes_of" in world.redis.calls, overlooked)

    assert [Deletion(OTHER, (CAT,)), Deletion(None, (DOG,))] == noticed.take()
