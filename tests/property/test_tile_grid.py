"""
Laws of the grid that a heat map lies on.
"""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.heads.heatmap import LEAST_TILES, heat_at, regions_by_evidence, tile_grid

sides = st.integers(1, 900)
sizes = st.integers(1, 64)


@given(
    width=st.integers(1, 10**6),
    height=st.integers(1, 10**6),
    size=st.integers(1, 512),
    most=st.integers(LEAST_TILES, 300),
)
def test_tiles_lie_in_the_picture_and_are_few(width: int, height: int, size: int, most: int) -> None:
    """
    Whatever the picture: no tile reaches over its edge, none is there twice, and there are at most so many.
    """
    grid = tile_grid(width, height, size, max(1, size // 2), max_tiles=most)
    boxes = grid.boxes

    assert 1 <= len(boxes) == len(grid) == len(set(boxes)) <= most
    assert grid.shape == (len(grid.tops), len(grid.lefts))
    assert min(box[0] for box in boxes) == 0
    assert min(box[1] for box in boxes) == 0
    assert max(box[2] for box in boxes) <= width
    assert max(box[3] for box in boxes) <= height
    assert {(right - left, bottom - top) for left, top, right, bottom in boxes} == {
        (min(size, width), min(size, height))
    }


@settings(deadline=None)
@given(width=st.integers(1, 400), height=st.integers(1, 400), size=sizes, data=st.data())
def test_every_pixel_is_looked_at(width: int, height: int, size: int, data: st.DataObject) -> None:
    """
    As long as the limit to the number of tiles does not make the stride grow.
    """
    stride = data.draw(st.integers(1, size))
    grid = tile_grid(width, height, size, stride, max_tiles=400 * 400)
    columns, rows = np.zeros(width, np.bool_), np.zeros(height, np.bool_)
    for left in grid.lefts:
        columns[left : left + grid.width] = True
    for top in grid.tops:
        rows[top : top + grid.height] = True

    assert columns.all()
    assert rows.all()
    assert np.diff(grid.lefts).max(initial=0) <= stride
    assert np.diff(grid.tops).max(initial=0) <= stride


@given(width=sides, height=sides, size=sizes, seed=st.integers(0, 2**32 - 1))
def test_the_map_stays_between_the_tiles(width: int, height: int, size: int, seed: int) -> None:
    """
    Interpolation invents no heat, and a level map stays level.
    """
    grid = tile_grid(width, height, size, max(1, size // 2), max_tiles=64)
    evidence = np.random.default_rng(seed).normal(size=len(grid))
    heat = heat_at(evidence, grid, picture=(height, width), shape=(20, 30))
    level = heat_at(np.full(len(grid), 2.5), grid, picture=(height, width), shape=(20, 30))

    assert heat.shape == (20, 30)
    assert heat.dtype == np.float32
    assert heat.min() >= np.float32(evidence.min()) - 1e-6
    assert heat.max() <= np.float32(evidence.max()) + 1e-6
    assert np.unique(level).tolist() == [2.5]


@given(width=sides, height=sides, size=sizes, count=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_regions_are_apart_and_in_order(width: int, height: int, size: int, count: int, seed: int) -> None:
    """
    The first is the tile with the most evidence, each next one has no more, and no two overlap.
    """
    grid = tile_grid(width, height, size, max(1, size // 2), max_tiles=64)
    evidence = np.random.default_rng(seed).normal(size=len(grid))
    chosen = regions_by_evidence(evidence, grid, count)
    boxes = [grid.boxes[number] for number in chosen]
    overlaps = [
        (one, two)
        for number, one in enumerate(boxes)
        for two in boxes[:number]
        if max(one[0], two[0]) < min(one[2], two[2]) and max(one[1], two[1]) < min(one[3], two[3])
    ]

    assert chosen[0] == int(np.argmax(evidence))
    assert 1 <= len(chosen) <= count
    assert evidence[list(chosen)].tolist() == sorted(evidence[list(chosen)], reverse=True)
    assert overlaps == []
