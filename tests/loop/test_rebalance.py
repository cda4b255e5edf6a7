"""
Rebalances: what is taken away is forgotten and not lost, and what stays goes on as if nothing had been.
"""

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, each

KEPT = {"kept-0": 0, "kept-1": 2, "kept-2": 0, "kept-3": 2}
MOVED = {"moved-0": 1, "moved-1": 1}
"""Where uploads lie: with two members, partition 1 is the second one's."""


def publish_all(world: World) -> None:
    """
    Some uploads in each of three partitions.
    """
    for name, partition in (KEPT | MOVED).items():
        world.publish(name, partition=partition)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_partition_that_moves_in_the_middle_of_an_embedding(world: World, delivery: str) -> None:
    """
    The uploads under way are forgotten by the old owner and answered by the new one, once; the others are not touched.
    """
    tuning = Tuning(delivery="exactly_once" if delivery == "exactly_once" else "at_least_once", batch_size=8)
    publish_all(world)
    old = Worker(world, tuning, name="old")
    gate = old.seams.gate("encode")
    old.step_until(lambda: len(old.seams.passed("fetch")) == 6)
    gate.wait_for_arrival()
    new = Worker(world, tuning, name="new")
    old.step_until(lambda: old.counted("uploads_forgotten_total") == 2)
    new.step_until(lambda: world.committed(1) == 2)
    gate.open()
    old.step_until(world.all_committed)
    for _ in range(5):
        old.loop.step()

    assert each([*KEPT, *MOVED], "judged") == world.ends()
    assert set(KEPT) == set(old.seams.passed("serialise")) == set(old.seams.passed("judge"))
    assert list(MOVED) == new.seams.passed("serialise")
    assert sorted([*KEPT, *MOVED]) == sorted(old.seams.passed("fetch"))


def test_what_was_published_and_not_committed_is_repeated_under_its_ids(world: World) -> None:
    """
    At least once, the next owner answers again what the old one could not commit any more, id by id.
    """
    publish_all(world)
    world.kafka.faults.acknowledgements_held = True
    old = Worker(world)
    old.step_until(world.all_answered)
    new = Worker(world, name="new")
    old.step_until(lambda: len(old.source.member.positions) == 2)
    world.kafka.release_acknowledgements()
    new.step_until(lambda: world.committed(1) == 2)
    old.step_until(world.all_committed)
    ids = [(one.content_id, one.verdict_id) for one in world.verdicts()]

    assert {name: 2 if name in MOVED else 1 for name in KEPT | MOVED} == {
        name: [found for found, _ in ids].count(name) for name in KEPT | MOVED
    }
    assert 6 == len(set(ids))


def test_a_pending_transaction_gives_up_what_was_revoked(world: World) -> None:
    """
    Exactly once, what waits for its transaction when its partition goes is never sent; what stays is sent.
    """
    publish_all(world)
    old = Worker(world, Tuning(delivery="exactly_once", interval_s=3600, max_messages=7), name="old")
    old.step_until(lambda: old.loop._delivery.unsettled == 6)
    new = Worker(world, Tuning(delivery="exactly_once"), name="new")
    old.step_until(lambda: len(old.source.member.positions) == 2)

    assert 4 == old.loop._delivery.unsettled
    new.step_until(lambda: world.committed(1) == 2)
    world.publish("kept-4", "kept-5", "kept-6")  # seven are a full transaction
    old.step_until(world.all_committed)
    assert each([*KEPT, *MOVED, "kept-4", "kept-5", "kept-6"], "judged") == world.ends()


def test_what_is_revoked_in_the_last_moment_of_a_drain_is_not_sent(world: World) -> None:
    """
    Exactly once, the last poll may tell of a revocation: what it took is forgotten before the last transaction.
    """
    publish_all(world)
    old = Worker(world, Tuning(delivery="exactly_once", interval_s=3600), name="old")
    old.step_until(lambda: old.loop._delivery.unsettled == 6)
    new = Worker(world, Tuning(delivery="exactly_once"), name="new")
    report = old.loop._finish()
    new.step_until(lambda: world.committed(1) == 2)

    assert 0 == report.abandoned
    assert each([*KEPT, *MOVED], "judged") == world.ends()
    assert list(MOVED) == new.seams.passed("serialise")


def test_a_partition_that_goes_and_comes_back(world: World) -> None:
    """
    Outcomes of the first time are of forgotten slots and are ignored; the second time is answered, once.
    """
    world.publish(*MOVED, partition=1)
    worker = Worker(world)
    gate = worker.seams.gate("fetch", "moved-0")
    worker.step_until(lambda: "moved-1" in worker.seams.passed("judge"))
    world.kafka.group.expel(worker.source.member)
    worker.step_until(lambda: worker.seams.passed("read_event").count("moved-0") == 2)
    gate.open()
    worker.finish()

    assert list(MOVED) == world.judged()
    assert 2 == worker.counted("uploads_forgotten_total")
    assert 4 == worker.counted("events_consumed_total")


def test_a_late_acknowledgement_of_a_lost_partition_commits_nothing(world: World) -> None:
    """
    The broker acknowledges an outcome after its partition went to somebody else: the offset is no longer ours to move.
    """
    publish_all(world)
    world.kafka.faults.acknowledgements_held = True
    old = Worker(world)
    old.step_until(world.all_answered)
    Worker(world, name="new")
    old.step_until(lambda: len(old.source.member.positions) == 2)
    world.kafka.release_acknowledgements()
    old.step_until(lambda: world.committed(0) == world.committed(2) == 2)
    for _ in range(3):
        old.loop.step()

    assert 0 == world.committed(1)
    assert 0 == old.loop.in_flight


def test_partitions_that_wander_from_worker_to_worker(world: World) -> None:
    """
    However often partitions change hands, exactly once each upload has one verdict, in the order of its partition.
    """
    names = [f"upload-{number}" for number in range(24)]
    for number, name in enumerate(names):
        world.publish(name, partition=number % 3)
    tuning = Tuning(delivery="exactly_once", max_in_flight=4)
    workers = [Worker(world, tuning, name=name) for name in ("one", "two", "three")]
    for turn in range(12):
        workers[turn % 3].loop.step()
        world.kafka.group.rebalance()
        workers[turn // 3 % 3].loop.step()
    while not world.all_answered():
        for worker in workers:
            worker.loop.step()

    assert sorted(names) == sorted(world.judged())
    for partition in range(3):
        assert names[partition::3] == world.judged(partition)
