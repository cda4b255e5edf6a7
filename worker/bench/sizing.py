"""
How large a deployment must be: from uploads per second to workers, partitions and Redis memory.

Arithmetic only; each rule is one line of the README's sizing section. What one worker does is measured on its own
machine with ``touchstone bench e2e``.
"""

import math
from dataclasses import dataclass
from typing import Final

HALF_BYTES: Final = 2
"""Of each number of an embedding, as the cache keeps it."""

VALUE_BYTES: Final = 52
"""Of what was measured, beside its embeddings: head, nine numbers, checksum (``worker/adapters/measured_codec.py``)."""

FACTS_BYTES: Final = 480
"""Of an ordinary picture's facts as JSON; content credentials add some."""

KEYS_BYTES: Final = 700
"""Of three keys with Redis's own entries and expiries, and of the set that names an upload's bytes. Measured."""


@dataclass(frozen=True, slots=True)
class Demand:
    """
    What is asked of a deployment.

    ``peak_per_s`` uploads per second, of which the share ``known`` are bytes seen before; ``hottest_share`` is what the
    busiest partition has of all uploads, 0 where all have the same; ``kept_s`` is ``redis.ttl_s``. ``utilisation``
    is what share of its capacity a worker shall use at the peak: above some 0.7 the waiting grows fast. Raises
    ``ValueError`` for numbers out of range.
    """

    peak_per_s: float
    mean_per_s: float
    known: float = 0.0
    kept_s: float = 30 * 24 * 3600
    dim: int = 768
    native_crops: int = 0
    utilisation: float = 0.7
    hottest_share: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.mean_per_s <= self.peak_per_s:
            raise ValueError(
                f"the mean is {self.mean_per_s} uploads per second and the peak {self.peak_per_s}, "
                "expected a mean above 0 and not above the peak"
            )
        shares = {"known": self.known, "hottest_share": self.hottest_share}
        for name, value in shares.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, expected a share from 0 to below 1")
        if not 0 < self.utilisation <= 1:
            raise ValueError(f"utilisation is {self.utilisation}, expected a share above 0 and at most 1")
        if self.kept_s < 0 or self.dim < 1 or self.native_crops < 0:
            raise ValueError(f"{self}: found a time, a dimension or a number of crops below what is possible")


@dataclass(frozen=True, slots=True)
class Deployment:
    """
    What that takes. ``workers`` are processes with one device each; ``partitions`` is a multiple of them.

    ``hottest_per_s`` is what the busiest partition brings, and ``fits`` whether one worker can bear that: a partition
    cannot be shared, so that where it is False no number of workers helps, only another key of the uploads.
    """

    workers: int
    partitions: int
    hottest_per_s: float
    fits: bool
    redis_bytes: int


def sized(demand: Demand, *, new_per_s: float, known_per_s: float) -> Deployment:
    """
    The deployment for this demand, of workers that each do ``new_per_s`` unknown or ``known_per_s`` known uploads.

    Twice as many partitions as workers let the fleet double before the topic must be repartitioned, which would break
    the order of keys. Raises ``ValueError`` for rates not above 0.
    """
    if min(new_per_s, known_per_s) <= 0:
        raise ValueError(f"a worker does {new_per_s} new and {known_per_s} known uploads per second, expected above 0")
    seconds_each = (1 - demand.known) / new_per_s + demand.known / known_per_s
    bearable_per_s = demand.utilisation / seconds_each
    workers = max(1, math.ceil(demand.peak_per_s / bearable_per_s))
    partitions = 2 * workers
    hottest_per_s = demand.peak_per_s * max(demand.hottest_share, 1 / partitions)
    contents = demand.mean_per_s * (1 - demand.known) * demand.kept_s
    return Deployment(
        workers=workers,
        partitions=partitions,
        hottest_per_s=hottest_per_s,
        fits=hottest_per_s <= bearable_per_s,
        redis_bytes=math.ceil(contents * kept_bytes(demand.dim, demand.native_crops)),
    )


def kept_bytes(dim: int, native_crops: int = 0) -> int:
    """
    Bytes of Redis memory for one picture that is remembered, all its keys included.
    """
    return HALF_BYTES * dim * (1 + native_crops) + VALUE_BYTES + FACTS_BYTES + KEYS_BYTES
