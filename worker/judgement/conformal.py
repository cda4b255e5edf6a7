"""
Conformal p-values, and which of them may be flagged; how far a picture lies from the bank.

Split conformal p-values as in Bates et al., "Testing for outliers with conformal p-values" (2023); no scores are made
here, and no policy is applied. Which calibration reals are ranked among is ``worker.judgement.real_scores``.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from worker.errors import ConfigInvalid
from worker.heads.features import Column, Mask
from worker.heads.reference_bank import Nearest


class TooFewReals(ConfigInvalid):
    """
    The calibration holds too few reals to promise so few false positives.
    """


def conformal_p(calibration: Column, scores: Column) -> Column:
    """
    ``(1 + #{calibration >= score}) / (n + 1)`` for each score; float64, never 0.

    Under exchangeability of a picture with the calibration's, P(p <= alpha) <= alpha for every alpha.
    """
    ordered = np.sort(calibration)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    p: Column = np.asarray((1.0 + at_least) / (len(ordered) + 1.0), dtype=np.float64)
    return p


def flagged_ranks(n: int, alpha: float, delta: float | None) -> int | None:
    """
    The largest r such that flagging p <= (r + 1) / (n + 1) keeps false positives within alpha; None where none does.

    With ``delta`` None on average over calibrations: (r + 1) / (n + 1) <= alpha. With ``delta`` in all but that share
    of calibrations of n reals: the false-positive rate is Beta(r + 1, n - r), whose 1 - delta quantile must not exceed
    alpha (Vovk 2012, proposition 2a).
    """
    if delta is None:
        # The tolerance undoes the rounding of alpha * (n + 1), such as 0.07 * 100 = 7.000000000000001.
        return rank - 1 if (rank := math.floor(alpha * (n + 1) + 1e-9)) >= 1 else None
    from scipy.special import betainc  # noqa: PLC0415 - it takes 0.3 s to import, and few banks need it

    low, high = -1, n
    while high - low > 1:
        r = (low + high) // 2
        low, high = (r, high) if betainc(r + 1, n - r, alpha) >= 1 - delta else (low, r)
    return low if low >= 0 else None


def reals_needed(alpha: float, delta: float | None) -> int:
    """
    The fewest calibration reals with which anything may be flagged at this alpha.
    """
    if delta is None:
        return max(1, math.ceil(1 / alpha - 1 - 1e-9))
    return math.ceil(math.log(delta) / math.log1p(-alpha))


def largest_flagged_p(n: int, alpha: float, delta: float | None, what: str = "the calibration") -> float:
    """
    The largest p-value that may be flagged: alpha itself, or with ``delta`` the one that holds for this calibration.

    ``alpha`` and ``delta`` lie strictly between 0 and 1. Raises ``TooFewReals`` when n reals cannot support it.
    """
    for name, value in (("alpha", alpha), ("delta", delta)):
        if value is not None and not 0 < value < 1:
            raise ConfigInvalid(f"{name} is {value}, expected a number above 0 and below 1")
    ranks = flagged_ranks(n, alpha, delta)
    if ranks is None:
        confidence = "" if delta is None else f" with confidence {1 - delta:.4g}"
        raise TooFewReals(
            f"{what} has {n} reals, but a false-positive rate of {alpha:.4g}{confidence} needs at least "
            f"{reals_needed(alpha, delta)}; calibrate on more reals, or ask for a larger alpha"
        )
    return alpha if delta is None else (ranks + 1) / (n + 1)


def smallest_alpha(n: int) -> float:
    """
    The smallest alpha that n calibration reals support on average; 1 / (n + 1).
    """
    return 1 / (n + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Coverage:
    """
    How far pictures like those of the bank lie from it: ``distance`` float64[m], cosine distances to the ``k``-th.
    """

    k: int
    distance: Column = field(repr=False)

    def p_values(self, distance: Column) -> Column:
        """
        Conformal p under "it is like what the bank holds"; small is far from everything.
        """
        return conformal_p(self.distance, distance)


def kth_distance(nearest: Nearest, k: int) -> Column:
    """
    1 - cosine to the k-th nearest of both classes together, float64[n]; 2 where there are fewer than k.
    """
    both = np.concatenate([nearest.positive.similarity, nearest.negative.similarity], axis=1)
    kth: Column = 1.0 - np.sort(both, axis=1)[:, -k].astype(np.float64)
    return kth


def in_zone(probability: Column, low: float, high: float) -> Mask:
    """
    Which probabilities lie between the two, both included.
    """
    inside: Mask = (probability >= low) & (probability <= high)
    return inside
