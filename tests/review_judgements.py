"""
Fitted judgements of one head with chosen numbers, for tests of what reviewers are shown of a head.
"""

from dataclasses import replace
from functools import cache

from tests.judgement_worlds import LEAN, some_references
from worker.fitting.fit import FitPlan, fit_judgement
from worker.heads.head import Head
from worker.judgement.fusion import HeadScale
from worker.judgement.model import FittedJudgement


def a_scale(name: str, *, direction: float = 1.0, slope: float = 1.0, intercept: float = 0.0) -> HeadScale:
    """
    Of a head whose scores over calibration reals are around 0.5, and 2 apart.
    """
    return HeadScale(name, mean=0.5, deviation=2.0, direction=direction, slope=slope, intercept=intercept)


def judging_by(*heads: Head, direction: float = 1.0, slope: float = 1.0, intercept: float = 0.0) -> FittedJudgement:
    """
    A judgement of these heads, all on scales alike.
    """
    scales = tuple(a_scale(head.name, direction=direction, slope=slope, intercept=intercept) for head in heads)
    return replace(_fitted(), heads=heads, scales=scales)


@cache
def _fitted() -> FittedJudgement:
    return fit_judgement(some_references(), plan=FitPlan(recipes=(LEAN,))).judgement
