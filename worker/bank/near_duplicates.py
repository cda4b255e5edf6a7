"""
References that are one picture to the encoder though their bytes differ: re-encoded, resized, or of one burst.

Under two labels they contradict each other. From two sources they let a bank be measured on what it holds, for figures
are made by holding out sources. Within a source they vote more than once, and are counted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from worker.bank.files import StoredBank
from worker.bank.survey import Progress
from worker.domain import BankEntry, Embedding, Neighbour
from worker.ports import Bank

NEAR_DUPLICATE: Final = 0.999
"""Cosine from which on two references are taken for one picture."""

DEPTH: Final = 5
"""Of each label so many nearest are looked at, the reference itself among them: of larger clusters a part is told."""

_BATCH: Final = 256


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """
    Pairs as messages, each pair once: under two labels, and under one label from two sources.

    ``within_source``: pairs of one label and one source, which are counted only.
    """

    across_labels: tuple[str, ...]
    across_sources: tuple[str, ...]
    within_source: int


def near_duplicates(bank: StoredBank, searched: Bank, progress: Progress) -> NearDuplicates:
    """
    The near duplicates among all references. Blocks: it searches once for each of them.

    A reference without a source counts as of a source of its own kind: two of them are within one source.
    """
    count = len(bank.entries)
    labels: dict[tuple[str, str], str] = {}
    sources: dict[tuple[str, str], str] = {}
    within: set[tuple[str, str]] = set()
    for start in range(0, count, _BATCH):
        progress("near duplicates", start, count)
        rows = range(start, min(start + _BATCH, count))
        found = searched.nearest([Embedding.from_half(bank.vectors[row]) for row in rows], DEPTH)
        for row, neighbourhood in zip(rows, found, strict=True):
            entry = bank.entries.entry(row)
            for near in _near(entry, [one for label in neighbourhood.nearest.values() for one in label]):
                one, two = sorted((entry, near.entry), key=lambda pair: pair.id)
                pair, cosine = (one.id, two.id), f"with cosine {near.similarity:.4f}"
                if one.label != two.label:
                    labels.setdefault(pair, f"{one.id} is {one.label} and {two.id} is {two.label}, {cosine}")
                elif one.source != two.source:
                    sources.setdefault(pair, f"{_from(one)} and {_from(two)}, {cosine}")
                else:
                    within.add(pair)
    progress("near duplicates", count, count)
    return NearDuplicates(tuple(labels.values()), tuple(sources.values()), len(within))


def _near(entry: BankEntry, found: list[Neighbour]) -> Iterator[Neighbour]:
    for one in found:
        if one.similarity >= NEAR_DUPLICATE and one.entry.id != entry.id:
            yield one


def _from(entry: BankEntry) -> str:
    return f"{entry.id} from {entry.source!r}" if entry.source else f"{entry.id} from no named source"
