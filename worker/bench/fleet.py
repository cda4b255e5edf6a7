"""
A fleet on paper: how many uploads some workers answer per second, and how soon, beyond what one machine can show.

Arrivals, partitions and micro-batches as in the real thing; a worker is one server of micro-batches whose time for a
batch was measured. Known holes: fetching and decoding are within a picture's time, so that no batch waits for them; no
rebalance, no broker that is itself busy, no cache that answers, and all uploads cost the same. A real fleet is measured
with ``touchstone stress``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BURST_S: Final = 10.0
"""How long a burst lasts, and how long the quiet after it."""


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """
    What one worker takes: ``fixed_s`` for each micro-batch and ``picture_s`` for each picture in it.

    ``batch_size`` is that of its configuration. Raises ``ValueError`` for a worker that takes no time at all.
    """

    fixed_s: float
    picture_s: float
    batch_size: int

    def __post_init__(self) -> None:
        if self.fixed_s < 0 or self.picture_s <= 0 or self.batch_size < 1:
            raise ValueError(f"{self}: found times or a batch size out of range, expected positive ones")

    def batch_s(self, pictures: int) -> float:
        """
        Seconds for a micro-batch of so many.
        """
        return self.fixed_s + self.picture_s * pictures

    @property
    def capacity_per_s(self) -> float:
        """
        Uploads per second with every micro-batch full.
        """
        return self.batch_size / self.batch_s(self.batch_size)


@dataclass(frozen=True, slots=True)
class Traffic:
    """
    Uploads as a platform sends them: ``keys`` uploaders, of whom the n-th sends in proportion to 1 / n ** ``skew``.

    An uploader's events go to one partition, as a hash would choose it. ``burst`` is how many times the quiet rate is
    sent during a burst; 1 is a Poisson process.
    """

    uploads: int
    partitions: int
    keys: int = 10_000
    skew: float = 0.0
    burst: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.uploads, self.partitions, self.keys) < 1 or self.skew < 0 or self.burst < 1:
            raise ValueError(f"{self}: found less than one upload, partition or key, a skew below 0 or a burst below 1")


@dataclass(frozen=True, slots=True)
class Answered:
    """
    What a fleet of so many workers did: ``per_s`` while uploads waited without end, and latencies at a share of it.

    ``share_of_linear`` is ``per_s`` over as many times what one worker does; ``busiest_share`` is the share of all
    uploads that the busiest worker had, 1 / ``workers`` where all have the same.
    """

    workers: int
    per_s: float
    share_of_linear: float
    busiest_share: float
    p50_s: float
    p99_s: float


def simulated(model: WorkerModel, traffic: Traffic, workers: Sequence[int], *, load: float) -> list[Answered]:
    """
    One row for each number of workers; ``load`` is the rate of arrivals as a share of all workers' capacity.

    Partitions are dealt out one by one, as the group's assignor does it. Raises ``ValueError`` for a load not above 0.
    """
    if load <= 0:
        raise ValueError(f"the load is {load}, expected a share above 0")
    random = np.random.default_rng(traffic.seed)
    partitions = _partitions(traffic, random)
    rhythm = np.cumsum(random.exponential(size=traffic.uploads))
    found = []
    for number in workers:
        arrivals_s = _in_bursts(rhythm / (load * number * model.capacity_per_s), traffic.burst)
        found.append(_answered(model, partitions, arrivals_s, number))
    return found


def departures(model: WorkerModel, arrivals_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    When each of these uploads, in order of arrival, is answered by one worker.

    The worker takes what waits as soon as it is free. Of what arrives later nobody is on the way yet, and so no batch
    waits for company: ``batch.deadline_ms`` bounds how long one waits for uploads that are being fetched or decoded,
    which take no time of their own here.
    """
    done_s = np.empty_like(arrivals_s)
    first, free_s, count = 0, 0.0, len(arrivals_s)
    while first < count:
        start_s = max(free_s, float(arrivals_s[first]))
        end = min(int(np.searchsorted(arrivals_s, start_s, side="right")), first + model.batch_size)
        free_s = start_s + model.batch_s(end - first)
        done_s[first:end] = free_s
        first = end
    return done_s


def _answered(
    model: WorkerModel, partitions: NDArray[np.intp], arrivals_s: NDArray[np.float64], workers: int
) -> Answered:
    owners = partitions % workers
    shares = np.bincount(owners, minlength=workers) / len(owners)
    waited: list[NDArray[np.float64]] = []
    longest_s = 0.0
    for worker in range(workers):
        mine = arrivals_s[owners == worker]
        waited.append(departures(model, mine) - mine)
        longest_s = max(longest_s, float(departures(model, np.zeros_like(mine))[-1]) if len(mine) else 0.0)
    per_s = len(owners) / longest_s
    p50_s, p99_s = np.quantile(np.concatenate(waited), (0.5, 0.99))
    alone_per_s = len(owners) / float(departures(model, np.zeros(len(owners)))[-1])
    return Answered(
        workers=workers,
        per_s=per_s,
        share_of_linear=per_s / (workers * alone_per_s),
        busiest_share=float(shares.max()),
        p50_s=float(p50_s),
        p99_s=float(p99_s),
    )


def _partitions(traffic: Traffic, random: np.random.Generator) -> NDArray[np.intp]:
    """
    The partition of each upload.
    """
    weights = 1.0 / np.arange(1, traffic.keys + 1) ** traffic.skew
    sent_by = random.choice(traffic.keys, size=traffic.uploads, p=weights / weights.sum())
    homes = random.integers(traffic.partitions, size=traffic.keys, dtype=np.intp)
    return np.asarray(homes[sent_by], dtype=np.intp)


def _in_bursts(times_s: NDArray[np.float64], burst: float) -> NDArray[np.float64]:
    """
    The same arrivals, drawn out in the quiet and pressed together in bursts; the mean rate stays what it is.
    """
    if burst == 1:
        return times_s
    quiet, busy = 2 / (1 + burst), 2 * burst / (1 + burst)
    pairs = int(times_s[-1] / (2 * BURST_S)) + 2
    wall_s = np.arange(2 * pairs + 1) * BURST_S
    even_s = np.concatenate([[0.0], np.cumsum(np.tile([quiet, busy], pairs) * BURST_S)])
    return np.asarray(np.interp(times_s, even_s, wall_s), dtype=np.float64)
