"""
Scenes that the project makes itself: what stands before the simulated camera, as linear light.

Dead leaves (Lee, Mumford, Huang, IJCV 2001) over 1/f textures: with their occlusions and their power spectrum they are
the simplest pictures whose statistics come near to those of photographs. They show nothing.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Light = NDArray[np.float32]
"""float32[h, w, 3], linear RGB, 0 (dark) to 1 (saturation)."""

_SHAPES: Final = ("disk", "box", "wedge")


def dead_leaves(side_px: int, rng: np.random.Generator) -> Light:
    """
    One scene, float32[side, side, 3]: leaves of every size, each with its own texture and shading, nearest on top.
    """
    picture = _texture(side_px, rng) * _colour(rng) + _colour(rng) * rng.uniform(0, 0.3)
    rows, columns = np.mgrid[0:side_px, 0:side_px].astype(np.float32)
    for radius in np.sort(_radii(side_px, rng))[::-1]:
        centre = rng.uniform(-0.1, 1.1, 2) * side_px
        top, left = np.maximum(0, (centre - 1.5 * radius).astype(int))
        bottom, right = np.minimum(side_px, (centre + 1.5 * radius).astype(int) + 1)
        if bottom <= top or right <= left:
            continue
        window = (slice(top, bottom), slice(left, right))
        mask = _leaf(rows[window] - centre[0], columns[window] - centre[1], radius, rng)
        picture[window] += mask[..., None] * (_surface(mask.shape, rng) - picture[window])
    return np.clip(picture * rng.uniform(0.5, 1.4), 0, 1).astype(np.float32)


def _radii(side_px: int, rng: np.random.Generator) -> NDArray[np.float64]:
    # Number of leaves falling with the cube of their size makes the scene look alike at every scale.
    count = int(rng.integers(80, 500))
    smallest, largest = side_px / rng.uniform(40, 140), side_px / rng.uniform(2, 4)
    share = rng.uniform(0, 1, count)
    inverse: NDArray[np.float64] = 1 / np.sqrt(share / largest**2 + (1 - share) / smallest**2)
    return inverse


def _leaf(rows: Light, columns: Light, radius: float, rng: np.random.Generator) -> Light:
    angle = rng.uniform(0, np.pi)
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = (columns * np.cos(angle) - rows * np.sin(angle)) * rng.uniform(1, 3)
    match _SHAPES[int(rng.integers(len(_SHAPES)))]:
        case "disk":
            outside = np.hypot(along, across) - radius
        case "box":
            outside = np.maximum(np.abs(along), np.abs(across)) - radius * 0.8
        case _:
            outside = np.maximum(np.abs(along) - radius, across + along * rng.uniform(-0.7, 0.7) - radius * 0.4)
    # An edge as wide as a pixel, or out of focus.
    softness = 0.7 if rng.uniform() < 0.8 else rng.uniform(1, 6)
    edge: Light = np.clip(0.5 - outside / softness, 0, 1).astype(np.float32)
    return edge


def _surface(shape: tuple[int, ...], rng: np.random.Generator) -> Light:
    height, width = shape
    side = max(height, width)
    shade = np.linspace(rng.uniform(0.5, 1), rng.uniform(0.5, 1), side, dtype=np.float32)
    base = _colour(rng) * (shade[:height, None, None] if rng.uniform() < 0.5 else shade[None, :width, None])
    if rng.uniform() < 0.35:
        return np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    detail = _texture(side, rng)[:height, :width]
    return (base * (1 + rng.uniform(0.1, 1.2) * (detail - 0.5))).astype(np.float32)


def _texture(side_px: int, rng: np.random.Generator) -> Light:
    """
    Noise of spectrum 1 / f^a, now and then stretched into a grain, 0 to 1.
    """
    side = max(8, side_px)
    frequency_y = np.fft.fftfreq(side)[:, None] * rng.uniform(0.3, 3)
    frequency_x = np.fft.rfftfreq(side)[None, :] * rng.uniform(0.3, 3)
    amplitude = 1 / np.maximum(np.hypot(frequency_y, frequency_x), 1 / side) ** rng.uniform(0.6, 1.8)
    phase = rng.uniform(0, 2 * np.pi, amplitude.shape)
    noise = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(side, side))
    noise = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-9)
    if rng.uniform() < 0.3:
        noise = np.abs(np.sin(noise * rng.uniform(3, 30)))
    tint = 1 + rng.uniform(-0.15, 0.15, 3)
    texture: Light = (noise[:side_px, :side_px, None] * tint).astype(np.float32)
    return texture


def _colour(rng: np.random.Generator) -> Light:
    # Natural colours are dull more often than not.
    grey = rng.uniform(0.03, 0.95)
    colour: Light = np.clip(grey * (1 + rng.normal(0, rng.choice([0.1, 0.5]), 3)), 0.01, 1).astype(np.float32)
    return colour


def reduced(light: Light, factor: float) -> Light:
    """
    The scene at 1 / factor of its size, band-limited first: what a perfect renderer would have drawn.
    """
    if factor <= 1:
        return light
    blurred = ndimage.gaussian_filter(light, (0.45 * factor, 0.45 * factor, 0))
    smaller: Light = ndimage.zoom(blurred, (1 / factor, 1 / factor, 1), order=1, grid_mode=True, mode="nearest")
    return smaller.astype(np.float32)
