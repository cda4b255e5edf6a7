"""
The bank's port by brute force: the in-memory side, and the oracle for every other.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.bank.files import StoredBank
from worker.domain import BankIdentity, Embedding, Neighbour, Neighbourhood


class BruteForceBank:
    """
    Implements ``worker.ports.Bank`` by comparing with every reference.
    """

    def __init__(self, bank: StoredBank) -> None:
        self._bank = bank
        self._vectors = _unit(bank.vectors.astype(np.float64))

    @property
    def identity(self) -> BankIdentity:
        """
        Which references these are.
        """
        return self._bank.identity("brute force")

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        For each embedding and each label, its ``k`` nearest references.
        """
        if k < 1:
            raise ValueError(f"k is {k}, want at least 1")
        return [self._neighbourhood(embedding, k) for embedding in embeddings]

    def _neighbourhood(self, embedding: Embedding, k: int) -> Neighbourhood:
        if embedding.vector.shape != self._vectors.shape[1:]:
            raise ValueError(f"embedding has {len(embedding.vector)} dimensions, want {self._vectors.shape[1]}")
        query = embedding.vector.astype(np.float64)
        if not np.isfinite(query).all():
            raise ValueError("embedding is not finite")
        cosines = np.clip(self._vectors @ (query / np.linalg.norm(query)), -1, 1)
        return Neighbourhood(
            nearest={
                label: tuple(
                    Neighbour(self._bank.entries.entry(int(row)), float(cosines[row]))
                    for row in sorted(self._bank.entries.rows_of(label), key=lambda row: (-cosines[row], row))[:k]
                )
                for label in self._bank.sizes
            },
            sizes=self._bank.sizes,
        )


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    unit: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit
