"""
What the starter encoder learns from: pictures with a known origin, real or generated, of the same contents.

Contents are the project's own scenes and the permissively licensed generated pictures of the field data. Each content
comes in both labels: photographed by the simulated camera, and drawn by a decoder; so that what differs is the trace.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from worker.starter.camera import Bytes, photograph, to_bytes, to_light, to_srgb
from worker.starter.decoders import KINDS, AutoEncoder, drawn_by, train_decoder
from worker.starter.scenes import dead_leaves, reduced

PERMISSIVE: Final = ("MIT", "Apache-2.0", "CC-BY-4.0")
"""Licences, by their beginning, that allow what is derived to be shipped; the rows' licence texts start with these."""

UNSTATED: Final = "images unstated"
"""A repository's licence that may not be meant for the images in it: such rows are left alone."""

HELD_OUT_TIER: Final = "matched"
"""Sources that hold both labels are for judging: nothing of them is learnt from."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Specimen:
    """
    One picture, uint8[h, w, 3], of known origin: ``family`` is ``camera`` for the real ones, else what drew it.
    """

    family: str
    content: str
    pixels: Bytes = field(repr=False)

    @property
    def generated(self) -> bool:
        """
        Whether a generator drew it.
        """
        return self.family != "camera"


@dataclass(frozen=True, slots=True)
class CorpusPlan:
    """
    How much of everything; ``seed`` fixes all of it.
    """

    seed: int = 20261122
    scenes: int = 700
    shots: int = 4
    decoder_steps: int = 1200
    drawn_per_decoder: int = 220


def permissive_rows(shared_data: Path) -> Sequence[Mapping[str, str]]:
    """
    The rows of the field data's list whose licence allows to ship what is derived from them.
    """
    with (shared_data / "images.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
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


def make_corpus(shared_data: Path | None, plan: CorpusPlan, progress: Progress) -> Sequence[Specimen]:
    """
    Every specimen, in a fixed order; without field data, of the project's own scenes alone.

    Takes minutes, most of them for the decoders.
    """
    rng = np.random.default_rng(plan.seed)
    drawn = permissive_pictures(shared_data) if shared_data is not None else {}
    specimens = [Specimen(source, name, pixels) for name, (source, pixels) in drawn.items()]
    contents: dict[str, Bytes] = {}
    for number in range(plan.scenes):
        progress("scenes", number, plan.scenes)
        far = number % 2 == 0  # far: a large photograph that was reduced for the web
        light = dead_leaves(1024 if far else 448, rng)
        shot = photograph(light, rng)
        factor = float(rng.uniform(1.5, 2.6))
        specimens.append(
            Specimen("camera", f"scene-{number}", to_bytes(to_srgb(reduced(to_light(shot), factor))) if far else shot)
        )
        if number < plan.scenes * 2 // 3:
            contents[f"scene-{number}"] = to_bytes(to_srgb(reduced(light, 2.5 if far else 1.2)))
    for number, (name, (_, pixels)) in enumerate(drawn.items()):
        progress("photographs of generated pictures", number, len(drawn))
        for turn in range(plan.shots):
            # Reduced three times and more, what drew the picture is gone; what is left is a scene like any other.
            light = reduced(to_light(pixels), max(1.5, min(pixels.shape[:2]) / float(rng.uniform(240, 340))))
            specimens.append(Specimen("camera", name, photograph(light, rng)))
            if turn == 0:
                contents[name] = to_bytes(to_srgb(light))
    return [*specimens, *_drawn(contents, specimens, plan, progress)]


def _drawn(
    contents: Mapping[str, Bytes], specimens: Sequence[Specimen], plan: CorpusPlan, progress: Progress
) -> list[Specimen]:
    rng = np.random.default_rng(plan.seed + 1)
    photographs = {f"photo-of-{one.content}": one.pixels for one in specimens if not one.generated}
    # Both the clean content and photographs of it: a decoder that draws a photograph again is a generator too.
    pool = [*contents.items(), *photographs.items()]
    pictures = [pixels for _, pixels in pool]
    found: list[Specimen] = []
    for number, kind in enumerate(KINDS):
        steps = iter(range(1, plan.decoder_steps + 1))
        model = train_decoder(
            kind,
            pictures,
            steps=plan.decoder_steps,
            seed=plan.seed + number,
            progress=lambda _loss, kind=kind, steps=steps: progress(kind.name, next(steps), plan.decoder_steps),  # type: ignore[misc] # defaults bind the loop's values
        )
        found += _specimens_of(model, pool, plan.drawn_per_decoder, rng)
    return found


def _specimens_of(
    model: AutoEncoder, pool: Sequence[tuple[str, Bytes]], count: int, rng: np.random.Generator
) -> list[Specimen]:
    chosen = rng.choice(len(pool), size=min(count, len(pool)), replace=False)
    return [Specimen(model.kind.name, pool[row][0], drawn_by(model, pool[row][1])) for row in chosen]
