"""
The small parts of the flow, one promise each.
"""

import threading

import numpy as np
import pytest

from schemas.errors import ErrorCode
from schemas.verdict import ImageFacts
from tests.fake_outcomes import ManualClock, an_outcome
from worker.domain import ContentHash, Embedding, Partition, RawEvent, Sighting
from worker.errors import CannotStart, WorkerCrashed
from worker.flow.byte_budget import ByteBudget
from worker.flow.crew import Crew
from worker.flow.inbox import Inbox
from worker.flow.ledger import OffsetLedger
from worker.flow.lines import Lines
from worker.flow.micro_batch import MicroBatcher
from worker.flow.single_flight import Boarding, SingleFlight

P0 = Partition("uploads", 0)
HASH = ContentHash("ab" * 32)


def a_sighting() -> Sighting:
    """
    Some known picture.
    """
    return Sighting(Embedding.from_features(np.ones(4)), ImageFacts(sha256=HASH, byte_length=1))


def test_a_slot_is_settled_once() -> None:
    """
    A second outcome for one upload is refused: conservation would be broken unseen.
    """
    lines = Lines()
    slot = lines.take(RawEvent(P0, 0, None, b""))
    lines.settle(slot, an_outcome())

    with pytest.raises(ValueError, match="has an outcome already"):
        lines.settle(slot, an_outcome())


def test_the_ledger_refuses_an_offset_out_of_order() -> None:
    """
    Releasing backwards is a programming error that the ledger names.
    """
    ledger = OffsetLedger()
    ledger.release(P0, 5)

    with pytest.raises(ValueError, match=r"offset 4 .* released after 5"):
        ledger.release(P0, 4)


def test_a_late_acknowledgement_of_a_forgotten_partition_is_passed_over() -> None:
    """
    An acknowledgement that arrives after its partition went moves nothing.
    """
    ledger = OffsetLedger()
    ledger.release(P0, 0)
    ledger.forget([P0])
    ledger.acknowledge(P0, 0)

    assert ledger.committable() == {}


def test_a_micro_batch_closes_on_size() -> None:
    """
    A full batch closes at once, however young it is; what is over the size stays for the next.
    """
    batcher: MicroBatcher[int] = MicroBatcher(size=2, deadline_s=60, clock=ManualClock())
    for item in range(3):
        batcher.put(item)

    assert batcher.take() == ([0, 1], "size")
    assert batcher.due(0.0) is None


def test_a_micro_batch_closes_on_its_deadline() -> None:
    """
    A batch that does not fill closes when its oldest item has waited for the deadline, not before.
    """
    clock = ManualClock()
    batcher: MicroBatcher[int] = MicroBatcher(size=10, deadline_s=0.5, clock=clock)
    batcher.put(1)
    clock.now_s = 0.3
    batcher.put(2)

    assert batcher.due(0.49) is None
    clock.now_s = 0.5
    assert batcher.take() == ([1, 2], "deadline")


def test_a_waiting_taker_gets_the_batch_when_it_fills() -> None:
    """
    The taker sleeps until the batch is full, and is woken by the item that fills it.
    """
    batcher: MicroBatcher[int] = MicroBatcher(size=2, deadline_s=3600, clock=ManualClock())
    taken: list[object] = []
    taker = threading.Thread(target=lambda: taken.append(batcher.take()))
    taker.start()
    batcher.put(1)
    batcher.put(2)
    taker.join(60)

    assert taken == [([1, 2], "size")]


def test_a_closed_batcher_gives_what_is_left_and_then_none() -> None:
    """
    Draining loses nothing and waits for no deadline.
    """
    batcher: MicroBatcher[int] = MicroBatcher(size=2, deadline_s=3600, clock=ManualClock())
    for item in range(3):
        batcher.put(item)
    batcher.close()

    assert batcher.take() == ([0, 1], "size")
    assert batcher.take() == ([2], "drain")
    assert batcher.take() is None


def test_twins_in_flight_have_one_leader() -> None:
    """
    The first to board leads, the others follow and are handed over at the landing, in order.
    """
    flights: SingleFlight[str] = SingleFlight(ManualClock(), recent=2)

    assert Boarding.LEADER is flights.board(HASH, "a")
    assert Boarding.FOLLOWER is flights.board(HASH, "b")
    assert Boarding.FOLLOWER is flights.board(HASH, "c")
    assert flights.land(HASH, None) == ["b", "c"]


def test_a_twin_after_the_landing_gets_the_sighting() -> None:
    """
    In the moment before the cache knows it, a landed sighting is not computed again; a failure is not kept.
    """
    flights: SingleFlight[str] = SingleFlight(ManualClock(), recent=1)
    sighting = a_sighting()
    flights.board(HASH, "a")
    flights.land(HASH, sighting)

    assert sighting is flights.board(HASH, "b")
    other = ContentHash("cd" * 32)
    flights.board(other, "c")
    flights.land(other, None)
    assert Boarding.LEADER is flights.board(other, "d")


def test_what_is_no_image_is_known_for_a_while_only() -> None:
    """
    Its code is told until its time is over, however often it is asked for; a sighting has no such time.
    """
    clock = ManualClock()
    flights: SingleFlight[str] = SingleFlight(clock, recent=2, failure_known_s=600)
    picture = ContentHash("cd" * 32)
    for content_hash, found in ((HASH, ErrorCode.DECODE_TRUNCATED), (picture, a_sighting())):
        flights.board(content_hash, "a")
        flights.land(content_hash, found)
    told = []
    for now_s in (300, 599, 600):
        clock.now_s = now_s
        told += [flights.landed(HASH), flights.board(HASH, "b")]

    assert [ErrorCode.DECODE_TRUNCATED] * 4 + [None, Boarding.LEADER] == told
    assert isinstance(flights.board(picture, "c"), Sighting)


def test_only_the_most_recent_sightings_are_kept() -> None:
    """
    The memory of landed flights is bounded; the oldest goes first.
    """
    flights: SingleFlight[str] = SingleFlight(ManualClock(), recent=1)
    other = ContentHash("cd" * 32)
    for content_hash in (HASH, other):
        flights.board(content_hash, "a")
        flights.land(content_hash, a_sighting())

    assert Boarding.LEADER is flights.board(HASH, "b")
    assert isinstance(flights.board(other, "b"), Sighting)


def test_the_door_is_shut_while_too_many_bytes_are_held() -> None:
    """
    Who comes to a shut door waits until bytes are freed.
    """
    budget = ByteBudget(10)
    budget.hold(10)
    through = threading.Event()

    def wait_at_the_door() -> None:
        budget.pass_door()
        through.set()

    threading.Thread(target=wait_at_the_door).start()

    assert budget.full
    assert not through.is_set()
    budget.free(1)
    assert through.wait(60)


def test_a_closed_budget_lets_everybody_through() -> None:
    """
    Nobody waits at the door while the worker stops.
    """
    budget = ByteBudget(1)
    budget.hold(1)
    budget.close()
    budget.pass_door()

    assert budget.full


def test_a_dead_thread_is_an_error_of_the_process() -> None:
    """
    A fault in any thread is raised where the loop looks, with the thread's name.
    """
    crew = Crew()

    def die() -> None:
        raise KeyError("lost")

    crew.start("decode-7", die)
    crew.join(60)

    with pytest.raises(WorkerCrashed, match="thread decode-7 died: KeyError"):
        crew.check()


def test_a_thread_that_dies_of_our_own_error_keeps_its_words() -> None:
    """
    An error written for operators is raised as it is.
    """
    crew = Crew()

    def die() -> None:
        raise CannotStart("do this")

    crew.start("x", die)
    crew.join(60)

    with pytest.raises(CannotStart, match="do this"):
        crew.check()


def test_a_thread_that_ends_well_is_no_fault_and_one_that_hangs_is_named() -> None:
    """
    Joining waits for no longer than it was told, and says who is left.
    """
    crew = Crew()
    release = threading.Event()
    crew.start("good", lambda: None)
    assert crew.join(60) == []  # it has ended before anybody is in a hurry

    def hang() -> None:
        release.wait()

    crew.start("hangs", hang)
    left = crew.join(0.2)
    release.set()

    crew.check()
    assert left == ["hangs"]


def test_an_inbox_ends_for_every_reader() -> None:
    """
    Closing lets each reader finish the queue and stop.
    """
    inbox: Inbox[int] = Inbox(readers=2)
    inbox.put(1)
    inbox.close()

    assert list(inbox) == [1]
    assert list(inbox) == []


def test_an_inbox_gives_what_waits_together() -> None:
    """
    Batches take what is there, up to the limit, and wait for nothing more.
    """
    inbox: Inbox[int] = Inbox()
    for item in range(5):
        inbox.put(item)
    inbox.close()

    assert list(inbox.batches(3)) == [[0, 1, 2], [3, 4]]
