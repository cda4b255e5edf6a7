"""
Pictures for the demo: photographs that ship inside scikit-image, and images that are generated here.

The generated ones stand in for a generator's output; they are synthetic, but no diffusion model made them.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.errors import CannotStart

PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
SIDE = 256
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class DemoPicture:
    """
    One JPEG: both classes are encoded alike, so that the format tells nothing.
    """

    name: str
    label: str
    generator: str | None
    data: bytes


def photographs(*, crops: int, seed: int) -> Iterator[DemoPicture]:
    """
    ``crops`` different square crops of each photograph.

    Raises ``CannotStart`` when scikit-image is not installed.
    """
    folder = _photograph_folder()
    for name in PHOTOGRAPHS:
        with Image.open(folder / name) as opened:
            picture = opened.convert("RGB")
        rng = np.random.default_rng([seed, *name.encode()])
        for crop in range(crops):
            side = int(rng.integers(min(picture.size) // 2, min(picture.size) + 1))
            left = int(rng.integers(0, picture.width - side + 1))
            top = int(rng.integers(0, picture.height - side + 1))
            square = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
            yield DemoPicture(f"{Path(name).stem}-{crop}.jpg", "real", None, _jpeg(square))


def generated(*, each: int, seed: int) -> Iterator[DemoPicture]:
    """
    ``each`` images of every procedural generator.
    """
    for name, draw in GENERATORS.items():
        for number in range(each):
            rng = np.random.default_rng([seed, number, *name.encode()])
            pixels = (np.clip(draw(rng), 0, 1) * 255).astype(np.uint8)
            yield DemoPicture(f"{name}-{number}.jpg", "ai_generated", name, _jpeg(Image.fromarray(pixels)))


def _photograph_folder() -> Path:
    try:
        import skimage  # noqa: PLC0415 - only the demo needs it, and only it may miss it
    except ImportError as error:
        raise CannotStart(
            "scikit-image, whose photographs the demo shows, is not installed; "
            "install touchstone-worker[dev], or give pictures of your own with --images FOLDER"
        ) from error
    return Path(skimage.__file__).parent / "data"


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    return x, y


def _plasma(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    channels = []
    for _ in range(3):
        fx, fy, phase = rng.uniform(2, 12, 3)
        channels.append(0.5 + 0.5 * np.sin(fx * x + phase + np.sin(fy * y * 2 + phase)))
    return np.stack(channels, axis=2)


def _cells(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    seeds = rng.uniform(0, 1, (24, 2))
    distances = (x[..., None] - seeds[:, 0]) ** 2 + (y[..., None] - seeds[:, 1]) ** 2
    colours: NDArray[np.float64] = rng.uniform(0, 1, (24, 3))[distances.argmin(axis=2)]
    shaded: NDArray[np.float64] = colours * (1 - np.sqrt(distances.min(axis=2, keepdims=True)))
    return shaded


def _rings(rng: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    cx, cy = rng.uniform(0.2, 0.8, 2)
    radius = np.hypot(x - cx, y - cy)
    tint = rng.uniform(0.2, 1, 3)
    rings: NDArray[np.float64] = (0.5 + 0.5 * np.cos(radius * rng.uniform(40, 120)))[..., None] * tint
    return rings


GENERATORS: dict[str, Callable[[np.random.Generator], NDArray[np.float64]]] = {
    "plasma": _plasma,
    "cells": _cells,
    "rings": _rings,
}
"""Name of each generator, as it stands in the bank, and how it draws: float64[SIDE, SIDE, 3] in 0 to 1."""
