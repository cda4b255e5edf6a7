"""
The whole picture as the crops of a bank's views are cut from it: at its native resolution, for reviewers.

What counts as an image is decided by ``worker/stages/decode.py``: only bytes that it has accepted come here.
"""

from typing import Literal

import numpy as np
from PIL import Image

from schemas.verdict import ImageFacts
from worker.domain import Pixels
from worker.stages.colour import ProfileUnusable, flattened, in_srgb, on_grey
from worker.stages.heif import REMEDY, can_open_heif
from worker.stages.one_footing import MAX_JPEG_SIDE_PX, reduced_to, through_jpeg
from worker.stages.opened import opened
from worker.stages.sniff import HEIF
from worker.stages.upright import UPRIGHT, upright
from worker.views import ViewSpec

Ground = Literal["white", "grey"]


def whole_picture(
    data: bytes, facts: ImageFacts, views: ViewSpec, *, frame: int = 0, ground: Ground = "white"
) -> Pixels:
    """
    uint8[height, width, 3], upright, in sRGB, alpha on the ground; reduced and re-encoded as the views say.

    ``facts`` are what the decoder found in these very bytes: its limits to format and size hold here because it has
    accepted them. Raises ``ValueError`` for facts of a picture that was not decoded, for a ``frame`` that the decoder
    did not look at, and for grey where no ground shines through.
    """
    if facts.format is None:
        raise ValueError("the facts name no format: only bytes that the decoder has accepted can be shown")
    if facts.format == HEIF and not can_open_heif():
        raise ValueError(f"the picture is HEIF, which cannot be read here: {REMEDY}")
    if frame not in facts.frames_scored:
        raise ValueError(f"the decoder looked at frames {facts.frames_scored}, want one of them, found {frame}")
    with opened(data, facts.format) as file:
        picture = file.first()
        # Of the file: Pillow replaces what it knows of an image as it goes through the frames.
        profile = file.image.info.get("icc_profile")
        if frame:
            picture = file.image
            picture.seek(frame)
            picture.load()
        # As the decoder has read it from the file: a frame may say otherwise, and damaged EXIF raises anything.
        shown = upright(picture, facts.orientation or UPRIGHT)
        flat = on_grey(shown) if ground == "grey" else flattened(shown)[0]
    if flat is None:
        raise ValueError(f"frame {frame} has no ground that shines through, want it on white")
    picture = reduced_to(flat, views.max_side_px)
    if views.reencode_quality is not None:
        picture = reduced_to(picture, MAX_JPEG_SIDE_PX)
    picture = _in_srgb(picture, profile)
    if views.reencode_quality is not None:
        picture = through_jpeg(picture, views.reencode_quality)
    return np.asarray(picture)


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    try:
        return in_srgb(picture, profile)
    except ProfileUnusable:
        return in_srgb(picture, None)
