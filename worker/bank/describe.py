"""
What is in a bank, in numbers that a person should see before trusting it: balance, formats, sizes, licences.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from worker.bank.files import StoredBank
from worker.bank.manifest import MANIFEST, MANIFEST_SUM, BankManifest
from worker.domain import BankEntry, Label

ONE_SOURCE: Final = 0.9
"""Of a label, the share from one source above which that is told."""

TELLING: Final = 0.7
"""Balanced accuracy from which on a property that is no content gives the label away."""

UNBALANCED: Final = 3.0
"""Largest label against smallest: beyond this, add to the small one rather than to the large one."""

UNKNOWN: Final = "unknown"


@dataclass(frozen=True, slots=True)
class LabelSummary:
    """
    The references of one label; the quartiles are of the short side in pixels and of the file's size.
    """

    entries: int
    generators: Mapping[str, int]
    formats: Mapping[str, int]
    licences: Mapping[str, int]
    short_side_px: tuple[int, int, int] | None
    file_bytes: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Description:
    """
    A bank at a glance; ``giveaways`` holds, for each property of the files, how well it alone tells the labels apart.

    That number is a balanced accuracy: 1 / labels is chance, 1 is certainty.
    """

    manifest: BankManifest
    manifest_sha256: str
    disk_bytes: int
    labels: Mapping[Label, LabelSummary]
    giveaways: Mapping[str, float]
    warnings: tuple[str, ...]


def describe(path: Path, bank: StoredBank) -> Description:
    """
    The description of a bank that was loaded from ``path``.
    """
    by_label: dict[Label, list[BankEntry]] = {label: [] for label in bank.sizes}
    for entry in bank.entries:
        by_label[entry.label].append(entry)
    giveaways = {
        "format": balanced_accuracy({label: Counter(_format(one) for one in rows) for label, rows in by_label.items()}),
        "size": balanced_accuracy({label: Counter(_octave(one) for one in rows) for label, rows in by_label.items()}),
    }
    return Description(
        manifest=bank.manifest,
        manifest_sha256=bank.manifest_sha256,
        disk_bytes=sum(
            (path / name).stat().st_size for name in (*bank.manifest.file_checksums, MANIFEST, MANIFEST_SUM)
        ),
        labels={label: _summary(rows) for label, rows in by_label.items()},
        giveaways=giveaways,
        warnings=tuple(_warnings(bank, giveaways)),
    )


def balanced_accuracy(counts: Mapping[Label, Counter[str]]) -> float:
    """
    How often the best guess by one property alone names the right label, each label weighing the same.
    """
    totals = {label: counted.total() for label, counted in counts.items()}
    values = {value for counted in counts.values() for value in counted}
    return sum(max(counts[label][value] / totals[label] for label in counts) for value in values) / len(counts)


def _warnings(bank: StoredBank, giveaways: Mapping[str, float]) -> list[str]:
    found = [
        f"the {name} of the files alone tells the labels apart with balanced accuracy {accuracy:.2f}: "
        f"what looks like a good bank may know nothing but that. {_remedy(name, bank)}"
        for name, accuracy in giveaways.items()
        if accuracy >= TELLING
    ]
    largest, smallest = (pick(bank.sizes, key=bank.sizes.__getitem__) for pick in (max, min))
    ratio = bank.sizes[largest] / bank.sizes[smallest]
    if ratio > UNBALANCED:
        found.append(
            f"{largest} has {ratio:.1f} times as many references as {smallest}: the soft vote weighs it out, "
            f"the nearest-neighbour rule does not. Add references of {smallest}."
        )
    return [*found, *_one_source(bank)]


def _one_source(bank: StoredBank) -> Iterator[str]:
    sources = bank.entries.sources()
    for label, size in bank.sizes.items():
        counted = Counter(source for row in bank.entries.rows_of(label) if (source := sources[int(row)]) is not None)
        for name, count in counted.most_common(1):
            if count > ONE_SOURCE * size:
                yield (
                    f"{count / size:.0%} of {label} come from one source, {name[:80]!r}: whoever spoils that source "
                    f"decides what is {label}. Add references of {label} from elsewhere."
                )


def _remedy(name: str, bank: StoredBank) -> str:
    quality = bank.views.reencode_quality
    if name != "format":
        return "Mix the sources; --max-side brings long pictures of either label down to one size."
    if quality is None:
        return "Mix the sources, or build with --reencode QUALITY, which puts both labels through the same JPEG."
    return f"Both labels went through one JPEG of quality {quality}, but marks of the first encoding can outlast it."


def _summary(rows: Sequence[BankEntry]) -> LabelSummary:
    return LabelSummary(
        entries=len(rows),
        generators=_counted([one.generator for one in rows if one.generator is not None]),
        formats=_counted([_format(one) for one in rows]),
        licences=_counted([one.licence or UNKNOWN for one in rows]),
        short_side_px=_quartiles([min(one.width, one.height) for one in rows if one.width and one.height]),
        file_bytes=_quartiles([one.byte_length for one in rows if one.byte_length is not None]),
    )


def _counted(words: list[str]) -> dict[str, int]:
    return dict(Counter(words).most_common())


def _quartiles(values: Sequence[int]) -> tuple[int, int, int] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, [25, 50, 75])
    return round(low), round(middle), round(high)


def _format(entry: BankEntry) -> str:
    return entry.format or UNKNOWN


def _octave(entry: BankEntry) -> str:
    """
    The short side by powers of the square root of two, so that 512 and 1024 differ and 500 and 520 do not.
    """
    if not entry.width or not entry.height:
        return UNKNOWN
    return str(round(2 * np.log2(min(entry.width, entry.height))))
