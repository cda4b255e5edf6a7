"""
PDQ, the perceptual hash of Meta's ThreatExchange: the only place that touches ``pdqhash``.

A hint for people and for other tools, never a reason for a verdict. ``pdqhash`` decides; what is computed here beside
it, at a quarter of the cost, counts only where it lies so far from every threshold that both must say the same.
"""

from functools import lru_cache
from typing import Final

import numpy as np
import pdqhash
from numpy.typing import NDArray

from worker.domain import Pixels

LEAST_SIDE_PX: Final = 128
MOST_SIDE_PX: Final = 1024
"""Of pictures with a shorter or a longer side ``pdqhash`` is asked at once: they are cheap, or never come."""

_SIDE: Final = 64
_BITS: Final = 16
_RED, _GREEN, _BLUE = np.float32(0.299), np.float32(0.587), np.float32(0.114)
_SERIAL: Final = 1 << 18
"""Multiplications that OpenBLAS does in the thread that asks: its own threads would fight with ours for the cores."""

_GRADIENT_UNIT: Final = 90
_BEST: Final = 100

HASH_MARGIN: Final = 0.02
GRADIENT_MARGIN: Final = 0.01
"""
How far two ways of computing the same in float32 may differ: the 256 coefficients, which run to thousands, and the
differences of neighbours in percent of white.

``pdqhash`` adds and subtracts along whole rows, so that its rounding adds up: of coefficients of photographs, noise,
patterns and flat colours of up to 1024 pixels, the largest difference that was seen is 0.0065, near the median 0.0027.
Known hole: whoever looks for stripes that round badly finds 0.05 at 512 pixels a side. Such a picture may be given
another bit than ``pdqhash`` gives it, where that bit's coefficient is as near to the median.
"""

# Row k is the cosine of frequency k + 1 over 64 samples (ThreatExchange, ``pdqhashing.cpp``).
_DCT: Final = (
    np.sqrt(2 / _SIDE) * np.cos(np.pi / 2 / _SIDE * np.outer(np.arange(1, _BITS + 1), 2 * np.arange(_SIDE) + 1))
).astype(np.float32)


def pdq(pixels: Pixels) -> tuple[str, int]:
    """
    The PDQ hash of uint8[h, w, 3], RGB, as 64 hex digits, and its quality, 0 (featureless) to 100.

    Costs a millisecond at 512 pixels and 23 ms at a megapixel, with the interpreter held: reduce the picture first.
    Source: ThreatExchange, ``pdq/README.md``; the digits are in the order of its ``Hash256::format``.
    """
    shorter, longer = sorted(pixels.shape[:2])
    if shorter >= LEAST_SIDE_PX and longer <= MOST_SIDE_PX:
        found = undisputed(pixels)
        if found is not None:
            return found
    bits, quality = pdqhash.compute(np.ascontiguousarray(pixels))
    return _hex(bits.astype(bool)), int(quality)


def take_memory() -> None:
    """
    Have numpy's library for matrices map its working memory now: some 32 MB of addresses, most of them never touched.

    It does so at the first large product, and ends the process where it gets none, as in one that was confined before.
    """
    undisputed(np.zeros((MOST_SIDE_PX // 2, MOST_SIDE_PX // 2, 3), np.uint8))


def undisputed(pixels: Pixels) -> tuple[str, int] | None:
    """
    Hash and quality where no rounding can change them, by matrices; None where a bit or the quality hangs on it.
    """
    red, green, blue = np.moveaxis(pixels, 2, 0)
    grey = red * _RED + green * _GREEN + blue * _BLUE
    small = _averaged(_averaged(grey).T).T
    quality = _quality(small)
    if quality is None:
        return None
    waves = (_DCT @ small @ _DCT.T).ravel()
    # The median is the 128th of 256, and itself no set bit (``torben.cpp`` gives the lower one of the two).
    ordered = np.partition(waves, (126, 127, 128))
    if ordered[128] - ordered[127] <= 2 * HASH_MARGIN:
        return None
    return _hex((waves > ordered[127] + HASH_MARGIN)[::-1]), quality


def _averaged(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """
    The 64 values that are left of each row, as float32[n, 64].
    """
    found = np.empty((len(rows), _SIDE), np.float32)
    for number, (first, last, weights) in enumerate(_averages(rows.shape[1])):
        kept = slice(number * _BITS, (number + 1) * _BITS)
        step = _SERIAL // weights.size
        for top in range(0, len(rows), step):
            np.matmul(rows[top : top + step, first:last], weights, out=found[top : top + step, kept])
    return found


def _quality(small: NDArray[np.float32]) -> int | None:
    """
    How much the 64 x 64 picture changes from pixel to pixel; None where rounding may decide.
    """
    least = most = 0
    for axis in (0, 1):
        steps = np.abs(np.diff(small, axis=axis)) * np.float32(100 / 255)
        least += int(np.maximum(steps - GRADIENT_MARGIN, 0).astype(np.int32).sum())
        most += int((steps + GRADIENT_MARGIN).astype(np.int32).sum())
    lower, upper = (min(total // _GRADIENT_UNIT, _BEST) for total in (least, most))
    return lower if lower == upper else None


@lru_cache(maxsize=256)
def _averages(length: int) -> list[tuple[int, int, NDArray[np.float32]]]:
    """
    How a row of so many pixels is averaged twice and then decimated to 64 values: four times 16 of them.

    Each 16 are the pixels from the first to the last that is told, times a matrix. Averages are over a box as long as
    half a step, its ends cut off at the borders (``downscaling.cpp``).
    """
    window = (length + 2 * _SIDE - 1) // (2 * _SIDE)
    ahead = (window + 2) // 2
    spans = [(max(0, at + ahead - window), min(length, at + ahead)) for at in range(length)]
    whole = np.zeros((length, _SIDE), np.float32)
    for column in range(_SIDE):
        start, end = spans[int((column + 0.5) * length / _SIDE)]
        for first, last in spans[start:end]:
            whole[first:last, column] += 1 / ((end - start) * (last - first))
    parts = []
    for number in range(0, _SIDE, _BITS):
        part = whole[:, number : number + _BITS]
        used = np.flatnonzero(part.any(axis=1))
        first, last = int(used[0]), int(used[-1]) + 1
        parts.append((first, last, np.ascontiguousarray(part[first:last])))
    return parts


def _hex(bits: NDArray[np.bool_]) -> str:
    return np.packbits(bits).tobytes().hex()
