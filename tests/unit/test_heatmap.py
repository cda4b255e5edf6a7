"""
The heat map and the review over it: heat where a picture's texture is that of generated references, and nowhere else.
"""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.fake_encoder import SIZE, FakeEncoder
from worker.domain import Pixels
from worker.heads.features import FeatureTable, References
from worker.heads.heatmap import MAX_TILES, heat_at, nearest_of_both, tile_evidence, tile_grid, view_for_tiles
from worker.heads.reference_bank import ABSENT, ExactBank, Nearest, NearestOfClass
from worker.stages.review_picture import CROPS, REFERENCES, Review, review_of


class TextureEncoder(FakeEncoder):
    """
    Sees how much neighbouring pixels differ across, down and over both: three numbers per picture, and a constant.
    """

    def encode(self, pixels: Sequence[Pixels]) -> NDArray[np.float32]:
        """
        Raw features, float32[n, 4].
        """
        self.batches.append(len(pixels))
        self.encoded += len(pixels)
        stacked = np.stack(pixels).astype(np.float64).mean(axis=3) / 255
        across = np.abs(np.diff(stacked, axis=2)).mean(axis=(1, 2))
        down = np.abs(np.diff(stacked, axis=1)).mean(axis=(1, 2))
        both = np.abs(np.diff(np.diff(stacked, axis=1), axis=2)).mean(axis=(1, 2))
        return np.stack([across, down, both, np.full(len(pixels), 0.02)], axis=1).astype(np.float32)


def grain(height: int, width: int, seed: int) -> Pixels:
    """
    What a sensor leaves: noise that differs from pixel to pixel.
    """
    return np.random.default_rng(seed).integers(90, 160, (height, width, 3), dtype=np.uint8)


def stripes(height: int, width: int, seed: int) -> Pixels:
    """
    What a bad up-sampling leaves: every other column brighter.
    """
    shades = np.random.default_rng(seed).integers(100, 130, (1, 1, 3))
    pattern = shades + 40 * (np.arange(width) % 2)[None, :, None]
    return np.broadcast_to(pattern, (height, width, 3)).astype(np.uint8)


def bank_of(pictures: Sequence[Pixels], *, positive: Sequence[bool], native: bool = True) -> ExactBank:
    """
    References of one crop each, which is the whole picture; without ``native`` there are no crops.
    """
    count = len(pictures)
    features = TextureEncoder().encode(pictures)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return ExactBank(
        References(
            features=FeatureTable(
                unit=unit,
                norm=np.ones(count),
                native=unit if native else np.empty((0, unit.shape[1]), np.float32),
                native_owner=np.arange(count if native else 0, dtype=np.int64),
                realism=np.full((count, 5), np.nan),
                shift=np.full((count, 3), np.nan),
                format=("PNG",) * count,
                short_side_px=np.full(count, float(SIZE)),
            ),
            positive=np.array(positive, dtype=np.bool_),
            generator=tuple("mill" if yes else None for yes in positive),
            source=("tests",) * count,
            content=tuple(f"{number:064x}" for number in range(count)),
        )
    )


def a_bank(*, native: bool = True) -> ExactBank:
    """
    Ten pictures of grain and ten of stripes, the latter generated.
    """
    pictures = [make(SIZE, SIZE, seed) for make in (grain, stripes) for seed in range(10)]
    return bank_of(pictures, positive=[False] * 10 + [True] * 10, native=native)


def a_patched_picture(side: int = 256) -> Pixels:
    """
    Grain, but for the lower right quadrant.
    """
    picture = grain(side, side, 77)
    picture[side // 2 :, side // 2 :] = stripes(side // 2, side // 2, 78)
    return picture


@pytest.mark.parametrize("native", [True, False])
def test_the_patched_quadrant_is_warm(*, native: bool) -> None:
    """
    Every tile inside the quadrant speaks for a generator, every tile outside of it against, and the map shows that.
    """
    review = review_of(a_patched_picture(), TextureEncoder(), a_bank(native=native))
    boxes = np.array(review.grid.boxes)
    inside = (boxes[:, 0] >= 128) & (boxes[:, 1] >= 128)
    outside = (boxes[:, 2] <= 128) | (boxes[:, 3] <= 128)
    heat = heat_at(review.evidence, review.grid, picture=(256, 256), shape=(64, 64))

    assert review.view == ("native" if native else "global")
    assert inside.sum() == 49
    assert (review.evidence[inside] > 0).all()
    assert (review.evidence[outside] < 0).all()
    assert heat[40:, 40:].min() > 0 > heat[:24, :].max()


def test_the_first_crop_is_in_the_patch_and_names_what_it_is_like() -> None:
    """
    The reviewer sees the most suspicious place first, with generated references beside it.
    """
    review = review_of(a_patched_picture(), TextureEncoder(), a_bank())
    first = review.crops[0]
    left, top, _, _ = review.grid.boxes[first.tile]
    rows = [row for row, _ in first.references]
    similarities = [similarity for _, similarity in first.references]

    assert (left >= 128, top >= 128) == (True, True)
    assert first.tile == int(np.argmax(review.evidence))
    assert len(review.crops) == CROPS
    assert len(rows) == REFERENCES
    assert all(row >= 10 for row in rows)
    assert similarities == sorted(similarities, reverse=True)


def test_a_tile_says_the_same_alone_and_in_company() -> None:
    """
    The map of a part is the part of the map, where the tiles fall alike.
    """
    picture, bank = a_patched_picture(), a_bank()
    whole = review_of(picture, TextureEncoder(), bank)
    part = review_of(picture[:128, :128], TextureEncoder(), bank)
    evidence = whole.evidence.reshape(whole.grid.shape)[:7, :7]

    assert part.grid.shape == (7, 7)
    np.testing.assert_allclose(part.evidence.reshape(7, 7), evidence, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1), (5, 200), (SIZE, SIZE), (700, 20)])
def test_small_and_narrow_pictures(shape: tuple[int, int]) -> None:
    """
    What is smaller than a tile is mirrored up to one.
    """
    review = review_of(grain(*shape, 3), TextureEncoder(), a_bank())

    assert len(review.evidence) == len(review.grid)
    assert np.isfinite(review.evidence).all()
    assert review.crops


def test_large_pictures_cost_a_bounded_number_of_forwards() -> None:
    """
    The stride grows with the picture.
    """
    encoder = TextureEncoder()
    review = review_of(np.zeros((3000, 2500, 3), np.uint8), encoder, a_bank())

    assert encoder.encoded == len(review.grid) <= MAX_TILES
    assert max(encoder.batches) <= 16
    assert len(review.grid) > MAX_TILES / 2


def test_features_that_are_not_finite_are_refused() -> None:
    """
    Such a tile would be near to nothing, and look cool.
    """
    encoder = FakeEncoder()
    encoder.nan_below = 1.1
    with pytest.raises(ValueError, match="not finite"):
        _ = review_of(grain(40, 40, 1), encoder, a_bank())


def test_a_bank_without_one_class_says_nothing() -> None:
    """
    There is no evidence without something to compare.
    """
    bank = bank_of([grain(SIZE, SIZE, 1)], positive=[False])
    evidence, view = tile_evidence(np.eye(4, dtype=np.float32), bank)

    assert view == view_for_tiles(bank) == "global"
    assert np.isnan(evidence).all()


def test_nearest_of_both_names_each_reference_once() -> None:
    """
    Several crops of one picture are one reference, and a place that is empty is none.
    """
    nearest = Nearest(
        NearestOfClass(np.array([[0.9, 0.8, 0.7]], np.float32), np.array([[4, 4, 2]])),
        NearestOfClass(np.array([[0.85, -1.0, -1.0]], np.float32), np.array([[7, ABSENT, ABSENT]])),
    )
    found = nearest_of_both(nearest, 0, 3)

    assert [row for row, _ in found] == [4, 7, 2]
    assert [similarity for _, similarity in found] == pytest.approx([0.9, 0.85, 0.7])


def test_fewer_tiles_than_corners_are_refused() -> None:
    """
    No stride is long enough for that.
    """
    with pytest.raises(ValueError, match="at least 4 tiles"):
        tile_grid(100, 100, 10, 5, max_tiles=3)


@pytest.mark.parametrize("numbers", [(0, 5, 5, 5), (5, 0, 5, 5), (5, 5, 0, 5), (5, 5, 5, 0)])
def test_grids_of_nothing_are_refused(numbers: tuple[int, int, int, int]) -> None:
    """
    Every side, the tile and the stride have at least one pixel.
    """
    with pytest.raises(ValueError, match="above 0"):
        tile_grid(*numbers)


def test_a_review_is_the_same_every_time() -> None:
    """
    Nothing in it is left to chance.
    """

    def numbers(review: Review) -> list[object]:
        return [review.evidence.tolist(), review.crops, review.view]

    first, second = (review_of(a_patched_picture(), TextureEncoder(), a_bank()) for _ in range(2))

    assert numbers(first) == numbers(second)
