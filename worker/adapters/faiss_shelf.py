"""
One class of references behind one FAISS index: built from checked vectors, searched, its edges kept from the outside.

FAISS says "nothing" with id -1, also to a NaN query; sums in an order that depends on the batch; and breaks ties as it
likes. None of that leaves this module. Indexes are built in memory and never read from a file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import faiss
import numpy as np
import structlog
from numpy.typing import NDArray

from worker.adapters.faiss_half_scan import HalfScan, multiplies_half
from worker.bank.vectors import unit_rows
from worker.heads.features import Matrix
from worker.settings.tree import BankSettings

log = structlog.get_logger(__name__)

MIN_VECTORS_PER_LIST: Final = 39
"""FAISS's own bound for training: below it a list's centre is an accident."""

_ROWS_AT_ONCE: Final = 65_536

_SEED: Final = 1234
_EF_CONSTRUCTION: Final = 64

SLACK: Final = 16
"""Candidates beyond k, so that the exact similarities decide who is k-th."""

_QUERIES_AT_ONCE: Final = 64
"""Their candidates are held in single precision at once: some 7 MB at 768 dimensions."""

_PAIRS_AT_ONCE: Final = 256
"""Of a query and a vector: so many stay in the processor's cache in double precision, 1.5 MB at 768 dimensions."""

_ROUNDING: Final = 1e-5
"""More than single precision can err in a cosine: 4e-7 was seen between batch sizes at 768 dimensions."""

EXACT: Final = frozenset({"auto", "flat"})
"""The settings of ``bank.index`` that are exact for vectors of which the bank carries no index."""

_ASKED: Final = 32
_ASKED_DEPTH: Final = 18
"""References asked for before half precision is chosen, and neighbours of each: as many as the default vote needs."""

_CROWD: Final = 8
_SETTLED: Final = 0.9
_HALF_FROM: Final = 4_096
"""Below so many vectors their product costs less than what comes after it."""

Found = tuple[NDArray[np.int64], NDArray[np.float64]]


@runtime_checkable
class Gathers(Protocol):
    """
    An index that tells in one pass all that are at least so similar to one query of length 1, or hardly less.
    """

    def at_least(self, query: Matrix, similarity: float) -> NDArray[np.int64]:
        """
        Their numbers, ascending.
        """
        ...


@dataclass(frozen=True, slots=True)
class Shelf:
    """
    An index over references of one class, and which row of the bank each of its numbers is.

    ``index`` is FAISS's, or answers like it (``worker.adapters.faiss_cell_scan``): similarities right to single
    precision, and the last of them at least that of whoever is not proposed. ``worker.adapters.faiss_half_scan``
    proposes all who may belong.
    """

    index: Any
    rows: NDArray[np.int64]


class _FreedAside:
    """
    An index whose memory is given back while other Python threads go on.

    SWIG's destructors of FAISS's classes keep the interpreter to themselves, 60 ms for 0.3 GB (FAISS 1.15.1); that of
    their base class does not, and frees the same.
    """

    def __del__(self) -> None:
        faiss.Index.__swig_destroy__(self)  # type: ignore[attr-defined] # SWIG's own, which the stubs leave out


class _Flat(_FreedAside, faiss.IndexFlatIP):
    """
    Every vector is compared.
    """


class _Graph(_FreedAside, faiss.IndexHNSWFlat):
    """
    Neighbours of neighbours are compared.
    """


class _Lists(_FreedAside, faiss.IndexIVFFlat):
    """
    The nearest lists are compared.
    """


def build_shelf(
    vectors: NDArray[np.float16], members: NDArray[np.int64], settings: BankSettings, *, name: str
) -> Shelf:
    """
    The configured index over some rows of ``vectors``, brought to length 1; its rows are ``members``.

    ``name`` is the shelf's in the log.
    """
    if settings.index in EXACT:
        return exact_shelf(vectors, members, settings)
    index = _empty_index(vectors.shape[1], len(members), settings, name)
    _fill(index, vectors, members)
    return Shelf(index, members)


def exact_shelf(vectors: NDArray[np.float16], members: NDArray[np.int64], settings: BankSettings) -> Shelf:
    """
    Every one of some rows of ``vectors`` is compared: in half precision where that is faster and settles who is near.
    """
    large = settings.flat_scan == "auto" and len(members) >= _HALF_FROM
    if settings.flat_scan == "half" or (large and multiplies_half()):
        half = HalfScan(vectors, members)
        if settings.flat_scan == "half" or _settles(half):
            return Shelf(half, members)
    index = _Flat(vectors.shape[1])
    _fill(index, vectors, members)
    return Shelf(index, members)


def _settles(index: HalfScan) -> bool:
    """
    Whether it proposes few for nearly every reference asked for; in a crowd it compares nearly all a second time.
    """
    asked = index.reconstruct_batch(np.linspace(0, index.ntotal - 1, min(index.ntotal, _ASKED)).astype(np.int64))
    wanted = min(_ASKED_DEPTH, index.ntotal)
    few = np.bincount(index.near(asked, wanted)[0]) <= _CROWD * wanted
    return bool(few.mean() >= _SETTLED)


def mapped_shelf(shelf: Shelf, through: Callable[[Matrix], Matrix], dim: int) -> Shelf:
    """
    The same references as ``through`` maps their vectors to ``dim`` dimensions, behind an exact index.
    """
    index = _Flat(dim)
    for start in range(0, len(shelf.rows), _ROWS_AT_ONCE):
        numbers = np.arange(start, min(start + _ROWS_AT_ONCE, len(shelf.rows)), dtype=np.int64)
        index.add(np.ascontiguousarray(through(shelf.index.reconstruct_batch(numbers)), dtype=np.float32))
    return Shelf(index, shelf.rows)


def search_shelf(shelf: Shelf, queries: NDArray[np.float64], k: int) -> list[Found]:
    """
    Rows and cosines of the k nearest for each query of float64[n, d], nearest first, equals in the order of the shelf.
    """
    search = _found_of_near if isinstance(shelf.index, HalfScan) else _found_of_proposed
    found: list[Found] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        found += search(shelf, queries[start : start + _QUERIES_AT_ONCE], min(k, shelf.index.ntotal))
    return found


def _found_of_near(shelf: Shelf, queries: NDArray[np.float64], wanted: int) -> list[Found]:
    """
    Where all who may belong are proposed, their order is all that is to be found.
    """
    nearest = _nearest_of_pairs(shelf, queries, *shelf.index.near(queries.astype(np.float32), wanted))
    first = nearest.of_query[:-1, np.newaxis] + np.arange(wanted)
    return list(zip(shelf.rows[nearest.numbers[first]], nearest.cosines[first], strict=True))


def _found_of_proposed(shelf: Shelf, queries: NDArray[np.float64], wanted: int) -> list[Found]:
    """
    The queries whose candidates settle who is nearest are answered at once, the few others one by one.
    """
    fetched = min(wanted + SLACK, shelf.index.ntotal)
    proposed, numbers = shelf.index.search(queries.astype(np.float32), fetched)
    there = (numbers >= 0).all(axis=1)
    # At least ``wanted`` are as similar as the last of them but for the margin: who is further below is none of them.
    least = proposed[:, wanted - 1 : wanted] - 2 * _ROUNDING
    owners, places = np.nonzero((proposed >= least) & there[:, np.newaxis])
    nearest = _nearest_of_pairs(shelf, queries, owners, numbers[owners, places])
    found: list[Found] = []
    for at, query in enumerate(queries):
        first = slice(nearest.of_query[at], nearest.of_query[at] + wanted)
        cosines = nearest.cosines[first]
        if there[at] and (fetched == shelf.index.ntotal or cosines[-1] > float(proposed[at, -1]) + _ROUNDING):
            found.append((shelf.rows[nearest.numbers[first]], cosines))
        else:
            found.append(_settle(shelf, query, (numbers[at], proposed[at]), wanted))
    return found


class _Nearest(NamedTuple):
    """
    Candidates of some queries, in the order of the queries and nearest first, equals by number.

    Those of query i stand from ``of_query[i]`` to ``of_query[i + 1]``.
    """

    numbers: NDArray[np.int64]
    cosines: NDArray[np.float64]
    of_query: NDArray[np.int64]


def _nearest_of_pairs(
    shelf: Shelf, queries: NDArray[np.float64], owners: NDArray[np.int64], numbers: NDArray[np.int64]
) -> _Nearest:
    cosines = _cosines(shelf, queries, owners, numbers)
    order = np.lexsort((numbers, -cosines, owners))
    ends = np.cumsum(np.bincount(owners, minlength=len(queries)))
    return _Nearest(numbers[order], cosines[order], np.concatenate([[0], ends]))


def _cosines(
    shelf: Shelf, queries: NDArray[np.float64], owners: NDArray[np.int64], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    cosines = np.empty(len(numbers))
    for start in range(0, len(numbers), _PAIRS_AT_ONCE):
        piece = slice(start, start + _PAIRS_AT_ONCE)
        # Row by row and never as a matrix product: its order of summation would depend on how many rows there are.
        products = shelf.index.reconstruct_batch(numbers[piece]).astype(np.float64)
        products *= queries[owners[piece]]
        products.sum(axis=1, out=cosines[piece])
    return np.clip(cosines, -1.0, 1.0, out=cosines)


def _settle(
    shelf: Shelf, query: NDArray[np.float64], candidates: tuple[NDArray[np.int64], NDArray[np.float32]], wanted: int
) -> Found:
    numbers, proposed = candidates
    if isinstance(shelf.index, Gathers):
        # In a crowd of near copies each doubling would be another pass over all of them: at once whoever may belong.
        near = shelf.index.at_least(query.astype(np.float32), float(proposed[wanted - 1]) - 2 * _ROUNDING)
        order, similarities = _exact(shelf, query, near)
        return shelf.rows[order[:wanted]], similarities[:wanted]
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


def _exact(shelf: Shelf, query: NDArray[np.float64], numbers: NDArray[np.int64]) -> Found:
    nearest = _nearest_of_pairs(shelf, query[np.newaxis], np.zeros_like(numbers), numbers)
    return nearest.numbers, nearest.cosines


def _empty_index(dim: int, size: int, settings: BankSettings, name: str) -> Any:  # noqa: ANN401 - of three classes
    if settings.index == "hnsw":
        graph = _Graph(dim, settings.hnsw_links, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = max(_EF_CONSTRUCTION, settings.hnsw_ef_search)
        graph.hnsw.efSearch = settings.hnsw_ef_search
        return graph
    lists = max(1, min(settings.ivf_lists, size // MIN_VECTORS_PER_LIST))
    if lists < settings.ivf_lists:
        log.warning(
            "bank.lists_reduced",
            label=name,
            configured=settings.ivf_lists,
            used=lists,
            vectors=size,
            because=f"each list is trained on at least {MIN_VECTORS_PER_LIST} vectors",
        )
    inverted: Any = _Lists(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    inverted.cp.seed = _SEED
    inverted.cp.spherical = True
    inverted.nprobe = min(settings.ivf_probes, lists)
    return inverted


def _fill(index: Any, vectors: NDArray[np.float16], rows: NDArray[np.int64]) -> None:  # noqa: ANN401 - FAISS has no types
    if not index.is_trained:
        most = index.nlist * index.cp.max_points_per_centroid
        sample = rows if len(rows) <= most else np.random.default_rng(_SEED).choice(rows, most, replace=False)
        index.train(unit_rows(vectors[sample]))
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        index.add(unit_rows(vectors[rows[start : start + _ROWS_AT_ONCE]]))
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map(True)
