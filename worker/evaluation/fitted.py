"""
The real fit of a fold: a judgement learnt from the training references, with an out-of-fold calibration.

Its threshold and its false-positive bound are learnt from the training references too, as in a shipped bank.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

import numpy as np

from worker.assessment import Assessment
from worker.evaluation.scores import CALLED_GENERATED, CALLED_REAL, CALLED_UNCERTAIN, FUSED, PLAIN_KNN, Scorer, Scores
from worker.fitting.fit import FitPlan, fit_judgement
from worker.heads.features import Column, FeatureTable, References
from worker.heads.reference_bank import ExactBank
from worker.judgement.calibration import prior_shift, sigmoid
from worker.judgement.conformal import TooFewReals
from worker.judgement.model import FittedJudgement
from worker.judgement.real_scores import RealScores
from worker.policy import Rule, SurfacePolicy

NOTHING_FLAGGED = -1.0


@dataclass(frozen=True, slots=True)
class FitFold:
    """
    Implements ``worker.evaluation.scores.Fit``; the rule and the surface are those of the policy that is evaluated.
    """

    rule: Rule
    surface: SurfacePolicy
    plan: FitPlan = field(default_factory=FitPlan, repr=False)
    positive: str = "ai_generated"
    negative: str = "real"

    def __call__(self, train: References) -> Scorer:
        """
        A judgement fitted on these references alone, asked against them as its bank.
        """
        judgement = fit_judgement(train, plan=self.plan).judgement
        serving = judgement.serving(self.rule.alpha, self.rule.pac_delta, self.rule.guarantee)
        return FittedScorer(serving, ExactBank(train), self)


class FittedScorer:
    """
    A fitted judgement with its bank, as a function from features to scores.
    """

    def __init__(self, judgement: FittedJudgement, bank: ExactBank, terms: FitFold) -> None:
        self._judgement = judgement
        self._bank = bank
        self._terms = terms

    def __call__(self, features: FeatureTable) -> Scores:
        """
        What the judgement says of these pictures under the policy.

        The fused score looks at perturbed copies only of pictures in the policy's grey zone, as the worker does; the
        column of the head that they are for looks at all.
        """
        rule = self._terms.rule
        found = self._assessed(features)
        own = np.array([one.log_odds for one in found], dtype=np.float64)
        fused = prior_shift(own, calibrated=self._judgement.base_rate, deployed=rule.base_rate)
        buckets = {one.bucket for one in found}
        thresholds, refusals = self._flag_thresholds(self._judgement.reals, buckets)
        pooled, _ = self._flag_thresholds(replace(self._judgement.reals, guarantee="pooled"), buckets)
        flagged = np.array([one.p_value <= thresholds[one.bucket] for one in found], dtype=bool)
        outcome = [
            self._outcome(one, probability=float(probability), flagged=bool(flag))
            for one, probability, flag in zip(found, sigmoid(fused), flagged, strict=True)
        ]
        return Scores(
            columns={FUSED: fused, **self._heads(features), **self._plain_knn(features)},
            p_value=np.array([one.p_value for one in found], dtype=np.float64),
            coverage_p=np.array([one.coverage_p for one in found], dtype=np.float64),
            flagged=flagged,
            outcome=tuple(outcome),
            attributed=tuple(one.attribution.generator for one in found),
            refusals=refusals,
            pooled_flagged=np.array([_bucket_p(one) <= pooled[one.bucket] for one in found], dtype=bool),
            sources=self._judgement.reals.sources,
        )

    def _assessed(self, features: FeatureTable) -> list[Assessment]:
        if np.isnan(features.shift).all():
            return self._judgement.assess(features, self._bank)
        low, high = self._terms.rule.grey_zone
        doubtful = self._judgement.in_grey_zone(features.without_shift(), self._bank, low, high)
        seen = replace(features, shift=np.where(doubtful[:, np.newaxis], features.shift, np.nan))
        return self._judgement.assess(seen, self._bank, grey_zone=(low, high))

    def _flag_thresholds(
        self, reals: RealScores, buckets: AbstractSet[str]
    ) -> tuple[dict[str, float], tuple[str, ...]]:
        """
        The flag threshold of every bucket, and why some have none: there the worker would refuse to start.
        """
        rule = self._terms.rule
        thresholds: dict[str, float] = {}
        refusals = []
        for bucket in sorted(buckets):
            try:
                thresholds[bucket] = reals.largest_flagged(rule.alpha, rule.pac_delta, bucket)
            except TooFewReals as fault:
                thresholds[bucket] = NOTHING_FLAGGED
                refusals.append(str(fault))
        return thresholds, tuple(refusals)

    def _outcome(self, one: Assessment, *, probability: float, flagged: bool) -> str:
        """
        The three-way outcome on the surface, as ``worker.stages.reasons`` has it; limits on sides are left aside.
        """
        terms = self._terms
        generated = probability > 0.5  # noqa: PLR2004 - the likelier of two
        label = terms.positive if generated else terms.negative
        weight = probability if generated else 1 - probability
        near = one.coverage_p >= terms.rule.coverage_alpha
        margin = 2 * weight - 1
        clear = margin > 0 and margin >= terms.surface.min_margin
        clear = clear and weight >= terms.surface.labels[label].threshold
        if not (near and clear and flagged == generated):
            return CALLED_UNCERTAIN
        return CALLED_GENERATED if generated else CALLED_REAL

    def _heads(self, features: FeatureTable) -> dict[str, Column]:
        evidence = self._judgement.read(features, self._bank).evidence
        return {head.name: evidence[:, at] for at, head in enumerate(self._judgement.heads)}

    def _plain_knn(self, features: FeatureTable) -> dict[str, Column]:
        knn = next((head for head in self._judgement.heads if head.name == "knn"), None)
        if knn is None:
            return {}
        parts = knn.read(features, self._bank).parts
        return {name: column for name, column in parts.items() if PLAIN_KNN in name}


def _bucket_p(one: Assessment) -> float:
    return one.p_value if one.bucket_p is None else one.bucket_p
