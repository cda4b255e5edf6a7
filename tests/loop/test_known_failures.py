"""
Bytes that are no readable image fail once: the next upload of them is not decoded, here or in another worker.
"""

from collections.abc import Callable

import pytest

from schemas.errors import ErrorCode
from tests.fake_outcomes import ManualClock
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, each, eventually
from worker.errors import UploadFailed
from worker.flow.single_flight import FAILURE_KNOWN_S
from worker.flow.unreadable import LASTING

CAT = "cat.png"
TORN = UploadFailed(ErrorCode.DECODE_TRUNCATED, "PNG ends early")


def statuses(world: World) -> dict[str, tuple[str, str | None]]:
    """
    What each verdict says of the cache.
    """
    return {one.content_id: (one.cache.status, one.cache.tier) for one in world.verdicts()}


def judged(world: World, worker: Worker, name: str) -> None:
    """
    One more upload of the same bytes, through to its commit.
    """
    world.publish(name, picture=CAT)
    worker.step_until(lambda: world.all_answered() and world.all_committed())


def kept(world: World, count: int) -> Callable[[], bool]:
    """
    Whether the cache holds so many values.
    """
    return lambda: len(world.kept) == count


@pytest.mark.parametrize("code", sorted(LASTING))
def test_the_next_upload_of_unreadable_bytes_fails_at_once(world: World, code: ErrorCode) -> None:
    """
    With the same code, without being decoded, and the verdict says where that is known from.
    """
    worker = Worker(world)
    worker.seams.fail("decode", CAT, UploadFailed(code, "so it is"), times=1)
    judged(world, worker, "first")
    judged(world, worker, "again")
    worker.finish()

    assert each(("first", "again"), code) == world.ends()
    assert [CAT] == worker.seams.passed("decode")
    assert {"first": ("not_reached", None), "again": ("hit", "process")} == statuses(world)


def test_another_worker_knows_it_too(world: World) -> None:
    """
    Through the shared cache, whoever asks: only that knows how long the failure is still to be held against the bytes.
    """
    first = Worker(world)
    first.seams.fail("decode", CAT, TORN)
    judged(world, first, "first")
    eventually(kept(world, 1))
    first.finish()
    other = Worker(world, name="other")
    judged(world, other, "second")
    judged(world, other, "third")
    other.finish()

    assert each(("first", "second", "third"), "DECODE_TRUNCATED") == world.ends()
    assert [] == other.seams.passed("decode")
    assert {"second": ("hit", "redis"), "third": ("hit", "redis")}.items() <= statuses(world).items()


@pytest.mark.parametrize(
    "code",
    [ErrorCode.DECODE_TIMEOUT, ErrorCode.DECODE_CRASHED, ErrorCode.DECODE_BOMB, ErrorCode.ENCODE_OUT_OF_MEMORY],
)
def test_what_may_go_otherwise_is_tried_anew(world: World, code: ErrorCode) -> None:
    """
    A time-out, a crash, a limit that may be raised and a full device say nothing about the bytes.
    """
    worker = Worker(world)
    worker.seams.fail("decode", CAT, UploadFailed(code, "this time"), times=1)
    judged(world, worker, "first")
    judged(world, worker, "again")
    worker.finish()

    assert {"first": [code], "again": ["judged"]} == world.ends()


def test_after_its_time_it_is_tried_anew() -> None:
    """
    A worker without a cache does not hold it against the bytes for longer than one with a cache.
    """
    clock = ManualClock()
    world = World(clock=clock)
    worker = Worker(world, Tuning(cached=False, batch_size=1))
    worker.seams.fail("decode", CAT, TORN, times=1)
    for name, now_s in (("first", 0.0), ("within", FAILURE_KNOWN_S - 1), ("after", FAILURE_KNOWN_S)):
        clock.now_s = now_s
        judged(world, worker, name)
    worker.finish()

    assert {"first": [TORN.code], "within": [TORN.code], "after": ["judged"]} == world.ends()


def test_what_is_forgotten_is_tried_anew(world: World) -> None:
    """
    Forgetting bytes also forgets that they are no image.
    """
    worker = Worker(world, Tuning(cached=False))
    worker.seams.fail("decode", CAT, TORN, times=1)
    judged(world, worker, "first")
    content_hash = world.verdicts()[0].image
    assert content_hash is not None
    dropped = worker.pipeline.forget([content_hash.sha256])  # type: ignore[list-item] # a verdict's text is the hash
    judged(world, worker, "again")
    worker.finish()

    assert 1 == dropped
    assert {"first": ["DECODE_TRUNCATED"], "again": ["judged"]} == world.ends()


def test_bytes_forgotten_in_flight_are_not_remembered_as_unreadable(world: World) -> None:
    """
    What is forgotten while it is decoded is kept neither here nor in the shared cache.
    """
    worker = Worker(world)
    worker.seams.fail("decode", CAT, TORN, times=1)
    gate = worker.seams.gate("recall", CAT)
    world.publish("first", picture=CAT)
    worker.step_until(lambda: CAT in worker.seams.passed("recall"))
    hashes = [name for name, path in worker.seams.pictures.items() if path == CAT and isinstance(name, str)]
    worker.pipeline.forget(hashes)  # type: ignore[arg-type] # the seams know hashes as text
    gate.open()
    worker.step_until(world.all_committed)
    kept_then = dict(world.kept)
    judged(world, worker, "again")
    worker.finish()

    assert {} == kept_then
    assert {"first": ["DECODE_TRUNCATED"], "again": ["judged"]} == world.ends()


def test_a_cache_that_is_away_costs_a_decoding(world: World) -> None:
    """
    Without the shared cache another worker finds out for itself, and ends the same way.
    """
    for name in ("one", "other"):
        worker = Worker(world, Tuning(cached=False), name=name)
        worker.seams.fail("decode", CAT, TORN)
        judged(world, worker, name)
        worker.finish()

        assert [CAT] == worker.seams.passed("decode")
    assert each(("one", "other"), "DECODE_TRUNCATED") == world.ends()
