"""
Which way up a picture is to be shown, by its EXIF orientation.
"""

from typing import Final

from PIL import ExifTags, Image

UPRIGHT: Final = 1

_TRANSPOSITIONS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ExifUnusable(Exception):
    """
    The EXIF data cannot be read.
    """


def orientation_of(image: Image.Image) -> int:
    """
    The EXIF orientation, 1 (upright) where there is none or none that the standard knows. Raises ``ExifUnusable``.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except Exception as fault:
        # Damaged EXIF raises anything, and says nothing about the pixels.
        raise ExifUnusable(f"{type(fault).__name__} while reading the EXIF data") from fault
    return value if isinstance(value, int) and value in _TRANSPOSITIONS else UPRIGHT


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """
    The picture with this orientation undone; itself where it is upright.
    """
    return image if orientation == UPRIGHT else image.transpose(_TRANSPOSITIONS[orientation])
