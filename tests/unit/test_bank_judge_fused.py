"""
The judge with a fitted judgement: what it asks of it, and what the verdicts say.
"""

import math
import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from schemas.errors import ErrorCode
from schemas.verdict import ImageVerdictV1
from tests.bank_builders import GENERATED, REAL
from tests.builders import an_upload, versions
from tests.fake_encoder import FakeEncoder
from tests.fake_outcomes import ManualClock
from tests.loop_rig import shipped_policy, small_bank
from tests.peers import assert_valid
from tests.scripted_judgement import JUDGEMENT_ID, ScriptedJudgement, SilentReferences, an_assessment
from tests.sightings import a_hash, a_sighting
from worker.assessment import Assessment
from worker.domain import Provenance, Sighting
from worker.errors import UploadFailed
from worker.flow.bank_judge import BankJudge
from worker.flow.fitted_bank import FittedBank
from worker.flow.lines import Slot
from worker.flow.travellers import Failed, Known, Passenger
from worker.heads.features import FeatureTable, Mask
from worker.outcomes import VerdictIssued
from worker.stages.assess import flag_thresholds
from worker.telemetry.metrics import InMemoryRecorder

ZONE = shipped_policy().rule.grey_zone


def a_judge(judgement: ScriptedJudgement | None, recorder: InMemoryRecorder | None = None) -> BankJudge:
    """
    A judge over the small bank, under the shipped policy.
    """
    policy, bank = shipped_policy(), small_bank()
    fitted = None
    if judgement is not None:
        thresholds = flag_thresholds(judgement, judgement.reals, policy.rule)
        fitted = FittedBank(judgement, SilentReferences(dim_of_bank()), thresholds, policy.rule.grey_zone)
    run = versions(bank=bank.identity, judgement=None if judgement is None else judgement.id)
    return BankJudge(bank, policy, run, ManualClock(), recorder or InMemoryRecorder(), fitted=fitted)


def dim_of_bank() -> int:
    """
    Dimensions of the small bank's space.
    """
    return FakeEncoder().fingerprint.dim


def sightings(*norms: float) -> list[Sighting]:
    """
    Pictures that can be told apart by the length of their features.
    """
    return [
        replace(a_sighting(a_hash(str(norm)), dim=dim_of_bank()), norm=norm, shift=(0.1, 0.1, 0.1)) for norm in norms
    ]


def known(seen: Sequence[Sighting]) -> list[Known]:
    """
    Uploads whose pictures these are.
    """
    upload = an_upload()
    return [
        Known(Passenger(Slot(upload.raw), upload, a_hash(str(one.norm)), 83_211, 1.0), one, Provenance("miss"))
        for one in seen
    ]


def verdicts(judge: BankJudge, seen: Sequence[Sighting]) -> list[ImageVerdictV1]:
    """
    What the judge issues on them, each valid to a peer.
    """
    issued = [outcome.verdict for outcome in judge.judge(known(seen)) if isinstance(outcome, VerdictIssued)]
    for verdict in issued:
        assert_valid("image.verdict.v1", verdict.model_dump_json(by_alias=True).encode())
    return issued


def by_norm(features: FeatureTable, row: int) -> Assessment:
    """
    Sure of generated above a norm of 10, of real below, and far from everything above 100.
    """
    norm = features.norm[row]
    if norm > 10:
        return an_assessment(log_odds=4.0, p_value=0.005, coverage_p=0.001 if norm > 100 else 0.5)
    return an_assessment(log_odds=-4.0, p_value=0.9)


def test_each_upload_is_judged_by_its_own_assessment() -> None:
    """
    Generated, real and uncertain in one batch; one question to the judgement, with the policy's grey zone.
    """
    judgement, recorder = ScriptedJudgement(by_norm), InMemoryRecorder()
    issued = verdicts(a_judge(judgement, recorder), sightings(20.0, 5.0, 200.0))

    assert ["ai_generated", "real", "uncertain"] == [verdict.outcome.decision for verdict in issued]
    assert [GENERATED, REAL, None] == [verdict.outcome.label for verdict in issued]
    assert [len(features) for features in judgement.asked] == [3]
    assert judgement.zones == [ZONE]
    assert recorder.snapshot()["assess_seconds_count"] == 1
    assert all(verdict.timing.assess_ms is not None for verdict in issued)


def test_a_verdict_says_what_the_judgement_said() -> None:
    """
    Calibration, attribution, heads, missing heads, and whose they are.
    """
    [verdict] = verdicts(a_judge(ScriptedJudgement(by_norm)), sightings(20.0))

    assert verdict.calibration is not None
    assert verdict.attribution is not None
    assert (verdict.calibration.id, verdict.thresholds.calibration_id) == (JUDGEMENT_ID, JUDGEMENT_ID)
    assert (verdict.calibration.p_value, verdict.calibration.flag_threshold) == (0.005, 0.05)
    assert (verdict.attribution.generator, verdict.missing_heads) == ("flux", ("perturbation",))
    assert verdict.outcome.probability == pytest.approx(1 / (1 + math.exp(-4)), rel=1e-5)
    assert [score.name for score in verdict.scores][2:] == ["knn", "probe", "real_only", "style"]
    assert verdict.versions.bank.judgement == JUDGEMENT_ID


def test_a_bank_without_a_judgement_is_judged_by_the_vote() -> None:
    """
    Rule auto: no probability, and the rule is named; nobody is asked for a shift.
    """
    judge = a_judge(None)
    [verdict] = verdicts(judge, sightings(20.0))

    assert verdict.thresholds.rule == "soft_vote"
    assert (verdict.outcome.probability, verdict.calibration, verdict.attribution) == (None, None, None)
    assert verdict.timing.assess_ms is None
    assert verdict.outcome.decision == (verdict.outcome.label or "uncertain")
    assert judge.wants_shift(sightings(1.0, 2.0)) == [False, False]


def test_a_failed_upload_names_the_rule_and_the_judgement_all_the_same() -> None:
    """
    The thresholds are those that would have been applied; there is no decision and no calibration.
    """
    upload = an_upload()
    failed = Failed(Slot(upload.raw), upload, UploadFailed(ErrorCode.FETCH_NOT_FOUND, "gone"))
    outcome = a_judge(ScriptedJudgement()).fail(failed)

    assert isinstance(outcome, VerdictIssued)
    assert (outcome.verdict.thresholds.rule, outcome.verdict.thresholds.calibration_id) == ("fused", JUDGEMENT_ID)
    assert (outcome.verdict.outcome.decision, outcome.verdict.calibration) == (None, None)


def test_the_grey_zone_is_asked_of_features_without_shift() -> None:
    """
    In order, under the policy's zone, and what is known of the shift already does not matter.
    """
    judgement, recorder = ScriptedJudgement(grey=lambda features: features.norm > 10), InMemoryRecorder()
    judge = a_judge(judgement, recorder)

    assert judge.wants_shift(sightings(20.0, 5.0, 30.0)) == [True, False, True]
    assert judgement.zones == [ZONE]
    assert recorder.snapshot()['grey_zone_total{result="within"}'] == 2
    assert recorder.snapshot()['grey_zone_total{result="outside"}'] == 1
    assert judge.wants_shift([]) == []


def test_threads_take_turns_at_the_judgement() -> None:
    """
    The encoder's thread asks for the grey zone while the judge's assesses; the references answer one at a time.
    """
    entered, returned = threading.Event(), threading.Event()
    inside: list[str] = []

    def slow(_features: FeatureTable, _row: int) -> Assessment:
        inside.append("assess begins")
        entered.set()
        # Whoever needs not wait for its turn comes back in this time, and would be seen between the two.
        returned.wait(0.3)
        inside.append("assess ends")
        return an_assessment()

    def quick(features: FeatureTable) -> Mask:
        inside.append("grey zone")
        return features.norm > 10

    judge = a_judge(ScriptedJudgement(slow, quick))
    thread = threading.Thread(target=judge.judge, args=(known(sightings(20.0)),))
    thread.start()
    assert entered.wait(60)
    judge.wants_shift(sightings(20.0))
    returned.set()
    thread.join(60)

    assert inside == ["assess begins", "assess ends", "grey zone"]


def test_the_judgement_is_given_what_was_measured() -> None:
    """
    Embeddings and shifts as the sightings hold them.
    """
    judgement = ScriptedJudgement()
    seen = sightings(20.0, 5.0)
    a_judge(judgement).judge(known(seen))
    [features] = judgement.asked

    assert np.array_equal(features.unit, np.stack([one.embedding.vector for one in seen]))
    assert features.shift.tolist() == [[0.1, 0.1, 0.1]] * 2
