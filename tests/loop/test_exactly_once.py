"""
Exactly once: outcomes and offsets become visible together or not at all.
"""

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_world import VERDICTS, World
from worker.domain import Partition
from worker.errors import ProducerFenced

NAMES = [f"upload-{number}" for number in range(6)]
EXACTLY_ONCE = Tuning(delivery="exactly_once")


def test_a_refused_transaction_is_invisible_and_sent_again(world: World) -> None:
    """
    What an aborted transaction left in the log is hidden from a read_committed reader, who sees each verdict once.
    """
    world.publish(*NAMES)
    world.kafka.faults.transactions_refused = 2
    worker = Worker(world, EXACTLY_ONCE)
    worker.finish()
    log = world.kafka.logs[Partition(VERDICTS, 0)]

    assert NAMES == world.judged()
    assert any(record.aborted for record in log)
    assert len(NAMES) == sum(not record.aborted for record in log)


def test_offsets_and_outcomes_arrive_together(world: World) -> None:
    """
    While a transaction is not yet due, neither its outcomes nor its offsets are there.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(delivery="exactly_once", interval_s=3600, max_messages=6))
    gate = worker.seams.gate("fetch", NAMES[5])
    worker.step_until(lambda: len(worker.seams.passed("serialise")) == 5)
    for _ in range(3):
        worker.loop.step()

    assert (set(), 0) == (world.answered(), world.committed())
    gate.open()
    worker.step_until(world.all_answered)  # six are a full transaction
    assert world.committed() == 6


def test_a_large_batch_is_cut_into_transactions(world: World) -> None:
    """
    None holds more than it may, and each commits just as far as its own outcomes go.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(delivery="exactly_once", max_messages=4))
    gate = worker.seams.gate("fetch", NAMES[0])
    worker.step_until(lambda: len(worker.seams.passed("judge")) == 5)
    gate.open()
    seen = {(0, 0)}
    while not world.all_committed():
        worker.loop.step()
        seen.add((len(world.answered()), world.committed()))

    assert {(0, 0), (4, 4), (6, 6)} == seen


def test_a_fenced_worker_ends_and_its_successor_goes_on(world: World) -> None:
    """
    Somebody else has its transactional id: the run ends, nothing of it becomes visible, and nothing is answered twice.
    """
    world.publish(*NAMES)
    worker = Worker(world, EXACTLY_ONCE, name="same")
    gate = worker.seams.gate("fetch", NAMES[0])
    run = worker.start()
    gate.wait_for_arrival()
    successor = Worker(world, EXACTLY_ONCE, name="same")
    gate.open()
    fault = run.fault()

    assert isinstance(fault, ProducerFenced)
    assert (set(), 0) == (world.answered(), world.committed())
    worker.vanish()
    successor.finish()
    assert NAMES == world.judged()


def test_a_worker_that_was_expelled_publishes_nothing_of_what_it_lost(world: World) -> None:
    """
    Its transaction comes too late for its generation: it is aborted, and the uploads are the next owner's.
    """
    world.publish(*NAMES)
    late = Worker(world, Tuning(delivery="exactly_once", interval_s=3600), name="late")
    late.step_until(lambda: late.loop._delivery.unsettled == 6)
    stale = late.source.poll(room=0, wait_s=0).membership
    world.kafka.group.expel(late.source.member)
    late.loop._delivery.finish(0.0, stale, 1.0)

    assert (set(), 0) == (world.answered(), world.committed())
    assert any(record.aborted for record in world.kafka.logs[Partition(VERDICTS, 0)])
    Worker(world, EXACTLY_ONCE, name="next").finish()
    assert NAMES == world.judged()


def test_a_worker_that_was_expelled_and_comes_back_begins_anew(world: World) -> None:
    """
    At its next poll it learns what it lost, drops what was pending of it, and reads it again if it is its own again.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(delivery="exactly_once", interval_s=3600, max_messages=7))
    worker.step_until(lambda: worker.loop._delivery.unsettled == 6)
    world.kafka.group.expel(worker.source.member)
    world.publish("upload-6")
    worker.step_until(world.all_answered)  # seven are a full transaction, if none is counted twice

    assert [*NAMES, "upload-6"] == world.judged()
    assert worker.seams.passed("serialise")[:6] == NAMES == worker.seams.passed("serialise")[6:12]


def test_a_drain_that_the_group_refuses_to_the_end_tells_what_it_left(world: World) -> None:
    """
    What could not be committed is reported as abandoned, is not visible, and is answered by the next worker.
    """
    world.publish(*NAMES)
    world.kafka.faults.transactions_refused = 10_000
    worker = Worker(world, Tuning(delivery="exactly_once", drain_timeout_s=0.1))
    worker.step_until(lambda: len(worker.seams.passed("serialise")) == 6)
    worker.loop.drain()
    report = worker.loop.run()
    worker.source.close()

    assert (6, set(), 0) == (report.abandoned, world.answered(), world.committed())
    world.kafka.faults.transactions_refused = 0
    Worker(world, EXACTLY_ONCE).finish()
    assert NAMES == world.judged()


@pytest.mark.parametrize("refused", [0, 3])
def test_a_drain_commits_what_is_pending(world: World, refused: int) -> None:
    """
    The last transaction does not wait for its interval, and is tried again when the group is rebalancing.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(delivery="exactly_once", interval_s=0.05))
    world.kafka.faults.transactions_refused = refused
    worker.step_until(lambda: len(worker.seams.passed("serialise")) == 6)
    worker.loop.drain()
    report = worker.loop.run()

    assert (0, 6) == (report.abandoned, world.committed())
    assert NAMES == world.judged()
