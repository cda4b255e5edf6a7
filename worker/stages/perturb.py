"""
Perturbed copies of a picture, and how far they move its embedding. Numpy only: no encoder, no randomness of its own.

Features of generated pictures move otherwise than those of photographs, more or less depending on the encoder; which
way is learnt where these numbers are weighed. Any change that moves a pixel changes ``worker.views.VIEW_RULES``.
"""

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.domain import Pixels

Shift = tuple[float, float, float]
Plane = NDArray[np.float32]

NOISE_COPIES: Final = 3
COPIES: Final = NOISE_COPIES + 3
"""So many forwards does one picture's shift cost: noise three times, blurred, sharpened, high frequencies."""

_NOISE_SIGMA: Final = 0.009 * 255
_BLUR_SIGMA_PX: Final = 0.55
_PATCH_PX: Final = 14
_CUT_OFF: Final = 0.25
_SEED: Final = 2411_19117


def perturbed_copies(pixels: Pixels) -> tuple[Pixels, ...]:
    """
    ``COPIES`` copies of uint8[h, w, 3]: under three fields of noise, blurred, sharpened, under high-frequency noise.

    All are rounded to uint8, the encoder's input: of noise with a standard deviation of 2.3 levels that takes little,
    but a flat area passes the blur unchanged where the paper's floating point would not be flat either. The noise is
    the same for every picture of one size. Numpy does not promise the same normal numbers from one of its versions to
    the next; a bank and a worker that ask for the shift should run the same one.
    """
    height, width = pixels.shape[:2]
    levels = pixels.astype(np.float32)
    noisy = tuple(_rounded(levels + field) for field in _noise(height, width))
    blurred = _blurred(levels)
    sharpened = 2 * levels - blurred
    return *noisy, _rounded(blurred), _rounded(sharpened), _rounded(levels + _high_frequencies(height, width))


def shift_of(original: NDArray[np.float32], copies: NDArray[np.float32]) -> Shift:
    """
    How far the copies moved: cosine distances 0 to 2, in the order of ``worker.heads.features.SHIFT``.

    ``original`` float32[d] and ``copies`` float32[COPIES, d] are raw features, in the order of ``perturbed_copies``.
    ``noise``: mean of 1 - cos(f(x), f(x + noise)), as RIGID (arXiv 2405.20112) and MINDER (arXiv 2411.19117) do.
    ``contrastive_blur``: 1 - cos(f(blurred), f(sharpened)), of MINDER. ``high_frequency``: 1 - cos(f(x), f(x + high
    frequencies)), after arXiv 2603.21619. Each is rounded to float32, so that the cache can hold it. Raises
    ``ValueError`` for features that are not finite or have no direction.
    """
    if copies.shape != (COPIES, original.size):
        raise ValueError(f"features of perturbed copies are {copies.shape}, want {(COPIES, original.size)}")
    units = _units(np.vstack([original[None], copies]).astype(np.float64))
    itself, moved = units[0], units[1:]
    noise = float(np.mean(1 - moved[:NOISE_COPIES] @ itself))
    contrastive_blur = float(1 - moved[NOISE_COPIES] @ moved[NOISE_COPIES + 1])
    high_frequency = float(1 - moved[NOISE_COPIES + 2] @ itself)
    return _as_held(noise), _as_held(contrastive_blur), _as_held(high_frequency)


def _units(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.all(np.isfinite(lengths)) or np.any(lengths < 1e-12):  # noqa: PLR2004 - no direction
        raise ValueError("features of perturbed copies have no direction: they must be finite and not all zero")
    units: NDArray[np.float64] = rows / lengths
    return units


def _as_held(distance: float) -> float:
    # Rounding may leave the distance of equal vectors a hair below 0.
    return float(np.float32(max(0.0, distance)))


def _rounded(levels: Plane) -> Pixels:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _blurred(levels: Plane) -> Plane:
    """
    A Gaussian of 3 x 3 pixels, the edges mirrored: first down the columns, then along the rows.
    """
    side = float(np.exp(-0.5 / _BLUR_SIGMA_PX**2))
    side, middle = side / (1 + 2 * side), 1 / (1 + 2 * side)
    padded = np.pad(levels, ((1, 1), (1, 1), (0, 0)), mode="reflect")
    columns = middle * padded[1:-1] + side * (padded[:-2] + padded[2:])
    rows = middle * columns[:, 1:-1] + side * (columns[:, :-2] + columns[:, 2:])
    return rows.astype(np.float32)


@cache
def _noise(height: int, width: int) -> tuple[Plane, ...]:
    """
    Three fields of normal noise, float32[h, w, 3], always the same for one size.
    """
    return tuple(
        np.random.default_rng([_SEED, number]).normal(0, _NOISE_SIGMA, (height, width, 3)).astype(np.float32)
        for number in range(NOISE_COPIES)
    )


@cache
def _high_frequencies(height: int, width: int) -> Plane:
    """
    Noise of the same strength that holds only frequencies above a quarter of a cycle per pixel, patch by patch.

    Random spectra, one for each patch of 14 x 14 pixels and channel, brought back by one inverse Fourier transform. Of
    the paper only the idea could be read (patches of 14, high frequencies, one transform); the cut-off and the
    strength are ours.
    """
    rows, columns = -(-height // _PATCH_PX), -(-width // _PATCH_PX)
    rng = np.random.default_rng([_SEED, NOISE_COPIES])
    shape = (rows, columns, 3, _PATCH_PX, _PATCH_PX // 2 + 1)
    spectra = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    radius = np.hypot(np.fft.fftfreq(_PATCH_PX)[:, None], np.fft.rfftfreq(_PATCH_PX)[None, :])
    patches = np.fft.irfft2(spectra * (radius > _CUT_OFF), s=(_PATCH_PX, _PATCH_PX))
    tiled = patches.transpose(0, 3, 1, 4, 2).reshape(rows * _PATCH_PX, columns * _PATCH_PX, 3)
    field: Plane = (tiled * (_NOISE_SIGMA / tiled.std())).astype(np.float32)
    return field[:height, :width]
