"""
How the heads' scores of a picture become one number: each brought to a common scale, then added with learnt weights.

How the numbers in here are learnt is ``worker.fitting.stack``; what the sum means is ``worker.judgement.calibration``.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column

CLIP: Final = 4.0
"""Deviations from the calibration reals beyond which a head's score says no more: one wild head must not decide."""

Grid = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class HeadScale:
    """
    One head on the common scale, and what it would say alone.

    ``mean`` and ``deviation`` are those of the head's score over calibration reals. ``direction`` is 1 where higher
    scores go with the positive label, as the head's own source claims, and -1 where the calibration showed the
    opposite. ``slope`` (at least 0) and ``intercept`` are its Platt calibration on the standardised score.
    """

    name: str
    mean: float
    deviation: float
    direction: float
    slope: float
    intercept: float

    def standardised(self, score: Column) -> Column:
        """
        float64[n] in deviations of the calibration reals, turned so that higher is positive; NaN stays NaN.
        """
        turned: Column = np.clip(self.direction * (score - self.mean) / self.deviation, -CLIP, CLIP)
        return turned

    def evidence(self, standardised: Column) -> Column:
        """
        Log-odds for the positive label by this head alone, at the calibration's base rate; NaN stays NaN.
        """
        return self.slope * standardised + self.intercept


class Fusion(Protocol):
    """
    From the heads' numbers to one; higher is more of the positive label.
    """

    @property
    def weights(self) -> tuple[float, ...]:
        """
        What each head weighs, in the order of the heads.
        """

    def fused(self, standardised: Grid, evidence: Grid) -> Column:
        """
        float64[n] of the heads' float64[n, h]; a head that could not say is NaN in both.
        """


@dataclass(frozen=True, slots=True)
class Stacker:
    """
    A logistic model over standardised heads, none of which weighs less than 0.

    A head that could not say counts as a typical real (0 on its scale), and ``absent`` makes up for what is then
    missing: one number per head, learnt from calibration rows out of which that head had been taken.
    """

    intercept: float
    weights: tuple[float, ...]
    absent: tuple[float, ...]

    def fused(self, standardised: Grid, evidence: Grid) -> Column:  # noqa: ARG002 - the protocol's signature
        """
        Log-odds before calibration.
        """
        missing = np.isnan(standardised)
        known = np.where(missing, 0.0, standardised)
        # Summed along rows, not multiplied as a matrix: a picture's score must not depend on its batch.
        terms = known * np.asarray(self.weights) + missing * np.asarray(self.absent)
        score: Column = self.intercept + terms.sum(axis=1)
        return score


@dataclass(frozen=True, slots=True)
class MeanOfLogits:
    """
    The average of what the heads say alone, over those that can say: for calibrations too small to learn weights from.
    """

    heads: int = field(default=1)

    @property
    def weights(self) -> tuple[float, ...]:
        """
        The same for each head.
        """
        return (1 / self.heads,) * self.heads

    def fused(self, standardised: Grid, evidence: Grid) -> Column:  # noqa: ARG002 - the protocol's signature
        """
        Mean log-odds; 0 where no head could say.
        """
        known = ~np.isnan(evidence)
        total = np.where(known, evidence, 0.0).sum(axis=1)
        mean: Column = total / np.maximum(known.sum(axis=1), 1)
        return mean
