"""
Micro-batches: closed by size, by deadline or for want of others, and always one ready when the encoder comes back.

The clock stands still until a test moves it: no deadline passes by chance.
"""

import threading
from collections.abc import Iterator

import pytest

from tests.fake_outcomes import ManualClock
from tests.loop_rig import Tuning, Worker
from tests.loop_world import MISSING, World, eventually

DEADLINE_S = 0.02
FOUR = Tuning(batch_size=4, batch_deadline_s=DEADLINE_S, fetch_threads=4, decode_threads=4)
NAMES = [f"upload-{number}" for number in range(12)]


@pytest.fixture
def clock() -> ManualClock:
    """
    A clock that stands still.
    """
    return ManualClock()


@pytest.fixture
def world(clock: ManualClock) -> Iterator[World]:
    """
    A world that lives by it.
    """
    with World(clock=clock) as world:
        yield world


def waiting(worker: Worker) -> int:
    """
    How many pictures wait for their micro-batch.
    """
    return len(worker.pipeline._to_encode._items)


def test_a_micro_batch_closes_when_it_is_full(world: World) -> None:
    """
    Twelve pictures are three full micro-batches, without any time having passed.
    """
    world.publish(*NAMES)
    worker = Worker(world, FOUR)
    worker.finish()

    assert [4, 4, 4] == worker.encoder.batches
    assert 3 == worker.counted('micro_batches_total{reason="size"}')
    assert {4} == {verdict.timing.batch_size for verdict in world.verdicts()}


def test_a_micro_batch_for_which_nobody_else_comes_closes_at_once(world: World) -> None:
    """
    Three pictures that were read together are encoded together, and do not wait for a fourth that nobody sent.
    """
    world.publish(*NAMES[:3])
    worker = Worker(world, FOUR)
    worker.finish()

    assert [3] == worker.encoder.batches
    assert 1 == worker.counted('micro_batches_total{reason="arrived"}')


def test_who_does_not_reach_the_encoder_is_not_waited_for(world: World) -> None:
    """
    A torn picture, one that is not there, a record that is no event, a twin and one that is known are counted out.
    """
    world.shelf.pictures["torn"] = b"no image at all"
    world.publish(*NAMES[:2])
    world.publish(MISSING, "torn")
    world.publish("twin", picture=NAMES[0])
    world.publish_raw("no-event", b"{")
    worker = Worker(world, FOUR)
    worker.step_until(world.all_answered)
    world.publish("again", picture=NAMES[1])
    worker.finish()

    assert 2 == sum(worker.encoder.batches)
    eventually(lambda: worker.pipeline._coming._count == 0)


def test_a_micro_batch_that_does_not_fill_closes_on_its_deadline(world: World, clock: ManualClock) -> None:
    """
    Three pictures wait for a fourth that is still fetched until their time is up, and are then encoded together.
    """
    world.publish(*NAMES[:4])
    worker = Worker(world, FOUR)
    gate = worker.seams.gate("fetch", NAMES[3])
    worker.step_until(lambda: waiting(worker) == 3)
    clock.now_s = DEADLINE_S * 0.99
    for _ in range(10):
        worker.loop.step()

    assert [] == worker.encoder.batches
    clock.now_s = DEADLINE_S
    eventually(lambda: bool(worker.encoder.batches))
    gate.open()
    worker.finish()
    assert [3, 1] == worker.encoder.batches
    assert 1 == worker.counted('micro_batches_total{reason="deadline"}')


def test_while_the_encoder_is_busy_the_next_micro_batch_fills(world: World) -> None:
    """
    Fetch and decode go on while a micro-batch is encoded, so that the next is full and taken at once: no time passes.
    """
    world.publish(*NAMES)
    worker = Worker(world, FOUR)
    gate = worker.seams.gate("encode")
    worker.step_until(lambda: bool(worker.seams.calls["encode"]))
    worker.step_until(lambda: waiting(worker) == 8)

    assert 12 == len(worker.seams.passed("fetch")) == len(worker.seams.passed("decode"))
    assert 1 == len(worker.seams.calls["encode"])
    gate.open()
    worker.finish()
    assert [4, 4, 4] == worker.encoder.batches


def test_a_deadline_that_passes_while_the_encoder_is_busy_costs_no_time(world: World, clock: ManualClock) -> None:
    """
    Two pictures whose time is up are taken as soon as the encoder is back; those that come while it is busy join them.
    """
    world.publish(*NAMES[:6])
    worker = Worker(world, FOUR)
    gate = worker.seams.gate("encode")
    worker.step_until(lambda: bool(worker.seams.calls["encode"]))
    worker.step_until(lambda: waiting(worker) == 2)
    clock.now_s = DEADLINE_S * 5
    world.publish(NAMES[6])
    worker.step_until(lambda: waiting(worker) == 3)
    gate.open()
    eventually(lambda: len(worker.encoder.batches) == 2)

    assert [4, 3] == worker.encoder.batches
    assert 1 == worker.counted('micro_batches_total{reason="deadline"}')
    worker.finish()


def test_verdicts_leave_while_the_next_micro_batch_is_encoded(world: World) -> None:
    """
    What is judged is published at once: nothing waits for a later micro-batch.
    """
    world.publish(*NAMES[:4])
    worker = Worker(world, FOUR)
    judging, encoding = worker.seams.gate("judge", NAMES[0]), worker.seams.gate("encode", NAMES[4])
    worker.step_until(lambda: NAMES[0] in worker.seams.passed("judge"))
    world.publish(*NAMES[4:8])
    worker.step_until(lambda: NAMES[4] in worker.seams.passed("encode"))

    assert [] == world.judged()
    judging.open()
    worker.step_until(lambda: world.committed() == 4)
    assert NAMES[:4] == world.judged()
    encoding.open()
    worker.finish()
    assert NAMES[:8] == world.judged()


def test_a_closing_pipeline_encodes_what_is_left(world: World) -> None:
    """
    A pipeline that is closed waits for no deadline, and for nobody who is still on the way.
    """
    world.publish(*NAMES[:3])
    worker = Worker(world, FOUR)
    gate = worker.seams.gate("decode", NAMES[2])
    worker.step_until(lambda: waiting(worker) == 2)
    closing = threading.Thread(target=worker.pipeline.close, args=(60.0,))
    closing.start()
    eventually(lambda: worker.encoder.batches == [2])

    assert 1 == worker.counted('micro_batches_total{reason="drain"}')
    gate.open()
    closing.join(60.0)
