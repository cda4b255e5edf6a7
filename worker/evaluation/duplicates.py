"""
Pictures that stand on both sides of a split: the same picture in another file would be remembered, not judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from worker.adapters.perceptual_hash import pdq
from worker.evaluation.dataset import Sample
from worker.evaluation.splits import Fold
from worker.heads.features import Matrix

SUSPECT_COSINE: Final = 0.98
"""Of global embeddings; above it two pictures are compared by their perceptual hashes."""

SAME_PDQ_BITS: Final = 31
"""PDQ's own advice: of 256 bits, two copies of a picture differ in at most so many."""

LEAST_QUALITY: Final = 50
"""PDQ's own advice: below it a picture is too featureless for its hash to mean anything."""

_HASHED_SIDE: Final = 512


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """
    A judged picture and one that was taken out of training for being the same picture.
    """

    fold: str
    judged: str
    trained: str
    cosine: float
    pdq_bits: int
    same_label: bool


@dataclass(frozen=True, slots=True)
class DuplicateCheck:
    """
    Pairs across a split whose embeddings are nearer than ``SUSPECT_COSINE``, and those whose hashes agree as well.
    """

    suspects: int
    confirmed: tuple[NearDuplicate, ...]


def without_near_duplicates(
    folds: Sequence[Fold], samples: Sequence[Sample], unit: Matrix
) -> tuple[tuple[Fold, ...], DuplicateCheck]:
    """
    The folds, with every confirmed near-duplicate of a judged picture taken out of training.

    ``unit`` float32[n, d]: global embeddings of the samples, of length 1. The same bytes never come twice: a data set
    takes them once.
    """
    hashes: dict[int, str | None] = {}
    suspects = 0
    found: list[NearDuplicate] = []
    kept: list[Fold] = []
    for fold in folds:
        cosines = unit[fold.test] @ unit[fold.train].T
        dropped: set[int] = set()
        for first, second in np.argwhere(cosines > SUSPECT_COSINE):
            judged, trained = int(fold.test[first]), int(fold.train[second])
            suspects += 1
            bits = _distance(_hash_of(judged, samples, hashes), _hash_of(trained, samples, hashes))
            if bits is None or bits > SAME_PDQ_BITS:
                continue
            dropped.add(trained)
            names = samples[judged].reference.name, samples[trained].reference.name
            same_label = samples[judged].positive == samples[trained].positive
            found.append(NearDuplicate(fold.name, *names, float(cosines[first, second]), bits, same_label))
        kept.append(Fold(fold.name, np.setdiff1d(fold.train, np.array(sorted(dropped), np.int64)), fold.test))
    return tuple(kept), DuplicateCheck(suspects, tuple(found))


def _hash_of(row: int, samples: Sequence[Sample], hashes: dict[int, str | None]) -> str | None:
    if row not in hashes:
        try:
            with Image.open(samples[row].reference.path) as image:
                image.draft("RGB", (_HASHED_SIDE, _HASHED_SIDE))
                small = image.convert("RGB")
                small.thumbnail((_HASHED_SIDE, _HASHED_SIDE))
        except (OSError, ValueError, SyntaxError):
            hashes[row] = None
        else:
            digest, quality = pdq(np.asarray(small))
            hashes[row] = digest if quality >= LEAST_QUALITY else None
    return hashes[row]


def _distance(first: str | None, second: str | None) -> int | None:
    return None if first is None or second is None else (int(first, 16) ^ int(second, 16)).bit_count()
