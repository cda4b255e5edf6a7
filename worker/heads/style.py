"""
The head ``style``: the bank's vote, taken in a learnt projection from which content has been removed.

Numbers only; how the projection is learnt is ``worker/fitting/contrastive_style.py``.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import FeatureTable
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import Projection, ReferenceBank
from worker.heads.soft_vote import vote_depth, vote_log_odds


@dataclass(frozen=True, slots=True, eq=False)
class Style:
    """
    "Parents and Children" (COCOFake, arXiv 2304.00500): a linear style projection, learnt by supervised contrast.

    In the encoder's space the nearest references are those that show the same; in this one, ``projection.matrix``
    float32[d, r], they are meant to be those that were made the same way. The vote is that of ``knn`` on the global
    view. The paper has five generated pictures of the content of each real one; a bank has none, so content is taken to
    be shared by references that lie together (``worker/fitting/contrastive_style.py``).

    The projection was learnt on references that now vote in it, and lie further apart by label than new pictures will:
    the log-odds are a score for the fusion to calibrate, not a probability. ``k`` and ``temperature`` were chosen on
    references kept out of the learning, for the similarities of this space.

    Direction: higher is more like a generated image.
    """

    name: ClassVar[str] = "style"
    version: ClassVar[str] = "1"

    projection: Projection = field(repr=False)
    k: int
    temperature: float

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        The log-odds of the class-weighted soft vote in the style space; NaN where the bank lacks a class.

        Parts: ``nearest_generated``, ``nearest_real``: the cosine there to the nearest reference of either class; NaN
        where the bank lacks one. Raises ValueError for features of another space.
        """
        if features.dim != len(self.projection.matrix):
            raise ValueError(
                f"{self.name} was learnt for {len(self.projection.matrix)} dimensions, "
                f"these features have {features.dim}: fit it again"
            )
        sizes = bank.sizes("global")
        if not min(sizes.positive, sizes.negative):
            unknown = np.full(len(features), np.nan)
            return Readings(unknown, {"nearest_generated": unknown, "nearest_real": unknown})
        nearest = bank.nearest("global", features.unit, vote_depth(self.k, sizes), self.projection)
        return Readings(
            score=vote_log_odds(nearest, sizes, k=self.k, temperature=self.temperature),
            parts={
                "nearest_generated": nearest.positive.similarity[:, 0].astype(np.float64),
                "nearest_real": nearest.negative.similarity[:, 0].astype(np.float64),
            },
        )

    def state(self) -> HeadState:
        """
        The projection as tensors; its id is taken from them again.
        """
        return HeadState(
            tensors={"mean": self.projection.mean, "matrix": self.projection.matrix},
            settings={"k": self.k, "temperature": self.temperature},
        )

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head that wrote this state.
        """
        return cls(
            projection=projection_of(state.tensors["mean"], state.tensors["matrix"]),
            k=int(state.settings["k"]),
            temperature=float(state.settings["temperature"]),
        )


def projection_of(mean: NDArray[Any], matrix: NDArray[Any]) -> Projection:
    """
    The projection of these float32 arrays, named by the sha256 of their shape and bytes.
    """
    mean, matrix = np.ascontiguousarray(mean, dtype=np.float32), np.ascontiguousarray(matrix, dtype=np.float32)
    digest = hashlib.sha256(f"{matrix.shape}".encode())
    digest.update(mean.astype("<f4").tobytes())
    digest.update(matrix.astype("<f4").tobytes())
    return Projection(digest.hexdigest(), mean, matrix)
