"""
The realism statistics are computed by half the frequencies and by whole numbers: no digit that is kept depends on it.
"""

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.pictures import photograph
from worker.adapters.realism_statistics import statistics
from worker.domain import Pixels
from worker.heads.features import REALISM

sides = st.integers(3, 160)


def plainly(pixels: Pixels) -> dict[str, float]:
    """
    Contrast, energy and spectrum from all pairs and all frequencies, in the precision in which they are kept.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    left, right = grey[:, :-1].astype(np.int64).ravel(), grey[:, 1:].astype(np.int64).ravel()
    counts = np.bincount(left * 256 + right, minlength=256 * 256).reshape(256, 256)
    shares = (counts + counts.T) / (2 * len(left))
    spectrum = np.abs(np.fft.fft2(grey.astype(np.float64)))
    values = {
        "glcm_contrast": np.mean((left - right) ** 2),
        "glcm_energy": np.sum(shares**2),
        "mean_spectrum": spectrum.mean(),
    }
    return {name: float(np.float32(value)) for name, value in values.items()}


def kept(pixels: Pixels) -> dict[str, float]:
    """
    The same of the worker's statistics.
    """
    found = dict(zip(REALISM, statistics(pixels), strict=True))
    return {name: float(np.float32(found[name])) for name in ("glcm_contrast", "glcm_energy", "mean_spectrum")}


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.integers(0, 1 << 16))
def test_of_noise_and_of_photographs_of_even_and_odd_sizes(width: int, height: int, seed: int) -> None:
    """
    Equal as float32, which is how they are kept.
    """
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    for pixels in (noise, np.asarray(photograph(width, height, seed=seed))):
        assert plainly(pixels) == kept(pixels)
