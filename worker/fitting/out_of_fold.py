"""
Scores of references by heads that had not seen their generator or source; and the same of the fused score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from worker.fitting.calibrate import fit_scale
from worker.fitting.folds import Folds
from worker.fitting.heads_table import Recipe
from worker.fitting.labelled import Labelled
from worker.fitting.stack import fit_fusion
from worker.heads.features import Column, FeatureTable, Mask, References
from worker.heads.head import Head
from worker.heads.reference_bank import ExactBank
from worker.judgement.fusion import Fusion, Grid, HeadScale
from worker.judgement.model import LAZY, grid_of

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFold:
    """
    ``scores`` float64[n, h] of the heads ``names``; ``dropped`` tells which recipes could not be fitted, and why.
    """

    names: tuple[str, ...]
    scores: Grid = field(repr=False)
    dropped: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class FusedScores:
    """
    float64[n] each: with every head, and without the lazy ones.
    """

    full: Column = field(repr=False)
    cheap: Column = field(repr=False)


def out_of_fold(
    references: References, folds: Folds, recipes: Sequence[Recipe], *, seed: int, progress: Progress
) -> OutOfFold:
    """
    Each head's scores of each fold, fitted on the other folds and asked against a bank of those alone.

    A recipe that finds the references too few in any fold is dropped, and told; so is one that says nothing of one
    of the labels.
    """
    scores = np.full((len(references), len(recipes)), np.nan)
    failed: dict[str, str] = {}
    total = folds.count * len(recipes)
    for number in range(folds.count):
        held = np.flatnonzero(folds.fold == number)
        learnt = references.take([int(row) for row in np.flatnonzero(folds.fold != number)])
        asked, bank = references.features.take(held), ExactBank(learnt)
        for column, recipe in enumerate(recipes):
            progress("judging references by the others", number * len(recipes) + column, total)
            if recipe.name in failed:
                continue
            try:
                scores[held, column] = recipe.fit(learnt, seed).read(asked, bank).score
            except ValueError as fault:
                failed[recipe.name] = f"head {recipe.name} is left out: it could not be fitted ({fault})"
    progress("judging references by the others", total, total)
    for column, recipe in enumerate(recipes):
        if recipe.name not in failed and not says_something(scores[:, column], references.positive):
            failed[recipe.name] = silent_note(recipe.name)
    kept = [column for column, recipe in enumerate(recipes) if recipe.name not in failed]
    return OutOfFold(tuple(recipes[column].name for column in kept), scores[:, kept], tuple(failed.values()))


def says_something(score: Column, positive: Mask) -> bool:
    """
    Whether a head says anything of both labels: otherwise there is nothing to weigh it by.
    """
    known = np.isfinite(score)
    return bool(known[positive].any() and known[~positive].any())


def silent_note(name: str) -> str:
    """
    Why such a head is left out.
    """
    return f"head {name} is left out: it says nothing of the references of one label or of both"


def scales_of(names: Sequence[str], scores: Grid, labelled: Labelled) -> tuple[HeadScale, ...]:
    """
    The scale of each head.
    """
    return tuple(fit_scale(name, scores[:, column], labelled) for column, name in enumerate(names))


def fitted_fusion(
    names: Sequence[str], scores: Grid, labelled: Labelled, *, stacked: bool
) -> tuple[tuple[HeadScale, ...], Fusion]:
    """
    Scales and fusion, both learnt from these scores.
    """
    scales = scales_of(names, scores, labelled)
    standardised = grid_of(scores, scales).standardised
    fusion = fit_fusion(standardised, labelled, names=names, stacked=stacked)
    return scales, fusion


def fused_scores(scores: Grid, scales: tuple[HeadScale, ...], fusion: Fusion) -> FusedScores:
    """
    The fused scores of raw ones, with and without the lazy heads.

    Of scores out of fold these are what a judgement is calibrated on. The few numbers of ``scales`` and ``fusion`` were
    learnt from the very same scores; learning them fold by fold too was tried, and shifted whole folds against each
    other by more than is gained: each fold's typical real is then set by the sources of all others.
    """
    lazy = np.asarray([scale.name in LAZY for scale in scales])
    full = grid_of(scores, scales)
    cheap = grid_of(np.where(lazy, np.nan, scores), scales)
    return FusedScores(fusion.fused(full.standardised, full.evidence), fusion.fused(cheap.standardised, cheap.evidence))


def scores_of(heads: Sequence[Head], features: FeatureTable, bank: ExactBank) -> Grid:
    """
    float64[n, h]: what fitted heads say.
    """
    return np.stack([head.read(features, bank).score for head in heads], axis=1)
