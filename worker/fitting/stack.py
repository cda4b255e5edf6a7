"""
Learning what each head weighs in the fused score, from scores of references that the heads were not fitted on.

Few labels and shifted data reward caution: weights are never negative, and are drawn to what each head is worth alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from worker.fitting.labelled import Labelled
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


def fit_fusion(standardised: Grid, labelled: Labelled, *, names: Sequence[str], stacked: bool) -> Fusion:
    """
    The stacker, or the mean of logits when there is too little to learn from.
    """
    return fit_stacker(standardised, labelled, names=names) if stacked else MeanOfLogits(len(names))


def fit_stacker(
    standardised: Grid, labelled: Labelled, *, names: Sequence[str], shrinkage: float = SHRINKAGE
) -> Stacker:
    """
    Logistic regression of the label on float64[n, h] standardised scores, each weight at least 0.

    Where enough sources hold both labels, of which of two pictures of one source is the positive one: see ``Labelled``.
    Penalised is the squared distance of the weights from a prior, and of the numbers for absent heads from what the
    heads' means count for. The prior is in proportion to how far each head's AUROC lies above a coin's, with a common
    factor that is itself fitted first; a head that is worth nothing alone starts from 0.
    Every reference is also seen without the lazy heads, and without each single head, so that the score is sound then.
    """
    heads = standardised.shape[1]
    # What a head that cannot say counts for before anything is learnt of it: midway between the labels, not a real.
    neutral = _means(standardised, labelled.weights)
    merit = _merits(standardised, labelled)
    taken_out = [(share, np.where(out, np.nan, standardised)) for out, share in _taken_out(names)]
    common = _minimised(_lessons(taken_out, neutral, labelled).summed(merit), start=np.zeros(1), shrinkage=0.0)
    prior = np.concatenate([common[0] * merit, np.zeros(heads)])
    found = _minimised(_lessons(taken_out, neutral, labelled), start=prior, shrinkage=shrinkage)
    return Stacker(
        intercept=float(found[-1]),
        weights=tuple(float(value) for value in found[:heads]),
        absent=tuple(float(value) for value in found[heads:-1] + found[:heads] * neutral),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Lessons:
    """
    Rows of a logistic regression; the first ``bounded`` coefficients are at least 0, and ``intercept`` may be barred.
    """

    design: Grid
    target: Column
    weight: Column
    bounded: int
    intercept: bool

    def summed(self, merit: Column) -> Self:
        """
        The same with one column: the heads, each by its merit.
        """
        return replace(self, design=self.design[:, : len(merit)] @ merit[:, None], bounded=1)


def _lessons(taken_out: Sequence[tuple[float, Grid]], neutral: Column, labelled: Labelled) -> _Lessons:
    heads = len(neutral)
    weights = np.concatenate([labelled.weights * share for share, _ in taken_out])
    shares = [share for share, _ in taken_out]
    designs = []
    for _, grid in taken_out:
        missing = np.isnan(grid)
        designs.append(np.concatenate([np.where(missing, neutral, grid), missing.astype(np.float64)], axis=1))
    if not labelled.sources:
        target = np.tile(labelled.positive.astype(np.float64), len(designs))
        return _Lessons(np.concatenate(designs), target, weights, heads, intercept=True)
    up, down, weight = labelled.contrasts()
    differences = np.concatenate([design[up] - design[down] for design in designs])
    weight = np.concatenate([weight * share for share in shares])
    return _Lessons(differences, np.ones(len(differences)), weight, heads, intercept=False)


def _means(standardised: Grid, weights: Column) -> Column:
    """
    The weighted mean of each head where it could say; 0 where it never could.
    """
    known = np.isfinite(standardised)
    weight = known * weights[:, None]
    total = (weight * np.where(known, standardised, 0.0)).sum(axis=0)
    means: Column = total / np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny)
    return means


def _merits(standardised: Grid, labelled: Labelled) -> Column:
    """
    2 AUROC - 1 of each head where it could say, at least 0; all 1 where no head is worth anything.
    """
    columns = range(standardised.shape[1])
    merits = np.array([max(0.0, 2 * labelled.share_above(standardised[:, head]) - 1) for head in columns])
    return merits if merits.any() else np.ones(len(merits))


def _taken_out(names: Sequence[str]) -> list[tuple[Mask, float]]:
    """
    Which heads are taken out of the references, time after time, and what each time weighs.
    """
    heads = len(names)
    lazy = np.asarray([name in LAZY for name in names])
    taken = [(np.zeros(heads, dtype=np.bool_), 1.0)]
    if lazy.any() and not lazy.all():
        taken.append((lazy, 1.0))
    if heads > 1:
        taken += [(row, 0.5 / heads) for row in np.eye(heads, dtype=np.bool_)]
    return taken


def _minimised(lessons: _Lessons, *, start: Column, shrinkage: float) -> Column:
    """
    Coefficients and, last, the intercept of a penalised logistic regression.
    """
    design, target, weight = lessons.design, lessons.target, lessons.weight
    total = weight.sum()

    def loss(p: Column) -> tuple[float, Column]:
        odds, away = design @ p[:-1] + p[-1], p[:-1] - start
        value = float((weight * (np.logaddexp(0, odds) - target * odds)).sum() / total)
        slope = weight * (expit(odds) - target) / total
        gradient = np.concatenate([design.T @ slope + shrinkage * away, [slope.sum()]])
        return value + shrinkage / 2 * float(away @ away), gradient

    edge = None if lessons.intercept else 0.0
    free = len(start) - lessons.bounded
    bounds = [*[(0.0, None)] * lessons.bounded, *[(None, None)] * free, (edge, edge)]
    found: Column = minimize(loss, np.append(start, 0.0), jac=True, method="L-BFGS-B", bounds=bounds).x
    return found
