"""
The sweep: held-out pictures perturbed, embedded again, and judged at the threshold of the clean ones.

What is done to them is ``worker.evaluation.perturbations``. No judgement is fitted anew: nothing may adapt.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import numpy as np
from PIL import Image

from worker.bank.manifest import GENERATED
from worker.bank.sources import Listing, Reference
from worker.bank.survey import Progress, no_progress
from worker.domain import Label
from worker.evaluation.dataset import Dataset
from worker.evaluation.perturbations import PERTURBATIONS, Perturbation, partial_edit
from worker.evaluation.pictures import opened
from worker.evaluation.resampling import AveragePrecision, credit
from worker.evaluation.scores import FUSED, JudgedFold
from worker.heads.features import Column, Mask, References

CLEAN: Final = "clean"
PARTIAL_EDIT: Final = "partial edit"


class Embed(Protocol):
    """
    Embeds the pictures of a listing under the evaluation's views; references in any order, those unusable left out.
    """

    def __call__(self, listing: Listing, name: str, *, keep: bool) -> References:
        """
        ``name`` says what they are; with ``keep`` the embeddings are found again by the next run.
        """


@dataclass(frozen=True, slots=True)
class SweepRow:
    """
    One perturbation: how many pictures, and what the fused score makes of them at the threshold of the clean ones.
    """

    name: str
    n_real: int
    n_ai: int
    tpr: float | None
    fpr: float | None
    balanced_accuracy: float | None
    ap: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Sweep:
    """
    What is swept: the judged folds, the rows of the data set to perturb, and how pictures are embedded.
    """

    dataset: Dataset
    judged: Sequence[JudgedFold] = field(repr=False)
    rows: Sequence[int] = field(repr=False)
    embed: Embed
    folder: Path
    seed: int

    def run(self, references: References, progress: Progress = no_progress) -> tuple[SweepRow, ...]:
        """
        The clean row, one row per perturbation, and the row of partial edits.

        The shift of perturbed copies is left out everywhere, the clean row included: it would triple the cost.
        """
        total = len(PERTURBATIONS) + 2
        features = references.features.without_shift()
        positive = self.dataset.positive
        clean = {
            int(row): float(score)
            for one in self.judged
            for row, score in zip(one.fold.test, one.scorer(features.take(one.fold.test)).columns[FUSED], strict=True)
        }
        rows = [_row(CLEAN, {row: clean[row] for row in self.rows}, positive)]
        for done, (name, perturb) in enumerate(PERTURBATIONS.items(), start=1):
            progress("perturbing", done, total)
            rows.append(_row(name, self._scored(name, self._perturbed(perturb)), positive))
        edited = self._scored(PARTIAL_EDIT, self._edited(), label=Label(GENERATED.positive))
        rows.append(_edited_row(edited, [clean[row] for row in self.rows if not positive[row]]))
        progress("perturbing", total, total)
        return tuple(rows)

    def _scored(self, name: str, pictures: Iterator[tuple[int, bytes]], label: Label | None = None) -> dict[int, float]:
        """
        The fused score of these pictures, by the row that each was made from; ``label`` where all have one.
        """
        folder = self.folder / name.replace(" ", "-").replace("%", "percent")
        folder.mkdir(parents=True, exist_ok=True)
        row_of: dict[str, int] = {}
        listed = []
        try:
            for row, data in pictures:
                content = hashlib.sha256(data).hexdigest()
                if content in row_of:
                    continue
                row_of[content] = row
                path = folder / content
                path.write_bytes(data)
                original = self.dataset.samples[row].reference
                named = original.label if label is None else label
                listed.append(replace(original, path=path, name=content, sha256=content, label=named))
            listing = Listing("csv", name, (*listed, *self._anchors(label)))
            embedded = self.embed(listing, name, keep=False)
        finally:
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()
        kept = [at for at, content in enumerate(embedded.content) if content in row_of]
        return self._judged(embedded.take(kept), [row_of[embedded.content[at]] for at in kept])

    def _anchors(self, label: Label | None) -> tuple[Reference, ...]:
        """
        A picture of another label beside those that all have one: a bank is only built of both. It is not judged.
        """
        if label is None:
            return ()
        others = (sample.reference for sample in self.dataset.samples if sample.reference.label != label)
        return tuple(islice(others, 1))

    def _judged(self, embedded: References, rows: Sequence[int]) -> dict[int, float]:
        scores: dict[int, float] = {}
        for one in self.judged:
            held_out = set(one.fold.test.tolist())
            inside = [at for at, row in enumerate(rows) if row in held_out]
            if inside:
                found = one.scorer(embedded.features.take(inside).without_shift()).columns[FUSED]
                scores |= {rows[at]: float(score) for at, score in zip(inside, found, strict=True)}
        return scores

    def _perturbed(self, perturb: Perturbation) -> Iterator[tuple[int, bytes]]:
        for row in self.rows:
            picture = opened(self.dataset.samples[row].reference.path)
            if picture is not None:
                yield row, perturb(picture, np.random.default_rng([self.seed, row]))

    def _edited(self) -> Iterator[tuple[int, bytes]]:
        """
        Every real of the sweep with part of a generated picture of its own fold pasted in.
        """
        positive = self.dataset.positive
        for one in self.judged:
            made = [row for row in one.fold.test.tolist() if positive[row]]
            for row in sorted(set(self.rows) & set(one.fold.test.tolist())):
                if positive[row] or not made:
                    continue
                rng = np.random.default_rng([self.seed, row])
                other = made[int(rng.integers(len(made)))]
                pair = _both(self.dataset, row, other)
                if pair is not None:
                    yield row, partial_edit(*pair, rng)


def subset(judged: Sequence[JudgedFold], positive: Mask, limit: int, seed: int) -> list[int]:
    """
    At most ``limit`` held-out rows, drawn at random, half of either class where there are so many.
    """
    rows = np.concatenate([one.fold.test for one in judged])
    shuffled = np.random.default_rng(seed).permutation(rows)
    made, real = shuffled[positive[shuffled]], shuffled[~positive[shuffled]]
    take_real = min(len(real), max(limit // 2, limit - len(made)))
    taken = [*real[:take_real], *made[: limit - take_real]]
    return sorted(int(row) for row in taken)


def _both(dataset: Dataset, real: int, made: int) -> tuple[Image.Image, Image.Image] | None:
    first, second = (opened(dataset.samples[row].reference.path) for row in (real, made))
    return None if first is None or second is None else (first, second)


def _row(name: str, scores: Mapping[int, float], positive: Mask) -> SweepRow:
    rows = np.array(sorted(scores), dtype=np.int64)
    return _measured(name, np.array([scores[row] for row in rows.tolist()], np.float64), positive[rows])


def _edited_row(edited: Mapping[int, float], reals: Sequence[float]) -> SweepRow:
    scores = np.array([*edited.values(), *reals], dtype=np.float64)
    return _measured(PARTIAL_EDIT, scores, np.arange(len(scores)) < len(edited))


def _measured(name: str, score: Column, positive: Mask) -> SweepRow:
    made, real = int(positive.sum()), int((~positive).sum())
    told = 1 - credit(score, np.zeros(len(score), dtype=bool))
    tpr = float(np.mean(told[positive])) if made else None
    fpr = float(np.mean(told[~positive])) if real else None
    if tpr is None or fpr is None:
        return SweepRow(name, real, made, tpr, fpr, None, None)
    ap = float(AveragePrecision()(np.ones((1, len(score)), np.float32), positive, score)[0])
    return SweepRow(name, real, made, tpr, fpr, (tpr + 1 - fpr) / 2, ap)
