"""
What a judgement that was fitted without them says of held-out pictures, as columns; and how folds are put together.

How it is fitted is ``worker.evaluation.fitted``; here a fit is a function, so that tests can give their own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from worker.bank.survey import Progress, no_progress
from worker.evaluation.measures import ScoreColumn
from worker.evaluation.splits import Fold
from worker.heads.features import Column, FeatureTable, Mask, References, Rows

FUSED: Final = "fused"
PLAIN_KNN: Final = "min_distance"
"""
In the names of UniversalFakeDetect's rule, nearest real against nearest generated picture: ``min_distance_k1`` and so
on, and ``native_min_distance_k1`` on crops.
"""

CALLED_GENERATED: Final = "ai_generated"
CALLED_REAL: Final = "real"
CALLED_UNCERTAIN: Final = "uncertain"


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """
    What is said of n pictures.

    ``columns``: by name, ``fused`` first, then heads (calibrated log-odds, their direction learnt), then the plain k-NN
    rules (differences of similarity); each float64[n], NaN where nothing was said. ``p_value`` and ``coverage_p``
    float64[n] are conformal. ``flagged`` bool[n]: called generated under the false-positive guarantee. ``outcome``:
    one of three words each. ``attributed``: which generator, None where unknown. ``refusals``: why the guarantee could
    not be given to some of them; ``flagged`` and ``outcome`` then mean nothing.

    ``pooled_flagged`` bool[n]: what would be flagged if the bound had to hold over all sources of reals together only.
    ``sources``: among how many sources of reals, one by one, each was ranked at least. None where that is not told.
    """

    columns: Mapping[str, Column] = field(repr=False)
    p_value: Column = field(repr=False)
    coverage_p: Column = field(repr=False)
    flagged: Mask = field(repr=False)
    outcome: tuple[str, ...] = field(repr=False)
    attributed: tuple[str | None, ...] = field(repr=False)
    refusals: tuple[str, ...] = ()
    pooled_flagged: Mask | None = field(default=None, repr=False)
    sources: int | None = None

    def __len__(self) -> int:
        return len(self.p_value)

    def column(self, name: str) -> ScoreColumn:
        """
        One column, with what its numbers are.
        """
        return ScoreColumn(name, self.columns[name], probability=PLAIN_KNN not in name)

    def take(self, rows: Sequence[int] | Rows) -> "Scores":
        """
        What is said of these pictures, in this order.
        """
        wanted = np.asarray(rows, dtype=np.int64)
        return Scores(
            columns={name: column[wanted] for name, column in self.columns.items()},
            p_value=self.p_value[wanted],
            coverage_p=self.coverage_p[wanted],
            flagged=self.flagged[wanted],
            outcome=tuple(self.outcome[row] for row in wanted),
            attributed=tuple(self.attributed[row] for row in wanted),
            refusals=self.refusals,
            pooled_flagged=None if self.pooled_flagged is None else self.pooled_flagged[wanted],
            sources=self.sources,
        )


Scorer = Callable[[FeatureTable], Scores]
Fit = Callable[[References], Scorer]


@dataclass(frozen=True, slots=True, eq=False)
class JudgedFold:
    """
    One round: what was held out, what was said of it, and the judgement that said so, to be asked further.
    """

    fold: Fold
    scores: Scores = field(repr=False)
    scorer: Scorer = field(repr=False)


def judge_folds(
    references: References, folds: Sequence[Fold], fit: Fit, progress: Progress = no_progress
) -> tuple[JudgedFold, ...]:
    """
    Fit on the training pictures of every fold and judge its held-out ones. Blocks for as long as fitting takes.
    """
    judged = []
    for done, fold in enumerate(folds):
        progress("fitting and judging", done, len(folds))
        scorer = fit(references.take(fold.train))
        judged.append(JudgedFold(fold, scorer(references.features.take(fold.test)), scorer))
    progress("fitting and judging", len(folds), len(folds))
    return tuple(judged)


def pooled(judged: Sequence[JudgedFold]) -> tuple[Rows, Scores]:
    """
    The held-out rows of all folds, in the order of the folds, and what was said of them.
    """
    rows = np.concatenate([one.fold.test for one in judged])
    named = [
        replace(one.scores, refusals=tuple(f"fold {one.fold.name}: {reason}" for reason in one.scores.refusals))
        for one in judged
    ]
    return rows, joined_scores(named)


def joined_scores(parts: Sequence[Scores]) -> Scores:
    """
    Scores of several folds, one below the other; a column that a fold does not have is NaN there.
    """
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    columns = {
        name: np.concatenate([part.columns.get(name, np.full(len(part), np.nan)) for part in parts]) for name in names
    }
    pooled_flags = [part.pooled_flagged for part in parts if part.pooled_flagged is not None]
    sources = [part.sources for part in parts if part.sources is not None]
    return Scores(
        columns=columns,
        p_value=np.concatenate([part.p_value for part in parts]),
        coverage_p=np.concatenate([part.coverage_p for part in parts]),
        flagged=np.concatenate([part.flagged for part in parts]),
        outcome=tuple(word for part in parts for word in part.outcome),
        attributed=tuple(name for part in parts for name in part.attributed),
        refusals=tuple(reason for part in parts for reason in part.refusals),
        pooled_flagged=np.concatenate(pooled_flags) if parts and len(pooled_flags) == len(parts) else None,
        sources=min(sources) if parts and len(sources) == len(parts) else None,
    )
