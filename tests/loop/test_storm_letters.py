"""
Which dead letters are a storm: those that say something of us, and none that an uploader can bring about alone.
"""

import pytest

from schemas.errors import UPLOADERS_CHOICE, ErrorCode
from schemas.retry import RetryMarks, with_marks
from tests.fake_outcomes import ManualClock
from tests.loop_rig import OWN_HOST, Tuning, Worker
from tests.loop_world import RETRIES, UPLOADS, World
from worker.domain import Partition
from worker.errors import DeadLetterStorm, UploadFailed
from worker.flow.retrying import Retries
from worker.flow.storm import StormLimits

SHIPPED = StormLimits(consecutive=50, share=0.2, window=200, hold_s=0.02)
AWAY = UploadFailed(ErrorCode.FETCH_HOST_DOWN, "left alone")
REFUSED = UploadFailed(ErrorCode.FETCH_UNAUTHORIZED, "answered 403")


def among(good: int, bad: int, every: int) -> tuple[list[str], list[str]]:
    """
    So many good names with a bad one behind each of the first ``every``, and the bad ones alone.
    """
    spoilt = [f"bad{number}" for number in range(bad)]
    order = []
    for number in range(good):
        order.append(f"good{number}")
        if number % every == 0 and number // every < bad:
            order.append(spoilt[number // every])
    return order, spoilt


def failing(world: World, bad: list[str], fault: UploadFailed, *, tuning: Tuning | None = None) -> Worker:
    """
    A worker that cannot fetch these.
    """
    worker = Worker(world, tuning or Tuning(storm=SHIPPED))
    for one in bad:
        worker.seams.fail("fetch", one, fault)
    return worker


@pytest.mark.parametrize("code", sorted(UPLOADERS_CHOICE))
def test_what_an_uploader_chooses_is_no_storm(world: World, code: ErrorCode) -> None:
    """
    Sixty in a row, or every third upload: each has its letter, and a worker that has judged one before goes on.
    """
    in_a_row = [f"row{number}" for number in range(60)]
    order, bad = among(good=120, bad=60, every=2)
    worker = failing(world, [*in_a_row, *bad], UploadFailed(code, "of their own making"))
    world.publish("first", *in_a_row, *order)
    worker.finish()

    assert 120 == len(world.dead_letters())


@pytest.mark.parametrize("code", [ErrorCode.DECODE_CRASHED, ErrorCode.DECODE_TIMEOUT])
def test_decoders_that_never_worked_are_a_storm(code: ErrorCode) -> None:
    """
    Where nothing was judged since the start, nothing tells bad pictures from a broken decoder: none is published.
    """
    bad = [f"bad{number}" for number in range(60)]
    tuning, clock = Tuning(storm=StormLimits(consecutive=50, share=0.2, window=200, hold_s=60.0)), ManualClock()
    with World(clock=clock) as world:
        worker = failing(world, bad, UploadFailed(code, "the decoder ended"), tuning=tuning)
        world.publish(*bad)
        worker.step_until(lambda: worker.loop.progress().withheld >= tuning.storm.consecutive)
        clock.now_s += tuning.storm.hold_s
        fault = worker.start().fault()

        assert isinstance(fault, DeadLetterStorm)
        assert f"of them {code}" in str(fault)
        assert ([], 0) == (world.dead_letters(), world.committed())


@pytest.mark.parametrize("code", [ErrorCode.DECODE_CRASHED, ErrorCode.FETCH_UPSTREAM])
def test_a_new_worker_looks_behind_what_others_choose(world: World, code: ErrorCode) -> None:
    """
    Sixty bombs, or dead hosts, that it meets first are no storm where a good upload lies behind them.
    """
    bad = [f"bad{number}" for number in range(60)]
    tuning = Tuning(max_in_flight=128, storm=StormLimits(consecutive=50, share=0.2, window=200, hold_s=60.0))
    worker = failing(world, bad, UploadFailed(code, "of their own making"), tuning=tuning)
    for one in bad:
        world.publish(one, host=f"{one}.evil.example")
    world.publish("good")
    worker.finish()

    assert 60 == len(world.dead_letters())


def test_what_an_uploader_chooses_does_not_end_a_run(world: World) -> None:
    """
    An outage is one however many bombs are uploaded meanwhile.
    """
    row = [f"row{number}" for number in range(100)]
    tuning = Tuning(storm=StormLimits(consecutive=50))
    worker = failing(world, row[::2], UploadFailed(ErrorCode.FETCH_UPSTREAM, "the store answered 503"), tuning=tuning)
    for one in row[1::2]:
        worker.seams.fail("fetch", one, UploadFailed(ErrorCode.DECODE_BOMB, "too many pixels"))
    world.publish(*row)

    assert "50 uploads in a row" in str(worker.start().fault())


def test_a_dead_host_does_not_stop_a_worker_that_judges() -> None:
    """
    Nobody has ever had an image from it: of sixty letters behind each other in the last retry topic one counts.
    """
    order, bad = among(good=100, bad=60, every=1)
    with World(retries=True) as world:
        tuning = Tuning(storm=SHIPPED, retries=Retries(delays_s=(0.01, 0.02)))
        worker = failing(world, bad, AWAY, tuning=tuning)
        for name in order:
            world.publish(name, host="dead.example" if name in bad else None)
        worker.finish()

        assert 60 == len(world.dead_letters())


def test_made_up_hosts_do_not_either(world: World) -> None:
    """
    Whoever owns a domain has as many hosts as it has names; the next letter of ours still counts beside theirs.
    """
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, AWAY)
    for name in order:
        world.publish(name, host=f"{name}.evil.example" if name in bad else None)
    worker.finish()

    assert 100 == len(world.dead_letters())


def test_made_up_hosts_in_a_row_are_half_a_storm(world: World) -> None:
    """
    Sixty without a good upload between them do not stop a worker; nor do two dozen of ours among them.
    """
    strange, ours = [f"strange{number}" for number in range(60)], [f"ours{number}" for number in range(20)]
    worker = failing(world, [*strange, *ours], AWAY)
    world.publish("first")
    for one in strange:
        world.publish(one, host=f"{one}.evil.example")
    world.publish(*ours, host=OWN_HOST)
    world.publish("last")
    worker.finish()

    assert 80 == len(world.dead_letters())


def test_an_outage_is_a_storm_beside_made_up_hosts(world: World) -> None:
    """
    Half of the limit is theirs at most, the other half is ours.
    """
    strange, ours = [f"strange{number}" for number in range(60)], [f"ours{number}" for number in range(25)]
    worker = failing(world, [*strange, *ours], AWAY, tuning=Tuning(storm=StormLimits(consecutive=50)))
    world.publish("first")
    for one in strange:
        world.publish(one, host=f"{one}.evil.example")
    world.publish(*ours, host=OWN_HOST)

    assert "50 uploads in a row" in str(worker.start().fault())


def test_a_host_that_has_delivered_once_counts_once(world: World) -> None:
    """
    One image from a host of their own buys an uploader nothing.
    """
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, AWAY)
    for name in order:
        world.publish(name, host="theirs.example" if name in {*bad, "good0"} else None)
    worker.finish()

    assert 100 == len(world.dead_letters())


@pytest.mark.parametrize(("host", "delivered"), [("cdn.example", 60), (OWN_HOST, 0), (None, 0)])
def test_a_host_of_ours_counts_in_full(world: World, host: str | None, delivered: int) -> None:
    """
    One that the operator names, or that has delivered often enough; and what is no web host at all.
    """
    before = [f"before{number}" for number in range(delivered)]
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, AWAY)
    world.publish("first", *before, host=host)
    for name in order:
        world.publish(name, host=host if name in bad else None)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "41 of the last" in str(fault)


def test_refused_credentials_are_a_storm(world: World) -> None:
    """
    A key that was rotated fails every upload of one place; good ones of other places change nothing.
    """
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, REFUSED)
    for name in order:
        world.publish(name, host=OWN_HOST if name in bad else None)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "41 of them FETCH_UNAUTHORIZED" in str(fault)


def test_what_good_credentials_do_not_open_is_no_storm(world: World) -> None:
    """
    Whoever names a forbidden path on a host that lets us in elsewhere does not stop the worker.
    """
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, REFUSED)
    world.publish(*order, host=OWN_HOST)
    worker.finish()

    assert 100 == len(world.dead_letters())


@pytest.mark.parametrize("host", [OWN_HOST, "cdn.example"])
def test_nor_are_missing_images_in_a_row(world: World, host: str) -> None:
    """
    Stores answer 403 for what is not there: sixty names that somebody made up, at a place that lets us in.
    """
    bad = [f"bad{number}" for number in range(60)]
    worker = failing(world, bad, REFUSED)
    world.publish(*(f"good{number}" for number in range(100)), *bad, "later", host=host)
    worker.finish()

    assert 60 == len(world.dead_letters())


def test_nor_are_redirects_to_a_place_that_refuses_us(world: World) -> None:
    """
    Hosts of an uploader's own, each of which leads to one that refuses our credentials for what is not there.
    """
    order, bad = among(good=200, bad=100, every=2)
    worker = failing(world, bad, REFUSED)
    for name in order:
        world.publish(name, host=f"{name}.evil.example" if name in bad else OWN_HOST)
    worker.finish()

    assert 100 == len(world.dead_letters())


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_key_that_is_changed_in_a_running_worker_is_a_storm(world: World, *, elsewhere: bool) -> None:
    """
    A place that let us in and has refused us as often as the limit says counts in full from then on.
    """
    order, bad = among(good=200, bad=150, every=1)
    worker = failing(world, bad, REFUSED)
    world.publish("before", host=OWN_HOST)
    for name in order:
        if name in bad:
            world.publish(name, host=OWN_HOST)
        elif elsewhere:
            world.publish(name)
    fault = worker.start().fault()

    assert isinstance(fault, DeadLetterStorm)
    assert "of them FETCH_UNAUTHORIZED" in str(fault)
    assert len(world.dead_letters()) <= 100


def test_what_was_redriven_is_no_storm() -> None:
    """
    An operator who sends sixty letters again that nobody has mended stops no worker, also by way of the retry topics.
    """
    bad = [f"bad{number}" for number in range(60)]
    with World(retries=True) as world:
        world.publish(*bad)
        failing(world, bad, REFUSED, tuning=Tuning()).finish()
        for at, record in enumerate(world.kafka.records(UPLOADS)):
            marks = RetryMarks(UPLOADS, 0, at, record.timestamp_ms, 0, 1, 1, redriven=True)
            headers = with_marks(record.headers, marks)
            world.kafka.append(Partition(RETRIES[0], 0), record.value, key=record.key, headers=headers)
        tuning = Tuning(storm=SHIPPED, retries=Retries(delays_s=(0.001, 0.002)))
        failing(world, bad, UploadFailed(ErrorCode.FETCH_UPSTREAM, "503"), tuning=tuning).finish()

        assert 120 == len(world.dead_letters())
        assert {True} == {marks.redriven for _, marks, _ in world.put_off()}
