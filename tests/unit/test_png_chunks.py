"""
What the chunks of a PNG say: animations that contradict themselves, transparency at every depth, chunks out of place.
"""

import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph, profile_with_red_and_blue_swapped
from tests.png_files import GREY, ON_BOTH_GROUNDS, PALETTE, RGB, Chunk, chunks_of, png_of, samples, with_chunk
from worker.domain import Pixels
from worker.errors import UploadFailed
from worker.stages.png_chunks import read_png
from worker.views import DecodedPicture

SIDE = 32
STILL = encoded(photograph(SIDE, SIDE), "PNG")
TWO_FRAMES = encoded(
    photograph(SIDE, SIDE), "PNG", save_all=True, append_images=[photograph(SIDE, SIDE, seed=1)], duration=[10, 5000]
)


def seen(data: bytes) -> DecodedPicture:
    """
    The picture as a worker looks at it.
    """
    return decoder_of(SIDE, limits=ON_BOTH_GROUNDS).decode(data, ANY_HASH)


def grounds(data: bytes) -> list[Pixels]:
    """
    The pixels of each look.
    """
    return [look.pixels for look in seen(data).looks]


def control(frames: int) -> Chunk:
    """
    The chunk that announces an animation of so many frames.
    """
    return b"acTL", struct.pack(">II", frames, 0)


def without(kind: bytes, png: bytes = TWO_FRAMES) -> bytes:
    """
    The file without chunks of this name.
    """
    return png_of([chunk for chunk in chunks_of(png) if chunk[0] != kind])


FRAME_PIXELS: Chunk = (b"fdAT", b"\0\0\0\0pixels")
NO_FRAMES = with_chunk(STILL, control(0), before=b"IDAT")

STILL_TO_BROWSERS = {
    "as Pillow writes it": encoded(photograph(SIDE, SIDE), "PNG", save_all=True, default_image=True),
    "no frame announced": NO_FRAMES,
    "no frame announced, behind the pixels": with_chunk(STILL, control(0), before=b"IEND"),
    "no control": without(b"acTL"),
    "frames' pixels alone": with_chunk(STILL, FRAME_PIXELS, before=b"IEND"),
    "frames' pixels before the picture": with_chunk(STILL, FRAME_PIXELS, before=b"IDAT"),
}

CONTRADICTIONS = {
    "two control chunks": with_chunk(TWO_FRAMES, control(2), before=b"IDAT"),
    "two control chunks, the second of no frame": with_chunk(TWO_FRAMES, control(0), before=b"IDAT"),
    "one frame announced": with_chunk(without(b"acTL"), control(1), before=b"fcTL"),
    "no frame announced": with_chunk(without(b"acTL"), control(0), before=b"fcTL"),
    "three frames announced": with_chunk(without(b"acTL"), control(3), before=b"fcTL"),
    "control behind the pixels": with_chunk(without(b"acTL"), control(2), before=b"IEND"),
    "two control chunks of no frame": with_chunk(NO_FRAMES, control(0), before=b"IDAT"),
    "no frame announced, pixels of one": with_chunk(NO_FRAMES, FRAME_PIXELS, before=b"IEND"),
    "frames' pixels before the picture": with_chunk(TWO_FRAMES, FRAME_PIXELS, before=b"IDAT"),
    "control alone": with_chunk(STILL, control(1), before=b"IDAT"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_an_animation_that_contradicts_itself_is_refused(name: str) -> None:
    """
    Where Pillow would show a still picture, or fewer frames, a browser may show what it hides.
    """
    with pytest.raises(UploadFailed, match="contradicts itself") as caught:
        seen(CONTRADICTIONS[name])

    assert ErrorCode.DECODE_FAILED == caught.value.code


@pytest.mark.parametrize("name", STILL_TO_BROWSERS)
def test_what_browsers_ignore_of_an_animation_is_ignored(name: str) -> None:
    """
    Where nothing is announced, or no frames are and none are there, the still picture is all that is shown.
    """
    decoded = seen(STILL_TO_BROWSERS[name])

    assert (1, (0,), ()) == (decoded.facts.frames_total, decoded.facts.frames_scored, decoded.facts.warnings)
    np.testing.assert_array_equal(seen(STILL).pixels, decoded.pixels)


def test_what_stands_behind_an_ignored_chunk_still_counts() -> None:
    """
    Pixels of a frame that nobody announces, before the picture, hide neither its EXIF nor its transparent colour.
    """
    picture = encoded(Image.new("RGB", (SIDE, SIDE), (10, 20, 30)), "PNG")
    data = with_chunk(picture, FRAME_PIXELS, before=b"IDAT")
    data = with_chunk(data, (b"tRNS", b"\0\x0a\0\x14\0\x1e"), before=b"IDAT")
    data = with_chunk(
        data, (b"eXIf", b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"), before=b"IDAT"
    )

    assert 6 == seen(data).facts.orientation
    assert [255, 128] == [int(look[0, 0, 0]) for look in grounds(data)]


def test_ignored_chunks_join_no_pixels_that_they_part() -> None:
    """
    Browsers show such a picture as far as the first part of its pixels goes: it is as damaged as it was.
    """
    (header, (_, pixels), end) = chunks_of(STILL)
    parts: list[Chunk] = [header, (b"IDAT", pixels[:200]), FRAME_PIXELS, (b"IDAT", pixels[200:]), end]
    with pytest.raises(UploadFailed) as caught:
        seen(png_of(parts))

    assert ErrorCode.DECODE_TRUNCATED == caught.value.code


def test_what_is_whole_is_read_as_it_is() -> None:
    """
    A still picture, an animation, one of a single frame, and one whose still picture is no frame: nothing is refused.
    """
    one = with_chunk(STILL, control(1), before=b"IDAT")
    frame = (b"fcTL", struct.pack(">IIIIIHHBB", 0, SIDE, SIDE, 0, 0, 1, 10, 0, 0))
    apart = encoded(
        photograph(SIDE, SIDE),
        "PNG",
        save_all=True,
        default_image=True,
        append_images=[photograph(SIDE, SIDE, seed=number) for number in (1, 2)],
    )
    files = [STILL, TWO_FRAMES, with_chunk(one, frame, before=b"IDAT"), apart]

    assert [1, 2, 1, 3] == [seen(data).facts.frames_total for data in files]
    assert all(read_png(data).data is data for data in files)


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("high_bits", [0, 0xFF00])
def test_the_transparent_grey_is_the_one_that_is_named(depth: int, high_bits: int) -> None:
    """
    At every depth the grey that is declared transparent takes the ground, whatever stands in bits that do not count.
    """
    most = (1 << depth) - 1
    values = np.full((SIDE, SIDE), most, np.uint16)
    values[: SIDE // 2] = hidden = most // 3
    number = hidden | (high_bits if depth < 16 else 0)
    data = with_chunk(png_of(samples(values, depth, GREY)), (b"tRNS", struct.pack(">H", number)), before=b"IDAT")
    white, grey = grounds(data)

    assert {255} == set(white.ravel().tolist())
    assert [128, 255] == [int(grey[0, 0, 0]), int(grey[-1, 0, 0])]


@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_a_grey_that_only_looks_like_the_transparent_one_stays(depth: int) -> None:
    """
    A number that is that of the pixels only after they were scaled, or before, hides nothing.
    """
    most = (1 << depth) - 1
    values = np.full((SIDE, SIDE), most, np.uint16)
    data = with_chunk(png_of(samples(values, depth, GREY)), (b"tRNS", struct.pack(">H", most // 2)), before=b"IDAT")

    assert "opaque" == seen(data).facts.alpha


def deep_rgb() -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    """
    A picture whose upper half is of one 16-bit colour, and whose lower half differs from it in the last bit.
    """
    values = np.empty((SIDE, SIDE, 3), np.uint16)
    values[:] = (0x6464, 0x1234, 0xFF01)
    values[SIDE // 2 :, :, 2] += 1
    return values


@pytest.mark.parametrize(
    ("transparent", "hidden"),
    [
        ((0x6464, 0x1234, 0xFF01), "upper"),
        ((0x6464, 0x1234, 0xFF02), "lower"),
        ((0x64, 0x12, 0xFF), "none"),
        ((0x6464, 0x1234, 0xFF03), "none"),
    ],
)
def test_sixteen_bit_colours_are_compared_whole(transparent: tuple[int, int, int], hidden: str) -> None:
    """
    Exactly the colour that is named is transparent, though only half of its bits are looked at afterwards.
    """
    chunk = (b"tRNS", struct.pack(">HHH", *transparent))
    looks = grounds(with_chunk(png_of(samples(deep_rgb(), 16, RGB)), chunk, before=b"IDAT"))

    assert 1 if hidden == "none" else 2 == len(looks)
    expected = {"upper": [(128,) * 3, (0x64, 0x12, 0xFF)], "lower": [(0x64, 0x12, 0xFF), (128,) * 3]}
    shown = expected.get(hidden, [(0x64, 0x12, 0xFF)] * 2)
    assert shown == [tuple(looks[-1][row, 0].tolist()) for row in (0, SIDE - 1)]


def test_a_deep_animation_with_a_transparent_colour_is_refused() -> None:
    """
    Pillow would put its frames together by half of the bits.
    """
    frame = struct.pack(">IIIIHHBB", SIDE, SIDE, 0, 0, 1, 10, 0, 0)
    header, pixels, end = samples(deep_rgb(), 16, RGB)
    chunks = [header, control(2), (b"tRNS", bytes(6)), (b"fcTL", bytes(4) + frame), pixels]
    chunks += [(b"fcTL", b"\0\0\0\x01" + frame), (b"fdAT", b"\0\0\0\x02" + pixels[1]), end]
    with pytest.raises(UploadFailed, match="16-bit RGB") as caught:
        seen(png_of(chunks))

    assert ErrorCode.DECODE_FAILED == caught.value.code


@pytest.mark.parametrize("kind", [RGB, PALETTE])
def test_transparency_that_browsers_ignore_hides_nothing(kind: int) -> None:
    """
    Behind the pixels, before the palette, a second time, or of the wrong length: the picture stays as it is shown.
    """
    picture = Image.new("RGB", (SIDE, SIDE), (10, 20, 30))
    plain = encoded(picture if kind == RGB else picture.quantize(4), "PNG")
    colour = b"\0\x0a\0\x14\0\x1e" if kind == RGB else bytes(1)
    files = [with_chunk(plain, (b"tRNS", colour), before=b"IEND")]
    if kind == RGB:
        other = with_chunk(plain, (b"tRNS", bytes(6)), before=b"IDAT")
        files += [with_chunk(other, (b"tRNS", colour), before=b"IDAT")]
        files += [with_chunk(plain, (b"tRNS", colour + b"\0"), before=b"IDAT")]
    else:
        files += [with_chunk(plain, (b"tRNS", bytes(1)), before=b"PLTE")]
        files += [with_chunk(plain, (b"tRNS", bytes(200)), before=b"IDAT")]
    for data in files:
        assert [(10, 20, 30)] == [tuple(look[0, 0].tolist()) for look in grounds(data)]
    shown = with_chunk(plain, (b"tRNS", colour), before=b"IDAT")
    assert [255, 128] == [int(look[0, 0, 0]) for look in grounds(shown)]


@pytest.mark.parametrize("kind", [b"IDAT", b"fcTL", b"teSt"])
def test_chunks_without_number_are_a_bomb(kind: bytes) -> None:
    """
    A million empty chunks, which would take many seconds to go through, are refused after a part of one.
    """
    empty = struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))
    at = STILL.index(b"IDAT") - 4
    began_s = time.thread_time()
    with pytest.raises(UploadFailed, match="chunks") as caught:
        seen(STILL[:at] + empty * 1_000_000 + STILL[at:])

    assert ErrorCode.DECODE_BOMB == caught.value.code
    assert time.thread_time() - began_s < 5


def test_a_profile_behind_the_pixels_has_no_say() -> None:
    """
    A profile that swaps red and blue is applied where browsers apply it, and nowhere else.
    """
    red = encoded(Image.new("RGB", (SIDE, SIDE), "red"), "PNG")
    marked = encoded(Image.new("RGB", (SIDE, SIDE), "red"), "PNG", icc_profile=profile_with_red_and_blue_swapped())
    profile = next(chunk for chunk in chunks_of(marked) if chunk[0] == b"iCCP")
    (before,), (behind,) = grounds(marked), grounds(with_chunk(red, profile, before=b"IEND"))

    assert int(before[0, 0, 2]) > 200
    assert (255, 0, 0) == tuple(behind[0, 0].tolist())
