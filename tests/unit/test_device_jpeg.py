"""
JPEGs on torch's device: near Pillow's pixels, whatever their orientation; one that fails costs no other its place.
"""

import pytest

from tests.device_rig import NEAR, SIZE, cpu_device, device_spec, furthest, on_device, turned
from tests.pictures import ANY_HASH, encoded, photograph, spec_of
from worker.adapters.device_jpeg import DeviceJpegs
from worker.adapters.perceptual_hash import pdq
from worker.decoding.device_batches import DeviceJob
from worker.errors import CannotStart
from worker.stages.decode import DecodeLimits, PillowDecoder

WIDTH, HEIGHT = 700, 460
PICTURE = photograph(WIDTH, HEIGHT)
JPEG = encoded(PICTURE, "JPEG", quality=90)


def job(data: bytes = JPEG, **changes: object) -> DeviceJob:
    """
    The whole picture brought to 70 x 46 pixels.
    """
    given: dict[str, object] = {
        "width": WIDTH,
        "height": HEIGHT,
        "orientation": 1,
        "box": (0, 0, WIDTH, HEIGHT),
        "size": (70, 46),
        "interpolation": "bicubic",
    }
    return DeviceJob(data, **(given | changes))  # type: ignore[arg-type] # each test gives what the field takes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("sampling", [0, 2])
def test_what_is_seen_is_what_pillow_sees(orientation: int, sampling: int) -> None:
    """
    Upright, in sRGB, cropped, with the same hash and the same facts.
    """
    data = encoded(PICTURE, "JPEG", exif=turned(orientation), subsampling=sampling)
    expected = PillowDecoder(spec_of(SIZE), DecodeLimits(), pdq).decode(data, ANY_HASH)
    seen = on_device(perceptual_hash=pdq).decode(data, ANY_HASH)

    assert expected.facts == seen.facts
    assert expected.pixels.shape == seen.pixels.shape
    assert furthest(expected.pixels, seen.pixels) <= NEAR


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (300, 900), (2000, 70), (64, 64), (70, 66)])
def test_every_way_to_resize_is_pillows(mode: str, interpolation: str, size: tuple[int, int]) -> None:
    """
    Landscapes, portraits, a strip whose ends are cut off, and pictures that are enlarged.
    """
    config = {"resize_mode": mode, "interpolation": interpolation, "fill_color": 90}
    data = encoded(photograph(*size, seed=3), "JPEG")
    expected = PillowDecoder(spec_of(96, **config), DecodeLimits(), None).decode(data, ANY_HASH)
    seen = on_device(spec=device_spec(96, **config)).decode(data, ANY_HASH)

    assert furthest(expected.pixels, seen.pixels) <= NEAR


def test_a_grey_one_is_grey() -> None:
    """
    Three equal channels.
    """
    data = encoded(PICTURE.convert("L"), "JPEG")
    expected = PillowDecoder(spec_of(SIZE), DecodeLimits(), None).decode(data, ANY_HASH)
    seen = on_device().decode(data, ANY_HASH)

    assert furthest(expected.pixels, seen.pixels) <= NEAR
    assert 0 == furthest(seen.pixels[..., 0], seen.pixels[..., 2])


def test_one_that_fails_fails_alone() -> None:
    """
    Bytes that are no JPEG, and one whose size is not what was said of it; the others are made.
    """
    found = cpu_device().make([job(), job(b"no picture"), job(width=HEIGHT, height=WIDTH), job(hash_factor=2)])

    assert [False, True, True, False] == [seen is None for seen in found]
    first, last = found[0], found[3]
    assert first is not None
    assert last is not None
    assert (46, 70, 3) == first.small.shape
    assert first.thumbnail is None
    assert last.thumbnail is not None
    assert (230, 350, 3) == last.thumbnail.shape
    assert 0 == furthest(first.small, last.small)


def test_a_batch_gives_what_each_alone_gives() -> None:
    """
    Bit for bit: companions change nothing.
    """
    jobs = [job(), job(orientation=3), job(size=(35, 23)), job(box=(10, 20, 210, 120))]
    alone = [cpu_device().make([one])[0] for one in jobs]
    together = cpu_device().make(jobs)

    for one, other in zip(alone, together, strict=True):
        assert one is not None
        assert other is not None
        assert 0 == furthest(one.small, other.small)


def test_it_says_what_it_is() -> None:
    """
    For the versions of a verdict.
    """
    assert cpu_device().version.startswith("libjpeg, torchvision ")


def test_a_device_that_is_not_there_is_told_at_the_start() -> None:
    """
    With what was found, and what to set instead.
    """
    with pytest.raises(CannotStart, match=r'cuda:63.*or set encoder\.jpeg_decoder = "pillow"'):
        DeviceJpegs("cuda:63")
