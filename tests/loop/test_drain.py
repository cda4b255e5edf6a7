"""
Drains: what is under way is finished, committed and left; what cannot be finished in time is left to the next worker.
"""

import time

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_seams import PATIENCE_S
from tests.loop_world import World, eventually

NAMES = [f"upload-{number}" for number in range(6)]
DELIVERIES = [Tuning(), Tuning(delivery="exactly_once")]


@pytest.mark.parametrize("tuning", DELIVERIES, ids=lambda tuning: tuning.delivery)
def test_a_drain_finishes_what_is_under_way_and_takes_nothing_new(world: World, tuning: Tuning) -> None:
    """
    Every upload that was taken is answered and committed; what comes after the signal is not touched.
    """
    world.publish(*NAMES)
    worker = Worker(world, tuning)
    gate = worker.seams.gate("fetch", NAMES[0])
    run = worker.start()
    gate.wait_for_arrival()
    eventually(lambda: len(worker.seams.passed("fetch")) == 6)
    run.loop.drain()
    polls = len(worker.source.rooms)
    eventually(lambda: len(worker.source.rooms) >= polls + 2)  # one may have begun before
    world.publish("too late")
    gate.open()
    report = run.report()

    assert (6, 6, 0) == (report.consumed, report.released, report.abandoned)
    assert NAMES == world.judged()
    assert 6 == world.committed()
    assert {0} == set(worker.source.rooms[polls + 1 :])


@pytest.mark.parametrize("tuning", DELIVERIES, ids=lambda tuning: tuning.delivery)
def test_a_drain_with_a_fetch_that_hangs_commits_the_finished_head(world: World, tuning: Tuning) -> None:
    """
    When the time is up, what is finished up to the first that hangs is committed; the rest is the next worker's.
    """
    world.publish(*NAMES)
    worker = Worker(
        world, Tuning(delivery=tuning.delivery, drain_timeout_s=0.25, fetch_threads=6, interval_s=tuning.interval_s)
    )
    gate = worker.seams.gate("fetch", NAMES[2])
    worker.step_until(lambda: len(worker.seams.passed("judge")) == 5 and world.committed() == 2)
    began_s = time.monotonic()
    report = worker.start().drained()
    took_s = time.monotonic() - began_s

    assert (6, 2, 4) == (report.consumed, report.released, report.abandoned)
    assert 2 == world.committed()
    assert NAMES[:2] == world.judged()
    assert 0.2 <= took_s < PATIENCE_S
    worker.source.close()
    gate.open()
    Worker(world, Tuning(delivery=tuning.delivery)).finish()
    assert NAMES == world.judged()


def test_nothing_more_is_fetched_after_the_drain_gave_up(world: World) -> None:
    """
    Uploads that still wait for a thread are not fetched for nobody, while the process waits for its threads to end.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(drain_timeout_s=0.1, fetch_threads=1))
    gate = worker.seams.gate("fetch", NAMES[1])
    worker.step_until(lambda: NAMES[1] in worker.seams.passed("fetch") and world.committed() == 1)
    report = worker.start().drained()
    gate.open()
    worker.pipeline.close(PATIENCE_S)

    assert 5 == report.abandoned
    assert NAMES[:2] == worker.seams.passed("fetch")


def test_nothing_more_is_fetched_after_a_crash(world: World) -> None:
    """
    The same when the run broke.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(fetch_threads=1))
    worker.seams.fail("serialise", NAMES[0], KeyError("lost"))
    gate = worker.seams.gate("fetch", NAMES[1])
    run = worker.start()
    gate.wait_for_arrival()
    assert isinstance(run.fault(), KeyError)
    gate.open()
    worker.pipeline.close(PATIENCE_S)

    assert NAMES[:2] == worker.seams.passed("fetch")


def test_an_idle_worker_leaves_at_once(world: World) -> None:
    """
    With nothing under way there is nothing to wait for.
    """
    began_s = time.monotonic()
    report = Worker(world, Tuning(drain_timeout_s=3600)).start().drained()

    assert (0, 0, 0) == (report.consumed, report.released, report.abandoned)
    assert time.monotonic() - began_s < PATIENCE_S


def test_a_drain_before_the_first_step_takes_nothing(world: World) -> None:
    """
    A signal that came while the model was loading is obeyed.
    """
    world.publish(*NAMES)
    worker = Worker(world)
    worker.loop.drain()
    report = worker.loop.run()

    assert 0 == report.consumed
    assert {0} == set(worker.source.rooms)


def test_a_partition_that_goes_during_the_drain_is_not_waited_for(world: World) -> None:
    """
    What was revoked is somebody else's: the drain ends without it.
    """
    world.publish(*NAMES[:2], partition=1)
    world.publish(*NAMES[2:], partition=0)
    worker = Worker(world)
    gate = worker.seams.gate("fetch", NAMES[0])
    worker.step_until(lambda: world.committed(0) == 4)
    worker.loop.drain()
    Worker(world, name="new")
    report = worker.start().report()

    assert (6, 4, 0) == (report.consumed, report.released, report.abandoned)
    assert 2 == worker.counted("uploads_forgotten_total")
    gate.open()


def test_the_group_keeps_the_worker_while_it_drains(world: World) -> None:
    """
    A drain goes on polling, without room, so that the membership stays alive until the last commit.
    """
    world.publish(*NAMES)
    worker = Worker(world)
    gate = worker.seams.gate("encode")
    worker.step_until(lambda: bool(worker.seams.calls["encode"]))
    worker.loop.drain()
    polls = len(worker.source.rooms)
    for _ in range(10):
        worker.loop.step()

    assert [0] * 10 == worker.source.rooms[polls:]
    gate.open()
    assert 0 == worker.loop.run().abandoned
