"""
Laws of native-resolution crops: where they fall, and that nothing in them was resized.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from torchvision.transforms.functional import center_crop  # type: ignore[import-untyped] # it has no types

from tests.pictures import ANY_HASH, decoder_of, encoded, photograph
from worker.domain import Pixels
from worker.stages.native_views import continued, crop_boxes
from worker.views import ViewSpec

SIZE = 24
sides = st.integers(1, 200)
counts = st.integers(0, 14)


@given(sides, sides, counts)
def test_crops_lie_within_the_picture_and_all_differ(width: int, height: int, count: int) -> None:
    """
    Never more than asked for, none twice, each as large as the picture allows.
    """
    boxes = crop_boxes(width, height, SIZE, count)

    assert len(boxes) <= count
    assert len(set(boxes)) == len(boxes)
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert (min(SIZE, width), min(SIZE, height)) == (right - left, bottom - top)


@settings(max_examples=50, deadline=None)
@given(st.integers(SIZE, 200), st.integers(SIZE, 200), st.integers(1, 14))
def test_the_first_crop_is_the_middle(width: int, height: int, count: int) -> None:
    """
    It is the very crop that torchvision's ``CenterCrop`` cuts.
    """
    picture = photograph(width, height)

    assert np.array_equal(
        np.asarray(center_crop(picture, [SIZE, SIZE])),
        np.asarray(picture.crop(crop_boxes(width, height, SIZE, count)[0])),
    )


@given(sides, sides, counts, counts)
def test_fewer_crops_are_the_first_of_more(width: int, height: int, few: int, more: int) -> None:
    """
    Whoever asks for fewer sees nothing that whoever asks for more does not see too.
    """
    few, more = sorted((few, more))

    assert crop_boxes(width, height, SIZE, few) == crop_boxes(width, height, SIZE, more)[:few]


@given(st.integers(2 * SIZE + 10, 200), st.integers(2 * SIZE + 10, 200), counts)
def test_a_large_picture_has_as_many_crops_as_are_asked_for(width: int, height: int, count: int) -> None:
    """
    Where there is room, none is missing; the four after the first lie around the centres of the quadrants.
    """
    boxes = crop_boxes(width, height, SIZE, count)
    centres = {((left + right) / 2 / width, (top + bottom) / 2 / height) for left, top, right, bottom in boxes[1:5]}

    assert count == len(boxes)
    assert all(min(abs(x - 0.25), abs(x - 0.75)) <= 0.51 / width for x, _ in centres)
    assert all(min(abs(y - 0.25), abs(y - 0.75)) <= 0.51 / height for _, y in centres)


@pytest.mark.parametrize(("size", "found"), [((SIZE, SIZE), 1), ((3, 5), 1), ((SIZE + 2, 5), 3), ((5, 3 * SIZE), 9)])
def test_a_small_picture_has_only_crops_that_differ(size: tuple[int, int], found: int) -> None:
    """
    One that is as small as a crop has one, and a strip as many as can be moved along it.
    """
    assert found == len(crop_boxes(*size, SIZE, 9))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 9))
def test_native_crops_hold_the_pictures_own_pixels(width: int, height: int, count: int) -> None:
    """
    Each crop of a decoded picture is found in the picture, pixel by pixel, where its box says; the rest is mirrored.
    """
    picture = photograph(width, height)
    decoder = decoder_of(SIZE, views=ViewSpec(native_crops=count))
    crops = decoder.decode(encoded(picture, "PNG"), ANY_HASH).native
    boxes = crop_boxes(width, height, SIZE, count)

    assert len(boxes) == len(crops)
    for crop, box in zip(crops, boxes, strict=True):
        own = np.asarray(picture.crop(box))
        above, before = (SIZE - own.shape[0]) // 2, (SIZE - own.shape[1]) // 2
        assert (SIZE, SIZE, 3) == crop.shape
        assert np.array_equal(own, crop[above : above + own.shape[0], before : before + own.shape[1]])


@given(arrays(np.uint8, st.tuples(st.integers(2, SIZE), st.integers(2, SIZE), st.just(3))))
def test_a_small_picture_is_continued_by_mirroring(pixels: Pixels) -> None:
    """
    Beyond an edge the picture runs back again, and at the far edge forward again.
    """
    height, width = pixels.shape[:2]
    whole = continued(pixels, SIZE)

    def source(at: int, before: int, length: int) -> int:
        folded = (at - before) % (2 * (length - 1))
        return min(folded, 2 * (length - 1) - folded)

    rows = [source(at, (SIZE - height) // 2, height) for at in range(SIZE)]
    columns = [source(at, (SIZE - width) // 2, width) for at in range(SIZE)]
    assert np.array_equal(pixels[np.ix_(rows, columns)], whole)


def test_one_pixel_becomes_a_plane_and_too_much_is_refused() -> None:
    """
    One pixel has nothing to mirror and is repeated; what is larger than a crop has to be cut, not continued.
    """
    plane = continued(np.full((1, 1, 3), 77, np.uint8), SIZE)

    assert (SIZE, SIZE, 3) == plane.shape
    assert {77} == set(plane.ravel().tolist())
    with pytest.raises(ValueError, match="no part"):
        continued(np.asarray(Image.new("RGB", (SIZE + 1, SIZE))), SIZE)
