"""
Which pictures are held out together: a source that has both labels, or a generator with a share of the reals.

A split never looks at a score, and no picture is trained on in the fold that judges it.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from worker.errors import ConfigInvalid
from worker.evaluation.dataset import Sample
from worker.heads.features import Rows

SplitName = Literal["source", "generator", "bank"]

LEAST_OF_GENERATOR: Final = 5
"""Generators with fewer pictures are held out together."""

RARE: Final = "(rare generators)"

_NAMED: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """
    One round: ``train`` and ``test`` number samples, ascending, and have none in common.
    """

    name: str
    train: Rows = field(repr=False)
    test: Rows = field(repr=False)


@dataclass(frozen=True, slots=True)
class Split:
    """
    All rounds, and what a reader must know of how they were cut.
    """

    name: SplitName
    folds: tuple[Fold, ...]
    notes: tuple[str, ...] = ()


def by_source(samples: Sequence[Sample], tier: str | None = None) -> Split:
    """
    Hold out, one at a time, every source that has both labels; sources with one label are only trained on.

    With ``tier``, only sources of that tier are held out. Raises ``ConfigInvalid`` where no source can be.
    """
    held_out = _of_both_labels(samples, tier)
    if not held_out:
        of_tier = f" of tier {tier}" if tier else ""
        raise ConfigInvalid(
            f"no source{of_tier} has both real and generated pictures, so none can be held out alone; "
            "give the CSV file a column source, or take --split generator"
        )
    folds = tuple(_fold(name, [sample.source == name for sample in samples]) for name in held_out)
    only = sorted({sample.source for sample in samples} - set(held_out))
    notes = (f"trained on in every fold, never judged: {', '.join(only)}",) if only else ()
    return Split("source", _trainable(folds, samples), notes)


def by_source_or_generator(samples: Sequence[Sample], tier: str | None = None, seed: int = 0) -> Split:
    """
    ``by_source``; where no source has both labels and no tier is asked for, ``by_generator`` with a note that says so.
    """
    if tier is not None or _of_both_labels(samples, None):
        return by_source(samples, tier)
    split = by_generator(samples, seed)
    note = (
        "no source has both real and generated pictures, so generators are held out instead of sources: how a source "
        "of its own fares is not measured"
    )
    return replace(split, notes=(note, *split.notes))


def by_generator(samples: Sequence[Sample], seed: int = 0) -> Split:
    """
    Hold out, one at a time, every generator, with a share of the reals that no other fold judges.

    Whole sources of reals are dealt out where there are as many as folds; else single reals are, and the notes say so.
    Raises ``ConfigInvalid`` with fewer than two generators.
    """
    made = Counter(sample.generator for sample in samples if sample.positive)
    names = [name if made[name] >= LEAST_OF_GENERATOR else RARE for name in made]
    group = dict(zip(made, names, strict=True))
    folds = sorted(set(names))
    if len(folds) < 2:  # noqa: PLR2004 - one to hold out, one to learn from
        told = ", ".join(f"{name} with {count}" for name, count in made.most_common(_NAMED)) or "no generated picture"
        raise ConfigInvalid(
            f"{told}: none can be held out while another is learnt from, since generators with fewer than "
            f"{LEAST_OF_GENERATOR} pictures are held out together; name at least two generators, one of them with "
            f"{LEAST_OF_GENERATOR} pictures, or give the listing sources that have both labels"
        )
    share, notes = _shares_of_reals(samples, len(folds), seed)
    rounds = []
    for number, name in enumerate(folds):
        inside = [
            group[sample.generator] == name if sample.positive else share[row] == number
            for row, sample in enumerate(samples)
        ]
        rounds.append(_fold(name, inside))
    return Split("generator", _trainable(tuple(rounds), samples), notes)


def _of_both_labels(samples: Sequence[Sample], tier: str | None) -> list[str]:
    labels: dict[str, set[bool]] = defaultdict(set)
    for sample in samples:
        if sample.reference.source is not None and (tier is None or sample.tier == tier):
            labels[sample.source].add(sample.positive)
    return sorted(source for source, found in labels.items() if len(found) > 1)


def _shares_of_reals(samples: Sequence[Sample], folds: int, seed: int) -> tuple[dict[int, int], tuple[str, ...]]:
    reals = [row for row, sample in enumerate(samples) if not sample.positive]
    sources = Counter(samples[row].source for row in reals)
    if len(sources) < folds:
        shuffled = np.random.default_rng(seed).permutation(reals)
        note = (
            f"{len(sources)} sources of reals for {folds} folds: reals were dealt out one by one, so a judged real may "
            "have companions of its source in training"
        )
        return {int(row): number % folds for number, row in enumerate(shuffled)}, (note,)
    load = [0] * folds
    place: dict[str, int] = {}
    for source, count in sources.most_common():
        place[source] = load.index(min(load))
        load[place[source]] += count
    return {row: place[samples[row].source] for row in reals}, ()


def _fold(name: str, inside: Sequence[bool]) -> Fold:
    held = np.array(inside, dtype=bool)
    return Fold(name, np.flatnonzero(~held), np.flatnonzero(held))


def _trainable(folds: tuple[Fold, ...], samples: Sequence[Sample]) -> tuple[Fold, ...]:
    for fold in folds:
        if len({samples[row].positive for row in fold.train}) < 2:  # noqa: PLR2004 - real and generated
            raise ConfigInvalid(f"without {fold.name} only one label is left to learn from; add pictures of the other")
    return folds
