"""
A fitted judgement whose answers are laid down by a test, and a bank's references that nobody asks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from worker.assessment import Assessment, Attribution, HeadScore
from worker.heads.features import FeatureTable, Mask, Matrix
from worker.heads.reference_bank import ClassSizes, Nearest, Projection, ReferenceBank, View
from worker.judgement.conformal import largest_flagged_p
from worker.stages.assess import Assessed

JUDGEMENT_ID = "e1" * 32


def an_assessment(**changes: Any) -> Assessment:  # noqa: ANN401 - a field of any type may be changed
    """
    That of a picture that is likely generated, near to the bank, and unlike real ones.
    """
    fields = {
        "log_odds": 3.0,
        "p_value": 0.01,
        "bucket": "all",
        "coverage_p": 0.5,
        "heads": (
            HeadScore("knn", "1", 0.2, 0.5),
            HeadScore("probe", "1", 3.0, 2.0),
            HeadScore("real_only", "2", -1.0, -0.25),
            HeadScore("style", "1", 0.4, 0.75),
        ),
        "missing": ("perturbation",),
        "attribution": Attribution("flux", 0.8, {"flux": 0.8, "real": 0.2}),
    }
    return Assessment(**{**fields, **changes})


def an_assessed(flag_threshold: float = 0.05, base_rate: float = 0.5, **changes: Any) -> Assessed:  # noqa: ANN401 - likewise
    """
    The same, with what it is held against.
    """
    return Assessed(an_assessment(**changes), JUDGEMENT_ID, flag_threshold, base_rate)


@dataclass(frozen=True, slots=True)
class SilentReferences:
    """
    References that no head of a scripted judgement searches.
    """

    dim: int

    def sizes(self, view: View) -> ClassSizes:
        """
        None at all.
        """
        assert view in ("global", "native")
        return ClassSizes(0, 0)

    def nearest(self, view: View, queries: Matrix, k: int, projection: Projection | None = None) -> Nearest:
        """
        Nobody may ask.
        """
        raise AssertionError(f"{k} of {view} were asked for {len(queries)} queries, projected by {projection}")


@dataclass(slots=True)
class ScriptedJudgement:
    """
    Answers with ``answer`` for each picture; ``grey`` says which pictures lie in the grey zone, from features alone.

    ``reals`` is how many calibration reals each bucket has. It notes what it was asked.
    """

    answer: Callable[[FeatureTable, int], Assessment] = lambda _features, _row: an_assessment()
    grey: Callable[[FeatureTable], Mask] = lambda features: np.zeros(len(features), np.bool_)
    reals: Mapping[str, int] = field(default_factory=lambda: {"all": 199})
    id: str = JUDGEMENT_ID
    base_rate: float = 0.5
    asked: list[FeatureTable] = field(default_factory=list)
    zones: list[tuple[float, float] | None] = field(default_factory=list)

    def assess(
        self, features: FeatureTable, bank: ReferenceBank, /, *, grey_zone: tuple[float, float] | None
    ) -> Sequence[Assessment]:
        """
        What the test laid down.
        """
        assert features.dim == bank.dim
        self.asked.append(features)
        self.zones.append(grey_zone)
        return [self.answer(features, row) for row in range(len(features))]

    def in_grey_zone(self, features: FeatureTable, bank: ReferenceBank, low: float, high: float, /) -> Mask:
        """
        What the test laid down, of features without a shift.
        """
        assert features.dim == bank.dim
        assert np.isnan(features.shift).all()
        self.zones.append((low, high))
        return self.grey(features)

    def flag_threshold(self, alpha: float, delta: float | None, bucket: str, /) -> float:
        """
        As a real one.
        """
        return largest_flagged_p(self.reals[bucket], alpha, delta, bucket)
