"""
How the scores moved between two sides: quantiles and a histogram.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from worker.diff.comparison import Comparison, Numbers

LEVELS: Final = {"min": 0.0, "p01": 0.01, "p05": 0.05, "p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
ABSOLUTE_LEVELS: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999, "max": 1.0}
BINS: Final = 41
"""An odd number, so that scores that stayed fall into the middle of one bin."""


@dataclass(frozen=True, slots=True)
class ScoreShift:
    """
    The distribution of B's score minus A's, over the events that both gave one. Null where there is none.

    ``quantiles`` are signed, ``absolute`` of the size alone. ``edges`` has one more value than ``counts``.
    """

    events: int
    moved: int
    mean: float | None
    quantiles: dict[str, float | None]
    absolute: dict[str, float | None]
    edges: list[float]
    counts: list[int]


def score_shift(found: Comparison) -> ScoreShift:
    """
    How far the scores moved.
    """
    shifts = found.shifts
    edges = np.linspace(-1.0, 1.0, BINS + 1)
    counts, _ = np.histogram(np.clip(shifts, -1.0, 1.0), bins=edges)
    return ScoreShift(
        events=len(shifts),
        moved=int(np.count_nonzero(shifts)),
        mean=round(float(shifts.mean()), 9) if len(shifts) else None,
        quantiles={name: quantile(shifts, level) for name, level in LEVELS.items()},
        absolute={name: quantile(np.abs(shifts), level) for name, level in ABSOLUTE_LEVELS.items()},
        edges=[round(float(edge), 6) for edge in edges],
        counts=counts.tolist(),
    )


def quantile(values: Numbers, level: float) -> float | None:
    """
    The least value that at least the share ``level`` of them does not exceed: one of them, never between two.
    """
    return float(np.quantile(values, level, method="inverted_cdf")) if len(values) else None
