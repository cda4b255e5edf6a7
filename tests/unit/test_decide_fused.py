"""
What ``decide`` makes of a fitted judgement's assessment, and of content credentials.
"""

import math
from typing import Any

import pytest

from schemas.verdict import Action, AppliedRule, ContentCredentials, ImageFacts, ReasonCode
from tests.bank_builders import GENERATED, REAL, a_neighbourhood, sha
from tests.scripted_judgement import JUDGEMENT_ID, an_assessed
from worker.assessment import Attribution
from worker.domain import Judgement
from worker.policy import CredentialsRule, LabelRule, Rule, SurfacePolicy
from worker.stages.assess import Assessed
from worker.stages.decide import Terms, decide

FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)
NEIGHBOURHOOD = a_neighbourhood({"real": [0.9, 0.8], "ai_generated": [0.3, 0.2]})
"""Everything near is real: the votes would say so."""


def a_surface(**changes: Any) -> SurfacePolicy:  # noqa: ANN401 - a field of any type may be changed
    """
    A surface with thresholds like the shipped ones, whose min_similarity no upload reaches.
    """
    fields = {
        "min_similarity": 1.0,
        "min_margin": 0.2,
        "min_side_px": 32,
        "max_aspect": 20.0,
        "abstained": Action.REVIEW,
        "failed": Action.BLOCK,
        "labels": {
            "real": LabelRule(threshold=0.5, action=Action.NONE),
            "ai_generated": LabelRule(threshold=0.7, action=Action.LABEL),
        },
    }
    return SurfacePolicy(**{**fields, **changes})


def judged(
    assessed: Assessed | None = None,
    *,
    facts: ImageFacts = FACTS,
    credentials: CredentialsRule | None = None,
    **rule: Any,  # noqa: ANN401 - a field of the rule
) -> Judgement:
    """
    The judgement under rule ``auto``, unless ``rule`` says another.
    """
    terms = Terms(Rule(**rule), a_surface(), GENERATED, credentials or CredentialsRule())
    return decide(NEIGHBOURHOOD, facts, terms=terms, assessed=assessed)


def codes(judgement: Judgement) -> list[ReasonCode]:
    """
    The reason codes, in order.
    """
    return [reason.code for reason in judgement.reasons]


def with_credentials(state: Any, term: str | None = "trainedAlgorithmicMedia") -> ImageFacts:  # noqa: ANN401 - one of its literals
    """
    Facts of a file that carries such credentials.
    """
    found = ContentCredentials(state=state, digital_source_type=term, issuer="A Camera Ltd")
    return FACTS.model_copy(update={"credentials": found})


def test_an_assessment_decides_and_not_the_vote() -> None:
    """
    Probable, significant and covered is generated, whatever the neighbours say; the verdict carries all numbers.
    """
    judgement = judged(an_assessed())
    probability = 1 / (1 + math.exp(-3.0))

    assert ("decided", GENERATED, Action.LABEL) == (judgement.status, judgement.label, judgement.action)
    assert codes(judgement) == [ReasonCode.CALIBRATED]
    assert judgement.probability == judgement.score == pytest.approx(probability)
    assert judgement.margin == pytest.approx(2 * probability - 1)
    assert (judgement.thresholds.rule, judgement.thresholds.calibration_id) == ("fused", JUDGEMENT_ID)
    assert judgement.missing_heads == ("perturbation",)


def test_the_grounds_name_the_strongest_heads() -> None:
    """
    Three of them, by the size of their evidence, with its sign.
    """
    message = judged(an_assessed()).reasons[0].message

    assert message.endswith(
        "p-value 0.01, at most 0.05; strongest heads, in log-odds: probe +2.00, style +0.75, knn +0.50"
    )


def test_every_head_stands_in_the_scores_beside_the_votes() -> None:
    """
    With its value, its version and its evidence; the votes have none, for they are not fused.
    """
    scores = judged(an_assessed()).scores

    assert [(score.name, score.version, score.evidence) for score in scores] == [
        ("soft_vote", "1", None),
        ("nearest_neighbour", "1", None),
        ("knn", "1", 0.5),
        ("probe", "1", 2.0),
        ("real_only", "2", -0.25),
        ("style", "1", 0.75),
    ]


def test_the_calibration_states_what_was_applied() -> None:
    """
    The policy's numbers and the assessment's, and the threshold that came of both.
    """
    calibration = judged(an_assessed(flag_threshold=0.03), alpha=0.05, pac_delta=0.1, base_rate=0.4).calibration

    assert calibration is not None
    assert (calibration.id, calibration.p_value, calibration.alpha) == (JUDGEMENT_ID, 0.01, 0.05)
    assert (calibration.pac_delta, calibration.flag_threshold, calibration.bucket) == (0.1, 0.03, "all")
    assert (calibration.coverage_p, calibration.coverage_alpha, calibration.base_rate) == (0.5, 0.01, 0.4)


def test_probable_but_not_significant_is_uncertain() -> None:
    """
    Where real pictures look like this too often, the probability alone flags nobody.
    """
    judgement = judged(an_assessed(p_value=0.051))

    assert ("abstained", None, Action.REVIEW) == (judgement.status, judgement.label, judgement.action)
    assert codes(judgement) == [ReasonCode.NOT_SIGNIFICANT]


def test_significant_but_not_probable_is_uncertain() -> None:
    """
    A picture that few real ones look like is not called real, though that is likelier at a low base rate.
    """
    judgement = judged(an_assessed(log_odds=0.5, p_value=0.02), base_rate=0.02)

    assert judgement.status == "abstained"
    assert codes(judgement) == [ReasonCode.SIGNIFICANT]
    assert judgement.probability == pytest.approx(1 / (1 + math.exp(-0.5) * 49))


def test_an_ordinary_real_picture_is_real() -> None:
    """
    Improbable and insignificant: decided for the other label.
    """
    judgement = judged(an_assessed(log_odds=-2.0, p_value=0.6))

    assert ("decided", REAL) == (judgement.status, judgement.label)
    assert codes(judgement) == [ReasonCode.CALIBRATED]
    assert "above 0.05" in judgement.reasons[0].message


@pytest.mark.parametrize("log_odds", [-9.0, 9.0])
def test_far_from_everything_is_an_abstention_whatever_the_heads_say(log_odds: float) -> None:
    """
    Far is never evidence, neither for nor against.
    """
    p_value = 0.001 if log_odds > 0 else 0.9
    judgement = judged(an_assessed(log_odds=log_odds, p_value=p_value, coverage_p=0.009))

    assert judgement.status == "abstained"
    assert codes(judgement) == [ReasonCode.LOW_COVERAGE]


def test_the_base_rate_shifts_the_probability_from_that_of_the_calibration() -> None:
    """
    Odds are multiplied by the ratio of the odds of the two base rates.
    """
    judgement = judged(an_assessed(log_odds=math.log(9), base_rate=0.5), base_rate=0.1)
    same = judged(an_assessed(log_odds=math.log(9), base_rate=0.1), base_rate=0.1)

    assert judgement.probability == pytest.approx(0.5)
    assert same.probability == pytest.approx(0.9)


def test_log_odds_that_are_no_number_are_refused() -> None:
    """
    A picture is not judged by a judgement that broke; the upload fails, and says so.
    """
    with pytest.raises(ValueError, match="no number"):
        judged(an_assessed(log_odds=math.nan))


def test_the_attribution_shows_the_likeliest_five() -> None:
    """
    Most likely first, equals by name; the generator may be unknown all the same.
    """
    posterior = {"f": 0.1, "a": 0.1, "real": 0.25, "b": 0.2, "c": 0.2, "d": 0.1, "e": 0.05}
    attribution = judged(an_assessed(attribution=Attribution(None, 0.25, posterior))).attribution

    assert attribution is not None
    assert (attribution.generator, attribution.probability) == (None, 0.25)
    assert list(attribution.posterior) == ["real", "b", "c", "a", "d"]


@pytest.mark.parametrize("name", ["soft_vote", "nearest_neighbour"])
def test_a_vote_that_was_asked_for_does_not_look_at_an_assessment(name: AppliedRule) -> None:
    """
    No probability, no calibration, no attribution, no heads.
    """
    judgement = judged(an_assessed(coverage_p=0.0), name=name)

    assert judgement.thresholds.rule == name
    assert judgement.thresholds.calibration_id is None
    assert (judgement.probability, judgement.calibration, judgement.attribution) == (None, None, None)
    assert len(judgement.scores) == 2


def test_fused_without_an_assessment_is_a_mistake_of_ours() -> None:
    """
    The worker refuses to start so; nothing falls back to another rule unsaid.
    """
    with pytest.raises(ValueError, match="fused needs an assessment"):
        judged(None, name="fused")


@pytest.mark.parametrize(
    ("state", "decide_on", "decides"),
    [
        ("valid", "valid", True),
        ("trusted", "valid", True),
        ("valid", "trusted", False),
        ("trusted", "trusted", True),
        ("trusted", "never", False),
        ("invalid", "valid", False),
        (None, "valid", False),
    ],
)
def test_credentials_decide_where_the_policy_takes_them(state: str | None, decide_on: Any, *, decides: bool) -> None:  # noqa: ANN401 - one of its literals
    """
    Over a picture that looks real: generated, for the credentials' own reason, with the numbers as they were.
    """
    looks_real = an_assessed(log_odds=-2.0, p_value=0.6)
    rule = CredentialsRule(decide_on=decide_on)
    judgement = judged(looks_real, facts=with_credentials(state), credentials=rule)

    assert judgement.label == (GENERATED if decides else REAL)
    assert (codes(judgement)[0] is ReasonCode.CREDENTIALS) == decides
    assert judgement.score == judged(looks_real).score


def test_credentials_decide_what_nothing_else_could() -> None:
    """
    Also far from the bank and too small; and also under a vote.
    """
    facts = with_credentials("valid").model_copy(update={"width": 8, "height": 8})
    by_vote = judged(None, facts=facts)
    fused = judged(an_assessed(coverage_p=0.0), facts=facts)

    assert (GENERATED, GENERATED) == (by_vote.label, fused.label)
    assert codes(by_vote) == codes(fused) == [ReasonCode.CREDENTIALS]


def test_what_the_picture_says_too_is_said_after_the_credentials() -> None:
    """
    Where both agree, both are grounds.
    """
    judgement = judged(an_assessed(), facts=with_credentials("trusted"))

    assert codes(judgement) == [ReasonCode.CREDENTIALS, ReasonCode.CALIBRATED]
    assert "signed by A Camera Ltd, say that a trained model made it" in judgement.reasons[0].message


@pytest.mark.parametrize(
    ("term", "decides", "partly"),
    [
        ("trainedAlgorithmicMedia", True, False),
        ("http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia", True, True),
        ("compositeSynthetic", True, True),
        ("digitalCapture", False, False),
        ("algorithmicMedia", False, False),
        (None, False, False),
    ],
)
def test_only_a_trained_model_is_asserted(term: str | None, *, decides: bool, partly: bool) -> None:
    """
    Whole or in part; a camera's own word, which anybody can sign, proves nothing and decides nothing.
    """
    looks_real = an_assessed(log_odds=-2.0, p_value=0.6)
    judgement = judged(looks_real, facts=with_credentials("trusted", term))

    assert (judgement.label == GENERATED) == decides
    assert ("partly" in judgement.reasons[0].message) == partly


def test_credentials_never_speak_for_real() -> None:
    """
    A signed photograph that looks generated is judged by its looks.
    """
    judgement = judged(an_assessed(), facts=with_credentials("trusted", "digitalCapture"))

    assert judgement.label == GENERATED
    assert codes(judgement) == [ReasonCode.CALIBRATED]


def test_invalid_credentials_are_said_and_weigh_nothing() -> None:
    """
    One more reason, at the end, whatever came out.
    """
    judgement = judged(an_assessed(), facts=with_credentials("invalid"))
    without = judged(an_assessed())

    assert codes(judgement) == [ReasonCode.CALIBRATED, ReasonCode.CREDENTIALS_INVALID]
    assert (without.label, without.score, without.action) == (judgement.label, judgement.score, judgement.action)


def test_credentials_do_not_answer_another_question() -> None:
    """
    A bank that does not know the policy's label is not decided by them.
    """
    neighbourhood = a_neighbourhood({"cat": [0.9], "dog": [0.2]})
    labels = {name: LabelRule(threshold=0.1, action=Action.NONE) for name in ("cat", "dog")}
    terms = Terms(Rule(), a_surface(labels=labels, min_similarity=-1.0), next(iter(neighbourhood.sizes)))
    judgement = decide(neighbourhood, with_credentials("trusted"), terms=terms)

    assert judgement.label == "cat"
    assert codes(judgement) == [ReasonCode.NEAREST_NEIGHBOURS]
