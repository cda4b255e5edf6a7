"""
The whole picture for reviewers is the one that the decoder cut its crops from.
"""

import struct

import numpy as np
import pytest
from PIL import Image

from schemas.verdict import ImageFacts
from tests.hidden_frames import AS_WORKERS_DO, hiding_generated, white_on_nothing
from tests.pictures import ANY_HASH, encoded, photograph, profile_with_red_and_blue_swapped, spec_of
from tests.png_files import GREY, RGB, png_of, samples, with_chunk
from worker.domain import Pixels
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.native_views import crop_boxes
from worker.stages.whole_picture import Ground, whole_picture
from worker.views import ViewSpec

SIZE = 48
TURNED = Image.Exif()
TURNED[0x0112] = 6

FILES = {
    "JPEG": encoded(photograph(130, 90), "JPEG"),
    "turned": encoded(photograph(130, 90), "JPEG", exif=TURNED),
    "profile": encoded(photograph(130, 90), "PNG", icc_profile=profile_with_red_and_blue_swapped()),
    "broken profile": encoded(photograph(130, 90), "PNG", icc_profile=b"none"),
    "alpha": encoded(photograph(130, 90).convert("LA"), "PNG"),
    "grey": encoded(photograph(130, 90).convert("L"), "WEBP"),
    "narrow": encoded(photograph(130, 9), "PNG"),
}


def crops_of(picture: Pixels) -> list[Pixels]:
    """
    The two crops of an encoder of 16 pixels, which lie within the picture.
    """
    boxes = crop_boxes(picture.shape[1], picture.shape[0], 16, 2)
    return [picture[top:bottom, left:right] for left, top, right, bottom in boxes]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "views",
    [
        ViewSpec(native_crops=5),
        ViewSpec(native_crops=5, max_side_px=100),
        ViewSpec(native_crops=5, max_side_px=100, reencode_quality=80),
    ],
    ids=["as it is", "reduced", "one footing"],
)
def test_the_decoders_crops_are_cut_from_it(name: str, views: ViewSpec) -> None:
    """
    Pixel for pixel, whatever the format, the orientation, the colours and the views.
    """
    decoder = PillowDecoder(spec_of(SIZE), DecodeLimits(), None, views=views)
    decoded = decoder.decode(FILES[name], ANY_HASH)
    picture = whole_picture(FILES[name], decoded.facts, views)
    boxes = crop_boxes(picture.shape[1], picture.shape[0], SIZE, views.native_crops)

    assert picture.dtype == np.uint8
    assert len(decoded.native) == len(boxes)
    for (left, top, right, bottom), crop in zip(boxes, decoded.native, strict=True):
        above, before = (SIZE - (bottom - top)) // 2, (SIZE - (right - left)) // 2
        part = crop[above : above + bottom - top, before : before + right - left]
        np.testing.assert_array_equal(part, picture[top:bottom, left:right])


@pytest.mark.parametrize("name", ["GIF", "PNG", "WEBP"])
def test_any_frame_that_was_looked_at_can_be_shown(name: str) -> None:
    """
    The crops of each look are cut from its frame, shown on its own: those between need not be shown before it.
    """
    views = ViewSpec(native_crops=2)
    data, _ = hiding_generated(name, 40, 6)
    decoded = PillowDecoder(spec_of(16), AS_WORKERS_DO, None, views=views).decode(data, ANY_HASH)
    frames = decoded.facts.frames_scored
    pictures = [whole_picture(data, decoded.facts, views, frame=frame) for frame in frames]
    cut = [crops_of(picture) for picture in pictures]

    assert 6 in frames
    assert len({picture.tobytes() for picture in pictures}) == len(frames) == len(decoded.looks)
    np.testing.assert_array_equal(cut, [look.native for look in decoded.looks])


def test_the_grey_ground_can_be_shown() -> None:
    """
    The look at what is drawn in white on nothing, and the other one.
    """
    views = ViewSpec(native_crops=2)
    data = white_on_nothing()
    decoded = PillowDecoder(spec_of(16), AS_WORKERS_DO, None, views=views).decode(data, ANY_HASH)
    white = whole_picture(data, decoded.facts, views)
    grey = whole_picture(data, decoded.facts, views, ground="grey")
    cut = [crops_of(picture) for picture in (white, grey)]

    assert white.min() == 255 > grey.min()
    np.testing.assert_array_equal(cut, [look.native for look in decoded.looks])


def odd_files() -> dict[str, bytes]:
    """
    Files that Pillow reads otherwise than browsers do, unless it is told.
    """
    rows = np.indices((40, 40)).sum(0) % 2
    grey = png_of(samples((rows * 7 + 4).astype(np.uint16), 4, GREY))
    colours = np.full((40, 40, 3), (0x6464, 0x1234, 0xFF01), np.uint16)
    colours[::2, :, 2] += 1
    gif, _ = hiding_generated("GIF", 3, 2)
    first = gif.index(b"!\xf9")
    return {
        "4-bit grey": with_chunk(grey, (b"tRNS", b"\0\x04"), before=b"IDAT"),
        "16-bit RGB": with_chunk(
            png_of(samples(colours, 16, RGB)), (b"tRNS", struct.pack(">HHH", 0x6464, 0x1234, 0xFF01)), before=b"IDAT"
        ),
        "frames' pixels alone": with_chunk(white_on_nothing(), (b"fdAT", b"\0\0\0\0pixels"), before=b"IDAT"),
        "empty extension": gif[:first] + b"!\x05\0" + gif[first:],
    }


@pytest.mark.parametrize("name", odd_files())
def test_odd_files_are_shown_as_they_were_looked_at(name: str) -> None:
    """
    The reviewer sees every look that the decoder took, and nothing is raised of a ground that the decoder saw.
    """
    views = ViewSpec(native_crops=2)
    data = odd_files()[name]
    decoded = PillowDecoder(spec_of(16), AS_WORKERS_DO, None, views=views).decode(data, ANY_HASH)
    frames = decoded.facts.frames_scored
    grounds: list[Ground] = [
        "white" if at == 0 or frames[at - 1] != frame else "grey" for at, frame in enumerate(frames)
    ]
    pictures = [
        whole_picture(data, decoded.facts, views, frame=frame, ground=ground)
        for frame, ground in zip(frames, grounds, strict=True)
    ]

    assert len(frames) > 1
    np.testing.assert_array_equal([crops_of(picture) for picture in pictures], [look.native for look in decoded.looks])


def test_what_the_decoder_did_not_look_at_is_refused() -> None:
    """
    A frame that nobody chose, and a ground that does not shine through: neither was held against the limits.
    """
    data = FILES["JPEG"]
    facts = PillowDecoder(spec_of(SIZE), DecodeLimits(), None).decode(data, ANY_HASH).facts

    with pytest.raises(ValueError, match="want one of them, found 3"):
        whole_picture(data, facts, ViewSpec(), frame=3)
    with pytest.raises(ValueError, match="no ground that shines through"):
        whole_picture(data, facts, ViewSpec(), ground="grey")


def test_what_was_not_decoded_is_refused() -> None:
    """
    Limits to format and size were not asked about such bytes.
    """
    facts = ImageFacts(sha256=ANY_HASH, byte_length=3)
    with pytest.raises(ValueError, match="decoder has accepted"):
        whole_picture(b"abc", facts, ViewSpec())
