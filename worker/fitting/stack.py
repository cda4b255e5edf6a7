"""
Learning what each head weighs in the fused score, from scores of references that the heads were not fitted on.

Few labels and shifted data reward caution: weights are never negative, and are drawn to what each head is worth alone.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from worker.fitting.calibrate import share_above
from worker.heads.features import Column, Mask, References
from worker.judgement.fusion import Fusion, Grid, MeanOfLogits, Stacker
from worker.judgement.model import LAZY

MIN_LABELLED: Final = 500
"""References below which the heads' log-odds are averaged instead of weighed."""

MIN_GROUPS: Final = 4
"""Generators, or sources of reals, below which likewise: what separates three generators may be no property of all."""

SHRINKAGE: Final = 1.0
"""
How strongly the weights are drawn to what each head is worth alone, per unit of the mean log-loss. On standardised
heads 1 and above gave the best leave-one-source-out AUROC among 0.001 to 10 on the field data, 0.1 and below the worst.
"""


def enough_to_stack(references: References) -> bool:
    """
    Whether there are labels, generators and sources enough to learn weights from.
    """
    positive = references.positive
    generators = {
        generator or source
        for generator, source, held in zip(references.generator, references.source, positive, strict=True)
        if held
    }
    sources = {source for source, held in zip(references.source, positive, strict=True) if not held}
    # One generator or source alone may be many under one name; then only the other side can show variety.
    return len(references) >= MIN_LABELLED and max(len(generators), len(sources)) >= MIN_GROUPS


def fit_fusion(standardised: Grid, positive: Mask, weights: Column, *, names: Sequence[str], stacked: bool) -> Fusion:
    """
    The stacker, or the mean of logits when there is too little to learn from.
    """
    if not stacked:
        return MeanOfLogits(len(names))
    return fit_stacker(standardised, positive, weights, names=names)


def fit_stacker(
    standardised: Grid,
    positive: Mask,
    weights: Column,
    *,
    names: Sequence[str],
    shrinkage: float = SHRINKAGE,
) -> Stacker:
    """
    Logistic regression of the label on float64[n, h] standardised scores, each weight at least 0.

    ``weights`` float64[n] weigh the references. Penalised is the squared distance of the weights from a prior, and of
    the numbers for absent heads from what the heads' means count for. The prior is in proportion to how far each head's
    AUROC lies above a coin's, with a common factor that is itself fitted first; a head that is worth nothing alone
    starts from 0.
    Every reference is also seen without the lazy heads, and without each single head, so that the score is sound then.
    """
    grid, label, weight = _with_heads_taken_out(standardised, positive, weights, names)
    missing = np.isnan(grid).astype(np.float64)
    # What a head that cannot say counts for before anything is learnt of it: midway between the labels, not a real.
    neutral = _means(standardised, weights)
    known = np.where(np.isnan(grid), neutral, grid)
    target = label.astype(np.float64)
    heads = grid.shape[1]
    merit = _merits(standardised, positive, weights)
    sums = (known * merit).sum(axis=1, keepdims=True)
    common = _minimised(sums, target, weight, start=np.zeros(1), shrinkage=0.0, bounded=1)
    design = np.concatenate([known, missing], axis=1)
    prior = np.concatenate([common[0] * merit, np.zeros(heads)])
    found = _minimised(design, target, weight, start=prior, shrinkage=shrinkage, bounded=heads)
    return Stacker(
        intercept=float(found[-1]),
        weights=tuple(float(value) for value in found[:heads]),
        absent=tuple(float(value) for value in found[heads:-1] + found[:heads] * neutral),
    )


def _means(standardised: Grid, weights: Column) -> Column:
    """
    The weighted mean of each head where it could say; 0 where it never could.
    """
    known = np.isfinite(standardised)
    weight = known * weights[:, None]
    total = (weight * np.where(known, standardised, 0.0)).sum(axis=0)
    means: Column = total / np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny)
    return means


def _merits(standardised: Grid, positive: Mask, weights: Column) -> Column:
    """
    2 AUROC - 1 of each head where it could say, at least 0; all 1 where no head is worth anything.
    """
    merits = np.zeros(standardised.shape[1])
    for head in range(len(merits)):
        known = np.isfinite(standardised[:, head])
        if positive[known].any() and not positive[known].all():
            merits[head] = max(0.0, 2 * share_above(standardised[known, head], positive[known], weights[known]) - 1)
    return merits if merits.any() else np.ones(len(merits))


def _with_heads_taken_out(
    standardised: Grid, positive: Mask, weights: Column, names: Sequence[str]
) -> tuple[Grid, Mask, Column]:
    heads = len(names)
    lazy = np.asarray([name in LAZY for name in names])
    taken = [np.zeros(heads, dtype=np.bool_), *([lazy] if lazy.any() and not lazy.all() else [])]
    shares = [1.0] * len(taken)
    if heads > 1:
        taken += list(np.eye(heads, dtype=np.bool_))
        shares += [0.5 / heads] * heads
    grid = np.concatenate([np.where(out, np.nan, standardised) for out in taken])
    weight = np.concatenate([weights * share for share in shares])
    return grid, np.tile(positive, len(taken)), weight


def _minimised(
    design: Grid, target: Column, weight: Column, *, start: Column, shrinkage: float, bounded: int
) -> Column:
    """
    Coefficients and, last, the intercept of a penalised logistic regression; the first ``bounded`` are at least 0.
    """
    total = weight.sum()

    def loss(p: Column) -> tuple[float, Column]:
        odds, away = design @ p[:-1] + p[-1], p[:-1] - start
        value = float((weight * (np.logaddexp(0, odds) - target * odds)).sum() / total)
        slope = weight * (expit(odds) - target) / total
        gradient = np.concatenate([design.T @ slope + shrinkage * away, [slope.sum()]])
        return value + shrinkage / 2 * float(away @ away), gradient

    bounds = [(0.0, None)] * bounded + [(None, None)] * (len(start) - bounded + 1)
    found: Column = minimize(loss, np.append(start, 0.0), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
