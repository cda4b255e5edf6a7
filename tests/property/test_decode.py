"""
Laws of decoding: whatever the bytes, pixels of the right shape or a code of the decode stage, and nothing else.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from schemas.errors import ErrorCode, Stage, stage_of
from tests.pictures import ANY_HASH, decoded, decoder_of, encoded, photograph
from worker.adapters.perceptual_hash import pdq
from worker.errors import UploadFailed
from worker.stages.decode import DecodeLimits
from worker.stages.sniff import MEDIA_TYPES
from worker.views import ViewSpec

FORMATS = tuple(MEDIA_TYPES)
FILES = {name: encoded(photograph(48, 40), name) for name in FORMATS}
WHOLE = {name: decoded(data, 32) for name, data in FILES.items()}
LIMITS = DecodeLimits(max_pixels=2_000_000)
DECODER = decoder_of(32, limits=LIMITS, perceptual_hash=pdq)
MANY_VIEWS = decoder_of(32, limits=LIMITS, views=ViewSpec(native_crops=2, max_side_px=90, reencode_quality=85))


def outcome(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | ErrorCode:
    """
    The pixels, or the code of the failure; any other exception fails the test.
    """
    failed: UploadFailed | None = None
    try:
        seen = DECODER.decode(data, ANY_HASH)
        pixels, facts = seen.pixels, seen.facts
    except UploadFailed as error:
        failed = error
    assert (None if failed is None else failed.code) == code_with_many_views(data)
    if failed is not None:
        assert Stage.DECODE == stage_of(failed.code)
        assert 0 < len(failed.detail) <= 512
        assert failed.detail.isprintable()
        return failed.code

    assert (32, 32, 3) == pixels.shape
    assert np.uint8 == pixels.dtype
    assert facts.pdq is not None
    return pixels


def code_with_many_views(data: bytes) -> ErrorCode | None:
    """
    How a decoder fails that makes more of a picture than its global view; the code must not depend on that.
    """
    try:
        decoded = MANY_VIEWS.decode(data, ANY_HASH)
    except UploadFailed as error:
        return error.code
    assert 1 <= len(decoded.native) <= 2
    return None


@given(
    st.binary(max_size=400), st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF....WEBP"))
)
def test_any_bytes_end_as_pixels_or_a_decode_code(data: bytes, magic: bytes) -> None:
    """
    Rubbish, with or without an honest magic number, never raises anything else.
    """
    outcome(magic + data)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
)
def test_a_damaged_file_ends_as_pixels_or_a_decode_code(name: str, damage: list[tuple[float, int]]) -> None:
    """
    Bytes changed anywhere in a real file are survived.
    """
    data = bytearray(FILES[name])
    for place, value in damage:
        data[int(place * len(data))] = value
    outcome(bytes(data))


@given(st.sampled_from(FORMATS), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_never_half_a_picture(name: str, place: float) -> None:
    """
    A prefix fails, unless only an end marker is missing: then the pixels are those of the whole.
    """
    result = outcome(FILES[name][: int(place * len(FILES[name]))])

    assert isinstance(result, ErrorCode) or np.array_equal(WHOLE[name], result)


@given(arrays(np.uint8, (24, 24, 3)), arrays(np.uint8, (24, 24, 3)), arrays(np.uint8, (24, 24), elements=st.just(0)))
def test_colour_under_full_transparency_has_no_influence(
    left: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    right: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    alpha: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    """
    Two pictures that differ only where alpha is 0 are one picture.
    """
    alpha[:, 12:] = 255
    right[:, 12:] = left[:, 12:]
    files = [encoded(Image.fromarray(np.dstack([colour, alpha])), "PNG") for colour in (left, right)]

    assert np.array_equal(decoded(files[0], 24), decoded(files[1], 24))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from(["RGB", "L", "RGBA", "P", "1", "CMYK"]))
def test_any_size_and_mode_becomes_the_encoders_input(width: int, height: int, mode: str) -> None:
    """
    However small, long or odd, a valid picture is decoded.
    """
    picture = photograph(width, height).convert(mode)
    result = outcome(encoded(picture, "JPEG" if mode == "CMYK" else "PNG"))

    assert not isinstance(result, ErrorCode)


@pytest.mark.parametrize("name", FORMATS)
def test_decoding_is_a_function(name: str) -> None:
    """
    The same bytes give the same pixels and the same facts, each time.
    """
    seen = DECODER.decode(FILES[name], ANY_HASH)
    pixels, facts = seen.pixels, seen.facts
    again = DECODER.decode(FILES[name], ANY_HASH)

    assert np.array_equal(pixels, again.pixels)
    assert facts == again.facts
