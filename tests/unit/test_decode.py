"""
Decode: which bytes are a picture, what is found in them, and which stable code tells why not.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, features

from schemas.errors import ErrorCode, Stage, stage_of
from tests.pictures import ANY_HASH, decoder_of, encoded, photograph, png_that_announces, spec_of
from worker.domain import ContentHash
from worker.errors import CannotStart, UploadFailed
from worker.stages.decode import DecodeLimits, decoder_versions
from worker.stages.sniff import MEDIA_TYPES, format_of

FORMATS = tuple(MEDIA_TYPES)


def failure(data: bytes, *, limits: DecodeLimits | None = None) -> UploadFailed:
    """
    How decoding these bytes fails.
    """
    with pytest.raises(UploadFailed) as caught:
        decoder_of(64, limits=limits).decode(data, ANY_HASH)
    return caught.value


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_decoded_by_its_content(name: str) -> None:
    """
    Each accepted format gives pixels near to the picture, and facts that say what it was.
    """
    picture = photograph(64, 64)
    data = encoded(picture, name)
    content_hash = ContentHash(hashlib.sha256(data).hexdigest())
    seen = decoder_of(64).decode(data, content_hash)
    pixels, facts = seen.pixels, seen.facts
    # A GIF has 256 colours; the others lose little.
    error = np.abs(pixels.astype(int) - np.asarray(picture)).mean()

    assert name == format_of(data) == facts.format
    assert error < 16
    assert (content_hash, len(data)) == (facts.sha256, facts.byte_length)
    assert (64, 64, 1, (0,), 1, "none") == (
        facts.width, facts.height, facts.frames_total, facts.frames_scored, facts.orientation, facts.alpha
    )  # fmt: skip
    assert () == facts.warnings


def test_size_and_mode_are_those_of_the_file() -> None:
    """
    The facts speak of the file, not of the encoder's input.
    """
    facts = decoder_of(64).decode(encoded(photograph(301, 97).convert("L"), "PNG"), ANY_HASH).facts

    assert (301, 97, "L") == (facts.width, facts.height, facts.mode)
    assert (None, None) == (facts.pdq, facts.pdq_quality)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_held_to_the_pixel_limit(name: str) -> None:
    """
    Above the limit an image is refused as a bomb, whatever its format; at the limit it is decoded.
    """
    data = encoded(photograph(64, 65), name)
    error = failure(data, limits=DecodeLimits(max_pixels=64 * 65 - 1))

    assert ErrorCode.DECODE_BOMB == error.code
    assert "4160" in error.detail
    assert (64, 64, 3) == decoder_of(64, limits=DecodeLimits(max_pixels=64 * 65)).decode(data, ANY_HASH).pixels.shape


def test_a_bomb_is_refused_from_its_header() -> None:
    """
    A PNG of 70 bytes that announces four thousand million pixels is refused before any of them is read.
    """
    data = png_that_announces(65_535, 65_535)

    assert len(data) < 100
    assert ErrorCode.DECODE_BOMB == failure(data).code
    assert ErrorCode.DECODE_TRUNCATED == failure(png_that_announces(640, 480)).code


def test_pillows_own_warning_limit_is_no_limit_of_ours() -> None:
    """
    Between Pillow's limit and twice it, where Pillow only warns, ours alone decides.
    """
    data = png_that_announces(10_000, 10_000)

    assert ErrorCode.DECODE_BOMB == failure(data).code
    assert ErrorCode.DECODE_BOMB != failure(data, limits=DecodeLimits(max_pixels=200_000_000)).code


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "no known image format"),
        (b"hello, world", "no known image format"),
        (b"<!doctype html><title>404</title>", "HTML"),
        (b'<?xml version="1.0"?>\n<svg onload="alert(1)"/>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "video"),
        (encoded(photograph(8, 8), "BMP"), "BMP"),
        (encoded(photograph(8, 8), "TIFF"), "TIFF"),
        (encoded(photograph(8, 8), "EPS"), "PostScript"),
        (encoded(photograph(8, 8), "ICO"), "ICO"),
        (encoded(photograph(8, 8), "JPEG2000"), "JPEG 2000"),
        (encoded(photograph(8, 8), "PPM"), "no known image format"),
    ],
)
def test_other_content_is_unsupported_and_named(data: bytes, named: str) -> None:
    """
    What is on no allow-list is refused before any parser sees it, with what it seems to be.
    """
    error = failure(data)

    assert ErrorCode.FORMAT_UNSUPPORTED == error.code
    assert named in error.detail


def test_a_format_may_be_configured_away() -> None:
    """
    An image of a format that the configuration left out is unsupported, though it could be read.
    """
    error = failure(encoded(photograph(8, 8), "GIF"), limits=DecodeLimits(formats=("JPEG", "PNG")))

    assert ErrorCode.FORMAT_UNSUPPORTED == error.code
    assert "GIF" in error.detail
    assert "JPEG, PNG" in error.detail


def test_a_format_that_this_build_lacks_cannot_be_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A Pillow built without AVIF is found out at the start and not at the first AVIF.
    """
    monkeypatch.setattr(features, "check", lambda name: name != "avif")

    with pytest.raises(CannotStart, match="AVIF"):
        decoder_of(64)


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_truncated(name: str) -> None:
    """
    Half of any file is told apart from a damaged one, and never scored with grey in place of the rest.
    """
    data = encoded(photograph(200, 150), name)

    assert ErrorCode.DECODE_TRUNCATED == failure(data[: len(data) // 2]).code


def test_damage_in_the_data_is_no_truncation() -> None:
    """
    A PNG whose compressed data make no sense failed to decode, and the message says so in plain words.
    """
    data = bytearray(encoded(photograph(64, 64), "PNG"))
    start = data.index(b"IDAT") + 6
    data[start : start + 200] = b"\xff" * 200
    error = failure(bytes(data))

    assert ErrorCode.DECODE_FAILED == error.code
    assert error.detail.startswith("the PNG data cannot be read")


def test_a_header_without_sense_failed_to_decode() -> None:
    """
    Right magic and nothing behind it: the same words each time, with no address of an object in them.
    """
    details = {failure(b"\xff\xd8\xff\xe0" + b"\0" * 40).detail for _ in range(3)}

    assert {"the JPEG header is damaged or incomplete"} == details


def test_every_failure_belongs_to_the_decode_stage() -> None:
    """
    The codes raised here are decode's own.
    """
    codes = {failure(data).code for data in (b"", b"GIF89a", png_that_announces(9999, 9999), png_that_announces(9, 9))}

    assert {Stage.DECODE} == {stage_of(code) for code in codes}


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_is_scored(name: str) -> None:
    """
    Frame 0 is what the encoder sees; the facts count all frames and say which was scored.
    """
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], name, save_all=True, append_images=frames[1:])
    seen = decoder_of(64).decode(data, ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert (3, (0,)) == (facts.frames_total, facts.frames_scored)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


def test_an_animation_that_breaks_off_is_truncated() -> None:
    """
    The first frame is there, and yet it is not scored: a browser may show something of the second.
    """
    frame = photograph(64, 64).quantize(16)
    data = encoded(frame, "GIF", save_all=True, append_images=[photograph(64, 64, seed=9).quantize(16)])
    second = data.rindex(b"\x2c")
    broken = data[: second + 1] + b"\0\0\0\0\0\0\0\0\x87" + b"\0" * 4

    assert ErrorCode.DECODE_TRUNCATED == failure(broken, limits=DecodeLimits(max_frames=2)).code


def test_many_threads_decode_alike() -> None:
    """
    One decoder serves many threads, and each gets what it would get alone.
    """
    decoder = decoder_of(64)
    files = [encoded(photograph(90 + n, 80, seed=n), FORMATS[n % len(FORMATS)]) for n in range(20)]
    alone = [decoder.decode(data, ANY_HASH).pixels for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: decoder.decode(data, ANY_HASH).pixels, files * 5))

    assert all(np.array_equal(alone[n % 20], pixels) for n, pixels in enumerate(together))


def test_the_decoder_tells_its_versions() -> None:
    """
    A verdict can name the libraries that made its pixels, and the version of our own rules.
    """
    versions = decoder_versions(spec_of(16))

    assert {"rules", "reading", "pillow", "libjpeg_turbo", "webp", "avif"} <= versions.keys()
