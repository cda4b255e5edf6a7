"""
What building a bank and adding to one share: survey, embed, assemble beside the target, check, put in place.

What is to be made of which references is said in ``worker.bank.build``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from worker import __version__
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import StoredBank, counts_of, load_bank, write_contents, write_manifest
from worker.bank.full_disk import writing
from worker.bank.manifest import BankManifest, EncoderRecord, PreprocessRecord, Question, SourceRecord, views_record
from worker.bank.release import Refit, seal_judgement
from worker.bank.sources import Listing
from worker.bank.survey import Progress, Skipped, Surveyed, survey
from worker.bank.swap import put_in_place
from worker.bank.vectors import Half, StoredVectors, joined, stacked
from worker.bank.workshop import Embedded, Workshop
from worker.domain import BankEntry, ContentHash
from worker.errors import EXIT_FOUND, BankInvalid
from worker.views import ViewSpec

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
class BuildReport:
    """
    What was put in place: the bank, how many references were added, and every one that was not.

    ``reused`` counts those whose embedding an earlier, unfinished run had left. ``judgement_dropped`` says that the
    bank had a fitted judgement before and has none now, because nobody was there to fit it again; ``index_dropped``,
    that it carried an approximate index, which does not have the new references.
    """

    path: Path
    bank: StoredBank
    added: int
    reused: int
    ignored: int
    duplicates: tuple[tuple[str, str], ...]
    skipped: tuple[Skipped, ...]
    judgement_dropped: bool = False
    index_dropped: bool = False


@dataclass(frozen=True, slots=True)
class Ground:
    """
    What the new references are put on top of: nothing but a probe for a new bank, everything for an old one.

    ``fitted`` says that the bank has a judgement, which no longer holds once its references change; ``indexed``, that
    it carries an approximate index, which is then another bank's.
    """

    id: str
    version: str
    question: Question
    encoder: EncoderRecord
    preprocess: PreprocessRecord
    views: ViewSpec
    probe: Half = field(repr=False)
    probe_png: bytes = field(repr=False)
    sources: tuple[SourceRecord, ...]
    entries: tuple[BankEntry, ...] = field(repr=False)
    stored: StoredVectors = field(repr=False)
    fitted: bool = False
    indexed: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """
    Where the bank goes, when that was decided, what may be in the way, and who fits its judgement again.
    """

    path: Path
    replace: bool
    restart: bool
    max_skipped: float
    at: datetime
    refit: Refit | None = None


def assemble(
    ground: Ground, listing: Listing, *, target: Target, embedder: ReferenceEmbedder, progress: Progress
) -> BuildReport:
    """
    Embed what is new in a listing and put the bank of old and new in place; ``build_bank`` says what it raises.
    """
    has = {ContentHash(entry.sha256): (entry.label, f"entry {entry.id} of the bank") for entry in ground.entries}
    found = survey(listing, known=has, threads=embedder.threads, progress=progress)
    fingerprint = embedder.encoder.fingerprint
    with (
        writing(target.path),
        Workshop(target.path, fingerprint, views=ground.views, restart=target.restart) as workshop,
    ):
        reused = sum(one.content_hash in workshop.known for one in found.unique)
        skipped = (*found.skipped, *embedder.embed(found.unique, workshop, progress))
        _check_skipped(skipped, listing, target)
        usable = [(one, workshop.known[one.content_hash]) for one in found.unique if one.content_hash in workshop.known]
        _check_labels(ground, usable, listing)
        source = SourceRecord(
            kind=listing.kind,
            name=listing.name,
            listed=len(listing.references),
            added=len(usable),
            duplicates=len(found.duplicates),
            skipped=len(skipped),
            encoder_id=fingerprint.id,
            added_at=target.at,
        )
        fresh = workshop.fresh_folder()
        bank = _finished(fresh, ground, usable, source, refit=target.refit, progress=progress)
        put_in_place(fresh, target.path, replace=target.replace)
        workshop.remove()
    report = BuildReport(target.path, bank, len(usable), reused, listing.ignored, found.duplicates, skipped)
    dropped = ground.fitted and bank.manifest.judgement is None
    return replace(report, judgement_dropped=dropped, index_dropped=ground.indexed)


def _finished(
    fresh: Path,
    ground: Ground,
    usable: Sequence[_Usable],
    source: SourceRecord,
    *,
    refit: Refit | None,
    progress: Progress,
) -> StoredBank:
    """
    The bank in its fresh folder, loaded again from there; with a judgement where there was one and somebody fits it.
    """
    _write(fresh, ground, usable, source)
    bank = load_bank(fresh)
    if not ground.fitted or refit is None:
        return bank
    seal_judgement(fresh, bank.manifest, refit(bank, progress))
    return load_bank(fresh)


def _check_skipped(skipped: tuple[Skipped, ...], listing: Listing, target: Target) -> None:
    listed = len(listing.references)
    if len(skipped) > target.max_skipped * listed:
        first = skipped[0]
        raise TooManySkipped(
            f"{len(skipped)} of {listed} references could not be used, allowed are {target.max_skipped:.0%}; "
            f"first {first.name} ({first.code}: {first.detail}). Mend them or raise --max-skipped; no work is lost.",
            skipped,
        )


def _check_labels(ground: Ground, usable: Sequence[_Usable], listing: Listing) -> None:
    if not usable and ground.entries:
        raise BankInvalid(f"{listing.name} has nothing new for bank {ground.id}; nothing was changed")
    found = {entry.label for entry in ground.entries} | {one.reference.label for one, _ in usable}
    if missing := [label for label in ground.question.labels if label not in found]:
        raise BankInvalid(
            f"{listing.name} has no usable reference of label {', '.join(missing)}; "
            "every label of the question needs at least one"
        )


def _write(folder: Path, ground: Ground, usable: Sequence[_Usable], source: SourceRecord) -> None:
    entries = [*ground.entries, *(_entry(one, embedded) for one, embedded in usable)]
    added = stacked([embedded.measured for _, embedded in usable], ground.encoder.dim)
    stored = joined(ground.stored, added)
    checksums = write_contents(folder, entries, stored=stored, probe=ground.probe, probe_png=ground.probe_png)
    write_manifest(
        folder,
        BankManifest(
            id=ground.id,
            version=ground.version,
            question=ground.question,
            counts=counts_of(entries),
            encoder=ground.encoder,
            preprocess=ground.preprocess,
            views=views_record(ground.views),
            checksums=checksums,
            created_at=source.added_at,
            built_by=f"touchstone-worker {__version__}",
            sources=(*ground.sources, source),
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
