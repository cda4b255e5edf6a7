"""
The heads' bank on FAISS: either class of references, in each view of the bank or in a projection that a head learnt.

The global view is searched through the very indexes of ``FaissBank``; only crops and projections are held beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from worker.adapters.faiss_bank import FaissBank
from worker.adapters.faiss_shelf import Found, Shelf, build_shelf, mapped_shelf, search_shelf
from worker.bank.files import StoredBank
from worker.domain import Label
from worker.heads.features import Mask, Matrix
from worker.heads.reference_bank import ABSENT, ClassSizes, Nearest, NearestOfClass, Projection, View


@dataclass(frozen=True, slots=True)
class _Sides:
    """
    The shelves of the positive label, and those of every other; together each vector of a view once.
    """

    positive: tuple[Shelf, ...]
    negative: tuple[Shelf, ...]


class FaissReferences:
    """
    Implements ``worker.heads.reference_bank.ReferenceBank`` over a bank that ``FaissBank`` searches.

    Similarities are computed again in double precision for the candidates that FAISS proposes, so that they do not
    depend on a query's companions, and equals come in the order of the bank. Crops have an index of the configured kind
    for either class, which holds them in single precision beside the half precision of the ``StoredBank``; a projection
    has exact ones, made when it is first asked for (once, also when several threads ask) and kept for good. Where the
    configured index is approximate, fewer than k may be found though there are more.
    """

    def __init__(self, searched: FaissBank, stored: StoredBank) -> None:
        positive = searched.identity.positive
        of_positive = np.zeros(len(stored.entries), dtype=np.bool_)
        of_positive[stored.entries.rows_of(Label(positive))] = True
        self._dim = stored.manifest.encoder.dim
        self._views: dict[View, _Sides] = {
            "global": _Sides(
                (searched.shelves[positive],),
                tuple(shelf for label, shelf in searched.shelves.items() if label != positive),
            ),
            "native": _native_sides(searched, stored, of_positive),
        }
        self._projected: dict[tuple[View, str], _Sides] = {}
        self._lock = Lock()

    @property
    def dim(self) -> int:
        """
        Dimensions of the space.
        """
        return self._dim

    def sizes(self, view: View) -> ClassSizes:
        """
        Vectors per class in a view.
        """
        sides = self._views[view]
        return ClassSizes(_count(sides.positive), _count(sides.negative))

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        For each query, float32[n, d] of length 1, its k nearest references of either class by cosine.

        Blocks. Raises ``ValueError`` for ``k`` below 1, and for queries of another dimension or with a number that is
        not finite: FAISS would answer them like one that is near to nothing.
        """
        if k < 1:
            raise ValueError(f"k is {k}, want at least 1")
        if queries.ndim != 2 or queries.shape[1] != self._dim:  # noqa: PLR2004 - rows of vectors
            raise ValueError(f"queries are {list(queries.shape)}, want [n, {self._dim}]")
        if not np.isfinite(queries).all():
            raise ValueError("queries hold a number that is not finite; they must not be searched")
        sides = self._views[view]
        if projection is not None:
            sides, queries = self._projected_sides(view, projection), projection(queries)
        return Nearest(_nearest_of(sides.positive, queries, k), _nearest_of(sides.negative, queries, k))

    def _projected_sides(self, view: View, projection: Projection) -> _Sides:
        with self._lock:
            key = (view, projection.id)
            if key not in self._projected:
                sides, dim = self._views[view], projection.matrix.shape[1]
                self._projected[key] = _Sides(
                    tuple(mapped_shelf(shelf, projection, dim) for shelf in sides.positive),
                    tuple(mapped_shelf(shelf, projection, dim) for shelf in sides.negative),
                )
            return self._projected[key]


def _native_sides(searched: FaissBank, stored: StoredBank, of_positive: Mask) -> _Sides:
    owner = stored.stored.native_owner.astype(np.int64)
    sides: list[tuple[Shelf, ...]] = []
    for name, members in (
        ("native positive", np.flatnonzero(of_positive[owner])),
        ("native negative", np.flatnonzero(~of_positive[owner])),
    ):
        if not len(members):
            sides.append(())
            continue
        shelf = build_shelf(stored.stored.native, members, searched.settings, name=name)
        # A crop answers with the picture that it was cut from.
        sides.append((replace(shelf, rows=owner[members]),))
    return _Sides(*sides)


def _count(shelves: Sequence[Shelf]) -> int:
    return sum(int(shelf.index.ntotal) for shelf in shelves)


def _nearest_of(shelves: Sequence[Shelf], queries: Matrix, k: int) -> NearestOfClass:
    similarity = np.full((len(queries), k), -1.0, dtype=np.float32)
    rows = np.full((len(queries), k), ABSENT, dtype=np.int64)
    if not len(queries):
        return NearestOfClass(similarity, rows)
    wide = queries.astype(np.float64)
    per_shelf = [search_shelf(shelf, wide, k) for shelf in shelves if shelf.index.ntotal]
    for at in range(len(queries)):
        found_rows, found = _merged([of_shelf[at] for of_shelf in per_shelf], k)
        rows[at, : len(found_rows)] = found_rows
        similarity[at, : len(found)] = found
    return NearestOfClass(similarity, rows)


def _merged(found: Sequence[Found], k: int) -> Found:
    if not found:
        return np.empty(0, np.int64), np.empty(0)
    if len(found) == 1:
        return found[0]
    rows = np.concatenate([one[0] for one in found])
    similarities = np.concatenate([one[1] for one in found])
    order = np.lexsort((rows, -similarities))[:k]
    return rows[order], similarities[order]
