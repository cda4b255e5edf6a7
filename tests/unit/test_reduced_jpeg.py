"""
JPEGs at reduced scale: only where it was asked for, near the whole, under all the same limits, and told apart.
"""

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorCode
from tests.pictures import ANY_HASH, OPENAI, encoded, photograph, spec_of
from worker.adapters.clip_source import resolve
from worker.decoding.protocol import Setup
from worker.domain import Pixels, PreprocessSpec
from worker.errors import UploadFailed
from worker.fingerprint import space_of
from worker.settings.tree import EncoderSettings
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.preprocess import preprocess_spec
from worker.views import GLOBAL_ONLY, DecodedPicture, ViewSpec

SIZE = 64
PICTURE = photograph(901, 623)
"""Of sides that no scale divides."""


NEAR = {1: 6, 2: 3, 4: 3}
"""The largest difference that is accepted of any pixel, 0 to 255, by the number."""


def reducing(times: int) -> PreprocessSpec:
    """
    The spec for reducing down to so many times the input.
    """
    return spec_of(SIZE, jpeg_oversampling=times)


def seen(data: bytes, times: int, views: ViewSpec = GLOBAL_ONLY) -> DecodedPicture:
    """
    The picture as it is decoded under that spec.
    """
    return PillowDecoder(reducing(times), DecodeLimits(), None, views=views, statistics=lambda _: (0.0,) * 5).decode(
        data, ANY_HASH
    )


def furthest(one: Pixels, other: Pixels) -> int:
    """
    The largest difference of any pixel, 0 to 255.
    """
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def hashed_size(data: bytes, times: int) -> tuple[int, ...]:
    """
    The shape of what the perceptual hash is given: it is the decoded picture, where that is small enough.
    """
    shapes: list[tuple[int, ...]] = []

    def remembering(pixels: Pixels) -> tuple[str, int]:
        shapes.append(pixels.shape)
        return "0" * 64, 0

    PillowDecoder(reducing(times), DecodeLimits(), remembering).decode(data, ANY_HASH)
    return shapes[0]


def exif(orientation: int) -> bytes:
    """
    An EXIF block with nothing but the orientation.
    """
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


@pytest.mark.parametrize(
    ("times", "shape"),
    [(0, (312, 451, 3)), (8, (312, 451, 3)), (4, (312, 451, 3)), (2, (156, 226, 3)), (1, (78, 113, 3))],
)
def test_a_jpeg_is_decoded_no_larger_than_was_asked_for(times: int, shape: tuple[int, ...]) -> None:
    """
    901 x 623 for an input of 64, at least 512, 256, 128 and 64 pixels a side: the hash takes it, halved at 0, 8 and 4.
    """
    assert shape == hashed_size(encoded(PICTURE, "JPEG", quality=90), times)


@pytest.mark.parametrize("times", [1, 2, 4])
@pytest.mark.parametrize("kind", ["rgb", "grey", "cmyk", "progressive"])
def test_what_is_seen_is_near_to_what_is_seen_of_the_whole(times: int, kind: str) -> None:
    """
    For every kind of JPEG; the facts are the file's, whatever was decoded of it.
    """
    picture = {"grey": PICTURE.convert("L"), "cmyk": PICTURE.convert("CMYK")}.get(kind, PICTURE)
    data = encoded(picture, "JPEG", quality=92, progressive=kind == "progressive")
    whole, reduced = seen(data, 0), seen(data, times)

    assert furthest(whole.pixels, reduced.pixels) <= NEAR[times]
    assert not np.array_equal(whole.pixels, reduced.pixels)
    assert whole.facts == reduced.facts


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_picture_does_not_move(orientation: int, resize_mode: str) -> None:
    """
    What the decoder rounds up to whole pixels is no part of the picture, wherever turning it upright puts that.

    Fine stripes would tell a shift of a tenth of a pixel.
    """
    stripes = Image.fromarray((np.indices((623, 901)).sum(0) // 24 % 2 * 180 + 30).astype(np.uint8)).convert("RGB")
    data = encoded(stripes, "JPEG", quality=95, exif=exif(orientation))
    whole, reduced = (
        PillowDecoder(spec_of(SIZE, jpeg_oversampling=times, resize_mode=resize_mode), DecodeLimits(), None)
        .decode(data, ANY_HASH)
        .pixels.astype(int)
        for times in (0, 2)
    )

    assert whole.std() > 40
    assert np.abs(whole - reduced).mean() < 2.5


@pytest.mark.parametrize(
    "views",
    [ViewSpec(native_crops=2), ViewSpec(realism=True), ViewSpec(max_side_px=800), ViewSpec(reencode_quality=90)],
)
def test_nothing_is_reduced_where_pixels_of_the_file_are_asked_for(views: ViewSpec) -> None:
    """
    Crops, statistics, a limit to the sides and one re-encoding for all are as they are without it.
    """
    data = encoded(PICTURE, "JPEG", quality=90)
    whole, reduced = seen(data, 0, views), seen(data, 1, views)

    assert np.array_equal(whole.pixels, reduced.pixels)
    assert all(np.array_equal(one, other) for one, other in zip(whole.native, reduced.native, strict=True))
    assert whole.realism == reduced.realism


@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "GIF"])
def test_other_formats_are_decoded_whole(format_name: str) -> None:
    """
    Only JPEG can be had smaller for less.
    """
    data = encoded(PICTURE, format_name)

    assert np.array_equal(seen(data, 0).pixels, seen(data, 1).pixels)


def test_a_jpeg_that_is_not_twice_as_large_as_needed_is_decoded_whole() -> None:
    """
    Then it could only become smaller than the encoder's input times the number.
    """
    data = encoded(photograph(2 * SIZE + 40, 2 * SIZE - 1), "JPEG")

    assert np.array_equal(seen(data, 0).pixels, seen(data, 1).pixels)


def test_the_limits_are_those_of_the_whole_picture() -> None:
    """
    A header beyond the limit is a bomb, and a file that ends too early is truncated, at any scale.
    """
    data = encoded(PICTURE, "JPEG", quality=90)
    small = PillowDecoder(reducing(1), DecodeLimits(max_pixels=900 * 620 - 1), None)

    with pytest.raises(UploadFailed) as bomb:
        small.decode(data, ANY_HASH)
    with pytest.raises(UploadFailed) as cut:
        seen(data[: len(data) // 2], 1)
    assert (ErrorCode.DECODE_BOMB, ErrorCode.DECODE_TRUNCATED) == (bomb.value.code, cut.value.code)


def test_each_number_is_a_space_of_its_own_and_none_is_the_space_of_before() -> None:
    """
    A bank or a cache of one is none for another; without the setting nothing has changed.
    """
    specs = [reducing(times) for times in (0, 1, 2, 8)]
    spaces = {space_of("architecture", "weights", spec) for spec in specs}

    assert len(specs) == len(spaces)
    assert spec_of(SIZE).sha256 == specs[0].sha256
    with pytest.raises(ValueError, match="jpeg_oversampling is 9"):
        preprocess_spec({"size": SIZE, "jpeg_oversampling": 9, **OPENAI})


def test_a_decoder_process_is_told() -> None:
    """
    What the parent writes for its child says how far to reduce.
    """
    setup = Setup(reducing(2), DecodeLimits(), GLOBAL_ONLY, memory_bytes=1 << 31, cpu_s=9.0, pictures=1)

    assert setup == Setup.from_json(setup.to_json())


def test_the_setting_reaches_the_encoder_s_preprocessing_and_no_model_can_set_it() -> None:
    """
    Whoever loads the encoder, under whatever backend, starts from what its settings resolve to.
    """
    plain, reduced = (resolve(EncoderSettings(jpeg_oversampling=times)).preprocess for times in (0, 2))

    assert "jpeg_oversampling" not in plain
    assert {**plain, "jpeg_oversampling": 2} == reduced
