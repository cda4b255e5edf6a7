"""
What a kept sighting does not have is not skipped in silence: its verdict names the heads that had to do without.
"""

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.verdict import ImageVerdictV1
from tests.builders import an_upload, versions
from tests.fake_encoder import FakeEncoder
from tests.fake_outcomes import ManualClock
from tests.head_worlds import a_world
from tests.loop_rig import shipped_policy, small_bank
from tests.sightings import SHIFT, a_hash, a_scope, a_sighting
from worker.adapters.sighting_file import SightingFile
from worker.domain import Provenance, Sighting
from worker.fitting.fit import FitPlan, fit_judgement
from worker.flow.bank_judge import BankJudge
from worker.flow.fitted_bank import FittedBank
from worker.flow.lines import Slot
from worker.flow.travellers import Known, Passenger
from worker.heads.reference_bank import ExactBank
from worker.instruments import buckets_of
from worker.outcomes import VerdictIssued
from worker.telemetry.metrics import InMemoryRecorder

DIM = FakeEncoder().fingerprint.dim
CAT = a_hash("cat")
HEADS = ("knn", "global_local", "perturbation", "realism")
SINGLE_SHIFT = tuple(float(np.float32(one)) for one in SHIFT)


@pytest.fixture(scope="module")
def judge() -> BankJudge:
    """
    A judge with one head for each view.
    """
    world = a_world(n=120, dim=DIM)
    judgement = fit_judgement(world, plan=FitPlan(heads=HEADS)).judgement
    zone = shipped_policy().rule.grey_zone
    fitted = FittedBank(judgement, ExactBank(world), dict.fromkeys(buckets_of(judgement), 0.01), zone)
    bank, recorder = small_bank(), InMemoryRecorder()
    run = versions(bank=bank.identity, judgement=judgement.id)
    return BankJudge(bank, shipped_policy(), run, ManualClock(), recorder, fitted=fitted)


def kept_and_recalled(sighting: Sighting, folder: Path) -> Sighting:
    """
    The sighting as a replay gets it.
    """
    scope = a_scope(dim=DIM)
    archive = SightingFile(
        folder / "embeddings.sqlite", scope, recorder=InMemoryRecorder(), clock=ManualClock(), retention_s=None
    )
    with closing(archive):
        archive.keep({CAT: sighting})
        return archive.recall([CAT])[CAT]


def verdict_on(judge: BankJudge, sighting: Sighting) -> ImageVerdictV1:
    """
    What the judge says of it.
    """
    upload = an_upload()
    passenger = Passenger(Slot(upload.raw), upload, CAT, 83_211, None)
    (issued,) = judge.judge([Known(passenger, sighting, Provenance("hit", "archive"))])
    assert isinstance(issued, VerdictIssued)
    return issued.verdict


def test_a_whole_sighting_misses_no_head(judge: BankJudge, tmp_path: Path) -> None:
    """
    With native crops, statistics and shift all heads can say.
    """
    whole = a_sighting(CAT, dim=DIM, shift=SINGLE_SHIFT)

    assert () == verdict_on(judge, kept_and_recalled(whole, tmp_path)).missing_heads


@pytest.mark.parametrize(
    ("lacking", "missing"),
    [
        ({"native": ()}, ("global_local",)),
        ({"shift": None}, ("perturbation",)),
        ({"realism": None}, ("realism",)),
        ({"native": (), "shift": None, "realism": None}, ("perturbation", "global_local", "realism")),
    ],
)
def test_what_was_not_kept_is_named(
    judge: BankJudge, tmp_path: Path, lacking: dict[str, Any], missing: tuple[str, ...]
) -> None:
    """
    The heads that need the native crops, the shift or the statistics are missing, and no other.
    """
    sighting = replace(a_sighting(CAT, dim=DIM, shift=SINGLE_SHIFT), **lacking)
    verdict = verdict_on(judge, kept_and_recalled(sighting, tmp_path))

    assert set(missing) == set(verdict.missing_heads)
    assert ("hit", "archive") == (verdict.cache.status, verdict.cache.tier)
