"""
What puts pictures of all formats and sizes on one footing: a limit to the sides, and one JPEG for all.

Real pictures are mostly JPEG and generated ones mostly PNG: without this a detector may learn the format instead of the
generator (arXiv 2403.17608). Colour is ``worker/stages/colour.py``.
"""

import io
from typing import Final

from PIL import Image

MAX_JPEG_SIDE_PX: Final = 65_500
"""What libjpeg can hold; a picture that is to go through JPEG is first reduced to it."""

_CHROMA_4_2_0: Final = 2


def reduced_to(picture: Image.Image, max_side_px: int | None) -> Image.Image:
    """
    The picture with its longer side at most ``max_side_px`` pixels, in proportion; itself where it is so already.
    """
    longest = max(picture.size)
    if max_side_px is None or longest <= max_side_px:
        return picture
    width, height = (max(1, round(side * max_side_px / longest)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """
    An RGB picture in sRGB as it comes back from a JPEG file of this quality, chroma at half the resolution (4:2:0).

    Raises ``OSError`` for a side beyond ``MAX_JPEG_SIDE_PX``.
    """
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=_CHROMA_4_2_0)
    file.seek(0)
    with Image.open(file, formats=["JPEG"]) as again:
        again.load()
    # Its pixels stay; what was RGB comes back as RGB.
    return again
