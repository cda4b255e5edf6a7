"""
How references are divided so that none is judged by what learnt from its own generator or source.

Division and weights only; what is fitted on the parts is ``worker.fitting.fit``.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import ConfigInvalid
from worker.heads.features import Column, Mask, References

FOLDS: Final = 5
RARE: Final = 10
"""Generators and sources with fewer references weigh as one group together: a handful speaks for little."""

DOMINANT: Final = 0.6
"""A generator or source with a larger share of its label is divided: held out whole it would leave too little."""

FEW_GENERATORS: Final = 3
"""With fewer, each is divided: what is learnt from one generator and asked of one other tells of neither."""

GLUED_SOURCES: Final = 3
"""From so many sources of reals on, generated pictures collected with a source's reals are held out with them."""

MIN_PER_LABEL: Final = 8


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """
    ``fold`` int64[n], 0 to ``count`` - 1: by which part each reference is held out. ``notes`` say what was divided.
    """

    fold: NDArray[np.int64] = field(repr=False)
    count: int
    notes: tuple[str, ...]


def folds_of(references: References, wanted: int = FOLDS) -> Folds:
    """
    Whole generators and whole sources of reals, spread over folds of about equal size.

    The same for the same references in any order, whatever their generators and sources are called.
    Raises ``ConfigInvalid`` with fewer than ``MIN_PER_LABEL`` of either label.
    """
    positive = references.positive
    for what, held in (("the positive label", positive), ("the other label", ~positive)):
        if held.sum() < MIN_PER_LABEL:
            raise ConfigInvalid(
                f"{int(held.sum())} references of {what}; a judgement needs at least {MIN_PER_LABEL} of each to be "
                "fitted. Add more with `touchstone bank add`"
            )
    units, notes = _units(references, wanted)
    units = _glued(units, references)
    shares = _shares(units, positive)
    count = min(wanted, len(shares))
    at = _spread(shares, first_content(units, references.content), count)
    # Two small units can share a fold and leave another empty; the folds that are used are numbered through.
    used, fold = np.unique([at[unit] for unit in units], return_inverse=True)
    names = np.asarray([_name(references, row) for row in range(len(references))])
    # What was divided may have been glued together again with its source.
    told = tuple(note for name, note in notes.items() if len(set(fold[names == name])) > 1)
    return Folds(fold.astype(np.int64), len(used), told)


def group_weights(references: References) -> Column:
    """
    float64[n], summing to n: both labels weigh the same, and within each every generator or source does.

    Rare ones together weigh as one, see ``RARE``.
    """
    names = np.asarray([_name(references, row) for row in range(len(references))])
    weights = np.zeros(len(references))
    for label in (references.positive, ~references.positive):
        counts = Counter(names[label])
        grouped = np.asarray([name if counts[name] >= RARE else "" for name in names])
        groups = sorted(set(grouped[label]))
        for group in groups:
            members = label & (grouped == group)
            weights[members] = 1 / (len(groups) * members.sum())
    total: Column = weights * len(references) / weights.sum()
    return total


def content_parts(references: References, rows: Sequence[int] | NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """
    For each of these rows a part, 0 to ``parts`` - 1, by the hash of its content: even, and the same in any order.
    """
    hashes = [hashlib.sha256(references.content[row].encode()).hexdigest() for row in rows]
    part = np.empty(len(hashes), dtype=np.int64)
    part[np.argsort(hashes, kind="stable")] = np.arange(len(hashes)) % parts
    return part


def first_content(names: Sequence[str], content: Sequence[str]) -> dict[str, str]:
    """
    The least hash of content under each name: an order of names that no renaming changes.
    """
    first: dict[str, str] = {}
    for name, one in zip(names, content, strict=True):
        key = hashlib.sha256(one.encode()).hexdigest()
        first[name] = min(first.get(name, key), key)
    return first


def _name(references: References, row: int) -> str:
    """
    The generator of a generated picture, or its source where that is not known; the source of a real one.
    """
    generator, source = references.generator[row], references.source[row]
    if references.positive[row]:
        return f"generator {generator}" if generator else f"generated of {source or 'unknown source'}"
    return f"reals of {source or 'unknown source'}"


def _units(references: References, wanted: int) -> tuple[list[str], dict[str, str]]:
    """
    What is held out whole: per reference the name of its unit; and a note for each name that had to be divided.
    """
    units = [_name(references, row) for row in range(len(references))]
    notes: dict[str, str] = {}
    for label, few in ((references.positive, FEW_GENERATORS), (~references.positive, 2)):
        total = int(label.sum())
        counts = Counter(units[row] for row in np.flatnonzero(label))
        for name, held in sorted(counts.items()):
            if held > DOMINANT * total or len(counts) < few:
                rows = [int(row) for row in np.flatnonzero(label) if units[row] == name]
                for row, part in zip(rows, content_parts(references, rows, min(wanted, held)), strict=True):
                    units[row] = f"{name}, part {part}"
                notes[name] = (
                    f"{name}: {held} of {total} references of its label, so it was divided by content; "
                    "how its like is judged when never seen before is not measured"
                )
    return units, notes


def _glued(units: list[str], references: References) -> list[str]:
    """
    Units renamed so that what comes from one source together, real and generated, is held out together.

    Not where a source holds too much of either label: held out whole it would leave too little.
    """
    positive = references.positive
    reals = {source for source, held in zip(references.source, positive, strict=True) if not held}
    if len(reals - {None}) < GLUED_SOURCES:
        return units
    sources: dict[str, set[str | None]] = {}
    for unit, source in zip(units, references.source, strict=True):
        sources.setdefault(unit, set()).add(source)
    only = [f"source {next(iter(sources[unit]))}" if len(sources[unit]) == 1 else unit for unit in units]
    small = {name for name, shares in _shares(only, positive).items() if max(shares) <= DOMINANT}
    unsourced = "source None"
    return [name if name in small and name != unsourced else unit for name, unit in zip(only, units, strict=True)]


def _shares(units: Sequence[str], positive: Mask) -> dict[str, tuple[float, float]]:
    generated = Counter(unit for unit, held in zip(units, positive, strict=True) if held)
    real = Counter(unit for unit, held in zip(units, positive, strict=True) if not held)
    return {
        unit: (generated[unit] / max(positive.sum(), 1), real[unit] / max((~positive).sum(), 1)) for unit in set(units)
    }


def _spread(shares: dict[str, tuple[float, float]], first: dict[str, str], count: int) -> dict[str, int]:
    """
    The largest first, each to the fold that stays the least full by it, counting both labels' shares squared.

    Of equally large ones the one with the least hash of content comes first, see ``first_content``.
    """
    load = np.zeros((count, 2))
    at: dict[str, int] = {}
    largest_first: Callable[[str], tuple[float, str]] = lambda unit: (-max(shares[unit]), first[unit])  # noqa: E731 - typed
    for unit in sorted(shares, key=largest_first):
        grown = ((load + shares[unit]) ** 2).sum(axis=1) - (load**2).sum(axis=1)
        at[unit] = int(np.argmin(grown.round(12)))
        load[at[unit]] += shares[unit]
    return at
