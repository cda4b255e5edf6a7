"""
How fast a new generator is learnt: held out whole, then 10, 50, 100 of its pictures among the references.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.bank.survey import Progress, no_progress
from worker.errors import ConfigInvalid
from worker.evaluation.dataset import UNNAMED, Sample
from worker.evaluation.resampling import credit
from worker.evaluation.scores import FUSED, Fit, Scorer
from worker.heads.features import FeatureTable, References

STEPS: Final = (0, 10, 50, 100)
LEAST_JUDGED: Final = 10
"""So many pictures of the generator are never taught."""

REALS_HELD_OUT: Final = 0.2
MOST_GENERATORS: Final = 2
"""Every step is a fit; who wants more generators names them."""


@dataclass(frozen=True, slots=True)
class TaughtStep:
    """
    After so many pictures were taught: the share of the generator's other pictures told, and of held-out reals cleared.

    Both None where the generator has too few pictures for the step.
    """

    taught: int
    recall: float | None = None
    real_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class TeachingCurve:
    """
    One generator: how many of its pictures are judged at every step (the same ones), how many reals, and the steps.
    """

    generator: str
    judged: int
    reals: int
    steps: tuple[TaughtStep, ...]


@dataclass(frozen=True, slots=True)
class Teaching:
    """
    The curves, and why a generator has none.
    """

    curves: tuple[TeachingCurve, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pupils:
    """
    Which generators to teach: those named, else those with most pictures. A score is never looked at to choose.
    """

    named: tuple[str, ...] = ()
    seed: int = 0


def teach(
    references: References,
    samples: Sequence[Sample],
    fit: Fit,
    *,
    pupils: Pupils | None = None,
    progress: Progress = no_progress,
) -> Teaching:
    """
    A curve for each chosen generator that has enough pictures, and a note for each that has not.

    Reals are held out at random and not by source: how a new source of reals fares is the split's affair. Raises
    ``ConfigInvalid`` for a named generator that the pictures do not have.
    """
    pupils = pupils or Pupils()
    names, notes = _chosen(samples, pupils.named)
    positive = references.positive
    rng = np.random.default_rng(pupils.seed)
    reals = rng.permutation(np.flatnonzero(~positive))
    held_reals, kept_reals = np.split(reals, [max(1, round(REALS_HELD_OUT * len(reals)))])
    curves = []
    for done, name in enumerate(names):
        progress("teaching", done, len(names))
        is_own = np.array([sample.positive and sample.generator == name for sample in samples])
        own = rng.permutation(np.flatnonzero(is_own))
        others = np.concatenate([kept_reals, np.flatnonzero(positive & ~is_own)])
        possible = [step for step in STEPS if step <= len(own) - LEAST_JUDGED]
        judged = own[possible[-1] :]
        steps = []
        for step in possible:
            scorer = fit(references.take(np.sort(np.concatenate([others, own[:step]]))))
            told = _right(scorer, references.features.take(judged), positive=True)
            cleared = _right(scorer, references.features.take(held_reals), positive=False)
            steps.append(TaughtStep(step, told, cleared))
        steps += [TaughtStep(step) for step in STEPS if step not in possible]
        curves.append(TeachingCurve(name, len(judged), len(held_reals), tuple(steps)))
    progress("teaching", len(names), len(names))
    return Teaching(tuple(curves), notes)


def _chosen(samples: Sequence[Sample], named: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    counts = Counter(sample.generator for sample in samples if sample.positive)
    known = sorted((name for name in counts if name != UNNAMED), key=lambda name: (-counts[name], name))
    strangers = sorted(set(named) - set(known))
    if strangers:
        raise ConfigInvalid(f"--teach {strangers[0]}: no picture names it; there are {', '.join(known) or 'none'}")
    if len(counts) < 2:  # noqa: PLR2004 - one to teach, one to learn from before
        return [], (f"{len(counts)} generator among the pictures: another is needed to learn from before",)
    wanted = list(dict.fromkeys(named)) or known[:MOST_GENERATORS]
    least = STEPS[1] + LEAST_JUDGED
    if not wanted:
        return [], ("no picture names its generator, so none can be taught",)
    notes = [
        f"{name} has {counts[name]} pictures: too few to teach it, which takes at least {least}"
        for name in wanted
        if counts[name] < least
    ]
    return [name for name in wanted if counts[name] >= least], tuple(notes)


def _right(scorer: Scorer, features: FeatureTable, *, positive: bool) -> float:
    score = scorer(features).column(FUSED).filled
    return float(np.mean(credit(score, np.full(len(score), positive))))
