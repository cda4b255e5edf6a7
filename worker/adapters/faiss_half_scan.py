"""
Every vector compared in bfloat16 on a processor that multiplies it in hardware: candidates for an exact answer.

Whom it does not propose is less similar than the last that it proposes, rounding counted in, so that
``worker.adapters.faiss_shelf`` settles the same answer from it as from single precision. FAISS multiplies no bfloat16
here; it is torch's.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from worker.bank.vectors import unit_rows
from worker.heads.features import Matrix

_ROWS_AT_ONCE = 32_768
"""Of the bank: their products with a micro-batch stay in the processor's cache until the best are taken from them."""

_PER_WANTED = 2
_GROUP = 16
_FEWEST_GROUPS = 2

_STEP = 2.0**-8
"""What rounding to bfloat16 moves a number by at most, of its own size."""

_SUMMING = 1e-5
"""More than the sums in single precision can err."""


class HalfScan:
    """
    The best candidates of all vectors, as FAISS's exact index answers: ``search``, ``reconstruct_batch``, ``ntotal``.

    The vectors themselves stay where the bank holds them, in half precision; beside them are 2 bytes per dimension.
    """

    def __init__(self, vectors: NDArray[np.float16], members: NDArray[np.int64]) -> None:
        self._vectors, self._members = vectors, members
        self._rounded: list[torch.Tensor] = []
        self._lengths = np.empty(len(members), dtype=np.float32)
        furthest = 0.0
        for start in range(0, len(members), _ROWS_AT_ONCE):
            single = torch.from_numpy(vectors[members[start : start + _ROWS_AT_ONCE]]).float()
            lengths = single.norm(dim=1)
            single /= lengths[:, None]
            rounded = single.to(torch.bfloat16)
            furthest = max(furthest, float((single - rounded).norm(dim=1).max()))
            self._rounded.append(rounded)
            self._lengths[start : start + len(single)] = lengths.numpy()
        # Cauchy and Schwarz: how far the furthest vector was moved, how far a query can be, and the product's rounding.
        self.margin = furthest + _STEP * (1 + furthest) + _STEP * (1 + _STEP) ** 2 + _SUMMING

    def __del__(self) -> None:
        # Torch gives memory back while no other Python thread runs: piece by piece, so that they have turns between.
        while self._rounded:
            self._rounded.pop()

    @property
    def ntotal(self) -> int:
        """
        How many vectors there are.
        """
        return len(self._members)

    @property
    def nbytes(self) -> int:
        """
        What it holds beside the bank's vectors.
        """
        return sum(piece.nbytes for piece in self._rounded) + self._lengths.nbytes

    def search(self, queries: Matrix, k: int) -> tuple[Matrix, NDArray[np.int64]]:
        """
        Candidates for each query of length 1, ``k`` of them, and their similarities to single precision, best first.

        What is told of the last is at least the similarity of whoever is not among them.
        """
        wide = min(_PER_WANTED * k, self.ntotal)
        with torch.inference_mode():
            rounded, numbers = self._best_rounded(torch.from_numpy(queries).to(torch.bfloat16), wide)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        chosen = np.empty((len(queries), k), dtype=np.int64)
        # Query by query: the candidates of one stay in the processor's cache, those of a micro-batch do not.
        for at, query in enumerate(queries):
            products = widened(self._vectors[self._members[numbers[at]]]) @ query / self._lengths[numbers[at]]
            best = np.argsort(-products)[:k]
            similarities[at], chosen[at] = products[best], numbers[at, best]
        if wide < self.ntotal:
            similarities[:, -1] = np.maximum(similarities[:, -1], rounded[:, -1] + np.float32(self.margin))
        return similarities, chosen

    def at_least(self, query: Matrix, similarity: float) -> NDArray[np.int64]:
        """
        The numbers of all that are so similar to one query of length 1, or less so by no more than sums can err.
        """
        found = [np.empty(0, dtype=np.int64)]
        asked = torch.from_numpy(query[np.newaxis]).to(torch.bfloat16)
        for at, piece in enumerate(self._rounded):
            with torch.inference_mode():
                products = (asked @ piece.T)[0].float().numpy()
            near = at * _ROWS_AT_ONCE + np.flatnonzero(products >= similarity - self.margin)
            exactly = widened(self._vectors[self._members[near]]) @ query / self._lengths[near]
            found.append(near[exactly >= similarity - _SUMMING])
        return np.concatenate(found)

    def _best_rounded(self, asked: torch.Tensor, count: int) -> tuple[Matrix, NDArray[np.int64]]:
        best: list[torch.Tensor] = []
        numbers: list[torch.Tensor] = []
        for at, piece in enumerate(self._rounded):
            products = asked @ piece.T
            values, columns = _largest(products, min(count, products.shape[1]))
            best.append(values)
            numbers.append(columns + at * _ROWS_AT_ONCE)
        of_all = torch.topk(torch.cat(best, dim=1), count, dim=1)
        return of_all.values.float().numpy(), torch.cat(numbers, dim=1).gather(1, of_all.indices).numpy()

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Matrix:
        """
        The vectors in single precision, the same as an exact index of FAISS would hold.
        """
        return unit_rows(widened(self._vectors[self._members[numbers]]))


def widened(rows: NDArray[np.float16]) -> Matrix:
    """
    The same numbers in single precision, ten times as fast as numpy widens them.
    """
    single: Matrix = torch.from_numpy(rows).float().numpy()
    return single


def _largest(products: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    The k largest of each row and their columns; over many columns in a tenth to a half of the time of ``torch.topk``.
    """
    width = products.shape[1] // _GROUP
    if width < _FEWEST_GROUPS * k:
        some = torch.topk(products, k, dim=1)
        return some.values, some.indices
    # The k largest lie in at most k groups, and those are among the k whose largest is largest. A group are the columns
    # that are a whole width apart, so that the largest of all groups are found row upon row.
    largest = products[:, : _GROUP * width].view(len(products), _GROUP, width).amax(1)
    groups = torch.topk(largest, k, dim=1, sorted=False).indices
    members = groups.unsqueeze(1) + width * torch.arange(_GROUP).view(1, -1, 1)
    rest = torch.arange(_GROUP * width, products.shape[1]).expand(len(products), -1)
    columns = torch.cat([members.flatten(1), rest], dim=1)
    some = torch.topk(products.gather(1, columns), k, dim=1)
    return some.values, columns.gather(1, some.indices)


def multiplies_half() -> bool:
    """
    Whether this processor multiplies bfloat16 in hardware; otherwise it is slower than single precision.
    """
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - torch has no public question for it
