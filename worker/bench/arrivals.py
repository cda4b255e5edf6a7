"""
When uploads arrive in an open loop: times drawn in advance, which no answer and no delay of a sender can change.
"""

from itertools import accumulate
from random import Random
from typing import Final, Literal, get_args

Arrivals = Literal["poisson", "even"]
"""``poisson``: each on its own account, as people upload. ``even``: one every 1 / rate seconds."""

KINDS: Final[tuple[str, ...]] = get_args(Arrivals)


def arrival_times(kind: Arrivals, *, rate: float, count: int, seed: int = 0) -> list[float]:
    """
    Seconds from the beginning at which ``count`` uploads arrive, on the mean ``rate`` per second; in rising order.

    Equal arguments give equal times. Raises ``ValueError`` for a rate or a count that is not above 0.
    """
    if not rate > 0 or count < 1:
        raise ValueError(f"found a rate of {rate} and a count of {count}, expected both above 0")
    if kind == "even":
        return [number / rate for number in range(count)]
    random = Random(seed)  # noqa: S311 - drawn to be drawn again, not to be a secret
    return list(accumulate(random.expovariate(rate) for _ in range(count)))


def rate_of(times: list[float]) -> float | None:
    """
    Arrivals per second between the first and the last; None of fewer than two, or of many at one moment.
    """
    span_s = times[-1] - times[0] if times else 0.0
    return (len(times) - 1) / span_s if span_s > 0 else None
