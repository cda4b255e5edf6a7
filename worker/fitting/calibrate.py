"""
Fitting calibrations: Platt's sigmoid, the isotonic curve, and the scale on which a head speaks.
"""

from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from worker.fitting.labelled import Labelled
from worker.heads.features import Column, Mask
from worker.judgement.calibration import Calibration, Isotonic, Platt
from worker.judgement.fusion import CLIP, HeadScale

MIN_ISOTONIC: Final = 1000
"""References of each label from which on the curve may take any rising form."""

LEAST_DEVIATION: Final = 1e-9

LEAST_SLOPE: Final = 1e-3
"""
Of Platt's sigmoid, per standard deviation of the score: scores that are worth nothing give odds near even, not a
constant, so that their order is not lost.
"""


def fit_platt(score: Column, positive: Mask, weights: Column) -> Platt:
    """
    Weighted Platt scaling with targets (N+ + 1) / (N+ + 2) and 1 / (N- + 2); the slope is at least ``LEAST_SLOPE``.

    ``score`` float64[n] finite, ``weights`` float64[n]. Source: Platt 1999; Lin, Lin and Weng 2007.
    """
    centre, spread = float(score.mean()), max(float(score.std()), LEAST_DEVIATION)
    z = (score - centre) / spread
    held, other = float(weights[positive].sum()), float(weights[~positive].sum())
    target = np.where(positive, (held + 1) / (held + 2), 1 / (other + 2))
    total = weights.sum()

    def loss(p: Column) -> tuple[float, Column]:
        odds = p[0] * z + p[1]
        value = float((weights * (np.logaddexp(0, odds) - target * odds)).sum() / total)
        slope = weights * (expit(odds) - target) / total
        return value, np.array([(slope * z).sum(), slope.sum()])

    found = minimize(
        loss, np.array([LEAST_SLOPE, 0.0]), jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)]
    ).x
    slope = float(found[0]) / spread
    return Platt(slope, float(found[1]) - slope * centre)


def fit_calibration(score: Column, positive: Mask, weights: Column) -> Calibration:
    """
    Isotonic with ``MIN_ISOTONIC`` of each label, else Platt.
    """
    if min(positive.sum(), (~positive).sum()) < MIN_ISOTONIC:
        return fit_platt(score, positive, weights)
    held, other = float(weights[positive].sum()), float(weights[~positive].sum())
    # Platt's targets as bounds: no run of one label, however long, is certainty.
    curve = IsotonicRegression(y_min=1 / (other + 2), y_max=(held + 1) / (held + 2))
    curve.fit(score, positive.astype(np.float64), sample_weight=weights)
    value = np.log(curve.y_thresholds_) - np.log1p(-curve.y_thresholds_)
    return Isotonic(np.asarray(curve.X_thresholds_, np.float64), np.asarray(value, np.float64))


def fit_scale(name: str, score: Column, labelled: Labelled) -> HeadScale:
    """
    A head's scale from its scores of references that it was not fitted on; NaN scores are left out.

    The direction is what the head's source claims, 1, unless those that may be compared refute it: a direction guessed
    from a few sources is wrong on the next as often as not.
    """
    known = np.isfinite(score)
    direction = -1.0 if labelled.refutes(score) else 1.0
    score, positive, weights = score[known], labelled.positive[known], labelled.weights[known]
    if not positive.any() or positive.all():
        return HeadScale(name, 0.0, 1.0, 1.0, 0.0, 0.0)
    mean = float(np.average(score[~positive], weights=weights[~positive]))
    deviation = float(np.sqrt(np.average((score[~positive] - mean) ** 2, weights=weights[~positive])))
    if deviation < LEAST_DEVIATION:
        deviation = max(float(score.std()), LEAST_DEVIATION)
    standardised = np.clip(direction * (score - mean) / deviation, -CLIP, CLIP)
    platt = fit_platt(standardised, positive, weights)
    return HeadScale(name, mean, deviation, direction, platt.slope, platt.intercept)
