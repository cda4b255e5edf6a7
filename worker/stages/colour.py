"""
Colour: from any of Pillow's modes to 8-bit sRGB, with nothing clipped and nothing hidden.

Pillow's own ``convert("RGB")`` clips 16-bit grey to white, shows what lies hidden under full transparency, and knows
no profiles. Nothing here changes a picture's size.
"""

import io
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

AlphaFact = Literal["none", "opaque", "composited"]

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""Larger profiles are dropped: the largest honest ones, for printing presses, hold about 3 MB."""

_SRGB: Final = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_PLAIN_MODES: Final = ("L", "RGB", "CMYK")

MID_GREY: Final = 128

LEAST_GROUND: Final = 1 / 16
"""Where less of a picture than this share is ground that shines through, its colour is not worth a second look."""


_ALL_COLOURS: Final = Image.fromarray(
    np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(-1, 18, 3)
)
"""Eighteen levels of each channel, with each of the others."""

_ALL_LEVELS: Final = Image.fromarray(
    np.stack(
        [np.outer(np.arange(256), which).astype(np.uint8) for which in ((1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    )
)
"""Every level of grey and of each channel: curves may be those of sRGB at a few levels and others between."""

_LONGEST_SRGB_BYTES: Final = 4096
"""A usual sRGB profile has 3,144; tables in a longer one could hide colours between those that are looked at."""


class ProfileUnusable(Exception):
    """
    An embedded ICC profile is damaged, too large, or of another colour space than the picture.
    """


def flattened(picture: Image.Image) -> tuple[Image.Image, AlphaFact]:
    """
    The picture as it looks on white paper, in mode L, RGB or CMYK, and what became of its alpha channel.

    What lies under full transparency has no influence at all on the result.
    """
    if picture.mode.startswith(("I", "F")):
        return _rescaled(picture)
    if not picture.has_transparency_data:
        return (picture if picture.mode in _PLAIN_MODES else picture.convert("RGB")), "none"
    picture = picture.convert("RGBA")
    alpha = picture.getchannel("A")
    if alpha.getextrema()[0] == 255:  # noqa: PLR2004 - opaque everywhere
        return picture.convert("RGB"), "opaque"
    paper = Image.new("RGB", picture.size, "white")
    paper.paste(picture, mask=alpha)
    return paper, "composited"


def on_grey(picture: Image.Image) -> Image.Image | None:
    """
    The picture as it looks on mid-grey paper, in mode L or RGB; None where too little paper shines through to matter.

    What is drawn in white on nothing cannot be seen on white, and can where the ground is dark. What shines through is
    measured, and not what the two grounds show: an uploader could spoil every measure of the latter with a few strokes.
    """
    if picture.mode.startswith(("I", "F")):
        flat, _ = _rescaled(picture, ground=MID_GREY)
        hidden = np.asarray(picture) == picture.info.get("transparency")
        return flat if float(hidden.mean()) >= LEAST_GROUND else None
    picture = picture.convert("RGBA")
    alpha = picture.getchannel("A")
    if 1 - float(np.asarray(alpha).mean()) / 255 < LEAST_GROUND:
        return None
    paper = Image.new("RGB", picture.size, (MID_GREY,) * 3)
    paper.paste(picture, mask=alpha)
    return paper


def with_deep_transparency(picture: Image.Image, png: bytes, transparent: tuple[int, int, int]) -> Image.Image:
    """
    A PNG in 16-bit RGB that Pillow has brought to 8 bits, with an alpha channel of 0 where it has exactly this colour.

    Pillow keeps the upper half of each number: the lower comes from ``png``, the file, read a second time.
    """
    with Image.open(io.BytesIO(png), formats=["PNG"]) as lower:
        # Read as if the lower byte came last, the same bytes give the other half.
        lower.tile = [tile._replace(args="RGB;16L") for tile in lower.tile]
        lower.load()
        low = np.asarray(lower)
    high = np.asarray(picture)
    hidden = np.ones(high.shape[:2], bool)
    for channel, value in enumerate(transparent):
        hidden &= (high[..., channel] == value >> 8) & (low[..., channel] == value & 255)
    deep = picture.copy()
    deep.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    return deep


def in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """
    A picture in mode L, RGB or CMYK as RGB in the sRGB colour space; itself where it is that already.

    ``profile`` is the ICC profile that its numbers mean, None for sRGB; CMYK without a profile is converted plainly.
    Raises ``ProfileUnusable``.
    """
    if profile is None:
        return picture if picture.mode == "RGB" else picture.convert("RGB")
    if len(profile) > MAX_PROFILE_BYTES:
        raise ProfileUnusable(f"the ICC profile holds {len(profile)} bytes, at most {MAX_PROFILE_BYTES} are read")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(picture, source, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileUnusable(f"the ICC profile cannot be applied ({error})") from error
    assert converted is not None  # noqa: S101 - for the type checker: None is returned only when converting in place
    return converted


def is_srgb(profile: bytes) -> bool:
    """
    Whether an ICC profile of colour pictures leaves every colour as it is, but for one level of 255; never a long one.
    """
    return len(profile) <= _LONGEST_SRGB_BYTES and _leaves_colours(profile)


@lru_cache(maxsize=64)
def _leaves_colours(profile: bytes) -> bool:
    try:
        return all(
            np.abs(np.asarray(in_srgb(shown, profile)).astype(np.int16) - np.asarray(shown)).max() <= 1
            for shown in (_ALL_COLOURS, _ALL_LEVELS)
        )
    except ProfileUnusable:
        return False


def _rescaled(picture: Image.Image, ground: int = 255) -> tuple[Image.Image, AlphaFact]:
    """
    Grey of more than 8 bits, or of floating point, brought to 8 bits: white stays white and black stays black.

    Integers are taken as 16 bits, which is all that PNG has; floats as 0 to 1, or as 0 to their maximum above that.
    The one grey that a PNG may declare transparent takes the grey of the ``ground``, white unless told otherwise.
    """
    values = np.nan_to_num(np.asarray(picture).astype(np.float64))
    white = 65_535.0 if picture.mode.startswith("I") else max(1.0, float(values.max(initial=0.0)))
    eight_bits: NDArray[np.uint8] = np.clip(np.rint(values * (255.0 / white)), 0, 255).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(eight_bits), "none"
    hidden = values == transparent
    eight_bits[hidden] = ground
    return Image.fromarray(eight_bits), "composited" if hidden.any() else "opaque"
