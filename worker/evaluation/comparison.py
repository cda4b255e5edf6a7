"""
Is the fused score better than one head, or than the paper's own rule? A paired bootstrap says, or says that it cannot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from worker.evaluation.measures import ScoreColumn
from worker.evaluation.resampling import AveragePrecision, BalancedAccuracy, Bootstrap, Interval, MeanOverSets
from worker.heads.features import Mask

Better = Literal["yes", "no", "too few to tell"]

LEAST_OF_CLASS: Final = 20
"""With fewer pictures of either class no comparison is attempted."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    By how much one column is above another, on the same draws, in average precision and in balanced accuracy.

    ``mean_ap``: average precision of each held-out set, averaged.

    Rows are not corrected for being many: of twenty that are no different, one may say "yes" or "no" by chance.
    """

    name: str
    ap: Interval
    mean_ap: Interval
    balanced_accuracy: Interval
    better_ap: Better
    better_mean_ap: Better
    better_accuracy: Better


def compare(
    ours: ScoreColumn, others: Sequence[ScoreColumn], positive: Mask, draws: Bootstrap, *, held_out: Sequence[str]
) -> list[Comparison]:
    """
    ``ours`` against each of the others; ``held_out`` names the set that each picture was held out with.
    """
    in_sets = MeanOverSets(AveragePrecision(), held_out)
    enough = min(int(positive.sum()), int((~positive).sum())) >= LEAST_OF_CLASS
    rows = []
    for other in others:
        ap = draws.difference(positive, AveragePrecision(), ours.filled, other.filled)
        mean_ap = draws.difference(positive, in_sets, ours.filled, other.filled)
        accuracy = draws.difference(positive, BalancedAccuracy(), ours.filled, other.filled)
        better = [verdict(one, enough=enough) for one in (ap, mean_ap, accuracy)]
        rows.append(Comparison(other.name, ap, mean_ap, accuracy, *better))
    return rows


def verdict(difference: Interval, *, enough: bool) -> Better:
    """
    "yes" where both intervals, over pictures and over sources, are above 0, "no" where they are below.

    Else there are too few pictures, or too few sources, to tell.
    """
    widest = difference.widest
    if not enough or widest is None:
        return "too few to tell"
    low, high = widest
    if low > 0:
        return "yes"
    return "no" if high < 0 else "too few to tell"
