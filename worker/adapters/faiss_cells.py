"""
An approximate index in cells: made once for a bank, kept in it as plain numbers, searched with exact similarities.

FAISS compares short codes of the vectors in the nearest cells (inverted lists, product quantisation with four bits);
what it proposes is compared again with the vectors themselves. A query that this does not answer surely, as one that is
unlike the bank, is searched in every cell, and where that is not sure either among all vectors. Which label a bank has,
and files, are not its affair.
"""

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from worker.adapters.faiss_half_scan import widened
from worker.adapters.faiss_shelf import SLACK
from worker.adapters.faiss_whole_scan import WholeScan
from worker.bank.files import StoredBank
from worker.bank.search_cells import CODE_WORDS, LabelCells, SearchCells, code_parts, code_width
from worker.bank.survey import Progress
from worker.bank.vectors import unit_rows
from worker.domain import Label
from worker.errors import ConfigInvalid
from worker.heads.features import Matrix

MIN_PER_CELL: Final = 39
"""FAISS's own bound for training: below it a cell's centre is an accident."""

LEAST: Final = MIN_PER_CELL * CODE_WORDS
"""Vectors that the words of codes are trained on at least; so few are compared exactly in no time."""

_BITS: Final = 4
_SEED: Final = 1234
_ROUNDS: Final = 10
_PER_CELL: Final = 64
"""Vectors that a cell's centre is trained on: with 256, FAISS's default, training takes four times as long."""

_CODE_SAMPLE: Final = 16_384
_ROWS_AT_ONCE: Final = 65_536
_MAX_CELLS: Final = 16_384

_NEAR: Final = 0.25
"""Whose nearest all lie in this part of the cells looked at, the nearest of them, is taken to have none beyond."""

_FRONT: Final = 0.5
"""Likewise of the candidates, by their codes: the similarity of a code tells that of its vector only roughly."""

_WIDE_POOLS: Final = (16, 64)
"""
Candidates compared for each wanted where every cell is looked at; then, where that is not sure, exact search.

With the first, of 600 queries unlike a bank of 30,000 (new scenes, mixes, the centre), 0.9999 of the 18 nearest were
found, and none missed where the next took over, for 1 in 80; with 8 candidates that was needed four times as often.
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


@dataclass(frozen=True, slots=True, eq=False)
class Sorted:
    """
    Vectors sorted into cells: ``cell`` int32[n] and ``codes`` uint8[n, m / 2] of each.
    """

    cells: LabelCells
    cell: NDArray[np.int32]
    codes: NDArray[np.uint8]


def cells_for(count: int) -> int:
    """
    How many cells so many vectors get: the power of two next to three times the root of their number.
    """
    # With half as many, the same recall took 1.6 times as long (200,000 vectors), and making them two thirds.
    wanted = 2 ** round(np.log2(max(3 * count**0.5, 1.0)))
    return int(max(1, min(wanted, count // MIN_PER_CELL, _MAX_CELLS)))


def sort_into_cells(vectors: NDArray[np.float16], members: NDArray[np.int64]) -> Sorted:
    """
    Train cells and codes on some rows of ``vectors`` and sort all of them in; the same rows give the same.

    Blocks: 200,000 vectors of 768 dimensions took 9 s of one core. Raises ``ConfigInvalid`` for fewer than ``LEAST``
    vectors, and for dimensions that codes cannot be made of.
    """
    dim, count = vectors.shape[1], cells_for(len(members))
    width, parts = code_width(dim), code_parts(dim)
    if not parts:
        raise ConfigInvalid(f"vectors have {dim} dimensions, expected at least 4: no index can be made of fewer")
    if len(members) < LEAST:
        raise ConfigInvalid(
            f"a label has {len(members)} references, expected at least {LEAST}: with fewer, exact search costs nothing"
        )
    rng = np.random.default_rng(_SEED)
    axes = _axes(unit_rows(vectors[_some(rng, members, _CODE_SAMPLE)]), width, rng)
    centres = _centres(unit_rows(vectors[_some(rng, members, _PER_CELL * count)]) @ axes, count)
    index = _empty(centres, parts)
    index.train(unit_rows(vectors[_some(rng, members, _CODE_SAMPLE)]) @ axes)
    for start in range(0, len(members), _ROWS_AT_ONCE):
        index.add(unit_rows(vectors[members[start : start + _ROWS_AT_ONCE]]) @ axes)
    cell = np.empty(len(members), dtype=np.int32)
    codes = np.empty((len(members), parts // 2), dtype=np.uint8)
    for number in range(count):
        held = index.invlists.list_size(number)
        if held:
            ids = faiss.rev_swig_ptr(index.invlists.get_ids(number), held)
            cell[ids] = number
            codes[ids] = faiss.rev_swig_ptr(index.invlists.get_codes(number), held * parts // 2).reshape(held, -1)
    words = faiss.vector_to_array(index.pq.centroids).reshape(parts, 1 << _BITS, width // parts)
    return Sorted(LabelCells(axes, centres, words), cell, codes)


def make_cells(bank: StoredBank, progress: Progress) -> SearchCells:
    """
    The cells of every label of a bank, one label after the other. Raises ``ConfigInvalid`` as ``sort_into_cells``.
    """
    cell = np.empty(len(bank.entries), dtype=np.int32)
    codes = np.empty((len(bank.entries), code_parts(bank.manifest.encoder.dim) // 2), dtype=np.uint8)
    labels: dict[Label, LabelCells] = {}
    for number, label in enumerate(bank.sizes):
        progress("sorting labels into cells", number, len(bank.sizes))
        rows = bank.entries.rows_of(label)
        made = sort_into_cells(bank.vectors, rows)
        cell[rows], codes[rows], labels[label] = made.cell, made.codes, made.cells
    progress("sorting labels into cells", len(labels), len(labels))
    return SearchCells(cell, codes, labels)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """
    The best of the candidates, best first; ``surely`` is whether others are not to be expected beyond them.
    """

    similarities: Matrix
    numbers: NDArray[np.int64]
    surely: bool


class CellScan:
    """
    The best candidates of the nearest cells, as FAISS's indexes answer: ``search``, ``reconstruct_batch``, ``ntotal``.

    A similarity that it proposes is exact to single precision; whom it proposes depends on the query alone.
    """

    def __init__(self, vectors: NDArray[np.float16], members: NDArray[np.int64], made: Sorted, depth: Depth) -> None:
        self._vectors, self._members, self._depth = vectors, members, depth
        self._index, self._axes = _opened(made, depth.probes), made.cells.axes
        self._lengths = np.empty(len(members), dtype=np.float32)
        for start in range(0, len(members), _ROWS_AT_ONCE):
            rows = widened(vectors[members[start : start + _ROWS_AT_ONCE]])
            self._lengths[start : start + len(rows)] = np.linalg.norm(rows, axis=1)
        self._cell = made.cell
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
        return f"{self._index.nlist}/{self._index.nprobe}*{self._depth.pool}"

    @property
    def nbytes(self) -> int:
        """
        What it holds beside the bank's vectors: codes, numbers and lengths, but for what FAISS fills its blocks with.
        """
        held = int(self._index.code_size) + self._members.itemsize + self._cell.itemsize
        return self.ntotal * held + self._lengths.nbytes + self._axes.nbytes

    def search(self, queries: Matrix, k: int) -> tuple[Matrix, NDArray[np.int64]]:
        """
        The k most similar found for each query of length 1, ``k`` at most as many as there are, best first.
        """
        # A trial asks for one more than it compares, for each of its queries is found itself.
        if k > self._depth.tried + 1 + SLACK:
            return self._all.best(queries, k)
        similarities = np.empty((len(queries), k), dtype=np.float32)
        numbers = np.empty((len(queries), k), dtype=np.int64)
        unsure = []
        for at, query in enumerate(queries):
            # Alone: in company FAISS chooses another way through the cells, and among equal codes other candidates.
            found = self._within(query, k, probes=self._index.nprobe, pool=self._depth.pool)
            for pool in _WIDE_POOLS:
                if not found.surely:
                    found = self._within(query, k, probes=self._index.nlist, pool=pool)
            if found.surely:
                similarities[at], numbers[at] = found.similarities, found.numbers
            else:
                unsure.append(at)
        if unsure:
            similarities[unsure], numbers[unsure] = self._all.best(queries[unsure], k)
        return similarities, numbers

    def unsure(self, queries: Matrix, k: int) -> NDArray[np.bool_]:
        """
        For which of the queries the nearest cells do not suffice, so that a search costs several times as much.
        """
        probes, pool = self._index.nprobe, self._depth.pool
        return np.array([not self._within(query, k, probes=probes, pool=pool).surely for query in queries], np.bool_)

    def at_least(self, query: Matrix, similarity: float) -> NDArray[np.int64]:
        """
        The numbers of all that are so similar to a query of length 1, ascending: every vector is compared.
        """
        return self._all.at_least(query, similarity)

    def _within(self, query: Matrix, k: int, *, probes: int, pool: int) -> _Found:
        width = min(pool * k, self.ntotal)
        within = (query @ self._axes)[np.newaxis]
        params = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg] # the stubs lack FAISS's keywords
        _, found = self._index.search(within, width, params=params)
        candidates = found[0][found[0] >= 0]
        products = widened(self._vectors[self._members[candidates]]) @ query / self._lengths[candidates]
        best = np.argsort(-products, kind="stable")[:k]
        wanted = best[: max(k - SLACK, 1)]
        in_front = len(candidates) == self.ntotal or int(wanted.max(initial=0)) < _FRONT * width
        surely = len(best) == k and in_front and self._in_near_cells(within, candidates[wanted], probes)
        return _Found(products[best], candidates[best], surely)

    def _in_near_cells(self, within: Matrix, numbers: NDArray[np.int64], probes: int) -> bool:
        if probes >= self._index.nlist:
            return True
        _, cells = self._index.quantizer.search(within, max(1, int(_NEAR * probes)))
        return bool(np.isin(self._cell[numbers], cells[0]).all())

    def reconstruct_batch(self, numbers: NDArray[np.int64]) -> Matrix:
        """
        The vectors in single precision, the same as an exact index of FAISS would hold.
        """
        return unit_rows(widened(self._vectors[self._members[numbers]]))


def _some(rng: np.random.Generator, members: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return members if len(members) <= most else np.sort(rng.choice(members, most, replace=False))


def _axes(sample: Matrix, width: int, rng: np.random.Generator) -> Matrix:
    """
    The directions in which a sample lies furthest, turned among themselves so that each part of a code has its share.
    """
    wide = sample.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    turn, _ = np.linalg.qr(rng.standard_normal((width, width)))
    axes: Matrix = np.ascontiguousarray(vectors[:, -width:] @ turn, dtype=np.float32)
    return axes


def _centres(sample: Matrix, count: int) -> Matrix:
    training: Any = faiss.Kmeans(
        sample.shape[1], count, niter=_ROUNDS, spherical=True, seed=_SEED, max_points_per_centroid=_PER_CELL
    )
    training.train(sample)
    centres: Matrix = np.ascontiguousarray(training.centroids, dtype=np.float32)
    return centres


def _empty(centres: Matrix, parts: int) -> Any:  # noqa: ANN401 - FAISS has no types
    count, dim = centres.shape
    coarse = faiss.IndexFlatIP(dim)
    coarse.add(centres)
    index: Any = faiss.IndexIVFPQ(coarse, dim, count, parts, _BITS, faiss.METRIC_INNER_PRODUCT)
    return index


def _opened(made: Sorted, probes: int) -> Any:  # noqa: ANN401 - FAISS has no types
    plain = _empty(made.cells.centres, len(made.cells.words))
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
    fast.nprobe = min(probes, plain.nlist)
    return fast
