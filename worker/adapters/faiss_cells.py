"""
An approximate index in cells, made once for a bank: which cell each vector lies in, and a short code of where.

FAISS trains the cells (inverted lists) and the codes (product quantisation with four bits). What comes of it are plain
numbers, kept in the bank. Searching them is ``worker.adapters.faiss_cell_scan``; which label a bank has, and files, are
not its affair.
"""

from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

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
    index = empty_index(centres, parts)
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


def empty_index(centres: Matrix, parts: int) -> Any:  # noqa: ANN401 - FAISS has no types
    """
    Cells with these centres and nothing in them; codes are of so many parts.
    """
    count, dim = centres.shape
    coarse = faiss.IndexFlatIP(dim)
    coarse.add(centres)
    index: Any = faiss.IndexIVFPQ(coarse, dim, count, parts, _BITS, faiss.METRIC_INNER_PRODUCT)
    return index
