"""
From references to a judgement: what is learnt, what is left out and told, and what the outcome promises.
"""

import dataclasses

import numpy as np
import pytest

from tests.judgement_worlds import (
    CHEAP,
    KNN,
    LEAN,
    NOISE,
    PERTURBATION,
    TURNED,
    some_references,
)
from worker.errors import ConfigInvalid
from worker.fitting.fit import FitPlan, FitReport, fit_judgement
from worker.fitting.head_rows import Row
from worker.heads.features import References, joined_references
from worker.heads.reference_bank import ExactBank
from worker.judgement.calibration import Isotonic, Platt, sigmoid
from worker.judgement.conformal import TooFewReals
from worker.judgement.fusion import MeanOfLogits, Stacker


@pytest.fixture(scope="module")
def known() -> References:
    """
    Six generators and five sources of reals.
    """
    return some_references()


@pytest.fixture(scope="module")
def fitted(known: References) -> FitReport:
    """
    Their judgement.
    """
    return fit_judgement(known, plan=CHEAP)


def _row(report: FitReport, name: str) -> Row:
    return next(row for row in report.table if row.name == name)


def test_a_row_per_head_and_the_fused(fitted: FitReport) -> None:
    """
    Heads that tell something weigh more than one that does not, and together they tell more than each.
    """
    heads = [row for row in fitted.table if row.name != "fused"]
    fused = _row(fitted, "fused")

    assert ["knn", "lean", "noise", "perturbation", "fused"] == [row.name for row in fitted.table]
    assert 0.35 < _row(fitted, "noise").auroc < 0.65
    assert (_row(fitted, "noise").weight or 0) < 0.5 * (_row(fitted, "lean").weight or 0)
    assert max(row.auroc for row in heads) < fused.auroc
    assert max(row.ap for row in heads) < fused.ap
    assert isinstance(fitted.judgement.fusion, Stacker)


def test_what_was_not_measured_is_left_out_and_told(known: References, fitted: FitReport) -> None:
    """
    No reference has the realism statistics, so no head may need them of an upload.
    """
    bare = fit_judgement(some_references(shift=False), plan=CHEAP)

    assert any("head realism is left out" in note for note in fitted.notes)
    assert ("global", "perturbation") == fitted.judgement.views
    assert ("global",) == bare.judgement.views
    assert {"knn", "lean", "noise"} == {head.name for head in bare.judgement.heads}


def test_same_references_same_judgement(known: References, fitted: FitReport) -> None:
    """
    Down to the id; a changed reference gives another.
    """
    again = fit_judgement(known, plan=CHEAP)
    other = fit_judgement(known.take(range(1, len(known))), plan=CHEAP)

    assert 64 == len(fitted.judgement.id)
    assert again.judgement.id == fitted.judgement.id != other.judgement.id


def test_a_head_that_claims_the_opposite_is_turned(known: References) -> None:
    """
    Directions are learnt: the fused score does not depend on which way a head's source had it.
    """
    right = fit_judgement(known, plan=FitPlan(recipes=(KNN, LEAN)))
    turned = fit_judgement(known, plan=FitPlan(recipes=(KNN, TURNED)))

    assert 1.0 == _row(right, "lean").direction
    assert -1.0 == _row(turned, "lean").direction
    np.testing.assert_allclose(right.fused.full, turned.fused.full, rtol=1e-6)


def test_few_references_are_averaged() -> None:
    """
    Under 500 references, or with too few generators and sources, nothing is weighed.
    """
    few = fit_judgement(some_references(each=20), plan=CHEAP)
    uniform = fit_judgement(some_references(generators=2, sources=2, each=200), plan=CHEAP)

    assert isinstance(few.judgement.fusion, MeanOfLogits)
    assert isinstance(uniform.judgement.fusion, MeanOfLogits)
    assert any("heads are averaged" in note for note in few.notes)


def test_probabilities_are_calibrated_on_unseen_generators(known: References, fitted: FitReport) -> None:
    """
    Where it says 70 %, at even base rate, about 70 % are generated; out of fold, so nothing judged itself.
    """
    probability = sigmoid(fitted.log_odds)
    weight = np.where(known.positive, 1 / known.positive.sum(), 1 / (~known.positive).sum())
    said = [(0.05, 0.4), (0.4, 0.6), (0.6, 0.95)]
    inside = [(probability >= low) & (probability < high) for low, high in said]
    gaps = [
        abs(
            np.average(probability[held], weights=weight[held]) - np.average(known.positive[held], weights=weight[held])
        )
        for held in inside
    ]

    assert isinstance(fitted.judgement.calibration, Platt)
    assert max(gaps) < 0.12
    assert 0.5 == fitted.judgement.base_rate


def test_an_assessment_says_it_all(known: References, fitted: FitReport) -> None:
    """
    Every head with its own evidence, the missing ones by name, and posteriors that sum to 1.
    """
    asked = some_references(seed=5).take([0, 100, 400, 500]).features.without_shift()
    assessments = fitted.judgement.assess(asked, ExactBank(known))

    for one in assessments:
        assert ("perturbation",) == one.missing
        assert ["knn", "lean", "noise"] == [head.name for head in one.heads]
        assert 0 < one.p_value <= 1
        assert "all" == one.bucket
        assert 1.0 == pytest.approx(sum(one.attribution.posterior.values()))
        assert {"real", *(f"mill-{number}" for number in range(6))} == set(one.attribution.posterior)
    assert [] == fitted.judgement.assess(asked.take([]), ExactBank(known))


def test_reals_know_their_source(known: References, fitted: FitReport) -> None:
    """
    A picture is ranked among those of each one, and never likelier to be flagged for it than under the pooled bound.
    """
    asked = some_references(seed=5).features
    each, pooled = (
        fitted.judgement.serving(0.1, None, guarantee).assess(asked, ExactBank(known))
        for guarantee in ("each_source", "pooled")
    )

    assert tuple(name for name, held in zip(known.source, known.positive, strict=True) if not held) == (
        fitted.judgement.reals.source
    )
    assert ({5}, {0}) == ({one.sources for one in each}, {one.sources for one in pooled})
    assert [one.p_value for one in pooled] == [one.bucket_p for one in pooled] == [one.bucket_p for one in each]
    assert all(one.p_value >= other.p_value for one, other in zip(each, pooled, strict=True))
    assert {None} == {one.source for one in pooled}
    assert {f"camera-{number}" for number in range(5)} >= {one.source for one in each} - {None} != set()


def test_a_fit_says_what_it_promises(known: References, fitted: FitReport) -> None:
    """
    Where the bound holds, of how many sources never seen, and how many sources it takes to promise more.
    """
    small = fit_judgement(known, plan=FitPlan(recipes=(LEAN, NOISE), alpha=0.015))
    said, too_small = (" ".join(report.notes) for report in (fitted, small))

    assert "at most alpha in each of 5 calibration sources; of sources never seen, in 5 of 6" in said
    assert "5 sources of reals: with so many, no false-positive rate below 16.7 %" in said
    assert "at most 1.5 % over all calibration reals together; no source of them has enough reals" in too_small
    assert "300 reals of sources that are not named or have fewer than 66 reals are ranked among together" in too_small
    assert "5 sources of reals; 66 are needed for a false-positive rate of 1.5 %" in too_small


def test_companions_change_nothing(known: References, fitted: FitReport) -> None:
    """
    A picture is judged alike alone and in a batch.
    """
    asked = some_references(seed=6).features.take(range(0, 600, 50))
    bank = ExactBank(known)
    together = fitted.judgement.assess(asked, bank)
    alone = [fitted.judgement.assess(asked.take([row]), bank)[0] for row in range(len(asked))]

    np.testing.assert_allclose([one.log_odds for one in together], [one.log_odds for one in alone], atol=1e-5)
    assert [one.bucket for one in together] == [one.bucket for one in alone]


def test_sound_without_the_lazy_head(known: References, fitted: FitReport) -> None:
    """
    A score without the perturbed copies means what one with them means: calibrated, only less sharp.
    """
    full, cheap = fitted.judgement.reals.full, fitted.judgement.reals.cheap
    curve = fitted.judgement.calibration

    assert not np.array_equal(full, cheap)
    assert abs(curve.log_odds(full).mean() - curve.log_odds(cheap).mean()) < 0.5
    assert curve.log_odds(cheap).mean() < 0


def test_false_positives_under_the_grey_zone(known: References, fitted: FitReport) -> None:
    """
    Second looks chosen by the score itself keep the promise: reals went through the very same choice.
    """
    judgement, bank, alpha = fitted.judgement, ExactBank(known), 0.1
    reals = joined_references([_own_kind(seed) for seed in range(20, 24)]).features
    cheap = reals.without_shift()
    doubtful = judgement.in_grey_zone(cheap, bank, 0.3, 0.7)
    cheap.shift[doubtful] = reals.shift[doubtful]
    p = np.array([one.p_value for one in judgement.assess(cheap, bank, grey_zone=(0.3, 0.7))])

    assert 0 < doubtful.sum() < len(doubtful)
    assert (p <= alpha).mean() < alpha + 0.04


def _own_kind(seed: int) -> References:
    """
    More reals of the cameras that the judgement was calibrated on.
    """
    known = some_references()
    reals = known.take([int(row) for row in np.flatnonzero(~known.positive)])
    rng = np.random.default_rng(seed)
    moved = reals.features.unit + rng.normal(scale=0.05, size=reals.features.unit.shape)
    unit = (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)
    shift = reals.features.shift[rng.permutation(len(reals))]
    return dataclasses.replace(reals, features=dataclasses.replace(reals.features, unit=unit, shift=shift))


def test_nobody_is_in_doubt_where_no_second_look_would_help() -> None:
    """
    Without a perturbation head there is nothing to encode again for.
    """
    known = some_references(shift=False)
    judgement = fit_judgement(known, plan=FitPlan(recipes=(KNN, LEAN))).judgement

    assert not judgement.in_grey_zone(known.features, ExactBank(known), 0.0, 1.0).any()


def test_a_calibration_of_its_own(known: References, fitted: FitReport) -> None:
    """
    Other pictures decide what a score means; those that the bank has too are left out and told.
    """
    others = joined_references([some_references(seed=3), known.take([0, 400])])
    separate = fit_judgement(known, calibration=others, plan=CHEAP)

    assert ("separate", "out_of_fold") == (separate.judgement.calibrated_on, fitted.judgement.calibrated_on)
    assert 300 == len(separate.judgement.reals.full)
    assert any("2 calibration pictures are in the bank too" in note for note in separate.notes)
    assert any("approximate" in note for note in fitted.notes)
    assert not any("approximate" in note for note in separate.notes)


def test_a_calibration_of_reals_alone(known: References) -> None:
    """
    It gives the p-values; the probability stays the bank's own.
    """
    others = some_references(seed=3)
    reals = others.take([int(row) for row in np.flatnonzero(~others.positive)])
    separate = fit_judgement(known, calibration=reals, plan=CHEAP)
    own = fit_judgement(known, plan=CHEAP)

    assert separate.judgement.calibration == own.judgement.calibration
    assert "separate" == separate.judgement.calibrated_on
    assert any("the bank's own references the probability" in note for note in separate.notes)


def test_refused_before_any_work(known: References) -> None:
    """
    An alpha that the reals cannot support, and too few of a label.
    """
    with pytest.raises(TooFewReals, match=r"300 reals, .* at least 999"):
        fit_judgement(known, plan=dataclasses.replace(CHEAP, alpha=0.001))
    with pytest.raises(ConfigInvalid, match="at least 8 of each"):
        fit_judgement(known.take(range(355, 365)), plan=CHEAP)
    with pytest.raises(ConfigInvalid, match="no head is called knm"):
        fit_judgement(known, plan=dataclasses.replace(CHEAP, heads=("knm",)))


def test_flag_threshold(fitted: FitReport) -> None:
    """
    Alpha itself, or the rank that holds for this calibration; a bucket is asked for what it has.
    """
    judgement = fitted.judgement

    assert 0.05 == judgement.flag_threshold(0.05, None, "all")
    assert judgement.flag_threshold(0.05, 0.05, "all") < 0.05
    assert 1 / 301 == judgement.smallest_alpha
    with pytest.raises(TooFewReals, match="JPEG/<512 has"):
        judgement.flag_threshold(0.01, None, "JPEG/<512")


def test_many_references_get_a_free_curve() -> None:
    """
    From a thousand of each label on the calibration is isotonic, rising and bounded.
    """
    many = fit_judgement(some_references(each=200, generators=5, sources=5), plan=FitPlan(recipes=(LEAN, NOISE)))
    curve = many.judgement.calibration
    asked = curve.log_odds(np.linspace(-50, 50, 200))

    assert isinstance(curve, Isotonic)
    assert (np.diff(asked) >= 0).all()
    assert np.abs(asked).max() < np.log(1003)


def test_a_head_alone_makes_a_judgement(known: References) -> None:
    """
    Also the lazy one.
    """
    alone = fit_judgement(known, plan=FitPlan(recipes=(PERTURBATION, NOISE), heads=("perturbation",)))
    asked = known.features.take([0, 1]).without_shift()

    assert ("perturbation",) == tuple(head.name for head in alone.judgement.heads)
    assert [("perturbation",)] * 2 == [one.missing for one in alone.judgement.assess(asked, ExactBank(known))]
