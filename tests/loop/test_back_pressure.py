"""
Back-pressure: no more is taken than there is room for, and without room the source is polled all the same.
"""

from functools import partial

from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, each, eventually
from worker.flow.loop import BUSY_WAIT_S, IDLE_WAIT_S, LONGEST_BUSY_WAIT_S

NAMES = [f"upload-{number}" for number in range(12)]


def has_in_flight(worker: Worker, count: int) -> bool:
    """
    Whether just so many uploads are under way.
    """
    return worker.loop.in_flight == count


def test_no_more_is_taken_than_may_be_in_flight(world: World) -> None:
    """
    While nothing finishes, what is under way stays at the limit, and each poll says that there is no room.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(max_in_flight=5, fetch_threads=2))
    gate = worker.seams.gate("fetch")
    worker.step_until(lambda: worker.loop.in_flight == 5)
    polls = len(worker.source.rooms)
    for _ in range(6):
        worker.loop.step()

    assert 5 == worker.loop.in_flight
    assert [0] * 6 == worker.source.rooms[polls:]
    assert 1 == worker.counted("pauses_total")
    gate.open()
    assert 12 == worker.finish().consumed
    assert max(worker.source.rooms) == 5


def test_more_is_taken_only_below_the_threshold(world: World) -> None:
    """
    Once full, the worker takes nothing until it is half empty, and then as much as fits.

    So partitions are not paused and resumed for every single upload.
    """
    world.publish(*NAMES)
    worker = Worker(world, Tuning(max_in_flight=8, resume_below=0.5, fetch_threads=12))
    gates = {name: worker.seams.gate("fetch", name) for name in NAMES}
    worker.step_until(lambda: len(worker.seams.passed("fetch")) == 8)
    rooms: dict[int, set[int]] = {}

    for left in (7, 6, 5):
        gates[NAMES[7 - left]].open()
        worker.step_until(partial(has_in_flight, worker, left))
        worker.loop.step()
        rooms[left] = {worker.source.rooms[-1]}
    gates[NAMES[3]].open()
    worker.step_until(lambda: worker.source.rooms[-1] > 0)

    assert {7: {0}, 6: {0}, 5: {0}} == rooms
    assert 4 == worker.source.rooms[-1]
    assert 1 == worker.counted("pauses_total")
    for gate in gates.values():
        gate.open()
    worker.finish()


def test_polls_are_short_while_something_is_under_way(world: World) -> None:
    """
    An outcome that is ready waits for the end of a poll: only a worker with nothing to do waits long for events.

    While nothing happens the polls grow longer, to an end; what happens makes them short again.
    """
    world.publish(NAMES[0])
    worker = Worker(world)
    gate = worker.seams.gate("fetch")
    polls = 5
    worker.step_until(lambda: worker.loop.in_flight == 1)
    for _ in range(polls):
        worker.loop.step()
    busy_s = worker.source.waits_s[-polls:]
    world.publish(NAMES[1])
    worker.step_until(lambda: worker.loop.in_flight == 2)
    worker.loop.step()
    again_s = worker.source.waits_s[-1]
    gate.open()
    worker.step_until(lambda: worker.loop.in_flight == 0)
    worker.loop.step()

    assert [BUSY_WAIT_S, 2 * BUSY_WAIT_S, LONGEST_BUSY_WAIT_S, LONGEST_BUSY_WAIT_S] == busy_s[:4]
    assert BUSY_WAIT_S == again_s
    assert IDLE_WAIT_S == worker.source.waits_s[-1]


def test_an_outcome_without_its_acknowledgement_takes_room(world: World) -> None:
    """
    What is published and not acknowledged is still under way: a broker that stalls stops the intake.
    """
    world.publish(*NAMES)
    world.kafka.faults.acknowledgements_held = True
    worker = Worker(world, Tuning(max_in_flight=5))
    worker.step_until(lambda: len(world.answered()) == 5)
    for _ in range(5):
        worker.loop.step()

    assert 5 == worker.loop.in_flight == len(world.answered())
    world.kafka.release_acknowledgements()
    worker.finish()


def test_a_pending_transaction_takes_room(world: World) -> None:
    """
    In exactly-once mode the same holds for what waits for its transaction.
    """
    world.publish(*NAMES)
    world.kafka.faults.transactions_refused = 1_000_000
    worker = Worker(world, Tuning(delivery="exactly_once", max_in_flight=5))
    worker.step_until(lambda: worker.loop._delivery.unsettled == 5)
    for _ in range(5):
        worker.loop.step()

    assert 5 == worker.loop.in_flight == len(worker.seams.passed("serialise"))
    world.kafka.faults.transactions_refused = 0
    worker.finish()


def test_no_more_bytes_are_held_than_may_be(world: World) -> None:
    """
    With the budget full nothing is polled and nothing more is fetched, but for what the fetch threads have in hand.
    """
    world.publish(*NAMES)
    one = len(world.shelf.pictures[NAMES[0]])
    worker = Worker(world, Tuning(max_bytes=one, fetch_threads=2))
    gate = worker.seams.gate("decode")
    worker.step_until(lambda: not worker.pipeline.has_room)
    gate.wait_for_arrival()
    polls = len(worker.source.rooms)
    world.publish("one more", "and one")
    for _ in range(6):
        worker.loop.step()

    assert [0] * 6 == worker.source.rooms[polls:]
    assert len(worker.seams.passed("fetch")) <= 1 + 2
    assert 1 == worker.counted("pauses_total")
    gate.open()
    report = worker.finish()
    assert 14 == report.consumed == report.released
    assert 0 == worker.pipeline._budget._held


def test_bytes_are_given_back_whatever_becomes_of_the_upload(world: World) -> None:
    """
    Decoded, undecodable, twin in flight, cache hit or forgotten: the budget is empty when nothing is under way.
    """
    world.shelf.pictures["text"] = b"no picture"
    world.publish("seen")
    Worker(world).finish()
    eventually(lambda: bool(world.kept))
    worker = Worker(world, Tuning(fetch_threads=12))
    gate = worker.seams.gate("decode")
    world.publish("again", picture="seen")
    world.publish("text", "twin-0")
    world.publish("twin-1", "twin-2", picture="twin-0")
    world.publish("elsewhere", partition=1)
    worker.step_until(lambda: len(worker.seams.passed("fetch")) == 6)
    other = Worker(world, name="other")
    worker.step_until(lambda: worker.counted("uploads_forgotten_total") == 1)
    gate.open()
    worker.step_until(lambda: world.committed() == 6)
    other.step_until(world.all_answered)

    eventually(lambda: worker.pipeline._budget._held == 0)
    assert (
        each(["seen", "again", "twin-0", "twin-1", "twin-2", "elsewhere"], "judged") | {"text": ["FORMAT_UNSUPPORTED"]}
        == world.ends()
    )
