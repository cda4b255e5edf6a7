"""
Frames of animations: which are looked at, where an image may hide, and what a long or damaged animation costs.
"""

import io
import struct
import time
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image, ImageDraw

from schemas.errors import ErrorCode
from schemas.verdict import ImageFacts
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.decode_notes import DecodeNote
from worker.stages.gif_extent import MOST_COUNTED, gif_extent

SIZE = 48
ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")
HIDDEN = photograph(SIZE, SIZE, seed=77)


def looking(max_frames: int = 8, *, max_animation_pixels: int = 100_000_000) -> PillowDecoder:
    """
    A decoder that looks at so many frames.
    """
    limits = DecodeLimits(max_frames=max_frames, max_animation_pixels=max_animation_pixels)
    return decoder_of(SIZE, limits=limits)


def scenery(count: int, *, seed: int = 5) -> list[Image.Image]:
    """
    Frames of one scene in which a small dot moves: they resemble each other, and no two are equal.
    """
    frames = []
    for number in range(count):
        frame = photograph(SIZE, SIZE, seed=seed)
        left, top = divmod(number * 3, SIZE - 6)
        ImageDraw.Draw(frame).rectangle((left % 40, top, left % 40 + 4, top + 4), fill="red")
        frames.append(frame)
    return frames


def animation(name: str, frames: list[Image.Image], **options: object) -> bytes:
    """
    The frames as an animation, losslessly where the format can.
    """
    if name == "WEBP":
        options = {"lossless": True, **options}
    return encoded(frames[0], name, save_all=True, append_images=frames[1:], **options)


def hiding(name: str, count: int, at: int) -> bytes:
    """
    An animation of a scene with another picture as one of its frames.
    """
    frames = scenery(count)
    frames[at] = HIDDEN
    return animation(name, frames)


@pytest.mark.parametrize("name", ANIMATIONS)
@pytest.mark.parametrize(("count", "at"), [(3, 1), (3, 2), (40, 6), (40, 33)])
def test_a_picture_in_one_frame_is_looked_at_as_it_would_be_alone(name: str, count: int, at: int) -> None:
    """
    Wherever one frame differs from the others, it is among those that are looked at, with its own pixels.
    """
    seen = looking().decode(hiding(name, count, at), ANY_HASH)
    alone = decoder_of(SIZE).decode(encoded(HIDDEN, name, **({"lossless": True} if name == "WEBP" else {})), ANY_HASH)
    number = seen.facts.frames_scored.index(at)
    difference = np.abs(seen.looks[number].pixels.astype(int) - alone.pixels.astype(int)).mean()

    assert count == seen.facts.frames_total
    assert min(count, 8) == len(seen.facts.frames_scored) == len(seen.looks)
    assert sorted(seen.facts.frames_scored) == list(seen.facts.frames_scored)
    # GIF chooses its palette for each frame, AVIF predicts from the frame before.
    assert difference < {"GIF": 4, "AVIF": 8}.get(name, 0.5)
    assert () == seen.facts.warnings


def test_frames_that_are_alike_are_spread() -> None:
    """
    Where no frame differs from another, those looked at lie apart in time.
    """
    frames = [photograph(SIZE, SIZE).convert("RGB") for _ in range(33)]
    for number, frame in enumerate(frames):
        frame.putpixel((0, 0), (number, 0, 0))  # or the encoder would join them to one frame
    scored = looking(5).decode(animation("PNG", frames), ANY_HASH).facts.frames_scored

    assert 5 == len(scored)
    assert min(after - before for before, after in pairwise(scored)) >= 4


def test_the_frame_that_is_shown_for_longest_is_looked_at() -> None:
    """
    A frame that hardly differs from the others is looked at where it is on the screen for most of the time.
    """
    durations = [50] * 30
    durations[17] = 9000
    frames = [photograph(SIZE, SIZE, seed=number) for number in range(30)]
    frames[17] = frames[16].copy()
    frames[17].putpixel((1, 1), (9, 9, 9))
    scored = looking(3).decode(animation("PNG", frames, duration=durations), ANY_HASH).facts.frames_scored

    assert 0 in scored
    assert 17 in scored


@pytest.mark.parametrize("name", ANIMATIONS)
def test_one_look_is_what_it_was(name: str) -> None:
    """
    The first look of an animation, and a still picture, come out as by a decoder that looks once.
    """
    for data in (hiding(name, 12, 5), encoded(HIDDEN, name)):
        once, often = decoder_of(SIZE).decode(data, ANY_HASH), looking().decode(data, ANY_HASH)

        assert np.array_equal(once.pixels, often.pixels)
        assert ((0,), ()) == (once.facts.frames_scored, once.further)
        assert often.facts.model_copy(update={"frames_scored": (0,)}) == once.facts


def test_what_lies_behind_a_jpeg_is_no_frame() -> None:
    """
    The further pictures of an MPO, which no browser shows, are counted and not looked at.
    """
    buffer = io.BytesIO()
    photograph(SIZE, SIZE).save(buffer, "MPO", save_all=True, append_images=[HIDDEN])
    facts = looking().decode(buffer.getvalue(), ANY_HASH).facts

    assert ("JPEG", 2, (0,)) == (facts.format, facts.frames_total, facts.frames_scored)


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_damaged_later_frames_fail_the_animation(name: str) -> None:
    """
    An animation with damage in its last frame is not judged by those before it, for something may be shown of it.
    """
    data = animation(name, [photograph(SIZE, SIZE, seed=number) for number in range(6)], lossless=False)
    inside_last = {"GIF": data.rindex(b",") + 40, "PNG": data.rfind(b"fdAT") + 20, "WEBP": data.rfind(b"ANMF") + 50}
    broken = data[: inside_last[name]] + b"\xff" * 200 + data[inside_last[name] + 200 :]
    with pytest.raises(UploadFailed) as caught:
        looking().decode(broken, ANY_HASH)

    assert caught.value.code in (ErrorCode.DECODE_FAILED, ErrorCode.DECODE_TRUNCATED)


@pytest.mark.parametrize("name", ANIMATIONS)
@pytest.mark.parametrize("share", [0.5, 0.6, 0.8, 0.95])
def test_an_animation_that_is_cut_is_truncated(name: str, share: float) -> None:
    """
    Frames that are not there any more are not taken for frames that never were.
    """
    data = animation(name, [photograph(SIZE, SIZE, seed=number) for number in range(6)])
    with pytest.raises(UploadFailed) as caught:
        looking().decode(data[: int(len(data) * share)], ANY_HASH)

    assert ErrorCode.DECODE_TRUNCATED == caught.value.code


def test_two_frames_are_looked_at_however_small_the_budget() -> None:
    """
    A budget below a single frame does not leave an animation of two to be judged by its first.
    """
    facts = looking(max_animation_pixels=1024).decode(hiding("GIF", 2, 1), ANY_HASH).facts

    assert ((0, 1), ()) == (facts.frames_scored, facts.warnings)


@pytest.mark.parametrize("name", ANIMATIONS)
def test_what_lies_behind_the_budget_is_told_as_unreached(name: str) -> None:
    """
    An animation is gone through up to the budget, and the facts say that more lay behind.
    """
    data = hiding(name, 40, 35)
    facts = looking(4, max_animation_pixels=20 * 10_000).decode(data, ANY_HASH).facts

    assert (40, 4) == (facts.frames_total, len(facts.frames_scored))
    assert max(facts.frames_scored) < 20
    assert (DecodeNote.FRAMES_UNREACHED,) == facts.warnings


def tiny_gif(frames: int, *, side_px: int = 1, left_px: int = 0) -> bytes:
    """
    A GIF of so many one-coloured frames, as small as GIFs can be; each frame lies so far to the right.
    """
    head = b"GIF89a" + struct.pack("<HHBBB", side_px, side_px, 0x80, 0, 0) + bytes((0, 0, 0, 255, 255, 255))
    one = b"," + struct.pack("<HHHHB", left_px, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + one * frames + b";"


@pytest.mark.parametrize("frames", [10_000, 150_000])
def test_very_many_frames_end_within_bounds(frames: int) -> None:
    """
    A GIF of very many frames is looked at as any other, in seconds, and beyond a number they are not even counted.
    """
    began_s = time.thread_time()
    facts = looking().decode(tiny_gif(frames), ANY_HASH).facts

    assert (frames if frames <= MOST_COUNTED else None) == facts.frames_total
    assert 8 == len(facts.frames_scored)
    assert (frames > MOST_COUNTED) == (DecodeNote.FRAMES_UNCOUNTED in facts.warnings)
    assert time.thread_time() - began_s < 20


def test_a_later_frame_that_enlarges_the_picture_is_a_bomb() -> None:
    """
    A GIF of one pixel with a frame far to the right would become as wide as that: it is refused before it is.
    """
    data = tiny_gif(1)[:-1] + b"," + struct.pack("<HHHHB", 65_000, 65_000, 500, 500, 0) + b"\x02\x02\x44\x01\x00;"
    with pytest.raises(UploadFailed) as caught:
        looking().decode(data, ANY_HASH)

    assert ErrorCode.DECODE_BOMB == caught.value.code
    assert "4290250000" in caught.value.detail


@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_extent_of_a_gif_is_what_pillow_finds(count: int) -> None:
    """
    Frames and size, found without decoding, are those that Pillow finds.
    """
    data = animation("GIF", [photograph(40, 31, seed=number) for number in range(count)], comment="of some length")
    with Image.open(io.BytesIO(data)) as image:
        found = (getattr(image, "n_frames", 1), *image.size)

    extent = gif_extent(data, most_frames=100)
    assert found == (extent.frames, extent.width, extent.height)


def facts_on_grey(picture: Image.Image, name: str = "PNG") -> ImageFacts:
    """
    The facts of a picture that may be looked at on two grounds.
    """
    return decoder_of(SIZE, limits=DecodeLimits(on_grey=True)).decode(encoded(picture, name), ANY_HASH).facts


def test_what_is_drawn_in_white_on_nothing_is_seen_on_grey() -> None:
    """
    A picture that white paper swallows is looked at on grey as well, where it shows.
    """
    light = 255 - np.asarray(HIDDEN.convert("L"))
    picture = Image.fromarray(np.dstack([np.full((SIZE, SIZE, 3), 255, np.uint8), light]))
    limits = DecodeLimits(on_grey=True)
    seen = decoder_of(SIZE, limits=limits).decode(encoded(picture, "PNG"), ANY_HASH)
    white, grey = seen.looks

    assert (0, 0) == seen.facts.frames_scored
    assert 255 == white.pixels.min()
    assert grey.pixels.std() > 10


@pytest.mark.parametrize(("transparent_rows", "looks"), [(0, 1), (2, 1), (3, 2), (SIZE, 2)])
def test_grey_is_for_what_shines_through(transparent_rows: int, looks: int) -> None:
    """
    Where less than a sixteenth is ground, one look is enough.
    """
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    alpha[:transparent_rows] = 0
    facts = facts_on_grey(Image.fromarray(np.dstack([np.asarray(HIDDEN), alpha])))

    assert (0,) * looks == facts.frames_scored


def test_hidden_colour_counts_on_neither_ground() -> None:
    """
    Two pictures that differ only where nothing shows are one picture on white and on grey.
    """
    alpha = np.zeros((SIZE, SIZE), np.uint8)
    alpha[:, 20:] = 255
    one, other = np.asarray(HIDDEN).copy(), np.asarray(HIDDEN).copy()
    other[:, :20] = 99
    decoder = decoder_of(SIZE, limits=DecodeLimits(on_grey=True))
    seen = [
        decoder.decode(encoded(Image.fromarray(np.dstack([colour, alpha])), "PNG"), ANY_HASH) for colour in (one, other)
    ]

    assert [2, 2] == [len(each.looks) for each in seen]
    for first, second in zip(seen[0].looks, seen[1].looks, strict=True):
        assert np.array_equal(first.pixels, second.pixels)


def test_a_grey_that_is_declared_transparent_takes_the_ground() -> None:
    """
    Of 16-bit grey, too, the transparent part is white at one look and grey at the other.
    """
    values = np.full((SIZE, SIZE), 40_000, np.uint16)
    values[: SIZE // 2] = 7
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", transparency=7)
    white, grey = decoder_of(SIZE, limits=DecodeLimits(on_grey=True)).decode(buffer.getvalue(), ANY_HASH).looks

    assert [255, 128] == [int(look.pixels[0, 0, 0]) for look in (white, grey)]
    assert int(white.pixels[-1, 0, 0]) == int(grey.pixels[-1, 0, 0])
