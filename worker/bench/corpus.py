"""
The pictures of a benchmark: drawn from a seed, all different, and as heavy as photographs of their size.

A kind says size and quality; the number of a picture is its seed. Nothing is read from anywhere.
"""

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from worker.bench.cpu_time import cores_here


@dataclass(frozen=True, slots=True)
class Kind:
    """
    JPEGs of one size. ``most_grain`` is how strong the finest noise may be: drawn for each, it spreads their bytes.
    """

    name: str
    width: int
    height: int
    quality: int = 82
    most_grain: int = 8

    @property
    def megapixels(self) -> float:
        """
        Width times height.
        """
        return self.width * self.height / 1e6


KINDS: Final[Mapping[str, Kind]] = {
    kind.name: kind
    for kind in (
        Kind("tiny", 160, 120),
        Kind("20kb", 384, 288),
        Kind("0.2mp", 512, 384),
        Kind("0.5mp", 816, 612),
        Kind("1mp", 1152, 864),
        Kind("2mp", 1632, 1224),
        Kind("4mp", 2304, 1728),
        Kind("8mp", 3264, 2448),
        Kind("12mp", 4000, 3000),
    )
}
"""The sizes that benchmarks speak of; of 1 MP, files have 100 to 200 KB; ``20kb`` is the cached path's;
``tiny`` hides least of what surrounds decoding."""

DRAWN: Final = 48
"""Pictures that are drawn where many files are asked for: drawing one costs more than decoding it."""


def picture(number: int, kind: Kind) -> bytes:
    """
    The JPEG of this number: large shapes, texture at two scales and grain, each channel on its own.
    """
    rng = np.random.default_rng([kind.width, kind.height, number])
    size = (kind.width, kind.height)
    shapes = _upscaled(rng, size, cells=6)
    texture = _upscaled(rng, size, cells=48)
    fine = _upscaled(rng, size, cells=max(kind.width // 6, 8))
    strength = int(rng.integers(0, kind.most_grain + 1))
    grain = rng.integers(-strength, strength + 1, (kind.height, kind.width, 1), dtype=np.int16)
    mixed = (shapes * 10 + texture * 4 + fine * 2) // 16 + grain
    out = io.BytesIO()
    Image.fromarray(np.clip(mixed, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=kind.quality)
    return out.getvalue()


def pictures(count: int, kind: Kind, *, first: int = 0) -> Iterator[bytes]:
    """
    So many different pictures, in order of their numbers.
    """
    with ThreadPoolExecutor(cores_here()) as threads:
        yield from threads.map(lambda number: picture(number, kind), range(first, first + count))


def write_pictures(folder: Path, count: int, kind: Kind, *, first: int = 0) -> list[str]:
    """
    The pictures as files of a folder, written where they are not there yet; returns their names in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{kind.name}-{number}.jpg" for number in range(first, first + count)]
    missing = [number for number, name in enumerate(names, first) if not (folder / name).exists()]
    with ThreadPoolExecutor(cores_here()) as threads:
        for number, data in zip(missing, threads.map(lambda one: picture(one, kind), missing), strict=True):
            (folder / f"{kind.name}-{number}.jpg").write_bytes(data)
    return names


def write_variants(folder: Path, count: int, kind: Kind, *, drawn: int = DRAWN) -> list[str]:
    """
    So many different files, of which the first ``drawn`` are drawn and the others are these in other bytes.

    Nobody who goes by the bytes knows them from each other, and each costs as much to decode as it did before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = list(pictures(min(drawn, count), kind))
    names = [f"{kind.name}-{number}.jpg" for number in range(count)]
    for number, name in enumerate(names):
        data = first[number % len(first)]
        (folder / name).write_bytes(data if number < len(first) else with_comment(data, f"copy {number}".encode()))
    return names


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """
    The same picture in other bytes: a comment segment behind the start of the image.
    """
    return jpeg[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + jpeg[2:]


def _upscaled(
    rng: np.random.Generator, size: tuple[int, int], *, cells: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    rows = max(2, cells * size[1] // size[0])
    coarse = rng.integers(0, 256, (rows, cells, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)).astype(np.int16)
