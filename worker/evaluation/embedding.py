"""
Pictures to features, once: through ``build_bank`` into a folder that the next run finds again.

A folder's name is a hash over the encoder, the views and the contents; embeddings of anything else never get in.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np

from worker.bank.build import BuildPlan, build_bank
from worker.bank.embedding import ReferenceEmbedder
from worker.bank.files import load_bank
from worker.bank.sources import Listing
from worker.bank.survey import Progress, no_progress
from worker.errors import BankInvalid
from worker.evaluation.dataset import Dataset
from worker.fingerprint import canonical_sha256
from worker.heads.features import References
from worker.views import ViewSpec

_DIGITS: Final = 24

OpenEmbedder = Callable[[ViewSpec], ReferenceEmbedder]


@dataclass(frozen=True, slots=True)
class Embedder:
    """
    Implements ``worker.evaluation.robustness.Embed``; a build that was killed goes on where it was.
    """

    embedder: ReferenceEmbedder
    work: Path
    progress: Progress = field(default=no_progress, repr=False)

    def __call__(self, listing: Listing, name: str, *, keep: bool) -> References:
        """
        The references of a listing, in the order of the bank; pictures that cannot be used are left out.

        Every reference must carry the sha256 of its bytes. Raises ``BankInvalid`` where a label has no usable picture.
        """
        folder = self.work / self._key(listing)
        if not folder.exists():
            self.work.mkdir(parents=True, exist_ok=True)
            plan = BuildPlan(id="evaluation", max_skipped=1.0)
            build_bank(listing, folder, embedder=self.embedder, plan=plan, progress=self._named(name))
        references = load_bank(folder).references()
        if not keep:
            shutil.rmtree(folder)
        return references

    def _key(self, listing: Listing) -> str:
        views = self.embedder.views
        known = {
            "encoder": self.embedder.encoder.fingerprint.id,
            "views": views.sha256,
            "perturbation": views.perturbation,
            "pictures": [[one.sha256, str(one.label), one.generator, one.source] for one in listing.references],
        }
        return f"embedded-{canonical_sha256(known)[:_DIGITS]}"

    def _named(self, name: str) -> Progress:
        def told(what: str, done: int, total: int) -> None:
            if what == "embedding":
                self.progress(f"{what} {name}", done, total)

        return told


def embedded(dataset: Dataset, embedder: Embedder, name: str) -> tuple[Dataset, References]:
    """
    The data set without the pictures that could not be used, and the features of the others in its order.
    """
    found = embedder(dataset.listing(), name, keep=True)
    row_of = {content: row for row, content in enumerate(found.content)}
    kept = [row for row, sample in enumerate(dataset.samples) if sample.content in row_of]
    if not kept:
        raise BankInvalid(f"{dataset.name}: none of {len(dataset)} pictures can be decoded and embedded")
    usable = dataset.take(kept)
    return usable, found.take(np.array([row_of[sample.content] for sample in usable.samples], np.int64))


def evaluation_views(crops: int, max_side_px: int | None, quality: int | None) -> ViewSpec:
    """
    What is looked at of every picture: everything that a head may ask for.
    """
    return ViewSpec(
        native_crops=crops, realism=True, perturbation=True, max_side_px=max_side_px, reencode_quality=quality
    )


def without_perturbation(views: ViewSpec) -> ViewSpec:
    """
    The same views for the robustness sweep, in which no perturbed copies are encoded.
    """
    return replace(views, perturbation=False)
