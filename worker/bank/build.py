"""
Making a bank, and adding to one: what is asked for, what is refused before any work, and what it stands on.

The command line is ``worker.cli.bank``; what these functions take is plain, so that the demo and tests call them too.
The work itself is ``worker.bank.assemble``.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from worker.bank.assemble import BuildReport, Ground, Target, assemble
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import StoredBank, load_bank
from worker.bank.fit import check_fit, embed_probe, probe_picture
from worker.bank.manifest import GENERATED, Question, check_name, encoder_record, preprocess_record
from worker.bank.release import Refit, changed_version, place_of
from worker.bank.sources import Listing
from worker.bank.survey import Progress, no_progress
from worker.bank.swap import refusal, require_replaceable
from worker.bank.vectors import stacked
from worker.errors import BankInvalid


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


def build_bank(
    listing: Listing, out: Path, *, embedder: ReferenceEmbedder, plan: BuildPlan, progress: Progress = no_progress
) -> BuildReport:
    """
    Build the bank of a listing at ``out``, or go on with a build that was killed; ``out`` is never there half-made.

    The bank has the views of the embedder and no judgement; ``touchstone fit`` gives it one. Blocks for as long as
    embedding takes. Raises ``BankInvalid`` when ``out`` is there already, when the same bytes have two labels, when
    work of another encoder or of other views lies beside ``out``, or when a label has no usable reference;
    ``TooManySkipped`` when more than ``plan.max_skipped`` of the references could not be used.
    """
    fingerprint = embedder.encoder.fingerprint
    target = Target(place_of(out), plan.replace, plan.restart, plan.max_skipped, plan.created_at or datetime.now(UTC))
    if target.path.exists() and not plan.replace:
        raise BankInvalid(refusal(out))
    require_replaceable(target.path)
    # The probe comes first: a decoder or encoder that cannot do it should say so before hours of work.
    png = probe_picture()
    ground = Ground(
        id=plan.id,
        version=plan.version,
        question=plan.question,
        encoder=encoder_record(fingerprint),
        preprocess=preprocess_record(fingerprint),
        views=embedder.views,
        probe=embed_probe(png, embedder.encoder, embedder.decoder).as_half(),
        probe_png=png,
        sources=(),
        entries=(),
        stored=stacked([], fingerprint.dim),
    )
    return assemble(ground, listing, target=target, embedder=embedder, progress=progress)


def add_to_bank(
    path: Path,
    listing: Listing,
    *,
    embedder: ReferenceEmbedder,
    plan: AddPlan,
    progress: Progress = no_progress,
    refit: Refit | None = None,
) -> BuildReport:
    """
    A new version of a bank with the listing's references added; by default it takes the old one's place in one step.

    References that the bank has already count as duplicates. A judgement that was fitted to the old references does not
    hold for the new: where the bank has one, ``refit`` fits it again and the new bank is put in place with it, at once;
    without ``refit`` the new bank has none. Raises ``BankInvalid`` as ``build_bank`` does, when the encoder does not
    fit, when the embedder has other views than the bank, or when the version would not change; then, and when ``refit``
    raises, the old bank is left as it was and no embedding is lost.
    """
    bank = load_bank(path)
    _check_views(bank, embedder, path)
    check_fit(bank, embedder.encoder, embedder.decoder)
    version = changed_version(bank.manifest, plan.version, path)
    out = place_of(plan.out or path)
    replace = plan.replace or plan.out is None
    if out.exists() and not replace:
        raise BankInvalid(refusal(out))
    require_replaceable(out)
    ground = Ground(
        id=bank.manifest.id,
        version=version,
        question=bank.manifest.question,
        encoder=bank.manifest.encoder,
        preprocess=bank.manifest.preprocess,
        views=bank.views,
        probe=bank.probe,
        probe_png=bank.probe_png,
        sources=bank.manifest.sources,
        entries=tuple(bank.entries),
        stored=bank.stored,
        fitted=bank.manifest.judgement is not None,
        indexed=bank.manifest.search is not None,
    )
    at = plan.created_at or datetime.now(UTC)
    target = Target(out, replace, plan.restart, plan.max_skipped, at, refit)
    return assemble(ground, listing, target=target, embedder=embedder, progress=progress)


def _check_views(bank: StoredBank, embedder: ReferenceEmbedder, path: Path) -> None:
    if embedder.views != bank.views:
        raise BankInvalid(
            f"bank {path} was built with {bank.views}, the embedder has {embedder.views}; add with the bank's own views"
        )
