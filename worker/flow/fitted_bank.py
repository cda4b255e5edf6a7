"""
A bank's fitted judgement with the references that it asks: what the judge needs to decide by ``fused``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

from worker.domain import Sighting
from worker.heads.reference_bank import ReferenceBank
from worker.stages.assess import Assessed, Assessor, features_of


@dataclass(frozen=True, slots=True)
class FittedBank:
    """
    Any number of threads may ask: they take turns, for the references answer one at a time.

    ``flag_thresholds``: per bucket of the judgement, the largest p-value at which a picture may be flagged.
    ``grey_zone``: the probabilities, at the calibration's base rate, between which the shift is worth its forwards.
    """

    judgement: Assessor
    references: ReferenceBank
    flag_thresholds: Mapping[str, float]
    grey_zone: tuple[float, float]
    _turn: Lock = field(default_factory=Lock, repr=False)

    def assess(self, sightings: Sequence[Sighting]) -> list[Assessed]:
        """
        What the judgement makes of each of these, in order.
        """
        features = features_of(sightings, self.references.dim)
        with self._turn:
            found = self.judgement.assess(features, self.references, grey_zone=self.grey_zone)
        return [
            Assessed(one, self.judgement.id, self.flag_thresholds[one.bucket], self.judgement.base_rate)
            for one in found
        ]

    def wants_shift(self, sightings: Sequence[Sighting]) -> list[bool]:
        """
        Which of these lie in the grey zone, as the cheap heads see them: a shift that is known does not matter.
        """
        features = features_of(sightings, self.references.dim).without_shift()
        with self._turn:
            mask = self.judgement.in_grey_zone(features, self.references, *self.grey_zone)
        return [bool(wants) for wants in mask]
