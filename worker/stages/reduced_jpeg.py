"""
JPEGs decoded at a half, a quarter or an eighth of their size, where a spec allows it: cheaper, and not the same pixels.

How far is part of ``PreprocessSpec``, and so of every fingerprint; nothing else of a picture depends on it but its
perceptual hash. Everything that is refused is refused before, by the size that the header announces.
"""

from typing import Final

from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile

from worker.domain import PreprocessSpec
from worker.stages.preprocess import MAX_ASPECT, Area
from worker.stages.upright import TURNED
from worker.views import ViewSpec

_FROM_THE_RIGHT: Final = frozenset({2, 3, 6, 7})
_FROM_BELOW: Final = frozenset({3, 4, 7, 8})
"""Orientations that, once undone, have what was the last column or row of the file on the left, or above."""


def reduce_jpeg(image: ImageFile.ImageFile, spec: PreprocessSpec, views: ViewSpec, orientation: int) -> Area | None:
    """
    Have an open JPEG, not yet loaded, decoded no larger than needed; None where the spec or the views forbid it.

    Both sides stay at least ``spec.jpeg_oversampling`` times the encoder's input. libjpeg leaves out the finest
    frequencies of each block of 8 x 8 (its ``scale_denom``), so that their inverse transform, the colour conversion and
    the resizing after it are of fewer pixels. Crops, statistics and one re-encoding for all are about those
    frequencies: with such views every picture is decoded whole. Returns where the picture lies, turned upright, in
    what is decoded: that is rounded up to whole pixels.
    """
    side, whole = spec.jpeg_oversampling * spec.size, image.size
    if side == 0 or not isinstance(image, JpegImageFile) or not looks_at_the_whole_alone(views):
        return None
    if min(whole) < 2 * side or max(whole) > MAX_ASPECT * min(whole):
        return None
    if image.draft(None, (side, side)) is None:
        return None
    scale = next(scale for scale in (8, 4, 2) if min(whole) >= scale * side)
    size, decoded = _turned(whole, orientation), _turned(image.size, orientation)
    width, height = size[0] / scale, size[1] / scale
    left = decoded[0] - width if orientation in _FROM_THE_RIGHT else 0.0
    above = decoded[1] - height if orientation in _FROM_BELOW else 0.0
    return Area(size, (left, above, left + width, above + height))


def looks_at_the_whole_alone(views: ViewSpec) -> bool:
    """
    Whether no pixel of the file in its own size is asked for.
    """
    return not (views.native_crops or views.realism or views.max_side_px or views.reencode_quality)


def _turned(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    return (size[1], size[0]) if orientation in TURNED else size
