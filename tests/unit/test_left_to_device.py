"""
What is left to a device: plain JPEGs of a sensible size, with all the facts that decoding finds.
"""

from typing import Any

import pytest
from PIL import ImageCms

from schemas.errors import ErrorCode
from schemas.verdict import ContentCredentials
from tests.device_rig import device_spec, leaving, turned
from tests.pictures import (
    ANY_HASH,
    encoded,
    photograph,
    profile_with_another_curve_between_levels,
    profile_with_red_and_blue_swapped,
    spec_of,
)
from worker.domain import PreprocessSpec
from worker.errors import UploadFailed
from worker.stages.colour import is_srgb
from worker.stages.decode import DecodeLimits
from worker.stages.left_to_device import LEAST_SIDE_PX, pixels_left
from worker.views import GLOBAL_ONLY, DecodedPicture, Undecoded, ViewSpec

PICTURE = photograph(160, 120)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"exif": turned(6)},
        {"exif": turned(6)[:-3]},
        {"exif": b"Exif\0\0no block"},
        {"icc_profile": SRGB},
        {"comment": b"of a picture"},
    ],
    ids=["plain", "4:4:4", "turned", "exif cut", "no exif", "srgb", "comment"],
)
def test_its_facts_are_those_that_decoding_finds(options: dict[str, Any]) -> None:
    """
    Size, mode, orientation and warnings; only the pixels are missing.
    """
    data = encoded(PICTURE, "JPEG", **options)
    left = leaving().decode(data, ANY_HASH)
    decoded = leaving(most_pixels=1).decode(data, ANY_HASH)

    assert isinstance(decoded, DecodedPicture)
    assert Undecoded(decoded.facts, len(data)) == left


def test_a_grey_one_is_left_too() -> None:
    """
    With its own mode.
    """
    left = leaving().decode(encoded(PICTURE.convert("L"), "JPEG"), ANY_HASH)

    assert isinstance(left, Undecoded)
    assert "L" == left.facts.mode


def test_credentials_are_read_here() -> None:
    """
    In the process that opened the file.
    """
    asked: list[bytes] = []

    def read(data: bytes) -> ContentCredentials | None:
        asked.append(data)
        return None

    data = encoded(PICTURE, "JPEG")
    leaving(credentials=read).decode(data, ANY_HASH)

    assert [data] == asked


@pytest.mark.parametrize(
    "data",
    [
        encoded(PICTURE, "PNG"),
        encoded(PICTURE, "JPEG", progressive=True),
        encoded(PICTURE.convert("CMYK"), "JPEG"),
        encoded(PICTURE, "JPEG", icc_profile=profile_with_red_and_blue_swapped()),
        encoded(PICTURE.convert("L"), "JPEG", icc_profile=SRGB),
        encoded(PICTURE, "JPEG", icc_profile=b"no profile"),
        encoded(photograph(LEAST_SIDE_PX - 1, 400), "JPEG"),
        encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE]),
    ],
    ids=[
        "png",
        "progressive",
        "cmyk",
        "other colours",
        "grey with a profile",
        "broken profile",
        "small",
        "two pictures",
    ],
)
def test_everything_else_is_decoded_as_ever(data: bytes) -> None:
    """
    By the same decoder, to the same pixels.
    """
    assert isinstance(leaving().decode(data, ANY_HASH), DecodedPicture)


def test_one_that_the_device_has_no_room_for_is_decoded_as_ever() -> None:
    """
    One pixel more than there is room for.
    """
    data = encoded(PICTURE, "JPEG")

    assert isinstance(leaving(most_pixels=160 * 120).decode(data, ANY_HASH), Undecoded)
    assert isinstance(leaving(most_pixels=160 * 120 - 1).decode(data, ANY_HASH), DecodedPicture)


@pytest.mark.parametrize(
    ("data", "limits", "code"),
    [
        (encoded(PICTURE, "JPEG")[:-40], DecodeLimits(), ErrorCode.DECODE_TRUNCATED),
        (encoded(PICTURE, "JPEG"), DecodeLimits(max_pixels=1024), ErrorCode.DECODE_BOMB),
        (encoded(PICTURE, "JPEG"), DecodeLimits(formats=("PNG",)), ErrorCode.FORMAT_UNSUPPORTED),
        (b"\xff\xd8\xff\xc0", DecodeLimits(), ErrorCode.DECODE_FAILED),
    ],
    ids=["cut off", "too many pixels", "not accepted", "no JPEG"],
)
def test_what_is_refused_is_refused_here(data: bytes, limits: DecodeLimits, code: ErrorCode) -> None:
    """
    Before any device hears of it.
    """
    with pytest.raises(UploadFailed) as refusal:
        leaving(limits=limits).decode(data, ANY_HASH)

    assert code == refusal.value.code


@pytest.mark.parametrize(
    ("spec", "views", "left"),
    [
        (device_spec(), GLOBAL_ONLY, 100),
        (device_spec(jpeg_decoder="nvjpeg"), GLOBAL_ONLY, 100),
        (spec_of(64), GLOBAL_ONLY, 0),
        (device_spec(), ViewSpec(native_crops=1), 0),
        (device_spec(), ViewSpec(realism=True), 0),
        (device_spec(), ViewSpec(reencode_quality=90), 0),
        (device_spec(), ViewSpec(perturbation=True), 100),
    ],
)
def test_nothing_is_left_where_the_files_own_pixels_are_asked_for(
    spec: PreprocessSpec, views: ViewSpec, left: int
) -> None:
    """
    Or where the spec does not say so; three bytes are a pixel.
    """
    assert left == pixels_left(spec, views, 300)


def test_a_profile_is_srgb_by_what_it_does() -> None:
    """
    Not by its name, or its bytes.
    """
    assert is_srgb(SRGB)
    assert not is_srgb(profile_with_red_and_blue_swapped())
    assert not is_srgb(b"")


def test_a_profile_that_is_srgb_at_some_levels_only_is_not() -> None:
    """
    Else an uploader could choose what is judged beside what people see: by curves, and by tables in a long profile.
    """
    assert is_srgb(profile_with_another_curve_between_levels(step=1))
    assert not is_srgb(profile_with_another_curve_between_levels())
    assert not is_srgb(SRGB + bytes(4096))


def test_each_decoder_is_a_fingerprint_of_its_own() -> None:
    """
    Pillow's is the one that all banks have.
    """
    hashes = [spec_of(64, jpeg_decoder=name).sha256 for name in ("pillow", "libjpeg", "nvjpeg")]

    assert 3 == len(set(hashes))
    assert spec_of(64).sha256 == hashes[0]


def test_an_unknown_decoder_is_refused() -> None:
    """
    With the names that there are.
    """
    with pytest.raises(ValueError, match="want pillow, libjpeg or nvjpeg"):
        spec_of(64, jpeg_decoder="device")
