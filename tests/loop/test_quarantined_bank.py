"""
A reference that is put on the bank's list while a worker is away is no neighbour of any verdict of the next one.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.verdict import ImageVerdictV1
from tests.bank_builders import a_source, build_small
from tests.conftest import ROOT
from tests.fake_encoder import FakeEncoder
from tests.loop_rig import Tuning, Worker
from tests.loop_world import World
from worker.adapters.system_clock import SystemClock
from worker.bank.files import load_bank
from worker.bank.leaving_out import Without
from worker.bank.quarantine import Quarantine, write_quarantine
from worker.bank.releases import Issuer
from worker.flow.bank_judge import BankJudge
from worker.flow.stage_set import StageSet
from worker.instruments import open_instruments
from worker.settings.tree import Settings
from worker.telemetry.metrics import InMemoryRecorder


@pytest.fixture
def world() -> Iterator[World]:
    """
    Three partitions.
    """
    with World() as found:
        yield found


def neighbours_of(verdict: ImageVerdictV1) -> set[str]:
    """
    The references that a verdict rests on, by id.
    """
    assert verdict.evidence is not None
    return {one.entry_id for one in verdict.evidence.neighbours}


class ListedWorker(Worker):
    """
    A worker with the bank that a start with these settings opens.
    """

    def __init__(self, world: World, settings: Settings) -> None:
        live, recorder = open_instruments(settings, InMemoryRecorder()), InMemoryRecorder()
        self.judge = BankJudge(live.bank, live.policy, live.versions("live"), SystemClock(), recorder)
        super().__init__(world, Tuning(batch_size=2))

    def _surrounded(self, stages: StageSet) -> StageSet:
        return replace(stages, judge=self.judge)


def test_a_quarantined_neighbour_is_in_no_verdict(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    The very picture of it is uploaded three times: before, with it on the list, and after it was taken off again.

    The verdicts name another bank in between, and the same one again at the end.
    """
    monkeypatch.setattr("worker.instruments.load_encoder", lambda *_args, **_kwargs: FakeEncoder())
    source, listed = a_source(tmp_path / "source"), tmp_path / "list.json"
    build_small(source, tmp_path / "bank")
    picture = (source / "real" / "000.png").read_bytes()
    world.shelf.pictures["known"] = picture
    sha256 = hashlib.sha256(picture).hexdigest()
    [entry] = [one for one in load_bank(tmp_path / "bank").entries if one.sha256 == sha256]
    settings = Settings.model_validate(
        {
            "bank": {"path": str(tmp_path / "bank"), "quarantine_path": str(listed)},
            "policy": {"path": str(ROOT / "config" / "policy.toml")},
            "decode": {"credentials": False},
        }
    )
    gone, by = Without(entries=frozenset({entry.id})), Issuer("ann", "stolen")
    empty = Quarantine(bank="small")
    full = empty.with_more(gone, by)
    for name, quarantine in (("before", empty), ("between", full), ("after", full.with_less(gone))):
        write_quarantine(listed, quarantine)
        world.publish(name, picture="known")
        ListedWorker(world, settings).finish()
    before, between, after = world.verdicts()

    assert [entry.id in neighbours_of(one) for one in (before, between, after)] == [True, False, True]
    assert (before.versions.bank, between.versions.bank.entries) == (after.versions.bank, 9)
    assert between.versions.bank.index == f"flat without {hashlib.sha256(entry.id.encode()).hexdigest()[:16]}"
    assert len({one.decision_id for one in (before, between, after)}) == 3
