"""
Fitting the real-only head: the whitening of real references, and how held-out reals spread under it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from worker.fitting.plain import MIN_REALS, centre_and_spread
from worker.heads.features import Column, Matrix, References
from worker.heads.native_mean import mean_by_owner
from worker.heads.real_only import KTH, RealOnly, Spread, Whitening
from worker.heads.reference_bank import ExactBank, View

MAX_COMPONENTS: Final = 256
"""At most so many directions are whitened one by one, so that a head's state stays below a few megabytes."""

SHRINK_BELOW: Final = 10
"""With fewer reals than so many times the dimensions a sample covariance is too rough: it is shrunk."""

FOLDS: Final = 5

MAX_QUERIES: Final = 500
"""So many reals, drawn at random, have their k-th neighbour looked up for the spread."""

_ROUNDING: Final = 1e-11
"""A variance that is less of the whole than this is rounding."""


def fit_real_only(references: References, *, seed: int) -> RealOnly:
    """
    The whitening from all reals; the spreads from reals that took no part in what they are measured by.

    The likelihood of each fold of reals is by a whitening of the other folds. For the k-th distance, a real's own
    vectors and those of equal content are left out. Raises ValueError for fewer than two different reals.
    """
    reals = references.take(np.flatnonzero(~references.positive))
    different = len(set(reals.content))
    if different < MIN_REALS:
        raise ValueError(f"{different} different real references, want {MIN_REALS} at least: add reals to the bank")
    whitening = whiten(reals.features.unit)
    held = _held_out_likelihood(reals, seed=seed)
    likelihood = Spread(*centre_and_spread(held))
    two_sided = np.abs(likelihood.standardised(held))
    spreads = {"log_likelihood": likelihood, "two_sided": Spread(*centre_and_spread(two_sided))}
    views: tuple[tuple[View, str], ...] = (("global", "kth_real_distance"), ("native", "native_kth_real_distance"))
    for view, name in views:
        distances = _others_distance(reals, view, seed=seed)
        if len(distances) >= MIN_REALS:
            spreads[name] = Spread(*centre_and_spread(distances))
    return RealOnly(whitening=whitening, spreads=spreads, kth=KTH)


def whiten(unit: Matrix, components: int = MAX_COMPONENTS) -> Whitening:
    """
    Mean and whitening of these vectors, float[n, d], computed in double precision.

    Covariance: the sample's (divided by n), shrunk towards a multiple of the identity as Ledoit and Wolf (2004) have it
    where there are fewer than 10 d vectors: (1 - s) S + s tr(S) / d. Shrinking moves variances and turns no direction,
    so those of S are found first, through whichever of X^T X and X X^T is smaller.
    """
    wide = unit.astype(np.float64)
    n, dim = wide.shape
    mean = wide.mean(axis=0)
    centred = wide - mean
    total = float(np.square(centred).sum()) / n
    variance, directions = _principal(centred, components)
    shrinkage = 0.0
    if n < SHRINK_BELOW * dim and total > 0:
        shrinkage = float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    variance = (1 - shrinkage) * variance + shrinkage * total / dim
    rest = (total - float(variance.sum())) / max(dim - len(variance), 1)
    return Whitening(
        mean=mean.astype(np.float32),
        matrix=(directions / np.sqrt(variance)).astype(np.float32),
        rest=rest if rest > _ROUNDING * total else 0.0,
    )


def _principal(centred: NDArray[np.float64], components: int) -> tuple[Column, NDArray[np.float64]]:
    """
    The largest sample variances, float64[r], and their directions, float64[d, r]; those of no variance left out.
    """
    n, dim = centred.shape
    product = centred.T @ centred if dim <= n else centred @ centred.T
    values, vectors = np.linalg.eigh(product / n)
    kept = np.flatnonzero(values > _ROUNDING * max(float(values.sum()), np.finfo(np.float64).tiny))[::-1][:components]
    variance, vectors = values[kept], vectors[:, kept]
    return variance, vectors if dim <= n else centred.T @ vectors / np.sqrt(n * variance)


def _held_out_likelihood(reals: References, *, seed: int) -> Column:
    unit = reals.features.unit
    _, group = np.unique(np.array(reals.content, dtype=np.str_), return_inverse=True)
    count = int(group.max()) + 1
    fold = (np.random.default_rng(seed).permutation(count) % min(FOLDS, count))[group]
    likelihood = np.empty(len(reals))
    for number in np.unique(fold):
        test = fold == number
        likelihood[test] = whiten(unit[~test]).log_likelihood(unit[test])
    return likelihood


def _others_distance(reals: References, view: View, *, seed: int) -> Column:
    """
    Per picture that has vectors in this view, the mean distance to their k-th nearest vector of other contents.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(reals))[:MAX_QUERIES])
    asked = reals.features.take(rows)
    queries, owner = (asked.unit, np.arange(len(asked))) if view == "global" else (asked.native, asked.native_owner)
    bank = ExactBank(reals)
    _, content = np.unique(np.array(reals.content, dtype=np.str_), return_inverse=True)
    owners = np.arange(len(reals)) if view == "global" else reals.features.native_owner
    most = int(np.bincount(content[owners]).max()) if len(owners) else 0  # vectors of one content: all may be near
    available = len(owners) - most
    if not len(queries) or available < 1:
        return np.empty(0)
    nearest = bank.nearest(view, queries, min(KTH, available) + most).negative
    other = content[nearest.rows] != content[rows[owner]][:, np.newaxis]
    distance = 1 - _nth_where(nearest.similarity, other, min(KTH, available))
    mean = mean_by_owner(distance, owner, count=len(asked))
    return mean[np.isfinite(mean)]


def _nth_where(similarity: Matrix, allowed: NDArray[np.bool_], n: int) -> Column:
    """
    Per row the n-th of the allowed values, which come largest first; there are as many.
    """
    place = np.argmax(np.cumsum(allowed, axis=1) >= n, axis=1)
    found: Column = np.take_along_axis(similarity, place[:, np.newaxis], axis=1)[:, 0].astype(np.float64)
    return found
