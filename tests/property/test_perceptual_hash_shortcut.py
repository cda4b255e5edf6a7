"""
The cheaper way to the perceptual hash: where it answers, it answers what the library does.
"""

import io

import numpy as np
import pdqhash
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from worker.adapters.perceptual_hash import LEAST_SIDE_PX, pdq, undisputed
from worker.bench.corpus import KINDS, picture
from worker.domain import Pixels

sides = st.integers(20, 520)
seeds = st.integers(0, 1 << 20)


def by_the_library(pixels: Pixels) -> tuple[str, int]:
    """
    Hash and quality as ``pdqhash`` alone finds them.
    """
    bits, quality = pdqhash.compute(np.ascontiguousarray(pixels))
    return np.packbits(bits.astype(np.uint8)).tobytes().hex(), int(quality)


def noise(width: int, height: int, seed: int) -> Pixels:
    """
    Every pixel on its own.
    """
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(width: int, height: int, seed: int) -> Pixels:
    """
    A few colours that run into each other: coefficients near the median, and steps too small for the quality.
    """
    cells = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))


def drawn(width: int, height: int, seed: int) -> Pixels:
    """
    Black and white squares, in which many coefficients are equal.
    """
    step = 2 + seed % 60
    rows, columns = np.mgrid[0:height, 0:width] // step
    return np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)


def flat(width: int, height: int, seed: int) -> Pixels:
    """
    One grey.
    """
    return np.full((height, width, 3), seed % 256, np.uint8)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from([noise, smooth, drawn, flat]), sides, sides, seeds)
def test_hash_and_quality_are_the_library_s(kind: object, width: int, height: int, seed: int) -> None:
    """
    For pictures of every size and kind, every digit and the quality.
    """
    assert callable(kind)
    pixels = kind(width, height, seed)

    assert by_the_library(pixels) == pdq(pixels)


def test_most_photographs_need_not_ask_the_library() -> None:
    """
    The library is asked where a rounding decides, and that is seldom; what it need not be asked is what it would say.
    """
    pictures = [np.asarray(Image.open(io.BytesIO(picture(seed, KINDS["0.2mp"])))) for seed in range(30)]
    found = [undisputed(pixels) for pixels in pictures]

    assert sum(answer is not None for answer in found) > 20
    assert all(answer in (None, by_the_library(pixels)) for answer, pixels in zip(found, pictures, strict=True))


def test_a_picture_that_may_round_either_way_is_the_library_s() -> None:
    """
    In a flat picture every coefficient is as good as 0: which lie above the median is nothing but rounding.
    """
    pixels = flat(LEAST_SIDE_PX, LEAST_SIDE_PX, 77)

    assert undisputed(pixels) is None
    assert by_the_library(pixels) == pdq(pixels)
