"""
The views of a picture: what they hold across formats, colours and sizes, and that the global view alone is as ever.
"""

import numpy as np
import pytest
from PIL import Image

from schemas.verdict import ContentCredentials
from tests.pictures import (
    ANY_HASH,
    decoder_of,
    encoded,
    photograph,
    profile_with_red_and_blue_swapped,
    spec_of,
)
from worker.adapters.perceptual_hash import pdq
from worker.adapters.realism_statistics import statistics
from worker.domain import Pixels
from worker.stages.decode import DecodeLimits, PillowDecoder
from worker.stages.decode_notes import DecodeNote
from worker.stages.native_views import crop_boxes
from worker.stages.one_footing import MAX_JPEG_SIDE_PX, reduced_to, through_jpeg
from worker.stages.preprocess import framed, resized
from worker.views import DecodedPicture, ViewSpec

SIZE = 48
CROPS = ViewSpec(native_crops=5)
ALL = ViewSpec(native_crops=3, realism=True, max_side_px=160, reencode_quality=90)


def seen(data: bytes, views: ViewSpec, size: int = SIZE) -> DecodedPicture:
    """
    The decoded picture.
    """
    return decoder_of(size, views=views).decode(data, ANY_HASH)


def crops_of(picture: Image.Image, count: int = 5) -> list[Pixels]:
    """
    What native crops of an RGB picture in sRGB must hold.
    """
    return [np.asarray(picture.crop(box)) for box in crop_boxes(*picture.size, SIZE, count)]


def far(one: Pixels, other: Pixels) -> float:
    """
    Mean difference in levels of 0 to 255.
    """
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def files() -> dict[str, bytes]:
    """
    A picture in files of every kind that decode must bring to one form.
    """
    picture = photograph(230, 170)
    alpha = Image.linear_gradient("L").resize(picture.size)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "jpeg": encoded(picture, "JPEG", quality=92),
        "grey": encoded(picture.convert("L"), "PNG"),
        "alpha": encoded(Image.merge("RGBA", (*picture.split(), alpha)), "PNG"),
        "turned": encoded(picture, "JPEG", quality=92, exif=turned),
        "cmyk": encoded(picture.convert("CMYK"), "JPEG", quality=92),
        "profile": encoded(picture, "PNG", icc_profile=profile_with_red_and_blue_swapped()),
        "palette": encoded(picture.quantize(64), "GIF"),
        "webp": encoded(picture, "WEBP", quality=90),
    }


FILES = files()


@pytest.mark.parametrize("name", FILES)
def test_other_views_leave_the_global_view_and_the_facts_as_they_are(name: str) -> None:
    """
    Crops and statistics are additions: the global view and every fact are those of a decoder that makes nothing else.
    """
    views = ViewSpec(native_crops=5, realism=True, perturbation=True)
    plain = decoder_of(SIZE, perceptual_hash=pdq).decode(FILES[name], ANY_HASH)
    full = decoder_of(SIZE, perceptual_hash=pdq, views=views).decode(FILES[name], ANY_HASH)

    assert np.array_equal(plain.pixels, full.pixels)
    assert plain.facts == full.facts
    assert ((), None) == (plain.native, plain.realism)
    assert 5 == len(full.native)
    assert full.realism is not None


@pytest.mark.parametrize("name", FILES)
def test_facts_are_of_the_file_whatever_it_is_reduced_to(name: str) -> None:
    """
    Neither the size limit nor the JPEG in between changes what is found in the bytes, the perceptual hash included.
    """
    plain = decoder_of(SIZE, perceptual_hash=pdq).decode(FILES[name], ANY_HASH)
    reduced = decoder_of(SIZE, perceptual_hash=pdq, views=ALL).decode(FILES[name], ANY_HASH)

    assert plain.facts == reduced.facts
    assert 3 == len(reduced.native)


@pytest.mark.parametrize("name", FILES)
def test_crops_have_the_colours_of_the_global_view(name: str) -> None:
    """
    Alpha, orientation, CMYK and profiles are undone in crops as they are in the global view.

    The middle of a picture whose shorter side is the encoder's is both its global view and its first crop.
    """
    decoded = seen(FILES[name], ViewSpec(native_crops=1), 170)

    assert np.array_equal(decoded.pixels, decoded.native[0])


def test_an_orientation_is_undone_before_crops_are_cut() -> None:
    """
    A photograph that was taken upright and stored lying has crops of the upright picture.
    """
    upright = photograph(230, 170).transpose(Image.Transpose.ROTATE_270)
    crops = seen(FILES["turned"], CROPS).native

    assert all(far(own, crop) < 4 for own, crop in zip(crops_of(upright), crops, strict=True))


def test_a_profile_is_applied_to_crops() -> None:
    """
    Under a profile that swaps red and blue, so do the crops.
    """
    plain = crops_of(photograph(230, 170))
    crops = seen(FILES["profile"], CROPS).native

    assert all(far(own[..., ::-1], crop) < 3 for own, crop in zip(plain, crops, strict=True))


def test_a_profile_that_cannot_be_used_is_noted_once() -> None:
    """
    All views go without it, and the facts say so once.
    """
    data = encoded(photograph(90, 70), "PNG", icc_profile=b"no profile")
    for views in (CROPS, ALL):
        decoded = seen(data, views)

        assert (DecodeNote.ICC_DROPPED,) == decoded.facts.warnings
    assert np.array_equal(crops_of(photograph(90, 70))[0], seen(data, CROPS).native[0])


def test_through_jpeg_formats_are_nearly_alike() -> None:
    """
    The same pixels as PNG, WebP or high-quality JPEG give nearly the same views once all go through one JPEG.
    """
    picture = photograph(230, 170)
    views = ViewSpec(native_crops=3, reencode_quality=80)
    lossless = [seen(encoded(picture, "PNG"), views), seen(encoded(picture, "WEBP", lossless=True), views)]
    lossy = seen(encoded(picture, "JPEG", quality=98, subsampling=0), views)
    untouched = seen(encoded(picture, "PNG"), ViewSpec(native_crops=3))

    assert np.array_equal(lossless[0].pixels, lossless[1].pixels)
    assert all(np.array_equal(*pair) for pair in zip(lossless[0].native, lossless[1].native, strict=True))
    for crop, other, own in zip(lossless[0].native, lossy.native, untouched.native, strict=True):
        assert far(crop, other) < far(crop, own) / 2
    assert 0 < far(lossless[0].pixels, untouched.pixels)


def test_the_jpeg_is_one_of_the_stated_quality_with_halved_chroma() -> None:
    """
    What comes back is what Pillow's own file of that quality and subsampling holds, for grey pictures too.
    """
    picture = photograph(101, 67)
    file = encoded(picture, "JPEG", quality=77, subsampling="4:2:0")
    expected = decoder_of(67).decode(file, ANY_HASH).pixels

    assert np.array_equal(expected, seen(encoded(picture, "PNG"), ViewSpec(reencode_quality=77), 67).pixels)
    assert far(np.asarray(picture), np.asarray(through_jpeg(picture, 77))) > 1


def test_a_long_picture_is_reduced_before_its_views_are_cut() -> None:
    """
    The limit holds for the longer side, in proportion; what is within it is not touched.
    """
    picture = photograph(400, 200)
    small = reduced_to(picture, 160)
    decoded = seen(encoded(picture, "PNG"), ViewSpec(native_crops=5, max_side_px=160))

    assert (160, 80) == small.size
    assert reduced_to(picture, 400) is picture is reduced_to(picture, None)
    assert (7, 1) == reduced_to(photograph(400, 2), 7).size
    assert all(np.array_equal(*pair) for pair in zip(crops_of(small), decoded.native, strict=True))
    assert np.array_equal(np.asarray(framed(resized(small, spec_of(SIZE)), spec_of(SIZE))), decoded.pixels)


def test_a_picture_longer_than_any_jpeg_has_its_views() -> None:
    """
    A strip beyond libjpeg's limit is reduced to it, and not refused.
    """
    data = encoded(Image.new("L", (MAX_JPEG_SIDE_PX + 100, 3), 90), "PNG")
    decoded = seen(data, ViewSpec(native_crops=1, reencode_quality=90))

    assert (MAX_JPEG_SIDE_PX + 100, 3) == (decoded.facts.width, decoded.facts.height)
    assert {90} == set(decoded.native[0].ravel().tolist())


def test_realism_is_measured_at_one_size_and_kept_as_float32() -> None:
    """
    The statistics are asked of the whole picture at 512 x 512, and are numbers that the cache can hold.
    """
    picture = photograph(700, 300)
    asked: list[Pixels] = []

    def measured(pixels: Pixels) -> tuple[float, ...]:
        asked.append(pixels)
        return statistics(pixels)

    decoder = PillowDecoder(spec_of(SIZE), DecodeLimits(), None, views=ViewSpec(realism=True), statistics=measured)
    realism = decoder.decode(encoded(picture, "PNG"), ANY_HASH).realism

    assert realism is not None
    assert np.array_equal(np.asarray(picture.resize((512, 512), Image.Resampling.BICUBIC)), asked[0])
    assert tuple(float(np.float32(value)) for value in statistics(asked[0])) == realism


def test_a_picture_is_resized_for_nothing_but_the_views_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Resizing is what decoding costs most of: once for the encoder's input, and once more only for realism.
    """
    resize, sizes = Image.Image.resize, list[tuple[int, int]]()

    def counting(picture: Image.Image, size: tuple[int, int], *more: object) -> Image.Image:
        sizes.append(size)
        return resize(picture, size, *more)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(Image.Image, "resize", counting)
    seen(FILES["jpeg"], ViewSpec())
    whole_alone = list(sizes)
    seen(FILES["jpeg"], ViewSpec(realism=True))

    assert 1 == len(whole_alone)
    assert {(512, 512)} == set(sizes[1:]) - set(whole_alone)


def test_statistics_are_not_asked_for_where_they_are_not_wanted_and_must_be_there_where_they_are() -> None:
    """
    A decoder that cannot make a view is refused when it is made, and not at the first picture.
    """
    decoder = PillowDecoder(spec_of(SIZE), DecodeLimits(), None, statistics=statistics)

    assert decoder.decode(FILES["jpeg"], ANY_HASH).realism is None
    with pytest.raises(ValueError, match="statistics"):
        PillowDecoder(spec_of(SIZE), DecodeLimits(), None, views=ViewSpec(realism=True))


def test_what_a_file_says_of_its_origin_is_among_the_facts() -> None:
    """
    The reader of credentials is given the file's bytes, and its answer is a fact.
    """
    found = ContentCredentials(state="valid", issuer="A Camera")
    given: list[bytes] = []

    def reader(data: bytes) -> ContentCredentials | None:
        given.append(data)
        return found if data == FILES["jpeg"] else None

    decoder = PillowDecoder(spec_of(SIZE), DecodeLimits(), None, credentials=reader)

    assert found == decoder.decode(FILES["jpeg"], ANY_HASH).facts.credentials
    assert decoder.decode(FILES["grey"], ANY_HASH).facts.credentials is None
    assert [FILES["jpeg"], FILES["grey"]] == given
