"""
What a reviewer is shown of one picture: its heat map, its most telling crops, and the references next to each.

Numbers and pixels only; drawing them is ``worker/cli/explain_picture.py``. Nothing here has part in a verdict.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from worker.domain import Pixels
from worker.heads.features import Column, Matrix
from worker.heads.global_local import GlobalLocal
from worker.heads.heatmap import (
    RAW,
    TileGrid,
    TileVote,
    nearest_of_both,
    regions_by_evidence,
    tile_evidence,
    tile_grid,
    view_for_tiles,
)
from worker.heads.knn import Knn
from worker.heads.reference_bank import ReferenceBank, View
from worker.judgement.fusion import CLIP, HeadScale
from worker.judgement.model import FittedJudgement
from worker.ports import Encoder
from worker.stages.native_views import continued

CROPS: Final = 6
REFERENCES: Final = 3

_BATCH: Final = 16


@dataclass(frozen=True, slots=True)
class ReviewCrop:
    """
    One tile, by its number in the grid, and its nearest references: row in the bank and cosine, nearest first.
    """

    tile: int
    references: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Review:
    """
    ``picture`` uint8[h, w, 3] and the evidence for the positive label, float64[n], of every tile of ``grid``.

    ``crops``: those with the most evidence first, none overlapping another. ``view``: what of the bank was asked.
    ``vote``: how, and by which fitted head's numbers, if any.
    """

    picture: Pixels = field(repr=False)
    grid: TileGrid
    evidence: Column = field(repr=False)
    view: View
    crops: tuple[ReviewCrop, ...]
    vote: TileVote = RAW


def tile_vote(judgement: FittedJudgement | None, view: View) -> TileVote:
    """
    How tiles are to be counted so that evidence above 0 means what it means in a verdict by this judgement.

    From the fitted ``global_local`` head, which compares crops as the map does; without it from ``knn``; without either
    the vote as it stands. Known holes: the scale of a head was learnt from whole pictures, and a single tile says more
    extreme things; and the other heads of the judgement have no part in the map.
    """
    if judgement is None:
        return RAW
    found = {head.name: (head, scale) for head, scale in zip(judgement.heads, judgement.scales, strict=True)}
    for name in (GlobalLocal.name, Knn.name):
        match found.get(name):
            case (GlobalLocal() as head, scale):
                temperature = head.native_temperature if view == "native" else head.temperature
                return _turned(TileVote(head.k, temperature, head=name), scale)
            case (Knn() as head, scale):
                return _turned(TileVote(head.k, head.temperature, head=name), scale)
    return RAW


def review_of(
    picture: Pixels, encoder: Encoder, bank: ReferenceBank, judgement: FittedJudgement | None = None
) -> Review:
    """
    The review of an upright RGB picture, uint8[h, w, 3]; every tile is encoded once, at its native resolution.

    Where the bank carries a ``judgement``, the map's red is what is evidence for the positive label in its verdicts.
    Blocks: up to ``MAX_TILES`` forwards. Raises ``ValueError`` for features that are not finite, and what the encoder
    raises.
    """
    size = encoder.fingerprint.preprocess.size
    height, width = picture.shape[:2]
    grid = tile_grid(width, height, size, max(1, size // 2))
    unit = _embedded(picture, grid, encoder, size)
    vote = tile_vote(judgement, view_for_tiles(bank))
    evidence, view = tile_evidence(unit, bank, vote)
    tiles = regions_by_evidence(evidence, grid, CROPS)
    nearest = bank.nearest(view, unit[list(tiles)], REFERENCES)
    crops = tuple(ReviewCrop(tile, nearest_of_both(nearest, number, REFERENCES)) for number, tile in enumerate(tiles))
    return Review(picture, grid, evidence, view, crops, vote)


def _turned(vote: TileVote, scale: HeadScale) -> TileVote:
    """
    The same vote in the direction that was learnt, and level where the head's evidence in a verdict is 0.

    That place is looked for where the scale is not cut off; beyond, evidence has one sign only.
    """
    place = np.clip(-scale.intercept / scale.slope, -CLIP, CLIP) if scale.slope else 0.0
    neutral = scale.mean + scale.direction * float(place) * scale.deviation
    return replace(vote, direction=scale.direction, neutral=neutral)


def _embedded(picture: Pixels, grid: TileGrid, encoder: Encoder, size: int) -> Matrix:
    """
    The tiles' embeddings, float32[n, d], rows of length 1.
    """
    rows: list[Matrix] = []
    for start in range(0, len(grid), _BATCH):
        boxes = grid.boxes[start : start + _BATCH]
        rows.append(encoder.encode([_tile(picture, box, size) for box in boxes]))
    features = np.concatenate(rows)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    if not (np.isfinite(length) & (length > 0)).all():
        raise ValueError("the encoder gave features of a tile that are not finite or have no direction")
    unit: Matrix = (features / length).astype(np.float32)
    return unit


def _tile(picture: Pixels, box: tuple[int, int, int, int], size: int) -> Pixels:
    left, top, right, bottom = box
    return continued(np.ascontiguousarray(picture[top:bottom, left:right]), size)
