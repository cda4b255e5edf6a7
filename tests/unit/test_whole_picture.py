"""
The whole picture for reviewers is the one that the decoder cut its crops from.
"""

import numpy as np
import pytest
from PIL import Image

from schemas.verdict import ImageFacts
from tests.pictures import ANY_HASH, encoded, photograph, profile_with_red_and_blue_swapped, spec_of
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.native_views import crop_boxes
from worker.stages.whole_picture import whole_picture
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


def test_what_was_not_decoded_is_refused() -> None:
    """
    Limits to format and size were not asked about such bytes.
    """
    facts = ImageFacts(sha256=ANY_HASH, byte_length=3)
    with pytest.raises(ValueError, match="decoder has accepted"):
        whole_picture(b"abc", facts, ViewSpec())
