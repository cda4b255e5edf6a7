"""
Average precision, area under the ROC and accuracy of many bootstrap draws at once, and intervals from them.

A draw is a row of weights: how often each picture was drawn. Nothing here knows what a head is. How draws are made is
``worker.evaluation.drawing``.
"""

from collections.abc import Callable, Sequence
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
    A number with the 95 % intervals of its bootstraps; None where the pictures do not support it.

    ``low`` and ``high``: other pictures, drawn for these very sources. ``low_sources`` and ``high_sources``: other
    sources, and then other pictures of each; None where that was not drawn, or there is one source only.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    low_sources: float | None = None
    high_sources: float | None = None

    @property
    def widest(self) -> tuple[float, float] | None:
        """
        Both intervals together; None where there is none.
        """
        if self.low is None or self.high is None:
            return None
        low_sources = self.low if self.low_sources is None else self.low_sources
        high_sources = self.high if self.high_sources is None else self.high_sources
        return min(self.low, low_sources), max(self.high, high_sources)


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

    ``of_sources`` float32[b, n]: sources drawn with replacement, then pictures of each; None where there is one only.
    """

    draws: Draws = field(repr=False)
    of_sources: Draws | None = field(default=None, repr=False)

    def of(self, positive: Mask, statistic: Statistic, score: Column) -> Interval:
        """
        A statistic of a column with its percentile intervals.
        """
        return self._intervals(lambda weights: statistic(weights, positive, score), len(positive))

    def difference(self, positive: Mask, statistic: Statistic, ours: Column, theirs: Column) -> Interval:
        """
        How much larger a statistic is of one column than of another, on the same draws (paired).
        """
        return self._intervals(
            lambda weights: statistic(weights, positive, ours) - statistic(weights, positive, theirs), len(positive)
        )

    def _intervals(self, found: Callable[[Draws], Column], n: int) -> Interval:
        value = float(found(np.ones((1, n), np.float32))[0])
        if not np.isfinite(value):
            return NOT_MEASURED
        low, high = _percentiles(found(self.draws))
        sources = (None, None) if self.of_sources is None else _percentiles(found(self.of_sources))
        return Interval(value, low, high, *sources)


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
    The mean of both classes' accuracies, where a score above the threshold says "generated".
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


class MeanOverSets:
    """
    A statistic of every held-out set on its own, averaged, each set counting once: as papers average over test sets.

    Scores of different sets are not compared, so that an offset between two sources is no error. Sets without both
    classes are left out. A draw in which a source was drawn twice counts it once, which widens intervals a little.
    """

    def __init__(self, statistic: Statistic, names: Sequence[str]) -> None:
        self._statistic = statistic
        found = np.array(names, dtype=object)
        self._sets = [found == name for name in sorted(set(names))]

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One mean per draw; NaN where no set has both classes.
        """
        columns = [self._of_set(weights[:, members], positive[members], score[members]) for members in self._sets]
        of_sets = np.stack(columns, axis=1)
        known = np.isfinite(of_sets)
        with np.errstate(invalid="ignore"):
            mean: Column = np.where(known, of_sets, 0.0).sum(axis=1) / known.sum(axis=1)
        return mean

    def _of_set(self, weights: Draws, positive: Mask, score: Column) -> Column:
        found = self._statistic(weights, positive, score)
        # Average precision of a set without reals is 1, and says nothing.
        both = (weights[:, positive].sum(axis=1) > 0) & (weights[:, ~positive].sum(axis=1) > 0)
        return np.where(both, found, np.nan)


class Recall:
    """
    The accuracy on one class alone; see ``credit``.
    """

    def __init__(self, *, positive: bool, threshold: float = 0.0) -> None:
        self._of_positive = positive
        self._threshold = threshold

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:
        """
        One accuracy per draw; NaN without pictures of the class.
        """
        members = positive == self._of_positive
        right = credit(score - self._threshold, np.full(len(score), self._of_positive))
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Column = (weights @ (members * right)).astype(np.float64) / (weights @ members)
        return share


class Share:
    """
    Of the members, the mean of what they score.
    """

    def __init__(self, members: Mask) -> None:
        self._members = members

    def __call__(self, weights: Draws, positive: Mask, score: Column) -> Column:  # noqa: ARG002 - a Statistic has labels
        """
        One mean per draw; NaN where a draw has no member.
        """
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Column = (weights @ (self._members * score)).astype(np.float64) / (weights @ self._members)
        return share


def credit(score: Column, positive: Mask) -> Column:
    """
    How right each decision is, float64[n]: above 0 says "generated", below 0 "real".

    A score of exactly 0 decides nothing, and so does one that is missing: half right, whatever the label is.
    """
    right: Column = 0.5 * (1 + np.sign(score) * np.where(positive, 1.0, -1.0))
    return right


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


def _percentiles(drawn: Column) -> tuple[float, float] | tuple[None, None]:
    usable = drawn[np.isfinite(drawn)]
    if not len(usable):
        return None, None
    low, high = np.percentile(usable, [LOW_PERCENT, HIGH_PERCENT])
    return float(low), float(high)
