"""
Native-resolution crops: where they fall in a picture, and how a picture that is too small for one is continued.

A crop is never resized: what a generator's last layers or a camera's sensor leave behind lies in single pixels, and
resizing averages it away. Any change that moves a crop changes ``worker.views.VIEW_RULES``.
"""

from collections.abc import Iterator

import numpy as np

from worker.domain import Pixels

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two excluded; as Pillow crops."""


def crop_boxes(width: int, height: int, size: int, count: int) -> tuple[Box, ...]:
    """
    At most ``count`` boxes of ``size`` pixels a side that all differ, all within the picture, the middle one first.

    Then come those around the centres of the four quadrants, then the even grids of 2 x 2, 3 x 3 and so on positions
    from edge to edge. Fewer come back where fewer fit; a box is narrower or lower only where the picture is. The boxes
    for a smaller ``count`` are the first of those for a larger one. The middle is where torchvision's ``CenterCrop``
    cuts, with which UniversalFakeDetect (arXiv 2302.10174) tests.
    """
    across, down = min(size, width), min(size, height)
    corners: dict[tuple[int, int], None] = {}
    for corner in _corners(width - across, height - down, size, count):
        if len(corners) >= count:
            break
        corners.setdefault(corner)
    return tuple((left, top, left + across, top + down) for left, top in corners)


def _corners(room_x: int, room_y: int, size: int, count: int) -> Iterator[tuple[int, int]]:
    """
    Left upper corners of boxes that may move by ``room_x`` and ``room_y`` pixels, the wanted ones first.
    """
    yield round(room_x / 2), round(room_y / 2)
    for quarter_y in (1, 3):
        for quarter_x in (1, 3):
            yield _around(quarter_x, room_x, size), _around(quarter_y, room_y, size)
    for side in range(2, count + 1):
        for row in range(side):
            for column in range(side):
                yield round(column * room_x / (side - 1)), round(row * room_y / (side - 1))


def _around(quarter: int, room: int, size: int) -> int:
    """
    Where a box begins that has so many quarters of the picture before its middle, as far as the picture reaches.
    """
    return min(max(round((room + size) * quarter / 4 - size / 2), 0), room)


def continued(pixels: Pixels, size: int) -> Pixels:
    """
    uint8[h, w, 3] as uint8[size, size, 3], mirrored at its edges where it is smaller, as often as needed.

    Raises ``ValueError`` for a picture that is larger: that would have to be cut.
    """
    height, width = pixels.shape[:2]
    if height > size or width > size:
        raise ValueError(f"a crop of {width} x {height} pixels is no part of one of {size} x {size}")
    above, before = (size - height) // 2, (size - width) // 2
    margins = ((above, size - height - above), (before, size - width - before), (0, 0))
    return np.pad(pixels, margins, mode="reflect")
