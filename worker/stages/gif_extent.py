"""
How many frames a GIF has, and how far they reach, without decoding any of it; and the file as Pillow is to be given it.

A GIF announces neither: a frame may reach beyond the screen that the header states, and Pillow then makes the picture
as large as that. Blocks are read by the specification (GIF89a, sections 15 to 26), as browsers do. Pillow takes an
extension without content for the beginning of one, and the frames behind it for its content: so it is given a file
without these. Decoding is ``worker/stages/decode.py``.
"""

from dataclasses import dataclass, field
from typing import Final

from schemas.errors import ErrorCode
from worker.errors import UploadFailed

_HEADER_BYTES: Final = 13
_DESCRIPTOR_BYTES: Final = 9
_CONTROL: Final = 0xF9
_LOOP: Final = b"NETSCAPE2.0"
"""How the application block begins behind which Pillow expects a block that says how often a GIF is repeated."""

MOST_COUNTED: Final = 100_000
"""A GIF says nowhere how many frames it has: with more than these nobody counts on, which takes a second or two."""

MOST_EXTENSIONS: Final = 3 * MOST_COUNTED
"""Of so many nobody makes a picture: Pillow goes through all of them several times."""


@dataclass(frozen=True, slots=True)
class GifExtent:
    """
    Frames found, and how far the farthest reach to the right and downwards, in pixels from the left upper corner.

    ``cut``: the data end within a block. That no end mark follows the last block is no damage. ``flat``: number, width
    and height of the first frame without pixels. ``empty``: where extensions without content begin and end.
    """

    frames: int
    width: int
    height: int
    cut: bool = False
    extensions: int = 0
    flat: tuple[int, int, int] | None = None
    empty: tuple[tuple[int, int], ...] = field(default=(), repr=False)


def read_gif(data: bytes) -> bytes:
    """
    A GIF as Pillow is to be given it: the same bytes where no extension is without content.

    Raises ``UploadFailed``: DECODE_BOMB for more than ``MOST_EXTENSIONS`` extensions, DECODE_FAILED for a graphic
    control without content, whose four bytes some browsers read all the same, from whatever follows.
    """
    extent = gif_extent(data, most_frames=MOST_COUNTED)
    if extent.extensions > MOST_EXTENSIONS:
        raise UploadFailed(ErrorCode.DECODE_BOMB, f"the GIF has more than {MOST_EXTENSIONS} extensions")
    if not extent.empty:
        return data
    controls = [start for start, _ in extent.empty if data[start + 1] == _CONTROL]
    if controls:
        raise UploadFailed(
            ErrorCode.DECODE_FAILED,
            f"the GIF's graphic control at byte {controls[0]} is empty, expected 4 bytes: readers disagree on its end",
        )
    parts, at = [], 0
    for start, end in extent.empty:
        parts.append(data[at:start])
        at = end
    return b"".join([*parts, data[at:]])


def gif_extent(data: bytes, *, most_frames: int) -> GifExtent:
    """
    The extent of a GIF; of one with more than ``most_frames`` only of one frame more.

    Unknown bytes between blocks are skipped, as Pillow does, and a damaged file ends where it is damaged.
    """
    frames = width = height = extensions = 0
    flat: tuple[int, int, int] | None = None
    empty: list[tuple[int, int]] = []
    cut = False
    at = _HEADER_BYTES + (3 << (data[10] & 7) + 1 if len(data) > 10 and data[10] & 128 else 0)  # noqa: PLR2004 - flags
    while at < len(data) and frames <= most_frames and extensions <= MOST_EXTENSIONS:
        kind = data[at : at + 1]
        at += 1
        if kind == b";":
            break
        if kind == b"!":
            start, extensions = at - 1, extensions + 1
            at = _after_blocks(data, start + 2)
            if _is_empty(data, start + 2):
                empty.append((start, at))
        elif kind == b",":
            descriptor = data[at : at + _DESCRIPTOR_BYTES]
            if len(descriptor) < _DESCRIPTOR_BYTES:
                cut = True
                break
            left, top, across, down = (int.from_bytes(descriptor[i : i + 2], "little") for i in (0, 2, 4, 6))
            if flat is None and not (across and down):
                flat = frames, across, down
            frames, width, height = frames + 1, max(width, left + across), max(height, top + down)
            palette_bytes = 3 << (descriptor[8] & 7) + 1 if descriptor[8] & 128 else 0
            at = _after_blocks(data, at + _DESCRIPTOR_BYTES + palette_bytes + 1)
    return GifExtent(frames, width, height, cut or at > len(data) + 1, extensions, flat, tuple(empty))


def _is_empty(data: bytes, at: int) -> bool:
    """
    Whether the sub-blocks that begin here are none, or only the one behind which Pillow expects another.
    """
    if at >= len(data):
        return False
    length = data[at]
    end = at + 1 + length
    return length == 0 or (data.startswith(_LOOP, at + 1, end) and data[end : end + 1] == b"\0")


def _after_blocks(data: bytes, at: int) -> int:
    """
    Behind the sub-blocks that begin here, their end mark included.
    """
    while at < len(data) and (length := data[at]):
        at += 1 + length
    return at + 1
