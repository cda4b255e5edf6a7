"""
How far torch's resizing is from Pillow's, whatever a picture holds and to whatever size it goes.
"""

from typing import Literal

import numpy as np
from hypothesis import example, given, target
from hypothesis import strategies as st
from PIL import Image

from worker.adapters.torch_resize import open_resizer

FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SIDES = st.integers(1, 96)
MOST = 2
"""Of 255: one for the rounding after the rows, which the columns weigh by less than 1.3 in sum, and one for theirs."""


def drawn(kind: str, size: tuple[int, int], channels: int, seed: int) -> Image.Image:
    """
    A picture of noise, of nothing but black and white, or of stripes along either side.
    """
    width, height = size
    seeded = np.random.default_rng(seed)
    shape = {"rows": (height, 1, channels), "columns": (1, width, channels)}.get(kind, (height, width, channels))
    values = seeded.integers(0, 2, shape) * 255 if kind == "hard" else seeded.integers(0, 256, shape)
    pixels = np.broadcast_to(values, (height, width, channels)).astype(np.uint8)
    if channels == 1:
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels) if channels == 3 else Image.frombytes("CMYK", size, pixels.tobytes())


@given(
    st.sampled_from(["noise", "hard", "rows", "columns"]),
    st.sampled_from([1, 3, 4]),
    st.tuples(SIDES, SIDES),
    st.tuples(SIDES, SIDES).filter(lambda size: 1 not in size),
    st.sampled_from(["bicubic", "bilinear"]),
    st.integers(0, 1 << 20),
)
@example("hard", 1, (32, 5), (96, 3), "bicubic", 0)
@example("noise", 3, (1, 1), (2, 2), "bilinear", 0)
def test_no_channel_differs_by_more_than_two(  # noqa: PLR0917 - as many as a resizing has sides
    kind: str,
    channels: int,
    size: tuple[int, int],
    wanted: tuple[int, int],
    interpolation: Literal["bicubic", "bilinear"],
    seed: int,
) -> None:
    """
    Where Pillow goes along the rows first too, and in each of the three modes: growing, shrinking, or one of each.
    """
    picture = drawn(kind, size, channels, seed)
    filtering = FILTERS[interpolation]
    theirs = picture.resize((wanted[0], picture.height), filtering).resize(wanted, filtering)
    ours = open_resizer()(picture, wanted, interpolation)
    apart = np.abs(np.asarray(ours).astype(int) - np.asarray(theirs).astype(int))
    target(float(apart.mean()))

    assert (theirs.mode, theirs.size) == (ours.mode, ours.size)
    assert apart.max() <= MOST
