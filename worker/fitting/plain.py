"""
Fitting the heads whose parameters are a few numbers: soft votes, perturbation and realism. NumPy only.

The probe and the real-only head have files of their own beside this one.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.fitting.held_out import HeldOut, balanced_weights, held_out, log_loss
from worker.heads.features import REALISM, SHIFT, Column, References
from worker.heads.global_local import GlobalLocal
from worker.heads.knn import TEMPERATURE, K, Knn
from worker.heads.perturbation import LEAST, Perturbation
from worker.heads.realism import Realism
from worker.heads.reference_bank import ExactBank, View
from worker.heads.soft_vote import vote_depth, vote_log_odds

TEMPERATURES: Final = (0.01, 0.02, 0.035, 0.07, 0.14, 0.28)
"""0.07 suits CLIP; other encoders spread their similarities over less of the scale, or over more."""

MAX_QUERIES: Final = 1000
"""So many held-out references, drawn at random, choose a temperature; more would only take longer."""

MIN_REALS: Final = 2
"""A spread needs two."""

MAD_TO_DEVIATION: Final = 1.4826
"""The median distance from the median, times this, is the standard deviation where values are normal."""


def fit_knn(references: References, *, seed: int) -> Knn:
    """
    The k-NN head with the temperature that foretells held-out references best.
    """
    return Knn(k=K, temperature=best_temperature(references, "global", seed=seed))


def fit_global_local(references: References, *, seed: int) -> GlobalLocal:
    """
    The global-local head, each view with the temperature that foretells held-out references best.
    """
    return GlobalLocal(
        k=K,
        temperature=best_temperature(references, "global", seed=seed),
        native_temperature=best_temperature(references, "native", seed=seed),
    )


def best_temperature(references: References, view: View, *, seed: int) -> float:
    """
    Of ``TEMPERATURES`` the one with the least balanced log-loss when sources are held out in turn.

    Whole sources and not single references: the nearest references of a picture are mostly of its own source, and a
    temperature that fits those is too low for pictures from elsewhere. ``TEMPERATURE`` where nothing can be held out.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(references))[:MAX_QUERIES])
    asked = np.zeros(len(references), dtype=np.bool_)
    asked[rows] = True
    weight = balanced_weights(references)
    scores = np.full((len(TEMPERATURES), len(references)), np.nan)
    for part in held_out(references, seed=seed):
        test = part.test[asked[part.test]]
        scores[:, test] = _votes(references, HeldOut(part.train, test), view)
    losses = [log_loss(score, references.positive, weight=weight) for score in scores]
    if not np.isfinite(losses).any():
        return TEMPERATURE
    return TEMPERATURES[int(np.argmin(losses))]


def fit_perturbation(references: References, *, seed: int) -> Perturbation:  # noqa: ARG001 - nothing is drawn
    """
    Centre and spread of the real references' log distances, per column; NaN for a column that fewer than two have.
    """
    shift = references.features.shift[~references.positive]
    centre, scale = np.full(len(SHIFT), np.nan), np.full(len(SHIFT), np.nan)
    for column in range(len(SHIFT)):
        measured = shift[np.isfinite(shift[:, column]), column]
        if len(measured) >= MIN_REALS:
            centre[column], scale[column] = centre_and_spread(np.log(np.maximum(measured, LEAST)))
    return Perturbation(centre=centre, scale=scale)


def fit_realism(references: References, *, seed: int) -> Realism:  # noqa: ARG001 - nothing is drawn
    """
    The means of the real references' statistics; NaN for one that none has, or that is 0 in all.
    """
    realism = references.features.realism[~references.positive]
    mean = np.full(len(REALISM), np.nan)
    for column in range(len(REALISM)):
        measured = realism[np.isfinite(realism[:, column]), column]
        if measured.sum() > 0:
            mean[column] = measured.mean()
    return Realism(mean=mean)


def centre_and_spread(values: Column) -> tuple[float, float]:
    """
    Median, and 1.4826 times the median distance from it; the standard deviation, or 1, where that is 0.

    Robust, so that a few odd pictures among the reals do not set the scale.
    """
    centre = float(np.median(values))
    spread = MAD_TO_DEVIATION * float(np.median(np.abs(values - centre)))
    return centre, spread or float(np.std(values)) or 1.0


def _votes(references: References, part: HeldOut, view: View) -> NDArray[np.float64]:
    """
    Log-odds of the held-out rows by the rest, float64[temperatures, rows].
    """
    bank, asked = ExactBank(references.take(part.train)), references.features.take(part.test)
    sizes = bank.sizes(view)
    owner, first = np.unique(asked.native_owner, return_index=True)  # the middle crop stands first; one is enough here
    queries, owner = (asked.unit, np.arange(len(asked))) if view == "global" else (asked.native[first], owner)
    odds = np.full((len(TEMPERATURES), len(asked)), np.nan)
    if not min(sizes.positive, sizes.negative) or not len(queries):
        return odds
    nearest = bank.nearest(view, queries, vote_depth(K, sizes))
    for row, temperature in enumerate(TEMPERATURES):
        odds[row, owner] = vote_log_odds(nearest, sizes, k=K, temperature=temperature)
    return odds
