"""
Which way up a picture is to be shown: by what browsers go by, and by nothing else that its uploader may write.

That is the EXIF block of a JPEG, PNG or WebP, and the transformation of an AVIF. Pillow would also believe XMP and text
chunks of PNGs, which browsers ignore: an uploader would choose which way up a picture is judged.
"""

import struct
from typing import Final

from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

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

TURNED: Final = frozenset({5, 6, 7, 8})
"""Orientations that exchange width and height."""

_PREFIX: Final = b"Exif\0\0"
_BYTE_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}
_ENTRY_BYTES: Final = 12
_INLINE_BYTES: Final = 4
_SHORT: Final = 3
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}


def orientation_of(image: Image.Image, png_exif: bytes | None) -> tuple[int, bool]:
    """
    The orientation of an open picture, 1 (upright) where there is none, and whether its EXIF block is whole.

    ``png_exif`` is the block of a PNG, which Pillow mixes up with text chunks. Of a JPEG the first block counts.
    """
    block: object = None
    if image.format == "PNG":
        block = png_exif
    elif isinstance(image, JpegImageFile):
        # Pillow's own is all such segments one behind the other, which nobody else puts together.
        block = next((body for name, body in image.applist if name == "APP1" and body.startswith(_PREFIX)), None)
    elif image.format in ("WEBP", "AVIF"):
        # What reads HEIF applies the file's transformation by itself; GIF has no EXIF.
        block = image.info.get("exif")
    if not isinstance(block, bytes):
        return UPRIGHT, True
    if image.format != "AVIF":
        return orientation_in(block)
    # Pillow has put the file's transformation there, and has read the block as it is read here.
    exif = Image.Exif()
    exif.load(block)
    value = exif.get(ExifTags.Base.Orientation, UPRIGHT)
    return (value if value in _TRANSPOSITIONS else UPRIGHT), True


def orientation_in(block: bytes) -> tuple[int, bool]:
    """
    The orientation in an EXIF block, 1 where it holds none that the standard knows; and whether the block is whole.

    Read as browsers do, from the first directory alone (TIFF 6.0, section 2): damage elsewhere says nothing about it.
    """
    tiff = block.removeprefix(_PREFIX)
    order = _BYTE_ORDERS.get(tiff[:4])
    if order is None or len(tiff) < 8:  # noqa: PLR2004 - the TIFF header
        return UPRIGHT, False
    (at,) = struct.unpack_from(order + "L", tiff, 4)
    if at + 2 > len(tiff):
        return UPRIGHT, False
    (count,) = struct.unpack_from(order + "H", tiff, at)
    readable = min(count, (len(tiff) - at - 2) // _ENTRY_BYTES)
    orientation, whole = UPRIGHT, readable == count
    for number in range(readable):
        start = at + 2 + number * _ENTRY_BYTES
        tag, kind, values, where = struct.unpack_from(order + "HHLL", tiff, start)
        value_bytes = values * _TYPE_BYTES.get(kind, 0)
        whole = whole and (value_bytes <= _INLINE_BYTES or where + value_bytes <= len(tiff))
        if tag == ExifTags.Base.Orientation and (kind, values) == (_SHORT, 1):
            (value,) = struct.unpack_from(order + "H", tiff, start + 8)
            orientation = value if value in _TRANSPOSITIONS else UPRIGHT
    return orientation, whole


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """
    The picture with this orientation undone; itself where it is upright.
    """
    return image if orientation == UPRIGHT else image.transpose(_TRANSPOSITIONS[orientation])
