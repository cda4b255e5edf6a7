"""
What happens to pictures on their way through the web: resized, compressed, blurred, cut, turned. Alike for all labels.

The encoder must not learn formats or sizes, so each step is drawn without a look at where the picture came from.
"""

import io
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from worker.starter.camera import Bytes

_FILTERS: Final = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS)


def laundered(picture: Bytes, side_px: int, rng: np.random.Generator) -> Bytes:
    """
    A square of ``side_px``, uint8[side, side, 3], of the picture as it might be met in the wild.
    """
    factor = _factor(rng)
    room = min(picture.shape[:2])
    # Cut before the work: of a megapixel only the part that will be seen is resized and compressed.
    needed = min(room, int(np.ceil((side_px + 32) / factor)))
    image = Image.fromarray(_window(picture, needed, rng))
    side = max(side_px, round(needed * factor))
    if side != needed:
        image = image.resize((side, side), _FILTERS[int(rng.integers(len(_FILTERS)))])
    if rng.uniform() < 0.12:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.2)))
    if rng.uniform() < 0.08:
        image = _noisy(image, rng)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.12, 0.68, 0.2]))):
        image = _compressed(image, rng)
    square = _window(np.asarray(image), side_px, rng)
    return _turned(square, rng)


def _factor(rng: np.random.Generator) -> float:
    kind = rng.uniform()
    if kind < 0.4:
        return 1.0
    # The last eighth are thumbnails, as the whole picture is seen: so little is left there that little should be said.
    low, high = (0.4, 1.0) if kind < 0.75 else (1.0, 1.5) if kind < 0.875 else (0.15, 0.4)
    return float(rng.uniform(low, high))


def _window(picture: Bytes, side: int, rng: np.random.Generator) -> Bytes:
    top = int(rng.integers(picture.shape[0] - side + 1))
    left = int(rng.integers(picture.shape[1] - side + 1))
    return picture[top : top + side, left : left + side]


def _compressed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    if rng.uniform() < 0.85:
        quality = int(np.clip(rng.normal(86, 10), 45, 99))
        image.save(buffer, "JPEG", quality=quality, subsampling=int(rng.choice([0, 2], p=[0.3, 0.7])))
    else:
        image.save(buffer, "WEBP", quality=int(rng.uniform(55, 98)), method=0)
    return Image.open(buffer).convert("RGB")


def _noisy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    noise = rng.normal(0, rng.uniform(1, 6), (*image.size[::-1], 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def _turned(square: Bytes, rng: np.random.Generator) -> Bytes:
    if rng.uniform() < 0.5:
        square = square[:, ::-1]
    if rng.uniform() < 0.25:
        square = np.rot90(square, int(rng.integers(1, 4)))
    if rng.uniform() < 0.3:  # brightness and contrast, as any app offers
        value = square.astype(np.float32) * rng.uniform(0.75, 1.25) + rng.uniform(-20, 20)
        square = np.clip(value, 0, 255).astype(np.uint8)
    if rng.uniform() < 0.04:
        square = np.repeat(square.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    return np.ascontiguousarray(square)
