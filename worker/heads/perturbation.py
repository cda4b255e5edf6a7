"""
The perturbation head: how far a picture's embedding moves when the picture is slightly disturbed.

Sources: RIGID (arXiv 2405.20112), noise; MINDER with Contrastive Blur (Tsai et al., arXiv 2411.19117); patch-wise
high-frequency noise (Sonoda and Srinivasan, arXiv 2603.21619). The shifts are measured where pictures are encoded.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

import numpy as np

from worker.heads.features import SHIFT, Column, FeatureTable
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import ReferenceBank

LEAST: Final = 1e-9
"""A smaller cosine distance is rounding; its logarithm would stand out for nothing."""

_NOISE: Final = SHIFT.index("noise")
_BLUR: Final = SHIFT.index("contrastive_blur")
_HIGH_FREQUENCY: Final = SHIFT.index("high_frequency")


@dataclass(frozen=True, slots=True, eq=False)
class Perturbation:
    """
    ``centre`` and ``scale`` float64[3] of the log distances of real references; NaN where none had that column.
    """

    name: ClassVar[str] = "perturbation"
    version: ClassVar[str] = "1"

    centre: Column = field(repr=False)
    scale: Column = field(repr=False)

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:  # noqa: ARG002 - it needs no neighbours
        """
        Score: the mean of the standardised log distances; higher means that the embedding moves more than of reals.

        NaN where a distance that the head was fitted on was not measured, and everywhere when it was fitted on none.
        Parts: the distances themselves and ``minder``, the smaller of noise and blur. On which side generated pictures
        lie differs by generator and encoder: RIGID and MINDER report the direction for DINOv2 only.
        """
        shift = features.shift
        used = np.isfinite(self.centre)
        standardised = (np.log(np.maximum(shift[:, used], LEAST)) - self.centre[used]) / self.scale[used]
        score = standardised.mean(axis=1) if used.any() else np.full(len(features), np.nan)
        parts = {
            "noise": shift[:, _NOISE],
            "contrastive_blur": shift[:, _BLUR],
            "minder": np.minimum(shift[:, _NOISE], shift[:, _BLUR]),
            "high_frequency": shift[:, _HIGH_FREQUENCY],
        }
        return Readings(score, parts)

    def state(self) -> HeadState:
        """
        Two columns of three.
        """
        return HeadState(tensors={"centre": self.centre, "scale": self.scale})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(
            centre=state.tensors["centre"].astype(np.float64),
            scale=state.tensors["scale"].astype(np.float64),
        )
