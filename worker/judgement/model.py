"""
A fitted judgement: the heads, how they become one number, what that number means, and what may be promised of it.

Learning one is ``worker.fitting``; writing and reading one is ``worker.judgement.store``.
"""

from dataclasses import dataclass, field, replace
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from schemas.judgement import Guarantee
from worker.assessment import Assessment, HeadScore
from worker.heads.asked_once import AskedOnce
from worker.heads.features import Column, FeatureTable, Mask
from worker.heads.head import Head
from worker.heads.reference_bank import ReferenceBank
from worker.judgement.attribution import Attributor
from worker.judgement.calibration import Calibration, sigmoid
from worker.judgement.conformal import Coverage, in_zone, kth_distance, smallest_alpha
from worker.judgement.fusion import Fusion, Grid, HeadScale
from worker.judgement.real_scores import POOLED, Ranked, RealScores, bucket_of

VERSION: Final = "1"
"""Raised when the arithmetic of a judgement, or the files that hold one, change."""

LAZY: Final = ("perturbation",)
"""Heads that need further encoding; the worker asks them only where the others leave it in doubt."""

Zone = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class HeadGrid:
    """
    What h heads say of n pictures: ``score``, ``standardised`` and ``evidence``, float64[n, h] each, NaN where nothing.
    """

    score: Grid = field(repr=False)
    standardised: Grid = field(repr=False)
    evidence: Grid = field(repr=False)


@dataclass(frozen=True, slots=True)
class HowFitted:
    """
    What a fit was asked for, so that the same can be asked again when references are added.

    ``heads`` named to be included, None all; ``seed``; the false-positive rate ``alpha`` that had to be supported, and
    with ``delta`` how surely.
    """

    heads: tuple[str, ...] | None = None
    seed: int = 0
    alpha: float | None = None
    delta: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class FittedJudgement:
    """
    ``id``: 64 hex digits over everything below, see ``worker.judgement.store``. ``scales`` go with ``heads``.

    ``base_rate`` is the weight of the positive label in the calibration, at which ``log_odds`` are given. ``views``
    names what must be measured of a picture: ``global``, ``native``, ``realism``, ``perturbation``. ``calibrated_on``
    is ``separate`` where the calibration's pictures were neither in the bank nor fitted on; ``out_of_fold`` where they
    were the bank's own, each judged by heads of other folds. The promise of the conformal p-values is closest to exact
    for the first: it holds for new pictures that are exchangeable with the calibration's, but for near duplicates among
    them, and for the grey zone, whose curve was fitted on the same reals. For the second it is approximate, since a new
    picture is judged by heads fitted on a little more than those that judged the calibration. ``asked`` tells what the
    fit was asked for; None where an older version fitted it.
    """

    id: str
    version: str
    heads: tuple[Head, ...]
    scales: tuple[HeadScale, ...]
    fusion: Fusion
    calibration: Calibration
    reals: RealScores
    coverage: Coverage
    attribution: Attributor
    base_rate: float
    views: tuple[str, ...]
    calibrated_on: Literal["separate", "out_of_fold"]
    asked: HowFitted | None = None

    def serving(self, alpha: float, delta: float | None, guarantee: Guarantee = "each_source") -> Self:
        """
        The same judgement, of the same id, as it serves a policy: see ``RealScores.serving``.

        Then every bucket that an assessment can name supports ``alpha``, if all reals together do.
        """
        return replace(self, reals=self.reals.serving(alpha, delta, guarantee))

    def assess(self, features: FeatureTable, bank: ReferenceBank, *, grey_zone: Zone | None = None) -> list[Assessment]:
        """
        What this judgement makes of each picture, whatever its companions are.

        A picture is ranked among reals that were judged as it was: with every head where its perturbation was
        measured, and without the lazy ones where it was not. Which pictures get a second look is itself decided by
        their scores; give the ``grey_zone`` that decided it, and reals are ranked under the very same rule, without
        which the p-values promise something of pictures alone that were all treated alike. That rule's curve was itself
        fitted with these reals, so the promise is very nearly kept, not exactly.
        """
        if not len(features):
            return []
        depth = max(self.coverage.k, self.attribution.neighbours)
        bank = AskedOnce(bank, at_least=depth)
        grid = self.read(features, bank)
        raw = self.fusion.fused(grid.standardised, grid.evidence)
        ranked, sources = self._ranked(features, grid, raw, grey_zone), self.reals.sources
        nearest = bank.nearest("global", features.unit, depth)
        coverage_p = self.coverage.p_values(kth_distance(nearest, self.coverage.k))
        attributions = self.attribution.attributions(nearest, coverage_p)
        log_odds = self.calibration.log_odds(raw)
        return [
            Assessment(
                log_odds=float(log_odds[row]),
                p_value=float(ranked.p[row]),
                bucket=ranked.bucket[row],
                coverage_p=float(coverage_p[row]),
                heads=self._head_scores(grid, row),
                missing=tuple(h.name for h, s in zip(self.heads, grid.score[row], strict=True) if np.isnan(s)),
                attribution=attributions[row],
                sources=sources,
                source=ranked.source[row],
                bucket_p=float(ranked.bucket_p[row]),
            )
            for row in range(len(features))
        ]

    def in_grey_zone(self, features_without_shift: FeatureTable, bank: ReferenceBank, low: float, high: float) -> Mask:
        """
        Which pictures the cheap heads leave between two probabilities, both included, at the calibration's base rate.

        Nobody, where no head of this judgement would say more of a perturbed copy.
        """
        if not any(head.name in LAZY for head in self.heads) or not len(features_without_shift):
            return np.zeros(len(features_without_shift), dtype=np.bool_)
        asked = AskedOnce(bank, at_least=max(self.coverage.k, self.attribution.neighbours))
        grid = self.read(features_without_shift, asked)
        raw = self.fusion.fused(grid.standardised, grid.evidence)
        return in_zone(sigmoid(self.calibration.log_odds(raw)), low, high)

    def flag_threshold(self, alpha: float, delta: float | None, bucket: str) -> float:
        """
        The largest p-value that may be flagged in a bucket, named as in ``Assessment.bucket``.

        ``delta`` None: ``alpha``, which then bounds false positives on average over calibrations, in each source of
        reals that a picture is ranked among (see ``worker.judgement.sources.largest_p``). Otherwise the bound
        holds in all but a share ``delta`` of calibrations. Raises ``TooFewReals`` naming n, alpha and the n needed.
        """
        return self.reals.largest_flagged(alpha, delta, bucket)

    @property
    def smallest_alpha(self) -> float:
        """
        The smallest false-positive rate that all calibration reals together support, on average over calibrations.
        """
        return smallest_alpha(self.reals.size(POOLED))

    def real_log_odds(self, grey_zone: Zone) -> Column:
        """
        The calibration's reals as new pictures are ranked among them, float64[n], in log-odds at ``base_rate``.
        """
        return self.calibration.log_odds(self._as_in_zone(grey_zone))

    def read(self, features: FeatureTable, bank: ReferenceBank) -> HeadGrid:
        """
        What every head says, in the order of the heads.
        """
        return grid_of(np.stack([head.read(features, bank).score for head in self.heads], axis=1), self.scales)

    def _ranked(self, features: FeatureTable, grid: HeadGrid, raw: Column, zone: Zone | None) -> Ranked:
        kinds = [bucket_of(name, side) for name, side in zip(features.format, features.short_side_px, strict=True)]
        if zone is not None:
            return self.reals.ranked(raw, kinds, reference=self._as_in_zone(zone))
        lazy = [head.name in LAZY for head in self.heads]
        whole = ~np.isnan(grid.score[:, lazy]).any(axis=1)
        full = self.reals.ranked(raw, kinds, reference=self.reals.full)
        cheap = self.reals.ranked(raw, kinds, reference=self.reals.cheap)
        return Ranked(
            p=np.where(whole, full.p, cheap.p),
            bucket_p=np.where(whole, full.bucket_p, cheap.bucket_p),
            bucket=full.bucket,
            source=tuple(np.where(whole, np.array(full.source, object), np.array(cheap.source, object)).tolist()),
        )

    def _as_in_zone(self, zone: Zone) -> Column:
        asked = in_zone(sigmoid(self.calibration.log_odds(self.reals.cheap)), *zone)
        return np.where(asked, self.reals.full, self.reals.cheap)

    def _head_scores(self, grid: HeadGrid, row: int) -> tuple[HeadScore, ...]:
        return tuple(
            HeadScore(head.name, head.version, float(score), float(evidence))
            for head, score, evidence in zip(self.heads, grid.score[row], grid.evidence[row], strict=True)
            if not np.isnan(score)
        )


def grid_of(score: NDArray[np.float64], scales: tuple[HeadScale, ...]) -> HeadGrid:
    """
    Scores, float64[n, h], on the common scale and as evidence; what is not finite counts as not said.
    """
    finite = np.where(np.isfinite(score), score, np.nan)
    standardised = np.stack([scale.standardised(finite[:, i]) for i, scale in enumerate(scales)], axis=1)
    evidence = np.stack([scale.evidence(standardised[:, i]) for i, scale in enumerate(scales)], axis=1)
    return HeadGrid(finite, standardised, evidence)
