"""
Making a bank, and adding to one: survey, embed, assemble beside the target, check, put in place.

The command line is ``worker.cli.bank``; what these functions take is plain, so that the demo and tests call them too.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from worker import __version__
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import Half, StoredBank, counts_of, load_bank, write_contents, write_manifest
from worker.bank.fit import check_fit, embed_probe, probe_picture
from worker.bank.manifest import (
    GENERATED,
    BankManifest,
    EncoderRecord,
    PreprocessRecord,
    Question,
    SourceRecord,
    check_name,
    encoder_record,
    preprocess_record,
)
from worker.bank.sources import Listing
from worker.bank.survey import Progress, Skipped, Surveyed, no_progress, survey
from worker.bank.swap import put_in_place, refusal, require_replaceable
from worker.bank.workshop import Embedded, Workshop
from worker.domain import BankEntry, ContentHash
from worker.errors import EXIT_FOUND, BankInvalid

ID_DIGITS: Final = 16
"""Of the content's sha256 these are the entry's id; two of a million share 64 bits with probability 3e-8."""


_Usable = tuple[Surveyed, Embedded]


class TooManySkipped(BankInvalid):
    """
    More references were unusable than the plan allows; nothing was put in place, and what was embedded is kept.
    """

    exit_code = EXIT_FOUND

    def __init__(self, message: str, skipped: tuple[Skipped, ...]) -> None:
        super().__init__(message)
        self.skipped = skipped


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """
    What to make of the references, and when to refuse; ``max_skipped`` is a share of those listed, 0 to 1.
    """

    id: str
    version: str = "1"
    question: Question = GENERATED
    max_skipped: float = 0.10
    replace: bool = False
    restart: bool = False
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        check_name("the bank's id", self.id)
        check_name("the bank's version", self.version)


@dataclass(frozen=True, slots=True)
class AddPlan:
    """
    How to add: in place unless ``out`` names another directory, under ``version`` or the one after the present one.
    """

    out: Path | None = None
    version: str | None = None
    max_skipped: float = 0.10
    replace: bool = False
    restart: bool = False
    created_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.version is not None:
            check_name("the bank's version", self.version)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """
    What was put in place: the bank, how many references were added, and every one that was not.

    ``reused`` counts those whose embedding an earlier, unfinished run had left.
    """

    path: Path
    bank: StoredBank
    added: int
    reused: int
    ignored: int
    duplicates: tuple[tuple[str, str], ...]
    skipped: tuple[Skipped, ...]


@dataclass(frozen=True, slots=True)
class _Base:
    """
    What the new references are put on top of: nothing but a probe for a new bank, everything for an old one.
    """

    id: str
    version: str
    question: Question
    encoder: EncoderRecord
    preprocess: PreprocessRecord
    probe: Half
    probe_png: bytes
    sources: tuple[SourceRecord, ...]
    entries: tuple[BankEntry, ...]
    vectors: Half


@dataclass(frozen=True, slots=True)
class _Target:
    """
    Where the bank goes, when that was decided, and what may be in the way.
    """

    path: Path
    replace: bool
    restart: bool
    max_skipped: float
    at: datetime


def build_bank(
    listing: Listing, out: Path, *, embedder: ReferenceEmbedder, plan: BuildPlan, progress: Progress = no_progress
) -> BuildReport:
    """
    Build the bank of a listing at ``out``, or go on with a build that was killed; ``out`` is never there half-made.

    Blocks for as long as embedding takes. Raises ``BankInvalid`` when ``out`` is there already, when the same bytes
    have two labels, when work of another encoder lies beside ``out``, or when a label has no usable reference;
    ``TooManySkipped`` when more than ``plan.max_skipped`` of the references could not be used.
    """
    fingerprint = embedder.encoder.fingerprint
    target = _Target(_place(out), plan.replace, plan.restart, plan.max_skipped, plan.created_at or datetime.now(UTC))
    if target.path.exists() and not plan.replace:
        raise BankInvalid(refusal(out))
    require_replaceable(target.path)
    # The probe comes first: a decoder or encoder that cannot do it should say so before hours of work.
    png = probe_picture()
    base = _Base(
        id=plan.id,
        version=plan.version,
        question=plan.question,
        encoder=encoder_record(fingerprint),
        preprocess=preprocess_record(fingerprint),
        probe=embed_probe(png, embedder.encoder, embedder.decoder).as_half(),
        probe_png=png,
        sources=(),
        entries=(),
        vectors=np.empty((0, fingerprint.dim), dtype=np.float16),
    )
    return _make(base, listing, target=target, embedder=embedder, progress=progress)


def add_to_bank(
    path: Path, listing: Listing, *, embedder: ReferenceEmbedder, plan: AddPlan, progress: Progress = no_progress
) -> BuildReport:
    """
    A new version of a bank with the listing's references added; by default it takes the old one's place in one step.

    References that the bank has already count as duplicates. Raises ``BankInvalid`` as ``build_bank`` does, and when
    the encoder does not fit or the version would not change.
    """
    bank = load_bank(path)
    check_fit(bank, embedder.encoder, embedder.decoder)
    version = plan.version or next_version(bank.manifest.version)
    if version == bank.manifest.version:
        raise BankInvalid(f"bank {path} has version {version} already; a changed bank needs another --version")
    out = _place(plan.out or path)
    replace = plan.replace or plan.out is None
    if out.exists() and not replace:
        raise BankInvalid(refusal(out))
    require_replaceable(out)
    base = _Base(
        id=bank.manifest.id,
        version=version,
        question=bank.manifest.question,
        encoder=bank.manifest.encoder,
        preprocess=bank.manifest.preprocess,
        probe=bank.probe,
        probe_png=bank.probe_png,
        sources=bank.manifest.sources,
        entries=tuple(bank.entries),
        vectors=bank.vectors,
    )
    target = _Target(out, replace, plan.restart, plan.max_skipped, plan.created_at or datetime.now(UTC))
    return _make(base, listing, target=target, embedder=embedder, progress=progress)


def _place(out: Path) -> Path:
    # Through links: a link that names the present bank goes on naming it when it is replaced.
    return Path(os.path.realpath(out))


def next_version(version: str) -> str:
    """
    The version with its last number raised by one; raises ``BankInvalid`` where it does not end in one.
    """
    match = re.fullmatch(r"(.*?)(\d+)", version)
    if match is None:
        raise BankInvalid(f"version {version!r} does not end in a number; say the new one with --version")
    return f"{match[1]}{int(match[2]) + 1:0{len(match[2])}d}"


def _make(
    base: _Base, listing: Listing, *, target: _Target, embedder: ReferenceEmbedder, progress: Progress
) -> BuildReport:
    has = {ContentHash(entry.sha256): (entry.label, f"entry {entry.id} of the bank") for entry in base.entries}
    found = survey(listing, known=has, threads=embedder.threads, progress=progress)
    with Workshop(target.path, embedder.encoder.fingerprint, restart=target.restart) as workshop:
        reused = sum(one.content_hash in workshop.known for one in found.unique)
        skipped = (*found.skipped, *embedder.embed(found.unique, workshop, progress))
        _check_skipped(skipped, listing, target)
        usable = [(one, workshop.known[one.content_hash]) for one in found.unique if one.content_hash in workshop.known]
        _check_labels(base, usable, listing)
        source = SourceRecord(
            kind=listing.kind,
            name=listing.name,
            listed=len(listing.references),
            added=len(usable),
            duplicates=len(found.duplicates),
            skipped=len(skipped),
            encoder_id=embedder.encoder.fingerprint.id,
            added_at=target.at,
        )
        fresh = workshop.fresh_folder()
        _write(fresh, base, usable, source)
        bank = load_bank(fresh)
        put_in_place(fresh, target.path, replace=target.replace)
        workshop.remove()
    return BuildReport(target.path, bank, len(usable), reused, listing.ignored, found.duplicates, skipped)


def _check_skipped(skipped: tuple[Skipped, ...], listing: Listing, target: _Target) -> None:
    listed = len(listing.references)
    if len(skipped) > target.max_skipped * listed:
        first = skipped[0]
        raise TooManySkipped(
            f"{len(skipped)} of {listed} references could not be used, allowed are {target.max_skipped:.0%}; "
            f"first {first.name} ({first.code}: {first.detail}). Mend them or raise --max-skipped; no work is lost.",
            skipped,
        )


def _check_labels(base: _Base, usable: Sequence[_Usable], listing: Listing) -> None:
    if not usable and base.entries:
        raise BankInvalid(f"{listing.name} has nothing new for bank {base.id}; nothing was changed")
    found = {entry.label for entry in base.entries} | {one.reference.label for one, _ in usable}
    if missing := [label for label in base.question.labels if label not in found]:
        raise BankInvalid(
            f"{listing.name} has no usable reference of label {', '.join(missing)}; "
            "every label of the question needs at least one"
        )


def _write(folder: Path, base: _Base, usable: Sequence[_Usable], source: SourceRecord) -> None:
    entries = [*base.entries, *(_entry(one, embedded) for one, embedded in usable)]
    vectors = np.concatenate([base.vectors, *(embedded.vector[None] for _, embedded in usable)])
    checksums = write_contents(folder, entries, vectors=vectors, probe=base.probe, probe_png=base.probe_png)
    write_manifest(
        folder,
        BankManifest(
            id=base.id,
            version=base.version,
            question=base.question,
            counts=counts_of(entries),
            encoder=base.encoder,
            preprocess=base.preprocess,
            checksums=checksums,
            created_at=source.added_at,
            built_by=f"touchstone-worker {__version__}",
            sources=(*base.sources, source),
        ),
    )


def _entry(surveyed: Surveyed, embedded: Embedded) -> BankEntry:
    reference = surveyed.reference
    return BankEntry(
        id=surveyed.content_hash[:ID_DIGITS],
        label=reference.label,
        generator=reference.generator,
        source=reference.source,
        licence=reference.licence,
        sha256=surveyed.content_hash,
        format=embedded.format,
        width=embedded.width,
        height=embedded.height,
        byte_length=embedded.byte_length,
    )
