"""
Dead letters that come in a storm: held back, and the worker stops before one of them is published.

Which letters count is in ``test_storm_letters.py``, restarts are in ``test_storm_restarts.py``.
"""

import json
from collections.abc import Sequence

import pytest

from schemas.errors import ErrorCode
from tests.loop_rig import Tuning, Worker
from tests.loop_world import UPLOADS, World, each
from worker.domain import Partition
from worker.errors import EXIT_STORM, DeadLetterStorm, UploadFailed
from worker.flow.storm import StormLimits

LONG_S = 1000.0
IN_A_ROW = StormLimits(consecutive=5, hold_s=LONG_S)
BROKEN = UploadFailed(ErrorCode.FETCH_UPSTREAM, "the store answered 503")
GONE = UploadFailed(ErrorCode.FETCH_NOT_FOUND, "gone")


def names(first: str, count: int) -> list[str]:
    """
    So many names that begin alike.
    """
    return [f"{first}{number}" for number in range(count)]


def spoilt(worker: Worker, spoilt_names: Sequence[str], fault: UploadFailed = BROKEN) -> None:
    """
    Fetching these fails.
    """
    for name in spoilt_names:
        worker.seams.fail("fetch", name, fault)


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_storm_stops_the_worker_before_any_of_it_is_published(world: World, delivery: str) -> None:
    """
    What came before the run is published and committed; of the run nothing is, and the message says all about it.
    """
    good, bad = names("good", 3), names("bad", 7)
    worker = Worker(world, Tuning(delivery=delivery, storm=IN_A_ROW))  # type: ignore[arg-type] # one of the two
    spoilt(worker, bad)
    world.publish(*good, *bad)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert EXIT_STORM == fault.exit_code
    assert each(good, "judged") == world.ends()
    assert [] == world.dead_letters()
    assert 3 == world.committed()
    told = ("5 uploads in a row", "FETCH_UPSTREAM", "uploads-0 offsets 3 to 7", "storm.consecutive")
    assert [] == [words for words in told if words not in str(fault)]


def test_a_good_outcome_releases_what_was_held_back(world: World) -> None:
    """
    Letters below the limit wait for the next good outcome, and are published before it, in order.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    bad, more = names("bad", 4), names("more", 4)
    spoilt(worker, [*bad, *more])
    gate = worker.seams.gate("fetch", "good")
    world.publish(*bad, "good", *more, "better")
    worker.step_until(lambda: worker.loop.progress().withheld == len(bad))
    before = [*world.verdicts(), *world.dead_letters()]
    gate.open()
    worker.finish()

    assert [] == before
    assert [*bad, "good", *more, "better"] == world.judged()
    assert {name: ["FETCH_UPSTREAM"] for name in [*bad, *more]} == world.letters_beside()


def test_a_good_outcome_of_another_partition_releases_it_too(world: World) -> None:
    """
    Letters at the end of a quiet partition do not wait for its own next upload.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    bad = names("bad", 4)
    spoilt(worker, bad)
    world.publish(*bad, partition=1)
    worker.step_until(lambda: worker.loop.progress().withheld == len(bad))
    before = world.dead_letters()
    world.publish("good", partition=2)
    worker.finish()

    assert [] == before
    assert each(bad, "FETCH_UPSTREAM") | each(["good"], "judged") == world.ends()


def test_what_was_held_long_enough_is_published(world: World) -> None:
    """
    A few bad uploads at the end of a quiet topic wait for a moment, and no longer; a drain waits for them.
    """
    worker = Worker(world, Tuning(storm=StormLimits(consecutive=5, hold_s=0.02)))
    spoilt(worker, names("bad", 3))
    world.publish(*names("bad", 3))
    worker.finish()

    assert each(names("bad", 3), "FETCH_UPSTREAM") == world.ends()
    assert 3 == len(world.dead_letters())


def test_a_slow_storm_is_one_too(world: World) -> None:
    """
    Letters that were published one by one still count: the fifth in a row is not published, and the message says so.
    """
    worker = Worker(world, Tuning(storm=StormLimits(consecutive=5, hold_s=0.005)))
    bad = names("bad", 5)
    spoilt(worker, bad)
    for number, name in enumerate(bad[:4], start=1):
        world.publish(name)
        worker.step_until(lambda number=number: len(world.dead_letters()) == number)  # type: ignore[misc] # its default
    world.publish(bad[4])
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert each(bad[:4], "FETCH_UPSTREAM") == world.ends()
    assert "4 of them were published before this" in str(fault)
    assert "to be read again: uploads-0 offsets 4 (1)" in str(fault)


def test_what_nobody_can_mend_is_no_storm(world: World) -> None:
    """
    Missing images end as verdicts alone, however many there are; and they do not end a run of letters either.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    spoilt(worker, names("gone", 20), GONE)
    world.publish(*names("gone", 20))
    worker.step_until(world.all_committed)
    mixed = [name for pair in zip(names("bad", 5), names("lost", 5), strict=True) for name in pair]
    spoilt(worker, names("bad", 5))
    spoilt(worker, names("lost", 5), GONE)
    world.publish(*mixed)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert each(names("gone", 20), "FETCH_NOT_FOUND") == world.ends()
    assert 20 == world.committed()


def test_records_that_are_no_events_are_a_storm_too(world: World) -> None:
    """
    A producer that changed its format stops the worker, before its events are letters.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    for name in names("bad", 6):
        world.publish_raw(name, json.dumps({"nothing": "here"}).encode())
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "EVENT_INVALID" in str(fault)
    assert [] == world.dead_letters()


def test_too_large_a_share_is_a_storm(world: World) -> None:
    """
    Bad uploads among good ones stop the worker once they are more than their share of a window, full or not.
    """
    worker = Worker(world, Tuning(storm=StormLimits(share=0.4, window=10, hold_s=LONG_S)))
    spoilt(worker, names("bad", 12))
    rows = [(f"good{number}", f"bad{number}") for number in range(12)]
    world.publish(*(name for row in rows for name in row))
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "5 of the last 10 outcomes" in str(fault)
    assert "4 of them were published before this" in str(fault)
    assert "storm.share" in str(fault)
    assert 9 == world.committed()


def test_partitions_count_together(world: World) -> None:
    """
    A run is of the whole worker: an outage stops it as soon, over however many partitions its uploads are spread.
    """
    worker = Worker(world, Tuning(storm=StormLimits(consecutive=6, hold_s=LONG_S)))
    for partition in range(3):
        bad = names(f"bad{partition}-", 2)
        spoilt(worker, bad)
        world.publish(*bad, partition=partition)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "6 uploads in a row" in str(fault)
    assert "uploads-0 offsets 0 to 1 (2), uploads-1 offsets 0 to 1 (2), uploads-2 offsets 0 to 1 (2)" in str(fault)
    assert [] == world.dead_letters()


def test_a_worker_that_judges_in_one_partition_is_not_stopped_by_another(world: World) -> None:
    """
    Letters pile up in one partition; with a good outcome in another after each, no number of them is a storm.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    for number in range(12):
        spoilt(worker, [f"bad{number}"])
        world.publish(f"bad{number}", partition=1)
        world.publish(f"good{number}", partition=2)
        worker.step_until(lambda: world.all_answered() and world.all_committed())

    assert 12 == len(world.dead_letters())


def test_back_pressure_holds_meanwhile(world: World) -> None:
    """
    Letters that wait count as in flight: no more is taken than may be under way, and nobody waits for ever.
    """
    worker = Worker(world, Tuning(max_in_flight=3, storm=StormLimits(consecutive=50, hold_s=0.02)))
    bad = names("bad", 9)
    spoilt(worker, bad)
    world.publish(*bad)
    worker.finish()

    assert each(bad, "FETCH_UPSTREAM") == world.ends()
    assert max(worker.source.rooms) <= 3


def test_what_was_held_back_goes_with_its_partition(world: World) -> None:
    """
    Another worker reads what was held back of a partition that was revoked, and counts anew.
    """
    worker = Worker(world, Tuning(storm=IN_A_ROW))
    bad = names("bad", 4)
    spoilt(worker, bad)
    world.publish(*bad, partition=1)
    worker.step_until(lambda: worker.loop.progress().withheld == len(bad))
    other = Worker(world, name="other")
    worker.step_until(lambda: worker.counted("uploads_forgotten_total") == len(bad))
    other.step_until(world.all_answered)

    assert 0 == worker.loop.progress().withheld
    assert each(bad, "judged") == world.ends()
    assert 4 == world.kafka.committed[Partition(UPLOADS, 1)]
