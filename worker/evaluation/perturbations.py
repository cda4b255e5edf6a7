"""
What happens to pictures on their way through platforms, as functions from pixels to the bytes of a file.

The perturbed file then goes through the same preprocessing as every other upload.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import numpy as np
from PIL import Image, ImageFilter, ImageOps

Perturbation = Callable[[Image.Image, np.random.Generator], bytes]

PASTED_AREA: Final = 0.25
"""Of a partial edit, the share of the picture's area that comes from a generated one."""

_SCREEN_SCALES: Final = (0.8, 0.9)
_SCREEN_QUALITIES: Final = (80, 70)


def as_jpeg(picture: Image.Image, quality: int) -> bytes:
    """
    The picture as a JPEG file.
    """
    return _stored(picture, "JPEG", quality=quality)


def as_png(picture: Image.Image) -> bytes:
    """
    The picture as a PNG file: nothing is lost, and little time is spent on making it small.
    """
    return _stored(picture, "PNG", compress_level=1)


def _stored(picture: Image.Image, name: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def _jpeg(picture: Image.Image, _: np.random.Generator, *, quality: int) -> bytes:
    return as_jpeg(picture, quality)


def _webp(picture: Image.Image, _: np.random.Generator, *, quality: int) -> bytes:
    return _stored(picture, "WEBP", quality=quality, method=2)


def _resize(picture: Image.Image, _: np.random.Generator, *, scale: float) -> bytes:
    return as_png(scaled(picture, scale))


def _blur(picture: Image.Image, _: np.random.Generator, *, sigma: float) -> bytes:
    return as_png(picture.filter(ImageFilter.GaussianBlur(sigma)))


def _noise(picture: Image.Image, rng: np.random.Generator, *, sigma: float) -> bytes:
    pixels = np.asarray(picture, np.float32)
    noisy = pixels + rng.normal(0.0, sigma, pixels.shape).astype(np.float32)
    return as_png(Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)))


def _crop(picture: Image.Image, rng: np.random.Generator, *, share: float) -> bytes:
    """
    ``share`` of each side is cut away, in parts that are drawn.
    """
    width, height = (max(1, round(side * (1 - share))) for side in picture.size)
    left, top = int(rng.integers(0, picture.width - width + 1)), int(rng.integers(0, picture.height - height + 1))
    return as_png(picture.crop((left, top, left + width, top + height)))


def _screenshot(picture: Image.Image, _: np.random.Generator) -> bytes:
    data = b""
    for scale, quality in zip(_SCREEN_SCALES, _SCREEN_QUALITIES, strict=True):
        data = as_jpeg(scaled(picture, scale), quality)
        with Image.open(io.BytesIO(data)) as shown:
            picture = shown.convert("RGB")
    return data


def scaled(picture: Image.Image, scale: float) -> Image.Image:
    """
    The picture with both sides multiplied.
    """
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC)


PERTURBATIONS: Final[Mapping[str, Perturbation]] = {
    **{f"jpeg {quality}": partial(_jpeg, quality=quality) for quality in (90, 70, 50, 30)},
    **{f"webp {quality}": partial(_webp, quality=quality) for quality in (80, 50)},
    **{f"resize {scale}": partial(_resize, scale=scale) for scale in (0.5, 0.75, 1.5)},
    **{f"blur {sigma}": partial(_blur, sigma=sigma) for sigma in (1, 2)},
    **{f"noise {sigma}": partial(_noise, sigma=sigma) for sigma in (5, 10)},
    "crop 10 %": partial(_crop, share=0.1),
    "screenshot": _screenshot,
}
"""By the name of its row; sigma in pixels for blur and in grey levels of 256 for noise."""


def partial_edit(real: Image.Image, generated: Image.Image, rng: np.random.Generator) -> bytes:
    """
    A real picture in which a rectangle of ``PASTED_AREA`` of its area was filled from a generated one.
    """
    side = PASTED_AREA**0.5
    width, height = max(1, round(real.width * side)), max(1, round(real.height * side))
    left, top = int(rng.integers(0, real.width - width + 1)), int(rng.integers(0, real.height - height + 1))
    edited = real.copy()
    edited.paste(ImageOps.fit(generated, (width, height), Image.Resampling.BICUBIC), (left, top))
    return as_png(edited)
