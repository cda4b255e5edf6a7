"""
Files as pictures, for what the evaluation does to them itself: perturbing, pasting, asking a peer, making thumbnails.

What the judgement sees of a picture goes through the worker's own decoder, not through here.
"""

import io
from pathlib import Path

from PIL import Image, ImageOps

from worker.stages.colour import flattened, in_srgb
from worker.stages.one_footing import reduced_to, through_jpeg

MAX_SIDE_PX = 1024
"""Longer pictures are reduced to it before they are perturbed, as they would be on their way through a platform."""


def opened(path: Path, max_side_px: int | None = MAX_SIDE_PX) -> Image.Image | None:
    """
    The first frame of a file, upright, in sRGB, at most so long; None where Pillow cannot read it.
    """
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            flat, _ = flattened(upright)
            small = reduced_to(flat, max_side_px)
            return in_srgb(small, image.info.get("icc_profile"))
    except Exception:  # noqa: BLE001 - Pillow's readers raise whatever the bytes lead them to; the caller counts it
        return None


def on_one_footing(path: Path, max_side_px: int | None, quality: int | None) -> Image.Image | None:
    """
    A file as the judgement's views see it: reduced and through one JPEG.
    """
    picture = opened(path, max_side_px)
    return picture if picture is None or quality is None else through_jpeg(picture, quality)


def thumbnail(path: Path, side_px: int) -> bytes | None:
    """
    A small JPEG of a file; None where it cannot be read.
    """
    picture = opened(path, side_px)
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=80)
    return buffer.getvalue()
