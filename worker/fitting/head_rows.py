"""
How good each head, and all of them together, is on references whose generator and source were held out: a row each.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from worker.fitting.out_of_fold import OutOfFold
from worker.heads.features import Column, Mask
from worker.judgement.fusion import Fusion, Grid, HeadScale
from worker.judgement.model import grid_of


@dataclass(frozen=True, slots=True)
class Row:
    """
    How good a head, or all of them together, is on references whose generator and source it had not seen.

    ``balanced_accuracy`` at even log-odds. ``missing`` is the share of references of which the head could not say.
    ``direction`` and ``weight`` are None for the fused score.
    """

    name: str
    ap: float
    auroc: float
    balanced_accuracy: float
    missing: float
    direction: float | None = None
    weight: float | None = None


def rows_of(
    found: OutOfFold, scales: tuple[HeadScale, ...], fusion: Fusion, positive: Mask, log_odds: Column
) -> tuple[Row, ...]:
    """
    A row per head and one for ``log_odds``, float64[n], of all together.
    """
    evidence: Grid = grid_of(found.scores, scales).evidence
    rows = [
        _row(scale.name, evidence[:, column], positive, direction=scale.direction, weight=fusion.weights[column])
        for column, scale in enumerate(scales)
    ]
    return (*rows, _row("fused", log_odds, positive))


def _row(
    name: str, log_odds: Column, positive: Mask, *, direction: float | None = None, weight: float | None = None
) -> Row:
    known = np.isfinite(log_odds)
    odds, label = log_odds[known], positive[known]
    missing = float(1 - known.mean())
    if not label.any() or label.all():
        return Row(name, float("nan"), float("nan"), float("nan"), missing, direction, weight)
    return Row(
        name=name,
        ap=float(average_precision_score(label, odds)),
        auroc=float(roc_auc_score(label, odds)),
        balanced_accuracy=float(((odds[label] > 0).mean() + (odds[~label] <= 0).mean()) / 2),
        missing=missing,
        direction=direction,
        weight=weight,
    )
