"""
The realism head: five statistics of a picture against their means over real ones, and the area of their pentagon.

Source: Chen et al., "Image Realism Score", arXiv 2309.14756. Weak and dependent on content and size: it is there for
telemetry, and for fusion to use where it helps. The statistics are measured where pictures are decoded.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import REALISM, Column, FeatureTable
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import ReferenceBank

INVERTED: Final = np.array([name in {"glcm_energy", "laplacian_variance", "mean_spectrum"} for name in REALISM])
"""These enter as mean / value, the others as value / mean."""

LEAST: Final = 1e-6
"""The least that a ratio can be, so that a flat picture has a finite score; its inverse is the most."""


@dataclass(frozen=True, slots=True, eq=False)
class Realism:
    """
    ``mean`` float64[5]: the means of real references in the order of ``REALISM``; NaN where none had the statistic.
    """

    name: ClassVar[str] = "realism"
    version: ClassVar[str] = "1"

    mean: Column = field(repr=False)

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:  # noqa: ARG002 - it needs no neighbours
        """
        Score: minus the logarithm of the pentagon's area, so that less realism is a higher score.

        NaN where a statistic was not measured. Parts: the five ratios under the statistics' names, and ``area``.
        """
        ratios = self.ratios(features.realism)
        area = pentagon_area(ratios)
        parts = {name: ratios[:, position] for position, name in enumerate(REALISM)}
        return Readings(-np.log(area), {**parts, "area": area})

    def ratios(self, realism: NDArray[np.float64]) -> NDArray[np.float64]:
        """
        Each statistic relative to reals, inverted where the paper does, float64[n, 5] within LEAST and 1 / LEAST.
        """
        relative = np.clip(realism / self.mean, LEAST, 1 / LEAST)
        return np.where(INVERTED, 1 / relative, relative)

    def state(self) -> HeadState:
        """
        Five numbers.
        """
        return HeadState(tensors={"mean": self.mean})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        return cls(mean=state.tensors["mean"].astype(np.float64))


def pentagon_area(ratios: NDArray[np.float64]) -> Column:
    """
    The area of a pentagon whose corners lie 72 degrees apart at these distances: 1/2 sin(72 deg) sum r_i r_(i+1).
    """
    area: Column = np.sin(2 * np.pi / len(REALISM)) / 2 * (ratios * np.roll(ratios, -1, axis=1)).sum(axis=1)
    return area
