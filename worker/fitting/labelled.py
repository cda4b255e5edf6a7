"""
What weighing is learnt from: labels, weights, and which pictures may be compared with which.

Where a source holds one label alone, label and source cannot be told apart: a head that knows the source looks as if it
knew the label. So where enough sources hold both, heads are weighed by comparisons within sources only (a conditional
likelihood; Breslow & Day 1980, chapter 7), and what a source has in common counts for nothing.
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, Mask, References, Rows

MIN_PAIRED: Final = 8
"""Pictures of each label that a source needs to be compared within."""

MIN_PAIRED_SOURCES: Final = 3
"""Sources that hold both labels below which all pictures are compared with all: one or two speak for themselves."""

MAX_PAIRS: Final = 4096
"""Comparisons within one source; of more, so many are drawn."""


REFUTED: Final = 2.5
"""Standard errors: by chance, one head in 160 would be turned round, and one of eight in one fit of twenty."""


class Contrasts(NamedTuple):
    """
    Rows of positive and of other pictures that are compared, one by one, and what each comparison weighs.
    """

    positive: Rows
    other: Rows
    weight: Column


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """
    Which references are positive, and what each weighs; ``source`` int64[n] numbers those compared within, -1 is none.
    """

    positive: Mask = field(repr=False)
    weights: Column = field(repr=False)
    source: Rows | None = field(default=None, repr=False)

    @property
    def sources(self) -> tuple[Mask, ...]:
        """
        The members of each source to be compared within; () where all are compared with all.
        """
        if self.source is None:
            return ()
        return tuple(self.source == number for number in range(int(self.source.max(initial=-1)) + 1))

    def share_above(self, score: Column) -> float:
        """
        How often a positive scores higher than another that it may be compared with, ties by half; NaN is left out.

        A source counts by its scarcer label. A coin's one half where there is nothing to compare.
        """
        known = np.isfinite(score)
        if not self.sources:
            return _share(score, self.positive, self.weights, known)
        shares, heft = [], []
        for members in self.sources:
            inside = members & known
            shares.append(_share(score, self.positive, self.weights, inside))
            heft.append(min(int((inside & self.positive).sum()), int((inside & ~self.positive).sum())))
        return float(np.average(shares, weights=heft)) if sum(heft) else 0.5

    def refutes(self, score: Column) -> bool:
        """
        Whether positives score lower so clearly that higher scores cannot be taken to go with the label.

        By ``REFUTED`` standard errors of the share above, as Mann and Whitney give it for labels drawn at random.
        """
        known = np.isfinite(score)
        variance = heft = 0.0
        for members in self.sources or (np.ones(len(score), dtype=np.bool_),):
            up = int((members & known & self.positive).sum())
            down = int((members & known & ~self.positive).sum())
            if up and down:
                heft += min(up, down)
                variance += min(up, down) ** 2 * (up + down + 1) / (12 * up * down)
        return heft > 0 and self.share_above(score) < 0.5 - REFUTED * np.sqrt(variance) / heft

    def contrasts(self) -> Contrasts:
        """
        Every comparison within a source, a source weighing as much as it has pictures of its scarcer label.
        """
        draws = np.random.default_rng(0)
        found = []
        for members in self.sources:
            up, down = np.flatnonzero(members & self.positive), np.flatnonzero(members & ~self.positive)
            pairs = len(up) * len(down)
            chosen = np.sort(draws.choice(pairs, MAX_PAIRS, replace=False)) if pairs > MAX_PAIRS else np.arange(pairs)
            weight = np.full(len(chosen), min(len(up), len(down)) / len(chosen))
            found.append(Contrasts(up[chosen // len(down)], down[chosen % len(down)], weight))
        return Contrasts(*(np.concatenate(column) for column in zip(*found, strict=True)))


def paired_sources(references: References) -> Rows | None:
    """
    The number of each reference's source where that holds enough of both labels, -1 where not; None for too few such.
    """
    names = np.array([name or "" for name in references.source], dtype=np.str_)
    number = np.full(len(names), -1, dtype=np.int64)
    count = 0
    for name in sorted(set(names.tolist()) - {""}):
        members = names == name
        if min((members & references.positive).sum(), (members & ~references.positive).sum()) >= MIN_PAIRED:
            number[members], count = count, count + 1
    return number if count >= MIN_PAIRED_SOURCES else None


def share_above(score: Column, positive: Mask, weights: Column) -> float:
    """
    The weighted AUROC: how often a positive scores higher than another, ties by half.
    """
    others, order = score[~positive], np.argsort(score[~positive], kind="stable")
    heavy = np.concatenate([[0.0], np.cumsum(weights[~positive][order])])
    below = heavy[np.searchsorted(others[order], score[positive], side="left")]
    up_to = heavy[np.searchsorted(others[order], score[positive], side="right")]
    return float(np.average((below + up_to) / 2, weights=weights[positive]) / heavy[-1])


def _share(score: Column, positive: Mask, weights: Column, inside: NDArray[np.bool_]) -> float:
    label = positive[inside]
    if not label.any() or label.all():
        return 0.5
    return share_above(score[inside], label, weights[inside])
