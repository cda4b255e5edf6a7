"""
The global-local head: what the whole picture's neighbours say, and what the neighbours of its native crops say.

Source of the idea: Baraldi et al., "Contrasting Deepfakes Diffusion via Contrastive Learning and Global-Local
Similarities" (CoDE), ECCV 2024, arXiv 2407.20337. Theirs trains an encoder on both views; here the encoder is frozen.
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from worker.heads.features import Column, FeatureTable, Matrix
from worker.heads.head import HeadState, Readings
from worker.heads.knn import TEMPERATURE, K
from worker.heads.native_mean import max_by_owner, mean_by_owner
from worker.heads.reference_bank import ReferenceBank, View
from worker.heads.soft_vote import vote_depth, vote_log_odds


@dataclass(frozen=True, slots=True)
class GlobalLocal:
    """
    Two soft votes with the same ``k``, each with its view's temperature, chosen on references when fitted.
    """

    name: ClassVar[str] = "global_local"
    version: ClassVar[str] = "1"

    k: int = K
    temperature: float = TEMPERATURE
    native_temperature: float = TEMPERATURE

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        Score: the mean of the global log-odds and of the crops' mean log-odds; NaN without crops here or in the bank.

        Parts: ``global``, ``local`` (mean over crops) and ``local_max`` in log-odds; ``agreement``, 1 minus the
        difference of the two views' probabilities: 1 where both say the same, near 0 where they contradict.
        """
        count = len(features)
        whole = self._log_odds(features.unit, bank, "global", self.temperature)
        crops = self._log_odds(features.native, bank, "native", self.native_temperature)
        local = mean_by_owner(crops, features.native_owner, count=count)
        parts = {
            "global": whole,
            "local": local,
            "local_max": max_by_owner(crops, features.native_owner, count=count),
            "agreement": 1 - np.abs(_probability(whole) - _probability(local)),
        }
        return Readings((whole + local) / 2, parts)

    def _log_odds(self, queries: Matrix, bank: ReferenceBank, view: View, temperature: float) -> Column:
        sizes = bank.sizes(view)
        if not len(queries) or not min(sizes.positive, sizes.negative):
            return np.full(len(queries), np.nan)
        nearest = bank.nearest(view, queries, vote_depth(self.k, sizes))
        return vote_log_odds(nearest, sizes, k=self.k, temperature=temperature)

    def state(self) -> HeadState:
        """
        Three numbers.
        """
        return HeadState(
            settings={
                "k": self.k,
                "temperature": self.temperature,
                "native_temperature": self.native_temperature,
            }
        )

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(
            k=int(state.settings["k"]),
            temperature=float(state.settings["temperature"]),
            native_temperature=float(state.settings["native_temperature"]),
        )


def _probability(log_odds: Column) -> Column:
    probability: Column = (1 + np.tanh(log_odds / 2)) / 2  # the logistic function, without overflow
    return probability
