"""
A worker that is started again and again while something is broken: how much it drains into dead letters.
"""

import pytest

from schemas.errors import ErrorCode
from tests.loop_rig import OWN_HOST, Tuning, Worker
from tests.loop_world import World
from worker.errors import DeadLetterStorm, UploadFailed
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits

DEFAULTS = StormLimits(consecutive=50, share=0.2, window=200, hold_s=60.0)
AWAY = UploadFailed(ErrorCode.FETCH_UPSTREAM, "no connection")
REFUSED = UploadFailed(ErrorCode.FETCH_UNAUTHORIZED, "the store answered 403 ExpiredToken")
IMPATIENT = StormLimits(consecutive=50, share=0.2, window=200, hold_s=1.5)
STARTS = 5
STRANGER = "a-stranger.example"


def started(
    world: World, name: str, bad: list[str], fault: UploadFailed, *, retries: Retries, limits: StormLimits = DEFAULTS
) -> BaseException:
    """
    How a worker ended that was started, and could not fetch these.
    """
    worker = Worker(world, Tuning(storm=limits, retries=retries), name=name)
    for one in bad:
        worker.seams.fail("fetch", one, fault)
    ended = worker.start().fault()
    worker.source.close()
    return ended


@pytest.mark.parametrize("host", [None, OWN_HOST, STRANGER])
@pytest.mark.parametrize("fault", [AWAY, REFUSED])
def test_in_a_full_outage_nothing_is_published(world: World, fault: UploadFailed, host: str | None) -> None:
    """
    Whatever the uploads refer to, and over however many partitions they are spread: a new process trusts no host less.
    """
    bad = [f"bad{number}" for number in range(75)]
    for partition in range(3):
        world.publish(*bad[partition::3], partition=partition, host=host)
    limits = IMPATIENT if host == STRANGER else DEFAULTS
    for start in range(STARTS):
        ended = started(world, f"start {start}", bad, fault, retries=Retries(), limits=limits)

        assert isinstance(ended, DeadLetterStorm)
        assert ([], []) == (world.verdicts(), world.dead_letters())
        assert [0, 0, 0] == [world.committed(partition) for partition in range(3)]


def test_what_is_put_off_in_an_outage_ends_no_run() -> None:
    """
    Neither the uploads that go to a retry topic nor those that come back from it are good outcomes.
    """
    bad = [f"bad{number}" for number in range(60)]
    with World(retries=True) as world:
        world.publish(*bad)
        for start in range(2):
            ended = started(world, f"start {start}", bad, AWAY, retries=Retries(delays_s=(0.001, 0.002)))

            assert isinstance(ended, DeadLetterStorm)
            assert "41 of the last 41 outcomes" in str(ended)
            assert ([], []) == (world.verdicts(), world.dead_letters())


def test_in_half_an_outage_each_start_publishes_no_more_than_the_share(world: World) -> None:
    """
    Where every other upload fails a restart lets through 40 letters of 200 outcomes at most, and says how many.
    """
    bad = [f"bad{number}" for number in range(300)]
    world.publish(*(name for number in range(300) for name in (f"good{number}", bad[number])))
    letters = []
    for start in range(STARTS):
        ended = started(world, f"start {start}", bad, AWAY, retries=Retries())
        letters.append(len(world.dead_letters()))

        assert isinstance(ended, DeadLetterStorm)
        assert "41 of the last 8" in str(ended)
        assert "40 of them were published before this" in str(ended)

    assert [40, 80, 120, 160, 200] == letters
