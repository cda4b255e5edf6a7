"""
A camera that is simulated from the lens to the file: the natural traces that a generator does not leave.

Optics, photon and read noise, colour filter array, demosaicing, white balance, denoising, sharpening, tone. The steps
and their ranges follow unprocessing (Brooks et al., CVPR 2019), run forwards.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from worker.starter.scenes import Light

Bytes = NDArray[np.uint8]

_AT_RED = ((0.0, 0.25, 0.0), (0.25, 1.0, 0.25), (0.0, 0.25, 0.0))
_AT_GREEN = ((0.25, 0.5, 0.25), (0.5, 1.0, 0.5), (0.25, 0.5, 0.25))


def photograph(light: Light, rng: np.random.Generator) -> Bytes:
    """
    uint8[h, w, 3], sRGB: the scene as one camera, drawn at random, would have delivered it before compression.
    """
    gains = np.array([rng.uniform(1.3, 2.4), 1.0, rng.uniform(1.2, 2.2)], dtype=np.float32)
    sensor = _exposed(_through_lens(light, rng) / gains, rng)
    colour = _demosaiced(sensor, smooth=rng.uniform() < 0.5)
    colour = _denoised(np.clip(colour * gains, 0, 1), rng)
    return to_bytes(_sharpened(_toned(colour, rng), rng))


def to_bytes(picture: Light) -> Bytes:
    """
    From 0 to 1 to uint8, rounded.
    """
    rounded: Bytes = np.clip(np.rint(picture * 255), 0, 255).astype(np.uint8)
    return rounded


def to_srgb(light: Light) -> Light:
    """
    Linear light under the transfer curve of sRGB (IEC 61966-2-1).
    """
    curve: Light = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-8) ** (1 / 2.4) - 0.055)
    return curve.astype(np.float32)


def to_light(picture: Bytes) -> Light:
    """
    Bytes in sRGB as linear light, float32.
    """
    value = picture.astype(np.float32) / 255
    light: Light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)
    return light


def _through_lens(light: Light, rng: np.random.Generator) -> Light:
    width = rng.uniform(0.35, 1.1)
    seen = np.empty_like(light)
    for channel in range(3):
        spread = width * (1 + rng.uniform(-0.15, 0.25))
        seen[..., channel] = ndimage.gaussian_filter(light[..., channel], spread)
        if rng.uniform() < 0.5:  # lateral chromatic aberration, a fraction of a pixel
            seen[..., channel] = ndimage.shift(seen[..., channel], rng.uniform(-0.5, 0.5, 2), order=1, mode="nearest")
    return seen


def _exposed(light: Light, rng: np.random.Generator) -> Light:
    """
    The mosaic, float32[h, w], of an RGGB sensor, with shot noise that grows with the light, and read noise.
    """
    height, width, _ = light.shape
    mosaic = np.empty((height, width), dtype=np.float32)
    mosaic[0::2, 0::2] = light[0::2, 0::2, 0]
    mosaic[0::2, 1::2] = light[0::2, 1::2, 1]
    mosaic[1::2, 0::2] = light[1::2, 0::2, 1]
    mosaic[1::2, 1::2] = light[1::2, 1::2, 2]
    shot = 10 ** rng.uniform(-4, -2)
    read = 10 ** rng.uniform(-3.2, -1.9)
    noise = rng.standard_normal(mosaic.shape).astype(np.float32)
    exposed: Light = mosaic + noise * np.sqrt(shot * np.maximum(mosaic, 0) + read**2)
    return exposed


def _demosaiced(mosaic: Light, *, smooth: bool) -> Light:
    """
    Bilinear interpolation of the colour filter array; ``smooth``: red and blue through their difference to green.
    """
    height, width = mosaic.shape
    masks = np.zeros((height, width, 3), dtype=np.float32)
    masks[0::2, 0::2, 0] = 1
    masks[0::2, 1::2, 1] = masks[1::2, 0::2, 1] = 1
    masks[1::2, 1::2, 2] = 1
    full = np.empty((height, width, 3), dtype=np.float32)
    full[..., 1] = ndimage.convolve(mosaic * masks[..., 1], np.array(_AT_RED, np.float32), mode="mirror")
    for channel in (0, 2):
        known = mosaic - full[..., 1] if smooth else mosaic
        filled = ndimage.convolve(known * masks[..., channel], np.array(_AT_GREEN, np.float32), mode="mirror")
        full[..., channel] = filled + (full[..., 1] if smooth else 0)
    return full


def _denoised(picture: Light, rng: np.random.Generator) -> Light:
    if rng.uniform() < 0.3:
        return picture
    grey = picture.mean(axis=2, keepdims=True)
    chroma = ndimage.gaussian_filter(picture - grey, (*([rng.uniform(0.5, 2.5)] * 2), 0))
    if rng.uniform() < 0.5:
        soft = ndimage.gaussian_filter(grey, (*([rng.uniform(0.4, 1.0)] * 2), 0))
        flat = np.exp(-np.abs(grey - soft) / rng.uniform(0.01, 0.05))  # near edges nothing is smoothed
        grey = grey + flat * (soft - grey)
    denoised: Light = (grey + chroma).astype(np.float32)
    return denoised


def _toned(light: Light, rng: np.random.Generator) -> Light:
    picture = to_srgb(np.clip(light * 2 ** rng.uniform(-0.3, 0.5), 0, 1))
    bent = picture * picture * (3 - 2 * picture)
    strength = rng.uniform(0, 0.6)
    toned = picture + strength * (bent - picture)
    grey = toned.mean(axis=2, keepdims=True)
    saturated: Light = np.clip(grey + (toned - grey) * rng.uniform(0.9, 1.4), 0, 1).astype(np.float32)
    return saturated


def _sharpened(picture: Light, rng: np.random.Generator) -> Light:
    amount = rng.uniform(0, 1.2) if rng.uniform() < 0.7 else 0.0
    radius = rng.uniform(0.5, 1.5)
    soft = ndimage.gaussian_filter(picture, (radius, radius, 0))
    sharp: Light = np.clip(picture + amount * (picture - soft), 0, 1).astype(np.float32)
    return sharp
