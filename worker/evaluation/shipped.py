"""
What the three-way outcome under the policy was worth: the numbers of what ships, threshold, margin and coverage in it.

How an outcome comes about is ``worker.evaluation.fitted``; how scores rank is ``worker.evaluation.measures``.
"""

from dataclasses import dataclass

import numpy as np

from worker.evaluation.resampling import NOT_MEASURED, BalancedAccuracy, Bootstrap, Interval, Recall, Share
from worker.evaluation.scores import CALLED_GENERATED, CALLED_REAL, CALLED_UNCERTAIN, Scores
from worker.heads.features import Mask


@dataclass(frozen=True, slots=True)
class Outcomes:
    """
    How many pictures were called what, and which share of all was not decided; None where nothing could be promised.
    """

    generated: int | None
    real: int | None
    uncertain: int | None
    accuracy_decided: float | None
    abstain_rate: float | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Shipped:
    """
    Accuracy of the three-way outcome under the policy.

    In ``real_accuracy``, ``fake_accuracy`` and their mean ``balanced_accuracy`` a picture of which nothing is decided
    counts half, as a coin would do; ``accuracy_of_decided`` leaves such pictures out, ``decided_share`` counts the
    others. ``tpr_at_alpha``: of generated pictures the share whose p-value is at most the flag threshold. Nothing of it
    is measured where a fold could not support the guarantee; ``reason`` says why.
    """

    real_accuracy: Interval = NOT_MEASURED
    fake_accuracy: Interval = NOT_MEASURED
    balanced_accuracy: Interval = NOT_MEASURED
    tpr_at_alpha: Interval = NOT_MEASURED
    decided_share: Interval = NOT_MEASURED
    accuracy_of_decided: Interval = NOT_MEASURED
    reason: str | None = None


def shipped_of(scores: Scores, positive: Mask, draws: Bootstrap) -> Shipped:
    """
    The numbers of held-out pictures with their bootstrap intervals.
    """
    reason = reason_of(scores)
    if reason is not None:
        return Shipped(reason=reason)
    words = np.array(scores.outcome, dtype=object)
    said = (words == CALLED_GENERATED).astype(np.float64) - (words == CALLED_REAL)
    decided = words != CALLED_UNCERTAIN
    right = ((words == CALLED_GENERATED) == positive).astype(np.float64)
    everyone = np.ones(len(scores), dtype=bool)
    return Shipped(
        real_accuracy=draws.of(positive, Recall(positive=False), said),
        fake_accuracy=draws.of(positive, Recall(positive=True), said),
        balanced_accuracy=draws.of(positive, BalancedAccuracy(), said),
        tpr_at_alpha=draws.of(positive, Share(positive), scores.flagged.astype(np.float64)),
        decided_share=draws.of(positive, Share(everyone), decided.astype(np.float64)),
        accuracy_of_decided=draws.of(positive, Share(decided), right),
    )


def outcomes_of(scores: Scores, positive: Mask) -> Outcomes:
    """
    The three-way outcomes of held-out pictures, counted.
    """
    reason = reason_of(scores)
    if reason is not None:
        return Outcomes(None, None, None, None, None, reason)
    words = np.array(scores.outcome, dtype=object)
    decided = words != CALLED_UNCERTAIN
    right = (words == CALLED_GENERATED) == positive
    return Outcomes(
        generated=int((words == CALLED_GENERATED).sum()),
        real=int((words == CALLED_REAL).sum()),
        uncertain=int((~decided).sum()),
        accuracy_decided=float(np.mean(right[decided])) if decided.any() else None,
        abstain_rate=float(np.mean(~decided)) if len(decided) else None,
    )


def reason_of(scores: Scores) -> str | None:
    """
    Why no false-positive rate is stated of these pictures; None where every fold could support its guarantee.
    """
    if not scores.refusals:
        return None
    more = len(scores.refusals) - 1
    return scores.refusals[0] + (f" (and {more} more like it)" if more else "")
