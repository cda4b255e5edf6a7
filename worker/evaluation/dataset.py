"""
The pictures to evaluate on: listed as for ``bank build``, each content once, with what stands in its file's header.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from worker.bank.manifest import GENERATED
from worker.bank.sources import Listing, Reference, list_source
from worker.bank.survey import Progress, Skipped, no_progress, survey
from worker.heads.features import Mask

UNNAMED: Final = "(unnamed)"
"""Stands for a generator or source that a listing does not name."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """
    What the header of a file says; the control classifier sees this and nothing else.
    """

    format: str
    width: int
    height: int
    byte_length: int


@dataclass(frozen=True, slots=True)
class Sample:
    """
    One picture: ``reference.sha256`` is always that of its bytes; ``tier`` as the listing has it.
    """

    reference: Reference
    positive: bool
    facts: FileFacts
    tier: str | None = None

    @property
    def content(self) -> str:
        """
        The sha256 of its bytes.
        """
        return self.reference.sha256 or ""

    @property
    def source(self) -> str:
        """
        Where it was collected.
        """
        return self.reference.source or UNNAMED

    @property
    def generator(self) -> str:
        """
        What made it; of a picture that no generator made, a word that no table shows.
        """
        return self.reference.generator or UNNAMED


@dataclass(frozen=True, slots=True)
class Dataset:
    """
    Pictures in the order of their listing, the same bytes once.

    ``duplicates`` names files with the same bytes as an earlier one (name, first name): they were taken once, so that
    none of them is both trained on and judged. ``skipped`` names files that cannot be used, with the reason.
    """

    name: str
    samples: tuple[Sample, ...] = field(repr=False)
    duplicates: tuple[tuple[str, str], ...] = ()
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def positive(self) -> Mask:
        """
        Which are of the positive label, bool[n].
        """
        return np.array([sample.positive for sample in self.samples], dtype=bool)

    def take(self, rows: Sequence[int]) -> "Dataset":
        """
        These pictures, in this order.
        """
        return replace(self, samples=tuple(self.samples[row] for row in rows))

    def listing(self) -> Listing:
        """
        As what a bank can be built from.
        """
        return Listing("csv", self.name, tuple(sample.reference for sample in self.samples))


def load_dataset(source: Path, progress: Progress = no_progress) -> Dataset:
    """
    The pictures of a folder or a CSV file (columns as for ``bank build``, and ``tier``, optional).

    Reads every file once. Raises ``BankInvalid`` as ``list_source`` and ``survey`` do.
    """
    listing = list_source(source, GENERATED)
    found = survey(listing, progress=progress)
    tiers = _tiers(source)
    samples: list[Sample] = []
    for one in found.unique:
        reference = replace(one.reference, sha256=one.content_hash)
        positive = reference.label == GENERATED.positive
        samples.append(Sample(reference, positive, file_facts(reference.path), tiers.get(reference.name)))
    return Dataset(listing.name, tuple(samples), found.duplicates, found.skipped)


def hashed(listing: Listing) -> Listing:
    """
    The listing with the sha256 of every file's bytes, each content once. Raises ``BankInvalid`` as ``survey`` does.
    """
    found = survey(listing)
    references = tuple(replace(one.reference, sha256=one.content_hash) for one in found.unique)
    return replace(listing, references=references)


def file_facts(path: Path) -> FileFacts:
    """
    The header of a file, by Pillow; a file that it cannot read has no format and no size, and its length all the same.
    """
    try:
        with Image.open(path) as image:
            return FileFacts(image.format or "", *image.size, path.stat().st_size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return FileFacts("", 0, 0, path.stat().st_size)


def _tiers(source: Path) -> dict[str, str]:
    if not source.is_file():
        return {}
    with source.open(encoding="utf-8-sig", newline="") as lines:
        return {row["path"]: row["tier"] for row in csv.DictReader(lines) if row.get("tier")}
