"""
From a fused score to a probability, in log-odds: Platt's sigmoid or an isotonic curve, and the shift of base rates.

Fitting either is ``worker.fitting.calibrate``.
"""

import math
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column


class Calibration(Protocol):
    """
    A non-decreasing map from fused scores to log-odds at the calibration's base rate.
    """

    def log_odds(self, score: Column) -> Column:
        """
        float64[n]; finite for finite scores.
        """


@dataclass(frozen=True, slots=True)
class Platt:
    """
    ``slope * score + intercept`` (Platt 1999); ``slope`` is positive, so that the order of scores is kept.
    """

    slope: float
    intercept: float

    def log_odds(self, score: Column) -> Column:
        """
        Unbounded, but linear in the score.
        """
        return self.slope * score + self.intercept


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """
    Straight lines between the knots of an isotonic regression, level outside them.

    ``score`` float64[m] ascending, ``value`` float64[m] the log-odds there, ascending or level.
    """

    score: NDArray[np.float64] = field(repr=False)
    value: NDArray[np.float64] = field(repr=False)

    def log_odds(self, score: Column) -> Column:
        """
        Within the knots' own values.
        """
        return np.interp(score, self.score, self.value)


def logit(probability: float) -> float:
    """
    Log-odds of a probability strictly between 0 and 1.
    """
    return math.log(probability) - math.log1p(-probability)


def sigmoid(log_odds: Column) -> Column:
    """
    Probabilities of log-odds, without overflow at either end.
    """
    probability: Column = np.exp(-np.logaddexp(0.0, -log_odds))
    return probability


def prior_shift(log_odds: Column, *, calibrated: float, deployed: float) -> Column:
    """
    Log-odds where the positive label is as frequent as ``deployed``, from log-odds where it was as ``calibrated``.

    ``logit p' = logit p + logit deployed - logit calibrated`` (Saerens, Latinne and Decaestecker 2002): right where
    pictures of either label look as they did and only their shares changed. Both rates lie strictly between 0 and 1.
    """
    return log_odds + (logit(deployed) - logit(calibrated))
