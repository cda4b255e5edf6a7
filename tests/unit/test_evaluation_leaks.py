"""
What would notice that a fold trains on the pictures that it judges: fits that know by heart what they have seen.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.evaluation_parts import SURFACE
from tests.judgement_worlds import KNN, some_references
from worker.evaluation.fitted import FitFold
from worker.evaluation.scores import FUSED, Fit, Scorer, Scores, judge_folds, pooled
from worker.evaluation.splits import Fold
from worker.fitting.fit import FitPlan
from worker.fitting.heads_table import Recipe
from worker.heads.features import Column, FeatureTable, Mask, References
from worker.heads.head import HeadState, Readings
from worker.heads.reference_bank import ReferenceBank
from worker.policy import Rule


def by_heart(unit: np.ndarray, known: np.ndarray, positive: Mask) -> Column:
    """
    1 for a picture known as generated, -1 for one known as real, 0 for a stranger.
    """
    labels = {row.tobytes(): 1.0 if label else -1.0 for row, label in zip(known, positive, strict=True)}
    return np.array([labels.get(row.tobytes(), 0.0) for row in unit])


def a_memorising_fit(train: References) -> Scorer:
    """
    Implements ``worker.evaluation.scores.Fit``: knows its training pictures and nothing else.
    """

    def score(features: FeatureTable) -> Scores:
        fused = by_heart(features.unit, train.features.unit, train.positive)
        n = len(fused)
        return Scores({FUSED: fused}, np.ones(n), np.ones(n), np.zeros(n, bool), ("uncertain",) * n, (None,) * n)

    return score


@dataclass(frozen=True, slots=True, eq=False)
class Memory:
    """
    A head that knows what it was fitted on and nothing else.
    """

    name: ClassVar[str] = "memory"
    version: ClassVar[str] = "1"

    known: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)

    def read(self, features: FeatureTable, bank: ReferenceBank) -> Readings:
        """
        1, -1, or 0.
        """
        return Readings(by_heart(features.unit, self.known, self.labels > 0))

    def state(self) -> HeadState:
        """
        What it knows.
        """
        return HeadState({"known": self.known, "labels": self.labels}, {})

    @classmethod
    def restored(cls, state: HeadState) -> Self:
        """
        The head of a state.
        """
        return cls(state.tensors["known"], state.tensors["labels"])


MEMORY = Recipe(
    "memory", ("global",), lambda references, _: Memory(references.features.unit, references.positive.astype(float))
)


def honest(references: References) -> list[Fold]:
    """
    Three folds that train on what they do not judge.
    """
    parts = np.arange(len(references)) % 3
    return [Fold(str(number), np.flatnonzero(parts != number), np.flatnonzero(parts == number)) for number in range(3)]


def leaking(references: References) -> list[Fold]:
    """
    The same folds, but every one is trained on all pictures.
    """
    return [Fold(fold.name, np.arange(len(references)), fold.test) for fold in honest(references)]


def areas(references: References, folds: list[Fold], fit: Fit) -> dict[str, float]:
    """
    The area under the ROC of every column over the held-out pictures of all folds.
    """
    rows, scores = pooled(judge_folds(references, folds, fit))
    positive = references.positive[rows]
    return {name: float(roc_auc_score(positive, scores.column(name).filled)) for name in scores.columns}


def test_what_knows_by_heart_tells_nothing_of_held_out_pictures() -> None:
    """
    Half, exactly; folds that train on what they judge would show perfection.
    """
    references = some_references(generators=3, sources=3, each=12)

    assert areas(references, honest(references), a_memorising_fit)[FUSED] == 0.5
    assert areas(references, leaking(references), a_memorising_fit)[FUSED] == 1.0


@pytest.mark.parametrize("leaks", [False, True])
def test_the_real_fit_is_not_told_what_it_judges(leaks: bool) -> None:
    """
    A memorising head beside one that tells nothing: half out of fold, and a leak would be seen.
    """
    references = some_references(generators=3, sources=3, each=12, apart=0.0, shift=False)
    fit = FitFold(Rule(), SURFACE, FitPlan(recipes=(KNN, MEMORY)))
    found = areas(references, (leaking if leaks else honest)(references), fit)

    assert found["min_distance_k1"] == 1.0 if leaks else 0.3 < found["min_distance_k1"] < 0.75
    assert leaks or found["memory"] == 0.5
