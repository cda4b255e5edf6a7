"""
The benchmark of UniversalFakeDetect: its 19 test sets in its order, its nearest-neighbour rule, its table.

The rule sees a 224-pixel crop of the middle, not resized, as the authors' test code does; the bank must have been built
with at least one native crop. See Ojha, Li and Lee, CVPR 2023 (arXiv 2302.10174).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from worker.bank.files import StoredBank
from worker.bank.manifest import GENERATED
from worker.bank.sources import BESIDE_REALS, SIDECARS, Listing, Reference
from worker.bank.survey import Progress, no_progress
from worker.domain import Label
from worker.errors import BankInvalid, ConfigInvalid
from worker.evaluation.dataset import hashed
from worker.evaluation.robustness import Embed
from worker.heads.features import Column, Mask, Matrix, References
from worker.heads.reference_bank import Nearest, NearestOfClass
from worker.heads.soft_vote import pooled_difference

KS: Final = (1, 3, 5, 7, 9)
_DEEPEST: Final = max(KS)
_QUERIES_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Published:
    """
    Accuracies of the paper in percent, for one test set: nearest neighbour with k = 1 and 9, and the linear probe.

    Recalled from the paper's table; their means agree with the averages read in its text.
    """

    k1: float
    k9: float
    linear: float


PUBLISHED: Final = {
    "progan": Published(99.58, 99.54, 100.0),
    "cyclegan": Published(94.70, 93.49, 98.5),
    "biggan": Published(86.95, 88.63, 94.5),
    "stylegan": Published(80.24, 80.75, 82.0),
    "gaugan": Published(96.67, 97.11, 99.5),
    "stargan": Published(98.84, 98.97, 97.0),
    "deepfake": Published(80.9, 84.5, 66.6),
    "seeingdark": Published(71.0, 71.5, 63.0),
    "san": Published(56.0, 61.0, 57.5),
    "crn": Published(66.3, 69.27, 59.5),
    "imle": Published(76.5, 79.21, 72.0),
    "guided": Published(68.76, 71.06, 70.03),
    "ldm_200": Published(89.56, 91.29, 94.19),
    "ldm_200_cfg": Published(68.99, 72.02, 73.76),
    "ldm_100": Published(89.51, 91.29, 94.36),
    "glide_100_27": Published(86.44, 89.05, 79.07),
    "glide_50_27": Published(88.02, 90.67, 79.85),
    "glide_100_10": Published(87.27, 90.08, 78.14),
    "dalle": Published(77.52, 81.47, 86.78),
}
"""The test sets in the order of the paper's table."""

PUBLISHED_MEAN: Final = Published(82.30, 84.25, 81.38)
"""Of these the 84.25 of k = 9 was read in the paper."""


@dataclass(frozen=True, slots=True)
class UfdRow:
    """
    One test set: pictures, and for every k the accuracy over all of them in percent.
    """

    name: str
    n_real: int
    n_ai: int
    accuracy: dict[int, float] = field(default_factory=dict)
    published: Published | None = None


@dataclass(frozen=True, slots=True)
class UfdTable:
    """
    The rows in the paper's order, their mean, and the test sets that were not there.
    """

    rows: tuple[UfdRow, ...]
    mean: dict[int, float]
    absent: tuple[str, ...]
    skipped: int


def sets_below(root: Path) -> dict[str, Listing]:
    """
    The listings of the test sets below a folder, in the paper's order; classes between set and pair are pooled.

    Raises ``ConfigInvalid`` where there is none.
    """
    found = {name: _listing(root / name) for name in PUBLISHED if (root / name).is_dir()}
    usable = {name: listing for name, listing in found.items() if listing.references}
    if not usable:
        raise ConfigInvalid(
            f"{root} holds none of the test sets of UniversalFakeDetect; expected folders such as "
            f"{root}/progan/cat/0_real and {root}/ldm_200/1_fake"
        )
    return usable


def evaluate_ufd(root: Path, bank: StoredBank, embed: Embed, progress: Progress = no_progress) -> UfdTable:
    """
    The paper's table for a bank, with the accuracy of its rule at every k.

    ``embed`` must look at native crops. Raises ``BankInvalid`` where the bank has none, ``ConfigInvalid`` without sets.
    """
    sets = sets_below(root)
    vectors, positive = middle_crops(bank.references())
    if not positive.any() or positive.all():
        raise BankInvalid(
            f"bank {bank.manifest.id} has no native crops of both labels, which the paper's rule compares; build it "
            "with --native-crops 1"
        )
    rows = []
    skipped = 0
    for done, (name, listing) in enumerate(sets.items()):
        progress("test sets", done, len(sets))
        found = embed(hashed(listing), name, keep=True)
        queries, labels = middle_crops(found)
        skipped += len(listing.references) - len(labels)
        rows.append(_row(name, labels, nearest_of_both(queries, vectors, positive, _DEEPEST)))
    progress("test sets", len(sets), len(sets))
    mean = {k: float(np.mean([row.accuracy[k] for row in rows])) for k in KS}
    return UfdTable(tuple(rows), mean, tuple(name for name in PUBLISHED if name not in sets), skipped)


def middle_crops(references: References) -> tuple[Matrix, Mask]:
    """
    The middle crop of every picture that has one, float32[m, d], and the labels, bool[m].
    """
    owners, first = np.unique(references.features.native_owner, return_index=True)
    return references.features.native[first], references.positive[owners]


def nearest_of_both(queries: Matrix, vectors: Matrix, positive: Mask, k: int) -> Nearest:
    """
    The k nearest of either class by brute force, some queries at a time: 720,000 references are no problem.
    """
    return Nearest(_nearest(queries, vectors[positive], k), _nearest(queries, vectors[~positive], k))


def _nearest(queries: Matrix, vectors: Matrix, k: int) -> NearestOfClass:
    similarity = np.full((len(queries), k), -1.0, dtype=np.float32)
    rows = np.full((len(queries), k), -1, dtype=np.int64)
    most = min(k, len(vectors))
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        cosines = queries[start : start + _QUERIES_AT_ONCE] @ vectors.T
        near = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
        order = np.argsort(-np.take_along_axis(cosines, near, axis=1), axis=1, kind="stable")
        near = np.take_along_axis(near, order, axis=1)
        part = slice(start, start + len(cosines))
        similarity[part, :most] = np.take_along_axis(cosines, near, axis=1)
        rows[part, :most] = near
    return NearestOfClass(similarity, rows)


def plain_rule(nearest: Nearest, k: int) -> Column:
    """
    Above 0 where the paper's rule says generated: for k = 1 the nearest is generated, for more the vote of the pool.

    The paper does not say how more than one neighbour decides; this is the rule of the head ``knn``.
    """
    if k == 1:
        first: Column = nearest.positive.similarity[:, 0].astype(np.float64) - nearest.negative.similarity[:, 0]
        return first
    return pooled_difference(nearest, k)


def _row(name: str, labels: Mask, nearest: Nearest) -> UfdRow:
    right = {k: (plain_rule(nearest, k) > 0) == labels for k in KS}
    return UfdRow(
        name=name,
        n_real=int((~labels).sum()),
        n_ai=int(labels.sum()),
        accuracy={k: 100 * float(np.mean(found)) if len(labels) else float("nan") for k, found in right.items()},
        published=PUBLISHED.get(name),
    )


def _listing(folder: Path) -> Listing:
    references: list[Reference] = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts[:-1]
        label = next((BESIDE_REALS[part] for part in parts if part in BESIDE_REALS), None)
        if label is not None and path.is_file() and path.suffix.lower() not in SIDECARS:
            generator = folder.name if label == GENERATED.positive else None
            name = path.relative_to(folder).as_posix()
            references.append(Reference(path, name, Label(label), generator=generator, source=folder.name))
    return Listing("folder", folder.name, tuple(references))
