"""
The bank's port on FAISS: the only module that imports it, and the one that knows its edges.

FAISS says "nothing" with id -1, also to a NaN query; sums in an order that depends on the batch; and breaks ties as it
likes. None of that leaves this module. Indexes are built from checked vectors at load and never read from a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from worker.bank.entries import EntryTable
from worker.bank.files import StoredBank
from worker.domain import BankIdentity, Embedding, Label, Neighbour, Neighbourhood
from worker.settings.tree import BankSettings

log = structlog.get_logger(__name__)

MIN_VECTORS_PER_LIST: Final = 39
"""FAISS's own bound for training: below it a list's centre is an accident."""

_SEED: Final = 1234
_EF_CONSTRUCTION: Final = 64
_ROWS_AT_ONCE: Final = 65_536

_SLACK: Final = 16
"""Candidates beyond k, so that the exact similarities decide who is k-th."""

_ROUNDING: Final = 1e-5
"""More than single precision can err in a cosine: 4e-7 was seen between batch sizes at 768 dimensions."""


@dataclass(frozen=True, slots=True)
class _Shelf:
    """
    One label's references: a FAISS index over them, and which row of the bank each of its numbers is.
    """

    index: Any
    rows: NDArray[np.int64]


class FaissBank:
    """
    Searches a bank, one index per label. Read-only after construction, so any number of threads may search at once.

    Similarities are exact cosines, computed again in double precision for the candidates that FAISS proposes: they do
    not depend on the other embeddings of a search, and references of equal similarity come in the order of their
    entries. With ``index = "flat"`` the result is that of brute force. ``hnsw`` and ``ivf`` may miss references, and
    may find fewer than ``k``; the graph of ``hnsw`` is built by several threads, so that two loads of one bank may miss
    different ones.
    """

    def __init__(self, bank: StoredBank, settings: BankSettings) -> None:
        # For the whole process: matrix products for small batches too. With the default a batch of 32 costs four times
        # as much (1e5 references of 768 dimensions, FAISS 1.15.1, 2 cores: 5.9 ms against 1.5 ms per query).
        faiss.cvar.distance_compute_blas_threshold = 1
        self._entries: EntryTable = bank.entries
        self._dim = bank.manifest.encoder.dim
        self._shelves: dict[Label, _Shelf] = {}
        for label in bank.sizes:
            rows = bank.entries.rows_of(label)
            index = _empty_index(self._dim, len(rows), settings, label)
            _fill(index, bank.vectors, rows)
            self._shelves[label] = _Shelf(index, rows)
        self._identity = bank.identity(_described(self._shelves, settings))

    @property
    def identity(self) -> BankIdentity:
        """
        Which references these are, and through what they are searched.
        """
        return self._identity

    def nearest(self, embeddings: Sequence[Embedding], k: int) -> Sequence[Neighbourhood]:
        """
        For each embedding and for each label, its ``k`` nearest references (fewer where there are fewer).

        Blocks for one search per label. Raises ``ValueError`` for an embedding of another dimension or with a number
        that is not finite: FAISS would answer it like one that is near to nothing.
        """
        if k < 1:
            raise ValueError(f"k is {k}, want at least 1")
        if not embeddings:
            return []
        queries = self._queries(embeddings)
        found = {label: _search(shelf, queries, k) for label, shelf in self._shelves.items()}
        return [
            Neighbourhood(
                nearest={label: self._neighbours(*of_label[number]) for label, of_label in found.items()},
                sizes=self._identity.sizes,
            )
            for number in range(len(embeddings))
        ]

    def _queries(self, embeddings: Sequence[Embedding]) -> NDArray[np.float64]:
        for number, embedding in enumerate(embeddings):
            if embedding.vector.shape != (self._dim,):
                raise ValueError(f"embedding {number} has {embedding.vector.shape[0]} dimensions, want {self._dim}")
        queries = np.stack([embedding.vector for embedding in embeddings]).astype(np.float64)
        if not np.isfinite(queries).all():
            number = int(np.flatnonzero(~np.isfinite(queries).all(axis=1))[0])
            raise ValueError(f"embedding {number} holds a number that is not finite; it must not be searched")
        unit: NDArray[np.float64] = queries / np.linalg.norm(queries, axis=1, keepdims=True)
        return unit

    def _neighbours(self, rows: NDArray[np.int64], similarities: NDArray[np.float64]) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(self._entries.entry(int(row)), float(similarity))
            for row, similarity in zip(rows, similarities, strict=True)
        )


def _search(shelf: _Shelf, queries: NDArray[np.float64], k: int) -> list[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """
    Rows and cosines of the k nearest for each query, nearest first.
    """
    size = shelf.index.ntotal
    wanted = min(k, size)
    fetched = min(wanted + _SLACK, size)
    proposed, numbers = shelf.index.search(queries.astype(np.float32), fetched)
    return [_settle(shelf, query, (numbers[at], proposed[at]), wanted) for at, query in enumerate(queries)]


def _settle(
    shelf: _Shelf, query: NDArray[np.float64], candidates: tuple[NDArray[np.int64], NDArray[np.float32]], wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    numbers, proposed = candidates
    while True:
        there = numbers >= 0
        numbers, proposed = numbers[there], proposed[there]
        order, similarities = _exact(shelf, query, numbers)
        # Whoever was not proposed is at most as similar as the last proposed, but for rounding. Where the k-th is not
        # clearly above that, as among many equal references, another may belong in its place: ask for more.
        decided = len(numbers) < wanted or similarities[wanted - 1] > float(proposed[-1]) + _ROUNDING
        if decided or not there.all() or len(numbers) == shelf.index.ntotal:
            return shelf.rows[order[:wanted]], similarities[:wanted]
        more = min(2 * len(numbers), shelf.index.ntotal)
        found = shelf.index.search(query.astype(np.float32)[None], more)
        proposed, numbers = found[0][0], found[1][0]


def _exact(
    shelf: _Shelf, query: NDArray[np.float64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if not len(numbers):
        return numbers, np.empty(0)
    vectors = shelf.index.reconstruct_batch(numbers).astype(np.float64)
    # Row by row and never as a matrix product: its order of summation would depend on how many rows there are.
    similarities = np.clip((vectors * query).sum(axis=1), -1.0, 1.0)
    order = np.lexsort((numbers, -similarities))
    return numbers[order], similarities[order]


def _empty_index(dim: int, size: int, settings: BankSettings, label: Label) -> Any:  # noqa: ANN401 - of three classes
    if settings.index == "flat":
        return faiss.IndexFlatIP(dim)
    if settings.index == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = max(_EF_CONSTRUCTION, settings.hnsw_ef_search)
        graph.hnsw.efSearch = settings.hnsw_ef_search
        return graph
    lists = max(1, min(settings.ivf_lists, size // MIN_VECTORS_PER_LIST))
    if lists < settings.ivf_lists:
        log.warning(
            "bank.lists_reduced",
            label=label,
            configured=settings.ivf_lists,
            used=lists,
            vectors=size,
            because=f"each list is trained on at least {MIN_VECTORS_PER_LIST} vectors",
        )
    inverted: Any = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    inverted.cp.seed = _SEED
    inverted.cp.spherical = True
    inverted.nprobe = min(settings.ivf_probes, lists)
    return inverted


def _fill(index: Any, vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> None:  # noqa: ANN401 - FAISS has no types
    if not index.is_trained:
        most = index.nlist * index.cp.max_points_per_centroid
        sample = rows if len(rows) <= most else np.random.default_rng(_SEED).choice(rows, most, replace=False)
        index.train(_unit_rows(vectors, sample))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        index.add(_unit_rows(vectors, rows[start : start + _ROWS_AT_ONCE]))
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map(True)


def _unit_rows(vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """
    The rows in single precision and of norm 1: rounding to half moved their norms, and a product is no cosine then.
    """
    taken = vectors[rows].astype(np.float32)
    unit: NDArray[np.float32] = taken / np.linalg.norm(taken, axis=1, keepdims=True)
    return unit


def _described(shelves: dict[Label, _Shelf], settings: BankSettings) -> str:
    if settings.index == "flat":
        return "flat"
    if settings.index == "hnsw":
        return f"hnsw(links={settings.hnsw_links},ef_search={settings.hnsw_ef_search})"
    lists = ",".join(f"{label}={shelf.index.nlist}/{shelf.index.nprobe}" for label, shelf in shelves.items())
    return f"ivf({lists})"
