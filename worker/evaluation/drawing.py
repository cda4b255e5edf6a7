"""
Draws for the bootstrap: other pictures of the same sources, and other sources.

What is computed of a draw is ``worker.evaluation.resampling``.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from worker.evaluation.resampling import Bootstrap, Draws
from worker.heads.features import Mask


def bootstrap(positive: Mask, draws: int, seed: int, clusters: Sequence[str] | None = None) -> Bootstrap:
    """
    ``draws`` draws of these pictures; with ``clusters``, which names where each is from, as many of sources too.
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros((draws, len(positive)), np.float32)
    for label in (True, False):
        _draw_pictures(weights, np.flatnonzero(positive == label), np.ones(draws, np.int64), rng)
    return Bootstrap(weights, None if clusters is None else _of_sources(positive, draws, clusters, rng))


def _of_sources(positive: Mask, draws: int, clusters: Sequence[str], rng: np.random.Generator) -> Draws | None:
    """
    Clusters drawn with replacement among those with the same labels, then pictures of each of its labels.

    None where there is only one cluster of a kind: what another would have given cannot be told then.
    """
    names = np.array(clusters, dtype=object)
    kinds: dict[tuple[bool, ...], list[str]] = defaultdict(list)
    for name in sorted(set(clusters)):
        kinds[tuple(sorted(set(positive[names == name].tolist())))].append(name)
    if not kinds or min(len(members) for members in kinds.values()) < 2:  # noqa: PLR2004 - one cannot vary
        return None
    weights = np.zeros((draws, len(positive)), np.float32)
    for members in kinds.values():
        times = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=draws)
        for at, name in enumerate(members):
            for label in (True, False):
                _draw_pictures(weights, np.flatnonzero((names == name) & (positive == label)), times[:, at], rng)
    return weights


def _draw_pictures(weights: Draws, rows: NDArray[np.int64], times: NDArray[np.int64], rng: np.random.Generator) -> None:
    """
    Write how often each of these rows is drawn, where ``times`` as many as there are of them are drawn.
    """
    if len(rows):
        weights[:, rows] = rng.multinomial(times * len(rows), np.full(len(rows), 1 / len(rows)))
