"""
The log of a run: one line per released batch, one per failure, one per dead letter, and nothing else of an upload.
"""

import io
from collections import Counter
from typing import Any

import pytest

from tests.loop_rig import Tuning, Worker
from tests.loop_seams import ThreadKilled
from tests.loop_world import MISSING, World, eventually
from tests.recorded_log import lines_of


def lines_named(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    """
    The lines of one kind.
    """
    return [line for line in lines_of(log) if line["event"] == event]


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_one_line_per_batch_failure_and_dead_letter(
    world: World, log: io.StringIO, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    """
    Each batch that is released has its line, each failure and each dead letter has one, and the numbers agree.
    """
    world.shelf.pictures["text"] = b"no picture"
    for number in range(20):
        world.publish(f"good-{number}", partition=number % 3)
    world.publish("text", MISSING)
    world.publish(MISSING, partition=1, picture=MISSING)
    world.publish_raw("bad-0", b"no json")
    world.publish_raw("bad-1", b"no json", partition=2)
    worker = Worker(world, Tuning(delivery="exactly_once" if delivery == "exactly_once" else "at_least_once"))
    accept, accepted = worker.loop._delivery.accept, []

    def watch(releases: list[Any], now_s: float) -> None:
        accepted.append(len(releases))
        accept(releases, now_s)

    monkeypatch.setattr(worker.loop._delivery, "accept", watch)
    worker.finish()
    batches = lines_named(log, "batch.released")
    totals = Counter[str]()
    for line in batches:
        totals.update({key: line[key] for key in ("decided", "abstained", "failed", "dead_letters", "releases")})

    assert accepted == [line["releases"] for line in batches]
    assert (25, 3, 2) == (totals["releases"], totals["failed"], totals["dead_letters"])
    assert 20 == totals["decided"] + totals["abstained"]
    failed = lines_named(log, "upload.failed")
    assert Counter({"FETCH_NOT_FOUND": 2, "FORMAT_UNSUPPORTED": 1}) == Counter(line["code"] for line in failed)
    dead = lines_named(log, "event.dead_lettered")
    assert sorted(world.positions[name] for name in ("bad-0", "bad-1")) == sorted(
        (line["partition"], line["offset"]) for line in dead
    )


def test_an_unforeseen_fault_is_told_with_its_traceback(world: World, log: io.StringIO) -> None:
    """
    Beside the canonical line of the failure there is one for us, which says where it came from.
    """
    world.publish("odd")
    worker = Worker(world)
    worker.seams.fail("decode", "odd", ZeroDivisionError("by nothing"))
    worker.finish()
    (unforeseen,) = lines_named(log, "upload.unexpected_fault")
    (failed,) = lines_named(log, "upload.failed")

    assert ("error", "decode", "ZeroDivisionError") == tuple(unforeseen[key] for key in ("level", "stage", "error"))
    assert "loop_seams.py" in unforeseen["exception"]
    assert ("error", "INTERNAL", "internal") == tuple(failed[key] for key in ("level", "code", "class"))


def test_a_drain_and_a_death_are_told(world: World, log: io.StringIO) -> None:
    """
    The line of a drain says what was under way, that of a crash which thread it was.
    """
    world.publish("odd", "even")
    worker = Worker(world)
    gate = worker.seams.gate("fetch", "odd")
    worker.step_until(lambda: len(worker.seams.passed("judge")) == 1)
    worker.seams.fail("decode", "odd", ThreadKilled())
    worker.loop.drain()
    run = worker.start()
    eventually(lambda: bool(lines_named(log, "worker.draining")))
    gate.open()
    run.fault()
    (drain,) = lines_named(log, "worker.draining")
    (death,) = lines_named(log, "thread.died")

    assert 2 == drain["in_flight"]
    assert ("error", "ThreadKilled") == (death["level"], death["error"])
    assert death["thread"].startswith("decode-")


def test_a_revocation_is_told_with_what_it_cost(world: World, log: io.StringIO) -> None:
    """
    Which partitions went, and how many uploads were forgotten with them.
    """
    world.publish("slow", partition=1)
    worker = Worker(world)
    worker.seams.gate("fetch", "slow")
    worker.step_until(lambda: "slow" in worker.seams.passed("fetch"))
    Worker(world, name="other")
    worker.loop.step()
    (line,) = lines_named(log, "partitions.revoked")

    assert (["uploads-1"], 1) == (line["partitions"], line["forgotten"])


def test_no_upload_has_a_line_of_its_own_while_all_goes_well(world: World, log: io.StringIO) -> None:
    """
    What is written for each upload, good or bad, is no canonical log.
    """
    for number in range(30):
        world.publish(f"good-{number}")
    Worker(world).finish()

    assert {"batch.released", "worker.draining"} >= {line["event"] for line in lines_of(log)}
    assert "good-" not in log.getvalue()
