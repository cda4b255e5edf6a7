"""
How heads become one score: scales, weights, heads that are missing, and the curves that give a score its meaning.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from worker.fitting.calibrate import fit_calibration, fit_platt, fit_scale
from worker.fitting.labelled import Labelled, share_above
from worker.fitting.stack import fit_stacker
from worker.judgement.calibration import Isotonic, logit, prior_shift, sigmoid
from worker.judgement.fusion import CLIP, HeadScale, MeanOfLogits

Grid = NDArray[np.float64]


def _heads(seed: int, n: int = 2000) -> tuple[Grid, NDArray[np.bool_]]:
    """
    Two good heads, a weak one, and one that is noise; standardised.
    """
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.5
    strength = np.array([1.5, 1.0, 0.3, 0.0])
    return rng.normal(size=(n, 4)) + strength * positive[:, None], positive


NAMES = ("a", "b", "c", "perturbation")


def test_stacked_heads_tell_more_than_each() -> None:
    """
    On fresh data; weights follow merit and noise gets next to none.
    """
    grid, positive = _heads(1)
    fresh, label = _heads(2)
    stacker = fit_stacker(grid, Labelled(positive, np.ones(len(grid))), names=NAMES)
    fused = roc_auc_score(label, stacker.fused(fresh, fresh))

    assert fused > max(roc_auc_score(label, fresh[:, head]) for head in range(4)) + 0.02
    assert stacker.weights[0] > stacker.weights[1] > stacker.weights[2] > stacker.weights[3]
    assert min(stacker.weights) >= 0
    assert stacker.weights[3] < 0.05 * stacker.weights[0]


def test_no_weight_falls_below_zero() -> None:
    """
    Also where the data would have it so: a head that points the wrong way is left out, not used against itself.
    """
    grid, positive = _heads(3)
    stacker = fit_stacker(np.where(np.arange(4) == 0, -grid, grid), Labelled(positive, np.ones(len(grid))), names=NAMES)

    assert 0.0 == pytest.approx(stacker.weights[0], abs=1e-6)


def test_a_missing_head_does_not_tip_the_score() -> None:
    """
    Without its best head the score is less sharp, but its mean is about what it was with it.
    """
    grid, positive = _heads(4)
    stacker = fit_stacker(grid, Labelled(positive, np.ones(len(grid))), names=NAMES)
    without = grid.copy()
    without[:, 0] = np.nan
    full, cheap = stacker.fused(grid, grid), stacker.fused(without, without)

    assert abs(full.mean() - cheap.mean()) < 0.5
    assert roc_auc_score(positive, cheap) > 0.75
    assert np.isfinite(cheap).all()


def test_mean_of_what_can_say() -> None:
    """
    A head that cannot say does not count; where none can, nothing is said.
    """
    evidence = np.array([[1.0, 3.0], [np.nan, 3.0], [np.nan, np.nan]])

    assert [2.0, 3.0, 0.0] == MeanOfLogits(2).fused(evidence, evidence).tolist()
    assert (0.5, 0.5) == MeanOfLogits(2).weights


def test_a_scale_is_learnt_from_reals() -> None:
    """
    Mean 0 and deviation 1 over reals, higher for the positive whichever way the head had it, and no more than CLIP.
    """
    rng = np.random.default_rng(5)
    positive = np.arange(600) < 200
    score = 10 - 3 * rng.normal(size=600) - 4.0 * positive
    score[0] = np.nan
    scale = fit_scale("a", score, Labelled(positive, np.ones(600)))
    reals = scale.standardised(score[~positive])

    assert -1.0 == scale.direction
    assert 0.0 == pytest.approx(np.mean(-(score[~positive] - scale.mean)), abs=1e-9)
    assert 1.0 == pytest.approx(reals.std(), abs=0.02)
    assert scale.evidence(scale.standardised(np.array([0.0]))) > 0
    assert [-CLIP, CLIP] == scale.standardised(np.array([1e9, -1e9])).tolist()
    assert np.isnan(scale.standardised(np.array([np.nan])))


def test_a_head_that_never_spoke_says_nothing() -> None:
    """
    Its evidence is 0, not a guess.
    """
    scale = fit_scale("a", np.full(20, np.nan), Labelled(np.arange(20) < 10, np.ones(20)))

    assert HeadScale("a", 0.0, 1.0, 1.0, 0.0, 0.0) == scale


def test_share_above_is_the_weighted_auroc() -> None:
    """
    As scikit-learn has it, ties included.
    """
    rng = np.random.default_rng(6)
    score, positive, weights = rng.integers(0, 6, 300) / 2.0, rng.random(300) < 0.4, rng.random(300)

    assert share_above(score, positive, weights) == pytest.approx(roc_auc_score(positive, score, sample_weight=weights))


def test_platt_against_scikit_learn() -> None:
    """
    With as many rows as here the softened targets hardly matter: slope and intercept of an unpenalised regression.
    """
    rng = np.random.default_rng(7)
    positive = rng.random(20_000) < 0.3
    score, weights = rng.normal(size=20_000) + positive, rng.random(20_000)
    platt = fit_platt(score, positive, weights)
    model = LogisticRegression(C=np.inf).fit(score[:, None], positive, sample_weight=weights)

    assert platt.slope == pytest.approx(model.coef_[0, 0], rel=0.01)
    assert platt.intercept == pytest.approx(model.intercept_[0], rel=0.01)


def test_platt_never_reverses() -> None:
    """
    A score that is worse than chance is given hardly any meaning, keeps its order, and never gets the opposite one.
    """
    rng = np.random.default_rng(8)
    positive = rng.random(500) < 0.5

    assert 0.0 < fit_platt(rng.normal(size=500) - positive, positive, np.ones(500)).slope < 0.002


def test_platt_stays_finite_where_labels_are_parted() -> None:
    """
    The targets are no certainties.
    """
    positive = np.arange(20) < 10
    platt = fit_platt(positive.astype(np.float64), positive, np.ones(20))

    assert 11 / 12 == pytest.approx(sigmoid(platt.log_odds(np.array([1.0])))[0], abs=1e-3)
    assert 1 / 12 == pytest.approx(sigmoid(platt.log_odds(np.array([0.0])))[0], abs=1e-3)


def test_isotonic_against_scikit_learn() -> None:
    """
    With a thousand of each label; between its bounds the same curve.
    """
    rng = np.random.default_rng(9)
    positive = np.arange(4000) < 2000
    score, weights = rng.normal(size=4000) + positive, np.ones(4000)
    curve = fit_calibration(score, positive, weights)
    theirs = IsotonicRegression(out_of_bounds="clip").fit(score, positive).predict(score)
    inside = (theirs > 0.01) & (theirs < 0.99)

    assert isinstance(curve, Isotonic)
    np.testing.assert_allclose(sigmoid(curve.log_odds(score))[inside], theirs[inside], atol=0.01)


@given(st.floats(-50, 50), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_prior_shift_by_bayes(log_odds: float, calibrated: float, deployed: float) -> None:
    """
    The likelihood ratio stays what it was, and shifting back gives the score back.
    """
    shifted = prior_shift(np.array([log_odds]), calibrated=calibrated, deployed=deployed)
    back = prior_shift(shifted, calibrated=deployed, deployed=calibrated)

    assert log_odds - logit(calibrated) == pytest.approx(shifted[0] - logit(deployed), abs=1e-9)
    assert log_odds == pytest.approx(back[0], abs=1e-9)
