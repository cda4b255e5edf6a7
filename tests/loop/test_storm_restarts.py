"""
A worker that is started again and again while something is broken: how much it drains into dead letters.
"""

import pytest

from schemas.errors import ErrorCode
from tests.fake_outcomes import ManualClock
from tests.loop_rig import OWN_HOST, Tuning, Worker
from tests.loop_world import World
from worker.errors import DeadLetterStorm, UploadFailed
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits

DEFAULTS = StormLimits(consecutive=50, share=0.2, window=200, hold_s=60.0)
AWAY = UploadFailed(ErrorCode.FETCH_UPSTREAM, "no connection")
REFUSED = UploadFailed(ErrorCode.FETCH_UNAUTHORIZED, "the store answered 403 ExpiredToken")
STARTS = 5
STRANGER = "a-stranger.example"


def started(
    world: World, name: str, bad: list[str], fault: UploadFailed, *, retries: Retries, waits: ManualClock | None = None
) -> BaseException:
    """
    How a worker ended that was started, and could not fetch these; ``waits`` is a clock on which letters are held.
    """
    worker = Worker(world, Tuning(storm=DEFAULTS, retries=retries), name=name)
    for one in bad:
        worker.seams.fail("fetch", one, fault)
    if waits is not None:
        worker.step_until(lambda: worker.loop.progress().withheld >= DEFAULTS.consecutive)
        waits.now_s += DEFAULTS.hold_s
    ended = worker.start().fault()
    worker.source.close()
    return ended


@pytest.mark.parametrize("host", [None, OWN_HOST])
@pytest.mark.parametrize("fault", [AWAY, REFUSED])
def test_in_a_full_outage_nothing_is_published(world: World, fault: UploadFailed, host: str | None) -> None:
    """
    Whatever the uploads refer to, and over however many partitions they are spread: a new process trusts no host less.
    """
    bad = [f"bad{number}" for number in range(75)]
    for partition in range(3):
        world.publish(*bad[partition::3], partition=partition, host=host)
    for start in range(STARTS):
        ended = started(world, f"start {start}", bad, fault, retries=Retries())

        assert isinstance(ended, DeadLetterStorm)
        assert ([], []) == (world.verdicts(), world.dead_letters())
        assert [0, 0, 0] == [world.committed(partition) for partition in range(3)]


@pytest.mark.parametrize("fault", [AWAY, REFUSED])
def test_in_an_outage_of_strangers_nothing_is_published(fault: UploadFailed) -> None:
    """
    Of hosts that anybody may name it is waited for a good upload that lies behind; there is none, and it is a storm.
    """
    bad, clock = [f"bad{number}" for number in range(75)], ManualClock()
    with World(clock=clock) as world:
        for partition in range(3):
            world.publish(*bad[partition::3], partition=partition, host=STRANGER)
        for start in range(STARTS):
            ended = started(world, f"start {start}", bad, fault, retries=Retries(), waits=clock)

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
