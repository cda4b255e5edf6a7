"""
What ``decide`` makes of a neighbourhood: outcome, reasons, evidence, scores.
"""

import math
from typing import Any

import pytest

from schemas.verdict import Action, ImageFacts, ReasonCode
from tests.bank_builders import GENERATED, REAL, a_neighbourhood, an_entry, sha
from worker.domain import Judgement, Label, Neighbour, Neighbourhood
from worker.policy import LabelRule, Rule, SurfacePolicy
from worker.stages.decide import Terms, decide, thresholds_of
from worker.stages.vote import MAX_DEPTH, coverage, nearest_difference, soft_vote, vote_depth

FACTS = ImageFacts(sha256=sha("the upload"), byte_length=100, width=640, height=480)


def a_surface(**changes: Any) -> SurfacePolicy:  # noqa: ANN401 - a field of any type may be changed
    """
    A surface that decides whenever it can.
    """
    fields = {
        "min_similarity": -1.0,
        "min_margin": 0.0,
        "min_side_px": 1,
        "max_aspect": 1000.0,
        "abstained": Action.REVIEW,
        "failed": Action.BLOCK,
        "labels": {
            "real": LabelRule(threshold=0.0, action=Action.NONE),
            "ai_generated": LabelRule(threshold=0.0, action=Action.LABEL),
        },
    }
    return SurfacePolicy(**{**fields, **changes})


def judged(neighbourhood: Neighbourhood, facts: ImageFacts = FACTS, **changes: Any) -> Judgement:  # noqa: ANN401 - any field
    """
    The judgement under a surface and a rule; ``rule_…`` changes the rule, anything else the surface.
    """
    rule = Rule(**{name.removeprefix("rule_"): value for name, value in changes.items() if name.startswith("rule_")})
    surface = a_surface(**{name: value for name, value in changes.items() if not name.startswith("rule_")})
    return decide(neighbourhood, facts, terms=Terms(rule, surface, GENERATED))


def codes(judgement: Judgement) -> list[ReasonCode]:
    """
    The reason codes, in order.
    """
    return [reason.code for reason in judgement.reasons]


def test_the_heavier_label_is_decided() -> None:
    """
    With nearer generated references the upload is generated, and the action is that label's.
    """
    judgement = judged(a_neighbourhood({"real": [0.5, 0.4], "ai_generated": [0.8, 0.7]}))

    assert ("decided", GENERATED, Action.LABEL) == (judgement.status, judgement.label, judgement.action)
    assert codes(judgement) == [ReasonCode.NEAREST_NEIGHBOURS]
    assert judgement.score > 0.9
    assert judgement.margin == pytest.approx(2 * judgement.score - 1)


def test_the_score_speaks_of_the_positive_label_whoever_wins() -> None:
    """
    A real upload has a low score, not a high one.
    """
    judgement = judged(a_neighbourhood({"real": [0.8, 0.7], "ai_generated": [0.5, 0.4]}))

    assert judgement.label == REAL
    assert judgement.score < 0.1


def test_shares_by_hand() -> None:
    """
    Two references and their pseudo-neighbours, calculated with pencil and paper.
    """
    vote = soft_vote(a_neighbourhood({"real": [0.6], "ai_generated": [0.8]}), k=1, temperature=0.1)
    real = math.exp(6) + math.exp(6)  # its own, and the pseudo-neighbour at the K-th similarity, 0.6
    generated = math.exp(8) + math.exp(6)

    assert vote.shares[GENERATED] == pytest.approx(generated / (real + generated))
    assert vote.voters[0].share == pytest.approx(math.exp(8) / (real + generated))


def test_sizes_weigh_the_labels() -> None:
    """
    Nine references of a label of 9,000 say as much as one of a label of 1,000.
    """
    sizes = {"real": 9000, "ai_generated": 1000}
    vote = soft_vote(a_neighbourhood({"real": [0.7] * 9, "ai_generated": [0.7]}, sizes), k=1, temperature=0.07)

    assert vote.shares[REAL] == pytest.approx(0.5)


def test_unanimous_neighbours_leave_a_share_for_the_others() -> None:
    """
    When all that vote are of one label, the other keeps a little, and nothing is divided by zero.
    """
    vote = soft_vote(
        a_neighbourhood({"real": [], "ai_generated": [0.9] * 18}, {"real": 100, "ai_generated": 100}),
        k=9,
        temperature=0.07,
    )

    assert vote.shares[REAL] == pytest.approx(1 / 20)


def test_a_cold_temperature_does_not_overflow() -> None:
    """
    exp(1 / 0.001) is beyond a double; the shares are finite all the same.
    """
    vote = soft_vote(a_neighbourhood({"real": [1.0], "ai_generated": [-1.0]}), k=1, temperature=0.001)

    assert vote.shares == {REAL: pytest.approx(1.0), GENERATED: pytest.approx(0.0)}


def test_depth_follows_the_bank_and_has_a_ceiling() -> None:
    """
    K is k of the smallest label and its like of every other, 4,096 at most.
    """
    assert vote_depth(9, {REAL: 5000, GENERATED: 5000}) == 18
    assert vote_depth(9, {REAL: 20000, GENERATED: 4000}) == 54
    assert vote_depth(9, {REAL: 1_000_000, GENERATED: 10}) == MAX_DEPTH


def test_references_as_similar_as_the_last_vote_too() -> None:
    """
    With K = 2 and three references at one similarity, none is left out for its name.
    """
    vote = soft_vote(
        a_neighbourhood({"real": [0.9, 0.5], "ai_generated": [0.5]}, {"real": 50, "ai_generated": 50}),
        k=1,
        temperature=0.07,
    )

    assert len(vote.voters) == 3


def test_low_coverage_abstains() -> None:
    """
    When the k-th nearest is too far, the bank has nothing to say.
    """
    neighbourhood = a_neighbourhood({"real": [0.2, 0.1], "ai_generated": [0.9, 0.3]})
    judgement = judged(neighbourhood, min_similarity=0.35, rule_k=2)

    assert ("abstained", None, Action.REVIEW) == (judgement.status, judgement.label, judgement.action)
    assert codes(judgement) == [ReasonCode.LOW_COVERAGE]
    assert judgement.evidence.coverage == 0.3
    assert judged(neighbourhood, min_similarity=0.3, rule_k=2).status == "decided"


def test_nothing_found_abstains() -> None:
    """
    An index that found nothing gives no verdict, whatever the thresholds.
    """
    judgement = judged(a_neighbourhood({"real": [], "ai_generated": []}, {"real": 10, "ai_generated": 10}))

    assert judgement.status == "abstained"
    assert codes(judgement) == [ReasonCode.LOW_MARGIN]
    assert judgement.score == 0.5
    assert judgement.evidence.coverage == -1


def test_low_margin_abstains() -> None:
    """
    Nearly equal labels are not decided.
    """
    judgement = judged(a_neighbourhood({"real": [0.70], "ai_generated": [0.71]}), min_margin=0.2)

    assert codes(judgement) == [ReasonCode.LOW_MARGIN]


@pytest.mark.parametrize("rule", ["soft_vote", "nearest_neighbour"])
def test_a_tie_is_never_decided(rule: str) -> None:
    """
    Also with a wanted margin of zero.
    """
    judgement = judged(a_neighbourhood({"real": [0.7], "ai_generated": [0.7]}), min_margin=0.0, rule_name=rule)

    assert codes(judgement) == [ReasonCode.LOW_MARGIN]


def test_below_its_threshold_a_label_is_not_decided() -> None:
    """
    The label that leads must also reach its own threshold.
    """
    neighbourhood = a_neighbourhood({"real": [0.70], "ai_generated": [0.75]})
    strict = {
        "real": LabelRule(threshold=0.1, action=Action.NONE),
        "ai_generated": LabelRule(threshold=0.9, action=Action.LABEL),
    }

    assert codes(judged(neighbourhood, labels=strict)) == [ReasonCode.BELOW_THRESHOLD]


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (31, 400, [ReasonCode.IMAGE_TOO_SMALL]),
        (400, 31, [ReasonCode.IMAGE_TOO_SMALL]),
        (32, 32, [ReasonCode.NEAREST_NEIGHBOURS]),
        (641, 32, [ReasonCode.ASPECT_EXTREME]),
        (640, 32, [ReasonCode.NEAREST_NEIGHBOURS]),
        (1, 30, [ReasonCode.IMAGE_TOO_SMALL, ReasonCode.ASPECT_EXTREME]),
        (None, None, [ReasonCode.NEAREST_NEIGHBOURS]),
    ],
)
def test_pictures_that_show_too_little(width: int | None, height: int | None, expected: list[ReasonCode]) -> None:
    """
    Too small or too stretched is a reason to abstain; the limits themselves are allowed.
    """
    facts = FACTS.model_copy(update={"width": width, "height": height})
    neighbourhood = a_neighbourhood({"real": [0.2], "ai_generated": [0.9]})

    assert codes(judged(neighbourhood, facts, min_side_px=32, max_aspect=20)) == expected


@pytest.mark.parametrize("note", ["FRAMES_UNREACHED", "FRAMES_UNCOUNTED"])
def test_an_animation_that_was_not_seen_whole_is_never_decided_to_be_real(note: str) -> None:
    """
    One generated frame is enough to decide; that there is none cannot be said where not every frame was seen.
    """
    partly = FACTS.model_copy(update={"warnings": ("ICC_DROPPED", note)})
    real, generated = ({"real": [one], "ai_generated": [other]} for one, other in ((0.9, 0.2), (0.2, 0.9)))

    assert codes(judged(a_neighbourhood(real), FACTS)) == [ReasonCode.NEAREST_NEIGHBOURS]
    assert codes(judged(a_neighbourhood(real), partly)) == [ReasonCode.FRAMES_UNSEEN]
    assert judged(a_neighbourhood(real), partly).status == "abstained"
    assert codes(judged(a_neighbourhood(generated), partly)) == [ReasonCode.NEAREST_NEIGHBOURS]


def test_every_reason_to_abstain_is_given() -> None:
    """
    An operator who mends one reason should know of the others.
    """
    judgement = judged(
        a_neighbourhood({"real": [0.10], "ai_generated": [0.11]}),
        FACTS.model_copy(update={"width": 5, "height": 5}),
        min_side_px=32,
        min_similarity=0.5,
        min_margin=0.3,
        labels={name: LabelRule(threshold=0.99, action=Action.NONE) for name in ("real", "ai_generated")},
    )

    assert codes(judgement) == [
        ReasonCode.IMAGE_TOO_SMALL,
        ReasonCode.LOW_COVERAGE,
        ReasonCode.LOW_MARGIN,
        ReasonCode.BELOW_THRESHOLD,
    ]


def test_an_exact_match_is_said_and_shown() -> None:
    """
    The upload's own bytes in the bank are marked, and the cap never hides them among equals.
    """
    twins = [Neighbour(an_entry(f"twin-{number}", GENERATED), 1.0) for number in range(8)]
    itself = Neighbour(an_entry("the upload", GENERATED, id="zz-last"), 1.0)
    neighbourhood = Neighbourhood(
        nearest={REAL: (Neighbour(an_entry("far"), 0.1),), GENERATED: (*twins, itself)}, sizes={REAL: 9, GENERATED: 9}
    )
    judgement = judged(neighbourhood, rule_max_neighbours=3)

    assert codes(judgement) == [ReasonCode.NEAREST_NEIGHBOURS, ReasonCode.EXACT_MATCH]
    assert next((shown.entry_id, shown.exact) for shown in judgement.evidence.neighbours) == ("zz-last", True)
    assert [shown.rank for shown in judgement.evidence.neighbours] == [1, 2, 3]


def test_evidence_counts_what_voted() -> None:
    """
    Per label: how many there are, how many voted, their share, the nearest and the mean.
    """
    sizes = {"real": 40, "ai_generated": 40}
    neighbourhood = a_neighbourhood({"real": [0.9, 0.5, 0.1, 0.0], "ai_generated": [0.8, 0.2, 0.1, 0.0]}, sizes)
    evidence = judged(neighbourhood, rule_k=2).evidence

    assert evidence.voted == 4
    assert evidence.per_label["real"].votes == 2
    assert evidence.per_label["real"].entries == 40
    assert evidence.per_label["real"].mean_similarity == pytest.approx(0.7)
    assert evidence.per_label["ai_generated"].max_similarity == 0.8
    assert sum(label.share for label in evidence.per_label.values()) == pytest.approx(1)


def test_both_rules_are_reported_and_either_may_decide() -> None:
    """
    One near generated reference against many good real ones: the paper's rule and the vote differ.
    """
    neighbourhood = a_neighbourhood({"real": [0.79] * 9, "ai_generated": [0.80, *[0.3] * 8]})
    by_vote = judged(neighbourhood)
    by_nearest = judged(neighbourhood, rule_name="nearest_neighbour")

    assert (REAL, GENERATED) == (by_vote.label, by_nearest.label)
    assert [component.name for component in by_vote.scores] == ["soft_vote", "nearest_neighbour"]
    assert by_vote.scores == by_nearest.scores
    assert by_vote.scores[1].value == pytest.approx(0.01)
    assert by_nearest.score == pytest.approx(1 / (1 + math.exp(-0.01 / 0.07)))
    assert by_vote.evidence == by_nearest.evidence


def test_more_than_two_labels() -> None:
    """
    A question of three labels is decided like one of two; the paper's score compares with the best of the others.
    """
    neighbourhood = a_neighbourhood({"cat": [0.2], "dog": [0.8], "ai_generated": [0.5]})
    rule = Rule()
    labels = {name: LabelRule(threshold=0.4, action=Action.NONE) for name in ("cat", "dog", "ai_generated")}
    judgement = decide(neighbourhood, FACTS, terms=Terms(rule, a_surface(labels=labels), GENERATED))

    assert judgement.label == Label("dog")
    assert judgement.scores[1].value == pytest.approx(-0.3)


def test_a_label_of_which_nothing_was_found_counts_as_far_as_can_be() -> None:
    """
    An approximate index may find none of a label: that must not look like a near one.
    """
    neighbourhood = a_neighbourhood({"real": [0.3], "ai_generated": []}, {"real": 5, "ai_generated": 5})

    assert nearest_difference(neighbourhood, GENERATED) == pytest.approx(-1.3)
    assert judged(neighbourhood, rule_name="nearest_neighbour").score == 0.0


def test_coverage_is_of_the_kth_over_all_labels() -> None:
    """
    The labels are merged before counting, and a bank smaller than k gives its last.
    """
    neighbourhood = a_neighbourhood({"real": [0.9, 0.1], "ai_generated": [0.8, 0.7]})

    assert coverage(neighbourhood, 3) == 0.7
    assert coverage(neighbourhood, 100) == 0.1


def test_thresholds_are_reported_as_applied() -> None:
    """
    A verdict of a failed upload reports the same numbers as a judged one.
    """
    terms = Terms(Rule(k=3, temperature=0.2), a_surface(min_margin=0.1), GENERATED)
    neighbourhood = a_neighbourhood({"real": [0.3], "ai_generated": [0.9]})
    judgement = decide(neighbourhood, FACTS, terms=terms)

    assert judgement.thresholds == thresholds_of(terms, None)
    assert judgement.thresholds.rule == "soft_vote"
    assert (3, 0.2, 0.1) == (judgement.thresholds.k, judgement.thresholds.temperature, judgement.thresholds.min_margin)
