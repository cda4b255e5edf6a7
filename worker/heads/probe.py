"""
The linear probes: one fitted from a bank's references, and the published one of UniversalFakeDetect.

Source: Ojha, Li and Lee, CVPR 2023, arXiv 2302.10174. How the first is fitted is ``worker.fitting.probe``; how the
second's file is read, ``worker.adapters.probe_file``.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, FeatureTable
from worker.heads.head import HeadState, Readings
from worker.heads.native_mean import mean_crop
from worker.heads.reference_bank import ReferenceBank

Inputs = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Probe:
    """
    Logistic regression fitted from references.

    ``weight`` float64[d], or float64[2d] where the mean of the native crops is looked at too; ``bias``; and ``c``, the
    inverse strength of the regularisation that was chosen.
    """

    name: ClassVar[str] = "probe"
    version: ClassVar[str] = "1"

    weight: Column = field(repr=False)
    bias: float
    c: float

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:  # noqa: ARG002 - it needs no neighbours
        """
        Score: log-odds of the logistic regression, at balanced classes.

        Where a picture has no crops, its global view stands in for their mean. Raises ValueError for features of
        another dimension.
        """
        views = len(self.weight) // features.dim
        if self.weight.shape != (views * features.dim,) or views not in (1, 2):
            raise ValueError(
                f"the probe has {len(self.weight)} weights, features have {features.dim} dimensions: want as many "
                "weights, or twice as many; fit the probe anew from a bank of this encoder"
            )
        return Readings(probe_inputs(features, native=views > 1) @ self.weight + self.bias)

    def state(self) -> HeadState:
        """
        The weights, with the bias and the regularisation beside them.
        """
        return HeadState(tensors={"weight": self.weight}, settings={"bias": self.bias, "c": self.c})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(
            weight=state.tensors["weight"].astype(np.float64),
            bias=float(state.settings["bias"]),
            c=float(state.settings["c"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class LegacyProbe:
    """
    The authors' own probe, for CLIP ViT-L/14 with QuickGELU and features not brought to length 1.

    ``weight`` float64[768] and ``bias``; ``sha256`` is of the file that they came from.
    """

    name: ClassVar[str] = "probe_ufd"
    version: ClassVar[str] = "1"

    weight: Column = field(repr=False)
    bias: float
    sha256: str

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:  # noqa: ARG002 - it needs no neighbours
        """
        Score: the probe's logit (above 0: generated) on the global view at its length before normalisation.

        NaN where that length was not kept. The paper reads the middle of the picture without resizing; the global view
        is resized, as CLIP's own preprocessing does, so on large photos the numbers differ from the authors'. Raises
        ValueError for features of another dimension.
        """
        if features.dim != len(self.weight):
            raise ValueError(
                f"the published probe has {len(self.weight)} weights, features have {features.dim} dimensions: it is "
                "for ViT-L-14-quickgelu with OpenAI's weights; use that encoder, or leave the probe out"
            )
        return Readings((features.unit.astype(np.float64) @ self.weight) * features.norm + self.bias)

    def state(self) -> HeadState:
        """
        The weights, with the bias and the file's hash beside them.
        """
        return HeadState(tensors={"weight": self.weight}, settings={"bias": self.bias, "sha256": self.sha256})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(
            weight=state.tensors["weight"].astype(np.float64),
            bias=float(state.settings["bias"]),
            sha256=str(state.settings["sha256"]),
        )


def probe_inputs(features: FeatureTable, *, native: bool) -> Inputs:
    """
    What a probe looks at: the global view, float64[n, d], with ``native`` the mean of the crops beside it, [n, 2d].
    """
    whole = features.unit.astype(np.float64)
    return np.concatenate([whole, mean_crop(features)], axis=1) if native else whole
