"""
Which frames of a long animation are looked at: by what they show and for how long, reduced to 16 x 16 pixels.

Pure: thumbnails and times in, numbers out. Going through an animation is ``worker/stages/frames.py``.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.domain import Pixels

THUMBNAIL_SIDE: Final = 16

UNLIKE: Final = 48.0
"""The difference, as a root mean square over a thumbnail's values, from which on two frames have nothing in common."""

MOST_CANDIDATES: Final = 64
"""So many scenes are told apart: each that is shown for more than this part of the time is among them for certain."""

_Vectors = NDArray[np.float32]


def chosen_frames(thumbnails: Pixels, shown_ms: Sequence[float], count: int) -> list[int]:
    """
    So many frames of uint8[n, 16, 16, 3], ascending, the first among them.

    Then by turns: the one of the scene that is shown for longest among what none of those chosen resembles, and the one
    that differs most from all that were chosen, among equals the one farthest away in time. So a scene that is shown
    for most of the time is found in however many frames it comes and whatever flashes are put before it, a single
    frame among many that resemble each other is found wherever it is hidden, and of equals they are spread.
    Takes time in proportion to the frames. Known holes: an animation of more scenes than ``count``, all very different,
    may hide one more that is shown for a short time; and two pictures of one thumbnail are one scene.
    """
    vectors = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    weights = np.asarray(shown_ms, np.float64) / sum(shown_ms)
    if len(vectors) <= count:
        return list(range(len(vectors)))
    candidates = _candidates(vectors, weights)
    alike = _likeness(vectors, candidates)
    numbers = np.arange(len(vectors))
    picked = [0]
    distance, gap = _distance(vectors, 0), numbers
    while len(picked) < count:
        wanted = None
        if len(picked) % 2 == 1:
            missing = weights * np.clip(distance / UNLIKE, 0, 1)
            wanted = _shown_longest(alike, missing, least=1 / (2 * count))
        if wanted is None:
            wanted = _farthest(distance, gap, picked)
        picked.append(wanted)
        distance = np.minimum(distance, _distance(vectors, wanted))
        gap = np.minimum(gap, np.abs(numbers - wanted))
    return sorted(picked)


def _shown_longest(alike: NDArray[np.float64], missing: NDArray[np.float64], *, least: float) -> int | None:
    """
    The frame that stands for most of what is missing; None where no scene is missing for this share of the time.
    """
    shares = alike @ missing
    scene = int(np.argmax(shares))
    if shares[scene] < least:
        return None
    return int(np.argmax(alike[scene] * missing))


def _farthest(distance: NDArray[np.float64], gap: NDArray[np.int64], picked: Sequence[int]) -> int:
    distance = distance.copy()
    distance[list(picked)] = -1
    best = np.flatnonzero(distance == distance.max())
    return int(best[np.argmax(gap[best])])


def _candidates(vectors: _Vectors, weights: NDArray[np.float64]) -> list[int]:
    """
    At most ``MOST_CANDIDATES`` frames, among them one like each scene that is shown for more than its part of the time.

    Misra and Gries, Finding repeated elements (1982), with weights and with likeness in place of equality.
    """
    leaders: list[int] = []
    credit: list[float] = []
    squares = (vectors**2).sum(axis=1)
    reach = vectors.shape[1] * (UNLIKE / 2) ** 2
    for number, weight in enumerate(weights):
        if leaders:
            apart = squares[leaders] + squares[number] - 2 * (vectors[leaders] @ vectors[number])
            nearest = int(np.argmin(apart))
            if apart[nearest] <= reach:
                credit[nearest] += weight
                continue
        if len(leaders) < MOST_CANDIDATES:
            leaders.append(number)
            credit.append(weight)
            continue
        paid = min(*credit, weight)
        kept = [(leader, left - paid) for leader, left in zip(leaders, credit, strict=True) if left > paid]
        leaders, credit = [leader for leader, _ in kept], [left for _, left in kept]
        if weight > paid:
            leaders.append(number)
            credit.append(weight - paid)
    return leaders or [int(np.argmax(weights))]


def _likeness(vectors: _Vectors, candidates: list[int]) -> NDArray[np.float64]:
    """
    Of each candidate with each frame: 1 for the same, 0 from ``UNLIKE`` on.
    """
    squares = (vectors**2).sum(axis=1)
    apart = squares[candidates][:, None] + squares - 2 * (vectors[candidates] @ vectors.T)
    differences = np.sqrt(np.maximum(apart, 0).astype(np.float64) / vectors.shape[1])
    likeness: NDArray[np.float64] = np.clip(1 - differences / UNLIKE, 0, 1)
    return likeness


def _distance(vectors: _Vectors, number: int) -> NDArray[np.float64]:
    """
    Of each frame from this one; 0 for equal ones exactly, so that ties among equals are ties.
    """
    difference: NDArray[np.float64] = np.sqrt(np.square(vectors - vectors[number]).mean(axis=1, dtype=np.float64))
    return difference
