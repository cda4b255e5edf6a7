"""
The bank as the heads see it: what is near, of either class, in one of its views or in a learnt projection of one.

``ExactBank`` is the plain one, for fitting, evaluating and tests; the worker's stands on FAISS.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np

from worker.heads.features import Mask, Matrix, References, Rows

View = Literal["global", "native"]

ABSENT: Final = -1
"""Stands in ``rows`` where a class has fewer than k references; the similarity beside it is -1, the least there is."""


@dataclass(frozen=True, slots=True, eq=False)
class NearestOfClass:
    """
    Of n queries the nearest references of one class, nearest first: ``similarity`` float32[n, k], ``rows`` int64[n, k].

    ``rows`` number the pictures of the bank, also where the native view's crops were searched.
    """

    similarity: Matrix = field(repr=False)
    rows: Rows = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Nearest:
    """
    The nearest of the positive label and of everything else.
    """

    positive: NearestOfClass
    negative: NearestOfClass


@dataclass(frozen=True, slots=True)
class ClassSizes:
    """
    How many vectors of a view are of the positive label, and how many are not.
    """

    positive: int
    negative: int


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """
    A linear map that a head learnt: a vector x is compared as (x - mean) @ matrix, brought to length 1.

    ``mean`` float32[d], ``matrix`` float32[d, r]. ``id`` is the hash of both: a bank projects its references once.
    """

    id: str
    mean: Matrix = field(repr=False)
    matrix: Matrix = field(repr=False)

    def __call__(self, vectors: Matrix) -> Matrix:
        """
        float32[n, r], rows of length 1 (0 where a vector falls on the mean).

        Row by row: a product of whole matrices sums in an order that depends on how many rows there are, and a
        picture's score must not depend on its batch.
        """
        matrix = self.matrix.astype(np.float64)
        image = np.empty((len(vectors), matrix.shape[1]))
        for at, vector in enumerate(np.asarray(vectors, np.float64) - self.mean):
            image[at] = vector @ matrix
        length = np.linalg.norm(image, axis=1, keepdims=True)
        projected: Matrix = np.divide(image, length, out=np.zeros_like(image), where=length > 0).astype(np.float32)
        return projected


class ReferenceBank(Protocol):
    """
    Labelled references that can be searched. Read-only; may be called by one thread at a time.
    """

    @property
    def dim(self) -> int:
        """
        Dimensions of the space.
        """

    def sizes(self, view: View) -> ClassSizes:
        """
        Vectors per class in a view: pictures in ``global``, crops in ``native`` (0 where the bank has no such view).
        """

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        For each query, float32[n, d] of length 1, its k nearest references of either class by cosine.
        """


class ExactBank:
    """
    Brute force over references held in memory; the reference that every other bank is compared with.
    """

    def __init__(self, references: References) -> None:
        features = references.features
        self._vectors: dict[View, Matrix] = {"global": features.unit, "native": features.native}
        self._owner: dict[View, Rows] = {
            "global": np.arange(len(features), dtype=np.int64),
            "native": features.native_owner,
        }
        self._positive = references.positive
        self._projected: dict[tuple[View, str], Matrix] = {}

    @property
    def dim(self) -> int:
        """
        Dimensions of the space.
        """
        return int(self._vectors["global"].shape[1])

    def sizes(self, view: View) -> ClassSizes:
        """
        Vectors per class in a view.
        """
        positive = self._positive[self._owner[view]]
        return ClassSizes(int(positive.sum()), int((~positive).sum()))

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        For each query its k nearest references of either class; equals come in the order of the bank.
        """
        vectors, owner = self._vectors[view], self._owner[view]
        if projection is not None:
            key = (view, projection.id)
            if key not in self._projected:
                self._projected[key] = projection(vectors)
            vectors, queries = self._projected[key], projection(queries)
        positive = self._positive[owner]
        return Nearest(
            _nearest_of(queries, vectors, owner, positive, k), _nearest_of(queries, vectors, owner, ~positive, k)
        )


def _nearest_of(queries: Matrix, vectors: Matrix, owner: Rows, members: Mask, k: int) -> NearestOfClass:
    rows = np.flatnonzero(members)
    similarity = np.full((len(queries), k), -1.0, dtype=np.float32)
    found = np.full((len(queries), k), ABSENT, dtype=np.int64)
    if len(rows):
        cosines = queries @ vectors[rows].T
        first = _largest(cosines, k)
        similarity[:, : first.shape[1]] = np.take_along_axis(cosines, first, axis=1)
        found[:, : first.shape[1]] = owner[rows[first]]
    return NearestOfClass(similarity, found)


def _largest(cosines: Matrix, k: int) -> Rows:
    """
    The columns of the k largest of each row, largest first, equals in the order of the columns: int64[n, min(k, m)].
    """
    if k >= cosines.shape[1] // 4:
        return np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    # Partitioned first: sorting whole rows took most of the time of a fit.
    some = np.sort(np.argpartition(-cosines, k - 1, axis=1)[:, :k], axis=1)
    values = np.take_along_axis(cosines, some, axis=1)
    first = np.take_along_axis(some, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # Where more than k are at least as large as the k-th, the partition chose among equals by no order.
    tied = (cosines >= values.min(axis=1, keepdims=True)).sum(axis=1) > k
    first[tied] = np.argsort(-cosines[tied], axis=1, kind="stable")[:, :k]
    return first
