"""
How far the latest uploads have moved from what the judgement was calibrated on. It is watched, and changes no verdict.

The statistic is the distance of Kolmogorov and Smirnov: the largest gap between two cumulative distributions. It has
no bins to choose, is the same on any scale that keeps the order, whatever base rate a policy assumes, and has a
meaning here: scores are held against the calibration's reals, so of uploads of which a share s is generated, and whose
reals are as they were, it is at most s. More than that share can only be drift.
"""

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import numpy as np

from schemas.verdict import ImageVerdictV1
from schemas.wire import round_significant
from worker.heads.features import Column
from worker.judgement.calibration import prior_shift, sigmoid
from worker.judgement.model import FittedJudgement

WINDOW: Final = 2_000
"""The latest uploads that are looked at: chance alone moves the distance of so many by 0.04 at most, 19 times in 20."""

LEAST: Final = 200
"""Fewer say nothing: chance alone moves the distance of these by 0.1."""

Of = Literal["score", "distance"]


@dataclass(frozen=True, slots=True, eq=False)
class Calibrated:
    """
    What a fitted judgement was calibrated on, as verdicts would tell it; sorted, float64 each.

    ``id`` is the judgement's. ``scores``: probabilities of the positive label among the reals, where it has the share
    ``base_rate`` among uploads. ``coverage``: the p-values that pictures like the bank's come to, since that is how
    verdicts tell distances.
    """

    id: str
    base_rate: float
    scores: Column = field(repr=False)
    coverage: Column = field(repr=False)

    @classmethod
    def of(cls, judgement: FittedJudgement, *, grey_zone: tuple[float, float], base_rate: float) -> Self:
        """
        What this judgement was calibrated on, under a policy's grey zone and base rate.
        """
        places = len(judgement.coverage.distance) + 1
        log_odds = judgement.real_log_odds(grey_zone)
        scores = sigmoid(prior_shift(log_odds, calibrated=judgement.base_rate, deployed=base_rate))
        return cls(
            id=judgement.id,
            base_rate=base_rate,
            scores=np.sort(_as_told(scores)),
            coverage=_as_told(np.arange(1, places + 1) / places),
        )

    def score_quantiles(self, quantiles: tuple[float, ...]) -> Mapping[float, float]:
        """
        Quantiles of the scores.
        """
        return dict(zip(quantiles, np.quantile(self.scores, quantiles).tolist(), strict=True))


def ks_distance(reference: Column, sample: Column) -> float:
    """
    The largest gap between two cumulative distributions, 0 to 1; the reference is sorted and neither is empty.
    """
    ordered = np.sort(sample)
    at = np.concatenate([reference, ordered])
    below_reference = np.searchsorted(reference, at, side="right") / len(reference)
    below_sample = np.searchsorted(ordered, at, side="right") / len(ordered)
    return float(np.abs(below_reference - below_sample).max())


@dataclass(frozen=True, slots=True)
class Drift:
    """
    How far the latest ``samples`` uploads are from the calibration; ``ks`` is None while there are too few.
    """

    of: Of
    samples: int
    ks: float | None


class DriftWatch:
    """
    A window over the latest verdicts. Any thread may call any method; each holds the lock for a copy at most.
    """

    def __init__(self, *, window: int = WINDOW, least: int = LEAST) -> None:
        self._least = least
        self._lock = threading.Lock()
        self._calibrated: Calibrated | None = None
        self._seen: dict[Of, deque[float]] = {"score": deque(maxlen=window), "distance": deque(maxlen=window)}

    def hold_against(self, calibrated: Calibrated | None) -> None:
        """
        Compare with this calibration from now on; another one than before begins with an empty window.
        """
        with self._lock:
            if calibrated is None or self._calibrated is None or calibrated.id != self._calibrated.id:
                for seen in self._seen.values():
                    seen.clear()
            self._calibrated = calibrated

    def saw(self, verdict: ImageVerdictV1) -> None:
        """
        Take a verdict into the window, if the calibration that is held against is its own.
        """
        calibration, probability = verdict.calibration, verdict.outcome.probability
        if calibration is None or probability is None:
            return
        with self._lock:
            held = self._calibrated
            if held is None or (held.id, held.base_rate) != (calibration.id, calibration.base_rate):
                return
            self._seen["score"].append(probability)
            self._seen["distance"].append(calibration.coverage_p)

    def drift(self) -> list[Drift]:
        """
        The drift of scores and of distances; nothing without a calibration.
        """
        with self._lock:
            calibrated = self._calibrated
            copies: dict[Of, list[float]] = {of: list(seen) for of, seen in self._seen.items()}
        if calibrated is None:
            return []
        references: dict[Of, Column] = {"score": calibrated.scores, "distance": calibrated.coverage}
        return [self._drift_of(of, references[of], copies[of]) for of in references]

    def _drift_of(self, of: Of, reference: Column, seen: list[float]) -> Drift:
        if len(seen) < self._least or not len(reference):
            return Drift(of, len(seen), None)
        return Drift(of, len(seen), ks_distance(reference, np.array(seen)))


def _as_told(values: Column) -> Column:
    """
    Rounded as verdicts round, so that what is equal in the calibration is equal to the same score in a verdict.
    """
    return np.array([round_significant(float(value)) for value in values])
