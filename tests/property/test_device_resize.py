"""
Whatever the size and the content, a device's pixels are Pillow's, but for two levels of 255.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.device_rig import NEAR, cpu_device, device_spec, furthest, on_device
from tests.pictures import ANY_HASH, encoded
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.jpeg_extent import jpeg_extent

SIDES = st.integers(64, 420)


def content(kind: str, width: int, height: int, seed: int) -> Image.Image:
    """
    Noise, the hardest edges that there are, or large shapes.
    """
    randomness = np.random.default_rng(seed)
    if kind == "shapes":
        return Image.fromarray(randomness.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
    levels = randomness.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels if kind == "noise" else (levels // 128 * 255).astype(np.uint8))


@given(
    st.builds(content, st.sampled_from(["noise", "edges", "shapes"]), SIDES, SIDES, st.integers(0, 1000)),
    st.integers(8, 200),
    st.sampled_from(["shortest", "longest", "squash"]),
    st.sampled_from(["bicubic", "bilinear"]),
)
def test_the_device_sees_what_pillow_sees(picture: Image.Image, side: int, mode: str, interpolation: str) -> None:
    """
    In either order of its two passes, up and down in scale.
    """
    spec = device_spec(side, resize_mode=mode, interpolation=interpolation)
    data = encoded(picture, "JPEG", quality=95, subsampling=0)
    expected = PillowDecoder(spec, DecodeLimits(), None).decode(data, ANY_HASH)
    seen = on_device(spec=spec).decode(data, ANY_HASH)

    assert expected.facts == seen.facts
    assert furthest(expected.pixels, seen.pixels) <= NEAR


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=4))
def test_a_damaged_jpeg_ends_as_it_ever_did(at: int, by: bytes) -> None:
    """
    Whatever bytes are changed: where the markers stay in order, the device's libjpeg and Pillow's mend alike.
    """
    spec = device_spec()
    data = bytearray(encoded(content("shapes", 90, 80, 1), "JPEG"))
    at %= len(data)
    data[at : at + len(by)] = by
    plain, device = PillowDecoder(spec, DecodeLimits(), None), on_device(cpu_device(), spec=spec)
    ends = []
    for decoder in (plain, device):
        try:
            ends.append(decoder.decode(bytes(data), ANY_HASH).facts)
        except Exception as fault:  # noqa: BLE001 - which it is, is compared
            ends.append(f"{type(fault).__name__} {fault}")  # type: ignore[arg-type] # facts or words

    assert ends[0] == ends[1]


@given(st.integers(1, 10**6))
def test_a_jpeg_that_is_cut_off_is_never_left_to_a_device(kept: int) -> None:
    """
    Wherever the cut is.
    """
    data = encoded(content("noise", 80, 70, 2), "JPEG", quality=60)

    assert jpeg_extent(data[: kept % len(data)]) is None
