"""
Resizing with torch's kernel: near Pillow's everywhere, in every mode, and told apart by the fingerprint.
"""

import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.pictures import ANY_HASH, OPENAI, encoded, photograph, spec_of
from worker.adapters import torch_resize
from worker.adapters.clip_source import resolve
from worker.adapters.torch_resize import open_resizer
from worker.decoders import open_decoder_of
from worker.domain import Pixels, PreprocessSpec
from worker.errors import CannotStart
from worker.fingerprint import space_of
from worker.settings.tree import EncoderSettings, Settings
from worker.stages.decode import DecodeLimits, PillowDecoder, decoder_versions
from worker.stages.preprocess import Area, framed, preprocess_spec, resized
from worker.views import ViewSpec

SIZE = 64
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
BY_TORCH = spec_of(SIZE, resize="torch")
IN_THREADS = Settings.model_validate({"decode": {"isolation": "threads"}})

WITHOUT_TORCH = """
import sys
sys.path.append(sys.argv[1])
from PIL import Image
from worker.adapters.torch_resize import open_resizer

small = open_resizer()(Image.linear_gradient("L").convert("RGB"), (16, 16), "bicubic")
assert "torch" not in sys.modules
import torch

again = open_resizer()(Image.linear_gradient("L").convert("RGB"), (16, 16), "bicubic")
print(small.tobytes() == again.tobytes(), int(torch.arange(5).sum()))
"""


def furthest(one: Image.Image, other: Image.Image) -> int:
    """
    The largest difference of any channel of any pixel, 0 to 255.
    """
    assert (one.mode, one.size) == (other.mode, other.size)
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def rows_first(picture: Image.Image, size: tuple[int, int], interpolation: str) -> Image.Image:
    """
    What Pillow makes of it, in torch's order.
    """
    filtering = FILTERS[interpolation]
    return picture.resize((size[0], picture.height), filtering).resize(size, filtering)


def seen(data: bytes, spec: PreprocessSpec) -> Pixels:
    """
    The picture as it is decoded under that spec.
    """
    return PillowDecoder(spec, DecodeLimits(), None, resizer=open_resizer()).decode(data, ANY_HASH).pixels


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_it_is_near_pillow(mode: str, interpolation: Literal["bicubic", "bilinear"]) -> None:
    """
    Pictures of all modes, tiny ones and long ones: within 1 where they shrink, within 2 where they grow.
    """
    for size in ((301, 223), (64, 64), (63, 127), (63, 201), (2, 7), (1, 1), (1, 40), (50, 1), (3, 900)):
        picture = photograph(*size, seed=size[0]).convert(mode)
        wanted = resized(picture, spec_of(SIZE, interpolation=interpolation)).size
        found = open_resizer()(picture, wanted, interpolation)

        assert furthest(rows_first(picture, wanted, interpolation), found) <= (1 if min(size) >= SIZE else 2), size


def test_what_becomes_one_pixel_wide_or_high_is_pillows() -> None:
    """
    There not every CPU's kernel is right, and nothing is to be gained.
    """
    for size, wanted in (((3, 38), (1, 203)), ((40, 2), (20, 1))):
        picture = photograph(*size).convert("L")

        assert furthest(picture.resize(wanted, FILTERS["bicubic"]), open_resizer()(picture, wanted, "bicubic")) == 0


def test_pictures_that_lie_in_several_pieces_are_resized_too() -> None:
    """
    Pillow keeps no more than 16 MB in one piece: of a larger picture its pixels are brought together first.
    """
    picture = photograph(2400, 1800)
    with pytest.raises(ValueError, match=r".*"):
        picture.__arrow_c_array__()

    assert furthest(rows_first(picture, (85, 64), "bicubic"), open_resizer()(picture, (85, 64), "bicubic")) <= 1


@pytest.mark.parametrize("resize_mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(901, 623), (623, 901), (64, 64), (30, 20), (3000, 40)])
def test_every_resize_mode_gives_the_same_sizes_and_near_pixels(resize_mode: str, size: tuple[int, int]) -> None:
    """
    Only who computes the pixels changes: not which part of a picture is taken, nor its size, nor how it is padded.
    """
    picture = photograph(*size)
    ours, theirs = (spec_of(SIZE, resize_mode=resize_mode, resize=name, fill_color=9) for name in ("torch", "pillow"))
    one, other = resized(picture, ours, None, open_resizer()), resized(picture, theirs)

    assert furthest(framed(one, ours), framed(other, theirs)) <= 3


@pytest.mark.parametrize(
    "data",
    [
        encoded(photograph(301, 223), "JPEG"),
        encoded(photograph(301, 223).convert("L"), "JPEG"),
        encoded(photograph(301, 223).convert("CMYK"), "JPEG"),
        encoded(Image.fromarray(np.linspace(0, 65_535, 90_000).reshape(300, 300).astype(np.uint16)), "PNG"),
        encoded(photograph(301, 223).convert("RGBA"), "PNG"),
        encoded(photograph(301, 223).convert("P"), "PNG"),
        encoded(photograph(40, 30), "WEBP"),
    ],
    ids=["rgb", "grey", "cmyk", "16 bits", "alpha", "palette", "webp"],
)
def test_whole_decodings_are_near(data: bytes) -> None:
    """
    Whatever a file holds, the encoder sees nearly what it sees otherwise: colours come after the size, as ever.
    """
    one, other = (seen(data, spec_of(SIZE, resize=name)).astype(int) for name in ("torch", "pillow"))

    assert np.abs(one - other).max() <= 2


def test_other_views_and_facts_stay_as_they_are() -> None:
    """
    The crops, which nobody resizes, and all facts, the perceptual hash among them, are equal.
    """
    data = encoded(photograph(301, 223), "JPEG")
    one, other = (
        open_decoder_of(IN_THREADS, spec_of(SIZE, resize=name), ViewSpec(native_crops=2)).decode(data, ANY_HASH)
        for name in ("torch", "pillow")
    )

    assert one.facts == other.facts
    assert all(np.array_equal(mine, theirs) for mine, theirs in zip(one.native, other.native, strict=True))


def test_the_square_for_realism_is_resized_likewise() -> None:
    """
    What the statistics are taken of is nearly what they are otherwise taken of, and was not Pillow's.
    """
    squares: list[Pixels] = []

    def remembering(square: Pixels) -> tuple[float, ...]:
        squares.append(square)
        return (0.0,) * 5

    for name in ("torch", "pillow"):
        PillowDecoder(
            spec_of(SIZE, resize=name),
            DecodeLimits(),
            None,
            views=ViewSpec(realism=True),
            statistics=remembering,
            resizer=open_resizer(),
        ).decode(encoded(photograph(901, 623), "JPEG"), ANY_HASH)
    apart = np.abs(squares[0].astype(int) - squares[1].astype(int))

    assert 0 < apart.max() <= 2


@pytest.mark.parametrize("sides", [(512, 384), (900, 620), (901, 623)])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_it_goes_with_jpegs_at_reduced_scale(sides: tuple[int, int], orientation: int) -> None:
    """
    A JPEG that was decoded smaller: by torch where the picture ends with a whole pixel, and else by Pillow, to the bit.
    """
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(*sides), "JPEG", exif=exif.tobytes())
    one, other = (seen(data, spec_of(SIZE, jpeg_oversampling=1, resize=name)) for name in ("torch", "pillow"))

    assert np.abs(one.astype(int) - other.astype(int)).max() <= (0 if sides == (901, 623) else 2)


def test_a_part_in_whole_pixels_is_what_is_resized() -> None:
    """
    The area of a smaller picture is cut out before, so that nothing beside it is seen.
    """
    picture = photograph(80, 70)
    picture.paste("white", (0, 0, 1, 70))
    area = Area((316, 280), (1.0, 0.0, 80.0, 70.0))
    found = resized(picture, spec_of(32, resize="torch"), area, open_resizer())

    assert furthest(open_resizer()(picture.crop((1, 0, 80, 70)), found.size, "bicubic"), found) == 0


def test_it_is_part_of_every_fingerprint_and_pillow_is_not_named() -> None:
    """
    Vectors of both are of different spaces, and without the setting the hash is the one that all banks have.
    """
    plain = {"size": SIZE, **OPENAI}
    spec = preprocess_spec({**plain, "resize": "pillow"})

    assert spec == preprocess_spec(plain)
    assert spec.sha256 != BY_TORCH.sha256
    assert space_of("a", "w", spec) != space_of("a", "w", BY_TORCH)
    assert BY_TORCH.sha256 != spec_of(SIZE, resize="torch", jpeg_oversampling=2).sha256


def test_the_setting_reaches_the_spec_and_the_versions() -> None:
    """
    From the settings to what the encoder is asked for, and to what a verdict names.
    """
    configured = EncoderSettings.model_validate({"resize": "torch"})

    assert resolve(configured).preprocess["resize"] == "torch"
    assert "resize" not in resolve(EncoderSettings()).preprocess
    assert decoder_versions(BY_TORCH).keys() - decoder_versions(spec_of(SIZE)).keys() == {"torch"}


def test_a_spec_without_its_resizer_is_refused() -> None:
    """
    Nobody falls back to Pillow in silence, and a name that nobody knows is none.
    """
    with pytest.raises(ValueError, match="give the decoder its resizer"):
        PillowDecoder(BY_TORCH, DecodeLimits(), None)
    with pytest.raises(ValueError, match="no resizer was given"):
        resized(photograph(90, 80), BY_TORCH)
    with pytest.raises(ValueError, match="want pillow or torch"):
        preprocess_spec({"size": SIZE, "resize": "opencv", **OPENAI})


def test_a_torch_without_the_kernel_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the library is not there, the worker does not start, and is told what to do.
    """
    monkeypatch.setattr(torch_resize, "_LIBRARY", "libnothing.so")
    torch_resize._kernel.cache_clear()
    try:
        with pytest.raises(CannotStart, match=r"set encoder\.resize to pillow"):
            open_resizer()
    finally:
        torch_resize._kernel.cache_clear()


def test_a_call_that_fails_is_for_want_of_memory() -> None:
    """
    A picture that the kernel cannot be given memory for is told as such, as any other decoder's.
    """
    with pytest.raises(MemoryError, match="cannot allocate"):
        open_resizer()(Image.new("RGB", (9, 9)), (1 << 30, 1 << 30), "bicubic")


def test_the_library_is_opened_without_torch_and_beside_it() -> None:
    """
    The Python package is not imported for it, and works as ever where it is imported after.
    """
    program = [sys.executable, "-I", "-c", WITHOUT_TORCH, str(ROOT)]
    ended = subprocess.run(program, capture_output=True, check=True, text=True)

    assert ended.stdout.split() == ["True", "10"]
