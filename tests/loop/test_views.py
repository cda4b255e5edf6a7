"""
Uploads with many views: a sighting is whole before anybody shares it, and the same wherever it comes from.
"""

from dataclasses import replace

import pytest

from schemas.errors import ErrorCode
from tests.loop_rig import Tuning, Worker
from tests.loop_seams import PERTURBED
from tests.loop_world import World, each, eventually
from tests.sightings import same
from worker.domain import Sighting
from worker.errors import UploadFailed
from worker.stages.perturb import COPIES
from worker.views import ViewSpec

CAT = "cat.png"
VIEWS = ViewSpec(native_crops=2, realism=True, perturbation=True)
TUNING = Tuning(views=VIEWS)
NAMES = [f"upload-{number}" for number in range(6)]


def a_worker(world: World, *grey: str, name: str = "one", tuning: Tuning = TUNING) -> Worker:
    """
    A worker whose judge has these pictures in its grey zone.
    """
    worker = Worker(world, tuning, name=name)
    worker.seams.grey = set(grey)
    return worker


def board_follower(world: World, worker: Worker, *, leader: int, follower: int) -> None:
    """
    Publish two uploads of one picture, and step until the second follows the first, which is being decoded.
    """
    world.publish("leader", partition=leader, picture=CAT)
    worker.step_until(lambda: CAT in worker.seams.passed("decode"))
    world.publish("follower", partition=follower, picture=CAT)
    worker.step_until(lambda: sum(map(len, worker.pipeline._flights._flights.values())) == 1)


def statuses(world: World) -> dict[str, str]:
    """
    What each verdict says of the cache.
    """
    return {one.content_id: one.cache.status for one in world.verdicts()}


def test_every_upload_is_judged_by_all_its_views(world: World) -> None:
    """
    Crops and statistics for all, the shift for those in the grey zone alone, and nothing is encoded for the others.
    """
    world.publish(*NAMES)
    grey = {NAMES[1], NAMES[4]}
    worker = a_worker(world, *grey)
    worker.finish()
    judged = worker.seams.judged

    assert each(NAMES, "judged") == world.ends()
    assert grey == {name for name in NAMES if judged[name].shift is not None}
    assert {2} == {len(one.native) for one in judged.values()}
    assert all(one.realism is not None and one.norm > 0 for one in judged.values())
    encoded = worker.seams.passed("encode")
    assert dict.fromkeys(NAMES, 3) == {name: encoded.count(name) for name in NAMES}
    assert {name + PERTURBED: COPIES for name in grey} == {
        name: encoded.count(name) for name in set(encoded) if name.endswith(PERTURBED)
    }
    assert 2 == worker.counted('perturbed_total{result="measured"}')
    assert max(map(len, worker.seams.calls["encode"])) <= TUNING.batch_size


@pytest.mark.parametrize("asked", ["no crops", "nothing"])
def test_a_bank_that_asks_for_less_costs_less(world: World, asked: str) -> None:
    """
    Without perturbation the judge is not asked for a grey zone; without crops the global view alone is encoded.
    """
    views = replace(VIEWS, native_crops=0) if asked == "no crops" else ViewSpec()
    world.publish(*NAMES)
    worker = a_worker(world, tuning=Tuning(views=views))
    worker.finish()

    assert each(NAMES, "judged") == world.ends()
    assert sorted(NAMES) == sorted(worker.seams.passed("encode"))
    assert (asked == "no crops") == bool(worker.seams.calls["wants_shift"])


def test_a_follower_gets_the_whole_sighting(world: World) -> None:
    """
    Also of a leader that was forgotten on the way: the shift is measured before anybody is served.
    """
    worker = a_worker(world, CAT)
    gate = worker.seams.gate("decode", CAT)
    board_follower(world, worker, leader=1, follower=0)
    other = a_worker(world, CAT, name="other")
    worker.step_until(lambda: worker.counted("uploads_forgotten_total") == 1)
    gate.open()
    worker.step_until(lambda: world.judged() == ["follower"])
    other.step_until(world.all_answered)
    sighting = worker.seams.judged["follower"]

    assert sighting.shift is not None
    assert 2 == len(sighting.native)
    assert same(sighting, other.seams.judged["leader"])


def test_recalled_or_shared_a_sighting_is_the_same_bit_for_bit(world: World) -> None:
    """
    Computed, coalesced, kept in the process, and recalled by another worker: all are judged by the same numbers.
    """
    worker = a_worker(world, CAT)
    gate = worker.seams.gate("decode", CAT)
    board_follower(world, worker, leader=0, follower=0)
    gate.open()
    worker.step_until(world.all_answered)
    world.publish("later", picture=CAT)
    worker.finish()
    eventually(lambda: bool(world.kept))
    other = a_worker(world, CAT, name="other")
    world.publish("elsewhere", picture=CAT)
    other.finish()
    judged = worker.seams.judged | other.seams.judged

    assert {"leader": "miss", "follower": "coalesced", "later": "hit", "elsewhere": "hit"} == statuses(world)
    assert all(same(judged["leader"], one) for one in judged.values())
    assert judged["leader"].shift is not None
    assert [] == other.seams.passed("encode")


def test_a_worker_with_another_grey_zone_judges_as_if_the_cache_were_empty(world: World) -> None:
    """
    A shift that is missing is measured after all and kept; one that would not have been measured is not looked at.
    """
    world.publish("narrow", picture=CAT)
    a_worker(world).finish()
    eventually(lambda: bool(world.kept))
    wide = a_worker(world, CAT, name="wide")
    world.publish("wide", picture=CAT)
    wide.finish()
    eventually(lambda: [isinstance(one, Sighting) and one.shift is not None for one in world.kept.values()] == [True])
    for name, grey in (("wide again", [CAT]), ("narrow again", [])):
        last = a_worker(world, *grey, name=name)
        world.publish(name, picture=CAT)
        last.finish()

        assert bool(grey) == (last.seams.judged[name].shift is not None)
        assert same(replace(wide.seams.judged["wide"], shift=None), replace(last.seams.judged[name], shift=None))
    assert {"narrow": "miss", "wide": "miss", "wide again": "hit", "narrow again": "hit"} == statuses(world)


def test_without_memory_for_perturbed_copies_no_upload_is_lost(world: World) -> None:
    """
    The picture is judged without its shift, which is counted, and its companions are as they would be.
    """
    world.publish(*NAMES)
    worker = a_worker(world, *NAMES)
    worker.seams.fail("encode", NAMES[2] + PERTURBED, UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "not one fits"))
    worker.finish()

    assert each(NAMES, "judged") == world.ends()
    assert [NAMES[2]] == [name for name in NAMES if worker.seams.judged[name].shift is None]
    assert 1 == worker.counted('perturbed_total{result="out_of_memory"}')


def test_without_memory_for_a_view_the_micro_batch_fails_and_the_next_goes_on(world: World) -> None:
    """
    As for a picture with one view: those encoded together end with the encoder's code, and no other does.
    """
    world.publish(*NAMES)
    worker = a_worker(world, tuning=replace(TUNING, batch_size=2))
    worker.seams.fail("encode", NAMES[2], UploadFailed(ErrorCode.ENCODE_OUT_OF_MEMORY, "not one fits"), times=1)
    worker.finish()
    ends = world.ends()

    assert ["ENCODE_OUT_OF_MEMORY"] == ends[NAMES[2]]
    assert 1 <= [*ends.values()].count(["ENCODE_OUT_OF_MEMORY"]) <= 2
    assert 4 <= [*ends.values()].count(["judged"])


def test_a_judge_that_cannot_say_what_is_grey_costs_the_shift_alone(world: World) -> None:
    """
    One sighting over which it breaks goes without; the others are asked for again, and no upload fails for it.
    """
    world.publish(*NAMES)
    worker = a_worker(world, *NAMES)
    worker.seams.fail("wants_shift", NAMES[3], KeyError("lost"))
    worker.finish()

    assert each(NAMES, "judged") == world.ends()
    assert [NAMES[3]] == [name for name in NAMES if worker.seams.judged[name].shift is None]
