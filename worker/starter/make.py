"""
Makes what ships: ``python -m worker.starter.make --shared-data ../shared/data``. About an hour and a half on two cores.

Corpus, encoder, reference pictures, bank, fitted judgement; each from fixed seeds. The model card's numbers come from
``touchstone evaluate``, on sources of which nothing was learnt here.
"""

import csv
import hashlib
import io
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.timm_model import TimmModel
from PIL import Image
from rich.progress import Progress, TaskID

from worker.dev.small_encoder import SmallEncoder, write_model_folder
from worker.shipped import STARTER_MODEL
from worker.starter.camera import Bytes
from worker.starter.corpus import (
    HELD_OUT_TIER,
    OWN_GENERATORS,
    REAL_FAMILIES,
    CorpusPlan,
    Sources,
    Specimen,
    all_rows,
    is_kept,
    make_corpus,
    permissive_rows,
)
from worker.starter.laundering import laundered
from worker.starter.training import MODEL_CONFIG, TrainingPlan, train_encoder

MADE_PER_LABEL: Final = 360
"""Reference pictures of each label that the project took or made itself, beside those of the field data."""

SHARE: Final = {"photograph": 0.85, "camera": 0.15}
"""Of the real ones; of the generated, every generator has the same share."""

FROM_LIST: Final = "as photographs.csv lists the source"

_REFERENCE_SIDE_PX: Final = 224


@dataclass(frozen=True, slots=True)
class Reference:
    """
    One row of the listing that the starter bank is built from, or calibrated on.
    """

    path: Path
    label: str
    generator: str
    source: str
    licence: str
    tier: str = ""


def export(tower: TimmModel, folder: Path) -> SmallEncoder:
    """
    The tower as an open_clip model folder, without a text tower.
    """
    state = {f"visual.{name}": value.detach().numpy() for name, value in tower.state_dict().items()}
    weights: Mapping[str, NDArray[Any]] = {name: np.ascontiguousarray(value) for name, value in state.items()}
    return write_model_folder(folder, MODEL_CONFIG, weights)


def made_references(specimens: Sequence[Specimen], folder: Path, seed: int) -> Iterator[Reference]:
    """
    Laundered squares of specimens that the encoder did not learn from, written as JPEG.
    """
    rng = np.random.default_rng(seed)
    made = [one for one in specimens if is_kept(one.group) and one.family in {*REAL_FAMILIES, *OWN_GENERATORS}]
    families = sorted({one.family for one in made})
    packages = {one.group for one in made if one.family == "photograph"}
    for family in families:
        real = family in REAL_FAMILIES
        of_family = [one for one in made if one.family == family]
        count = min(round(MADE_PER_LABEL * SHARE.get(family, 1 / len(OWN_GENERATORS))), len(of_family))
        for number, row in enumerate(rng.choice(len(of_family), size=count, replace=False)):
            path = folder / f"{family}-{number:04d}.jpg"
            path.write_bytes(_as_jpeg(laundered(of_family[row].pixels, _REFERENCE_SIDE_PX, rng)))
            # A package is one source, of its photographs and of what was drawn after them: heads are weighed within.
            group = of_family[row].group
            source, licence = (group, FROM_LIST) if group in packages else ("touchstone-scenes", "Apache-2.0")
            generator = "" if real else f"touchstone:{family}"
            yield Reference(path, "real" if real else "ai_generated", generator, source, licence)


def licensed_references(shared_data: Path) -> Iterator[Reference]:
    """
    The field data's permissively licensed pictures that the encoder did not learn from, of both labels.

    Of them the bank keeps vectors, never pixels.
    """
    rows = permissive_rows(shared_data)
    for row in (one for one in rows if one["tier"] == HELD_OUT_TIER or is_kept(one["path"])):
        path = shared_data / "images" / row["path"]
        yield Reference(path, row["label"], row["generator"], row["source"], row["licence"], row["tier"])


def unseen_references(shared_data: Path) -> Iterator[Reference]:
    """
    The field data's pictures of which nothing was learnt, calibrated or kept: those whose licence does not allow it.
    """
    learnt = {row["path"] for row in permissive_rows(shared_data)}
    for row in all_rows(shared_data):
        if row["path"] not in learnt:
            path = shared_data / "images" / row["path"]
            yield Reference(path, row["label"], row["generator"], row["source"], row["licence"], row["tier"])


def write_listing(references: Sequence[Reference], path: Path) -> None:
    """
    The CSV that ``touchstone bank build`` takes.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "generator", "source", "licence"])
        for one in references:
            writer.writerow([str(one.path), one.label, one.generator, one.source, one.licence])


def calibrates(source: str) -> bool:
    """
    Whether the project's own pictures of a source say what scores mean, by its hash, instead of being references.
    """
    return hashlib.sha256(source.encode()).digest()[1] % 3 == 0


def _as_jpeg(pixels: Bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


class _Bars:
    """
    One progress bar per phase, in the order in which they begin.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        if phase not in self._tasks:
            self._tasks[phase] = self._progress.add_task(phase, total=total)
        self._progress.update(self._tasks[phase], completed=done + 1, total=total)


@click.command()
@click.option("--shared-data", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None)
@click.option("--archives", type=click.Path(exists=True, file_okay=False, path_type=Path), default=None)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=STARTER_MODEL, show_default=False)
@click.option("--listing", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--steps", default=TrainingPlan().steps, show_default=True)
def make(shared_data: Path | None, archives: Path | None, out: Path, listing: Path, steps: int) -> None:
    """
    Train the starter encoder into OUT, and write the listing of its bank's references into the folder LISTING.

    Afterwards: ``touchstone bank build LISTING/references.csv``, ``touchstone fit --calibration
    LISTING/calibration.csv``, and ``touchstone evaluate LISTING/unseen.csv``, as MODEL_CARD.md says.
    """
    torch.set_num_threads(1)
    with Progress() as progress:
        bars = _Bars(progress)
        specimens = make_corpus(Sources(shared_data, archives), CorpusPlan(), bars)
        plan = TrainingPlan(steps=steps)
        learnt = [one for one in specimens if not is_kept(one.group)]
        tower, _ = train_encoder(learnt, plan, lambda step, _loss, _accuracy: bars("training", step - 1, plan.steps))
    with tempfile.TemporaryDirectory() as draft:
        small = export(tower, Path(draft))
        out.mkdir(parents=True, exist_ok=True)
        for file in small.folder.iterdir():
            shutil.copy(file, out / file.name)
        (out / "SHA256").write_text(f"{small.checkpoint_sha256}  {small.checkpoint.name}\n", encoding="ascii")
    listing.mkdir(parents=True, exist_ok=True)
    references = list(made_references(specimens, listing, CorpusPlan().seed))
    found = [] if shared_data is None else list(licensed_references(shared_data))
    # What the encoder learnt from says nothing of how sure it may be: calibrated is on sources that it never saw,
    # public ones that turn out hard and the project's own that turn out easy.
    own = [one for one in references if calibrates(one.source)]
    kept = [one for one in references if not calibrates(one.source)]
    write_listing([*kept, *(one for one in found if one.tier != HELD_OUT_TIER)], listing / "references.csv")
    write_listing([*own, *(one for one in found if one.tier == HELD_OUT_TIER)], listing / "calibration.csv")
    write_listing([] if shared_data is None else list(unseen_references(shared_data)), listing / "unseen.csv")
    click.echo(f"encoder {small.checkpoint_sha256} in {out}; listings in {listing}")


if __name__ == "__main__":
    make()
