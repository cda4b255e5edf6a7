"""
Fitting the judgement of a bank on disk, and fitting it again when references are added.

The fit itself is ``worker.fitting.fit``; which files a release has is ``worker.bank.release``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np

from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import StoredBank, load_bank
from worker.bank.fit import check_fit
from worker.bank.manifest import BankManifest
from worker.bank.release import with_judgement
from worker.bank.sources import Listing
from worker.bank.survey import Progress, Skipped, Surveyed, no_progress, survey
from worker.bank.vectors import stacked, unit_rows
from worker.bank.workshop import Embedded, Workshop
from worker.errors import BankInvalid, ConfigInvalid
from worker.fitting.fit import FitPlan, FitReport, fit_judgement
from worker.fitting.heads_table import RECIPES
from worker.fitting.teaching import TeachReport, teach_report
from worker.heads.features import FeatureTable, References
from worker.judgement.conformal import TooFewReals
from worker.judgement.model import FittedJudgement, HowFitted
from worker.judgement.store import judgement_files, read_judgement

_LEARNT: Final = frozenset(recipe.name for recipe in RECIPES)
"""Heads that are fitted from a bank's references; others come fitted."""


@dataclass(frozen=True, slots=True)
class JudgementFiles:
    """
    A fitted judgement as ``worker.bank.release`` takes it.
    """

    id: str
    version: str
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationSet:
    """
    Pictures that are in no bank, and the embedder that makes references of them; those unusable are told, not used.
    """

    listing: Listing
    embedder: ReferenceEmbedder


@dataclass(frozen=True, slots=True, eq=False)
class BankFit:
    """
    The released bank, how its judgement was fitted, and what of a calibration could not be used.
    """

    bank: StoredBank
    report: FitReport
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class Release:
    """
    Where a fitted bank goes: in place of the old unless ``out`` names another directory, under ``version`` or the next.
    """

    out: Path | None = None
    version: str | None = None
    replace: bool = False


def fit_bank(
    path: Path,
    *,
    plan: FitPlan | None = None,
    calibration: CalibrationSet | None = None,
    release: Release | None = None,
    progress: Progress = no_progress,
) -> BankFit:
    """
    Fit the judgement of a bank and release the bank again with it, in one step.

    Raises ``ConfigInvalid`` when the bank asks about more than two labels, or when there is too little to fit from;
    ``TooFewReals`` when ``plan.alpha`` cannot be supported; ``BankInvalid`` when bank and encoder do not fit. The bank
    is then left as it was.
    """
    bank = load_bank(path)
    check_question(bank.manifest)
    release = release or Release()
    others, skipped = _others(bank, calibration, progress)
    report = fit_judgement(bank.references(), calibration=others, plan=plan, progress=progress)
    sealed = with_judgement(
        path, files_of(report.judgement), new_version=release.version, out=release.out, replace=release.replace
    )
    return BankFit(sealed, report, skipped)


def refit_files(bank: StoredBank, progress: Progress = no_progress, *, plan: FitPlan | None = None) -> JudgementFiles:
    """
    The judgement of a bank's references as they are now, as files; calibrated on the references themselves.
    """
    check_question(bank.manifest)
    return files_of(fit_judgement(bank.references(), plan=plan, progress=progress).judgement)


class Teacher:
    """
    Fits a bank again when references are added to it, and tells what that changed; a ``worker.bank.release.Refit``.

    Made of the bank before anything is added; without a ``plan`` it is fitted as it was before. After the call,
    ``fitted``, ``report`` and ``skipped`` tell what came of it, the last of what of the calibration cannot be used.
    Raises ``BankInvalid`` when the calibration's embedder does not fit the bank.
    """

    def __init__(self, path: Path, plan: FitPlan | None = None, *, calibration: CalibrationSet | None = None) -> None:
        bank = load_bank(path)
        self._calibration = calibration
        self._old: tuple[FittedJudgement, References] | None = None
        if bank.manifest.judgement is not None:
            self._old = read_judgement(path), bank.references()
        if calibration is not None:
            _check_embedder(bank, calibration.embedder, path)
        self._plan = plan or (FitPlan() if self._old is None else plan_again(self._old[0]))
        self.fitted: FitReport | None = None
        self.report: TeachReport | None = None
        self.skipped: tuple[Skipped, ...] = ()

    def __call__(self, bank: StoredBank, progress: Progress = no_progress) -> JudgementFiles:
        """
        The files of the new judgement.

        The pictures that the old one was calibrated on are not kept: they are given again, or the report warns.
        Raises ``TooFewReals`` when the alpha that the bank was fitted for cannot be kept.
        """
        check_question(bank.manifest)
        references = bank.references()
        others, self.skipped = _others(bank, self._calibration, progress)
        try:
            self.fitted = fit_judgement(references, calibration=others, plan=self._plan, progress=progress)
        except TooFewReals as fault:
            raise TooFewReals(
                f"{fault}. The bank was fitted for this rate: give `bank add` more real pictures with --calibration, "
                "or add with --no-fit and run `touchstone fit`"
            ) from fault
        progress("comparing with before", 0, 1)
        self.report = teach_report(self._old, (self.fitted.judgement, references), plan=self._plan)
        progress("comparing with before", 1, 1)
        return files_of(self.fitted.judgement)


def plan_again(judgement: FittedJudgement) -> FitPlan:
    """
    The plan that a judgement was fitted by, its heads that came fitted among it.

    An older judgement does not say: then the heads that it has.
    """
    ready = tuple(head for head in judgement.heads if head.name not in _LEARNT)
    learnt = tuple(head.name for head in judgement.heads if head.name in _LEARNT)
    asked = judgement.asked or HowFitted(heads=learnt or None)
    return FitPlan(seed=asked.seed, heads=asked.heads, alpha=asked.alpha, delta=asked.delta, ready=ready)


def files_of(judgement: FittedJudgement) -> JudgementFiles:
    """
    A judgement as it is to be written into a release.
    """
    return JudgementFiles(judgement.id, judgement.version, judgement_files(judgement))


def check_question(manifest: BankManifest) -> None:
    """
    Refuse a bank of another number of labels than two. Raises ``ConfigInvalid``.
    """
    labels = manifest.question.labels
    if len(labels) != 2:  # noqa: PLR2004 - it says so
        raise ConfigInvalid(
            f"bank {manifest.id} asks about {len(labels)} labels ({', '.join(labels)}); a judgement can be fitted for "
            "two. Such a bank is judged by its neighbours alone"
        )


def embedded_references(
    calibration: CalibrationSet, positive: str, progress: Progress = no_progress
) -> tuple[References, tuple[Skipped, ...]]:
    """
    The pictures of a listing as references that are in no bank, and those that could not be used.

    Raises ``BankInvalid`` when the same bytes have two labels, or when none can be used.
    """
    embedder, listing = calibration.embedder, calibration.listing
    found = survey(listing, threads=embedder.threads, progress=progress)
    fingerprint = embedder.encoder.fingerprint
    with (
        TemporaryDirectory(prefix="touchstone-calibration-") as folder,
        Workshop(Path(folder) / "set", fingerprint, views=embedder.views, restart=True) as workshop,
    ):
        skipped = (*found.skipped, *embedder.embed(found.unique, workshop, progress))
        usable = [(one, workshop.known[one.content_hash]) for one in found.unique if one.content_hash in workshop.known]
    if not usable:
        raise BankInvalid(f"{listing.name}: none of {len(listing.references)} pictures could be used for calibration")
    return _references(usable, positive, fingerprint.dim), skipped


def _references(usable: list[tuple[Surveyed, Embedded]], positive: str, dim: int) -> References:
    stored = stacked([embedded.measured for _, embedded in usable], dim)
    sides = [
        float("nan") if embedded.width is None or embedded.height is None else min(embedded.width, embedded.height)
        for _, embedded in usable
    ]
    return References(
        features=FeatureTable(
            unit=unit_rows(stored.vectors),
            norm=stored.norms.astype(np.float64),
            native=unit_rows(stored.native),
            native_owner=stored.native_owner.astype(np.int64),
            realism=stored.realism.astype(np.float64),
            shift=stored.shift.astype(np.float64),
            format=tuple(embedded.format for _, embedded in usable),
            short_side_px=np.asarray(sides, dtype=np.float64),
        ),
        positive=np.asarray([one.reference.label == positive for one, _ in usable]),
        generator=tuple(one.reference.generator for one, _ in usable),
        source=tuple(one.reference.source for one, _ in usable),
        content=tuple(one.content_hash for one, _ in usable),
    )


def _others(
    bank: StoredBank, calibration: CalibrationSet | None, progress: Progress
) -> tuple[References | None, tuple[Skipped, ...]]:
    if calibration is None:
        return None, ()
    _check_embedder(bank, calibration.embedder, bank.manifest.id)
    return embedded_references(calibration, bank.manifest.question.positive, progress)


def _check_embedder(bank: StoredBank, embedder: ReferenceEmbedder, name: Path | str) -> None:
    check_fit(bank, embedder.encoder, embedder.decoder)
    if embedder.views != bank.views:
        raise BankInvalid(
            f"bank {name} was built with {bank.views}, the embedder has {embedder.views}; calibrate with the bank's own"
        )
