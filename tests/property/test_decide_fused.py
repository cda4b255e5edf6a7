"""
Laws of a decision by a fitted judgement, over all assessments, and its guarantee by simulation.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.verdict import Action, ImageFacts
from tests.bank_builders import GENERATED, REAL, a_neighbourhood, sha
from tests.scripted_judgement import JUDGEMENT_ID, an_assessed, an_assessment
from worker.domain import Judgement
from worker.judgement.conformal import conformal_p, largest_flagged_p
from worker.policy import LabelRule, Rule, SurfacePolicy
from worker.stages.assess import Assessed
from worker.stages.decide import Terms, decide

FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)
NEIGHBOURHOOD = a_neighbourhood({"real": [0.6, 0.5], "ai_generated": [0.55, 0.5]})

log_odds = st.floats(-40, 40)
shares = st.floats(0, 1)
fractions = st.floats(0.001, 0.999)


def judged(
    assessed: Assessed, rule: Rule | None = None, *, threshold: float = 0.0, min_margin: float = 0.0
) -> Judgement:
    """
    The judgement under the laxest surface, unless told otherwise.
    """
    surface = SurfacePolicy(
        min_similarity=-1,
        min_margin=min_margin,
        min_side_px=1,
        max_aspect=100,
        abstained=Action.REVIEW,
        failed=Action.REVIEW,
        labels={name: LabelRule(threshold=threshold, action=Action.NONE) for name in (REAL, GENERATED)},
    )
    return decide(NEIGHBOURHOOD, FACTS, terms=Terms(rule or Rule(), surface, GENERATED), assessed=assessed)


@given(log_odds, shares, shares, shares, st.tuples(fractions, fractions))
def test_nothing_is_flagged_above_the_threshold_nor_cleared_below(
    odds: float, p_value: float, threshold: float, coverage_p: float, rates: tuple[float, float]
) -> None:
    """
    Whatever the other numbers are: generated implies p <= threshold, real implies p > threshold.
    """
    assessed = an_assessed(threshold, rates[0], log_odds=odds, p_value=p_value, coverage_p=coverage_p)
    label = judged(assessed, Rule(base_rate=rates[1])).label

    assert label != GENERATED or p_value <= threshold
    assert label != REAL or p_value > threshold


@given(log_odds, shares, shares, st.floats(0, 1))
def test_far_is_never_decided(odds: float, p_value: float, coverage_p: float, coverage_alpha: float) -> None:
    """
    Below the policy's coverage_alpha the judgement abstains, and above it that is no reason to.
    """
    judgement = judged(
        an_assessed(log_odds=odds, p_value=p_value, coverage_p=coverage_p), Rule(coverage_alpha=coverage_alpha)
    )
    codes = [reason.code for reason in judgement.reasons]

    assert ("LOW_COVERAGE" in codes) == (coverage_p < coverage_alpha)
    assert judgement.status == "abstained" or coverage_p >= coverage_alpha


@given(st.tuples(log_odds, log_odds), shares, st.tuples(fractions, fractions), shares, shares)
def test_more_evidence_never_makes_a_picture_more_real(
    odds: tuple[float, float], p_value: float, rates: tuple[float, float], threshold: float, min_margin: float
) -> None:
    """
    With the log-odds, and with the base rate, the probability grows, and the label moves from real to generated.
    """
    ranks = {REAL: 0, None: 1, GENERATED: 2}
    for low, high in (
        ((min(odds), rates[0]), (max(odds), rates[0])),
        ((odds[0], min(rates)), (odds[0], max(rates))),
    ):
        less, more = (
            judged(
                an_assessed(log_odds=one, p_value=p_value),
                Rule(base_rate=rate),
                threshold=threshold,
                min_margin=min_margin,
            )
            for one, rate in (low, high)
        )

        assert less.score <= more.score
        assert ranks[less.label] <= ranks[more.label]


@given(log_odds, st.tuples(shares, shares))
def test_a_smaller_p_value_never_makes_a_picture_more_real(odds: float, p_values: tuple[float, float]) -> None:
    """
    The label moves from real to generated only, as the p-value falls.
    """
    ranks = {REAL: 0, None: 1, GENERATED: 2}
    larger, smaller = (judged(an_assessed(log_odds=odds, p_value=one)) for one in sorted(p_values, reverse=True))

    assert ranks[larger.label] <= ranks[smaller.label]


def test_of_real_pictures_at_most_alpha_are_flagged() -> None:
    """
    On average over calibrations, and with pac_delta in all but that share of them: through ``decide``, by simulation.

    400 calibrations of 199 reals, whose scores are uniform; new reals are 2,000 evenly spaced scores, so that each
    calibration's own rate is known within 0.0005. The log-odds are far too sure of every one of them, so that only the
    p-value stands between a real picture and the flag.
    """
    generator = np.random.default_rng(20261122)
    alpha, delta, n, m, repeats = 0.05, 0.1, 199, 2000, 400
    new = (np.arange(m) + 0.5) / m
    thresholds = {"marginal": largest_flagged_p(n, alpha, None), "pac": largest_flagged_p(n, alpha, delta)}
    rates: dict[str, list[float]] = {name: [] for name in thresholds}
    for _ in range(repeats):
        p_values, counts = np.unique(conformal_p(generator.random(n), new), return_counts=True)
        for name, threshold in thresholds.items():
            flagged = [_flagged(float(p), threshold) for p in p_values]
            rates[name].append(float(counts[flagged].sum()) / m)
    broken = {name: float(np.mean([rate > alpha for rate in found])) for name, found in rates.items()}
    error = 4 * float(np.std(rates["marginal"])) / repeats**0.5

    assert alpha - error < np.mean(rates["marginal"]) < alpha + error
    assert broken["pac"] <= delta + 3 * (delta * (1 - delta) / repeats) ** 0.5
    assert broken["marginal"] > broken["pac"]
    assert 0 < np.mean(rates["pac"]) < np.mean(rates["marginal"])


_CACHE: dict[tuple[float, float], bool] = {}


def _flagged(p_value: float, threshold: float) -> bool:
    key = (p_value, threshold)
    if key not in _CACHE:
        assessed = Assessed(an_assessment(log_odds=8.0, p_value=p_value), JUDGEMENT_ID, threshold, 0.5)
        _CACHE[key] = judged(assessed).label == GENERATED
    return _CACHE[key]
