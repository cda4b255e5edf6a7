"""
What a live worker sees is kept for replays, and whatever becomes of the archive, verdicts neither wait nor change.
"""

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256

import pytest

from tests.fake_encoder import FakeEncoder
from tests.fakes_archive import InMemoryArchive
from tests.loop_rig import Tuning, Worker
from tests.loop_seams import Gate
from tests.loop_world import World, each, eventually
from tests.sightings import a_hash, a_sighting, same
from worker.adapters.sighting_codec import SightingScope
from worker.domain import ContentHash, Sighting
from worker.errors import WorkerCrashed
from worker.flow.keeping import KEEP_LIMIT, Keeper
from worker.flow.remembering import Measured
from worker.flow.stage_set import StageSet
from worker.telemetry.metrics import InMemoryRecorder

SCOPE = SightingScope.of(FakeEncoder().fingerprint, perceptual_hash=False)
NAMES = [f"upload-{number}" for number in range(30)]


class SlowArchive(InMemoryArchive):
    """
    An archive that keeps only once ``gate`` is open, and counts how much it was told at once.
    """

    def __init__(self) -> None:
        super().__init__(SCOPE)
        self.gate = Gate()
        self.told: list[int] = []

    def keep(self, sightings: Mapping[ContentHash, Sighting]) -> None:
        """
        As always, after the gate.
        """
        self.told.append(len(sightings))
        self.gate()
        super().keep(sightings)


class Keeping(Worker):
    """
    A live worker that keeps what it sees.
    """

    def __init__(self, world: World, archive: InMemoryArchive, tuning: Tuning | None = None) -> None:
        self.archive = archive
        super().__init__(world, tuning)

    def _surrounded(self, stages: StageSet) -> StageSet:
        return replace(stages, keep=self.archive)


@pytest.fixture
def archive() -> InMemoryArchive:
    """
    Nothing is kept yet.
    """
    return InMemoryArchive(SCOPE)


def hashes(world: World) -> list[ContentHash]:
    """
    The bytes of all pictures on the shelf.
    """
    return [ContentHash(sha256(data).hexdigest()) for data in world.shelf.pictures.values()]


def kept(archive: InMemoryArchive, world: World) -> Mapping[ContentHash, Sighting]:
    """
    What is kept of the pictures on the shelf.
    """
    return archive.recall(hashes(world))


def test_all_that_is_seen_is_kept_when_the_worker_leaves(world: World, archive: InMemoryArchive) -> None:
    """
    After the drain the archive has every picture, each as it was judged, and the archive was never asked.
    """
    world.publish(*NAMES)
    worker = Keeping(world, archive)
    worker.finish()
    worker.pipeline.keep_the_rest(10.0)
    asked = list(archive.asked)
    found = kept(archive, world)

    assert [] == asked
    assert set(hashes(world)) == set(found)
    assert all(same(found[one.facts.sha256], one) for one in worker.seams.judged.values())  # type: ignore[index] # a hash
    assert 30 == worker.counted('archive_writes_total{result="stored"}')


def test_what_another_worker_saw_is_kept_as_well(world: World, archive: InMemoryArchive) -> None:
    """
    A picture that is known from Redis is kept too: its first sighting may have been kept elsewhere, or long ago.
    """
    world.publish("first", picture="cat")
    Worker(world).finish()
    eventually(lambda: bool(world.kept))
    world.publish("second", picture="cat")
    worker = Keeping(world, archive)
    worker.finish()
    worker.pipeline.keep_the_rest(10.0)

    assert "redis" == world.verdicts()[1].cache.tier
    assert set(hashes(world)) == set(kept(archive, world))


def test_a_slow_archive_delays_nobody(world: World) -> None:
    """
    While it keeps the first sighting all verdicts go out; what has waited is written together afterwards.
    """
    archive = SlowArchive()
    world.publish(*NAMES)
    worker = Keeping(world, archive)
    worker.step_until(world.all_committed)
    remembered = len(worker.seams.passed("remember"))
    archive.gate.open()
    worker.finish()
    worker.pipeline.keep_the_rest(10.0)

    assert 30 == remembered
    assert each(NAMES, "judged") == world.ends()
    assert 30 == sum(archive.told) == len(kept(archive, world))
    assert len(archive.told) < 30


def test_an_archive_that_is_down_costs_no_verdict(world: World, archive: InMemoryArchive) -> None:
    """
    What could not be kept is counted; when the archive is back it is used again.
    """
    archive.down = True
    world.publish(*NAMES)
    worker = Keeping(world, archive)
    worker.step_until(world.all_committed)
    eventually(lambda: worker.counted('archive_writes_total{result="error"}') == 30)
    archive.down = False
    world.publish("later")
    worker.finish()
    worker.pipeline.keep_the_rest(10.0)

    assert each([*NAMES, "later"], "judged") == world.ends()
    assert 1 == len(kept(archive, world)) == worker.counted('archive_writes_total{result="stored"}')


def test_what_does_not_fit_is_skipped() -> None:
    """
    While the archive hangs so many wait as may; the rest is counted, and when time is up what waits is counted too.
    """
    archive, recorder = SlowArchive(), InMemoryRecorder()
    keeper = Keeper(archive, recorder, waiting=3)
    keeper.start()
    names = [a_hash(str(number)) for number in range(10)]
    keeper.offer(Measured(names[0], a_sighting(names[0]), 0))
    archive.gate.wait_for_arrival()
    for name in names[1:]:
        keeper.offer(Measured(name, a_sighting(name), 0))
    before = recorder.snapshot()
    keeper.close(0.01)
    after = recorder.snapshot()
    archive.gate.open()

    assert {'archive_writes_total{result="skipped"}': 6} == before
    assert {'archive_writes_total{result="skipped"}': 6 + 3 + 1} == after


def test_sightings_that_wait_are_written_together_and_the_latest_of_each() -> None:
    """
    At most ``KEEP_LIMIT`` at once; of the same bytes waiting twice, the later sighting is kept; the forgotten is not.
    """
    archive, recorder = SlowArchive(), InMemoryRecorder()
    keeper = Keeper(archive, recorder)
    keeper.start()
    cat, dog = a_hash("cat"), a_hash("dog")
    dim = SCOPE.dim
    keeper.offer(Measured(a_hash("first"), a_sighting(a_hash("first"), dim=dim), 0))
    archive.gate.wait_for_arrival()
    for seed in (0, 1):
        keeper.offer(Measured(cat, a_sighting(cat, seed=seed, dim=dim), 0))
    keeper.offer(Measured(dog, a_sighting(dog, dim=dim), 0))
    for number in range(KEEP_LIMIT):
        keeper.offer(Measured(a_hash(str(number)), a_sighting(a_hash(str(number)), dim=dim), 0))
    forgotten = keeper.forget([dog, a_hash("nobody")])
    archive.gate.open()
    keeper.close(60.0)

    assert 1 == forgotten
    assert max(archive.told) <= KEEP_LIMIT
    assert same(archive.recall([cat])[cat], a_sighting(cat, seed=1, dim=dim))
    assert {} == archive.recall([dog])
    assert KEEP_LIMIT + 2 == recorder.snapshot()['archive_writes_total{result="stored"}']


def test_a_keeper_whose_thread_died_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A fault that is no archive's ends the worker, like that of any thread.
    """
    keeper = Keeper(InMemoryArchive(SCOPE), InMemoryRecorder())

    def die() -> Mapping[ContentHash, Sighting]:
        raise MemoryError

    monkeypatch.setattr(keeper, "_next", die)
    keeper.start()
    keeper._crew.join(60.0)

    with pytest.raises(WorkerCrashed, match="keep died"):
        keeper.check()
