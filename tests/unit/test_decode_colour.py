"""
Colour: nothing is clipped, nothing hidden is shown, and profiles and orientation are honoured.
"""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from tests.pictures import (
    ANY_HASH,
    decoded,
    decoder_of,
    encoded,
    photograph,
    profile_with_red_and_blue_swapped,
    spec_of,
)
from worker.stages.colour import MAX_PROFILE_BYTES, flattened
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.decode_notes import DecodeNote

STORED: dict[int, Callable[[Image.Image], Image.Image]] = {
    1: lambda picture: picture,
    2: ImageOps.mirror,
    3: lambda picture: picture.rotate(180),
    4: ImageOps.flip,
    5: lambda picture: ImageOps.mirror(picture.rotate(270, expand=True)),
    6: lambda picture: picture.rotate(90, expand=True),
    7: lambda picture: ImageOps.mirror(picture.rotate(90, expand=True)),
    8: lambda picture: picture.rotate(270, expand=True),
}
"""By EXIF orientation, how a camera so held would have stored an upright picture."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_all_orientations_of_a_picture_decode_alike(orientation: int, name: str) -> None:
    """
    However the camera was held, the encoder sees the same pixels, bit for bit.
    """
    upright = photograph(93, 70)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(STORED[orientation](upright), name, exif=exif, **({"lossless": True} if name == "WEBP" else {}))
    seen = decoder_of(32).decode(data, ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert np.array_equal(decoded(encoded(upright, "PNG"), 32), pixels)
    assert orientation == facts.orientation


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_the_standard_does_not_know_is_upright(orientation: int) -> None:
    """
    Senseless orientations are ignored, as viewers ignore them.
    """
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    facts = decoder_of(32).decode(encoded(photograph(40, 30), "JPEG", exif=exif), ANY_HASH).facts

    assert 1 == facts.orientation


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_fail_a_picture(name: str) -> None:
    """
    EXIF is a comment; a picture whose EXIF is rubbish is upright, and the facts say so.
    """
    data = encoded(photograph(40, 40), name, exif=b"Exif\0\0rubbish, not TIFF")
    facts = decoder_of(32).decode(data, ANY_HASH).facts

    assert 1 == facts.orientation
    assert (DecodeNote.EXIF_DAMAGED,) == facts.warnings


def test_sixteen_bit_grey_is_rescaled() -> None:
    """
    Black stays black, white stays white and the rest is even: Pillow's own conversion clips nearly all to white.
    """
    ramp = np.linspace(0, 65_535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    seen = decoder_of(64).decode(encoded(Image.fromarray(ramp), "PNG"), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts
    expected = np.rint(ramp / 257).astype(np.uint8)

    assert "I;16" == facts.mode
    assert np.array_equal(np.repeat(expected[:, :, None], 3, axis=2), pixels)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_wide_modes_are_rescaled(mode: str) -> None:
    """
    Whatever reader may give 32-bit integers or floats, their range becomes black to white.
    """
    top = 65_535 if mode == "I" else 1.0
    values = (np.linspace(0, 1, 256) * top).reshape(16, 16).astype(np.int32 if mode == "I" else np.float32)
    flat, alpha = flattened(Image.fromarray(values, mode=mode))

    assert ("L", "none") == (flat.mode, alpha)
    assert list(range(256)) == np.asarray(flat).ravel().tolist()


def test_floats_beyond_one_and_not_finite_stay_in_range() -> None:
    """
    The largest float becomes white; what is no number becomes black.
    """
    values = np.array([[0.0, 2.0], [4.0, np.nan]], np.float32)
    flat, _ = flattened(Image.fromarray(values))

    assert [0, 128, 255, 0] == np.asarray(flat).ravel().tolist()


@pytest.mark.parametrize("name", ["PNG", "WEBP"])
def test_what_lies_under_full_transparency_is_not_seen(name: str) -> None:
    """
    A payload hidden where alpha is 0 shows as the white paper, and the facts tell that there was alpha.
    """
    picture = photograph(64, 64).convert("RGBA")
    picture.putalpha(0)
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    seen = decoder_of(64).decode(encoded(picture, name, **options), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert 255 == pixels.min()
    assert "composited" == facts.alpha


def test_half_transparency_is_mixed_with_white() -> None:
    """
    Alpha 128 of black over white is the grey between.
    """
    pixels = decoded(encoded(Image.new("RGBA", (64, 64), (0, 0, 0, 128)), "PNG"), 64)

    assert {127} == set(pixels.ravel().tolist())


def test_an_opaque_alpha_channel_changes_nothing() -> None:
    """
    Alpha that hides nothing is named, and the pixels are those without it.
    """
    picture = photograph(64, 64)
    seen = decoder_of(64).decode(encoded(picture.convert("RGBA"), "PNG"), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert np.array_equal(np.asarray(picture), pixels)
    assert "opaque" == facts.alpha


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "LA", "I;16"])
def test_every_kind_of_transparency_shows_the_paper(mode: str) -> None:
    """
    Palettes, colour keys and grey with alpha are all composited.
    """
    transparency: object = {"P": 0, "L": 7, "RGB": (1, 2, 3), "I;16": 700}.get(mode)
    if mode == "LA":
        picture = Image.new("LA", (64, 64), (7, 0))
    elif mode == "I;16":
        picture = Image.fromarray(np.full((64, 64), 700, np.uint16))
    else:
        picture = Image.new(mode, (64, 64), (1, 2, 3) if mode == "RGB" else 7 if mode == "L" else 0)
    options = {} if transparency is None else {"transparency": transparency}
    seen = decoder_of(64).decode(encoded(picture, "PNG", **options), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert 255 == pixels.min()
    assert "composited" == facts.alpha


def test_palettes_are_resolved() -> None:
    """
    A palette picture is resized in its colours, not in its indices.
    """
    palette = photograph(200, 150).quantize(64)
    pixels = decoded(encoded(palette, "PNG"), 64)

    assert np.array_equal(decoded(encoded(palette.convert("RGB"), "PNG"), 64), pixels)


def test_cmyk_is_converted() -> None:
    """
    A CMYK JPEG shows the colours it means, and not their negative.
    """
    picture = Image.new("CMYK", (64, 64), (0, 255, 255, 0))
    seen = decoder_of(64).decode(encoded(picture, "JPEG", quality=95), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert "CMYK" == facts.mode
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() < 12


def test_a_profile_is_applied() -> None:
    """
    Under a profile that exchanges red and blue, a red picture is blue.
    """
    data = encoded(Image.new("RGB", (80, 60), (255, 0, 0)), "PNG", icc_profile=profile_with_red_and_blue_swapped())
    seen = decoder_of(32).decode(data, ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert np.abs(pixels.astype(int) - (0, 0, 255)).max() < 12
    assert () == facts.warnings


@pytest.mark.parametrize(
    "profile", [b"not a profile", b"\0" * (MAX_PROFILE_BYTES + 1)], ids=["damaged", "larger than any honest one"]
)
def test_an_unusable_profile_is_dropped_with_a_warning(profile: bytes) -> None:
    """
    A profile that cannot be applied is left out, and the facts say so.
    """
    picture = photograph(64, 64)
    seen = decoder_of(64).decode(encoded(picture, "WEBP", lossless=True, icc_profile=profile), ANY_HASH)
    pixels, facts = seen.pixels, seen.facts

    assert np.array_equal(np.asarray(picture), pixels)
    assert (DecodeNote.ICC_DROPPED,) == facts.warnings


def test_a_profile_for_another_colour_space_is_dropped() -> None:
    """
    An RGB profile in a grey picture means nothing.
    """
    data = encoded(photograph(64, 64).convert("L"), "PNG", icc_profile=profile_with_red_and_blue_swapped())

    assert (DecodeNote.ICC_DROPPED,) == decoder_of(64).decode(data, ANY_HASH).facts.warnings


def test_padding_is_not_coloured_by_a_profile() -> None:
    """
    Where a model pads, the padding has the model's colour, whatever profile the picture carries.
    """
    data = encoded(Image.new("RGB", (64, 32), (255, 0, 0)), "PNG", icc_profile=profile_with_red_and_blue_swapped())
    padding = spec_of(64, resize_mode="longest", fill_color=9)
    pixels = PillowDecoder(padding, DecodeLimits(), None).decode(data, ANY_HASH).pixels

    assert {9} == set(pixels[:16].ravel().tolist()) == set(pixels[48:].ravel().tolist())
    assert np.abs(pixels[16:48].astype(int) - (0, 0, 255)).max() < 12
