"""
Order: what leaves a partition leaves in the order in which it came in, whatever finished first.
"""

import random
from functools import partial

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_seams import Seam
from tests.loop_world import VERDICTS, World

SIDE_BY_SIDE = Tuning(fetch_threads=12, decode_threads=12, batch_deadline_s=0.0)
"""Enough threads that all uploads can be stopped at once, and each goes on alone when it is let go."""

NAMES = {f"upload-{number}": number % 3 for number in range(12)}
"""Twelve uploads, and the partition of each."""


def finished_prefix(partition: int, finished: set[str]) -> list[str]:
    """
    What may have left a partition when just these are finished.
    """
    prefix = []
    for name in (name for name, where in NAMES.items() if where == partition):
        if name not in finished:
            break
        prefix.append(name)
    return prefix


def is_judged(worker: Worker, names: set[str]) -> bool:
    """
    Whether all of these have come to the judge.
    """
    return names <= set(worker.seams.passed("judge"))


def have_left(world: World, partition: int, count: int) -> bool:
    """
    Whether at least so many have left a partition.
    """
    return len(world.judged(partition)) >= count


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("seam", ["fetch", "decode"])
def test_uploads_that_finish_in_any_order_leave_in_theirs(world: World, seam: Seam, seed: int) -> None:
    """
    However fetches and decodes overtake each other, after each just the finished head of each partition has left.
    """
    for name, partition in NAMES.items():
        world.publish(name, partition=partition, key=f"key-{partition}")
    worker = Worker(world, SIDE_BY_SIDE)
    gates = {name: worker.seams.gate(seam, name) for name in NAMES}
    worker.step_until(lambda: len(worker.seams.passed(seam)) == len(NAMES))
    order = list(NAMES)
    random.Random(seed).shuffle(order)

    for at, name in enumerate(order, start=1):
        gates[name].open()
        finished = set(order[:at])
        worker.step_until(partial(is_judged, worker, finished))
        for partition in range(3):
            expected = finished_prefix(partition, finished)
            worker.step_until(partial(have_left, world, partition, len(expected)))

            assert expected == world.judged(partition)
            assert world.committed(partition) <= len(expected)
    assert order == worker.seams.passed("judge")
    worker.finish()


def test_order_holds_per_key_from_topic_to_topic(world: World) -> None:
    """
    Each verdict has the key of its upload, and the verdicts of one key stand in the order of its uploads.
    """
    keys = {f"upload-{number}": f"key-{number * 7 % 5}" for number in range(60)}
    for name, key in keys.items():
        world.publish(name, partition=int(key[-1]) % 3, key=key)
    Worker(world, Tuning(fetch_threads=8)).finish()
    published = list(zip([record.key for record in world.kafka.records(VERDICTS)], world.judged(), strict=True))

    assert [(keys[name].encode(), name) for _, name in published] == published
    for key in set(keys.values()):
        expected = [name for name in keys if keys[name] == key]
        assert expected == [name for found, name in published if found == key.encode()]


@pytest.mark.parametrize("kind", ["dead letter", "failed", "hit"])
def test_what_is_known_at_once_waits_for_its_turn_too(world: World, kind: str) -> None:
    """
    A dead letter, a failure or a cache hit is ready long before the upload in front of it, and leaves after it.
    """
    world.publish("seen", partition=1)
    worker = Worker(world, SIDE_BY_SIDE)
    worker.step_until(world.all_answered)
    gate = worker.seams.gate("fetch", "slow")
    world.publish("slow")
    if kind == "dead letter":
        world.publish_raw("quick", b"no json")
    else:
        world.publish("quick", picture="seen" if kind == "hit" else "missing.png")
    settled = {"dead letter": "dead_letter", "failed": "fail", "hit": "judge"}[kind]
    worker.step_until(lambda: "quick" in worker.seams.passed(settled))  # type: ignore[arg-type] # one of the seams
    for _ in range(5):
        worker.loop.step()

    assert world.answered() == {world.positions["seen"]}
    gate.open()
    worker.finish()
    assert set(world.ends()) == {"seen", "slow", "quick"}
    assert worker.seams.passed("serialise")[-2:] == ["slow", "quick"]
