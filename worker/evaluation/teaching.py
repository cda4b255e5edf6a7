"""
How fast a new generator is learnt: held out whole, then 10, 50, 100 of its pictures among the references.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.bank.survey import Progress, no_progress
from worker.evaluation.dataset import UNNAMED, Sample
from worker.evaluation.scores import FUSED, Fit
from worker.heads.features import Column, References

STEPS: Final = (0, 10, 50, 100)
LEAST_JUDGED: Final = 10
"""So many pictures of the generator are never taught."""

REALS_HELD_OUT: Final = 0.2
MOST_GENERATORS: Final = 3


@dataclass(frozen=True, slots=True)
class TaughtStep:
    """
    After so many pictures were taught: the share of the generator's other pictures told, and of held-out reals cleared.
    """

    taught: int
    recall: float
    real_accuracy: float


@dataclass(frozen=True, slots=True)
class TeachingCurve:
    """
    One generator: how many of its pictures are judged at every step (the same ones), how many reals, and the steps.
    """

    generator: str
    judged: int
    reals: int
    steps: tuple[TaughtStep, ...]


def teach(
    references: References, samples: Sequence[Sample], fit: Fit, *, seed: int = 0, progress: Progress = no_progress
) -> tuple[TeachingCurve, ...]:
    """
    A curve for each of the generators with most pictures, chosen by that alone; () where none has enough.

    Reals are held out at random and not by source: how a new source of reals fares is the split's affair.
    """
    positive = references.positive
    counts = Counter(sample.generator for sample in samples if sample.positive and sample.generator != UNNAMED)
    enough = [name for name, count in counts.most_common() if count >= STEPS[1] + LEAST_JUDGED]
    names = [name for name in enough if len(counts) > 1][:MOST_GENERATORS]
    rng = np.random.default_rng(seed)
    reals = rng.permutation(np.flatnonzero(~positive))
    held_reals, kept_reals = np.split(reals, [max(1, round(REALS_HELD_OUT * len(reals)))])
    curves = []
    for done, name in enumerate(names):
        progress("teaching", done, len(names))
        own = rng.permutation(
            [row for row, sample in enumerate(samples) if sample.positive and sample.generator == name]
        )
        others = [row for row, sample in enumerate(samples) if sample.positive and sample.generator != name]
        steps = [step for step in STEPS if step <= len(own) - LEAST_JUDGED]
        judged = own[steps[-1] :]
        taught = []
        for step in steps:
            train = np.sort(np.concatenate([kept_reals, np.array(others, np.int64), own[:step]]))
            scorer = fit(references.take(train))
            told = scorer(references.features.take(judged)).columns[FUSED]
            cleared = scorer(references.features.take(held_reals)).columns[FUSED]
            taught.append(TaughtStep(step, _share(told >= 0), _share(cleared < 0)))
        curves.append(TeachingCurve(name, len(judged), len(held_reals), tuple(taught)))
    progress("teaching", len(names), len(names))
    return tuple(curves)


def _share(right: Column | np.ndarray) -> float:
    return float(np.mean(right))
