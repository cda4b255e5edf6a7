"""
What may be promised of false positives: conformal p-values against calibration reals, whole or by kind of file.

Split conformal p-values as in Bates et al., "Testing for outliers with conformal p-values" (2023); no scores are made
here, and no policy is applied.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Self

import numpy as np
from scipy.special import betainc

from worker.errors import ConfigInvalid
from worker.heads.features import Column, Mask
from worker.heads.reference_bank import Nearest

MIN_BUCKET: Final = 100
"""Calibration reals that a kind of file needs for a threshold of its own; with fewer, all reals together are asked."""

POOLED: Final = "all"
"""Name of the bucket that holds every calibration real."""

_BANDS_PX: Final = ((512.0, "<512"), (1024.0, "512-1023"), (math.inf, ">=1024"))


class TooFewReals(ConfigInvalid):
    """
    The calibration holds too few reals to promise so few false positives.
    """


def bucket_of(image_format: str | None, short_side_px: float) -> str:
    """
    The kind of a file: ``JPEG``, ``other`` or ``unknown``, and the band of its short side, such as ``JPEG/<512``.
    """
    kind = "unknown" if image_format is None else "JPEG" if image_format.upper() in {"JPEG", "JPG", "MPO"} else "other"
    band = next((name for below, name in _BANDS_PX if short_side_px < below), "unknown")
    return f"{kind}/{band}"


def conformal_p(calibration: Column, scores: Column) -> Column:
    """
    ``(1 + #{calibration >= score}) / (n + 1)`` for each score; float64, never 0.

    Under exchangeability of a picture with the calibration's, P(p <= alpha) <= alpha for every alpha.
    """
    ordered = np.sort(calibration)
    at_least = len(ordered) - np.searchsorted(ordered, scores, side="left")
    p: Column = np.asarray((1.0 + at_least) / (len(ordered) + 1.0), dtype=np.float64)
    return p


@dataclass(frozen=True, slots=True, eq=False)
class RealScores:
    """
    Fused scores of the calibration's reals, which a new score is ranked among.

    ``full`` float64[n] with every head, ``cheap`` float64[n] with those that need no further encoding; equal where
    there is no such head. ``bucket`` names the kind of each real's file. ``least`` is how many reals a kind of file
    needs to answer for itself, never under ``MIN_BUCKET``; see ``serving``.
    """

    full: Column = field(repr=False)
    cheap: Column = field(repr=False)
    bucket: tuple[str, ...] = field(repr=False)
    least: int = MIN_BUCKET

    def __post_init__(self) -> None:
        if not len(self.full) == len(self.cheap) == len(self.bucket):
            raise ValueError(
                f"scores of reals have lengths {len(self.full)}, {len(self.cheap)} and {len(self.bucket)}, want one"
            )

    def serving(self, alpha: float, delta: float | None) -> Self:
        """
        The same reals, where a kind of file with too few of them for this alpha is answered by all.

        ``alpha`` and ``delta`` as in ``largest_flagged_p``. The promise for such a kind is then that of all kinds
        together, which the bucket of its p-values says.
        """
        return replace(self, least=max(MIN_BUCKET, reals_needed(alpha, delta)))

    def served_by(self, bucket: str) -> str:
        """
        The bucket whose reals answer for this kind of file: its own when it has ``least`` of them, else all.
        """
        return bucket if self.bucket.count(bucket) >= max(MIN_BUCKET, self.least) else POOLED

    def size(self, bucket: str) -> int:
        """
        Calibration reals in a bucket; ``POOLED`` names all.
        """
        return len(self.bucket) if bucket == POOLED else self.bucket.count(bucket)

    def p_values(self, scores: Column, buckets: Sequence[str], *, reference: Column) -> tuple[Column, tuple[str, ...]]:
        """
        For each score its p-value among ``reference`` (``full``, ``cheap`` or a mixture), and the bucket that it is of.

        Conditional on the kind of file where it has a bucket of its own (Mondrian). The pooled p-value promises its
        alpha over all kinds together only, which is less than for the kind at hand.
        """
        kinds = np.asarray(self.bucket)
        served = {bucket: self.served_by(bucket) for bucket in set(buckets)}
        names = tuple(served[bucket] for bucket in buckets)
        asked = np.asarray(names)
        p = np.ones(len(scores))
        for name in set(names):
            among = reference if name == POOLED else reference[kinds == name]
            p[asked == name] = conformal_p(among, scores[asked == name])
        return p, names


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
