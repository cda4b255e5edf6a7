"""
What is measured of one column of scores: ranking, decisions, calibration, abstaining, and the worst generator.

Definitions only; which pictures were held out and what scored them is ``worker.evaluation.scores``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy import stats

from schemas.judgement import Guarantee
from worker.evaluation.resampling import (
    AreaUnderRoc,
    AveragePrecision,
    BalancedAccuracy,
    Bootstrap,
    Interval,
    MeanOverSets,
    Recall,
    credit,
)
from worker.heads.features import Column, Mask

FALSE_POSITIVE_RATES: Final = (0.05, 0.01, 0.001)
"""At which the true-positive rate is asked for, where there are reals enough."""

LEAST_ABOVE: Final = 10
"""So many reals must lie above a threshold before a rate is read off there: 1,000 reals for 1 %, 10,000 for 0.1 %."""

CALIBRATION_BINS: Final = 15
LEAST_OF_GENERATOR: Final = 5
"""A generator with fewer pictures has a row, but is never called the worst."""

_CLOSEST: Final = 1e-6


@dataclass(frozen=True, slots=True)
class GeneratorRow:
    """
    One generator: pictures, the share of them told, and average precision against all held-out reals.
    """

    name: str
    pictures: int
    recall: float
    ap: float


@dataclass(frozen=True, slots=True)
class Measures:
    """
    Everything that the table says of one column.

    ``ap`` and ``auroc`` rank all held-out pictures together; ``mean_ap`` and ``mean_auroc`` rank those of each held-out
    set among themselves, and are the mean over sets.

    ``tpr_at`` holds None for a false-positive rate that the number of reals does not support. ``ece`` and ``brier``
    are None for a column that is no probability. ``said``: the share of pictures of which it said anything.
    """

    ap: Interval
    auroc: Interval
    mean_ap: Interval
    mean_auroc: Interval
    balanced_accuracy: Interval
    real_accuracy: Interval
    fake_accuracy: Interval
    tpr_at: Mapping[float, float | None]
    ece: float | None
    brier: float | None
    worst: GeneratorRow | None
    said: float
    generators: tuple[GeneratorRow, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class SourceRate:
    """
    Held-out reals of one source that were flagged, with the exact interval; ``pooled_value`` as below.
    """

    n: int
    flagged: int
    value: float
    low: float
    high: float
    pooled_value: float | None = None


@dataclass(frozen=True, slots=True)
class FalsePositiveRate:
    """
    Held-out reals that were flagged, with the exact (Clopper-Pearson) 95 % interval, beside the guarantee ``alpha``.

    ``reason``: why nothing can be said, where a fold could not support the guarantee; all but ``n`` are then None.
    The exact interval is for other pictures of these sources; ``low_sources`` and ``high_sources`` are for other
    sources too, None where there is one only. ``pooled_...``: what would be flagged if the bound had to hold over all
    sources together only. ``guarantee`` is what the policy asks for, and ``sources`` among how many sources of reals
    the held-out ones were ranked one by one in every fold, None where that was not told.
    """

    alpha: float
    value: float | None
    low: float | None
    high: float | None
    flagged: int | None
    n: int
    reason: str | None = None
    low_sources: float | None = None
    high_sources: float | None = None
    pooled_value: float | None = None
    pooled_low: float | None = None
    pooled_high: float | None = None
    guarantee: Guarantee = "each_source"
    sources: int | None = None
    per_source: Mapping[str, SourceRate] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class ScoreColumn:
    """
    Scores float64[n] that say "generated" above 0 and "real" below, NaN where nothing was said.

    ``probability``: whether they are log-odds. A picture of which nothing was said counts with a score of 0: on the
    threshold, without evidence either way, and half right.
    """

    name: str
    score: Column = field(repr=False)
    probability: bool = True

    @property
    def filled(self) -> Column:
        """
        The scores, with 0 where nothing was said.
        """
        filled: Column = np.where(np.isnan(self.score), 0.0, self.score)
        return filled


def measure(
    column: ScoreColumn, positive: Mask, generator: Sequence[str], draws: Bootstrap, *, held_out: Sequence[str]
) -> Measures:
    """
    The measures of a column over held-out pictures; ``generator`` names what made each (reals: any word).

    ``held_out`` names the set that each was held out with.
    """
    score = column.filled
    rows = per_generator(score, positive, generator)
    counted = [row for row in rows if row.pictures >= LEAST_OF_GENERATOR]
    probability = logistic(score) if column.probability else None
    return Measures(
        ap=draws.of(positive, AveragePrecision(), score),
        auroc=draws.of(positive, AreaUnderRoc(), score),
        mean_ap=draws.of(positive, MeanOverSets(AveragePrecision(), held_out), score),
        mean_auroc=draws.of(positive, MeanOverSets(AreaUnderRoc(), held_out), score),
        balanced_accuracy=draws.of(positive, BalancedAccuracy(), score),
        real_accuracy=draws.of(positive, Recall(positive=False), score),
        fake_accuracy=draws.of(positive, Recall(positive=True), score),
        tpr_at={rate: true_positive_rate(positive, score, rate) for rate in FALSE_POSITIVE_RATES},
        ece=None if probability is None else expected_calibration_error(positive, probability),
        brier=None if probability is None else float(np.mean((probability - positive) ** 2)),
        worst=min(counted, key=lambda row: row.recall, default=None),
        said=float(np.mean(~np.isnan(column.score))) if len(positive) else 0.0,
        generators=rows,
    )


def true_positive_rate(positive: Mask, score: Column, rate: float) -> float | None:
    """
    The share of generated pictures that score above all but ``rate`` of the reals.

    None where fewer than ``LEAST_ABOVE`` reals would lie above that threshold: it would hang on a handful of pictures.
    """
    reals = np.sort(score[~positive])[::-1]
    allowed = int(np.floor(rate * len(reals) + _CLOSEST))
    if allowed < LEAST_ABOVE or not positive.any():
        return None
    return float(np.mean(score[positive] > reals[allowed]))


def expected_calibration_error(positive: Mask, probability: Column, bins: int = CALIBRATION_BINS) -> float | None:
    """
    Mean distance between stated probability and share of generated pictures over bins of equally many pictures.
    """
    if not len(positive):
        return None
    gaps = [len(said) * abs(said.mean() - true.mean()) for said, true in reliability(positive, probability, bins)]
    return float(np.sum(gaps) / len(positive))


def reliability(positive: Mask, probability: Column, bins: int = CALIBRATION_BINS) -> list[tuple[Column, Mask]]:
    """
    Probabilities and labels in bins of equally many pictures, lowest first; no bin is empty.
    """
    order = np.argsort(probability, kind="stable")
    parts = np.array_split(order, min(bins, len(order)))
    return [(probability[part], positive[part]) for part in parts if len(part)]


def risk_coverage(positive: Mask, score: Column) -> tuple[Column, Column]:
    """
    Coverage float64[n] from the most confident picture to all, and the share of wrong decisions among those covered.

    Confidence is the distance of a score to the threshold, 0; pictures of the same confidence share their errors, so
    that the order of the listing does not matter.
    """
    order = np.argsort(-np.abs(score), kind="stable")
    _, group, size = np.unique(np.abs(score)[order], return_inverse=True, return_counts=True)
    wrong = np.bincount(group, weights=1 - credit(score, positive)[order], minlength=len(size)) / size
    counted = np.arange(1, len(order) + 1)
    return counted / max(1, len(order)), np.cumsum(wrong[group]) / counted


def false_positive_rate(flagged: Mask, alpha: float, reason: str | None = None) -> FalsePositiveRate:
    """
    Of held-out reals the share that was flagged, with its exact interval; none of it where there is a ``reason``.
    """
    n, hits = len(flagged), int(flagged.sum())
    if reason is not None:
        return FalsePositiveRate(alpha, None, None, None, None, n, reason)
    if not n:
        return FalsePositiveRate(alpha, None, None, None, 0, 0, "no real picture was held out")
    low, high = exact_interval(hits, n)
    return FalsePositiveRate(alpha, hits / n, low, high, hits, n)


def exact_interval(hits: int, n: int) -> tuple[float, float]:
    """
    The Clopper-Pearson 95 % interval of a share of n, n above 0.
    """
    low = float(stats.beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def per_generator(score: Column, positive: Mask, generator: Sequence[str]) -> tuple[GeneratorRow, ...]:
    """
    A row for every generator of the held-out pictures, by name.
    """
    names = np.array(generator, dtype=object)
    rows = []
    for name in sorted(set(names[positive])):
        members = positive & (names == name)
        kept = members | ~positive
        ap = AveragePrecision()(np.ones((1, int(kept.sum())), np.float32), members[kept], score[kept])
        recall = float(np.mean(credit(score, positive)[members]))
        rows.append(GeneratorRow(name, int(members.sum()), recall, float(ap[0])))
    return tuple(rows)


def logistic(log_odds: Column) -> Column:
    """
    Log-odds as probabilities.
    """
    probability: Column = 1 / (1 + np.exp(-np.clip(log_odds, -700, 700)))
    return probability
