"""
The evaluation's columns and outcomes against what the worker itself makes of the same fitted judgement.
"""

from dataclasses import replace

import numpy as np
import pytest

from schemas.verdict import ImageFacts
from tests.bank_builders import GENERATED, a_neighbourhood, sha
from tests.evaluation_parts import SURFACE
from tests.judgement_worlds import KNN, LEAN, PERTURBATION, some_references
from worker.evaluation.fitted import FitFold, FittedScorer
from worker.evaluation.scores import FUSED, Scores, joined_scores
from worker.fitting.fit import FitPlan, fit_judgement
from worker.heads.features import FeatureTable, References
from worker.heads.reference_bank import ExactBank
from worker.judgement.model import FittedJudgement
from worker.policy import Rule
from worker.stages.assess import Assessed
from worker.stages.decide import Terms, decide

PLAN = FitPlan(recipes=(KNN, LEAN, PERTURBATION))
RULE = Rule(name="fused", base_rate=0.3, alpha=0.1, coverage_alpha=0.2, grey_zone=(0.3, 0.7))
FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)
NEIGHBOURHOOD = a_neighbourhood({"real": [0.9], "ai_generated": [0.8]})


@pytest.fixture(scope="module")
def world() -> tuple[FittedJudgement, References, FeatureTable]:
    """
    A judgement, its bank, and other pictures.
    """
    everything = some_references(generators=4, sources=4, each=80, apart=1.2)
    known = everything.take(range(0, len(everything), 2))
    return fit_judgement(known, plan=PLAN).judgement, known, everything.features.take(range(1, len(everything), 4))


def scored(world: tuple[FittedJudgement, References, FeatureTable], rule: Rule) -> Scores:
    """
    What the evaluation says.
    """
    judgement, known, features = world
    return FittedScorer(judgement, ExactBank(known), FitFold(rule, SURFACE, PLAN))(features)


def test_outcomes_are_the_workers(world: tuple[FittedJudgement, References, FeatureTable]) -> None:
    """
    At a base rate that is not the calibration's, with coverage that abstains: score, flag and outcome of every picture.
    """
    judgement, known, features = world
    bank = ExactBank(known)
    found = scored(world, RULE)
    # As the worker goes about it: perturbed copies are looked at only in the grey zone.
    doubtful = judgement.in_grey_zone(features.without_shift(), bank, *RULE.grey_zone)
    seen = replace(features, shift=np.where(doubtful[:, None], features.shift, np.nan))
    terms = Terms(RULE, SURFACE, GENERATED)
    called, probability, flagged = [], [], []
    for one in judgement.assess(seen, bank, grey_zone=RULE.grey_zone):
        threshold = judgement.flag_threshold(RULE.alpha, RULE.pac_delta, one.bucket)
        assessed = Assessed(one, judgement.id, threshold, judgement.base_rate)
        verdict = decide(NEIGHBOURHOOD, FACTS, terms=terms, assessed=assessed)
        called.append(str(verdict.label) if verdict.label else "uncertain")
        probability.append(verdict.probability)
        flagged.append(one.p_value <= threshold)

    assert {"real", "ai_generated", "uncertain"} == set(called)
    assert called == list(found.outcome)
    assert flagged == found.flagged.tolist()
    assert 1 / (1 + np.exp(-found.columns[FUSED])) == pytest.approx(np.array(probability))
    assert found.refusals == ()


def test_both_guarantees_are_measured(world: tuple[FittedJudgement, References, FeatureTable]) -> None:
    """
    What the pooled bound would flag stands beside what that of each source does, which is a part of it.
    """
    judgement, known, features = world
    each, pooled = (
        FittedScorer(
            judgement.serving(RULE.alpha, RULE.pac_delta, guarantee),
            ExactBank(known),
            FitFold(RULE.model_copy(update={"guarantee": guarantee}), SURFACE, PLAN),
        )(features)
        for guarantee in ("each_source", "pooled")
    )

    assert each.pooled_flagged is not None
    assert pooled.pooled_flagged is not None
    assert each.pooled_flagged.tolist() == pooled.pooled_flagged.tolist() == pooled.flagged.tolist()
    assert (each.flagged <= pooled.flagged).all()
    assert each.flagged.sum() < pooled.flagged.sum()
    assert (4, 0) == (each.sources, pooled.sources)
    assert (4, 4) == (each.take([0, 1]).sources, joined_scores([each, each]).sources)
    assert joined_scores([each, replace(each, sources=None, pooled_flagged=None)]).pooled_flagged is None


def test_a_fold_is_fitted_under_the_policys_guarantee(world: tuple[FittedJudgement, References, FeatureTable]) -> None:
    """
    Each fold's judgement serves the rule that is evaluated.
    """
    _, known, features = world
    plan = FitPlan(recipes=(KNN, LEAN))
    rules = (RULE, RULE.model_copy(update={"guarantee": "pooled"}))

    assert [4, 0] == [FitFold(rule, SURFACE, plan)(known)(features.take([0, 1])).sources for rule in rules]


def test_coverage_abstains(world: tuple[FittedJudgement, References, FeatureTable]) -> None:
    """
    A stricter coverage leaves more undecided, and just those whose p-value under "it is covered" is below it.
    """
    lax = scored(world, RULE.model_copy(update={"coverage_alpha": 0.0}))
    strict = scored(world, RULE)
    far = strict.coverage_p < RULE.coverage_alpha

    assert far.any()
    assert {word for word, is_far in zip(strict.outcome, far, strict=True) if is_far} == {"uncertain"}
    assert [a for a, b in zip(lax.outcome, far, strict=True) if not b] == [
        a for a, b in zip(strict.outcome, far, strict=True) if not b
    ]
    assert lax.outcome != strict.outcome


def test_an_alpha_without_reals_enough_is_refused_by_name(
    world: tuple[FittedJudgement, References, FeatureTable],
) -> None:
    """
    The reason names alpha, how many reals there were, and how many are needed; nothing is flagged.
    """
    found = scored(world, RULE.model_copy(update={"alpha": 0.001}))

    assert not found.flagged.any()
    assert any("0.001" in reason and "999" in reason for reason in found.refusals)
