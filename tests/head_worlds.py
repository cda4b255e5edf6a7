"""
Features, references and banks for the tests of heads, from seeded plain numbers.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import REALISM, SHIFT, FeatureTable, References


def unit32(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """
    The rows at length 1.
    """
    wide = np.asarray(vectors, dtype=np.float64)
    unit: NDArray[np.float32] = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return unit


def table_of(
    vectors: NDArray[np.floating],
    native: NDArray[np.floating] | None = None,
    native_owner: NDArray[np.int64] | None = None,
) -> FeatureTable:
    """
    A table of these global views and crops (any length), without statistics or shifts.
    """
    n, dim = vectors.shape
    return FeatureTable(
        unit=unit32(vectors),
        norm=np.linalg.norm(np.asarray(vectors, dtype=np.float64), axis=1),
        native=np.empty((0, dim), np.float32) if native is None else unit32(native),
        native_owner=np.empty(0, np.int64) if native_owner is None else native_owner,
        realism=np.full((n, len(REALISM)), np.nan),
        shift=np.full((n, len(SHIFT)), np.nan),
        format=(None,) * n,
        short_side_px=np.full(n, 480.0),
    )


def full_table(seed: int, n: int, dim: int = 8, offset: float = 0.0) -> FeatureTable:
    """
    A table with every column measured; pictures have 0 to 3 crops each, and ``offset`` moves all along one direction.
    """
    rng = np.random.default_rng(seed)
    moved = np.eye(dim)[0] * offset
    owner = np.repeat(np.arange(n), rng.integers(0, 4, n))
    plain = table_of(
        1 + moved + rng.normal(size=(n, dim)), 1 + moved + rng.normal(size=(len(owner), dim)), owner.astype(np.int64)
    )
    return FeatureTable(
        unit=plain.unit,
        norm=plain.norm,
        native=plain.native,
        native_owner=plain.native_owner,
        realism=np.exp(rng.normal(size=(n, len(REALISM)))),
        shift=np.exp(rng.normal(size=(n, len(SHIFT))) - 4),
        format=plain.format,
        short_side_px=plain.short_side_px,
    )


def references_of(features: FeatureTable, positive: NDArray[np.bool_], sources: int = 3) -> References:
    """
    Labelled references, spread over sources, the positives by two generators; all of different content.
    """
    n = len(features)
    return References(
        features=features,
        positive=positive,
        generator=tuple(f"maker-{row % 2}" if positive[row] else None for row in range(n)),
        source=tuple(f"source-{row % sources}" for row in range(n)),
        content=tuple(hashlib.sha256(str(row).encode()).hexdigest() for row in range(n)),
    )


def a_world(seed: int = 0, n: int = 90, dim: int = 8) -> References:
    """
    References with every column, about a third of them generated.
    """
    positive = np.random.default_rng([seed, 1]).random(n) < 1 / 3
    positive[:2] = [True, False]
    return references_of(full_table(seed, n, dim, offset=0.5), positive)
