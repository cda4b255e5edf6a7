"""
The class-weighted soft vote as array arithmetic: the log-odds of the positive label from the nearest of either class.

``worker.stages.vote`` says the same of one neighbourhood at a time, with its voters; a test holds the two together.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, Mask
from worker.heads.reference_bank import ABSENT, ClassSizes, Nearest, NearestOfClass

MAX_DEPTH: Final = 4096
"""The most neighbours asked of one class, and the most that vote; as in ``worker.stages.vote``."""

SAME: Final = 1e-6
"""Similarities no further apart are equal: float32 products of equal vectors differ by less, with the batch."""

_NOTHING: Final = -np.inf


def vote_depth(k: int, sizes: ClassSizes) -> int:
    """
    How many of the most similar references vote: K = round(k * N / min N_c), at most ``MAX_DEPTH``.

    Both classes must have a reference.
    """
    return min(round(k * (sizes.positive + sizes.negative) / min(sizes.positive, sizes.negative)), MAX_DEPTH)


def vote_log_odds(nearest: Nearest, sizes: ClassSizes, *, k: int, temperature: float) -> Column:
    """
    Log-odds of the positive label, float64[n], by the class-weighted soft vote.

    Class c gets the sum of exp(s / T) / N_c over its references among the K most similar of both classes, those as
    similar as the K-th with them (within ``SAME``), and one pseudo-neighbour at the K-th similarity that weighs
    1 / min N_c, so that the odds stay finite. ``nearest`` must be at least ``vote_depth`` deep. NaN for every picture
    where a class of the bank is empty.
    """
    count = len(nearest.positive.similarity)
    if not min(sizes.positive, sizes.negative):
        return np.full(count, np.nan)
    positive, negative = _present(nearest.positive), _present(nearest.negative)
    last = nth_similarity(positive, negative, n=vote_depth(k, sizes))
    log_pseudo = last / temperature - np.log(min(sizes.positive, sizes.negative))
    return _log_weight(positive, last, log_pseudo, temperature, sizes.positive) - _log_weight(
        negative, last, log_pseudo, temperature, sizes.negative
    )


def pooled_difference(nearest: Nearest, k: int) -> Column:
    """
    Share of positive minus share of other votes among the k nearest of both classes, float64[n], -1.5 to 1.5.

    References as similar as the k-th vote with it. Where the votes are level the summed similarities decide: half their
    mean difference is added, which is less than one vote. Above 0 means positive.
    """
    positive, negative = _present(nearest.positive), _present(nearest.negative)
    last = nth_similarity(positive, negative, n=k)[:, np.newaxis]
    votes_for, votes_against = positive >= last - SAME, negative >= last - SAME
    voters = np.maximum(votes_for.sum(axis=1) + votes_against.sum(axis=1), 1)
    similarity = _summed(positive, votes_for) - _summed(negative, votes_against)
    ahead = votes_for.sum(axis=1) - votes_against.sum(axis=1)
    difference: Column = (ahead + similarity / (2 * voters)) / voters
    return difference


def nth_similarity(positive: Column, negative: Column, *, n: int) -> Column:
    """
    The similarity of the n-th nearest of both classes, float64[rows]; of the last where there are fewer.
    """
    descending = -np.sort(-np.concatenate([positive, negative], axis=1), axis=1)
    present = (descending != _NOTHING).sum(axis=1)
    place = np.clip(present, 1, n) - 1
    found: Column = np.take_along_axis(descending, place[:, np.newaxis], axis=1)[:, 0]
    return found


def _present(found: NearestOfClass) -> NDArray[np.float64]:
    return np.where(found.rows == ABSENT, _NOTHING, found.similarity.astype(np.float64))


def _summed(similarity: Column, voting: Mask) -> Column:
    total: Column = np.where(voting, similarity, 0.0).sum(axis=1)
    return total


def _log_weight(similarity: Column, last: Column, log_pseudo: Column, temperature: float, size: int) -> Column:
    log_weight = np.where(
        similarity >= last[:, np.newaxis] - SAME, similarity / temperature - np.log(size), _NOTHING
    )  # what does not vote weighs exp(-inf)
    terms = np.concatenate([log_weight, log_pseudo[:, np.newaxis]], axis=1)
    peak = terms.max(axis=1, keepdims=True)  # the largest exponent is 0: nothing overflows
    log_sum: Column = peak[:, 0] + np.log(np.exp(terms - peak).sum(axis=1))
    return log_sum
