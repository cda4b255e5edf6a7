"""
Held-out folds by source, and balanced weights: what every closed-form head is chosen with. Numbers only.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.fitting.folds import first_content
from worker.heads.features import Column, Mask, References, Rows

FOLDS: Final = 5
"""At most so many; each group is held out once."""


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """
    References to learn from and references to be judged by, as rows; no row is in both, and no group.
    """

    train: Rows = field(repr=False)
    test: Rows = field(repr=False)


def held_out(references: References, *, seed: int, folds: int = FOLDS) -> tuple[HeldOut, ...]:
    """
    Folds over groups of references, such that what is learnt from the rest always has both classes.

    A group is a source: pictures of one source are alike in more than their class. Where that would leave a fold
    without a class to learn from, as in a bank of one source, a group is a generator, and of reals one picture
    (references of equal content stay together); then, single pictures. Empty where even these leave no class.
    """
    content = np.array(references.content, dtype=np.str_)
    source = np.array([name or "" for name in references.source], dtype=np.str_)
    generator = np.array([name or "" for name in references.generator], dtype=np.str_)
    made = np.where(references.positive & (generator != ""), generator, content)
    for names in (source, made, content):
        group = _numbered(names, references.content)
        fold = _dealt(group, references.positive, folds=folds, seed=seed)
        parts = [HeldOut(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in np.unique(fold)]
        if len(parts) > 1 and all(_has_both(references.positive[part.train]) for part in parts):
            return tuple(parts)
    return ()


def balanced_weights(references: References) -> Column:
    """
    A weight per reference, mean 1: either class weighs the same in all.

    Within a class a source (of the positive class: a source's generator) weighs as the square root of its size: one of
    thousands does not drown the others, and one of a handful is not as loud as it.
    """
    weight = np.zeros(len(references))
    for members in (references.positive, ~references.positive):
        rows = np.flatnonzero(members)
        if not len(rows):
            continue
        names = [f"{references.source[row]}\n{references.generator[row]}" for row in rows]
        _, group, sizes = np.unique(names, return_inverse=True, return_counts=True)
        share = 1 / np.sqrt(sizes[group])
        weight[rows] = share / share.sum()
    balanced: Column = weight * (len(references) / weight.sum())
    return balanced


def log_loss(log_odds: Column, positive: Mask, *, weight: Column) -> float:
    """
    Weighted mean of -log p of the true class, in nats; of pictures whose log-odds are known, infinite where none is.
    """
    known = np.isfinite(log_odds)
    if not known.any():
        return float("inf")
    signed = np.where(positive[known], log_odds[known], -log_odds[known])
    return float(np.average(np.logaddexp(0, -signed), weights=weight[known]))


def _numbered(names: NDArray[np.str_], content: tuple[str, ...]) -> Rows:
    """
    The number of each name, in the order of their contents: what a source is called decides nothing.
    """
    first = first_content(names.tolist(), content)
    number = {name: at for at, name in enumerate(sorted(first, key=first.__getitem__))}
    return np.asarray([number[name] for name in names.tolist()], dtype=np.int64)


def _dealt(group: Rows, positive: Mask, *, folds: int, seed: int) -> Rows:
    """
    A fold per reference: whole groups, the largest first, each to where its class is fewest.
    """
    count = int(group.max()) + 1 if len(group) else 0
    per_class = np.stack(
        [np.bincount(group, weights=members, minlength=count) for members in (positive, ~positive)], axis=1
    )
    order = np.random.default_rng(seed).permutation(count)
    order = order[np.argsort(-per_class[order].sum(axis=1), kind="stable")]
    held = np.zeros((min(folds, count), 2))
    fold_of = np.zeros(count, dtype=np.int64)
    total = np.maximum(per_class.sum(axis=0), 1)
    for number in order:
        share = per_class[number] / total
        fold = int(np.argmin((held * share).sum(axis=1) + 1e-3 * held.sum(axis=1)))
        fold_of[number] = fold
        held[fold] += share
    return fold_of[group]


def _has_both(positive: Mask) -> bool:
    return bool(positive.any() and not positive.all())
