"""
What many latencies come to: percentiles that were measured, not interpolated, and never better than what is missing.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self


def percentile(sorted_values: list[float], share: float) -> float:
    """
    The smallest value that at least this share of all does not exceed (nearest rank), of values in rising order.

    Raises ``ValueError`` without any value, or for a share outside 0 to 1.
    """
    if not sorted_values or not 0 <= share <= 1:
        raise ValueError(f"found {len(sorted_values)} values and a share of {share}, expected some, and 0 to 1")
    return sorted_values[max(0, math.ceil(share * len(sorted_values)) - 1)]


@dataclass(frozen=True, slots=True)
class Latencies:
    """
    Of uploads, in milliseconds from the moment at which each was to be published; None is never.
    """

    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    mean_ms: float | None

    @classmethod
    def of(cls, latencies_s: Iterable[float], *, missing: int = 0) -> Self:
        """
        Of these seconds and so many uploads that were never answered, which count as the slowest of all.

        The mean is of those that were answered.
        """
        answered = sorted(latencies_s)
        everybody = answered + [math.inf] * missing
        if not everybody:
            return cls(None, None, None, None, None)
        p50, p90, p99, most = (_ms(percentile(everybody, share)) for share in (0.5, 0.9, 0.99, 1.0))
        return cls(p50, p90, p99, most, _ms(math.fsum(answered) / len(answered)) if answered else None)


def _ms(seconds: float) -> float | None:
    return None if math.isinf(seconds) else round(seconds * 1000, 3)
