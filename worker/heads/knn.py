"""
The nearest-neighbour head: the class-weighted soft vote over the global view, and beside it the paper's own rule.

Source: Ojha, Li and Lee, "Towards Universal Fake Image Detectors that Generalize Across Generative Models", CVPR 2023,
arXiv 2302.10174 (UniversalFakeDetect). The vote and its weights are ours; see ``worker.heads.soft_vote``.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from worker.heads.features import Column, FeatureTable
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import Nearest, ReferenceBank
from worker.heads.soft_vote import pooled_difference, vote_depth, vote_log_odds

K: Final = 9
TEMPERATURE: Final = 0.07
"""What DINO's k-NN weighs similarities with; made for CLIP-like ranges of similarity."""

MIN_DISTANCE_KS: Final = tuple(range(1, 10))
"""The paper's table goes from one neighbour to nine."""


@dataclass(frozen=True, slots=True)
class Knn:
    """
    The soft vote with ``k`` and ``temperature``, which is chosen on references when the head is fitted.
    """

    name: ClassVar[str] = "knn"
    version: ClassVar[str] = "1"

    k: int = K
    temperature: float = TEMPERATURE

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        Score: log-odds of the soft vote, NaN where the bank lacks a class.

        Parts: ``min_distance_k1`` is the paper's rule, largest similarity of the positive class minus the largest of
        the other (above 0: generated). For k > 1 the paper only says "voting pool size"; ``min_distance_k2`` to ``_k9``
        count votes among the k nearest of both classes, and where they are level the summed similarities decide. None
        of these looks at the bank's sizes: they need a balanced one. ``native_min_distance_k1``, where the bank has
        crops, is the paper's preprocessing: the middle of the picture, not resized. The paper's bank holds one such
        crop per reference; ours may hold several, and all are asked.
        """
        sizes = bank.sizes("global")
        if not min(sizes.positive, sizes.negative):
            unknown = np.full(len(features), np.nan)
            return Readings(unknown, {f"min_distance_k{k}": unknown for k in MIN_DISTANCE_KS})
        depth = max(vote_depth(self.k, sizes), *MIN_DISTANCE_KS)
        nearest = bank.nearest("global", features.unit, depth)
        score = vote_log_odds(nearest, sizes, k=self.k, temperature=self.temperature)
        parts = {f"min_distance_k{k}": _min_distance(nearest, k) for k in MIN_DISTANCE_KS}
        return Readings(score, parts | _of_middle_crop(features, bank))

    def state(self) -> HeadState:
        """
        Two numbers.
        """
        return HeadState(settings={"k": self.k, "temperature": self.temperature})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(k=int(state.settings["k"]), temperature=float(state.settings["temperature"]))


def _min_distance(nearest: Nearest, k: int) -> Column:
    if k > 1:
        return pooled_difference(nearest, k)
    difference: Column = nearest.positive.similarity[:, 0].astype(np.float64) - nearest.negative.similarity[:, 0]
    return difference


def _of_middle_crop(features: FeatureTable, bank: ReferenceBank) -> dict[str, Column]:
    sizes = bank.sizes("native")
    if not min(sizes.positive, sizes.negative):
        return {}
    owner, first = np.unique(features.native_owner, return_index=True)  # the middle crop stands first
    score = np.full(len(features), np.nan)
    if len(owner):
        score[owner] = _min_distance(bank.nearest("native", features.native[first], 1), 1)
    return {"native_min_distance_k1": score}
