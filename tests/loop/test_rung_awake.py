"""
A loop whose source, flow and outbox ring a bell waits for what happens, and not for a while.
"""

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_seams import PATIENCE_S
from tests.loop_world import MISSING, World
from worker.flow.bell import Bell
from worker.flow.delivery import ExactlyOnce
from worker.flow.loop import IDLE_WAIT_S


def a_rung_worker(world: World, tuning: Tuning | None = None) -> tuple[Worker, Bell]:
    """
    A worker, and the bell that its flow rings.
    """
    bell = Bell()
    return Worker(world, tuning, bell=bell), bell


def silenced(bell: Bell) -> None:
    """
    Hear out what it rang for so far.
    """
    while bell.wait(0.0):
        pass


def test_it_waits_as_long_with_uploads_under_way_as_without(world: World) -> None:
    """
    Nobody looks every few milliseconds whether an outcome is there.
    """
    world.publish("one")
    worker, _ = a_rung_worker(world)
    gate = worker.seams.gate("fetch")
    worker.step_until(lambda: worker.loop.in_flight == 1)
    for _ in range(4):
        worker.loop.step()

    assert [IDLE_WAIT_S] * 4 == worker.source.waits_s[-4:]
    gate.open()
    worker.finish()


@pytest.mark.parametrize("picture", [None, MISSING])
def test_an_outcome_rings(world: World, picture: str | None) -> None:
    """
    Whether judged or failed, it is released with the next step, for which it wakes the loop.
    """
    world.publish("one", picture=picture)
    worker, bell = a_rung_worker(world)
    gate = worker.seams.gate("fetch")
    worker.step_until(lambda: worker.loop.in_flight == 1)
    silenced(bell)
    gate.open()

    assert bell.wait(PATIENCE_S)
    worker.loop.step()
    assert 1 == len(world.verdicts())
    worker.finish()


def test_a_transaction_that_is_due_is_not_waited_beyond(world: World) -> None:
    """
    What only time brings about bounds the wait.
    """
    world.publish("one")
    worker, _ = a_rung_worker(world, Tuning(delivery="exactly_once", interval_s=3600.0))
    delivery = worker.loop._delivery
    assert isinstance(delivery, ExactlyOnce)
    worker.step_until(lambda: delivery.unsettled == 1)
    worker.loop.step()
    delivery._due_s = world.clock.monotonic_s() + 0.03
    worker.loop.step()

    assert IDLE_WAIT_S == worker.source.waits_s[-2]
    assert 0.03 >= worker.source.waits_s[-1]
    worker.finish()


def test_to_drain_rings(world: World) -> None:
    """
    A worker that has nothing to do ends at once when it is told to.
    """
    worker, bell = a_rung_worker(world)
    worker.loop.step()
    silenced(bell)
    worker.loop.drain()

    assert bell.wait(0.0)
    worker.finish()
