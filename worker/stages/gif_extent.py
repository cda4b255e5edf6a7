"""
How many frames a GIF has, and how far they reach, without decoding any of it.

A GIF announces neither: a frame may reach beyond the screen that the header states, and Pillow then makes the picture
as large as that. Decoding is ``worker/stages/decode.py``.
"""

from dataclasses import dataclass
from typing import Final

_HEADER_BYTES: Final = 13
_DESCRIPTOR_BYTES: Final = 9
_COMMENT: Final = 0xFE


@dataclass(frozen=True, slots=True)
class GifExtent:
    """
    Frames found, and how far the farthest reach to the right and downwards, in pixels from the left upper corner.

    ``cut``: the data end within a block. That no end mark follows the last block is no damage.
    """

    frames: int
    width: int
    height: int
    cut: bool = False


def gif_extent(data: bytes, *, most_frames: int) -> GifExtent:
    """
    The extent of a GIF, read as Pillow reads it; of one with more than ``most_frames`` only of one frame more.

    Unknown bytes between blocks are skipped, as Pillow does, and a damaged file ends where it is damaged.
    """
    frames = width = height = 0
    at = _HEADER_BYTES + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)  # noqa: PLR2004 - flags
    while at < len(data) and frames <= most_frames:
        kind = data[at : at + 1]
        at += 1
        if kind == b";":
            break
        if kind == b"!":
            at = _after_extension(data, at)
        elif kind == b",":
            descriptor = data[at : at + _DESCRIPTOR_BYTES]
            if len(descriptor) < _DESCRIPTOR_BYTES:
                return GifExtent(frames, width, height, cut=True)
            left, top, across, down = (int.from_bytes(descriptor[i : i + 2], "little") for i in (0, 2, 4, 6))
            frames, width, height = frames + 1, max(width, left + across), max(height, top + down)
            palette_bytes = 3 << (descriptor[8] & 7) + 1 if descriptor[8] & 128 else 0
            at = _after_blocks(data, at + _DESCRIPTOR_BYTES + palette_bytes + 1)
    return GifExtent(frames, width, height, cut=at > len(data) + 1)


def _after_extension(data: bytes, at: int) -> int:
    label = data[at] if at < len(data) else 0
    first = data[at + 1] if at + 1 < len(data) else 0
    if first == 0:
        # Pillow takes the first block's end for an empty block and reads on, but for a comment.
        return at + 2 if label == _COMMENT else _after_blocks(data, at + 2)
    return _after_blocks(data, at + 1)


def _after_blocks(data: bytes, at: int) -> int:
    """
    Behind the sub-blocks that begin here, their end mark included.
    """
    while at < len(data) and (length := data[at]):
        at += 1 + length
    return at + 1
