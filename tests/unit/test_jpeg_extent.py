"""
Which JPEGs are plain by their markers, and where they end.
"""

import struct

import pytest
from PIL import ImageCms

from tests.pictures import encoded, photograph
from worker.stages.jpeg_extent import JpegExtent, jpeg_extent, jpeg_header

PICTURE = photograph(96, 80)
PLAIN = encoded(PICTURE, "JPEG", quality=80)


def replaced(data: bytes, found: bytes, by: bytes) -> bytes:
    """
    The file with the first of these bytes replaced.
    """
    assert found in data
    return data.replace(found, by, 1)


@pytest.mark.parametrize("sampling", [0, 1, 2])
def test_a_plain_jpeg_is_recognised_and_ends_with_its_end_marker(sampling: int) -> None:
    """
    4:4:4, 4:2:2 and 4:2:0.
    """
    data = encoded(PICTURE, "JPEG", subsampling=sampling)

    assert JpegExtent(96, 80, grey=False, end=len(data)) == jpeg_extent(data)


def test_what_follows_the_end_is_no_part_of_it() -> None:
    """
    Neither bytes of no meaning nor a second JPEG.
    """
    assert JpegExtent(96, 80, grey=False, end=len(PLAIN)) == jpeg_extent(PLAIN + b"\xff\xd8 and so on")


def test_restarts_comments_and_profiles_are_nothing_special() -> None:
    """
    They are passed over by their lengths; restart markers stand in the coded data.
    """
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(PICTURE, "JPEG", restart_marker_blocks=2, comment=b"a picture", icc_profile=profile)

    assert b"\xff\xd0" in data
    assert JpegExtent(96, 80, grey=False, end=len(data)) == jpeg_extent(data)


def test_one_of_endless_segments_is_not_plain() -> None:
    """
    Counting millions of empty comments would take the worker's own time.
    """
    with_comments = {count: PLAIN[:2] + b"\xff\xfe\x00\x02" * count + PLAIN[2:] for count in (500, 5000)}

    assert jpeg_extent(with_comments[500]) is not None
    assert jpeg_extent(with_comments[5000]) is None


def test_a_grey_one_says_that_it_is() -> None:
    """
    One component.
    """
    found = jpeg_extent(encoded(PICTURE.convert("L"), "JPEG"))

    assert found is not None
    assert found.grey


@pytest.mark.parametrize(
    "data",
    [
        encoded(PICTURE, "JPEG", progressive=True),
        encoded(PICTURE.convert("CMYK"), "JPEG"),
        encoded(PICTURE, "JPEG", keep_rgb=True),
        encoded(PICTURE, "PNG"),
        b"",
        b"\xff\xd8",
        PLAIN[:-2],
        PLAIN[: len(PLAIN) // 2],
        replaced(PLAIN, b"\xff\xc0", b"\xff\xc1"),
        replaced(PLAIN, b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c"),
        replaced(PLAIN, b"\xff\xc0\x00\x11\x08" + struct.pack(">H", 80), b"\xff\xc0\x00\x11\x08\x00\x00"),
        replaced(PLAIN, b"\x01\x22\x00", b"\x01\x41\x00"),
        replaced(PLAIN, b"\x01\x22\x00", b"\x07\x22\x00"),
        PLAIN[:-2] + b"\xff\xdc\x00\x04\x00\x50\xff\xd9",
    ],
    ids=[
        "progressive",
        "cmyk",
        "stored as rgb",
        "png",
        "empty",
        "two bytes",
        "no end marker",
        "half of it",
        "extended",
        "12 bits",
        "no height",
        "4:1:1",
        "another component",
        "height told behind the scan",
    ],
)
def test_every_other_file_is_not_plain(data: bytes) -> None:
    """
    None, which leaves it to whoever decodes such files.
    """
    assert jpeg_extent(data) is None


def test_the_header_is_read_of_a_file_that_is_cut_off_in_its_scan() -> None:
    """
    It says the size, and nothing of the end.
    """
    header = jpeg_header(PLAIN[:-50])

    assert header is not None
    assert (96, 80) == (header.width, header.height)
    assert jpeg_extent(PLAIN[:-50]) is None


def test_two_frames_are_not_plain() -> None:
    """
    What a decoder makes of a second header is its own affair.
    """
    at = PLAIN.index(b"\xff\xc0")
    frame = PLAIN[at : at + 19]

    assert jpeg_extent(PLAIN[:at] + frame + PLAIN[at:]) is None
