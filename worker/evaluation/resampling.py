"""
Average precision, area under the ROC and accuracy of many bootstrap draws at once, and intervals from them.

A draw is a row of weights: how often each picture was drawn. Nothing here knows what a head is.
"""

from dataclasses import dataclass, field
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, Mask

Draws = NDArray[np.float32]

LOW_PERCENT: Final = 2.5
HIGH_PERCENT: Final = 97.5


@dataclass(frozen=True, slots=True)
class Interval:
    """
    A number with the 95 % interval of its bootstrap; None where the pictures do not support it.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


NOT_MEASURED: Final = Interval(None)


class Statistic(Protocol):
    """
    A function of weights float32[b, n], labels and scores that gives float64[b].
    """

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        The statistic of every draw.
        """


@dataclass(frozen=True, slots=True, eq=False)
class Bootstrap:
    """
    ``draws`` float32[b, n]: draws with replacement, stratified by class, so that every draw has as many of each.
    """

    draws: Draws = field(repr=False)

    def of(self, positive: Mask, statistic: Statistic, *columns: Column) -> Interval:
        """
        A statistic of these columns with its percentile interval.
        """
        whole = statistic(np.ones((1, len(positive)), np.float32), positive, *columns)
        return _interval(float(whole[0]), statistic(self.draws, positive, *columns))

    def difference(self, positive: Mask, statistic: Statistic, ours: Column, theirs: Column) -> Interval:
        """
        How much larger a statistic is of one column than of another, on the same draws (paired).
        """
        whole = np.ones((1, len(positive)), np.float32)
        value = statistic(whole, positive, ours) - statistic(whole, positive, theirs)
        return _interval(
            float(value[0]), statistic(self.draws, positive, ours) - statistic(self.draws, positive, theirs)
        )


class AveragePrecision:
    """
    Sum over thresholds of precision times the gain in recall, equal scores together, as scikit-learn defines it.
    """

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One average precision per draw; NaN without positives.
        """
        found, false = _cumulated(weights, positive, score)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = np.where(found + false > 0, found / (found + false), 0.0)
            recall = found / found[:, -1:]
        area: Column = np.sum(precision * np.diff(recall, prepend=0.0, axis=1), axis=1)
        return area


class AreaUnderRoc:
    """
    The chance that a generated picture scores above a real one, equals counted half.
    """

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One area per draw; NaN without either class.
        """
        found, false = _cumulated(weights, positive, score)
        before = np.concatenate([np.zeros((len(found), 1)), found[:, :-1]], axis=1)
        pairs = np.sum(np.diff(false, prepend=0.0, axis=1) * (before + found) / 2, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            area: Column = pairs / (found[:, -1] * false[:, -1])
        return area


class BalancedAccuracy:
    """
    The mean of both classes' accuracies, where a score at or above the threshold says "generated".
    """

    def __init__(self, threshold: float = 0.0) -> None:
        self._threshold = threshold

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One balanced accuracy per draw; NaN without either class.
        """
        told = Recall(positive=True, threshold=self._threshold)(weights, positive, score)
        cleared = Recall(positive=False, threshold=self._threshold)(weights, positive, score)
        both: Column = (told + cleared) / 2
        return both


class Recall:
    """
    The accuracy on one class alone.
    """

    def __init__(self, *, positive: bool, threshold: float = 0.0) -> None:
        self._of_positive = positive
        self._threshold = threshold

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One accuracy per draw; NaN without pictures of the class.
        """
        members = positive == self._of_positive
        right = (score >= self._threshold) == self._of_positive
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Column = (weights @ (members & right)).astype(np.float64) / (weights @ members)
        return share


def bootstrap(positive: Mask, draws: int, seed: int) -> Bootstrap:
    """
    ``draws`` draws of these pictures.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(positive)), np.float32)
    for members in (np.flatnonzero(positive), np.flatnonzero(~positive)):
        if len(members):
            even = np.full(len(members), 1 / len(members))
            weights[:, members] = rng.multinomial(len(members), even, size=draws)
    return Bootstrap(weights)


def _cumulated(weights: Draws, positive: Mask, score: Column) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Weight of positives and of negatives at or above each distinct score, highest first; float64[b, distinct].
    """
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    sorted_weights, sorted_positive = weights[:, order].astype(np.float64), positive[order]
    found = np.cumsum(sorted_weights * sorted_positive, axis=1)[:, ends]
    false = np.cumsum(sorted_weights * ~sorted_positive, axis=1)[:, ends]
    return found, false


def _interval(value: float, drawn: Column) -> Interval:
    usable = drawn[np.isfinite(drawn)]
    if not np.isfinite(value):
        return NOT_MEASURED
    if not len(usable):
        return Interval(value)
    low, high = np.percentile(usable, [LOW_PERCENT, HIGH_PERCENT])
    return Interval(value, float(low), float(high))
