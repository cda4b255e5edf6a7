"""
The heat map: what the neighbours of each tile of a picture say, as a map for reviewers. Never part of a score.

Source of the idea: Zhang et al., "Perceptual Artifacts Localization for Image Synthesis Tasks", ICCV 2023, arXiv
2310.05590. Theirs segments visible defects with a network trained for it; here every tile is one query to the bank, so
what is warm looks like generated references, whether or not anything is wrong with it to the eye.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.heads.features import Column, Matrix
from worker.heads.knn import TEMPERATURE, K
from worker.heads.reference_bank import Nearest, ReferenceBank, View
from worker.heads.soft_vote import vote_depth, vote_log_odds

MAX_TILES: Final = 256

LEAST_TILES: Final = 4
"""One for each corner of a picture."""

TILES_AT_ONCE: Final = 32
"""Queries per search: brute force holds one number per query and reference."""

Heat = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TileVote:
    """
    How a tile's neighbours are counted, and what of their log-odds speaks for the positive label.

    The evidence is ``direction * (log-odds - neutral)``. ``head`` names the fitted head whose numbers these are; None
    for the vote as it stands, with nothing learnt.
    """

    k: int = K
    temperature: float = TEMPERATURE
    direction: float = 1.0
    neutral: float = 0.0
    head: str | None = None


@dataclass(frozen=True, slots=True)
class TileGrid:
    """
    Tiles of ``width`` x ``height`` pixels whose left upper corners are all pairs of ``lefts`` and ``tops``.
    """

    width: int
    height: int
    lefts: tuple[int, ...]
    tops: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.lefts) * len(self.tops)

    @property
    def shape(self) -> tuple[int, int]:
        """
        Rows and columns of the map.
        """
        return len(self.tops), len(self.lefts)

    @property
    def boxes(self) -> tuple[tuple[int, int, int, int], ...]:
        """
        Left, top, right and bottom of every tile, row by row, the last two excluded.
        """
        return tuple((left, top, left + self.width, top + self.height) for top in self.tops for left in self.lefts)


def tile_grid(width: int, height: int, size: int, stride: int, *, max_tiles: int = MAX_TILES) -> TileGrid:
    """
    Tiles of ``size`` pixels a side from edge to edge, at even distances of at most ``stride``; at most ``max_tiles``.

    The stride grows until there are few enough. From where it exceeds ``size`` (pictures of more than ``max_tiles``
    times ``size`` squared pixels) narrow strips between the tiles are not looked at. A tile is narrower or lower than
    ``size`` only where the picture is. Raises ``ValueError`` for sides below 1, and for fewer than ``LEAST_TILES``.
    """
    if min(width, height, size, stride) < 1 or max_tiles < LEAST_TILES:
        raise ValueError(
            f"a picture of {width} x {height}, tiles of {size} every {stride} and at most {max_tiles}: "
            f"want all above 0 and at least {LEAST_TILES} tiles"
        )
    across, down = min(size, width), min(size, height)
    step = stride
    while _places(width - across, step) * _places(height - down, step) > max_tiles:
        step += max(1, step // 8)
    return TileGrid(across, down, _spread(width - across, step), _spread(height - down, step))


RAW: Final = TileVote()


def tile_evidence(unit: Matrix, bank: ReferenceBank, vote: TileVote = RAW) -> tuple[Column, View]:
    """
    Evidence for the positive label of every tile, float64[n], by the soft vote of its neighbours, and the view asked.

    ``unit`` float32[n, d]: the tiles' embeddings, of length 1. Asked is the bank's native view, and the global one
    where either class has no crop: whole pictures are less like a tile, and the map is then a weaker hint.
    """
    view = view_for_tiles(bank)
    sizes = bank.sizes(view)
    if not min(sizes.positive, sizes.negative):
        return np.full(len(unit), np.nan), view
    depth = vote_depth(vote.k, sizes)
    parts = []
    for start in range(0, len(unit), TILES_AT_ONCE):
        nearest = bank.nearest(view, unit[start : start + TILES_AT_ONCE], depth)
        parts.append(vote_log_odds(nearest, sizes, k=vote.k, temperature=vote.temperature))
    return vote.direction * (np.concatenate([np.empty(0), *parts]) - vote.neutral), view


def view_for_tiles(bank: ReferenceBank) -> View:
    """
    The view of the bank that tiles are compared with.
    """
    native = bank.sizes("native")
    return "native" if min(native.positive, native.negative) else "global"


def heat_at(evidence: Column, grid: TileGrid, *, picture: tuple[int, int], shape: tuple[int, int]) -> Heat:
    """
    The map as float32[shape]: bilinear between the middles of the tiles, level beyond the outermost.

    ``evidence`` float64[len(grid)] in the order of ``grid.boxes``; ``picture`` and ``shape`` are height and width, of
    the picture that the grid lies on and of what comes back.
    """
    rows, columns = ((np.arange(cells) + 0.5) * pixels / cells for cells, pixels in zip(shape, picture, strict=True))
    tiles = np.asarray(evidence, dtype=np.float64).reshape(grid.shape)
    middles_x, middles_y = np.array(grid.lefts) + grid.width / 2, np.array(grid.tops) + grid.height / 2
    wide = np.stack([np.interp(columns, middles_x, row) for row in tiles])
    heat: Heat = np.stack([np.interp(rows, middles_y, column) for column in wide.T], axis=1).astype(np.float32)
    return heat


def regions_by_evidence(evidence: Column, grid: TileGrid, count: int) -> tuple[int, ...]:
    """
    At most ``count`` tiles that do not overlap, those with the most evidence first; numbers into ``grid.boxes``.

    Reviewers look at confined regions of a fake, and all over a real picture (Cartella et al., "Unveiling the Truth:
    Exploring Human Gaze Patterns in Fake Images", IEEE SPL 2024, arXiv 2403.08933): so each is one tile, and a second
    one shows another place. Tiles of equal evidence come row by row.
    """
    boxes = np.array(grid.boxes)
    chosen: list[int] = []
    for number in np.argsort(-evidence, kind="stable"):
        if len(chosen) >= count:
            break
        left, top, right, bottom = boxes[number]
        taken = boxes[chosen]
        beside = (taken[:, 2] <= left) | (taken[:, 0] >= right) | (taken[:, 3] <= top) | (taken[:, 1] >= bottom)
        if beside.all():
            chosen.append(int(number))
    return tuple(chosen)


def nearest_of_both(nearest: Nearest, row: int, count: int) -> tuple[tuple[int, float], ...]:
    """
    Of one query the most similar references of both classes together: row in the bank and cosine, each row once.
    """
    found: dict[int, float] = {}
    both = [
        (float(similarity), int(reference))
        for side in (nearest.positive, nearest.negative)
        for similarity, reference in zip(side.similarity[row], side.rows[row], strict=True)
        if reference >= 0
    ]
    for similarity, reference in sorted(both, key=lambda pair: (-pair[0], pair[1])):
        found.setdefault(reference, similarity)
    return tuple(found.items())[:count]


def _places(room: int, step: int) -> int:
    return -(-room // step) + 1


def _spread(room: int, step: int) -> tuple[int, ...]:
    count = _places(room, step)
    return tuple(round(place * room / max(count - 1, 1)) for place in range(count))
