"""
The real-only head: how unlike real references a picture is, learnt from reals alone.

Sources: Bi et al., "Detecting Generated Images by Real Images Only", arXiv 2311.00962, for the one-class idea; Betser
et al., "Whitened CLIP as a Likelihood Surrogate of Images and Captions", ICML 2025, for the likelihood; Sun et al.,
"Out-of-Distribution Detection with Deep Nearest Neighbors", ICML 2022, for the distance to the k-th.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, FeatureTable, Matrix
from worker.heads.head import HeadState, Readings
from worker.heads.native_mean import mean_by_owner
from worker.heads.reference_bank import ReferenceBank, View

KTH: Final = 10
"""The distance to this many-th nearest real reference is looked at; to the last where there are fewer."""

COMPONENTS: Final = ("two_sided", "kth_real_distance", "native_kth_real_distance")
"""What the score is the mean of, after each is standardised on reals."""


@dataclass(frozen=True, slots=True, eq=False)
class Whitening:
    """
    A Gaussian of unit embeddings.

    ``mean`` float32[d], ``matrix`` float32[d, r] = V_r L_r^(-1/2) of the covariance V L V^T, and ``rest``, the mean
    variance of the d - r directions left out (0 where r = d, or where they have none).
    """

    mean: Matrix = field(repr=False)
    matrix: Matrix = field(repr=False)
    rest: float

    def log_likelihood(self, unit: Matrix) -> Column:
        """
        Up to a constant, -1/2 (d log(2 pi) + |W^T (h - mean)|^2), float64[n]; the constant is the log determinant.

        Whitened CLIP does this to raw features; a bank stores unit vectors, so here it is done to those. Where r < d
        the directions left out count with their mean variance, as in probabilistic principal components (Tipping and
        Bishop 1999): |(h - mean) - V V^T (h - mean)|^2 / rest is added to the square.
        """
        centred = unit.astype(np.float64) - self.mean
        matrix = self.matrix.astype(np.float64)
        white = centred @ matrix
        squared = np.square(white).sum(axis=1)
        if self.rest > 0:
            # |V^T x|^2 from W^T x: column i of W is v_i / sqrt(l_i), so its length is 1 / sqrt(l_i).
            explained = np.square(white / np.linalg.norm(matrix, axis=0)).sum(axis=1)
            left_over = np.maximum(np.square(centred).sum(axis=1) - explained, 0)
            squared = squared + left_over / self.rest
        likelihood: Column = -(len(self.mean) * np.log(2 * np.pi) + squared) / 2
        return likelihood


@dataclass(frozen=True, slots=True)
class Spread:
    """
    Median of a component over held-out reals, and how far they lie from it: 1.4826 times the median distance.
    """

    centre: float
    scale: float

    def standardised(self, values: Column) -> Column:
        """
        How many scales above the centre.
        """
        return (values - self.centre) / self.scale


@dataclass(frozen=True, slots=True, eq=False)
class RealOnly:
    """
    ``whitening`` of reals; ``spreads`` of the log-likelihood and of each component, measured on reals held out.
    """

    name: ClassVar[str] = "real_only"
    version: ClassVar[str] = "1"

    whitening: Whitening = field(repr=False)
    spreads: Mapping[str, Spread]
    kth: int = KTH

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        Score: the mean of the standardised ``COMPONENTS``; NaN where the bank has no real reference.

        They are: how far the log-likelihood lies from that of reals on either side, for generated pictures can be too
        typical as well as too odd; the distance to the k-th nearest real; and that of the native crops, their mean,
        where the references had any and the picture has. Without crops the mean is of the other two.
        Parts: ``log_likelihood`` itself and the components before they are standardised.
        """
        likelihood = self.whitening.log_likelihood(features.unit)
        parts = {
            "log_likelihood": likelihood,
            "two_sided": np.abs(self.spreads["log_likelihood"].standardised(likelihood)),
            "kth_real_distance": kth_real_distance(features.unit, bank, view="global", kth=self.kth),
        }
        if "native_kth_real_distance" in self.spreads:
            crops = kth_real_distance(features.native, bank, view="native", kth=self.kth)
            parts["native_kth_real_distance"] = mean_by_owner(crops, features.native_owner, count=len(features))
        columns = [self.spreads[name].standardised(parts[name]) for name in COMPONENTS if name in parts]
        return Readings(_mean_of_known(np.stack(columns), required=2), parts)

    def state(self) -> HeadState:
        """
        The whitening, at most [d, 256], and a few numbers.
        """
        return HeadState(
            tensors={"mean": self.whitening.mean, "whitening": self.whitening.matrix},
            settings={
                "rest": self.whitening.rest,
                "kth": self.kth,
                "spreads": {name: [spread.centre, spread.scale] for name, spread in self.spreads.items()},
            },
        )

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head whose state this is.
        """
        tensors, settings = state.tensors, state.settings
        return cls(
            whitening=Whitening(
                mean=tensors["mean"].astype(np.float32),
                matrix=tensors["whitening"].astype(np.float32),
                rest=float(settings["rest"]),
            ),
            spreads={name: Spread(float(pair[0]), float(pair[1])) for name, pair in settings["spreads"].items()},
            kth=int(settings["kth"]),
        )


def kth_real_distance(queries: Matrix, bank: ReferenceBank, *, view: View, kth: int) -> Column:
    """
    Cosine distance to the k-th nearest real reference of a view, float64[n]; NaN where it has none.
    """
    reals = bank.sizes(view).negative
    if not reals or not len(queries):
        return np.full(len(queries), np.nan)
    nearest = bank.nearest(view, queries, min(kth, reals)).negative
    distance: Column = 1 - nearest.similarity[:, -1].astype(np.float64)
    return distance


def _mean_of_known(columns: NDArray[np.float64], *, required: int) -> Column:
    """
    The mean over the first axis; NaN where one of the first ``required`` is, while later ones may be missing.
    """
    known = np.isfinite(columns)
    mean = np.where(known, columns, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(known[:required].all(axis=0), mean, np.nan)
