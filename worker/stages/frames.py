"""
Frames of animations: how many there are, which of them are looked at beside the first, and the bounds of the search.

What is made of a frame is in ``worker/stages/decode.py``; which frame decides is in ``worker/flow/bank_judge.py``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from schemas.errors import ErrorCode
from worker.domain import Pixels
from worker.errors import UploadFailed
from worker.stages.colour import flattened
from worker.stages.gif_extent import gif_extent

ANIMATED: Final = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose pictures are shown one after the other; those behind the first of a JPEG or HEIF no browser shows."""

LOOK_RULES: Final = "looks-1"
"""Raise it when other frames would be chosen, or other grounds: what is remembered of such pictures is a miss then."""

MOST_COUNTED: Final = 100_000
"""A GIF says nowhere how many frames it has: with more than these nobody counts on, which takes a second or two."""

LEAST_FRAME_PX: Final = 10_000
"""What going on by one frame costs at least, however small the frame, measured in pixels of a large one."""

THUMBNAIL_SIDE: Final = 16


class DecodeNote(StrEnum):
    """
    What was odd about a picture that could be decoded all the same; these stand in ``ImageFacts.warnings``.

    ``FRAMES_DAMAGED``: only the frames before some frame could be read. ``FRAMES_UNREACHED``: the animation is longer
    than the budget for going through it.
    """

    EXIF_DAMAGED = "EXIF_DAMAGED"
    FRAMES_DAMAGED = "FRAMES_DAMAGED"
    FRAMES_UNCOUNTED = "FRAMES_UNCOUNTED"
    FRAMES_UNREACHED = "FRAMES_UNREACHED"
    ICC_DROPPED = "ICC_DROPPED"


@dataclass(frozen=True, slots=True)
class FrameLimits:
    """
    At most ``max_frames`` frames are looked at, the first among them.

    Going through the frames in search of those ends after ``max_pixels``, the pixels of all frames together.
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

    Raises ``UploadFailed`` (DECODE_BOMB) for a GIF one of whose frames would enlarge the picture beyond ``max_pixels``.
    """
    frame_px = image.width * image.height
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
    try:
        return Announced(int(getattr(image, "n_frames", 1)), frame_px)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - what follows the first frame may be damaged in any way; the first was read
        notes.append(DecodeNote.FRAMES_UNCOUNTED)
        return Announced(None, frame_px)


def further_frames(
    image: ImageFile.ImageFile, announced: Announced, limits: FrameLimits, notes: list[DecodeNote]
) -> Iterator[int]:
    """
    The numbers of the frames to be looked at beside frame 0, ascending; ``image`` shows each while it is told.

    All of a short animation. Of a longer one the frame that is shown for longest, then again and again the one that
    differs most, reduced to 16 x 16, from all that were chosen before, and among equals the one farthest away in time:
    so a single frame among many that resemble each other is found wherever it is hidden, and of equals they are spread.
    Known hole: an animation of more scenes than ``max_frames``, all very different, may hide one more among them, and
    one may lie behind the end of the budget.
    """
    if limits.max_frames == 1 or announced.total == 1 or image.format not in ANIMATED:
        return
    total = MOST_COUNTED if announced.total is None else announced.total
    reach = min(total, max(1, limits.max_pixels // max(announced.frame_px, LEAST_FRAME_PX)))
    if announced.total is not None and reach < total:
        notes.append(DecodeNote.FRAMES_UNREACHED)
    chosen = range(reach) if reach <= limits.max_frames else _most_different(image, reach, limits.max_frames, notes)
    for number in chosen:
        if number == 0:
            continue
        if not _shows(image, number, notes):
            return
        yield number


def _most_different(image: ImageFile.ImageFile, reach: int, count: int, notes: list[DecodeNote]) -> list[int]:
    thumbnails: list[Pixels] = []
    durations: list[float] = []
    for number in range(reach):
        if not _shows(image, number, notes):
            break
        thumbnails.append(_thumbnail(image))
        duration = image.info.get("duration", 0)
        durations.append(float(duration) if isinstance(duration, int | float) else 0.0)
    if len(thumbnails) <= count:
        return list(range(len(thumbnails)))
    return _chosen(np.stack(thumbnails).astype(np.int16), durations, count)


def _chosen(thumbnails: NDArray[np.int16], durations: Sequence[float], count: int) -> list[int]:
    """
    So many of the thumbnails, int16[n, ...], the first among them: each the farthest from those chosen before it.
    """
    numbers = np.arange(len(thumbnails))
    distance = np.full(len(thumbnails), np.inf)
    gap = np.full(len(thumbnails), np.inf)
    picked: list[int] = []
    wanted: int | None = 0
    longest = int(np.argmax(durations))
    while len(picked) < count:
        if wanted is None:
            best = np.flatnonzero(distance == distance.max())
            wanted = int(best[np.argmax(gap[best])])
        if wanted not in picked:
            picked.append(wanted)
            apart = np.abs(thumbnails - thumbnails[wanted]).reshape(len(thumbnails), -1).mean(axis=1)
            distance, gap = np.minimum(distance, apart), np.minimum(gap, np.abs(numbers - wanted))
            distance[picked] = -1
        wanted = longest if len(picked) == 1 and longest not in picked else None
    return sorted(picked)


def _shows(image: ImageFile.ImageFile, number: int, notes: list[DecodeNote]) -> bool:
    """
    Go to a frame and read it; False, and a note of it, where that cannot be done.
    """
    try:
        image.seek(number)
        image.load()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a frame may be damaged in any way; those before it were read
        notes.append(DecodeNote.FRAMES_DAMAGED)
        return False
    return True


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
