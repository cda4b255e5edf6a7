"""
Every vector compared in single precision, straight from the half precision in which a bank holds them.

It needs no memory of its own and takes several times as long as an index made for it: for the few searches that an
approximate index must not answer.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from worker.adapters.faiss_half_scan import widened
from worker.heads.features import Matrix

_ROWS_AT_ONCE = 8_192
"""Some 25 MB in single precision at 768 dimensions."""


@dataclass(frozen=True, slots=True, eq=False)
class WholeScan:
    """
    The ``members`` of ``vectors``; ``lengths`` are theirs, float32[n].
    """

    vectors: NDArray[np.float16] = field(repr=False)
    members: NDArray[np.int64] = field(repr=False)
    lengths: NDArray[np.float32] = field(repr=False)

    def best(self, queries: Matrix, k: int) -> tuple[Matrix, NDArray[np.int64]]:
        """
        The k most similar for each query of length 1, k at most as many as there are: similarities and numbers.
        """
        similarities = np.empty((len(queries), 0), dtype=np.float32)
        numbers = np.empty((len(queries), 0), dtype=np.int64)
        for start, products in self._products(queries):
            of_piece = np.broadcast_to(np.arange(start, start + products.shape[1], dtype=np.int64), products.shape)
            similarities = np.concatenate([similarities, products], axis=1)
            numbers = np.concatenate([numbers, of_piece], axis=1)
            if similarities.shape[1] > k:
                kept = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
                similarities = np.take_along_axis(similarities, kept, axis=1)
                numbers = np.take_along_axis(numbers, kept, axis=1)
        order = np.argsort(-similarities, axis=1, kind="stable")
        return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(numbers, order, axis=1)

    def at_least(self, query: Matrix, similarity: float) -> NDArray[np.int64]:
        """
        The numbers of all that are so similar to one query of length 1, ascending.
        """
        pieces = [
            start + np.flatnonzero(products[0] >= similarity) for start, products in self._products(query[np.newaxis])
        ]
        return np.concatenate(pieces).astype(np.int64)

    def _products(self, queries: Matrix) -> Iterator[tuple[int, Matrix]]:
        for start in range(0, len(self.members), _ROWS_AT_ONCE):
            end = start + _ROWS_AT_ONCE
            rows = widened(self.vectors[self.members[start:end]])
            yield start, (queries @ rows.T) / self.lengths[start:end]
