"""
The blocks of a GIF: no extension hides a frame from us that browsers show, and honest files are read as they are.
"""

import io
import struct
import time

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits
from worker.stages.decode_notes import DecodeNote
from worker.stages.frames import announced_frames
from worker.stages.gif_extent import gif_extent, read_gif
from worker.views import DecodedPicture

SIDE = 24
CONTROL = b"!\xf9\x04\x04\x32\0\0\0"
EMPTY = {
    "reserved": b"!\x05\0",
    "plain text": b"!\x01\0",
    "application": b"!\xff\0",
    "comment": b"!\xfe\0",
    "loop without number": b"!\xff\x0bNETSCAPE2.0\0",
    "several": b"!\x05\0!\xff\0!\x05\0",
    "before a control": b"!\x05\0" + CONTROL,
}


def frame_of(grey: int, *, left_px: int = 0) -> bytes:
    """
    A frame of one grey with its own palette, as it stands in a file.
    """
    data = encoded(Image.new("L", (SIDE, SIDE), grey), "GIF")
    palette_bytes = 3 << (data[10] & 7) + 1
    at = 13 + palette_bytes
    at = data.index(b",", at)
    descriptor = b"," + struct.pack("<HHHHB", left_px, 0, SIDE, SIDE, 0x80 | (data[10] & 7))
    return CONTROL + descriptor + data[13 : 13 + palette_bytes] + data[at + 10 : -1]


def gif_of(*blocks: bytes) -> bytes:
    """
    A file of these blocks.
    """
    return b"GIF89a" + struct.pack("<HHBBB", SIDE, SIDE, 0, 0, 0) + b"".join(blocks) + b";"


def seen(data: bytes, *, max_frames: int = 8) -> DecodedPicture:
    """
    The picture as a worker looks at it.
    """
    return decoder_of(SIDE, limits=DecodeLimits(max_frames=max_frames)).decode(data, ANY_HASH)


def greys(data: bytes) -> list[int]:
    """
    What each look shows in its middle.
    """
    return [int(look.pixels[SIDE // 2, SIDE // 2, 0]) for look in seen(data).looks]


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_extension_hides_no_frame(name: str) -> None:
    """
    Before any frame, legal and without content: Pillow takes it for the beginning of one, we and browsers do not.
    """
    blocks = [frame_of(10), frame_of(120), frame_of(240)]
    for at in range(3):
        data = gif_of(*blocks[:at], EMPTY[name], *blocks[at:])

        assert [10, 120, 240] == greys(data)
        assert () == seen(data).facts.warnings


def test_a_thousand_empty_extensions_hide_nothing() -> None:
    """
    However many there are, and though they hold what looks like the length of all that follows.
    """
    assert [10, 240] == greys(gif_of(frame_of(10), b"!\xff\0" * 1000, b"!\x05\0", frame_of(240)))


def test_an_empty_control_is_refused() -> None:
    """
    Readers disagree where it ends: some take the four bytes that it ought to hold from what follows.
    """
    with pytest.raises(UploadFailed, match="graphic control at byte") as caught:
        seen(gif_of(frame_of(10), b"!\xf9\0", frame_of(240)))

    assert ErrorCode.DECODE_FAILED == caught.value.code


def test_extensions_without_number_are_a_bomb() -> None:
    """
    A file of nothing else, through which Pillow would go for many seconds, is refused.
    """
    began_s = time.thread_time()
    with pytest.raises(UploadFailed, match="extensions") as caught:
        seen(gif_of(frame_of(10), b"!\x05\x01\0\0" * 400_000, frame_of(240)))

    assert ErrorCode.DECODE_BOMB == caught.value.code
    assert time.thread_time() - began_s < 10


def test_frames_that_pillow_does_not_find_are_no_picture() -> None:
    """
    Where the count differs after all, the file is refused rather than judged by what is left of it.
    """
    whole, hidden = gif_of(frame_of(10), frame_of(240)), gif_of(frame_of(10), b"!\x05\0", frame_of(240))
    notes: list[DecodeNote] = []
    with Image.open(io.BytesIO(whole), formats=["GIF"]) as image:
        assert 2 == announced_frames(image, whole, max_pixels=10_000, notes=notes).total
    with (
        Image.open(io.BytesIO(hidden), formats=["GIF"]) as image,
        pytest.raises(UploadFailed, match="2 frames by its specification and 1 by Pillow") as caught,
    ):
        announced_frames(image, hidden, max_pixels=10_000, notes=notes)

    assert ErrorCode.DECODE_FAILED == caught.value.code


def test_a_frame_without_pixels_is_named() -> None:
    """
    Such a file cannot be read; its uploader is told which frame is to blame, and that it has no pixels.
    """
    flat = CONTROL + b"," + struct.pack("<HHHHB", 0, 0, 0, 7, 0) + b"\x02\0"
    with pytest.raises(UploadFailed, match="frame 1 is 0 x 7 pixels, expected at least 1 x 1") as caught:
        seen(gif_of(frame_of(10), flat, frame_of(240)))

    assert ErrorCode.DECODE_FAILED == caught.value.code


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "1"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"loop": 0, "duration": 40},
        {"loop": 3, "disposal": 2},
        {"comment": "x" * 700},
        {"comment": "", "interlace": 0},
        {"transparency": 0, "optimize": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_honest_files_are_read_as_they_are(mode: str, options: dict[str, object], count: int) -> None:
    """
    Not a byte is changed, and every frame that Pillow has written is there.
    """
    frames = [photograph(SIDE, SIDE, seed=number).convert(mode) for number in range(count)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)

    assert read_gif(data) is data
    assert count == gif_extent(data, most_frames=100).frames == seen(data).facts.frames_total


def test_what_is_cut_out_changes_no_pixel() -> None:
    """
    The file with empty extensions shows what it shows without them, frame by frame.
    """
    blocks = [frame_of(10), frame_of(120, left_px=5), frame_of(240, left_px=9)]
    plain, odd = gif_of(*blocks), gif_of(*[EMPTY["several"] + block for block in blocks])

    assert read_gif(odd) == plain
    for one, other in zip(seen(plain).looks, seen(odd).looks, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
