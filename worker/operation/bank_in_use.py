"""
The bank that judges now, as those who watch the worker see it.

How it comes to be another is ``bank_watch.py``; what is made of it, is ``gauges.py`` and ``serving.py``.
"""

from dataclasses import dataclass, field
from typing import Final, Self

from worker.domain import BankIdentity
from worker.flow.bank_judge import BankJudge
from worker.judgement.model import FittedJudgement
from worker.telemetry.drift import Calibrated

QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class BankInUse:
    """
    A bank, what its judgement was calibrated on, and the quantiles of the calibration's reals as this policy scores.

    ``calibrated`` is None without a fitted judgement.
    """

    identity: BankIdentity
    policy: str
    calibrated: Calibrated | None = field(default=None, repr=False)
    score_quantiles: tuple[tuple[float, float], ...] = ()

    @classmethod
    def of(cls, judge: BankJudge) -> Self:
        """
        The bank, the judgement and the policy that it judges by.
        """
        policy, fitted = judge.policy, judge.fitted
        name = f"{policy.id} {policy.version}"
        if fitted is None or not isinstance(fitted.judgement, FittedJudgement):
            return cls(judge.bank.identity, name)
        calibrated = Calibrated.of(fitted.judgement, grey_zone=fitted.grey_zone, base_rate=policy.rule.base_rate)
        quantiles = calibrated.score_quantiles(QUANTILES)
        return cls(judge.bank.identity, name, calibrated, tuple(quantiles.items()))
