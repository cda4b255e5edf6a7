"""
What is like the bank, and what is like one of its generators: fitted on references asked as if they were not in it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, References
from worker.heads.reference_bank import ABSENT, Nearest, NearestOfClass, ReferenceBank
from worker.judgement.attribution import REAL, UNNAMED, Attributor, generator_codes
from worker.judgement.conformal import Coverage, kth_distance

COVERAGE_K: Final = 9

PRECISION: Final = 0.8
"""Share of the names given that must be right, strangers counted."""

THRESHOLDS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def neighbours_without_self(references: References, bank: ReferenceBank, depth: int) -> Nearest:
    """
    The nearest of each reference in the bank of exactly these references, itself taken out.
    """
    nearest = bank.nearest("global", references.features.unit, depth + 1)
    own = np.arange(len(references))[:, None]
    return Nearest(_without(nearest.positive, own), _without(nearest.negative, own))


def fit_coverage(nearest: Nearest) -> Coverage:
    """
    The distances of pictures like the bank's, sorted, from what is near to them.

    Of the bank's own references, each without itself: a new picture of their kind is exchangeable with them but for one
    reference more in the bank.
    """
    return Coverage(COVERAGE_K, np.sort(kth_distance(nearest, COVERAGE_K)))


def fit_attribution(references: References, nearest: Nearest) -> Attributor:
    """
    The attributor of these references, with the lowest of ``THRESHOLDS`` at which enough names are right.

    Each reference is asked twice: as it is, where its own generator is the right name; and as a stranger, with its
    generator taken out, where every name is wrong. ``nearest`` holds no reference among its own neighbours.
    """
    names, code = generator_codes(references)
    attributor = Attributor(names, code)
    known = np.asarray([name not in {REAL, UNNAMED} for name in names])
    rows = np.flatnonzero(known[code])
    if known.sum() < 2 or not len(rows):  # noqa: PLR2004 - one generator leaves nothing to confuse it with
        return attributor
    posterior = attributor.posterior(nearest)[rows]
    right = code[rows]
    stranger = posterior.copy()
    stranger[np.arange(len(rows)), right] = 0.0
    total = stranger.sum(axis=1, keepdims=True)
    stranger = np.divide(stranger, total, out=np.zeros_like(stranger), where=total > 0)
    threshold = next(
        (value for value in THRESHOLDS if _precision(posterior, stranger, right, known, value) >= PRECISION),
        THRESHOLDS[-1],
    )
    return Attributor(names, code, threshold=threshold)


def _precision(
    posterior: NDArray[np.float64],
    stranger: NDArray[np.float64],
    right: NDArray[np.int64],
    known: NDArray[np.bool_],
    threshold: float,
) -> float:
    generators = np.flatnonzero(known)
    best = generators[np.argmax(posterior[:, generators], axis=1)]
    named = posterior[np.arange(len(best)), best] >= threshold
    correct = float((named & (best == right)).sum())
    wrong = float((named & (best != right)).sum() + (stranger[:, generators].max(axis=1) >= threshold).sum())
    return correct / (correct + wrong) if correct + wrong else 0.0


def _without(found: NearestOfClass, own: NDArray[np.int64]) -> NearestOfClass:
    itself = found.rows == own
    similarity: Column = np.where(itself, -1.0, found.similarity)
    order = np.argsort(-similarity, axis=1, kind="stable")
    return NearestOfClass(
        np.take_along_axis(similarity, order, axis=1).astype(np.float32)[:, :-1],
        np.take_along_axis(np.where(itself, ABSENT, found.rows), order, axis=1)[:, :-1],
    )
