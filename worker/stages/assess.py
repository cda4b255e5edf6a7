"""
What a fitted judgement is asked, and what its answer means at the deployment's base rate. Pure numbers.

Sightings become features here; heads and fusion are in ``worker.heads`` and ``worker.judgement``, thresholds and
actions in ``worker.policy``, and what follows from all of it is ``worker.stages.decide``.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.assessment import Assessment
from worker.domain import Sighting
from worker.heads.features import REALISM, SHIFT, Column, FeatureTable, Mask
from worker.heads.reference_bank import ReferenceBank
from worker.judgement.calibration import prior_shift, sigmoid
from worker.policy import Rule


class Assessor(Protocol):
    """
    A fitted judgement. Read-only; what it says of a picture does not depend on the picture's companions.
    """

    @property
    def id(self) -> str:
        """
        Which fitted judgement this is: a hash over its parameters.
        """

    @property
    def base_rate(self) -> float:
        """
        Share of the positive label at which ``Assessment.log_odds`` holds, above 0 and below 1.
        """

    def assess(
        self, features: FeatureTable, bank: ReferenceBank, /, *, grey_zone: tuple[float, float] | None
    ) -> Sequence[Assessment]:
        """
        One assessment per picture, in order; ``grey_zone`` is the one by which shifts were measured or not.
        """

    def in_grey_zone(self, features: FeatureTable, bank: ReferenceBank, low: float, high: float, /) -> Mask:
        """
        Which pictures the cheap heads leave between these probabilities, bool[n]; nobody where no head needs a shift.
        """

    def flag_threshold(self, alpha: float, delta: float | None, bucket: str, /) -> float:
        """
        The largest p-value at which a picture of this bucket may be flagged: P(flagged | real) is at most ``alpha``.

        With ``delta`` the bound holds for this very calibration with probability 1 - delta. Raises ``ConfigInvalid``
        where the calibration has too few real pictures for it.
        """


@dataclass(frozen=True, slots=True)
class Assessed:
    """
    An assessment with what it is held against.

    ``flag_threshold``: the largest p-value at which a picture of its bucket may be flagged. ``base_rate``: the share of
    the positive label at which the assessment's log-odds hold. ``judgement_id``: whose assessment it is.
    """

    assessment: Assessment
    judgement_id: str
    flag_threshold: float
    base_rate: float

    def probability(self, base_rate: float) -> float:
        """
        Of the positive label where it has this share among uploads: logit p' = logit p + logit b' - logit b.

        Prior shift assumes that each label's pictures look as they did in the calibration (Saerens, Latinne and
        Decaestecker, 2002). Raises ``ValueError`` when the log-odds are no number.
        """
        if math.isnan(self.assessment.log_odds):
            raise ValueError("the assessment's log-odds are no number; a fitted judgement must not answer so")
        log_odds = np.array([self.assessment.log_odds])
        return float(sigmoid(prior_shift(log_odds, calibrated=self.base_rate, deployed=base_rate))[0])


def flag_thresholds(judgement: Assessor, buckets: Iterable[str], rule: Rule) -> dict[str, float]:
    """
    The flag threshold of each of these buckets under a policy's rule.

    Raises ``ConfigInvalid`` where a bucket has too few real pictures for the policy's alpha: better no start than a
    bound that does not hold.
    """
    return {bucket: judgement.flag_threshold(rule.alpha, rule.pac_delta, bucket) for bucket in sorted(buckets)}


def features_of(sightings: Sequence[Sighting], dim: int) -> FeatureTable:
    """
    The features of these pictures, in order; what a sighting does not hold is NaN.
    """
    n = len(sightings)
    crops = [crop.vector for sighting in sightings for crop in sighting.native]
    return FeatureTable(
        unit=_stacked([sighting.embedding.vector for sighting in sightings], dim),
        norm=np.array([sighting.norm for sighting in sightings], dtype=np.float64),
        native=_stacked(crops, dim),
        native_owner=np.repeat(np.arange(n, dtype=np.int64), [len(sighting.native) for sighting in sightings]),
        realism=_measured([sighting.realism for sighting in sightings], len(REALISM)),
        shift=_measured([sighting.shift for sighting in sightings], len(SHIFT)),
        format=tuple(sighting.facts.format for sighting in sightings),
        short_side_px=np.array([_short_side_px(sighting) for sighting in sightings], dtype=np.float64),
    )


def _stacked(vectors: Sequence[NDArray[np.float32]], dim: int) -> NDArray[np.float32]:
    return np.stack(vectors) if vectors else np.empty((0, dim), np.float32)


def _measured(rows: Sequence[tuple[float, ...] | None], width: int) -> Column:
    unmeasured = (math.nan,) * width
    return np.array([unmeasured if row is None else row for row in rows], dtype=np.float64).reshape(-1, width)


def _short_side_px(sighting: Sighting) -> float:
    width, height = sighting.facts.width, sighting.facts.height
    return math.nan if width is None or height is None else float(min(width, height))
