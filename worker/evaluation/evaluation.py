"""
Everything that one evaluation found: what the table, the JSON object and the report are made from. Values only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.evaluation.comparison import Comparison
from worker.evaluation.dataset import Dataset
from worker.evaluation.duplicates import DuplicateCheck
from worker.evaluation.measures import FalsePositiveRate, Measures, ScoreColumn
from worker.evaluation.robustness import SweepRow
from worker.evaluation.scores import FUSED, PLAIN_KNN, Scores
from worker.evaluation.shipped import Outcomes, Shipped
from worker.evaluation.splits import Split
from worker.evaluation.teaching import Teaching
from worker.heads.features import Mask, Matrix, Rows
from worker.views import ViewSpec


@dataclass(frozen=True, slots=True)
class FoldRow:
    """
    One round: its pictures, and how the fused score ranks and decides them.
    """

    name: str
    trained: int
    n_real: int
    n_ai: int
    ap: float | None
    auroc: float | None
    balanced_accuracy: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """
    A held-out picture in the report, with its nearest references among those it was judged by.
    """

    path: Path
    name: str
    positive: bool
    probability: float
    neighbours: tuple[tuple[Path, str, bool, float], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """
    The held-out pictures of all folds: rows of the data set, labels, and every column of scores.

    ``clusters`` names the source that stands for each when other sources are drawn, ``held_out`` its fold.
    """

    rows: Rows = field(repr=False)
    positive: Mask = field(repr=False)
    generator: tuple[str, ...] = field(repr=False)
    clusters: tuple[str, ...] = field(repr=False)
    held_out: tuple[str, ...] = field(repr=False)
    unit: Matrix = field(repr=False)
    columns: Mapping[str, ScoreColumn] = field(repr=False)
    scores: Scores = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """
    One run. ``fpr``, ``outcomes`` and ``shipped`` are of the policy; nothing in them where no guarantee could be given.

    ``measures`` has a row per column: ``fused``, heads, the plain k-NN rules, controls and peers.

    ``originals``: the same for the files as they were collected, where that was asked for; ``{}`` otherwise.
    """

    dataset: Dataset
    encoder: str
    views: ViewSpec
    split: Split
    folds: tuple[FoldRow, ...]
    judged: Judged = field(repr=False)
    measures: Mapping[str, Measures] = field(repr=False)
    comparisons: Sequence[Comparison]
    fpr: FalsePositiveRate
    outcomes: Outcomes
    shipped: Shipped
    duplicates: DuplicateCheck
    originals: Mapping[str, Measures] = field(default_factory=dict, repr=False)
    sweep: tuple[SweepRow, ...] = ()
    teaching: Teaching = field(default_factory=Teaching)
    shown: tuple[Shown, ...] = field(default=(), repr=False)

    @property
    def n_real(self) -> int:
        """
        Held-out reals.
        """
        return int((~self.judged.positive).sum())

    @property
    def n_ai(self) -> int:
        """
        Held-out generated pictures.
        """
        return int(self.judged.positive.sum())


def is_head(name: str) -> bool:
    """
    Whether a column is a head's: no fusion, no plain rule, no control and no peer.
    """
    return not (name == FUSED or PLAIN_KNN in name or name.startswith(("control", "peer:")))
