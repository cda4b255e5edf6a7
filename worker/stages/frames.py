"""
Frames of animations: how many there are, going through them, and the bounds of that.

Which of them are looked at beside the first is in ``worker/stages/scenes.py``, what is made of a frame in
``decode.py``, which frame decides in ``looks.py``.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngImageFile

from schemas.errors import ErrorCode
from worker.domain import Pixels
from worker.errors import UploadFailed
from worker.stages.colour import flattened
from worker.stages.decode_notes import DecodeNote
from worker.stages.gif_extent import MOST_COUNTED, gif_extent
from worker.stages.scenes import THUMBNAIL_SIDE, chosen_frames

ANIMATED: Final = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose pictures are shown one after the other; those behind the first of a JPEG or HEIF no browser shows."""

LOOK_RULES: Final = "looks-2"
"""Raise it when other frames would be chosen, or other grounds: what is remembered of such pictures is a miss then."""

LEAST_FRAME_PX: Final = 10_000
"""What going on by one frame costs at least, however small the frame, measured in pixels of a large one."""

LEAST_REACH: Final = 2
"""So many frames are gone through however small the budget: each is at most as large as any picture may be."""

SHORTEST_MS: Final = 10.0
SHORTENED_MS: Final = 100.0
"""What says of itself that it is shown for no more than the former is shown for the latter, in every browser."""


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """
    At most ``max_frames`` frames are looked at, the first among them.

    Going through the frames in search of those ends after ``max_pixels``, the pixels of all frames together; two frames
    are always gone through.
    """

    max_frames: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Announced:
    """
    How many frames a file says that it has, None where that cannot be told, and the pixels of the largest.
    """

    total: int | None
    frame_px: int


def announced_frames(image: ImageFile.ImageFile, data: bytes, *, max_pixels: int, notes: list[DecodeNote]) -> Announced:
    """
    What the file says of its frames. In a GIF this moves through them, so that frame 0 must be done with.

    Raises ``UploadFailed``: DECODE_BOMB for a GIF one of whose frames would enlarge the picture beyond ``max_pixels``,
    DECODE_FAILED for one in which Pillow finds other frames than the specification; and whatever Pillow raises where
    it cannot count.
    """
    frame_px = image.width * image.height
    total = None
    if image.format == "GIF":
        extent = gif_extent(data, most_frames=MOST_COUNTED)
        frame_px = max(image.width, extent.width) * max(image.height, extent.height)
        if frame_px > max_pixels:
            raise UploadFailed(
                ErrorCode.DECODE_BOMB,
                f"a frame of the GIF enlarges it to {frame_px} pixels, decode.max_pixels allows {max_pixels}",
            )
        if extent.frames > MOST_COUNTED:
            notes.append(DecodeNote.FRAMES_UNCOUNTED)
            return Announced(None, frame_px)
        total = extent.frames
    found = int(getattr(image, "n_frames", 1))
    if total is not None and found != total:
        raise UploadFailed(
            ErrorCode.DECODE_FAILED,
            f"the GIF has {total} frames by its specification and {found} by Pillow, so that some could not be seen",
        )
    return Announced(found, frame_px)


def further_frames(
    image: ImageFile.ImageFile, announced: Announced, limits: FrameLimits, notes: list[DecodeNote]
) -> Iterator[int]:
    """
    The numbers of the frames to be looked at beside frame 0, ascending; ``image`` shows each while it is told.

    All of a short animation, of a longer one those that ``scenes.chosen_frames`` names. Every frame within the budget
    is read, and what Pillow raises of a damaged one is not caught: a browser may show what cannot be read here.
    Known hole: what lies behind the end of the budget is not seen; the notes say so, and such a picture is not decided
    to be real.
    """
    if limits.max_frames == 1 or announced.total == 1 or image.format not in ANIMATED:
        return
    total = MOST_COUNTED if announced.total is None else announced.total
    reach = min(total, max(LEAST_REACH, limits.max_pixels // max(announced.frame_px, LEAST_FRAME_PX)))
    if announced.total is not None and reach < total:
        notes.append(DecodeNote.FRAMES_UNREACHED)
    chosen = range(reach) if reach <= limits.max_frames else _most_telling(image, reach, limits.max_frames)
    for number in chosen:
        if number == 0:
            continue
        image.seek(number)
        image.load()
        yield number


def _most_telling(image: ImageFile.ImageFile, reach: int, count: int) -> list[int]:
    # A GIF that says nothing of being repeated is shown once. AVIF does not tell; the last frame then counts for much.
    endless = image.info.get("loop") == 0
    thumbnails: list[Pixels] = []
    shown_ms: list[float] = []
    for number in range(reach):
        image.seek(number)
        image.load()
        thumbnails.append(_thumbnail(image))
        shown_ms.append(_shown_ms(image))
    if not endless:
        # It stays on the screen when the others have gone.
        shown_ms[-1] += sum(shown_ms)
    if isinstance(image, PngImageFile) and image.png is not None and image.png.queue:
        # Pillow keeps the chunk that it has read ahead when it goes back, and then finds the frames out of order.
        image.png.queue.clear()
    return chosen_frames(np.stack(thumbnails), shown_ms, count)


def _shown_ms(image: Image.Image) -> float:
    """
    For how long browsers show the frame that the image shows.
    """
    duration = image.info.get("duration", 0)
    found = float(duration) if isinstance(duration, int | float) else 0.0
    return found if found > SHORTEST_MS else SHORTENED_MS


def _thumbnail(image: Image.Image) -> Pixels:
    """
    A frame on white as uint8[16, 16, 3]: reduced first, as a dozen times as many frames are compared as looked at.
    """
    if image.mode in ("P", "1", "PA", "LA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    factors = (max(1, image.width // THUMBNAIL_SIDE), max(1, image.height // THUMBNAIL_SIDE))
    # Pillow reduces no numbers of more than 8 bits in the way that ``flattened`` rescales them.
    small = flattened(image)[0] if image.mode.startswith(("I", "F")) else flattened(image.reduce(factors))[0]
    resized = small.convert("RGB").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    return np.asarray(resized)
