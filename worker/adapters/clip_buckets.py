"""
Batches of few fixed sizes, as a device with recorded graphs wants them: any number of pictures is cut into such.
"""

from collections.abc import Iterator
from typing import Final

BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The sizes for which a graph is recorded, ascending, each twice the one before it."""

_LEAST_FILLED: Final = 0.75
"""A batch that would fill less of its bucket than this is cut instead: padding costs as much as pictures."""

_CHEAP: Final = 8
"""Up to this bucket a pass takes as long as it takes to launch it, however full it is."""


def reached(count: int) -> list[int]:
    """
    The buckets that batches of 1 to ``count`` pictures are cut into, ascending.
    """
    return sorted({bucket for size in range(1, count + 1) for _, bucket in cut(size)})


def cut(count: int, most: int = BUCKETS[-1]) -> Iterator[tuple[int, int]]:
    """
    Pieces of ``count`` pictures in order, each as (how many pictures, the bucket that it is padded to).

    No bucket is larger than ``most``, which is one of ``BUCKETS``. Small batches are padded, as launching twice costs
    more than a few pictures do.
    """
    while count > 0:
        fitting = next((bucket for bucket in BUCKETS if count <= bucket <= most), None)
        if fitting is not None and (count >= _LEAST_FILLED * fitting or fitting <= _CHEAP):
            yield count, fitting
            return
        full = max(bucket for bucket in BUCKETS if bucket <= min(count, most))
        yield full, full
        count -= full
