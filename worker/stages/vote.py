"""
The rules that turn a neighbourhood into one weight per label: class-weighted soft vote and nearest neighbour.

Pure numbers; thresholds, actions and surfaces are in ``worker.policy`` and ``worker.stages.decide``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from worker.domain import Label, Neighbour, Neighbourhood

MAX_DEPTH: Final = 4096
"""The most neighbours asked of one label, and the most that vote."""

NO_NEIGHBOUR: Final = -1.0
"""The similarity that stands for a label of which the index found nothing: the least that a cosine can be."""


_ADDED_PAIRWISE: Final = 8
"""From so many numbers on numpy adds them in another order."""


class Voter(NamedTuple):
    """
    A neighbour that took part in the vote; ``share`` is its part of the whole vote, 0 to 1.
    """

    label: Label
    neighbour: Neighbour
    share: float


@dataclass(frozen=True, slots=True)
class SoftVote:
    """
    One share per label of the bank, which sum to 1, and who voted, most similar first.
    """

    shares: Mapping[Label, float]
    voters: tuple[Voter, ...]


def vote_depth(k: int, sizes: Mapping[Label, int]) -> int:
    """
    How many of the most similar references vote: ``k`` of the smallest label and its like of every other.

    K = round(k * N / min N_c), so that k references of the smallest label are expected among them where the labels mix.
    Beyond ``MAX_DEPTH`` (an imbalance over 450 : 1 at k = 9) the depth stays there: the weights 1 / N_c remain right,
    but fewer references of the smallest label are expected to be seen, and its share gets coarse. Balance such a bank.
    """
    return min(round(k * sum(sizes.values()) / min(sizes.values())), MAX_DEPTH)


def soft_vote(neighbourhood: Neighbourhood, *, k: int, temperature: float) -> SoftVote:
    """
    The class-weighted soft vote: label c gets the sum of exp(s / T) / N_c over its neighbours among the K most similar.

    It is a ratio of kernel densities, one per label; 1 / N_c takes the bank's imbalance out
    (tests/unit/test_decide_unbalanced.py shows what happens without).

    References as similar as the K-th vote with it, so that no order of labels or entries decides a tie. Each label also
    gets one pseudo-neighbour at the K-th similarity, so that no share is 0 or 1 merely because all K agree; it weighs
    1 / min N_c for every label alike, so that it favours neither a small nor a large one.

    Returns equal shares when there is no neighbour at all; ``decide`` abstains on it.
    """
    sizes = neighbourhood.sizes
    voters = _nearest_of_all(neighbourhood, vote_depth(k, sizes))
    if not voters:
        return SoftVote(dict.fromkeys(sizes, 1 / len(sizes)), ())
    # Numbers of Python's, but for the logarithms and exponentials: of so few, arrays take longer to make than to use.
    log_size = dict(zip(sizes, _logs(tuple(sizes.values())), strict=True))
    log_weight = [neighbour.similarity / temperature - log_size[label] for label, neighbour in voters]
    log_pseudo = voters[-1][1].similarity / temperature - min(log_size.values())
    peak = max(*log_weight, log_pseudo)  # the largest exponent is 0: nothing overflows
    weight = np.exp([one - peak for one in log_weight]).tolist()
    sums = dict.fromkeys(sizes, 0.0)
    for (label, _), part in zip(voters, weight, strict=True):
        sums[label] += part
    pseudo = math.exp(log_pseudo - peak)
    sums = {label: found + pseudo for label, found in sums.items()}
    total = _total(list(sums.values()))
    return SoftVote(
        {label: found / total for label, found in sums.items()},
        tuple([Voter(label, neighbour, part / total) for (label, neighbour), part in zip(voters, weight, strict=True)]),
    )


def _total(sums: list[float]) -> float:
    """
    Their sum, as numpy adds: so few from left to right, which takes a tenth of the time without it.
    """
    if len(sums) >= _ADDED_PAIRWISE:
        return float(np.sum(sums))
    total = sums[0]
    for one in sums[1:]:
        total += one
    return total


@lru_cache(maxsize=64)  # a bank has the same sizes for every upload
def _logs(sizes: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(np.log(np.array(sizes, dtype=np.float64)).tolist())


def nearest_neighbour_weights(neighbourhood: Neighbourhood, *, temperature: float) -> Mapping[Label, float]:
    """
    The paper's rule as weights: p_c = softmax of the largest similarity of each label, over T.

    The label of the one nearest reference wins (Ojha, Li and Lee, CVPR 2023, with k = 1), and for two labels p is a
    growing function of the difference of their largest similarities, 1/2 where they are equal. The paper's rule for
    more neighbours is not specified; this is k = 1. Bank sizes do not enter: it needs a balanced bank.
    """
    largest = {label: largest_similarity(neighbours) for label, neighbours in neighbourhood.nearest.items()}
    found = {label: value for label, value in largest.items() if value is not None}
    if not found:
        return dict.fromkeys(largest, 1 / len(largest))
    peak = max(found.values())
    weight = {
        label: math.exp((found[label] - peak) / temperature) if label in found else 0.0 for label in neighbourhood.sizes
    }
    total = math.fsum(weight.values())
    return {label: part / total for label, part in weight.items()}


def nearest_difference(neighbourhood: Neighbourhood, positive: Label) -> float:
    """
    The paper's score: largest similarity of the positive label minus the largest of any other, -2 to 2.
    """
    largest = {
        label: NO_NEIGHBOUR if (value := largest_similarity(neighbours)) is None else value
        for label, neighbours in neighbourhood.nearest.items()
    }
    return largest[positive] - max(value for label, value in largest.items() if label != positive)


def coverage(neighbourhood: Neighbourhood, k: int) -> float:
    """
    The similarity of the ``k``-th nearest reference, whatever its label; of the last where there are fewer, -1 of none.
    """
    similarities = sorted(
        (neighbour.similarity for neighbours in neighbourhood.nearest.values() for neighbour in neighbours[:k]),
        reverse=True,
    )
    return similarities[:k][-1] if similarities else NO_NEIGHBOUR


def largest_similarity(neighbours: tuple[Neighbour, ...]) -> float | None:
    """
    How similar the nearest one is; None of none.
    """
    return neighbours[0].similarity if neighbours else None


def _nearest_of_all(neighbourhood: Neighbourhood, depth: int) -> list[tuple[Label, Neighbour]]:
    union = [(label, neighbour) for label, neighbours in neighbourhood.nearest.items() for neighbour in neighbours]
    union.sort(key=_similarity, reverse=True)
    if len(set(map(_similarity, union))) < len(union):
        union.sort(key=lambda pair: (-pair[1].similarity, pair[1].entry.id))
    if len(union) <= depth:
        return union
    last = union[depth - 1][1].similarity
    return [pair for pair in union if pair[1].similarity >= last]


def _similarity(pair: tuple[Label, Neighbour]) -> float:
    return pair[1][1]
