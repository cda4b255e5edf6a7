"""
A bank with its own judgement, measured as it is: nothing is fitted, and every picture that it holds is left out.

How a judgement fares that is fitted for the measurement is ``worker.evaluation.fitted``.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from worker.errors import ConfigInvalid
from worker.evaluation.dataset import Sample
from worker.evaluation.fitted import FitFold, FittedScorer
from worker.evaluation.scores import Scorer
from worker.evaluation.splits import Fold, Split
from worker.heads.features import References
from worker.heads.reference_bank import ExactBank
from worker.judgement.model import FittedJudgement

NOTHING_LEARNT: Final = (
    "the bank's own judgement as it is: nothing was fitted here, and no picture of the bank is judged"
)


@dataclass(frozen=True, slots=True, eq=False)
class BankAsItIs:
    """
    Implements ``worker.evaluation.scores.Fit`` without fitting: the judgement and references of a bank, whole.

    What is judged must have gone through the bank's views.
    """

    judgement: FittedJudgement
    references: References = field(repr=False)
    terms: FitFold

    @property
    def contents(self) -> AbstractSet[str]:
        """
        The hashes of all pictures that the bank holds.
        """
        return frozenset(self.references.content)

    def __call__(self, train: References) -> Scorer:  # noqa: ARG002 - a Fit is given what to learn from
        """
        The bank, whatever it is given to learn from.
        """
        rule = self.terms.rule
        serving = self.judgement.serving(rule.alpha, rule.pac_delta, rule.guarantee)
        return FittedScorer(serving, ExactBank(self.references), self.terms)


def by_bank(samples: Sequence[Sample], held: AbstractSet[str], tier: str | None = None) -> Split:
    """
    A set for every source, of the pictures that the bank does not hold; with ``tier``, of sources of that tier alone.

    Raises ``ConfigInvalid`` where no picture of one of the labels is left.
    """
    strange = [sample.content not in held and (tier is None or sample.tier == tier) for sample in samples]
    left = {sample.positive for sample, judged in zip(samples, strange, strict=True) if judged}
    if len(left) < 2:  # noqa: PLR2004 - real and generated
        raise ConfigInvalid(
            f"{sum(strange)} of {len(samples)} pictures are not in the bank, and not of both labels: there is nothing "
            "to measure; give labelled pictures that the bank was not built from"
        )
    folds = []
    for name in sorted({sample.source for sample, judged in zip(samples, strange, strict=True) if judged}):
        inside = [judged and sample.source == name for sample, judged in zip(samples, strange, strict=True)]
        folds.append(Fold(name, np.zeros(0, np.int64), np.flatnonzero(inside)))
    known = sum(sample.content in held for sample in samples)
    notes = (NOTHING_LEARNT, *((f"{known} pictures are in the bank and were left out",) if known else ()))
    return Split("bank", tuple(folds), notes)
