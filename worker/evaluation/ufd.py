"""
The benchmark of UniversalFakeDetect: its 19 test sets in its order, its nearest-neighbour rule, its table.

The rule sees a 224-pixel crop of the middle, not resized, as the authors' test code does; the bank must have been built
with at least one native crop. The published probe reads the global view, which is resized, so on large pictures its
numbers differ from the authors'. Where sets lie is ``worker.evaluation.ufd_sets``. See Ojha, Li and Lee, CVPR 2023
(arXiv 2302.10174).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from worker.bank.files import StoredBank
from worker.bank.survey import Progress, no_progress
from worker.errors import BankInvalid, ConfigInvalid
from worker.evaluation.dataset import hashed
from worker.evaluation.robustness import Embed
from worker.evaluation.ufd_sets import sets_below
from worker.heads.features import Column, Mask, Matrix, References
from worker.heads.probe import LegacyProbe
from worker.heads.reference_bank import ExactBank, Nearest, NearestOfClass
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
    One test set: pictures, and for every k the accuracy over all of them in percent; ``probe``: the published probe's.
    """

    name: str
    n_real: int
    n_ai: int
    accuracy: dict[int, float] = field(default_factory=dict)
    published: Published | None = None
    probe: float | None = None


@dataclass(frozen=True, slots=True)
class UfdTable:
    """
    The rows in the paper's order, their mean, and for test sets that were not there the reason.
    """

    rows: tuple[UfdRow, ...]
    mean: dict[int, float]
    absent: Mapping[str, str]
    skipped: int
    probe_mean: float | None = None


def evaluate_ufd(
    roots: Sequence[Path],
    bank: StoredBank,
    embed: Embed,
    *,
    probe: LegacyProbe | None = None,
    progress: Progress = no_progress,
) -> UfdTable:
    """
    The paper's table for a bank, with the accuracy of its rule at every k, and of the published probe where given.

    ``embed`` must look at native crops. A set that cannot be measured is absent, with the reason. Raises
    ``BankInvalid`` where the bank has no crops, ``ConfigInvalid`` where no set can be measured.
    """
    sets = sets_below(roots, tuple(PUBLISHED))
    vectors, positive = middle_crops(bank.references())
    if not positive.any() or positive.all():
        raise BankInvalid(
            f"bank {bank.manifest.id} has no native crops of both labels, which the paper's rule compares; build it "
            "with --crops 1"
        )
    rows: dict[str, UfdRow] = {}
    absent = dict(sets.absent)
    skipped = 0
    for done, (home, listing) in enumerate(sets.listings.items()):
        progress("test sets", done, len(sets.listings))
        try:
            found = embed(hashed(listing), home, keep=True)
        except BankInvalid as fault:
            absent |= dict.fromkeys(sets.members[home], str(fault))
            continue
        skipped += len(listing.references) - len(found)
        for name in sets.members[home]:
            members = [row for row, made in enumerate(found.generator) if not found.positive[row] or made == name]
            row = _row(name, found.take(members), vectors, positive, probe)
            if min(row.n_real, row.n_ai):
                rows[name] = row
            else:
                absent[name] = f"{name} has {row.n_real} usable real and {row.n_ai} usable generated pictures"
    progress("test sets", len(sets.listings), len(sets.listings))
    if not rows:
        raise ConfigInvalid(f"no test set can be measured: {'; '.join(absent.values())}")
    return _table(tuple(rows[name] for name in PUBLISHED if name in rows), absent, skipped)


def _table(rows: tuple[UfdRow, ...], absent: Mapping[str, str], skipped: int) -> UfdTable:
    probed = [row.probe for row in rows if row.probe is not None]
    return UfdTable(
        rows=rows,
        mean={k: float(np.mean([row.accuracy[k] for row in rows])) for k in KS},
        absent={name: absent[name] for name in PUBLISHED if name in absent},
        skipped=skipped,
        probe_mean=float(np.mean(probed)) if probed else None,
    )


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


def _row(name: str, found: References, vectors: Matrix, positive: Mask, probe: LegacyProbe | None) -> UfdRow:
    queries, labels = middle_crops(found)
    nearest = nearest_of_both(queries, vectors, positive, _DEEPEST)
    told = None if probe is None else probe.read(found.features, ExactBank(found)).score > 0
    return UfdRow(
        name=name,
        n_real=int((~labels).sum()),
        n_ai=int(labels.sum()),
        accuracy={k: _percent((plain_rule(nearest, k) > 0) == labels) for k in KS},
        published=PUBLISHED.get(name),
        probe=None if told is None else _percent(told == found.positive),
    )


def _percent(right: Mask) -> float:
    return 100 * float(np.mean(right)) if len(right) else float("nan")
