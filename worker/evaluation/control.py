"""
The control: a classifier that sees how a file was stored, and nothing of the picture in it.

What it reaches on the same folds is what format and size alone give away; a detector that is no better has shown
nothing.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.utils.class_weight import compute_sample_weight

from worker.evaluation.dataset import Sample
from worker.evaluation.splits import Fold
from worker.heads.features import Column, Mask

ORIGINAL: Final = "control"
REENCODED: Final = "control_reencoded"

Table = NDArray[np.float64]


def original_columns(samples: Sequence[Sample]) -> Table:
    """
    Format (one column each), width, height, bytes per pixel and aspect of the files as they were collected.
    """
    formats = sorted({sample.facts.format for sample in samples})
    one_hot = [[float(sample.facts.format == name) for name in formats] for sample in samples]
    sizes = [
        [
            sample.facts.width,
            sample.facts.height,
            sample.facts.byte_length / max(1, sample.facts.width * sample.facts.height),
            sample.facts.width / max(1, sample.facts.height),
        ]
        for sample in samples
    ]
    return np.hstack([np.array(one_hot, np.float64), np.array(sizes, np.float64)])


def reencoded_columns(samples: Sequence[Sample], max_side_px: int | None) -> Table:
    """
    What is left of that after every picture was reduced to ``max_side_px`` and stored alike: width and height.
    """
    rows = []
    for sample in samples:
        width, height = sample.facts.width, sample.facts.height
        longest = max(width, height, 1)
        scale = min(1.0, max_side_px / longest) if max_side_px else 1.0
        rows.append([round(width * scale), round(height * scale), width / max(1, height)])
    return np.array(rows, np.float64)


def control_scores(columns: Table, positive: Mask, folds: Sequence[Fold], seed: int) -> Column:
    """
    Log-odds float64[n] for the judged pictures of all folds, NaN for the others.

    Gradient-boosted trees, both classes weighted alike.
    """
    scores = np.full(len(positive), np.nan)
    for fold in folds:
        # Not the histogram kind: its OpenMP threads wait for each other for minutes where the cores are busy.
        model = GradientBoostingClassifier(random_state=seed)
        weights = compute_sample_weight("balanced", positive[fold.train])
        model.fit(columns[fold.train], positive[fold.train], sample_weight=weights)
        scores[fold.test] = model.decision_function(columns[fold.test])
    return scores
