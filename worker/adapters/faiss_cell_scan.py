"""
Searching the cells that a bank carries: short codes propose, and the vectors themselves are compared again.

A micro-batch goes through FAISS together, and yet what is found for a query depends on that query alone. One that the
nearest cells do not answer surely, as one that is unlike the bank, is searched in more cells, then in all, and where
that is not sure either among all vectors. Making cells is ``worker.adapters.faiss_cells``.
"""

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from worker.adapters.faiss_cells import Sorted, empty_index
from worker.adapters.faiss_half_scan import widened
from worker.adapters.faiss_shelf import SLACK
from worker.adapters.faiss_whole_scan import WholeScan
from worker.bank.vectors import unit_rows
from worker.heads.features import Matrix

_ROWS_AT_ONCE: Final = 65_536

_NEAR: Final = 0.25
"""Whose nearest all lie in this part of the cells looked at, the nearest of them, is taken to have none beyond."""

_GLANCE: Final = 8
"""Where many cells are to be looked at, an eighth is first: most uploads have all their nearest in two or three."""

_LEAST_GLANCE: Final = 16
"""Cells: fewer are not worth a look of their own."""

_WIDE_NEAR: Final = 0.5
"""Likewise where many cells are looked at: what lies beyond them is further off than what lies beyond few."""

_FRONT: Final = 0.4
"""Likewise of the candidates, by their codes: the similarity of a code tells that of its vector only roughly."""

_MORE: Final = 2
"""
Times the candidates that are compared at first, compared where the wanted are not in front of those.

Who needs more is mostly unlike the bank: with 4 times, fewer went on to more cells, but some of them should have.
"""

_WIDE: Final = 0.25
"""Of the cells, looked at for whom the nearest do not suffice; for whom these do not either, all of them are."""

_MANY: Final = 1_024
"""Of fewer cells all are looked at instead: that costs little, and a part of them would be few."""

_WIDE_POOLS: Final = (16, 64)
"""
Candidates compared at first for each wanted, where so many cells are looked at; then where all are once more.

Of 288 queries unlike a label of 500,000 (mixes, new scenes, the centre; 512 dimensions), 0.999 of the 18 nearest were
found, and none went on to exact search; with 4 candidates, of which more were compared as needed, 0.988 to 0.994.
"""

_RESERVOIR: Final = 13
"""FAISS's way through the cells: list by list, the same for one query as for many; left to itself it takes another."""

_QUERY_STEP: Final = 2.0**-25
_AXIS_STEP: Final = 2.0**-24
_PLACE_STEP: Final = 2.0**-22
"""
What numbers are rounded to, so that products of such with such are summed up without any rounding in double precision.

A sum without rounding is the same in every order, so for a query alone as among others, on every processor.
"""


@dataclass(frozen=True, slots=True)
class Depth:
    """
    How far a search goes: ``probes`` cells are looked at, and ``pool`` candidates compared for each that is asked for.

    That is enough for the ``tried`` nearest, with which it was tried; who asks for more is answered exactly.
    """

    probes: int
    pool: int
    tried: int


@dataclass(frozen=True, slots=True)
class _Reach:
    """
    One look at the ``probes`` nearest cells, ``pool`` candidates compared at first for each wanted.

    Wanted are to lie in the part ``near`` of the cells.
    """

    probes: int
    pool: int
    near: float


@dataclass(frozen=True, slots=True, eq=False)
class _Placed:
    """
    Queries, where they lie in the directions of the codes, and how near each cell's centre is to them.
    """

    queries: Matrix
    within: Matrix
    nearness: Matrix

    def only(self, which: NDArray[np.int64]) -> "_Placed":
        return _Placed(self.queries[which], self.within[which], self.nearness[which])


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """
    The best of the candidates, best first; ``surely`` is whether others are not to be expected beyond them.
    """

    similarities: Matrix
    numbers: NDArray[np.int64]
    surely: NDArray[np.bool_]


class CellScan:
    """
    The best candidates of the nearest cells, as FAISS's indexes answer: ``search``, ``reconstruct_batch``, ``ntotal``.

    A similarity that it proposes is exact to single precision; whom it proposes depends on the query alone.
    """

    def __init__(self, vectors: NDArray[np.float16], members: NDArray[np.int64], made: Sorted, depth: Depth) -> None:
        self._vectors, self._members, self._depth = vectors, members, depth
        self._index = _opened(made)
        self._axes = _rounded(made.cells.axes, _AXIS_STEP)
        self._centres = _rounded(made.cells.centres, _PLACE_STEP).T
        self._cells, self._cell = len(made.cells.centres), made.cell
        self._probes = min(depth.probes, self._cells)
        self._tried = _Reach(self._probes, depth.pool, _NEAR)
        self._lengths = np.empty(len(members), dtype=np.float32)
        for start in range(0, len(members), _ROWS_AT_ONCE):
            rows = widened(vectors[members[start : start + _ROWS_AT_ONCE]])
            self._lengths[start : start + len(rows)] = np.linalg.norm(rows, axis=1)
        self._all = WholeScan(vectors, members, self._lengths)

    @property
    def ntotal(self) -> int:
        """
        How many vectors there are.
        """
        return len(self._members)

    @property
    def described(self) -> str:
        """
        Cells and how many of them are looked at, for the identity of a bank.
        """
        return f"{self._cells}/{self._probes}*{self._depth.pool}"

    @property
    def nbytes(self) -> int:
        """
        What it holds beside the bank's vectors: codes, numbers and lengths, but for what FAISS fills its blocks with.
        """
        held = int(self._index.code_size) + self._members.itemsize + self._cell.itemsize
        return self.ntotal * held + self._lengths.nbytes + self._axes.nbytes + self._centres.nbytes

    def search(self, queries: Matrix, k: int) -> tuple[Matrix, NDArray[np.int64]]:
        """
        The k most similar found for each query of length 1, ``k`` at most as many as there are, best first.
        """
        # A trial asks for one more than it compares, for each of its queries is found itself.
        if k > self._depth.tried + 1 + SLACK:
            return self._all.best(queries, k)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        numbers = np.empty((len(queries), k), dtype=np.int64)
        placed, unsure = self._placed(queries), np.arange(len(queries))
        for reach in self._reaches():
            found = self._within(placed.only(unsure), k, reach)
            similarities[unsure], numbers[unsure] = found.similarities, found.numbers
            unsure = unsure[~found.surely]
            if not len(unsure):
                return similarities, numbers
        similarities[unsure], numbers[unsure] = self._all.best(queries[unsure], k)
        return similarities, numbers

    def unsure(self, queries: Matrix, k: int) -> NDArray[np.bool_]:
        """
        For which of the queries the nearest cells do not suffice, so that a search costs several times as much.
        """
        return ~self._within(self._placed(queries), k, self._tried).surely

    def at_least(self, query: Matrix, similarity: float) -> NDArray[np.int64]:
        """
        The numbers of all that are so similar to a query of length 1, ascending: every vector is compared.
        """
        return self._all.at_least(query, similarity)

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Matrix:
        """
        The vectors in single precision, the same as an exact index of FAISS would hold.
        """
        return unit_rows(widened(self._vectors[self._members[numbers]]))

    def _reaches(self) -> list[_Reach]:
        """
        How far to look, one after the other for whom the one before did not answer surely.
        """
        wide, few = int(_WIDE * self._cells), self._probes // _GLANCE
        glance = [_Reach(few, self._depth.pool, _NEAR)] if few >= _LEAST_GLANCE else []
        between = [_Reach(wide, _WIDE_POOLS[0], _WIDE_NEAR)] if wide > self._probes and self._cells >= _MANY else []
        return [*glance, self._tried, *between, *(_Reach(self._cells, pool, 1.0) for pool in _WIDE_POOLS)]

    def _placed(self, queries: Matrix) -> _Placed:
        within = _rounded(_rounded(queries, _QUERY_STEP) @ self._axes, _PLACE_STEP)
        return _Placed(queries, within.astype(np.float32), (within @ self._centres).astype(np.float32))

    def _within(self, placed: _Placed, k: int, reach: _Reach) -> _Found:
        cells, nearness = _nearest(placed.nearness, reach.probes)
        proposed = self._proposed(placed.within, (cells, nearness), min(_MORE * reach.pool * k, self.ntotal))
        similarities = np.full((len(cells), k), -1, dtype=np.float32)
        numbers = np.full((len(cells), k), -1, dtype=np.int64)
        surely = np.zeros(len(cells), dtype=np.bool_)
        # Query by query: the candidates of one stay in the processor's cache, those of a micro-batch do not.
        for at, query in enumerate(placed.queries):
            best, products, in_front = self._compared(query, proposed[at], k, reach.pool)
            similarities[at, : len(best)], numbers[at, : len(best)] = products, best
            surely[at] = in_front and len(best) == k
        if reach.probes < self._cells:
            of_wanted = self._cell[numbers[:, : max(k - SLACK, 1)]]
            least = nearness[:, max(1, int(reach.near * reach.probes)) - 1]
            surely &= (np.take_along_axis(placed.nearness, of_wanted, axis=1) >= least[:, np.newaxis]).all(axis=1)
        return _Found(similarities, numbers, surely)

    def _compared(
        self, query: Matrix, proposed: NDArray[np.int64], k: int, pool: int
    ) -> tuple[NDArray[np.int64], Matrix, bool]:
        """
        The k best of as many of the proposed as it takes until the wanted are in front of them, and whether they are.
        """
        there = proposed[proposed >= 0]
        products = np.empty(0, dtype=np.float32)
        count = pool * k
        while True:
            more = there[len(products) : count]
            of_more = widened(self._vectors[self._members[more]]) @ query / self._lengths[more]
            products = np.concatenate([products, of_more])
            best = np.argsort(-products, kind="stable")[:k]
            in_front = bool(best[: max(k - SLACK, 1)].max(initial=0) < _FRONT * len(products))
            if in_front or len(products) == len(there):
                # Where the cells hold no more than these, nobody in them can be missing.
                all_seen = len(products) == len(there) and (len(there) < len(proposed) or len(there) == self.ntotal)
                return there[best], products[best], in_front or all_seen
            count = len(proposed)

    def _proposed(self, within: Matrix, near: tuple[NDArray[np.int64], Matrix], width: int) -> NDArray[np.int64]:
        """
        For each query ``width`` numbers of those whose codes are most similar, -1 where its cells hold fewer.
        """
        cells, nearness = near
        similarities = np.empty((len(within), width), dtype=np.float32)
        numbers = np.empty((len(within), width), dtype=np.int64)
        given = [np.ascontiguousarray(one) for one in (within, cells, nearness)]
        asked, assigned, nearest, of_codes, found = map(faiss.swig_ptr, (*given, similarities, numbers))
        # FAISS's own Python face takes no parameters here, and an attribute would be every thread's.
        params = faiss.SearchParametersIVF(nprobe=cells.shape[1])  # type: ignore[call-arg] # missing in the stubs
        # Its threads would meet after each list: two take ten times as long as one. The count is this thread's own.
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            self._index.search_preassigned_c(
                len(within), asked, width, assigned, nearest, of_codes, found, False, params
            )
        finally:
            faiss.omp_set_num_threads(threads)
        return numbers


def _rounded(values: Matrix | NDArray[np.float64], step: float) -> NDArray[np.float64]:
    rounded: NDArray[np.float64] = np.rint(values.astype(np.float64) / step) * step
    return rounded


def _nearest(nearness: Matrix, count: int) -> tuple[NDArray[np.int64], Matrix]:
    """
    The ``count`` nearest cells of each query, nearest first, and how near they are; in any order where all are wanted.
    """
    if count == nearness.shape[1]:
        return np.broadcast_to(np.arange(count, dtype=np.int64), nearness.shape), nearness
    cells = np.argpartition(-nearness, count - 1, axis=1)[:, :count]
    similarities = np.take_along_axis(nearness, cells, axis=1)
    order = np.argsort(-similarities, axis=1, kind="stable")
    return np.take_along_axis(cells, order, axis=1), np.take_along_axis(similarities, order, axis=1)


def _opened(made: Sorted) -> Any:  # noqa: ANN401 - FAISS has no types
    plain = empty_index(made.cells.centres, len(made.cells.words))
    faiss.copy_array_to_vector(made.cells.words.ravel(), plain.pq.centroids)
    plain.is_trained = True
    order = np.argsort(made.cell, kind="stable").astype(np.int64)
    codes = np.ascontiguousarray(made.codes[order])
    ends = np.searchsorted(made.cell[order], np.arange(plain.nlist), side="right")
    start = 0
    for number, end in enumerate(ends.tolist()):
        if end > start:
            ids = faiss.swig_ptr(order[start:end])
            plain.invlists.add_entries(number, end - start, ids, faiss.swig_ptr(codes[start:end]))
        start = end
    plain.ntotal = len(order)
    fast: Any = faiss.IndexIVFPQFastScan(plain)
    fast.implem = _RESERVOIR
    return fast
