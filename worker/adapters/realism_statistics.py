"""
The five statistics of the Image Realism Score, with OpenCV: the only module that touches cv2.

What they are worth against each other, and against pictures known to be real, is for whoever weighs them.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.domain import Pixels

# The decode threads are the parallelism; OpenCV's own pool under each of them would only fight for the same cores.
cv2.setNumThreads(0)

_CANNY: Final = (100, 200)
_LEVELS: Final = 256
_SQUARES: Final = np.subtract.outer(np.arange(_LEVELS), np.arange(_LEVELS)) ** 2


def statistics(pixels: Pixels) -> tuple[float, ...]:
    """
    Of uint8[h, w, 3], RGB: the statistics in the order of ``worker.heads.features.REALISM``. Any thread may call.

    All on the grey picture (arXiv 2309.14756): the share of Canny(100, 200) edge pixels; contrast and energy of the
    co-occurrence matrix of each pixel with its right neighbour (256 levels, symmetric, summing to 1), where energy is
    the angular second moment, the sum of squares, and not its square root, which some libraries call by that name; the
    variance of the Laplacian of four neighbours; the mean magnitude of the Fourier transform. They depend on the size:
    compare only pictures of one size.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    edges = np.asarray(cv2.Canny(grey, *_CANNY))
    contrast, energy = _co_occurrence(grey)
    laplacian = np.asarray(cv2.Laplacian(grey, cv2.CV_64F, ksize=1))
    return float(np.mean(edges > 0)), contrast, energy, float(laplacian.var()), _spectral_mean(grey)


def _co_occurrence(grey: NDArray[np.uint8]) -> tuple[float, float]:
    pairs = (grey[:, :-1].astype(np.uint16) << 8 | grey[:, 1:]).ravel()
    counts = np.bincount(pairs, minlength=_LEVELS * _LEVELS).reshape(_LEVELS, _LEVELS)
    shares = (counts + counts.T) / (2 * len(pairs))
    # Whole numbers up to the division, so that no order of adding shows.
    return int((counts * _SQUARES).sum()) / len(pairs), float(np.sum(shares**2))


def _spectral_mean(grey: NDArray[np.uint8]) -> float:
    """
    The mean magnitude over all frequencies: of real numbers half of them mirror the others, and are not computed.
    """
    magnitudes = np.abs(np.fft.rfft2(grey.astype(np.float64)))
    mirrored = magnitudes[:, 1 : (grey.shape[1] + 1) // 2]
    return float((magnitudes.sum() + mirrored.sum()) / grey.size)
