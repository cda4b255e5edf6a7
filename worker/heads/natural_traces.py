"""
The head ``natural_traces``: how near a picture lies to what real pictures have in common, whatever they show.

Numbers only; how the map and the traces are learnt is ``worker/fitting/contrastive_traces.py``.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import FeatureTable, Matrix
from worker.heads.head import HeadState, Readings
from worker.heads.native_mean import mean_crop
from worker.heads.reference_bank import ReferenceBank

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class TraceMap:
    """
    The map into the homogeneous space: ``normalise(relu(x @ inner + inner_bias) @ outer + outer_bias)``.

    ``inner`` float32[D, h], ``inner_bias`` float32[h], ``outer`` float32[h, r], ``outer_bias`` float32[r]. D is d where
    only the global view was learnt from, and 2 d where native-resolution crops were too.
    """

    inner: Matrix = field(repr=False)
    inner_bias: Matrix = field(repr=False)
    outer: Matrix = field(repr=False)
    outer_bias: Matrix = field(repr=False)

    def __call__(self, looks: NDArray[Any]) -> Floats:
        """
        float64[n, r], rows of length 1.
        """
        hidden = np.maximum(looks.astype(np.float64) @ self.inner + self.inner_bias, 0.0)
        return _unit(hidden @ self.outer + self.outer_bias)


@dataclass(frozen=True, slots=True, eq=False)
class NaturalTraces:
    """
    "Let Real Images be as a Judger" (NTF, arXiv 2403.16513; AAAI-25), on frozen features, by proximity to traces.

    OUR RECONSTRUCTION: the paper's exact losses could not be had. Reals alone teach a map into a homogeneous space;
    then reals are pulled together and generated pictures pushed away. The traces, float32[m, r], are the centres of
    the reals there; ``judges`` is how many of the nearest traces are averaged. The paper trains the encoder too; here
    it is frozen, so that only what the encoder's features still hold of a trace can be found.

    Direction: the score is minus the mean cosine to the nearest traces, so that higher is more like a generated image.
    """

    name: ClassVar[str] = "natural_traces"
    version: ClassVar[str] = "1"

    trace_map: TraceMap
    traces: Matrix = field(repr=False)
    judges: int
    with_native: bool

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:  # noqa: ARG002 - the head's interface
        """
        Minus the mean cosine to the ``judges`` nearest traces; the bank is not asked.

        Parts: ``nearest_trace`` is the cosine to the nearest one, ``homogeneous_similarity`` that to the reals' common
        direction (the mean of the traces). Raises ValueError for features of another space.
        """
        expected, found = len(self.trace_map.inner), features.dim * (1 + self.with_native)
        if found != expected:
            raise ValueError(f"{self.name} was learnt for {expected} inputs, these features give {found}: fit it again")
        homogeneous = self.trace_map(look(features, with_native=self.with_native))
        traces = self.traces.astype(np.float64)
        cosines = homogeneous @ traces.T
        nearest = -np.sort(-cosines, axis=1)[:, : self.judges]
        common = _unit(traces.mean(axis=0, keepdims=True))[0]
        return Readings(
            score=-nearest.mean(axis=1),
            parts={"nearest_trace": nearest[:, 0], "homogeneous_similarity": homogeneous @ common},
        )

    def state(self) -> HeadState:
        """
        The map and the traces as tensors.
        """
        trace_map = self.trace_map
        return HeadState(
            tensors={
                "inner": trace_map.inner,
                "inner_bias": trace_map.inner_bias,
                "outer": trace_map.outer,
                "outer_bias": trace_map.outer_bias,
                "traces": self.traces,
            },
            settings={"judges": self.judges, "with_native": self.with_native},
        )

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head that wrote this state.
        """
        tensors = {name: np.asarray(tensor, dtype=np.float32) for name, tensor in state.tensors.items()}
        return cls(
            trace_map=TraceMap(tensors["inner"], tensors["inner_bias"], tensors["outer"], tensors["outer_bias"]),
            traces=tensors["traces"],
            judges=int(state.settings["judges"]),
            with_native=bool(state.settings["with_native"]),
        )


def look(features: FeatureTable, *, with_native: bool) -> Matrix:
    """
    What the map sees of each picture, float32[n, D] of length 1: the global view, and beside it the mean crop.

    The mean of a picture's native-resolution crops is brought to length 1 before it is set beside the global view, so
    that both views weigh the same; a picture without crops repeats its global view there, as a picture of the encoder's
    input size has only one view.
    """
    if not with_native:
        return features.unit
    crops = _unit(mean_crop(features))
    return np.hstack([features.unit, crops]).astype(np.float32) * np.float32(np.sqrt(0.5))


def _unit(rows: NDArray[Any]) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit
