"""
The whole picture as the crops of a bank's views are cut from it: at its native resolution, for reviewers.

What counts as an image is decided by ``worker/stages/decode.py``: only bytes that it has accepted come here.
"""

import io

import numpy as np
from PIL import Image, ImageOps

from schemas.verdict import ImageFacts
from worker.domain import Pixels
from worker.stages.colour import ProfileUnusable, flattened, in_srgb
from worker.stages.heif import REMEDY, can_open_heif
from worker.stages.one_footing import MAX_JPEG_SIDE_PX, reduced_to, through_jpeg
from worker.stages.sniff import HEIF
from worker.views import ViewSpec

_UPRIGHT = 1


def whole_picture(data: bytes, facts: ImageFacts, views: ViewSpec) -> Pixels:
    """
    uint8[height, width, 3], upright, in sRGB, alpha on white; reduced and re-encoded as the views say.

    ``facts`` are what the decoder found in these very bytes: its limits to format and size hold here because it has
    accepted them. Of an animation the first frame is shown. Raises ``ValueError`` for facts of a picture that was not
    decoded.
    """
    if facts.format is None:
        raise ValueError("the facts name no format: only bytes that the decoder has accepted can be shown")
    if facts.format == HEIF and not can_open_heif():
        raise ValueError(f"the picture is HEIF, which cannot be read here: {REMEDY}")
    with Image.open(io.BytesIO(data), formats=[facts.format]) as image:
        image.load()
        # Asked for only where the decoder could read it: damaged EXIF raises anything.
        upright = image if facts.orientation in (None, _UPRIGHT) else ImageOps.exif_transpose(image)
        flat, _ = flattened(upright)
        profile = image.info.get("icc_profile")
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
