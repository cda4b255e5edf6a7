"""
Candidate heads beside the live ones: judged on the same sightings, over the references that were live at the start.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bank_builders import a_source, build_small
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World, eventually
from tests.release_worlds import BY, WatchedPlace
from tests.shadow_rig import InMemoryShadowOutbox
from worker.bank.files import load_bank
from worker.fitting.bank_fit import Release, fit_bank
from worker.fitting.fit import FitPlan
from worker.flow.stage_set import StageSet
from worker.operation.shadowing import around, build_shadow, open_candidate
from worker.settings.operations import ShadowSettings
from worker.telemetry.metrics import InMemoryRecorder

BEFORE = [f"before-{number}" for number in range(8)]
AFTER = [f"after-{number}" for number in range(8)]


@pytest.fixture
def world() -> Iterator[World]:
    """
    Three partitions.
    """
    with World() as found:
        yield found


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WatchedPlace:
    """
    A place whose active release has the head knn, with another of other references, and a candidate for the first.
    """
    found = WatchedPlace(tmp_path, monkeypatch)
    for release, reals in (("first", 24), ("second", 30)):
        bank = tmp_path / f"{release}-plain"
        build_small(a_source(tmp_path / f"{release}-source", reals=reals, fakes=12), bank)
        fitted(bank, tmp_path / release, "knn")
        found.releases.publish(tmp_path / release, release)
    fitted(tmp_path / "first-plain", tmp_path / "candidate", "knn", "real_only")
    found.releases.activate("first", BY)
    return found


def fitted(bank: Path, out: Path, *heads: str) -> None:
    """
    The bank with these heads, released under the folder's name.
    """
    fit_bank(bank, plan=FitPlan(heads=heads), release=Release(out=out, version=out.name))


class JudgedBeside(Worker):
    """
    A worker that follows a place of releases, with a candidate judgement in its shadow.
    """

    def __init__(self, world: World, place: WatchedPlace, judgement: Path) -> None:
        shadow = ShadowSettings(enabled=True, name="other-heads", judgement_path=judgement, sample_rate=1.0)
        settings = place.settings.model_copy(update={"shadow": shadow})
        live = place.open()
        self.shadow_outbox = InMemoryShadowOutbox()
        self.shadow = build_shadow(
            settings, open_candidate(settings, live), self.shadow_outbox, recorder=InMemoryRecorder()
        )
        self.watch = place.watch(live)
        super().__init__(world, Tuning(batch_size=2))
        self.shadow.start()
        world.closing.callback(self.shadow.close, 0.0)

    def _surrounded(self, stages: StageSet) -> StageSet:
        assert self.watch._judge is not None
        return replace(stages, judge=around(self.watch._judge, self.shadow))


def test_candidate_heads_are_asked_beside_the_live_ones(world: World, place: WatchedPlace, tmp_path: Path) -> None:
    """
    Each upload has a live verdict by the live heads and a shadow verdict by the candidate's, whose judgement it names.

    When another release is activated, live verdicts come from it, and the candidate stays with the references that it
    was fitted to.
    """
    worker = JudgedBeside(world, place, tmp_path / "candidate")
    run = worker.start()
    world.publish(*BEFORE)
    eventually(world.all_answered)
    worker.watch.follow(place.releases.activate("second", BY))
    world.publish(*AFTER)
    eventually(world.all_answered)
    run.drained()
    eventually(lambda: len(worker.shadow_outbox.messages) == len(BEFORE + AFTER))
    live = {one.content_id: one for one in world.verdicts()}
    beside = {one.content_id: one for one in worker.shadow_outbox.verdicts()}
    judgements = {one.versions.bank.judgement for one in beside.values()}

    assert {"first"} == {live[name].versions.bank.version for name in BEFORE}
    assert {"second"} == {live[name].versions.bank.version for name in AFTER}
    assert set(BEFORE + AFTER) == set(beside)
    assert {("candidate", 36)} == {(one.versions.bank.version, one.versions.bank.entries) for one in beside.values()}
    assert 1 == len(judgements)
    assert judgements == {one.calibration.id for one in beside.values() if one.calibration is not None}
    assert not judgements & {one.versions.bank.judgement for one in live.values()}
    assert all({"knn", "real_only"} <= {score.name for score in one.scores} for one in beside.values())
    assert not any("real_only" in {score.name for score in one.scores} for one in live.values())
    assert not {one.decision_id for one in live.values()} & {one.decision_id for one in beside.values()}
    assert all(one.image == live[name].image for name, one in beside.items())


def test_what_is_disabled_at_the_start_is_left_out_of_both(world: World, place: WatchedPlace, tmp_path: Path) -> None:
    """
    The candidate's heads ask the same references as the live ones, and its verdicts say that something is left out.
    """
    gone = load_bank(tmp_path / "first").entries.entry(0).id
    place.releases.disable(BY, entries=frozenset({gone}), generators=frozenset())
    worker = JudgedBeside(world, place, tmp_path / "candidate")
    world.publish(*BEFORE)
    worker.finish()
    eventually(lambda: len(worker.shadow_outbox.messages) == len(BEFORE))
    live, beside = world.verdicts(), worker.shadow_outbox.verdicts()
    banks = [{(one.versions.bank.entries, one.versions.bank.index) for one in side} for side in (live, beside)]

    assert banks[0] == banks[1]
    assert [35] == [entries for entries, _ in banks[0]]
    assert all(one.calibration is not None for one in beside)
