"""
What the starter encoder learns from: pictures with a known origin, real or generated, of the same contents.

Contents are real photographs, the project's own scenes, and the permissively licensed generated pictures of the field
data. Each content comes in both labels: as a camera took it, and as a generator drew it again, pixel upon pixel where
that can be had; so that what differs is the trace.
"""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from worker.starter.camera import Bytes, photograph, to_bytes, to_light, to_srgb
from worker.starter.decoders import KINDS, drawn_by, train_decoder
from worker.starter.photographs import photographs
from worker.starter.scenes import dead_leaves, reduced
from worker.starter.upscalers import MODELS, upscalers

PERMISSIVE: Final = ("MIT", "Apache-2.0", "CC-BY-4.0")
"""Licences, by their beginning, that allow what is derived to be shipped; the rows' licence texts start with these."""

UNSTATED: Final = "images unstated"
"""A repository's licence that may not be meant for the images in it: such rows are left alone."""

HELD_OUT_TIER: Final = "matched"
"""Sources that hold both labels are for judging: nothing of them is learnt from."""

REAL_FAMILIES: Final = ("camera", "photograph")
"""The simulated camera, and cameras."""

OWN_GENERATORS: Final = (*(kind.name for kind in KINDS), *MODELS)
"""What drew the project's own generated pictures."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Specimen:
    """
    One picture, uint8[h, w, 3], of known origin: ``family`` is one of ``REAL_FAMILIES``, else what drew it.

    A generated specimen of the same ``content`` and shape as a real one shows the same, pixel upon pixel: its twin.
    What shares a ``group`` is learnt from or kept for the bank together: all photographs of one package, and whatever
    was drawn after them; else one content.
    """

    family: str
    content: str
    group: str
    pixels: Bytes = field(repr=False)

    @property
    def generated(self) -> bool:
        """
        Whether a generator drew it.
        """
        return self.family not in REAL_FAMILIES


def is_kept(group: str) -> bool:
    """
    Whether a group of specimens is kept for the bank, by its hash: a quarter, from which the encoder must not learn.
    """
    return hashlib.sha256(group.encode()).digest()[0] % 4 == 0


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """
    How much of everything; ``seed`` fixes all of it.
    """

    seed: int = 20261122
    windows: int = 3
    window_px: int = 448
    scenes: int = 200
    shots: int = 2
    decoder_steps: int = 600
    drawn_per_decoder: int = 240
    drawn_per_upscaler: int = 120


@dataclass(frozen=True, slots=True)
class Sources:
    """
    Folders of what is not in the repository: the field data, and archives of photographs and of the upscalers.

    Without them the project's own scenes are all there is; enough to try the machinery, and too little to ship.
    """

    shared_data: Path | None = None
    archives: Path | None = None


def all_rows(shared_data: Path) -> Sequence[Mapping[str, str]]:
    """
    The field data's list.
    """
    with (shared_data / "images.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def permissive_rows(shared_data: Path) -> Sequence[Mapping[str, str]]:
    """
    The rows of the field data's list whose licence allows to ship what is derived from them.
    """
    rows = all_rows(shared_data)
    return [row for row in rows if row["licence"].startswith(PERMISSIVE) and UNSTATED not in row["licence"]]


def permissive_pictures(shared_data: Path) -> Mapping[str, tuple[str, Bytes]]:
    """
    The generated pictures of the field data that the encoder may learn from: name to source and pixels.

    Of sources that hold one label alone: those with both are held out, to judge with.
    """
    found: dict[str, tuple[str, Bytes]] = {}
    for row in permissive_rows(shared_data):
        if row["label"] == "ai_generated" and row["tier"] != HELD_OUT_TIER:
            with Image.open(shared_data / "images" / row["path"]) as image:
                found[row["path"]] = (row["source"], np.asarray(image.convert("RGB")))
    return found


def make_corpus(sources: Sources, plan: CorpusPlan, progress: Progress) -> Sequence[Specimen]:
    """
    Every specimen, in a fixed order. Takes half an hour, most of it for the generators.
    """
    rng = np.random.default_rng(plan.seed)
    found = permissive_pictures(sources.shared_data) if sources.shared_data is not None else {}
    of_others = [Specimen(source, name, name, pixels) for name, (source, pixels) in found.items()]
    taken = [] if sources.archives is None else list(_windows(sources.archives, plan, rng, progress))
    scenes = list(_scenes(plan, rng, progress))
    shots = list(_photographed(found, plan, rng, progress))
    reals = [*taken, *scenes, *shots]
    # Twice as many photographs as all else where there are: what a camera really leaves is what is to be learnt.
    pool = taken + [reals[row] for row in rng.permutation(len(reals))[: max(len(taken) // 2, plan.scenes)]]
    return [*of_others, *reals, *_decoded(pool, plan, rng, progress), *_upscaled(taken, sources, plan, rng, progress)]


def _windows(archives: Path, plan: CorpusPlan, rng: np.random.Generator, progress: Progress) -> Iterator[Specimen]:
    """
    Squares cut from photographs, never resized; from those that are smaller, one with the largest sides that fit.
    """
    for number, one in enumerate(photographs(archives)):
        progress("photographs", number, number + 1)
        height, width = one.pixels.shape[:2]
        side = min(plan.window_px, height // 16 * 16, width // 16 * 16)
        turns = plan.windows if min(height, width) > plan.window_px else 1
        for turn in range(turns):
            top, left = int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1))
            window = one.pixels[top : top + side, left : left + side]
            yield Specimen("photograph", f"{one.content}-{turn}", one.package, np.ascontiguousarray(window))


def _scenes(plan: CorpusPlan, rng: np.random.Generator, progress: Progress) -> Iterator[Specimen]:
    for number in range(plan.scenes):
        progress("scenes", number, plan.scenes)
        far = number % 2 == 0  # far: a large photograph that was reduced for the web
        shot = photograph(dead_leaves(1024 if far else 448, rng), rng)
        factor = float(rng.uniform(1.5, 2.6))
        taken = to_bytes(to_srgb(reduced(to_light(shot), factor))) if far else shot
        yield Specimen("camera", f"scene-{number}", f"scene-{number}", _whole_cells(taken))


def _photographed(
    found: Mapping[str, tuple[str, Bytes]], plan: CorpusPlan, rng: np.random.Generator, progress: Progress
) -> Iterator[Specimen]:
    """
    Generated pictures as scenes in front of the simulated camera: the same contents, with a camera's traces.
    """
    for number, (name, (_, pixels)) in enumerate(found.items()):
        progress("photographs of generated pictures", number, len(found))
        for turn in range(plan.shots):
            # Reduced three times and more, what drew the picture is gone; what is left is a scene like any other.
            light = reduced(to_light(pixels), max(1.5, min(pixels.shape[:2]) / float(rng.uniform(240, 340))))
            yield Specimen("camera", f"{name}-shot-{turn}", name, _whole_cells(photograph(light, rng)))


def _decoded(
    pool: Sequence[Specimen], plan: CorpusPlan, rng: np.random.Generator, progress: Progress
) -> Iterator[Specimen]:
    """
    Real specimens drawn again by decoders that learnt on all of them.
    """
    pictures = [one.pixels for one in pool]
    for number, kind in enumerate(KINDS):
        steps = iter(range(1, plan.decoder_steps + 1))
        model = train_decoder(
            kind,
            pictures,
            steps=plan.decoder_steps,
            seed=plan.seed + number,
            progress=lambda _loss, kind=kind, steps=steps: progress(kind.name, next(steps), plan.decoder_steps),  # type: ignore[misc] # defaults bind the loop's values
        )
        for one in _some(pool, plan.drawn_per_decoder, rng):
            yield Specimen(kind.name, one.content, one.group, drawn_by(model, one.pixels))


def _upscaled(
    taken: Sequence[Specimen], sources: Sources, plan: CorpusPlan, rng: np.random.Generator, progress: Progress
) -> Iterator[Specimen]:
    """
    Photographs drawn again from thumbnails by published generators.
    """
    if sources.archives is None:
        return
    for network in upscalers(sources.archives):
        chosen = _some(taken, plan.drawn_per_upscaler, rng)
        for number, one in enumerate(chosen):
            progress(network.name, number, len(chosen))
            yield Specimen(network.name, one.content, one.group, network.drawn(one.pixels))


def _some(specimens: Sequence[Specimen], count: int, rng: np.random.Generator) -> Sequence[Specimen]:
    chosen = rng.choice(len(specimens), size=min(count, len(specimens)), replace=False)
    return [specimens[row] for row in chosen]


def _whole_cells(picture: Bytes) -> Bytes:
    """
    Cut to sides that every decoder draws in full, so that what it draws lies upon what it was given.
    """
    height, width = (side // 16 * 16 for side in picture.shape[:2])
    return np.ascontiguousarray(picture[:height, :width])
