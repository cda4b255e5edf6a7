"""
At least once: nothing is committed before it is acknowledged, and what is answered twice has the same id twice.
"""

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_world import World
from worker.errors import PublishFailed

NAMES = [f"upload-{number}" for number in range(6)]


def test_nothing_is_committed_while_an_upload_before_it_is_unfinished(world: World) -> None:
    """
    The head of a partition holds back the commit of everything behind it, and of nothing in other partitions.
    """
    world.publish(*NAMES)
    world.publish("other", partition=1)
    worker = Worker(world, Tuning(fetch_threads=8))
    gate = worker.seams.gate("fetch", NAMES[2])
    worker.step_until(lambda: len(worker.seams.passed("judge")) == 6 and world.committed(1) == 1)
    worker.step_until(lambda: world.committed() == 2)
    for _ in range(5):
        worker.loop.step()

    assert world.committed() == 2
    assert NAMES[:2] == world.judged(0)
    gate.open()
    worker.finish()
    assert world.committed() == 6


def test_nothing_is_committed_while_it_is_unacknowledged(world: World) -> None:
    """
    Published is not yet safe: the commit waits for the broker's word.
    """
    world.publish(*NAMES)
    world.kafka.faults.acknowledgements_held = True
    worker = Worker(world)
    worker.step_until(world.all_answered)
    for _ in range(5):
        worker.loop.step()

    assert world.committed() == 0
    assert worker.loop.in_flight == 6
    world.kafka.release_acknowledgements()
    worker.step_until(lambda: worker.loop.in_flight == 0)
    assert world.committed() == 6


def test_an_outcome_that_is_not_acknowledged_ends_the_run(world: World) -> None:
    """
    The run fails, nothing from that outcome on is committed, and the next worker publishes it and all behind it.
    """
    world.publish(*NAMES[:3])
    worker = Worker(world)
    worker.step_until(world.all_committed)
    world.publish(*NAMES[3:])
    world.kafka.faults.acknowledgements_failed = 1
    fault = worker.start().fault()

    assert isinstance(fault, PublishFailed)
    assert "uploads" in str(fault)
    assert world.committed() == 3
    worker.vanish()
    Worker(world).finish()
    assert NAMES[3:] == world.judged()[-3:]
    assert set(NAMES) == set(world.judged())


def test_a_broker_that_never_answers_a_drain_ends_it(world: World) -> None:
    """
    A drain that cannot get its outcomes acknowledged fails; it does not leave as if all were well.
    """
    world.publish(*NAMES)
    world.kafka.faults.acknowledgements_held = True
    worker = Worker(world, Tuning(drain_timeout_s=0.2))
    worker.step_until(world.all_answered)
    worker.loop.drain()

    with pytest.raises(PublishFailed, match="not acknowledged within"):
        worker.loop.run()
    assert world.committed() == 0


def test_what_a_crash_left_uncommitted_is_answered_again_under_the_same_ids(world: World) -> None:
    """
    A worker dies between publishing and committing: the next one repeats its verdicts, id by id, in the same order.
    """
    world.publish(*NAMES)
    world.kafka.faults.acknowledgements_held = True
    first = Worker(world)
    first.step_until(world.all_answered)
    first.vanish()
    world.kafka.release_acknowledgements()
    before = [(one.content_id, one.verdict_id, one.decision_id) for one in world.verdicts()]

    Worker(world).finish()
    after = [(one.content_id, one.verdict_id, one.decision_id) for one in world.verdicts()]

    assert before + before == after


def test_a_refused_commit_is_made_good(world: World) -> None:
    """
    Offsets that the group refused are committed later, with those that have come since; nothing is published again.
    """
    world.publish(*NAMES)
    world.kafka.faults.commits_refused = 3
    worker = Worker(world)
    worker.finish()

    assert world.committed() == 6
    assert NAMES == world.judged()
    assert world.kafka.faults.commits_refused == 0


def test_commits_are_not_made_for_each_outcome(world: World) -> None:
    """
    Between two commits lies the interval; the drain commits at once what is left.
    """
    worker = Worker(world, Tuning(interval_s=3600))
    world.publish(NAMES[0])
    worker.step_until(world.all_committed)
    world.publish(*NAMES[1:])
    worker.step_until(lambda: world.all_answered() and worker.loop.in_flight == 0)

    assert world.committed() == 1
    worker.loop.drain()
    worker.loop.run()
    assert world.committed() == 6
