"""
How far the carried index goes where more neighbours are asked for than it was tried with.
"""

import numpy as np
import pytest

from tests.bank_builders import unit_rows
from worker.adapters.faiss_cell_scan import CellScan, Depth
from worker.adapters.faiss_cells import Sorted, sort_into_cells
from worker.bank.vectors import Half
from worker.bank.vectors import unit_rows as single_rows
from worker.heads.features import Matrix

DIM, COUNT, SCENES = 24, 3000, 150


def scenes(count: int, seed: int) -> Half:
    """
    Vectors in scenes of some twenty.
    """
    places = np.random.default_rng(1).normal(size=(SCENES, DIM))
    rng = np.random.default_rng(seed)
    return unit_rows(places[rng.integers(0, SCENES, count)] + 0.3 * rng.normal(size=(count, DIM)))


@pytest.fixture(scope="module")
def vectors() -> Half:
    """
    Those of the references.
    """
    return scenes(COUNT, 2)


@pytest.fixture(scope="module")
def made(vectors: Half) -> Sorted:
    """
    The references sorted into cells.
    """
    return sort_into_cells(vectors, np.arange(COUNT, dtype=np.int64))


@pytest.fixture(scope="module")
def asked() -> Matrix:
    """
    Further pictures of the scenes.
    """
    return single_rows(scenes(40, 9))


def share_found(vectors: Half, made: Sorted, asked: Matrix, *, tried: int, k: int) -> float:
    """
    Of the k nearest, how many are found with so few cells as do for ``tried``.
    """
    members = np.arange(COUNT, dtype=np.int64)
    _, found = CellScan(vectors, members, made, Depth(8, 2, tried)).search(asked, k)
    true = np.argsort(-(asked @ single_rows(vectors).T), axis=1)[:, :k]
    return float(np.mean([len(set(ours) & set(theirs)) / k for ours, theirs in zip(found, true, strict=True)]))


def test_who_asks_for_more_is_answered_exactly(vectors: Half, made: Sorted, asked: Matrix) -> None:
    """
    A policy or a head with a larger k than the trial's would else go short without a word.
    """
    few = share_found(vectors, made, asked, tried=18, k=34)
    many = share_found(vectors, made, asked, tried=18, k=500)

    assert few >= 0.95
    assert many == 1.0


def test_as_deep_as_it_was_tried_nothing_changes(vectors: Half, made: Sorted, asked: Matrix) -> None:
    """
    Up to the neighbours of the trial, as many cells are looked at as the trial found enough.
    """
    members = np.arange(COUNT, dtype=np.int64)
    shallow, deep = (CellScan(vectors, members, made, Depth(8, 2, tried)).search(asked, 34) for tried in (18, 1000))

    np.testing.assert_array_equal(shallow[1], deep[1])
    np.testing.assert_array_equal(shallow[0], deep[0])
