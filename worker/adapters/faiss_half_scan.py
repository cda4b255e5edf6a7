"""
Every vector compared in bfloat16 on a processor that multiplies it in hardware: candidates for an exact answer.

Whom it does not propose is none of the nearest, rounding counted in, so that ``worker.adapters.faiss_shelf`` settles
the same answer from it as from single precision. FAISS multiplies no bfloat16 here; it is torch's.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from worker.heads.features import Matrix

_ROWS_AT_ONCE = 32_768
"""Of the bank: their products with a micro-batch stay in the processor's cache until the best are taken from them."""

_GROUP = 16
_FEWEST_GROUPS = 2

_FEW = 8
"""So many candidates for each wanted are settled as they are; of a crowd single precision leaves fewer."""

_SINGLE_AT_ONCE = 8_192
"""A crowd may be the whole bank: so many of it are held in single precision, 25 MB at 768 dimensions."""

_STEP = 2.0**-8
"""What rounding to bfloat16 moves a number by at most, of its own size."""

_SUMMING = 1e-5
"""More than the sums in single precision can err."""

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Which query, and the number of one vector near to it."""


class HalfScan:
    """
    The candidates of a search among all vectors: ``near``; and, as FAISS's indexes, ``reconstruct_batch``, ``ntotal``.

    The vectors themselves stay where the bank holds them, in half precision; beside them are 2 bytes per dimension.
    """

    def __init__(self, vectors: NDArray[np.float16], members: NDArray[np.int64]) -> None:
        self._vectors, self._members = vectors, members
        self._rounded: list[torch.Tensor] = []
        self._lengths = np.empty(len(members), dtype=np.float32)
        self._furthest = 0.0
        for start in range(0, len(members), _ROWS_AT_ONCE):
            rows = widened(vectors[members[start : start + _ROWS_AT_ONCE]])
            # As in ``unit_rows``, for the vectors must be the very ones that another index would hold.
            lengths = np.linalg.norm(rows, axis=1)
            self._lengths[start : start + len(rows)] = lengths
            rows /= lengths[:, np.newaxis]
            single = torch.from_numpy(rows)
            rounded = single.to(torch.bfloat16)
            self._furthest = max(self._furthest, float((single - rounded).norm(dim=1).max()))
            self._rounded.append(rounded)

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

    def near(self, queries: Matrix, wanted: int) -> Pairs:
        """
        All that may be among the ``wanted`` most similar, of each query of length 1; at least so many of each.

        ``wanted`` is at least 1 and at most as many as there are. In no order that means anything.
        """
        with torch.inference_mode():
            owners, numbers = self._near_rounded(torch.from_numpy(queries), wanted)
        crowded = np.flatnonzero(np.bincount(owners) > _FEW * wanted)
        if not len(crowded):
            return owners, numbers
        kept = np.ones(len(owners), dtype=np.bool_)
        for query in crowded.tolist():
            of_query = np.flatnonzero(owners == query)
            products = self._products(queries[query], numbers[of_query])
            kept[of_query] = products >= np.partition(products, -wanted)[-wanted] - 2 * _SUMMING
        return owners[kept], numbers[kept]

    def _near_rounded(self, queries: torch.Tensor, wanted: int) -> Pairs:
        rounded = queries.to(torch.bfloat16)
        moved = (queries - rounded).norm(dim=1, keepdim=True)
        # Cauchy and Schwarz: a product errs by at most how far the vector was moved, how far the query, and the sum.
        # Of two products, the one that is held against the other and that other.
        errors = 2 * (self._furthest * (1 + moved) + moved + _SUMMING)
        best = torch.full((len(queries), wanted), -torch.inf, dtype=torch.bfloat16)
        found: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        for at, piece in enumerate(self._rounded):
            products = rounded @ piece.T
            largest = _largest_of_groups(products, wanted)
            best = torch.topk(torch.cat([best, largest], dim=1), wanted, dim=1).values
            last = best[:, -1:].float()
            # The products themselves were rounded, in a way that keeps their order: so this is rounded as they were.
            least = (last - _STEP * last.abs() - errors).to(torch.bfloat16)
            owners, columns = _at_least(products, largest, least)
            found.append((owners, columns + at * _ROWS_AT_ONCE, products[owners, columns]))
        owners, numbers, similar = (torch.cat(one) for one in zip(*found, strict=True))
        # Asked again, for with each piece the bar was higher.
        kept = similar >= least[owners, 0]
        return owners[kept].numpy(), numbers[kept].numpy()

    def _products(self, query: Matrix, numbers: NDArray[np.int64]) -> Matrix:
        """
        With one query, right to single precision.
        """
        pieces = np.split(numbers, range(_SINGLE_AT_ONCE, len(numbers), _SINGLE_AT_ONCE))
        return np.concatenate([self.reconstruct_batch(piece) @ query for piece in pieces])

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Matrix:
        """
        The vectors in single precision, the same as an exact index of FAISS would hold.
        """
        rows = widened(self._vectors[self._members[numbers]])
        rows /= self._lengths[numbers, np.newaxis]
        return rows


def widened(rows: NDArray[np.float16]) -> Matrix:
    """
    The same numbers in single precision, ten times as fast as numpy widens them.
    """
    single: Matrix = torch.from_numpy(rows).float().numpy()
    return single


def _largest_of_groups(products: torch.Tensor, wanted: int) -> torch.Tensor:
    """
    The largest product of each group of columns; where there are few columns, each is a group.

    The ``wanted`` largest of them are of as many columns: so many products are at least as large as the last of them.
    """
    width = products.shape[1] // _GROUP
    if width < _FEWEST_GROUPS * wanted:
        return products
    # A group are the columns that are a whole width apart, so that the largest of all are found row upon row.
    return products[:, : _GROUP * width].view(len(products), _GROUP, width).amax(1)


def _at_least(products: torch.Tensor, largest: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Rows and columns of the products that are not below their row's ``least``, looked for in few groups only.
    """
    owners, groups = torch.nonzero(largest >= least, as_tuple=True)
    width, columns = largest.shape[1], products.shape[1]
    if width == columns:
        return owners, groups
    members = groups.unsqueeze(1) + width * torch.arange(_GROUP)
    owners = owners.unsqueeze(1).expand_as(members)
    inside = products[owners, members] >= least[owners, 0]
    rest_owners, rest = torch.nonzero(products[:, _GROUP * width :] >= least, as_tuple=True)
    return torch.cat([owners[inside], rest_owners]), torch.cat([members[inside], rest + _GROUP * width])


def multiplies_half() -> bool:
    """
    Whether this processor multiplies bfloat16 in hardware; otherwise it is slower than single precision.
    """
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())  # noqa: SLF001 - torch has no public question for it
